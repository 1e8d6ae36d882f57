"""The end of a node: it is one, whoever asks for it, and whatever happens to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp import (
    Address,
    Identity,
    Incoming,
    MemoryLookup,
    Node,
    NodeClosed,
    NodeConfig,
    NodeId,
    OutcomeUnknown,
    Published,
    PublishFailed,
    SignedCommRecord,
    TCPStrat,
)
from tests.node.at_hand import Config, Eventually, Held, Problems, Start, engine_of

BUFFER_BYTES = 5_000


class Slow:
    """A handler that is told to end, and ends when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, _: Incoming) -> bytes:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
            await self.may_end.wait()
        return b""


async def ends(task: Awaitable[Any]) -> None:
    async with asyncio.timeout(2):
        await task


async def test_a_close_that_is_cancelled_comes_to_its_end_all_the_same(
    start: Start, greeter: Node
) -> None:
    node, slow = await start(), Slow()
    node.handle("slow", slow)
    await node.query(greeter.node_id, "greet")
    await node.send(node.node_id, "slow")
    await slow.begun.wait()
    first = asyncio.ensure_future(node.close())
    await slow.cancelled.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.ensure_future(node.close())
    slow.may_end.set()
    await ends(second)
    assert (len(engine_of(node).comms), engine_of(node).comms.listening) == (0, [])


async def test_who_closes_a_node_that_is_being_closed_waits_for_the_same_end(start: Start) -> None:
    node, slow = await start(), Slow()
    node.handle("slow", slow)
    await node.send(node.node_id, "slow")
    await slow.begun.wait()
    closes = [asyncio.ensure_future(node.close()) for _ in range(2)]
    await slow.cancelled.wait()
    assert not any(one.done() for one in closes)
    slow.may_end.set()
    for one in closes:
        await ends(one)
    assert engine_of(node).comms.listening == []


async def test_what_a_closing_node_waits_for_does_not_hold_up_open_queries(
    start: Start, greeter: Node
) -> None:
    asked, may_end = asyncio.Event(), asyncio.Event()

    class SlowToEnd(MemoryLookup):
        async def publish(self, record: SignedCommRecord) -> Published:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                await may_end.wait()
            return await super().publish(record)

    slow = Slow()
    slow.may_end.set()
    greeter.handle("slow", slow)
    node = await start(listen=(), lookup=SlowToEnd())
    node.add_contact(greeter.record)
    query = asyncio.ensure_future(node.query(greeter.node_id, "slow"))
    await slow.begun.wait()
    await asked.wait()
    closing = asyncio.ensure_future(node.close())
    with pytest.raises(NodeClosed) as closed:
        await ends(query)
    assert closed.value.may_have_run
    assert not closing.done()
    may_end.set()
    await ends(closing)


async def test_a_handler_that_closes_a_node_that_is_being_closed_does_not_wait_for_itself(
    start: Start,
) -> None:
    node = await start()
    begun, closed = asyncio.Event(), asyncio.Event()

    @node.handler("tidy")
    async def tidy(_: Incoming) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await node.close()
            closed.set()

    await node.send(node.node_id, "tidy")
    await begun.wait()
    await ends(node.close())
    assert closed.is_set()


async def test_a_program_that_ends_while_a_node_is_being_closed_leaves_no_socket(
    start: Start, greeter: Node
) -> None:
    """As ``asyncio.run`` ends it: everything is cancelled, the closing of the node too."""
    node, slow = await start(), Slow()
    node.handle("slow", slow)
    await node.query(greeter.node_id, "greet")
    await node.send(node.node_id, "slow")
    await slow.begun.wait()
    closing = asyncio.ensure_future(node.close())
    await slow.cancelled.wait()
    closing_task = engine_of(node)._ending._closing
    assert closing_task is not None
    closing_task.cancel()
    slow.may_end.set()
    await ends(closing)
    assert (len(engine_of(node).comms), engine_of(node).comms.listening) == (0, [])
    await node.close()


async def test_a_program_that_ends_while_connections_are_being_closed_leaves_none(
    start: Start, eventually: Eventually
) -> None:
    async def never_ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await may_end.wait()

    may_end = asyncio.Event()
    async with await asyncio.start_server(never_ends, "127.0.0.1", 0) as server:
        node = await start(listen=())
        address = Address.of(*server.sockets[0].getsockname())
        connection = engine_of(node).comms.open(TCPStrat(address))
        await eventually(lambda: connection.is_open)
        closing = asyncio.ensure_future(node.close())
        await eventually(lambda: connection.is_closing)
        engine_of(node)._ending._closing.cancel()
        await ends(closing)
        assert (connection.is_closed, len(engine_of(node).comms)) == (True, 0)
        may_end.set()


async def test_sends_that_wait_on_a_path_end_at_once(
    start: Start, greeter: Node, config: Callable[..., NodeConfig]
) -> None:
    node = await start(listen=(), config=config(connection_buffer_bytes_max=BUFFER_BYTES))
    await node.query(greeter.node_id, "greet")
    node.throttle(send_bytes_per_s=1)
    path = engine_of(node).book.get(greeter.node_id).best_path
    assert path is not None
    body = bytes(BUFFER_BYTES)
    sends = [asyncio.ensure_future(node.send(greeter.node_id, "tell", body)) for _ in range(8)]
    await asyncio.sleep(0)
    assert path.outbox.messages
    await node.close()
    for send in sends[1:]:
        with pytest.raises(NodeClosed) as closed:
            await ends(send)
        assert not closed.value.may_have_run


async def test_a_search_that_nobody_wants_any_more_is_waited_for(
    start: Start, identity: Callable[[], Identity]
) -> None:
    """What it asks of a lookup service takes its time to end."""
    unknown = identity().node_id
    asked, cancelled, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class SlowToEnd(MemoryLookup):
        async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
            if peer_id == unknown:
                asked.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()
                    await may_end.wait()
            return await super().resolve(peer_id, newer_than=newer_than)

    node = await start(listen=(), lookup=SlowToEnd())
    await node.published()
    query = node.open_query(unknown, "x")
    await asked.wait()
    query.cancel()
    await cancelled.wait()
    closing = asyncio.ensure_future(node.close())
    for _ in range(100):  # many more turns than it takes to close a node that does nothing
        await asyncio.sleep(0)
    assert not closing.done()
    may_end.set()
    await ends(closing)


# Closed while it starts


async def test_a_node_that_is_closed_while_it_starts_has_not_started(
    problems: Problems, identity: Callable[[], Identity], config: Callable[..., NodeConfig]
) -> None:
    node = Node(identity(), listen="127.0.0.1:0", lookup=MemoryLookup(), config=config())
    starting = asyncio.ensure_future(node.start())
    await asyncio.sleep(0)
    await node.close()
    with pytest.raises(NodeClosed):
        await ends(starting)
    assert engine_of(node).comms.listening == []
    assert problems == []


async def test_a_node_whose_start_fails_when_it_listens_already_is_closed(
    problems: Problems, identity: Callable[[], Identity], config: Callable[..., NodeConfig]
) -> None:
    class Broken:
        def __init__(self) -> None:
            self.forgotten: list[object] = []

        def meet_relay_servers(self, introduce: object) -> None:
            raise RuntimeError("no")

        def forget(self, introduce: object) -> None:
            self.forgotten.append(introduce)

    broken = Broken()
    node = Node(identity(), listen="127.0.0.1:0", discovery=broken, config=config())
    with pytest.raises(RuntimeError, match="no"):
        await node.start()
    assert engine_of(node).comms.listening == []
    assert len(broken.forgotten) == 1
    with pytest.raises(NodeClosed):
        _ = node.listening
    assert problems == []


async def test_a_node_that_is_closed_while_it_begins_to_listen_elsewhere_listens_nowhere(
    start: Start,
) -> None:
    node = await start()
    listening = asyncio.ensure_future(node.listen(["127.0.0.1:0", "127.0.0.2:0"]))
    await asyncio.sleep(0)
    await node.close()
    with pytest.raises(NodeClosed):
        await ends(listening)
    assert engine_of(node).comms.listening == []


async def test_who_waits_to_be_published_is_told_of_the_end_that_comes_in_the_same_turn(
    start: Start,
) -> None:
    node = await start()
    publisher = engine_of(node).publisher
    publisher._published = None
    waiting = asyncio.ensure_future(node.published())
    await asyncio.sleep(0)
    publisher._stored_or_closed.set()
    await publisher.close()
    with pytest.raises(PublishFailed):
        async with asyncio.timeout(5):
            await waiting


async def test_a_mistake_in_a_part_of_closing_is_told_and_leaves_no_connection_open(
    start: Start, greeter: Node, problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start()
    await node.query(greeter.node_id, "greet")
    engine = engine_of(node)
    ends_well = engine.publisher.close

    async def mistaken() -> None:
        await ends_well()
        raise KeyError("a mistake")

    monkeypatch.setattr(engine.publisher, "close", mistaken)
    await ends(node.close())
    assert (len(engine.comms), engine.comms.listening) == (0, [])
    assert [type(problem["exception"]) for problem in problems] == [KeyError]
    problems.clear()


# What becomes of queries


async def test_closing_ends_open_queries_with_node_closed(
    start: Start, config: Config, identity: Callable[[], Identity]
) -> None:
    class Hanging(MemoryLookup):
        async def resolve(self, peer_id: Any, *, newer_than: int = 0) -> Any:
            if peer_id == unknown:
                await asyncio.Event().wait()
            return await super().resolve(peer_id, newer_than=newer_than)

    unknown = identity().node_id
    hanging = Hanging()
    node, stuck = await start(lookup=hanging), Held()
    node.handle("stuck", stuck)
    await node.published()
    other = await start(listen=(), lookup=hanging)
    given = asyncio.ensure_future(other.query(node.node_id, "stuck"))
    searching = asyncio.ensure_future(other.query(unknown, "x"))
    sending = asyncio.ensure_future(other.send(unknown, "x"))
    await stuck.called.wait()
    await other.close()
    for task, may_have_run in ((given, True), (searching, False), (sending, False)):
        async with asyncio.timeout(2):
            with pytest.raises(NodeClosed) as closed:
                await task
        assert closed.value.may_have_run is may_have_run
    with pytest.raises(NodeClosed):
        await other.query(node.node_id, "stuck")
    await other.close()


async def test_closing_the_answering_node_cancels_its_handlers(start: Start) -> None:
    node, stuck = await start(), Held()
    node.handle("stuck", stuck)
    other = await start(listen=())
    task = asyncio.ensure_future(other.query(node.node_id, "stuck", hard_timeout_s=60))
    await stuck.called.wait()
    await node.close()
    assert stuck.cancelled.is_set()
    with pytest.raises(OutcomeUnknown, match="was closed after it had been given 'stuck'; it may"):
        await task


async def test_closing_the_asking_node_cancels_the_handlers_that_work_for_it(start: Start) -> None:
    node, other, held = await start(), await start(listen=()), Held()
    node.handle("ask", held)
    query = other.open_query(node.node_id, "ask")
    await held.called.wait()
    await other.close()
    with pytest.raises(NodeClosed):
        await query
    async with asyncio.timeout(5):
        await held.cancelled.wait()


async def test_a_handler_may_close_its_own_node(start: Start, problems: Problems) -> None:
    node = await start()
    closed = asyncio.Event()

    @node.handler("shutdown")
    async def shutdown(message: Incoming) -> None:
        try:
            await node.close()
        finally:
            closed.set()

    other = await start(listen=())
    await other.send(node.node_id, "shutdown")
    async with asyncio.timeout(2):
        await closed.wait()
    await node.close()
    assert len(engine_of(node).comms) == 0
    assert problems == []


async def test_a_node_that_was_not_started_says_so(identity: Callable[[], Identity]) -> None:
    node = Node(identity())
    with pytest.raises(NodeClosed, match="not started"):
        await node.query(node.node_id, "x")
    await node.close()


async def test_closing_twice_at_once_is_the_same_as_once(start: Start, greeter: Node) -> None:
    node = await start()
    await node.query(greeter.node_id, "greet")
    await asyncio.gather(node.close(), node.close())

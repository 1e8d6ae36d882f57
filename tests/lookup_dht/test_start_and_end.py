"""Nodes that start, move and close, at any moment, leave neither socket nor task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from egtp.errors import LocalProtocolError, NodeClosed, WrongLoop
from egtp.values.identity import Identity
from lookup_dht import DHTLimits, DHTLookup
from lookup_dht.wire.datagram import Method
from tests.lookup_dht.at_hand import Sign, Start


async def test_a_cancelled_publish_stores_no_further(
    start: Start, open_raw: Callable[..., Awaitable[Any]], identity: Identity, sign: Sign
) -> None:
    deaf = await open_raw()
    deaf.answer = deaf.as_server
    limits = DHTLimits(reply_timeout_min_s=60, reply_timeout_max_s=60)
    node = await start(f"{deaf.address[0]}:{deaf.address[1]}", limits=limits)
    tasks = asyncio.all_tasks()
    storing = asyncio.Event()

    def answer(data: bytes) -> bytes | None:
        if Method.STORE.value.encode() in data:
            storing.set()
            return None
        reply: bytes = deaf.as_server(data)
        return reply

    deaf.answer = answer
    call = asyncio.create_task(node.publish(sign(identity, 5)))
    async with asyncio.timeout(5):
        await storing.wait()
        call.cancel()
        await asyncio.wait([call, *asyncio.all_tasks() - tasks - {call}])
    assert call.cancelled()
    assert len(node._node.protocol.asker.queries) == 0


async def test_closing_ends_open_calls_and_leaves_no_task(
    start: Start, open_raw: Callable[..., Awaitable[Any]], identity: Identity, sign: Sign
) -> None:
    tasks = asyncio.all_tasks()
    silent = await open_raw()
    silent.answer = silent.as_server
    node = await start(f"{silent.address[0]}:{silent.address[1]}")
    silent.answer = None
    calls = [
        asyncio.create_task(node.resolve(identity.node_id)),
        asyncio.create_task(node.publish(sign(identity, 5))),
    ]
    async with asyncio.timeout(5):
        for _ in calls:
            await silent.received.get()
    await node.close()
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, NodeClosed)
    assert asyncio.all_tasks() == tasks
    await node.close()
    for attempt in (node.resolve(identity.node_id), node.rebind("127.0.0.1:0")):
        with pytest.raises(NodeClosed):
            await attempt


@pytest.mark.parametrize("turns", range(5))
async def test_a_move_that_is_cancelled_leaves_a_node_that_talks(start: Start, turns: int) -> None:
    """By the socket that it had, or by the new one if it has that already."""
    other = await start()
    node = await start(other)
    moving = asyncio.ensure_future(node.rebind("127.0.5.1:0"))
    for _ in range(turns):
        await asyncio.sleep(0)
    moving.cancel()
    await asyncio.wait([moving])
    happened, _ = await node._node.protocol.ping(other._node.bound, node.node_id)
    assert happened


async def test_moves_at_the_same_time_follow_each_other_and_leave_one_socket(start: Start) -> None:
    node = await start()
    await asyncio.gather(node.rebind("127.0.5.1:0"), node.rebind("127.0.5.2:0"))
    assert node.address.host == "127.0.5.2"
    assert node._node.protocol._sockets_open == 1
    async with asyncio.timeout(5):
        await node.close()
    assert node._node.protocol._sockets_open == 0


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("doing", ["starting", "moving"])
async def test_closing_meanwhile_leaves_neither_socket_nor_task(doing: str, turns: int) -> None:
    """Whether the socket is open by then or not."""
    tasks = asyncio.all_tasks()
    node = DHTLookup("127.0.5.3:0", private_addresses=True)
    if doing == "moving":
        await node.start()
        call = asyncio.ensure_future(node.rebind("127.0.5.4:0"))
    else:
        call = asyncio.ensure_future(node.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await node.close()
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
    assert outcome is None or isinstance(outcome, NodeClosed)
    assert node._node.protocol._sockets_open == 0
    assert asyncio.all_tasks() == tasks


async def cancelled_after(turns: int, call: Coroutine[Any, Any, None]) -> None:
    """Make a call, and cancel it so many turns of the loop later."""
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_closing_waits_until_the_last_socket_is_gone(start: Start) -> None:
    """One that still has something to send stays open for a while."""
    node = await start()
    protocol = node._node.protocol
    protocol.connection_made(protocol._socket)  # As if it were another one.
    closing = asyncio.ensure_future(node.close())
    while protocol._sockets_open > 1:
        await asyncio.sleep(0)
    await asyncio.wait([closing], timeout=0.01)
    assert not closing.done()
    protocol.connection_lost(None)
    async with asyncio.timeout(5):
        await closing


@pytest.mark.parametrize("turns", range(5))
async def test_a_start_that_is_cancelled_leaves_a_node_that_can_be_closed(turns: int) -> None:
    node = DHTLookup("127.0.5.6:0", private_addresses=True)
    await cancelled_after(turns, node.start())
    async with asyncio.timeout(5):
        await node.close()
    assert node._node.protocol._sockets_open == 0


async def test_who_logs_everything_reads_nothing_of_upstream(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    node = await start()
    await node.rebind("127.0.5.8:0")
    assert [record for record in caplog.records if record.name.startswith("kademlia")] == []


async def test_who_starts_twice_at_the_same_time_is_told_and_starts_once() -> None:
    node = DHTLookup("127.0.5.5:0", private_addresses=True)
    outcomes = await asyncio.gather(node.start(), node.start(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), LocalProtocolError]
    assert node._node.protocol._sockets_open == 1
    await node.close()
    with pytest.raises(NodeClosed):
        await node.start()


@pytest.mark.parametrize("turns", range(4))
async def test_a_close_that_was_cancelled_is_ended_by_the_next(start: Start, turns: int) -> None:
    node = await start()
    await cancelled_after(turns, node.close())
    async with asyncio.timeout(5):
        await node.close()
    assert node._node.protocol._sockets_open == 0
    assert not node._node._tasks


async def test_r15_a_call_on_another_loop_raises_at_once(
    start: Start, identity: Identity, sign: Sign
) -> None:
    node, record = await start(), sign(identity, 1)

    def elsewhere() -> list[object]:
        async def all_of_them() -> list[object]:
            calls = [
                node.resolve(identity.node_id),
                anext(node.resolve_stream(identity.node_id)),
                node.publish(record),
                node.rebind("127.0.5.7:0"),
                node.close(),
            ]
            async with asyncio.timeout(5):
                return await asyncio.gather(*calls, return_exceptions=True)

        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(all_of_them())
        finally:
            loop.close()

    with ThreadPoolExecutor(1) as threads:
        outcomes = threads.submit(elsewhere).result()
    assert [type(outcome) for outcome in outcomes] == [WrongLoop] * 5
    await node.publish(record)


async def test_a_lost_client_that_gets_no_other_port_goes_on_with_its_own(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = DHTLimits(reply_timeout_min_s=0.01, reply_timeout_max_s=0.01)
    node = await start("127.0.5.9:9", server=False, limits=limits)
    address, greeted = node.address, node.counters["sent_ping"]
    node._node.joining._delay_s = limits.upkeep_interval_s

    async def refused(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_datagram_endpoint", refused)
    assert await node._node.bootstrap() == []
    assert node.address == address
    assert node.counters["sent_ping"] > greeted
    assert node.counters["port_changed"] == 0
    monkeypatch.undo()
    await node._node.bootstrap()
    assert node.address != address
    assert node.counters["port_changed"] == 1


async def test_a_lost_server_stays_where_others_know_it(start: Start) -> None:
    limits = DHTLimits(reply_timeout_min_s=0.01, reply_timeout_max_s=0.01)
    node = await start("127.0.5.9:9", limits=limits)
    address = node.address
    node._node.joining._delay_s = limits.upkeep_interval_s
    assert await node._node.bootstrap() == []
    assert node.address == address

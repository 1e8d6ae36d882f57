"""Every query has exactly one outcome, and it says the truth."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from egtp import (
    AttemptReason,
    FastFail,
    HandlerFailed,
    HardTimeout,
    Identity,
    Incoming,
    LocalProtocolError,
    LookupFailed,
    MemoryLookup,
    Node,
    NodeClosed,
    NodeConfig,
    ReplyCode,
    TCPStrat,
    WrongLoop,
)
from egtp.engine.asking import KINDS_KEPT
from tests.node.at_hand import Config, Eventually, Problems, Start, engine_of

MIB = 1024 * 1024


def check_nothing_is_kept_of_queries(node: Node) -> None:
    engine = engine_of(node)
    assert len(engine.exchanges) == 0
    assert engine.exchanges.next_deadline_s() is None
    for peer in engine.book.all():
        assert not peer.waiting
        assert peer.waiting_bytes == 0
        assert not any(path.outbox for path in peer.paths)


class Stuck:
    """A handler that never answers, and tells what happens to it."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls = 0

    async def __call__(self, query: Incoming) -> bytes:
        self.calls += 1
        self.called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""


# Replies


async def test_a_query_gets_its_reply(start: Start, greeter: Node) -> None:
    node = await start(listen=())
    assert await node.query(greeter.node_id, "greet", b"world") == b"hello world"
    check_nothing_is_kept_of_queries(node)


async def test_both_ends_of_a_connection_ask(start: Start, greeter: Node) -> None:
    node = await start(listen=())

    @node.handler("name")
    async def name(query: Incoming) -> bytes:
        return b"I am " + query.peer_id

    @greeter.handler("who")
    async def who(query: Incoming) -> bytes:
        return await greeter.query(query.peer_id, "name")

    assert await node.query(greeter.node_id, "who") == b"I am " + greeter.node_id


async def test_a_handler_is_told_who_asks_and_what(start: Start) -> None:
    told: list[Incoming] = []
    node, other = await start(), await start()

    @node.handler("tell")
    async def tell(query: Incoming) -> None:
        told.append(query)

    assert await other.query(node.node_id, "tell", b"body") == b""
    assert (told[0].peer_id, told[0].kind, told[0].body) == (other.node_id, "tell", b"body")
    assert told[0].wants_reply
    assert told[0].reply_bytes_max == other.config.body_bytes_max
    assert 0 <= told[0].age_s < 5


async def test_500_queries_at_once_each_get_their_own_reply(start: Start, greeter: Node) -> None:
    node = await start(listen=())
    bodies = [b"%d" % number for number in range(500)]
    replies = await asyncio.gather(*(node.query(greeter.node_id, "greet", body) for body in bodies))
    assert replies == [b"hello " + body for body in bodies]
    assert len(engine_of(node).comms) == 1
    check_nothing_is_kept_of_queries(node)


async def test_200_queries_of_40_kib_at_once_each_get_their_own_reply(
    start: Start, greeter: Node
) -> None:
    """More large messages than one path may have under way in chunks at a time."""
    node = await start(listen=())
    bodies = [number.to_bytes(2, "big") * 20_000 for number in range(200)]
    replies = await asyncio.gather(
        *(node.query(greeter.node_id, "greet", body, hard_timeout_s=5) for body in bodies)
    )
    assert replies == [b"hello " + body for body in bodies]


async def test_more_than_the_other_side_reassembles_at_a_time_arrives_all_the_same(
    start: Start, config: Config
) -> None:
    small = config(body_bytes_max=MIB, reassembly_bytes_max=MIB)
    node = await start(config=small)

    @node.handler("size")
    async def size(query: Incoming) -> bytes:
        return b"%d" % len(query.body)

    other = await start(listen=())
    await other.query(node.node_id, "size")
    replies = await asyncio.gather(
        *(other.query(node.node_id, "size", bytes(MIB - n), hard_timeout_s=5) for n in range(4))
    )
    assert replies == [b"%d" % (MIB - n) for n in range(4)]


@pytest.mark.parametrize("warm", [False, True])
async def test_5_mib_go_both_ways_and_delay_no_small_query_until_their_end(
    start: Start, warm: bool
) -> None:
    node, other = await start(), await start(listen=())
    order: list[str] = []

    @node.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    async def ask(name: str, body: bytes) -> bytes:
        reply = await other.query(node.node_id, "echo", body)
        order.append(name)
        return reply

    if warm:
        await other.query(node.node_id, "echo")
    large = bytes(range(256)) * (5 * MIB // 256)
    replies = await asyncio.gather(
        ask("large", large), *(ask("small", b"%d" % number) for number in range(20))
    )
    assert replies == [large, *(b"%d" % number for number in range(20))]
    assert order[-1] == "large"


@pytest.mark.parametrize("size", [16_000, 16_300, 16_384, 16_500, 65_000, 65_536, 100_000])
async def test_a_first_query_of_any_size_gets_through(start: Start, size: int) -> None:
    """The first packet of a connection comes before its sender is confirmed."""
    node, other = await start(), await start(listen=())

    @node.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    body = bytes(range(250)) * (size // 250 + 1)
    assert await other.query(node.node_id, "echo", body[:size], hard_timeout_s=3) == body[:size]


async def test_a_body_of_exactly_the_limit_passes_both_ways(start: Start, config: Config) -> None:
    settings = config(body_bytes_max=100_000)
    node, other = await start(config=settings), await start(config=settings, listen=())

    @node.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    assert await other.query(node.node_id, "echo", bytes(100_000)) == bytes(100_000)


async def test_a_query_to_oneself_is_answered_without_a_socket(greeter: Node) -> None:
    assert await greeter.query(greeter.node_id, "greet", b"me") == b"hello me"
    assert len(engine_of(greeter).comms) == 0
    with pytest.raises(HandlerFailed) as failed:
        await greeter.query(greeter.node_id, "unknown")
    assert failed.value.code == ReplyCode.NO_SUCH_KIND


async def test_cancelling_a_query_to_oneself_cancels_the_handler(start: Start) -> None:
    node, stuck = await start(), Stuck()
    node.handle("stuck", stuck)
    task = asyncio.ensure_future(node.query(node.node_id, "stuck"))
    await stuck.called.wait()
    task.cancel()
    async with asyncio.timeout(2):
        await stuck.cancelled.wait()


# HandlerFailed


async def test_no_handler_for_the_kind_is_said_at_once(start: Start, greeter: Node) -> None:
    node = await start(listen=())
    with pytest.raises(HandlerFailed) as failed:
        await node.query(greeter.node_id, "no-such-kind")
    assert failed.value.code == ReplyCode.NO_SUCH_KIND
    assert await node.query(greeter.node_id, "greet") == b"hello "


async def test_a_handler_that_raises_tells_the_asker_only_that_it_did(
    start: Start, greeter: Node, problems: Problems
) -> None:
    @greeter.handler("raise")
    async def raise_(query: Incoming) -> bytes:
        raise RuntimeError("a secret of the implementation")

    node = await start(listen=())
    with pytest.raises(HandlerFailed) as failed:
        await node.query(greeter.node_id, "raise")
    assert failed.value.code == ReplyCode.HANDLER_ERROR
    assert failed.value.body == b""
    assert "secret" not in str(failed.value)
    assert [type(problem["exception"]) for problem in problems] == [RuntimeError]
    problems.clear()
    assert await node.query(greeter.node_id, "greet") == b"hello "


async def test_a_handler_may_answer_with_a_code_and_body_of_its_own(
    start: Start, greeter: Node
) -> None:
    @greeter.handler("fail")
    async def fail(query: Incoming) -> bytes:
        raise HandlerFailed(77, b"details")

    node = await start(listen=())
    with pytest.raises(HandlerFailed) as failed:
        await node.query(greeter.node_id, "fail")
    assert (failed.value.code, failed.value.body) == (77, b"details")


@pytest.mark.parametrize("code", [0, -1, 1, 3, 63, 128, 404, 99999])
async def test_a_code_that_is_not_the_applications_arrives_as_a_handler_error(
    start: Start, greeter: Node, code: int, problems: Problems
) -> None:
    @greeter.handler("fail")
    async def fail(query: Incoming) -> bytes:
        raise HandlerFailed(code)

    node = await start(listen=())
    with pytest.raises(HandlerFailed) as failed:
        await node.query(greeter.node_id, "fail", hard_timeout_s=2)
    assert failed.value.code == ReplyCode.HANDLER_ERROR
    (problem,) = problems
    assert (
        str(problem["exception"])
        == f"a handler answers with a code of its own of 64 to 127, not {code}"
    )
    problems.clear()


async def test_what_became_of_a_query_that_a_handler_asked_is_not_said_of_the_handler(
    start: Start, greeter: Node, problems: Problems
) -> None:
    """Or else whoever is told "no such kind" would believe that it has not run, and ask again."""
    node, ran = await start(listen=()), []

    async def pay(query: Incoming) -> bytes:
        ran.append(query.body)
        return await forwarder.query(greeter.node_id, "no-such-kind", query.body)

    forwarder = await start()
    forwarder.handle("pay", pay)
    with pytest.raises(HandlerFailed) as failed:
        await node.query(forwarder.node_id, "pay", b"1")
    assert ran == [b"1"]
    assert (failed.value.code, failed.value.may_have_run) == (ReplyCode.HANDLER_ERROR, True)
    assert forwarder.counters["handler raised"] == 1
    (problem,) = problems
    assert isinstance(problem["exception"].__cause__, HandlerFailed)
    problems.clear()


async def test_a_handler_that_fails_with_text_leaves_nobody_waiting(
    start: Start, greeter: Node, problems: Problems
) -> None:
    @greeter.handler("fail")
    async def fail(query: Incoming) -> bytes:
        raise HandlerFailed(77, "text")  # type: ignore[arg-type]

    node = await start(listen=())
    with pytest.raises(HandlerFailed):
        await node.query(greeter.node_id, "fail", hard_timeout_s=2)
    problems.clear()


async def test_a_handler_whose_own_wait_is_cancelled_leaves_nobody_waiting(
    start: Start, greeter: Node, problems: Problems
) -> None:
    @greeter.handler("fail")
    async def fail(query: Incoming) -> bytes:
        inner: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        inner.cancel()
        return await inner

    node = await start(listen=())
    with pytest.raises(HandlerFailed):
        await node.query(greeter.node_id, "fail", hard_timeout_s=2)
    problems.clear()


async def test_a_handler_that_returns_no_bytes_is_a_handler_error(
    start: Start, greeter: Node, problems: Problems
) -> None:
    @greeter.handler("text")
    async def text(query: Incoming) -> bytes:
        return "text"  # type: ignore[return-value]

    node = await start(listen=())
    with pytest.raises(HandlerFailed) as failed:
        await node.query(greeter.node_id, "text")
    assert failed.value.code == ReplyCode.HANDLER_ERROR
    assert problems
    problems.clear()


async def test_a_reply_larger_than_the_asker_takes_is_said_to_be_too_large(
    start: Start, config: Config
) -> None:
    node = await start()

    @node.handler("much")
    async def much(query: Incoming) -> bytes:
        return bytes(1001)

    other = await start(config=config(body_bytes_max=1000))
    with pytest.raises(HandlerFailed) as failed:
        await other.query(node.node_id, "much")
    assert failed.value.code == ReplyCode.TOO_LARGE
    assert node.counters["reply too large for its asker"] == 1


async def test_more_queries_than_the_peer_takes_fail_fast(start: Start, config: Config) -> None:
    node, stuck = await start(config=config(open_queries_max=3)), Stuck()
    node.handle("stuck", stuck)
    other = await start(listen=())
    tasks = [asyncio.ensure_future(other.query(node.node_id, "stuck")) for _ in range(4)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    (outcome,) = (task.exception() for task in done)
    assert isinstance(outcome, FastFail)
    assert "takes 3 open queries" in str(outcome)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.reaches_in
async def test_a_peer_that_asks_more_than_it_was_told_to_is_answered_busy(
    start: Start, config: Config
) -> None:
    node, stuck = await start(config=config(open_queries_max=3)), Stuck()
    node.handle("stuck", stuck)
    other = await start(listen=())
    first = other.open_query(node.node_id, "stuck")
    await stuck.called.wait()
    engine = engine_of(other)
    path = engine.book.get(node.node_id).direct
    assert path is not None
    path.limits = path.limits._replace(open_queries_max=100)
    others = [other.open_query(node.node_id, "stuck") for _ in range(3)]
    done, _ = await asyncio.wait(
        [query.outcome for query in others], return_when=asyncio.FIRST_COMPLETED
    )
    (outcome,) = (query.exception() for query in done)
    assert isinstance(outcome, HandlerFailed)
    assert outcome.code == ReplyCode.BUSY
    for query in (first, *others):
        query.cancel()


async def test_more_queries_of_a_kind_than_may_run_at_once_are_answered_busy(
    start: Start, eventually: Eventually
) -> None:
    node, release, calls = await start(), asyncio.Event(), 0

    async def slow(query: Incoming) -> bytes:
        nonlocal calls
        calls += 1
        await release.wait()
        return b"done"

    node.handle("slow", slow, at_once_max=2)
    one, two = await start(listen=()), await start(listen=())
    running = [one.open_query(node.node_id, "slow"), two.open_query(node.node_id, "slow")]
    await eventually(lambda: calls == 2)
    with pytest.raises(HandlerFailed) as failed:
        await two.query(node.node_id, "slow")
    assert failed.value.code == ReplyCode.BUSY
    release.set()
    assert await asyncio.gather(*running) == [b"done", b"done"]
    assert await two.query(node.node_id, "slow") == b"done"


# Timeouts


async def test_a_hard_timeout_frees_everything_and_says_that_the_query_may_have_run(
    start: Start,
) -> None:
    node, stuck = await start(), Stuck()
    node.handle("stuck", stuck)
    other = await start(listen=())
    started = time.monotonic()
    with pytest.raises(HardTimeout) as timeout:
        await other.query(node.node_id, "stuck", hard_timeout_s=0.2)
    assert 0.19 < time.monotonic() - started < 1
    assert timeout.value.may_have_run
    check_nothing_is_kept_of_queries(other)


async def test_a_hard_timeout_before_anything_was_given_to_a_socket_says_that_it_never_ran(
    start: Start,
) -> None:
    class Hanging(MemoryLookup):
        async def resolve(self, *args: Any, **options: Any) -> Any:
            await asyncio.Event().wait()

    node = await start(lookup=Hanging())
    with pytest.raises(HardTimeout) as timeout:
        await node.query(Identity.generate(bytes).node_id, "x", hard_timeout_s=0.1)
    assert not timeout.value.may_have_run
    check_nothing_is_kept_of_queries(node)


async def test_a_reply_after_the_hard_timeout_is_dropped_and_counted(
    start: Start, eventually: Eventually
) -> None:
    node, other = await start(), await start(listen=())
    release = asyncio.Event()

    @node.handler("late")
    async def late(query: Incoming) -> bytes:
        while not release.is_set():
            # Nobody waits for it any more, so it is cancelled; it goes on all the same.
            with suppress(asyncio.CancelledError):
                await release.wait()
        return b"late"

    @node.handler("greet")
    async def greet(query: Incoming) -> bytes:
        return b"hello"

    with pytest.raises(HardTimeout):
        await other.query(node.node_id, "late", hard_timeout_s=0.1)
    release.set()
    await eventually(lambda: other.counters["reply with unknown reference"] == 1)
    assert await other.query(node.node_id, "greet") == b"hello"


async def test_a_soft_timeout_is_told_once_and_the_late_reply_still_counts(start: Start) -> None:
    node, other = await start(), await start(listen=())
    release = asyncio.Event()

    @node.handler("slow")
    async def slow(query: Incoming) -> bytes:
        await release.wait()
        return b"slow"

    told: list[str] = []
    query = other.open_query(
        node.node_id, "slow", soft_timeout_s=0.1, on_soft_timeout=lambda: told.append("soft")
    )
    async with asyncio.timeout(2):
        assert await query.soft_timeout() is True
    assert told == ["soft"]
    assert not query.done()
    release.set()
    assert await query == b"slow"
    assert told == ["soft"]


async def test_a_reply_before_the_soft_timeout_ends_the_wait_for_it(
    start: Start, greeter: Node
) -> None:
    node = await start(listen=())
    told: list[str] = []
    query = node.open_query(
        greeter.node_id, "greet", soft_timeout_s=5, on_soft_timeout=lambda: told.append("soft")
    )
    waiting = asyncio.ensure_future(query.soft_timeout())
    assert await query == b"hello "
    assert await waiting is False
    assert told == []


async def test_a_soft_timeout_callback_that_raises_hurts_no_other_query(
    start: Start, problems: Problems
) -> None:
    node, stuck = await start(), Stuck()
    node.handle("stuck", stuck)

    def clumsy() -> None:
        raise RuntimeError("clumsy callback")

    queries = [
        node.open_query(
            node.node_id, "stuck", hard_timeout_s=0.3, soft_timeout_s=0.1, on_soft_timeout=clumsy
        )
        for _ in range(3)
    ]
    ends = [node.open_query(node.node_id, "stuck", hard_timeout_s=0.1) for _ in range(3)]

    async def outcome(query: Any) -> BaseException:
        with pytest.raises(HardTimeout) as timeout:
            await query
        return timeout.value

    async with asyncio.timeout(2):
        await asyncio.gather(*map(outcome, queries + ends))
    assert len(problems) == 3
    problems.clear()


async def test_a_replacement_may_be_asked_after_the_soft_timeout_and_the_first_still_answers(
    start: Start, greeter: Node
) -> None:
    """The seed's impatience action (R6)."""
    node, other = await start(), await start(listen=())
    release = asyncio.Event()

    @node.handler("greet")
    async def greet(query: Incoming) -> bytes:
        await release.wait()
        return b"first"

    first = other.open_query(node.node_id, "greet", soft_timeout_s=0.05)
    assert await first.soft_timeout()
    assert await other.query(greeter.node_id, "greet", b"second") == b"hello second"
    release.set()
    assert await first == b"first"


# Cancellation


async def test_cancelling_frees_at_once_and_cancels_the_handler_at_the_other_end(
    start: Start,
) -> None:
    node, stuck = await start(), Stuck()
    node.handle("stuck", stuck)
    other = await start(listen=())
    task = asyncio.ensure_future(other.query(node.node_id, "stuck"))
    await stuck.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(engine_of(other).exchanges) == 0
    async with asyncio.timeout(2):
        await stuck.cancelled.wait()
    assert node.counters["cancelled by the asker"] == 1


async def test_cancelling_during_the_search_ends_the_search(
    start: Start, eventually: Eventually
) -> None:
    cancelled = asyncio.Event()

    class Hanging(MemoryLookup):
        async def resolve(self, *args: Any, **options: Any) -> Any:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    node = await start(lookup=Hanging())
    await asyncio.sleep(0)
    cancelled.clear()
    unknown = Identity.generate(bytes).node_id
    task = asyncio.ensure_future(node.query(unknown, "x"))
    await eventually(lambda: engine_of(node).book.find(unknown) is not None)
    task.cancel()
    async with asyncio.timeout(2):
        await cancelled.wait()
    check_nothing_is_kept_of_queries(node)


async def test_one_of_two_queries_waiting_for_a_path_is_cancelled_and_the_other_is_answered(
    start: Start, greeter: Node
) -> None:
    node = await start(listen=())
    tasks = [asyncio.ensure_future(node.query(greeter.node_id, "greet")) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await tasks[1] == b"hello "


# FastFail


async def fast_fail(query: Awaitable[object]) -> tuple[FastFail, float]:
    started = time.monotonic()
    with pytest.raises(FastFail) as failed:
        await query
    assert not failed.value.may_have_run
    return failed.value, time.monotonic() - started


async def test_a_refused_port_fails_fast_and_names_every_attempt(
    start: Start, lookup: MemoryLookup
) -> None:
    node, other = await start(), await start()
    record = node.record
    await node.close()
    failure, took_s = await fast_fail(other.query(node.node_id, "x"))
    assert took_s < 0.5
    refused, looked_up = failure.attempts
    assert isinstance(refused.strategy, TCPStrat)
    assert refused.strategy == record.tcp[0]
    assert refused.reason == "connection refused"
    assert 0 <= refused.duration_s < 0.5
    assert looked_up.strategy is None
    assert str(refused.strategy) in str(failure)
    assert "refused" in str(other.why(node.node_id))
    check_nothing_is_kept_of_queries(other)


async def test_nothing_known_and_nothing_found_fails_at_once(
    start: Start, identity: Callable[[], Identity]
) -> None:
    node = await start()
    failure, took_s = await fast_fail(node.query(identity().node_id, "x"))
    assert took_s < 0.2
    assert [attempt.strategy for attempt in failure.attempts] == [None]
    assert failure.attempts[0].reason == "no record found"
    check_nothing_is_kept_of_queries(node)


async def test_nothing_known_and_no_lookup_service_fails_at_once(
    start: Start, identity: Callable[[], Identity]
) -> None:
    node = await start(lookup=None)
    failure, took_s = await fast_fail(node.query(identity().node_id, "x"))
    assert took_s < 0.2
    assert failure.attempts == ()
    assert str(failure)


async def test_a_record_without_any_strategy_fails_at_once(start: Start) -> None:
    node, other = await start(listen=()), await start()
    _, took_s = await fast_fail(other.query(node.node_id, "x"))
    assert took_s < 0.2


async def test_a_body_too_large_for_this_node_fails_before_anything_is_tried(
    start: Start, greeter: Node, config: Config
) -> None:
    node = await start(config=config(body_bytes_max=1000))
    failure, _ = await fast_fail(node.query(greeter.node_id, "greet", bytes(1001)))
    assert "1001" in str(failure)
    assert len(engine_of(node).comms) == 0
    await fast_fail(node.send(greeter.node_id, "greet", bytes(1001)))


async def test_a_body_too_large_for_the_other_node_fails_fast_and_the_connection_stays(
    start: Start, config: Config
) -> None:
    node = await start(config=config(body_bytes_max=1000))

    @node.handler("size")
    async def size(query: Incoming) -> bytes:
        return b"%d" % len(query.body)

    other = await start(listen=())
    failure, _ = await fast_fail(other.query(node.node_id, "size", bytes(2000)))
    assert "1000" in str(failure)
    assert await other.query(node.node_id, "size", bytes(1000)) == b"1000"


@pytest.mark.parametrize("accepts", [False, True], ids=["backlog full", "accepts, says nothing"])
async def test_a_silent_address_is_bounded_by_the_dial_timeout(
    start: Start, config: Config, accepts: bool
) -> None:
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(16 if accepts else 0)
    crowd = []
    if not accepts:
        # Fill the queue of connections that nobody accepts; the kernel then answers no more.
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
            crowd.append(one)
    try:
        host, port = silent.getsockname()
        node = await start(listen=(), announce=f"{host}:{port}")
        other = await start(config=config(dial_timeout_s=0.3))
        failure, took_s = await fast_fail(other.query(node.node_id, "x"))
        assert 0.25 < took_s < 1
        assert [a.strategy is not None for a in failure.attempts] == [True, False]
        assert failure.attempts[0].duration_s >= 0.25
        expected = AttemptReason.NO_HANDSHAKE if accepts else AttemptReason.SILENT
        assert failure.attempts[0].reason is expected
        assert len(engine_of(other).comms) == 0
    finally:
        silent.close()
        for one in crowd:
            one.close()


async def test_an_address_that_now_belongs_to_somebody_else_fails_fast(
    start: Start, greeter: Node
) -> None:
    node = await start(listen=(), announce=greeter.listening)
    other = await start()
    failure, took_s = await fast_fail(other.query(node.node_id, "greet"))
    assert took_s < 1
    assert failure.attempts[0].strategy == greeter.record.tcp[0]
    assert await other.query(greeter.node_id, "greet") == b"hello "


async def test_a_record_that_names_my_own_address_fails_fast(start: Start, greeter: Node) -> None:
    node = await start(listen=(), announce=greeter.listening)
    await fast_fail(greeter.query(node.node_id, "greet"))
    assert await greeter.query(greeter.node_id, "greet") == b"hello "


async def test_private_addresses_are_not_dialled_without_the_option(
    start: Start, greeter: Node
) -> None:
    node = await start(config=NodeConfig())
    failure, took_s = await fast_fail(node.query(greeter.node_id, "greet"))
    assert took_s < 0.2
    assert "private_addresses" in failure.attempts[0].reason


async def test_the_same_address_is_left_alone_for_a_moment_and_the_attempt_says_so(
    start: Start,
) -> None:
    node, other = await start(), await start()
    await node.close()
    await fast_fail(other.query(node.node_id, "x"))
    failure, took_s = await fast_fail(other.query(node.node_id, "x"))
    assert took_s < 0.1
    assert "a moment ago" in failure.attempts[0].reason


async def test_a_good_address_is_found_beside_bad_ones(start: Start, config: Config) -> None:
    with socket.socket() as silent, socket.socket() as refusing:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        refusing.bind(("127.0.0.1", 0))
        bad = [f"127.0.0.1:{one.getsockname()[1]}" for one in (silent, refusing)]
        node = await start()
        await node.listen(node.listening)
        node._announce = None
        good = node.listening[0]
        other = await start(listen=(), announce=[*bad, good], identity=None)
        await other.close()
        clone = await start(node.identity, listen=(), announce=[*bad, good])
        await clone.close()

        @node.handler("greet")
        async def greet(query: Incoming) -> bytes:
            return b"hello"

        asker = await start(listen=(), config=config(dial_timeout_s=2))
        started = time.monotonic()
        assert await asker.query(node.node_id, "greet") == b"hello"
        assert time.monotonic() - started < 1
        assert len(engine_of(asker).comms) == 1


# send


async def test_a_send_arrives_and_gets_no_reply(start: Start) -> None:
    node, other = await start(), await start(listen=())
    told: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()

    @node.handler("tell")
    async def tell(message: Incoming) -> bytes:
        told.set_result(message)
        return b"this goes nowhere"

    await other.send(node.node_id, "tell", b"news")
    async with asyncio.timeout(2):
        message = await told
    assert (message.body, message.wants_reply, message.peer_id) == (b"news", False, other.node_id)
    check_nothing_is_kept_of_queries(other)


async def test_a_send_to_oneself_arrives(start: Start) -> None:
    node = await start()
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @node.handler("tell")
    async def tell(message: Incoming) -> None:
        told.set_result(message.body)

    await node.send(node.node_id, "tell", b"news")
    async with asyncio.timeout(2):
        assert await told == b"news"


async def test_a_send_that_cannot_leave_fails_fast(
    start: Start, identity: Callable[[], Identity]
) -> None:
    node = await start()
    failure, took_s = await fast_fail(node.send(identity().node_id, "tell"))
    assert took_s < 0.2
    assert failure.attempts


async def test_a_send_of_5_mib_arrives(start: Start) -> None:
    node, other = await start(), await start(listen=())
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @node.handler("tell")
    async def tell(message: Incoming) -> None:
        told.set_result(len(message.body))

    await other.send(node.node_id, "tell", bytes(5 * MIB))
    async with asyncio.timeout(5):
        assert await told == 5 * MIB


async def test_many_sends_arrive_in_order(start: Start, eventually: Eventually) -> None:
    node, other = await start(), await start(listen=())
    told: list[bytes] = []

    @node.handler("tell")
    async def tell(message: Incoming) -> None:
        told.append(message.body)

    for number in range(200):
        await other.send(node.node_id, "tell", b"%d" % number)
    await eventually(lambda: len(told) == 200)
    assert told == [b"%d" % number for number in range(200)]


async def test_a_send_given_just_before_closing_still_arrives(
    start: Start, eventually: Eventually
) -> None:
    node = await start()
    told: list[int] = []

    @node.handler("tell")
    async def tell(message: Incoming) -> None:
        told.append(len(message.body))

    other = await start(listen=())
    await other.send(node.node_id, "tell", bytes(1000))
    await other.close()
    await eventually(lambda: told == [1000])


@pytest.mark.parametrize("size", [0, MIB])
async def test_a_query_to_itself_that_is_cancelled_before_its_turn_does_not_run(
    start: Start, size: int
) -> None:
    node, stuck = await start(), Stuck()
    node.handle("stuck", stuck)
    for _ in range(2):
        assert node.open_query(node.node_id, "stuck", bytes(size)).cancel()
    last = node.open_query(node.node_id, "stuck", bytes(size))
    await stuck.called.wait()
    assert stuck.calls == 1
    last.cancel()
    await stuck.cancelled.wait()


# Closing


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
    node, stuck = await start(lookup=hanging), Stuck()
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
    node, stuck = await start(), Stuck()
    node.handle("stuck", stuck)
    other = await start(listen=())
    task = asyncio.ensure_future(other.query(node.node_id, "stuck", hard_timeout_s=0.5))
    await stuck.called.wait()
    await node.close()
    assert stuck.cancelled.is_set()
    with pytest.raises(HardTimeout) as timeout:
        await task
    assert timeout.value.may_have_run


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


# User mistakes


@pytest.mark.parametrize(
    "kind", ["", "A", "with space", "egtp.relay", "x" * 65, "ä", None, 5, ["x"]]
)
async def test_a_wrong_kind_is_refused_with_a_reason(greeter: Node, kind: Any) -> None:
    for call in (greeter.query, greeter.send):
        with pytest.raises(LocalProtocolError):
            await call(greeter.node_id, kind)
    with pytest.raises(LocalProtocolError):
        greeter.handle(kind, Stuck())


async def test_a_node_that_is_closed_takes_no_handler_any_more(start: Start) -> None:
    node = await start()
    await node.close()
    with pytest.raises(NodeClosed):
        node.handle("late", Stuck())


async def test_a_kind_has_one_handler(greeter: Node) -> None:
    with pytest.raises(LocalProtocolError):
        greeter.handle("greet", Stuck())


@pytest.mark.parametrize("body", ["text", bytearray(b"x"), memoryview(b"x"), None, 5])
async def test_a_body_that_is_no_bytes_is_refused(greeter: Node, body: Any) -> None:
    for call in (greeter.query, greeter.send):
        with pytest.raises(LocalProtocolError):
            await call(greeter.node_id, "greet", body)
    assert len(engine_of(greeter).exchanges) == 0


@pytest.mark.parametrize(
    ("hard_s", "soft_s"),
    [
        (0, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        (2**32, None),
        (1, 1),
        (1, 2),
        (1, 0),
        (1, -1),
        (1, float("nan")),
        ("1", None),
        (1, "1"),
    ],
)
async def test_a_wrong_timeout_is_refused(greeter: Node, hard_s: Any, soft_s: Any) -> None:
    with pytest.raises(LocalProtocolError):
        await greeter.query(greeter.node_id, "greet", hard_timeout_s=hard_s, soft_timeout_s=soft_s)
    assert len(engine_of(greeter).exchanges) == 0


@pytest.mark.parametrize("peer_id", [b"", bytes(19), bytes(21)])
async def test_a_peer_id_of_a_wrong_size_is_refused(greeter: Node, peer_id: Any) -> None:
    with pytest.raises(LocalProtocolError):
        await greeter.query(peer_id, "greet")


async def test_another_thread_and_another_loop_are_refused(greeter: Node) -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        for call in (
            lambda: asyncio.run(greeter.query(greeter.node_id, "greet")),
            lambda: asyncio.run(greeter.send(greeter.node_id, "greet")),
            lambda: asyncio.run(greeter.close()),
            lambda: asyncio.run(greeter.published()),
            lambda: greeter.open_query(greeter.node_id, "greet"),
            lambda: greeter.record,
            lambda: greeter.why(greeter.node_id),
            lambda: greeter.add_contact(greeter.link),
            lambda: greeter.handle("elsewhere", Stuck()),
        ):
            try:
                call()
            except BaseException as error:
                caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert [type(error) for error in caught] == [WrongLoop] * 9
    assert await greeter.query(greeter.node_id, "greet") == b"hello "


async def test_a_query_from_another_thread_goes_through_the_loop_of_the_node(
    greeter: Node,
) -> None:
    loop = asyncio.get_running_loop()

    def elsewhere() -> bytes:
        query = greeter.query(greeter.node_id, "greet", b"thread")
        return asyncio.run_coroutine_threadsafe(query, loop).result(5)

    assert await asyncio.to_thread(elsewhere) == b"hello thread"


async def test_an_address_in_use_is_refused_and_leaves_nothing(
    start: Start, greeter: Node, identity: Callable[[], Identity]
) -> None:
    node = Node(identity(), listen=greeter.listening)
    with pytest.raises(ValueError, match="cannot listen on"):
        await node.start()


async def test_lookup_failed_is_not_raised_by_a_query(
    start: Start, identity: Callable[[], Identity]
) -> None:
    node = await start()
    try:
        await node.query(identity().node_id, "x")
    except LookupFailed:
        pytest.fail("a lookup failure is an attempt, not an outcome")
    except FastFail:
        pass


async def test_a_program_that_asks_for_ever_new_kinds_fills_no_memory(start: Start) -> None:
    node = await start()
    for number in range(KINDS_KEPT + 10):
        with pytest.raises(HandlerFailed):
            await node.query(node.node_id, f"kind{number}")
    assert len(engine_of(node).asking._kinds_asked) == KINDS_KEPT

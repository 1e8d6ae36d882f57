"""A peer that answers with no reply says why, and not more than that."""

from __future__ import annotations

import asyncio

import pytest

from egtp import FastFail, HandlerFailed, Incoming, Node, ReplyCode
from tests.node.at_hand import (
    Config,
    Eventually,
    Held,
    Problems,
    Start,
    direct_path,
    engine_of,
    greets,
)


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


@pytest.mark.parametrize("code", [64, 127])
async def test_a_handler_may_answer_with_a_code_and_body_of_its_own(
    start: Start, greeter: Node, code: int
) -> None:
    @greeter.handler("fail")
    async def fail(query: Incoming) -> bytes:
        raise HandlerFailed(code, b"details")

    node = await start(listen=())
    with pytest.raises(HandlerFailed) as failed:
        await node.query(greeter.node_id, "fail")
    assert (failed.value.code, failed.value.body) == (code, b"details")
    assert failed.value.peer_id == greeter.node_id
    assert str(failed.value) == f"{greeter.node_id} answered 'fail' with code {code}: b'details'"


async def test_what_a_peer_answers_cannot_fill_or_forge_a_log(start: Start, greeter: Node) -> None:
    @greeter.handler("fail")
    async def fail(query: Incoming) -> bytes:
        raise HandlerFailed(77, b"\n\x1b[2K" + b"x" * 10_000)

    node = await start(listen=())
    with pytest.raises(HandlerFailed) as failed:
        await node.query(greeter.node_id, "fail")
    assert str(failed.value).isprintable()
    assert len(str(failed.value)) < 200
    assert len(failed.value.body) > 10_000


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
        == f"a handler must answer with a code of its own, 64 to 127, not {code}"
    )
    problems.clear()


@pytest.mark.parametrize(("kind", "code"), [("no-such-kind", 1), ("fail", 77)])
async def test_what_became_of_a_query_that_a_handler_asked_is_not_said_of_the_handler(
    start: Start, greeter: Node, kind: str, code: int, problems: Problems
) -> None:
    """Or else whoever is told "no such kind" would believe that it has not run, and ask again; and
    a third peer's code and words would be taken for those of the one that was asked."""
    node, ran = await start(listen=()), []

    @greeter.handler("fail")
    async def fail(query: Incoming) -> bytes:
        raise HandlerFailed(77, b"of a third peer")

    async def pay(query: Incoming) -> bytes:
        ran.append(query.body)
        return await forwarder.query(greeter.node_id, kind, query.body)

    forwarder = await start()
    forwarder.handle("pay", pay)
    with pytest.raises(HandlerFailed) as failed:
        await node.query(forwarder.node_id, "pay", b"1")
    assert ran == [b"1"]
    assert (failed.value.code, failed.value.body) == (ReplyCode.HANDLER_ERROR, b"")
    assert failed.value.may_have_run
    assert forwarder.counters["handler raised"] == 1
    (problem,) = problems
    let_fail = problem["exception"]
    assert isinstance(let_fail, HandlerFailed)
    assert (let_fail.peer_id, let_fail.code) == (greeter.node_id, code)
    problems.clear()


async def test_a_handler_may_pass_on_what_it_was_answered_in_its_own_name(
    start: Start, greeter: Node
) -> None:
    @greeter.handler("fail")
    async def fail(query: Incoming) -> bytes:
        raise HandlerFailed(77, b"details")

    async def pay(query: Incoming) -> bytes:
        try:
            return await forwarder.query(greeter.node_id, "fail")
        except HandlerFailed as failed:
            raise HandlerFailed(failed.code, failed.body) from failed

    node, forwarder = await start(listen=()), await start()
    forwarder.handle("pay", pay)
    with pytest.raises(HandlerFailed) as failed:
        await node.query(forwarder.node_id, "pay")
    assert (failed.value.code, failed.value.body) == (77, b"details")
    assert failed.value.peer_id == forwarder.node_id


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


async def test_a_reply_larger_than_the_asker_said_in_the_handshake_is_said_to_be_too_large(
    start: Start, config: Config
) -> None:
    node = await start()

    @node.handler("much")
    async def much(query: Incoming) -> bytes:
        return bytes(2000)

    other = await start(config=config(body_bytes_max=1000))
    engine_of(other).asking._body_bytes_max = 2000  # what its queries say
    with pytest.raises(HandlerFailed) as failed:
        await other.query(node.node_id, "much", hard_timeout_s=2)
    assert failed.value.code == ReplyCode.TOO_LARGE


@pytest.mark.reaches_in
@pytest.mark.parametrize("size", [1001, 16_000])
async def test_a_query_larger_than_the_responder_said_is_answered_as_too_large_and_does_not_run(
    start: Start, config: Config, size: int
) -> None:
    node, other, stuck = await start(config=config(body_bytes_max=1000)), await start(), Held()
    node.handle("stuck", stuck)
    greets(node)
    assert await other.query(node.node_id, "greet", bytes(1000)) == b"hello " + bytes(1000)
    path = direct_path(other, node)
    path.limits = path.limits._replace(body_bytes_max=100_000)  # whatever it was told
    with pytest.raises(HandlerFailed) as failed:
        await other.query(node.node_id, "stuck", bytes(size), hard_timeout_s=2)
    assert failed.value.code == ReplyCode.TOO_LARGE
    assert not stuck.bodies
    assert node.counters["too large for this node"] == 1


async def test_more_queries_than_the_peer_takes_fail_fast(start: Start, config: Config) -> None:
    node, stuck = await start(config=config(open_queries_max=3)), Held()
    node.handle("stuck", stuck)
    other = await start(listen=())
    tasks = [asyncio.ensure_future(other.query(node.node_id, "stuck")) for _ in range(4)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    (outcome,) = (task.exception() for task in done)
    assert isinstance(outcome, FastFail)
    assert "too many queries are open for" in str(outcome)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.reaches_in
async def test_a_peer_that_asks_more_than_it_was_told_to_is_answered_busy(
    start: Start, config: Config
) -> None:
    node, stuck = await start(config=config(open_queries_max=3)), Held()
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
        [query._outcome for query in others], return_when=asyncio.FIRST_COMPLETED
    )
    (outcome,) = (query.exception() for query in done)
    assert isinstance(outcome, HandlerFailed)
    assert outcome.code == ReplyCode.BUSY
    for query in (first, *others):
        query.cancel()


async def test_more_queries_of_a_kind_than_may_run_at_once_are_answered_busy(
    start: Start, eventually: Eventually
) -> None:
    node, slow = await start(), Held(b"done")
    node.handle("slow", slow, at_once_max=2)
    one, two = await start(listen=()), await start(listen=())
    running = [one.open_query(node.node_id, "slow"), two.open_query(node.node_id, "slow")]
    await eventually(lambda: len(slow.bodies) == 2)
    with pytest.raises(HandlerFailed) as failed:
        await two.query(node.node_id, "slow")
    assert failed.value.code == ReplyCode.BUSY
    slow.go.set()
    assert await asyncio.gather(*running) == [b"done", b"done"]
    assert await two.query(node.node_id, "slow") == b"done"

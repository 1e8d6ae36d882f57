"""Handlers: each incoming has one end, whatever its handler does and whoever else waits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from egtp.errors import HandlerFailed, LocalProtocolError, Refusal
from egtp.handling.handlers import RUNNING_BYTES, Handlers, Incoming
from egtp.handling.workers import ENDS_WITHIN_S
from egtp.limits.shares import Shares
from egtp.paths.path import Path
from egtp.queries.asker import Asker
from egtp.values.identity import NodeId
from egtp.values.message import ReplyCode
from simulations.virtual.loop import VirtualLoop

LIMIT_S: Final = 5.0
PEER: Final = NodeId(bytes(20))
OTHER: Final = NodeId(bytes(19) + b"\1")
CANCELLED: Final = (ReplyCode.EXPIRED, b"")


class Answers:
    """Handlers, and how each incoming has ended."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.ends: dict[Incoming, list[tuple[int, bytes]]] = {}
        self.room = Shares(100_000, strangers_max=60_000, peer_max=40_000)
        self.handlers = Handlers(self.ended, self.counters, self.room)
        self.problems: list[dict[str, Any]] = []

    def ended(self, incoming: Incoming, code: int, body: bytes) -> None:
        self.ends.setdefault(incoming, []).append((code, body))

    async def come(
        self,
        kind: str,
        reference: bytes = b"reference",
        *,
        peer_id: NodeId = PEER,
        wants_reply: bool = True,
        deadline_s: float = 10.0,
        asker: Asker | None = None,
        path: Path | None = None,
    ) -> Incoming:
        """A message comes, as messages do: outside of any task."""
        found = self.handlers.find(kind)
        assert found is not None
        incoming = Incoming.example(peer_id, kind, b"body", wants_reply=wants_reply)
        incoming._kind, incoming._asker, incoming._deadline_s = found, asker, deadline_s
        incoming._reference = reference if wants_reply else b""
        incoming._path = path
        ran = asyncio.Event()

        def run() -> None:
            self.handlers.run(incoming)
            ran.set()

        asyncio.get_running_loop().call_soon(run)
        await ran.wait()
        return incoming

    async def end_of(self, incoming: Incoming) -> tuple[int, bytes]:
        async with asyncio.timeout(LIMIT_S):
            while incoming not in self.ends:
                await asyncio.sleep(0)
        (end,) = self.ends[incoming]
        return end


@pytest.fixture
async def answers() -> AsyncIterator[Answers]:
    """Closed after the test: then every incoming has had one end, and nothing is left."""
    answers = Answers()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: answers.problems.append(context))
    before = asyncio.all_tasks()
    yield answers
    await answers.handlers.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
    assert answers.problems == []
    assert all(len(ends) == 1 for ends in answers.ends.values())
    handlers = answers.handlers
    assert len(handlers) == len(handlers._waiting) == len(handlers._queries) == 0
    assert all(kind.running == 0 for kind in handlers._kinds.values())


@pytest.mark.parametrize("wants_reply", [True, False])
async def test_two_that_look_alike_end_each_by_themselves(
    answers: Answers, *, wants_reply: bool
) -> None:
    """Sends have no reference; and a peer that says that it is two has two queries of one."""
    gates = [asyncio.Event(), asyncio.Event()]
    waiting = iter(gates)

    async def handler(_: Incoming) -> bytes:
        await next(waiting).wait()
        return b"done"

    answers.handlers.add("slow", handler)
    for order in (gates, gates[::-1]):
        waiting = iter(gates)
        both = [await answers.come("slow", wants_reply=wants_reply) for _ in range(2)]
        await asyncio.sleep(0)
        assert len(answers.handlers) == 2
        for gate in order:
            gate.set()
            await asyncio.sleep(0)
        assert [await answers.end_of(one) for one in both] == [(0, b"done")] * 2
        for gate in gates:
            gate.clear()


async def test_of_two_that_look_alike_both_expire(answers: Answers) -> None:
    async def handler(_: Incoming) -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    answers.handlers.add("slow", handler)
    both = [await answers.come("slow", deadline_s=5.0) for _ in range(2)]
    sends = [await answers.come("slow", wants_reply=False, deadline_s=6.0) for _ in range(2)]
    await asyncio.sleep(0)
    answers.handlers.expire(4.9)
    await asyncio.sleep(0)
    assert answers.ends == {}
    answers.handlers.expire(5.0)
    assert [await answers.end_of(one) for one in both] == [CANCELLED] * 2
    answers.handlers.expire(6.0)
    answers.handlers.expire(6.0)
    assert [await answers.end_of(one) for one in sends] == [CANCELLED] * 2
    assert answers.counters == {"handler cancelled: its query is past its lifetime": 4}


async def test_only_who_asked_can_cancel_and_only_what_he_asked(answers: Answers) -> None:
    async def handler(_: Incoming) -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    answers.handlers.add("slow", handler)
    one = await answers.come("slow", b"one")
    two = await answers.come("slow", b"two", peer_id=OTHER)
    send = await answers.come("slow", wants_reply=False)
    for peer_id, reference in ((OTHER, b"one"), (PEER, b"two"), (PEER, b""), (PEER, b"three")):
        answers.handlers.cancel(peer_id, reference)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert answers.ends == {}
    answers.handlers.cancel(PEER, b"one")
    assert await answers.end_of(one) == CANCELLED
    assert answers.counters == {"cancelled by the asker": 1}
    answers.handlers.cancel(PEER, b"one")
    assert answers.counters == {"cancelled by the asker": 1}
    assert not {two, send} & answers.ends.keys()


@pytest.mark.parametrize("turns", range(3))
async def test_what_is_cancelled_in_the_turn_in_which_it_came_is_over(
    answers: Answers, turns: int
) -> None:
    begun: list[str] = []

    async def handler(_: Incoming) -> bytes:
        begun.append("begun")
        await asyncio.get_running_loop().create_future()
        return b""

    answers.handlers.add("slow", handler)
    for _ in range(3):
        incoming = await answers.come("slow")
        for _ in range(turns):
            await asyncio.sleep(0)
        answers.handlers.cancel(PEER, b"reference")
        assert await answers.end_of(incoming) == CANCELLED
    assert len(begun) >= 2


@pytest.mark.parametrize(
    ("raises", "end", "told"),
    [
        (lambda: HandlerFailed(70, b"why"), (70, b"why"), False),
        (lambda: Refusal(ReplyCode.BUSY, b"why"), (ReplyCode.BUSY, b"why"), False),
        (lambda: HandlerFailed(ReplyCode.BUSY), (ReplyCode.HANDLER_ERROR, b""), True),
        (lambda: HandlerFailed(63), (ReplyCode.HANDLER_ERROR, b""), True),
        (lambda: HandlerFailed(64), (64, b""), False),
        (lambda: HandlerFailed(127), (127, b""), False),
        (lambda: HandlerFailed(128), (ReplyCode.HANDLER_ERROR, b""), True),
        (lambda: HandlerFailed(0, b"why"), (ReplyCode.HANDLER_ERROR, b""), True),
        (lambda: HandlerFailed(cast("int", "70")), (ReplyCode.HANDLER_ERROR, b""), True),
        (lambda: HandlerFailed(70, cast("bytes", "text")), (ReplyCode.HANDLER_ERROR, b""), True),
        (lambda: ValueError("no"), (ReplyCode.HANDLER_ERROR, b""), True),
        (TimeoutError, (ReplyCode.HANDLER_ERROR, b""), True),
        (StopAsyncIteration, (ReplyCode.HANDLER_ERROR, b""), True),
        (asyncio.CancelledError, (ReplyCode.HANDLER_ERROR, b""), True),
        (lambda: ExceptionGroup("all", [ValueError()]), (ReplyCode.HANDLER_ERROR, b""), True),
        (
            lambda: BaseExceptionGroup("all", [asyncio.CancelledError()]),
            (ReplyCode.HANDLER_ERROR, b""),
            True,
        ),
        (GeneratorExit, (ReplyCode.HANDLER_ERROR, b""), True),
    ],
)
@pytest.mark.parametrize("turns", [None, 0, 1])
async def test_what_a_handler_raises_is_told_to_the_asker_as_a_code_only(
    answers: Answers,
    raises: Callable[[], BaseException],
    end: tuple[int, bytes],
    turns: int | None,
    *,
    told: bool,
) -> None:
    """When it is called, in its first step, or in a later one."""

    async def handler(_: Incoming) -> bytes:
        for _turn in range(turns or 0):
            await asyncio.sleep(0)
        raise raises()

    def no_coroutine(_: Incoming) -> Any:
        raise raises()

    answers.handlers.add("fails", handler if turns is not None else no_coroutine)
    for _ in range(2):
        assert await answers.end_of(await answers.come("fails")) == end
        answers.ends.clear()
    assert len(answers.problems) == (1 if told else 0)
    assert answers.counters == ({"handler raised": 2} if told else {})
    answers.problems.clear()


async def test_a_handler_that_raises_at_each_query_is_told_of_once_for_each_place(
    answers: Answers,
) -> None:
    calls = itertools.count()

    async def handler(query: Incoming) -> bytes:
        if next(calls) % 2:
            return b"%d" % int(query.body)
        return bytes([query.body[99]])

    answers.handlers.add("fails", handler)
    answers.handlers.add("fails.too", handler)
    for kind in ["fails"] * 10 + ["fails.too"] * 4:
        await answers.end_of(await answers.come(kind))
        answers.ends.clear()
    assert answers.counters == {"handler raised": 14}
    told = [(it["message"], type(it["exception"])) for it in answers.problems]
    assert told == [
        ("the handler of kind 'fails' raised an exception", IndexError),
        ("the handler of kind 'fails' raised an exception", ValueError),
        ("the handler of kind 'fails.too' raised an exception", IndexError),
        ("the handler of kind 'fails.too' raised an exception", ValueError),
    ]
    answers.problems.clear()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_what_ends_the_program_goes_on_and_leaves_no_handler_that_runs(
    answers: Answers, error: type[BaseException], *, is_coroutine: bool
) -> None:
    async def nothing(_: Incoming) -> None:
        await asyncio.sleep(0)

    async def coroutine(_: Incoming) -> bytes:
        raise error

    def plain(_: Incoming) -> Any:
        raise error

    answers.handlers.add("nothing", nothing)
    await answers.end_of(await answers.come("nothing"))  # whose worker stands by from now on
    answers.handlers.add("exits", coroutine if is_coroutine else plain)
    incoming = Incoming.example(PEER, "exits")
    kind = answers.handlers.find("exits")
    assert kind is not None
    incoming._kind = kind
    raised: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            answers.handlers.run(incoming)
        except BaseException as one:
            raised.set_result(one)

    asyncio.get_running_loop().call_soon(run)
    async with asyncio.timeout(LIMIT_S):
        assert isinstance(await raised, error)
    assert await answers.end_of(incoming) == (ReplyCode.HANDLER_ERROR, b"")
    answers.problems.clear()


@pytest.mark.parametrize("body", [1, "text", [b"bytes"], object()])
async def test_what_is_no_body_is_an_error_of_the_handler(answers: Answers, body: Any) -> None:
    async def handler(_: Incoming) -> Any:
        return body

    answers.handlers.add("wrong", handler)
    assert await answers.end_of(await answers.come("wrong")) == (ReplyCode.HANDLER_ERROR, b"")
    (problem,) = answers.problems
    assert isinstance(problem["exception"], TypeError)
    answers.problems.clear()


async def test_a_plain_function_is_told_that_it_is_no_handler(answers: Answers) -> None:
    """Its return value is what it would have answered, so the slip is an easy one."""
    plain: Any = lambda _: b"hello"  # noqa: E731
    answers.handlers.add("plain", plain)
    assert await answers.end_of(await answers.come("plain")) == (ReplyCode.HANDLER_ERROR, b"")
    (problem,) = answers.problems
    answers.problems.clear()
    assert "must be an `async def` function, but it returned bytes" in str(problem["exception"])


async def test_nothing_is_an_empty_body_and_any_awaitable_will_do(answers: Answers) -> None:
    class Bytes(bytes):
        pass

    def gives_a_future(_: Incoming) -> asyncio.Future[bytes]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, b"later")
        return future

    async def nothing(_: Incoming) -> None:
        pass

    async def of_a_kind(_: Incoming) -> bytes:
        return Bytes(b"body")

    answers.handlers.add("future", gives_a_future)
    answers.handlers.add("nothing", nothing)
    answers.handlers.add("bytes", of_a_kind)
    for kind, body in (("future", b"later"), ("nothing", b""), ("bytes", b"body")):
        code, answer = await answers.end_of(await answers.come(kind))
        assert (code, answer, type(answer)) == (0, body, bytes)


async def test_a_handler_that_does_not_let_itself_be_cancelled_has_answered(
    answers: Answers,
) -> None:
    async def handler(_: Incoming) -> bytes:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return b"almost done"
        return b""

    answers.handlers.add("stubborn", handler)
    incoming = await answers.come("stubborn")
    await asyncio.sleep(0)
    answers.handlers.cancel(PEER, b"reference")
    assert await answers.end_of(incoming) == (0, b"almost done")


async def test_a_handler_that_tidies_up_is_not_cancelled_again(answers: Answers) -> None:
    """At its hard timeout a query ends at both ends: here by the clock, there with a cancel, which
    comes a little later, and may come any number of times."""
    is_tidy = asyncio.Event()

    async def handler(_: Incoming) -> bytes:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await is_tidy.wait()
        return b""

    answers.handlers.add("tidy", handler)
    incoming = await answers.come("tidy", deadline_s=5.0)
    await asyncio.sleep(0)
    answers.handlers.expire(5.0)
    for _ in range(3):
        await asyncio.sleep(0)
        answers.handlers.cancel(PEER, b"reference")
    await asyncio.sleep(0)
    assert answers.ends == {}
    is_tidy.set()
    assert await answers.end_of(incoming) == CANCELLED
    assert answers.counters == {"handler cancelled: its query is past its lifetime": 1}


async def test_what_a_handler_raises_when_it_is_cancelled_is_told_like_any_mistake(
    answers: Answers,
) -> None:
    async def handler(_: Incoming) -> bytes:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise ValueError("a mistake in tidying up")

    answers.handlers.add("untidy", handler)
    incoming = await answers.come("untidy")
    answers.handlers.cancel(PEER, b"reference")
    assert await answers.end_of(incoming) == (ReplyCode.HANDLER_ERROR, b"")
    assert answers.counters == {"cancelled by the asker": 1, "handler raised": 1}
    (problem,) = answers.problems
    assert isinstance(problem["exception"], ValueError)
    answers.problems.clear()


async def test_for_want_of_room_only_strangers_who_are_gone_lose_their_handlers(
    answers: Answers,
) -> None:
    async def handler(_: Incoming) -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    answers.handlers.add("slow", handler)
    gone, here, known = (Asker(PEER, b"incarnat") for _ in range(3))
    gone.stranger = here.stranger = True
    here.sessions = 1
    first, *_ = [
        await answers.come("slow", b"%d" % number, asker=asker)
        for number, asker in enumerate((gone, here, known, None))
    ]
    for _ in range(2):
        answers.handlers.end_for_the_gone()
    assert await answers.end_of(first) == CANCELLED
    assert list(answers.ends) == [first]
    assert list(answers.counters.values()) == [1]


async def test_a_kind_that_has_a_handler_gets_no_second_one(answers: Answers) -> None:
    async def handler(_: Incoming) -> bytes:
        return b""

    answers.handlers.add("kind", handler)
    with pytest.raises(LocalProtocolError, match="already has a handler"):
        answers.handlers.add("kind", handler)


async def test_those_of_one_asker_are_counted_while_they_run(answers: Answers) -> None:
    go_on = asyncio.Event()

    async def handler(incoming: Incoming) -> bytes:
        if incoming.wants_reply:
            await go_on.wait()
        return b""

    answers.handlers.add("slow", handler)
    asker = Asker(PEER, b"incarnat")
    waiting = [await answers.come("slow", b"%d" % n, asker=asker) for n in range(5)]
    at_once = await answers.come("slow", wants_reply=False, asker=asker)
    await answers.end_of(at_once)
    kind = answers.handlers.find("slow")
    assert kind is not None
    assert asker.running == kind.running == 5
    go_on.set()
    for incoming in waiting:
        await answers.end_of(incoming)
    assert asker.running == kind.running == 0


async def test_closing_cancels_all_and_is_no_error_of_theirs(answers: Answers) -> None:
    async def handler(_: Incoming) -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    answers.handlers.add("slow", handler)
    ones = [await answers.come("slow", b"%d" % n) for n in range(3)]
    await answers.handlers.close()
    assert [answers.ends[one] for one in ones] == [[CANCELLED]] * 3
    late = await answers.come("slow", b"late")
    assert await answers.end_of(late) == CANCELLED


async def test_a_handler_that_goes_on_after_the_end_is_named(answers: Answers) -> None:
    if not isinstance(asyncio.get_running_loop(), VirtualLoop):
        pytest.skip("its time is real")
    gone = asyncio.Event()

    async def stubborn(_: Incoming) -> bytes:
        while not gone.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gone.wait()
        return b"late"

    answers.handlers.add("stubborn", stubborn)
    incoming = await answers.come("stubborn")
    loop = asyncio.get_running_loop()
    loop.call_later(2 * ENDS_WITHIN_S, gone.set)
    await answers.handlers.close()
    assert answers.counters["handler goes on after its node was closed"] == 1
    (problem,) = answers.problems
    assert problem == {"message": "the handler of kind 'stubborn' was cancelled, but goes on"}
    answers.problems.clear()
    await asyncio.sleep(2 * ENDS_WITHIN_S)
    assert await answers.end_of(incoming) == (0, b"late")


@pytest.mark.reaches_in
async def test_a_handler_that_waits_takes_room_of_its_peer_and_gives_it_back(
    answers: Answers,
) -> None:
    gate = asyncio.Event()

    async def handler(_: Incoming) -> bytes:
        await gate.wait()
        return b"done"

    async def at_once(_: Incoming) -> bytes:
        return b"done"

    answers.handlers.add("slow", handler)
    answers.handlers.add("fast", at_once)
    path = cast("Path", SimpleNamespace(is_strangers=True))
    waiting = [await answers.come("slow", path=path) for _ in range(3)]
    assert answers.room.of(PEER) == 3 * (RUNNING_BYTES + len(b"body"))
    await answers.come("fast", path=path)
    own = await answers.come("slow")
    assert answers.room.taken == 3 * (RUNNING_BYTES + len(b"body")), "its own takes none"
    gate.set()
    for one in (*waiting, own):
        await answers.end_of(one)
    assert answers.room.taken == 0


async def test_a_handler_that_waits_takes_no_more_memory_than_is_accounted_for(
    answers: Answers,
) -> None:
    gate = asyncio.Event()

    async def handler(_: Incoming) -> bytes:
        await gate.wait()
        return b"done"

    answers.handlers.add("slow", handler)
    await answers.come("slow")
    tracemalloc.start()
    try:
        waiting = [
            await answers.come("slow", reference=number.to_bytes(32, "big"))
            for number in range(500)
        ]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert RUNNING_BYTES / 4 < taken / len(waiting) < RUNNING_BYTES
    gate.set()
    for one in waiting:
        await answers.end_of(one)

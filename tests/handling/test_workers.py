"""To a coroutine a worker is a task: what it sees, and what comes of it, is the same.

Each coroutine here runs as a task, which is what asyncio promises, and then by a worker: by a new
one that begins it later, and by one that stands by, whose first step is taken in place. What the
coroutine notes on its way and what comes of it must be the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeAlias

import pytest

from egtp.handling.workers import ENDS_WITHIN_S, IDLE_MAX, Worker, Workers
from simulations.virtual.loop import VirtualLoop
from tests.handling.coroutines import (
    ENDLESS,
    LONG_S,
    NUMBER,
    TIMED,
    UNMEDDLED,
    WORKS,
    Log,
    Work,
    cancels_itself_after_a_turn_and_returns,
    cancels_itself_and_returns,
    raises_at_once,
    returns_at_once,
    takes_long_to_end,
    this_task,
    waits_a_turn,
    waits_for_ever,
)

LIMIT_S: Final = 5.0

Meddling: TypeAlias = Callable[[Callable[[], object]], object]
"""When to cancel: it is given what cancels, right after the coroutine was begun."""


class Ended:
    """What ``done`` was told, and the end of each job."""

    def __init__(self) -> None:
        self.of: dict[object, asyncio.Future[tuple[Any, str]]] = {}
        self.workers: Workers[object] = Workers(self.done)

    def done(self, job: object, value: Any, error: BaseException | None) -> None:
        self.of[job].set_result((value, repr(error)))

    def run(
        self, coroutine: Coroutine[Any, Any, Any], job: object | None = None
    ) -> tuple[object, Worker[object] | None]:
        return self.call(lambda: coroutine, job)

    def call(
        self, work: Callable[[], Coroutine[Any, Any, Any]], job: object | None = None
    ) -> tuple[object, Worker[object] | None]:
        job = object() if job is None else job
        self.of[job] = asyncio.get_running_loop().create_future()
        return job, self.workers.run(job, lambda _: work())

    async def end_of(self, job: object) -> tuple[Any, str]:
        async with asyncio.timeout(LIMIT_S):
            return await self.of[job]


@contextlib.asynccontextmanager
async def workers() -> AsyncIterator[Ended]:
    """Workers that are closed at the end, of which nothing must be left then."""
    problems: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    before = asyncio.all_tasks()
    ended = Ended()
    yield ended
    await ended.workers.close()
    assert len(ended.workers) == 0
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
    assert problems == []
    assert all(end.done() for end in ended.of.values()), "done was not called"


@pytest.fixture
async def ended() -> AsyncIterator[Ended]:
    async with workers() as ended:
        yield ended


async def outside_of_tasks(act: Callable[[], Any]) -> Any:
    """Have the loop call ``act``, as it calls what takes packets."""
    loop = asyncio.get_running_loop()
    result = loop.create_future()

    def call() -> None:
        try:
            result.set_result(act())
        except BaseException as error:
            result.set_exception(error)

    loop.call_soon(call)
    return await result


async def have_one_that_stands_by(ended: Ended) -> None:
    job, _ = await outside_of_tasks(lambda: ended.run(asyncio.sleep(0)))
    await ended.end_of(job)
    assert len(ended.workers._idle) >= 1


# What it sees of others


async def sets_a_number(turns: int, *, resets: bool) -> int:
    seen = NUMBER.get()
    token = NUMBER.set(7)
    for _ in range(turns):
        await asyncio.sleep(0)
    if resets:
        NUMBER.reset(token)
    return seen


@pytest.mark.parametrize("turns", [0, 1])
async def test_no_coroutine_sees_the_context_variables_of_another(ended: Ended, turns: int) -> None:
    await have_one_that_stands_by(ended)
    for _ in range(3):
        job, _ = await outside_of_tasks(lambda: ended.run(sets_a_number(turns, resets=False)))
        assert await ended.end_of(job) == (0, "None")


async def test_no_coroutine_sees_the_context_variables_of_who_caused_its_job(
    ended: Ended,
) -> None:
    NUMBER.set(8)
    for _ in range(2):
        job, _ = await outside_of_tasks(lambda: ended.run(sets_a_number(1, resets=True)))
        assert await ended.end_of(job) == (0, "None")


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_worker_goes_on_if_its_coroutine_puts_context_variables_back(
    ended: Ended, turns: int
) -> None:
    await have_one_that_stands_by(ended)
    (before,) = ended.workers._idle
    job, _ = await outside_of_tasks(lambda: ended.run(sets_a_number(turns, resets=True)))
    await ended.end_of(job)
    assert ended.workers._idle == [before]
    assert not before.task.cancelling()


# When it is cancelled


def never(_: Callable[[], object]) -> None:
    """Nobody cancels it."""


def at_once(cancel: Callable[[], object]) -> None:
    """After its first step, and before the next one: when a task has had its first turn."""
    cancel()


def a_turn_later(cancel: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(cancel)


def two_turns_later(cancel: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(a_turn_later, cancel)


def three_turns_later(cancel: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(two_turns_later, cancel)


def twice(cancel: Callable[[], object]) -> None:
    two_turns_later(cancel)
    cancel()


def much_later(cancel: Callable[[], object]) -> None:
    """When nothing happens any more but what takes time."""
    for _ in range(20):
        cancel = partial(asyncio.get_running_loop().call_soon, cancel)
    cancel()


async def as_a_task(work: Work, when: Meddling) -> tuple[Log, tuple[Any, str]]:
    log: Log = []
    task = asyncio.get_running_loop().create_task(work(log))
    asyncio.get_running_loop().call_soon(when, task.cancel)
    try:
        async with asyncio.timeout(LIMIT_S):
            value, error = await asyncio.shield(task), None
    except (Exception, asyncio.CancelledError) as raised:
        value, error = None, raised
    return log, (value, repr(error))


async def by_a_worker(work: Work, when: Meddling, ended: Ended) -> tuple[Log, tuple[Any, str]]:
    """Begun as soon as it is there; a new worker takes a turn for that, as a task does."""
    log: Log = []
    begins_later = not ended.workers._idle
    assert len(ended.workers._idle) <= 1

    def begin() -> object:
        job, worker = ended.run(work(log))
        if worker is not None:

            def cancel() -> None:
                ended.workers.cancel(worker, job)

            if begins_later:
                asyncio.get_running_loop().call_soon(when, cancel)
            else:
                when(cancel)
        return job

    return log, await ended.end_of(await outside_of_tasks(begin))


NEAR: Final[dict[Meddling, list[Meddling]]] = {
    never: [never],
    at_once: [at_once, a_turn_later],
    a_turn_later: [at_once, a_turn_later, two_turns_later],
    two_turns_later: [a_turn_later, two_turns_later, three_turns_later],
    twice: [twice, at_once, two_turns_later],
    much_later: [much_later],
}
"""A worker takes a turn, between the first step and the second, that a task does not take. So what
is cancelled may be a turn's worth farther, or less far, than a task that is cancelled then."""


@pytest.mark.parametrize("stands_by", [True, False])
@pytest.mark.parametrize("when", NEAR)
async def test_a_coroutine_sees_and_does_the_same_as_in_a_task(
    when: Meddling, *, stands_by: bool
) -> None:
    works = [*WORKS, *(UNMEDDLED if when is never else ENDLESS)]
    if when is not never and not isinstance(asyncio.get_running_loop(), VirtualLoop):
        # Nobody can say how much time a turn takes.
        works = [work for work in works if work not in TIMED]
    differences = []
    for work in works:
        expected = [await as_a_task(work, near) for near in NEAR[when]]
        async with workers() as ended:
            if stands_by:
                await have_one_that_stands_by(ended)
            seen = await by_a_worker(work, when, ended)
        if seen not in expected:
            differences.append(f"{work.__name__}: {seen} instead of {expected}")
    assert not differences, "\n".join(differences)


async def test_the_first_step_of_a_coroutine_is_taken_in_place_if_somebody_stands_by(
    ended: Ended,
) -> None:
    def begin() -> Log:
        log: Log = []
        ended.run(waits_a_turn(log))
        return list(log)

    assert await outside_of_tasks(begin) == []
    await asyncio.sleep(0.01)
    assert await outside_of_tasks(begin) == ["before"]


async def test_a_coroutine_that_does_not_wait_is_over_when_run_returns(ended: Ended) -> None:
    await have_one_that_stands_by(ended)
    before = asyncio.all_tasks()

    def begin() -> tuple[object, object]:
        job, worker = ended.run(returns_at_once([]))
        return worker, ended.of[job].result()

    for _ in range(100):
        assert await outside_of_tasks(begin) == (None, ("value", "None"))
    assert asyncio.all_tasks() == before


async def test_many_coroutines_at_a_time_are_each_in_a_task_of_their_own(ended: Ended) -> None:
    tasks: set[object] = set()
    go_on = asyncio.Event()

    async def work() -> None:
        this = this_task()
        assert this not in tasks
        tasks.add(this)
        await go_on.wait()
        assert this_task() is this

    count = IDLE_MAX + 20
    for _ in range(2):
        go_on.clear()
        jobs = [(await outside_of_tasks(lambda: ended.run(work())))[0] for _ in range(count)]
        await asyncio.sleep(0)
        assert len(ended.workers) == len(tasks) == count
        go_on.set()
        assert [await ended.end_of(job) for job in jobs] == [(None, "None")] * count
        tasks.clear()
    assert len(ended.workers) == 0
    assert len(ended.workers._idle) == IDLE_MAX


async def test_who_stands_by_holds_nothing_of_what_it_carried(ended: Ended) -> None:
    class Body:
        """Something large."""

    async def work(body: Body, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns == 2:
            raise ValueError(body)

    for turns in (1, 0, 1, 2):
        body = Body()
        gone = weakref.ref(body)
        job, _ = await outside_of_tasks(partial(ended.run, work(body, turns)))
        await ended.end_of(job)
        del ended.of[job], body
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize(
    "work", [cancels_itself_and_returns, cancels_itself_after_a_turn_and_returns]
)
async def test_a_coroutine_that_cancelled_itself_and_ended_takes_nobody_with_it(
    ended: Ended, work: Work
) -> None:
    await have_one_that_stands_by(ended)
    log: Log = []
    for _ in range(3):
        job, _ = await outside_of_tasks(lambda: ended.run(work(log)))
        assert await ended.end_of(job) == ("value", "None")
        # At once, and after its task has heard of it.
        for pause in range(3):
            job, _ = await outside_of_tasks(lambda: ended.run(waits_a_turn([])))
            assert await ended.end_of(job) == ("value", "None")
            for _ in range(pause):
                await asyncio.sleep(0)
    assert log == [1, 1, 1]


async def test_who_still_knows_the_task_of_a_coroutine_that_is_over_cancels_nobody_else(
    ended: Ended,
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def shows_itself() -> None:
        tasks.append(this_task())
        await asyncio.sleep(0)

    for pause in range(4):
        job, _ = await outside_of_tasks(lambda: ended.run(shows_itself()))
        await ended.end_of(job)
        tasks[-1].cancel()
        for _ in range(pause):
            await asyncio.sleep(0)
        job, _ = await outside_of_tasks(lambda: ended.run(waits_a_turn([])))
        assert await ended.end_of(job) == ("value", "None")


async def test_a_job_that_is_over_cannot_be_cancelled_and_nobody_else_with_it(
    ended: Ended,
) -> None:
    job, worker = await outside_of_tasks(lambda: ended.run(waits_a_turn([])))
    await ended.end_of(job)
    next_job, same = await outside_of_tasks(lambda: ended.run(waits_a_turn([])))
    assert same is worker
    ended.workers.cancel(worker, job)
    assert await ended.end_of(next_job) == ("value", "None")


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("stands_by", [True, False])
async def test_a_coroutine_may_close_all_workers_itself(turns: int, *, stands_by: bool) -> None:
    log: Log = []

    async with workers() as ended:
        if stands_by:
            # Two: one for each.
            jobs = [(await outside_of_tasks(lambda: ended.run(asyncio.sleep(0))))[0] for _ in "ab"]
            await asyncio.gather(*map(ended.end_of, jobs))

        async def closes() -> str:
            for _ in range(turns):
                await asyncio.sleep(0)
            await ended.workers.close()
            await asyncio.sleep(0)
            return "closed"

        other, _ = await outside_of_tasks(lambda: ended.run(waits_for_ever(log)))
        closing, _ = await outside_of_tasks(lambda: ended.run(closes()))
        assert await ended.end_of(closing) == ("closed", "None")
        assert await ended.end_of(other) == (None, "CancelledError()")


@pytest.mark.parametrize("turns", range(4))
async def test_closing_ends_what_runs_wherever_it_is(turns: int) -> None:
    async with workers() as ended:
        await have_one_that_stands_by(ended)
        log: Log = []
        jobs = [
            (await outside_of_tasks(partial(ended.run, work(log))))[0]
            for work in (*ENDLESS, takes_long_to_end, *ENDLESS)
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        await ended.workers.close()
        assert [ended.of[job].result() for job in jobs] == [(None, "CancelledError()")] * 7
        assert "ended" in log


async def test_after_the_end_nothing_is_begun(ended: Ended) -> None:
    await ended.workers.close()
    log: Log = []
    job, worker = await outside_of_tasks(lambda: ended.call(partial(waits_a_turn, log)))
    assert worker is None
    assert await ended.end_of(job) == (None, "CancelledError()")
    assert log == []


async def test_what_tells_of_one_end_may_begin_the_next(ended: Ended) -> None:
    """As a reply to a query of this node to itself does."""
    await have_one_that_stands_by(ended)
    left = [50]

    async def work(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if left[0]:
            left[0] -= 1
            asyncio.get_running_loop().call_soon(
                lambda: ended.run(work(left[0] % 3), f"job {left[0]}")
            )

    await outside_of_tasks(lambda: ended.run(work(0)))
    async with asyncio.timeout(LIMIT_S):
        while "job 0" not in ended.of:
            await asyncio.sleep(0)
    await ended.end_of("job 0")


async def test_who_swallows_its_cancellation_is_not_waited_for_for_ever() -> None:
    if not isinstance(asyncio.get_running_loop(), VirtualLoop):
        pytest.skip("its time is real")
    gone = asyncio.Event()

    async def goes_on() -> str:
        while True:
            try:
                async with asyncio.timeout(LONG_S):
                    await gone.wait()
                    return "gone"
            except asyncio.CancelledError:
                pass

    async with workers() as ended:
        await have_one_that_stands_by(ended)
        job, _ = await outside_of_tasks(lambda: ended.run(goes_on()))
        other, _ = await outside_of_tasks(lambda: ended.run(waits_for_ever([])))
        loop = asyncio.get_running_loop()
        loop.call_later(10 * ENDS_WITHIN_S, gone.set)
        began_s = loop.time()
        assert await ended.workers.close() == [job]
        assert loop.time() - began_s == pytest.approx(ENDS_WITHIN_S, abs=0.1)
        assert ended.of[other].done()
        await ended.of[job]


def test_what_ends_the_program_ends_its_job_first() -> None:
    told: list[object] = []

    async def exits(_: str) -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    async def program() -> None:
        running: Workers[str] = Workers(lambda job, _, error: told.append((job, repr(error))))
        asyncio.get_running_loop().call_soon(running.run, "job", exits)
        await asyncio.Event().wait()

    with pytest.raises(SystemExit):
        asyncio.run(program())
    assert told == [("job", "SystemExit(3)")]


def test_a_job_of_a_loop_that_is_thrown_away_is_told_nobody() -> None:
    told: list[object] = []

    async def waits(_: str) -> None:
        await asyncio.Event().wait()

    async def program() -> None:
        running: Workers[str] = Workers(lambda *end: told.append(end))
        asyncio.get_running_loop().call_soon(running.run, "job", waits)
        for _ in range(3):
            await asyncio.sleep(0)
        (worker,) = running._busy.values()
        # As it is when a pending task is collected.
        coroutine = worker.task.get_coro()
        assert coroutine is not None
        coroutine.close()
        running._busy.clear()
        worker.task.cancel()

    asyncio.run(program())
    assert told == []


def test_of_a_job_whose_loop_ends_before_its_turn_there_is_no_complaint() -> None:
    """Python would say that the coroutine of somebody's handler was never awaited."""
    called: list[str] = []

    async def begins(job: str) -> None:
        called.append(job)

    async def program() -> None:
        running: Workers[str] = Workers(lambda *_: None)
        asyncio.get_running_loop().call_soon(running.run, "job", begins)

    asyncio.run(program())
    gc.collect()
    assert called == []


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="came with Python 3.12")
@pytest.mark.parametrize("work", [returns_at_once, raises_at_once, waits_a_turn])
async def test_with_eager_tasks_a_job_that_ends_in_its_first_step_is_over(
    work: Work, eager_task_factory: Any
) -> None:
    asyncio.get_running_loop().set_task_factory(eager_task_factory)
    async with workers() as ended:
        job, worker = await outside_of_tasks(lambda: ended.run(work([])))
        await ended.end_of(job)
        assert (worker is None) == (work is not waits_a_turn)

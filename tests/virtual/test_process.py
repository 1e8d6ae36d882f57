"""What ends when a program ends without having been asked: all of it, at once, for good."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import Host, HostDown, Network, SimulationError, simulate

ALICE = "192.0.2.1"
ENDS = pytest.mark.parametrize("end", [Host.crash, Host.kill])


class Notes:
    """What code noted that ran on the machine after its end."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._process = host.process
        self.lively = 0
        self.after: list[str] = []

    def __call__(self, text: str) -> None:
        if self._process.alive:
            self.lively += 1
        else:
            self.after.append(text)


async def tick(note: Notes) -> None:
    while True:
        await asyncio.sleep(0.1)
        note("task")


async def with_timers(note: Notes) -> None:
    loop = asyncio.get_running_loop()

    def again() -> None:
        note("timer")
        loop.call_later(0.1, again)

    loop.call_soon(again)
    await asyncio.Event().wait()


async def in_children(note: Notes) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(tick(note))


async def beside_others(note: Notes) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def consume() -> None:
        while True:
            await queue.get()
            note("queue")

    tasks = [asyncio.create_task(consume()) for _ in range(3)]
    while True:
        await queue.put(1)
        await asyncio.sleep(0.1)
        assert tasks


async def in_a_thread(note: Notes) -> None:
    while True:
        await asyncio.to_thread(note, "thread")
        await asyncio.sleep(0.1)


async def on_a_generator(note: Notes) -> None:
    async def steps() -> AsyncIterator[int]:
        while True:
            await asyncio.sleep(0.1)
            note("generator")
            yield 1

    async for _ in steps():
        note("loop")


async def with_timeouts(note: Notes) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.sleep(1)
        note("timeout")


async def with_callbacks(note: Notes) -> None:
    while True:
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: note("callback"))
        await asyncio.sleep(0.1)
        future.set_result(None)


@ENDS
@pytest.mark.parametrize(
    "program",
    [
        tick,
        with_timers,
        in_children,
        beside_others,
        in_a_thread,
        on_a_generator,
        with_timeouts,
        with_callbacks,
    ],
)
@pytest.mark.parametrize("at_s", [1.0, 1.05])
def test_nothing_of_it_runs_on(
    program: Callable[[Notes], Coroutine[Any, Any, None]], end: Callable[[Host], None], at_s: float
) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        note = Notes(alice)
        alice.spawn(program(note))
        await asyncio.sleep(at_s)
        assert note.lively > 5
        end(alice)
        await asyncio.sleep(100)
        assert note.after == []

    assert simulate(story).virtual_s == at_s + 100


async def waits_as_it_leaves(note: Notes) -> None:
    @contextlib.asynccontextmanager
    async def room(depth: int) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            note(f"left {depth}")

    async with room(1), room(2), room(3):
        await tick(note)


async def clings_to_life(note: Notes) -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await tick(note)
        note("cancelled and going on")


async def starts_something_at_the_end(note: Notes) -> None:
    try:
        await asyncio.sleep(1_000)
    finally:
        held = asyncio.create_task(tick(note))
        asyncio.get_running_loop().call_soon(note, "soon")
        asyncio.get_running_loop().call_later(1, note, "later")
        assert held


async def swallows_everything(note: Notes) -> None:
    for _ in range(50):
        try:
            await asyncio.sleep(1_000)
        except BaseException:  # noqa: S112
            continue
    note("the end")


@ENDS
@pytest.mark.parametrize(
    "program",
    [waits_as_it_leaves, clings_to_life, starts_something_at_the_end, swallows_everything],
)
def test_nobody_can_cling_to_life(
    program: Callable[[Notes], Coroutine[Any, Any, None]], end: Callable[[Host], None]
) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        note = Notes(alice)
        running = asyncio.create_task(alice.run(program(note)))
        await asyncio.sleep(1)
        end(alice)
        # What Python runs as it throws a coroutine away, it runs at once.
        note.after.clear()
        with pytest.raises(HostDown, match="alice crashed"):
            await running
        await asyncio.sleep(2_000)
        assert note.after == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    simulate(story)


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.booleans())
def test_whoever_waits_for_a_program_is_told_that_it_crashed(
    at_s: float, back_s: float, is_killed: bool
) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        waiting = [asyncio.create_task(alice.run(asyncio.sleep(1 + n))) for n in range(3)]
        await asyncio.sleep(at_s)
        (alice.kill if is_killed else alice.crash)()
        await asyncio.sleep(back_s)
        if not is_killed:
            alice.restart()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [HostDown] * 3
        assert await alice.run(asyncio.sleep(1, "as good as new")) == "as good as new"

    simulate(story)


@ENDS
@pytest.mark.parametrize("begun", [False, True])
def test_whoever_waits_for_a_task_on_a_machine_is_told_that_it_crashed(
    end: Callable[[Host], None], begun: bool
) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        tasks = [alice.spawn(asyncio.sleep(100)) for _ in range(3)]
        if begun:
            await asyncio.sleep(1)
        end(alice)
        with pytest.raises(HostDown, match="alice crashed"):
            await tasks[0]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [HostDown] * 3
        assert not any(task.cancelled() for task in tasks)

    simulate(story)


def test_nobody_has_to_wait_for_a_task_on_a_machine_that_crashes() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        alice.spawn(asyncio.sleep(100))
        await asyncio.sleep(1)
        alice.crash()
        await asyncio.sleep(1)
        gc.collect()

    simulate(story)


def test_a_machine_that_is_down_runs_nothing() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        alice.crash()
        with pytest.raises(HostDown, match="alice is down"):
            alice.spawn(asyncio.sleep(1))
        with pytest.raises(HostDown, match="alice is down"):
            await alice.run(asyncio.sleep(1))
        with pytest.raises(SimulationError, match="already down"):
            alice.crash()
        with pytest.raises(SimulationError, match="already down"):
            alice.kill()

    simulate(story)


def test_what_a_program_raises_comes_through_unchanged() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        error = KeyError("its own")

        async def fail() -> None:
            await asyncio.sleep(1)
            raise error

        with pytest.raises(KeyError) as raised:
            await alice.run(fail())
        assert raised.value is error

    simulate(story)


def test_who_stops_waiting_stops_the_program() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        note = Notes(alice)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.05):
                await alice.run(tick(note))
        assert note.lively == 10
        await asyncio.sleep(5)
        assert note.lively == 10

    simulate(story)


@pytest.mark.parametrize("what", ["crash", "kill", "sleep", "restart"])
def test_a_machine_cannot_do_that_to_itself(what: str) -> None:
    async def story(network: Network) -> None:
        alice, bob = network.host("alice", ALICE), network.host("bob", "198.51.100.1")

        async def to_itself() -> None:
            getattr(alice, what)()

        async def from_a_callback() -> None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def callback() -> None:
                try:
                    getattr(alice, what)()
                except SimulationError as error:
                    done.set_exception(error)

            asyncio.get_running_loop().call_later(1, callback)
            await done

        for program in (to_itself, from_a_callback):
            with pytest.raises(SimulationError, match="from within"):
                await alice.run(program())
        assert alice.is_up
        # Another one can.
        await bob.run(to_itself())

    simulate(story)


def test_a_program_can_outlive_the_one_that_started_it_on_another_machine() -> None:
    async def story(network: Network) -> None:
        alice, bob = network.host("alice", ALICE), network.host("bob", "198.51.100.1")
        note = Notes(bob)

        async def start_on_bob() -> None:
            bob.spawn(tick(note))
            await asyncio.sleep(100)

        alice.spawn(start_on_bob())
        await asyncio.sleep(1.05)
        alice.crash()
        await asyncio.sleep(1)
        assert note.lively == 20

    simulate(story)


@ENDS
def test_at_its_end_a_program_opens_nothing_more(end: Callable[[Host], None]) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        loop, opened = network.loop, []

        async def program(opening: Callable[[], Coroutine[Any, Any, Any]]) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                opened.append(await opening())

        for opening in (
            lambda: loop.create_server(asyncio.Protocol, ALICE, 80),
            lambda: loop.create_datagram_endpoint(asyncio.DatagramProtocol, (ALICE, 80)),
            lambda: loop.create_connection(asyncio.Protocol, ALICE, 80),
        ):
            alice.spawn(program(opening))
        await asyncio.sleep(1)
        end(alice)
        await asyncio.sleep(200)
        assert not opened
        assert not alice.listeners
        assert not alice.datagrams
        assert not alice.streams

    simulate(story)

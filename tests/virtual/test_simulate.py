"""A story is told from one beginning to one end, and nothing of it is left."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest

from simulations.virtual import (
    HostDown,
    ImpossibleWorld,
    Network,
    Overdue,
    Session,
    SimulationError,
    Stalled,
    Trace,
    Unhandled,
    run_in,
    simulate,
)

ALICE = "192.0.2.1"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which nothing may be left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def fails(delay_s: float = 0.0) -> None:
    await asyncio.sleep(delay_s)
    raise KeyError("what went wrong")


# What comes of a story


def test_a_run_says_what_came_of_it(programs: Any) -> None:
    async def story(network: Network) -> str:
        inbox = await programs.bind(network.host("alice", ALICE))
        inbox.send(b"to nobody", "198.51.100.1")
        await asyncio.sleep(3_600)
        return "the end"

    run = simulate(story)
    assert (run.value, run.virtual_s) == ("the end", 3_600)
    assert 0 <= run.wall_s < 60
    assert run.packets == 1
    assert run.digest == simulate(story).digest


@pytest.mark.parametrize("error", [KeyError("a"), TimeoutError(), SimulationError("b"), SystemExit])
def test_what_a_story_raises_comes_through_unchanged(error: Any) -> None:
    async def story(_: Network) -> None:
        await asyncio.sleep(1)
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error) as raised:
        simulate(story)
    assert error in {raised.value, raised.type}


def test_a_story_that_is_cancelled_says_so() -> None:
    async def story(_: Network) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(asyncio.CancelledError):
        simulate(story)


# What nobody was there to take


@pytest.mark.parametrize("is_on_a_machine", [False, True])
def test_what_a_task_raises_that_nobody_waits_for_fails_the_run_at_once(
    is_on_a_machine: bool,
) -> None:
    async def story(network: Network) -> None:
        if is_on_a_machine:
            network.host("alice", ALICE).spawn(fails(1))
        else:
            held = asyncio.create_task(fails(1))
            await asyncio.sleep(1.5)
            del held
        await asyncio.sleep(1_000)

    network = Network()
    with pytest.raises(Unhandled, match="never retrieved: KeyError: 'what went wrong'") as raised:
        run_in(network, story(network))
    assert isinstance(raised.value.__cause__, KeyError)
    assert network.loop.now < 2


def test_what_a_callback_raises_fails_the_run(programs: Any) -> None:
    async def story(network: Network) -> None:
        network.loop.call_later(1, lambda: 1 // 0)
        await asyncio.sleep(5)

    with pytest.raises(Unhandled, match="ZeroDivisionError") as raised:
        simulate(story)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_what_a_protocol_raises_fails_the_run(programs: Any) -> None:
    class Clumsy(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise LookupError(data)

    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        await bob.run(network.loop.create_server(Clumsy, bob.addresses[0], 80))
        side = await programs.connect(alice, bob.addresses[0])
        side.write(b"hello")
        await asyncio.sleep(5)

    with pytest.raises(Unhandled, match="LookupError"):
        simulate(story)


@pytest.mark.parametrize("how", ["a task", "a callback", "a report"])
def test_the_machine_of_what_nobody_handled_is_named(how: str) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        await alice.run(begin())
        await asyncio.sleep(100)

    async def begin() -> None:
        loop = asyncio.get_running_loop()
        match how:
            case "a task":
                loop.call_soon(loop.create_task, fails(1))
            case "a callback":
                loop.call_later(1, {"a": 1}.__getitem__, "what went wrong")
            case _:
                report = {"message": "an alarm", "exception": KeyError("what went wrong")}
                loop.call_later(1, loop.call_exception_handler, report)

    with pytest.raises(Unhandled, match=r"^alice: .*KeyError: 'what went wrong'"):
        simulate(story)


@pytest.mark.parametrize("how", ["raises", "nobody handles it", "stalls", "is late", "is stopped"])
def test_a_failed_run_says_when_it_failed_and_in_which_world(how: str) -> None:
    async def story(network: Network) -> None:
        await asyncio.sleep(7)
        match how:
            case "raises":
                raise KeyError("what went wrong")
            case "nobody handles it":
                network.host("alice", ALICE).spawn(fails())
                await asyncio.sleep(1)
            case "stalls":
                await asyncio.Event().wait()
            case "is late":
                network.loop.limit_s = 7
                await asyncio.sleep(0.0001)
            case _:
                raise KeyboardInterrupt

    expected: dict[str, type[BaseException]] = {
        "raises": KeyError,
        "nobody handles it": Unhandled,
        "stalls": Stalled,
        "is late": Overdue,
        "is stopped": KeyboardInterrupt,
    }
    with pytest.raises(expected[how]) as raised:
        simulate(story, seed=9)
    assert raised.value.__notes__ == ["at 7.000 s of the world with seed 9"]


def test_what_was_not_taken_before_the_end_fails_the_run_after_it() -> None:
    async def story(_: Network) -> str:
        held.append(asyncio.create_task(fails()))
        await asyncio.sleep(1)
        return "the end"

    held: list[asyncio.Task[None]] = []
    with pytest.raises(Unhandled, match="KeyError"), Session(network := Network()) as session:
        assert session.run(story(network)) == "the end"
        held.clear()


def test_a_story_that_goes_on_over_it_fails_all_the_same() -> None:
    async def story(_: Network) -> str:
        task = asyncio.create_task(fails())
        await asyncio.sleep(0.5)
        del task
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "the end"
        return "not told"

    with pytest.raises(Unhandled, match="KeyError"):
        simulate(story)


@pytest.mark.parametrize("limit_s", [None, 100])
def test_what_went_wrong_first_is_what_is_told(limit_s: float | None) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        network.loop.call_later(1, lambda: 1 // 0)
        alice.sleep()
        if limit_s is not None:
            network.loop.call_later(1_000, print)
        # It cannot be cancelled, since its machine is asleep.
        await alice.run(asyncio.sleep(5))

    with pytest.raises(Unhandled, match="ZeroDivisionError"):
        simulate(story, limit_s=limit_s)


def test_who_crashed_left_nothing_that_anybody_could_take() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)

        async def fails_as_it_ends() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                raise KeyError("in vain")

        alice.spawn(fails_as_it_ends())
        alice.spawn(fails(5))
        await asyncio.sleep(1)
        alice.crash()
        gc.collect()
        await asyncio.sleep(100)

    simulate(story)


# Limits


def test_the_limit_is_of_virtual_time_and_begins_with_the_story() -> None:
    network = Network()
    with Session(network) as session:
        session.run(asyncio.sleep(50))
        session.run(asyncio.sleep(60), limit_s=60)
        with pytest.raises(Overdue, match="at 170 s") as caught:
            session.run(asyncio.sleep(1_000_000), limit_s=60)
        # No more time than that has gone by, whatever was waited for.
        assert network.loop.now == 170
        assert caught.value.__notes__ == ["at 170.000 s of the world with seed 0"]
        # And the next one has its own.
        session.run(asyncio.sleep(1_000))


# Worlds that go on


def test_a_session_keeps_its_world_from_one_story_to_the_next(programs: Any) -> None:
    network = Network()
    with Session(network) as session:
        alice, bob = programs.two(network)
        side, other = session.run(programs.connected(alice, bob))
        before_s = network.loop.now
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                ticks.append(network.loop.now)
                await asyncio.sleep(1)

        async def start() -> None:
            bob.spawn(tick())
            side.write(b"hello")

        session.run(start())
        assert network.loop.now == before_s
        assert other.received == b""
        session.run(asyncio.sleep(2.5))
        assert other.received == b"hello"
        assert ticks == [before_s, before_s + 1, before_s + 2]
        assert session.run(asyncio.sleep(0, "again")) == "again"
    assert network.loop.is_closed()


def test_a_session_goes_on_after_a_story_that_failed() -> None:
    with Session(Network()) as session:
        with pytest.raises(KeyError):
            session.run(fails(1))
        with pytest.raises(Stalled):
            session.run(asyncio.Event().wait())
        session.run(asyncio.sleep(1))


# What is left


class Watched:
    """Can be looked for after it should be gone."""


@pytest.mark.parametrize("how", ["returns", "raises", "stalls", "is late", "circles"])
def test_nothing_is_left_however_a_story_ends(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("simulations.virtual.loop.TURNS_MAX", 1_000)
    cleaned: list[str] = []
    watched: list[weakref.ref[Watched]] = []

    async def lives_on(name: str) -> None:
        thing = Watched()
        watched.append(weakref.ref(thing))
        try:
            await asyncio.sleep(1e9)
        finally:
            cleaned.append(name)
            await asyncio.sleep(1)

    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        (alice.disk / "file").write_text("content")
        (network.story.disk / "file").write_text("content")
        down = network.host("down", "192.0.2.2")
        assert down.disk.exists()
        down.crash()
        asleep = network.host("asleep", "192.0.2.3")
        for host in (alice, asleep):
            host.spawn(lives_on(host.name))
        held = asyncio.create_task(lives_on("the story"))
        await asyncio.sleep(1)
        asleep.sleep()
        match how:
            case "raises":
                raise KeyError
            case "stalls":
                held.cancel()
                alice.crash()
                await asyncio.sleep(1)
                await asyncio.Event().wait()
            case "is late":
                await asyncio.sleep(1_000)
            case "circles":
                while True:
                    await asyncio.sleep(0)

    expected = {"raises": KeyError, "stalls": Stalled, "is late": Overdue, "circles": Stalled}
    network = Network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if how in expected:
            with pytest.raises(expected[how]):
                run_in(network, story(network), limit_s=100)
        else:
            run_in(network, story(network), limit_s=100)
        del network.hosts["alice"]
        gc.collect()
    assert network.loop.is_closed()
    assert sorted(cleaned) == ["alice", "asleep", "the story"]
    assert [path.name for path in temporary.iterdir()] == []
    assert not asyncio.all_tasks(network.loop)
    assert [ref() for ref in watched] == [None] * 3


def test_a_world_can_be_thrown_away_unused() -> None:
    async def never(_: Network) -> None:
        """Has no chance to run."""

    with Session(Network()):
        pass
    Network(trace=Trace(keep=True)).host("alice", ALICE)
    gc.collect()
    with pytest.raises(TypeError):
        simulate(lambda _: 1 // 1)  # type: ignore[arg-type, return-value]
    gc.collect()


def test_one_world_is_simulated_while_another_one_waits() -> None:
    one, other = Network(1), Network(2)
    with Session(one) as first, Session(other) as second:
        first.run(asyncio.sleep(5))
        second.run(asyncio.sleep(7))
        first.run(asyncio.sleep(1))
    assert (one.loop.now, other.loop.now) == (6, 7)


def test_a_crash_at_the_end_is_no_error_for_who_waits() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)

        async def wait() -> None:
            with pytest.raises(HostDown):
                await alice.run(asyncio.sleep(100))

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(1)
        alice.crash()
        await waiting

    simulate(story)


@pytest.mark.parametrize("limit_s", [0, -1, float("nan")])
def test_there_is_no_such_limit(limit_s: float) -> None:
    with pytest.raises(ImpossibleWorld, match="above 0 s"):
        run_in(Network(), asyncio.sleep(1), limit_s=limit_s)

"""Virtual time: it jumps, it keeps order, and it does not get stuck."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulations.virtual import (
    Host,
    Network,
    NotSimulated,
    Overdue,
    Stalled,
    loop,
    run_in,
    simulate,
)

delays = st.one_of(st.sampled_from([-1.0, 0.0, 1e-12, 0.5, 1.0]), st.floats(0, 1e6))


@pytest.fixture
def small_turns_max(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TURNS_MAX", 3_000)


# Time


def test_an_hour_takes_no_time() -> None:
    async def story(_: Network) -> float:
        await asyncio.sleep(3_600)
        return asyncio.get_running_loop().time()

    began_s = time.perf_counter()
    run = simulate(story)
    assert run.value == run.virtual_s == 3_600
    assert time.perf_counter() - began_s < 10


@given(st.lists(delays, max_size=40))
def test_timers_fire_in_order_of_time_and_at_equal_times_in_order_of_asking(
    delays_s: list[float],
) -> None:
    async def story(network: Network) -> list[tuple[float, int]]:
        fired: list[tuple[float, int]] = []
        for number, delay_s in enumerate(delays_s):
            network.loop.call_later(
                delay_s, lambda number=number: fired.append((network.loop.time(), number))
            )
        await asyncio.sleep(2e6)
        return fired

    def due_s(delay_s: float) -> float:
        return 0.0 if delay_s <= 0 else max(delay_s, loop.TICK_S)

    expected = sorted((due_s(delay_s), number) for number, delay_s in enumerate(delays_s))
    assert simulate(story).value == expected


@given(st.lists(st.tuples(delays, delays), max_size=20))
def test_timers_that_are_set_by_timers_are_not_early_and_time_never_goes_back(
    chains: list[tuple[float, float]],
) -> None:
    async def story(network: Network) -> list[float]:
        seen: list[float] = []

        def second(due_s: float) -> None:
            assert network.loop.time() >= due_s
            seen.append(network.loop.time())

        def first(then_s: float) -> None:
            seen.append(network.loop.time())
            due_s = network.loop.time() + then_s
            network.loop.call_at(due_s, second, due_s)

        for delay_s, then_s in chains:
            network.loop.call_later(delay_s, first, then_s)
        await asyncio.sleep(3e6)
        return seen

    seen = simulate(story).value
    assert len(seen) == 2 * len(chains)
    assert seen == sorted(seen)


def test_callbacks_of_one_moment_run_in_the_order_they_were_asked_for() -> None:
    async def story(network: Network) -> str:
        order = ""

        def note(letter: str) -> None:
            nonlocal order
            order += letter

        network.loop.call_soon(note, "a")
        network.loop.call_later(0, note, "c")
        network.loop.call_soon(note, "b")
        network.loop.call_at(-5, note, "d")
        network.loop.happen(0, note, "e")
        await asyncio.sleep(1)
        return order

    assert simulate(story).value == "abcde"


@pytest.mark.parametrize("now_s", [0.0, 1e6, 1e9, 1e12])
def test_a_delay_that_rounds_to_nothing_passes(now_s: float) -> None:
    async def story(network: Network) -> None:
        now = network.loop.time
        await asyncio.sleep(now_s)
        for delay_s in (1e-30, 1e-12, 1e-9):
            before_s = now()
            await asyncio.sleep(delay_s)
            assert before_s < now() < before_s + 1
            before_s = now()
            fired = asyncio.Event()
            network.loop.call_at(math.nextafter(before_s, math.inf), fired.set)
            await fired.wait()
            assert before_s < now() < before_s + 1

    simulate(story)


def test_a_program_that_waits_for_the_rest_of_a_time_gets_there_on_every_clock(
    small_turns_max: None,
) -> None:
    async def wait_until(deadline_s: float) -> None:
        now = asyncio.get_running_loop().time
        while now() < deadline_s:
            await asyncio.sleep(deadline_s - now())

    async def story(network: Network) -> None:
        laptop = network.host("laptop", "192.0.2.1")
        # Its clock has finer steps than that of the world, and its elapsed time finer ones still.
        await asyncio.sleep(1e8 / 3)
        laptop.sleep()
        await asyncio.sleep(1e8 / 7)
        laptop.wake()
        laptop.crash()
        laptop.restart()
        now = laptop.network.loop.time
        for deadline_s in (0.1, 1 / 3, 0.7000000001):

            async def by_elapsed(deadline_s: float = deadline_s) -> None:
                end_s = laptop.elapsed() + deadline_s
                while laptop.elapsed() < end_s:
                    await asyncio.sleep(end_s - laptop.elapsed())

            await laptop.run(wait_until(now() + deadline_s))
            await laptop.run(by_elapsed())

    simulate(story)


# Cancelled timers


def test_cancelled_timers_do_not_fire_nor_hold_up_time() -> None:
    async def story(network: Network) -> float:
        fired: list[int] = []
        for delay_s in range(50, 150):
            network.loop.call_later(delay_s, fired.append, delay_s).cancel()
        await asyncio.sleep(1)
        assert not fired
        return network.loop.time()

    assert simulate(story).virtual_s == 1


def test_cancelled_timers_are_thrown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CANCELLED_MAX", 100)

    async def story(network: Network) -> None:
        kept = [network.loop.call_later(10, print) for _ in range(50)]
        for _ in range(10_000):
            network.loop.call_later(1_000, print).cancel()
            assert len(network.loop._timers) <= 50 + 100 + 1
        for timer in kept:
            timer.cancel()
        await asyncio.sleep(5)

    simulate(story)


def test_timeouts_that_are_not_reached_do_not_add_up() -> None:
    async def story(network: Network) -> None:
        for _ in range(3 * loop.CANCELLED_MAX):
            async with asyncio.timeout(86_400):
                await asyncio.sleep(0)
        assert len(network.loop._timers) <= loop.CANCELLED_MAX + 1

    simulate(story)


# The end of waiting


def test_nothing_left_to_happen_is_told_at_once_with_task_line_and_machine() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()  # the line that waits

    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        alice.spawn(wait_for_nobody(), name="the lonely one")
        await asyncio.sleep(5)
        await asyncio.get_running_loop().create_future()

    network = Network()
    with pytest.raises(Stalled) as stalled:
        run_in(network, story(network))
    text = str(stalled.value)
    first = test_nothing_left_to_happen_is_told_at_once_with_task_line_and_machine.__code__
    line = first.co_firstlineno + 2
    assert f"alice: the lonely one at virtual/test_loop.py:{line} in wait_for_nobody" in text
    assert "the story at virtual/test_loop.py" in text
    assert network.loop.now == 5


def test_whoever_waits_for_a_sleeping_machine_is_told_that_it_sleeps() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        alice.sleep()
        await alice.run(asyncio.sleep(1))

    with pytest.raises(Stalled, match=r"\n  alice \(asleep\): Task-"):
        simulate(story)


def test_a_wait_without_end_is_no_event() -> None:
    async def story(_: Network) -> None:
        await asyncio.sleep(math.inf)

    with pytest.raises(Stalled, match="in story"):
        simulate(story)


def test_what_takes_longer_than_the_limit_is_told_with_who_waits() -> None:
    async def tick() -> None:
        while True:
            await asyncio.sleep(1)

    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        alice.spawn(tick(), name="the clock")
        await asyncio.Event().wait()

    with pytest.raises(Overdue, match=r"at 60 s(.|\n)*alice: the clock at .*test_loop.py:\d+"):
        simulate(story, limit_s=60)


def test_only_so_many_waiters_are_named() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        for _ in range(100):
            alice.spawn(asyncio.sleep(math.inf))
        await asyncio.sleep(math.inf)

    with pytest.raises(Stalled, match="and 89 more"):
        simulate(story)


def test_going_round_in_circles_is_told(small_turns_max: None) -> None:
    async def story(_: Network) -> None:
        await asyncio.sleep(7)
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stalled, match=r"round in circles at 7 s(.|\n)*in story"):
        simulate(story)


def test_whoever_goes_round_in_circles_is_named_before_all_who_wait(small_turns_max: None) -> None:
    async def circle() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()

    async def story(network: Network) -> None:
        alice, bob = network.host("alice", "192.0.2.1"), network.host("bob", "198.51.100.1")
        for _ in range(100):
            alice.spawn(asyncio.sleep(math.inf))
        await asyncio.sleep(7)
        bob.spawn(circle(), name="the wheel")
        await asyncio.sleep(math.inf)

    named = r"at 7 s; whose turn it is:\n  bob: the wheel at .*:\d+ in circle\nwho waits:"
    with pytest.raises(Stalled, match=named):
        simulate(story)


@given(born_s=st.floats(0, 1e6), wait_s=st.floats(0, 1e6))
@example(born_s=8.64, wait_s=60.0)
def test_what_is_left_of_a_time_is_over_at_last_on_every_machine(
    born_s: float, wait_s: float
) -> None:
    async def wait(host: Host) -> None:
        until_s = host.elapsed() + wait_s
        while (left_s := until_s - host.elapsed()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await asyncio.Event().wait()

    async def story(network: Network) -> None:
        await asyncio.sleep(born_s)
        alice = network.host("alice", "192.0.2.1")
        await alice.run(wait(alice))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "TURNS_MAX", 3_000)
        assert simulate(story).virtual_s == pytest.approx(born_s + wait_s, abs=1e-6)


def test_a_busy_program_whose_time_goes_on_is_not_in_circles(small_turns_max: None) -> None:
    async def story(network: Network) -> None:
        while network.loop.time() < 0.005:
            await asyncio.sleep(1e-6)

    simulate(story)


def test_a_loop_that_is_stopped_before_it_runs_does_not_let_time_pass() -> None:
    network = Network()
    network.loop.call_later(5, print)
    network.loop.stop()
    network.loop.run_forever()
    assert network.loop.now == 0
    network.loop.close()


# What there is not, and what there is in its place


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("add_reader", (0, print)),
        ("add_writer", (0, print)),
        ("sock_recv", (None, 1)),
        ("subprocess_exec", (None, "ls")),
        ("subprocess_shell", (None, "ls")),
        ("create_unix_connection", (asyncio.Protocol, "/x")),
        ("start_tls", (None, None, None)),
        ("connect_read_pipe", (None, None)),
        ("add_signal_handler", (2, print)),
        ("call_soon_threadsafe", (print,)),
        ("sendfile", (None, None)),
    ],
)
def test_what_is_not_simulated_is_refused(name: str, arguments: tuple[object, ...]) -> None:
    async def story(network: Network) -> None:
        with pytest.raises(NotSimulated):
            getattr(network.loop, name)(*arguments)

    simulate(story)


@pytest.mark.parametrize("name", ["close_clients", "abort_clients"])
def test_that_a_server_ends_its_connections_is_refused(name: str) -> None:
    """What servers can do from Python 3.13 on. As none could be made there, as far as mypy sees,
    nothing was compiled."""

    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        server = await alice.run(network.loop.create_server(asyncio.Protocol, "192.0.2.1", 443))
        with pytest.raises(NotSimulated, match=name):
            getattr(server, name)()

    simulate(story)


def test_tls_is_refused() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        with pytest.raises(NotSimulated, match="ssl"):
            await alice.run(asyncio.open_connection("192.0.2.1", 443, ssl=True))

    simulate(story)


def test_work_for_another_thread_is_done_here_and_now() -> None:
    async def story(network: Network) -> None:
        done: list[int] = []
        future = network.loop.run_in_executor(None, done.append, 1)
        assert done == [1]
        await future
        assert await asyncio.to_thread(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        assert network.loop.time() == 0

    simulate(story)


def test_an_asynchronous_generator_that_is_not_used_up_is_closed() -> None:
    async def story(_: Network) -> list[str]:
        noted: list[str] = []

        async def numbers() -> AsyncIterator[int]:
            try:
                for number in itertools.count():
                    yield number
            finally:
                await asyncio.sleep(1)
                noted.append("closed")

        async for number in numbers():
            if number == 2:
                break
        gc.collect()
        await asyncio.sleep(2)
        return noted

    assert simulate(story).value == ["closed"]

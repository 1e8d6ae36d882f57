"""A machine that sleeps does nothing, and does not know for how long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import HostDown, ImpossibleWorld, Network, simulate
from simulations.virtual.network import EPOCH_S

ALICE, BOB = "192.0.2.1", "198.51.100.1"
seconds = st.floats(0, 1e4).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=4), seconds)
def test_timers_stand_still_for_as_long_as_the_machine(
    naps: list[tuple[float, float]], delay_s: float
) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        awake_s = asleep_s = 0.0

        async def program() -> float:
            await asyncio.sleep(delay_s)
            return network.loop.now

        waiting = alice.spawn(program())
        await asyncio.sleep(0)
        for before_s, nap_s in naps:
            await asyncio.sleep(before_s)
            if awake_s + before_s < delay_s:
                asleep_s += nap_s
            awake_s += before_s
            alice.sleep()
            await asyncio.sleep(nap_s)
            alice.wake()
        due_s = await waiting
        # Where a nap begins at the very moment at which a timer is due, either may be first.
        assert due_s >= delay_s + asleep_s - 1e-6
        assert due_s <= delay_s + asleep_s + sum(nap_s for _, nap_s in naps) + 1e-6
        if all(abs(awake_s - delay_s) > 1e-3 for awake_s in passed(naps)):
            assert due_s == pytest.approx(delay_s + asleep_s, abs=1e-6)

    simulate(story)


def passed(naps: list[tuple[float, float]]) -> list[float]:
    """How long it had been awake at the beginning of each nap."""
    return [sum(before_s for before_s, _ in naps[: n + 1]) for n in range(len(naps))]


def test_its_monotonic_clock_stands_still_and_the_others_go_on() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        now = network.loop.time

        async def clocks() -> tuple[float, float, float]:
            return now(), alice.elapsed(), alice.unix_time() - EPOCH_S

        await asyncio.sleep(5)
        assert await alice.run(clocks()) == (5, 5, 5)
        alice.sleep()
        await asyncio.sleep(100)
        assert (alice.elapsed(), alice.unix_time() - EPOCH_S) == (105, 105)
        alice.wake()
        assert await alice.run(clocks()) == (5, 105, 105)
        await asyncio.sleep(1)
        assert await alice.run(clocks()) == (6, 106, 106)
        assert now() == 106
        assert alice.asleep_s == 100

    simulate(story)


def test_a_timeout_counts_the_time_awake() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)

        async def program() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10):
                    await asyncio.Event().wait()

        waiting = alice.spawn(program())
        await asyncio.sleep(3)
        alice.sleep()
        await asyncio.sleep(1_000)
        alice.wake()
        await waiting
        assert network.loop.now == 1_010
        # And one that was set after it counts from there.
        await alice.run(program())
        assert network.loop.now == 1_020

    simulate(story)


def test_nothing_of_it_runs_before_it_wakes() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        noted: list[float] = []

        async def tick() -> None:
            while True:
                noted.append(network.loop.now)
                await asyncio.sleep(1)

        alice.spawn(tick())
        await asyncio.sleep(2.5)
        alice.sleep()
        # What is asked of it meanwhile waits as well.
        asked = alice.spawn(asyncio.sleep(0.25, "done"))
        await asyncio.sleep(100)
        assert not asked.done()
        alice.wake()
        await asyncio.sleep(1)
        assert noted == [0, 1, 2, 103]
        assert asked.result() == "done"

    simulate(story)


def test_callbacks_that_were_due_keep_their_order() -> None:
    async def story(network: Network) -> list[int]:
        alice = network.host("alice", ALICE)
        noted: list[int] = []

        async def program() -> None:
            for number in range(10):
                network.loop.call_soon(noted.append, number)
                network.loop.call_later(1, noted.append, 10 + number)
            await asyncio.sleep(0)

        alice.spawn(program())
        await asyncio.sleep(0)
        alice.sleep()
        await asyncio.sleep(50)
        assert noted == []
        alice.wake()
        await asyncio.sleep(2)
        return noted

    assert simulate(story).value == list(range(20))


def test_datagrams_to_it_are_lost(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        one, other = await programs.bound(alice, bob)
        alice.sleep()
        other.send(b"asleep", ALICE)
        await asyncio.sleep(1)
        alice.wake()
        other.send(b"awake", ALICE)
        await asyncio.sleep(1)
        assert one.received == [b"awake"]

    simulate(story)


def test_a_datagram_that_is_under_way_as_it_wakes_arrives(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        one, other = await programs.bound(alice, bob)
        alice.sleep()
        other.send(b"just in time", ALICE)
        await asyncio.sleep(0.005)
        alice.wake()
        await asyncio.sleep(1)
        assert one.received == [b"just in time"]

    simulate(story)


def test_what_is_said_on_a_connection_meanwhile_is_heard_after_waking(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        side.write(b"before ")
        alice.sleep()
        other.write(b"one ")
        await asyncio.sleep(100)
        other.write(b"two ")
        other.transport.write_eof()
        assert other.received == b"before "
        await asyncio.sleep(100)
        assert side.calls == "M"
        alice.wake()
        await asyncio.sleep(130)
        assert side.received == b"one two "
        assert side.calls.endswith("EL")

    simulate(story)


def test_who_talks_to_it_for_too_long_gives_up(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        alice.sleep()
        other.write(b"are you there?")
        await asyncio.sleep(1_500)
        assert isinstance(other.lost_with, TimeoutError)
        alice.wake()
        await asyncio.sleep(1)
        assert side.calls == "M"
        side.write(b"good morning")
        await asyncio.sleep(1)
        assert isinstance(side.lost_with, ConnectionResetError)

    simulate(story)


def test_asleep_a_system_does_not_give_up_what_it_could_not_send(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        partition = network.partition([alice], [bob])
        side.write(b"hello")
        await asyncio.sleep(1)
        alice.sleep()
        await asyncio.sleep(5_000)
        partition.heal()
        alice.wake()
        await asyncio.sleep(1)
        assert other.received == b"hello"
        assert not side.is_lost

    simulate(story)


def test_an_hour_in_which_all_sleep_is_one_event(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        partition = network.partition([alice], [bob])
        side.write(b"stuck")
        other.write(b"stuck")
        await asyncio.sleep(1)
        alice.sleep()
        bob.sleep()
        await asyncio.sleep(1e6)
        turns = network.loop.turns
        await asyncio.sleep(1e9)
        assert network.loop.turns - turns < 5
        partition.heal()
        alice.wake()
        bob.wake()
        await asyncio.sleep(200)
        assert (side.received, other.received) == (b"stuck", b"stuck")

    simulate(story)


def test_a_machine_can_lose_its_battery_in_its_sleep(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        _, other = await programs.connected(alice, bob)
        waiting = asyncio.create_task(alice.run(asyncio.sleep(5)))
        await asyncio.sleep(1)
        alice.sleep()
        await asyncio.sleep(100)
        alice.crash()
        with pytest.raises(HostDown):
            await waiting
        assert not alice.is_asleep
        alice.restart()
        before_s = network.loop.now
        await alice.run(asyncio.sleep(5))
        assert network.loop.now == before_s + 5
        other.write(b"hello")
        await asyncio.sleep(1)
        assert isinstance(other.lost_with, ConnectionResetError)

    simulate(story)


def test_it_may_move_in_its_sleep(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        inbox = await programs.bind(bob)
        alice.sleep()
        alice.change_ip("203.0.113.1")
        alice.wake()
        one = await programs.bind(alice)
        inbox.send(b"hello", "203.0.113.1")
        await asyncio.sleep(1)
        assert one.received == [b"hello"]

    simulate(story)


def test_one_cannot_fall_asleep_twice_nor_wake_up_awake() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        with pytest.raises(ImpossibleWorld, match="not asleep"):
            alice.wake()
        alice.sleep()
        with pytest.raises(ImpossibleWorld, match="already asleep"):
            alice.sleep()
        alice.wake()
        alice.crash()
        with pytest.raises(ImpossibleWorld, match="down"):
            alice.sleep()

    simulate(story)


def test_only_the_machine_that_sleeps_stands_still() -> None:
    async def story(network: Network) -> None:
        alice, bob = network.host("alice", ALICE), network.host("bob", BOB)
        alice.sleep()
        await bob.run(asyncio.sleep(10))
        assert network.loop.time() == network.loop.now == 10

    simulate(story)


async def cleans_up(seconds: float, ended: list[str]) -> None:
    try:
        await asyncio.sleep(1_000)
    finally:
        await asyncio.sleep(seconds)
        ended.append("clean")


def test_who_waits_for_a_machine_that_sleeps_can_stop_waiting() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        ended: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                network.loop.call_later(5, alice.sleep)
                await alice.run(cleans_up(0, ended))
        assert network.loop.now == 10
        await asyncio.sleep(90)
        assert not ended
        alice.wake()
        # The work is cancelled as the machine goes on.
        await asyncio.sleep(0.001)
        assert ended == ["clean"]

    simulate(story)


def test_who_waits_for_a_machine_that_falls_asleep_as_it_cleans_up_is_not_held() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        ended: list[str] = []
        network.loop.call_later(12, alice.sleep)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await alice.run(cleans_up(5, ended))
        assert network.loop.now == 12
        await asyncio.sleep(88)
        alice.wake()
        await asyncio.sleep(4)
        assert ended == ["clean"]

    simulate(story)


def test_who_stops_waiting_for_a_machine_that_is_awake_waits_until_it_has_cleaned_up() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        ended: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await alice.run(cleans_up(5, ended))
        assert (network.loop.now, ended) == (15, ["clean"])

    simulate(story)

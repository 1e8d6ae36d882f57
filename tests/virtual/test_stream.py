"""Connections over bad lines, and what is left of them in the end."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import Link, LogNormal, Network, Uniform, run_in, simulate
from simulations.virtual.outflow import GIVE_UP_S, WINDOW_BYTES

BOB = "198.51.100.1"
MIB = 1024 * 1024


# Lines


@given(
    st.lists(st.binary(max_size=3_000), max_size=30),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from([0.0, Uniform(0, 5), LogNormal(0.1, 1.0)]),
    st.sampled_from([0.0, 0.5]),
)
def test_over_a_bad_line_everything_arrives_once_and_in_order(
    programs: Any, words: list[bytes], loss: float, latency: Any, share: float
) -> None:
    async def story(network: Network) -> None:
        side, other = await programs.connected(*programs.two(network))
        network.degrade_all(Link(latency=latency, loss=loss, duplicate=share, reorder=share))
        for word in words:
            side.write(word)
            other.write(word[::-1])
            await asyncio.sleep(0.01)
        side.transport.write_eof()
        await asyncio.sleep(10_000)
        assert other.received == b"".join(words)
        assert side.received == b"".join(word[::-1] for word in words)
        assert other.calls.endswith("EL")

    simulate(story, seed=1)


@pytest.mark.parametrize("bandwidth", [1_000, 100_000, 10_000_000])
def test_a_narrow_line_takes_its_time(programs: Any, bandwidth: int) -> None:
    async def story(network: Network) -> None:
        side, other = await programs.connected(*programs.two(network))
        side.write(bytes(MIB))
        began_s = network.loop.now
        side.transport.close()
        await other.lost.wait()
        assert len(other.received) == MIB
        # Who sends more than a window waits for room as well, for a round trip at a time.
        took_s = network.loop.now - began_s
        trips_s = 2 * 0.01 * (MIB / WINDOW_BYTES)
        assert MIB / bandwidth <= took_s - 0.01 <= 1.01 * MIB / bandwidth + trips_s

    network = Network(link=Link(latency=0.01, bandwidth_bytes_per_s=bandwidth))
    run_in(network, story(network))


def test_two_connections_share_a_narrow_line(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        sides = [await programs.connect(alice, BOB) for _ in range(2)]
        for side in sides:
            side.write(bytes(100_000))
            side.transport.close()
        began_s = network.loop.now
        for side in accepted:
            await side.lost.wait()
        assert network.loop.now - began_s == pytest.approx(20, rel=0.01)

    network = Network(link=Link(latency=0.01, bandwidth_bytes_per_s=10_000))
    run_in(network, story(network))


def test_what_is_larger_than_a_datagram_may_be_goes_through_a_connection(programs: Any) -> None:
    async def story(network: Network) -> None:
        side, other = await programs.connected(*programs.two(network))
        side.write(bytes(10_000))
        await asyncio.sleep(1)
        assert len(other.received) == 10_000

    run_in(network := Network(link=Link(mtu_bytes=100)), story(network))


# Partitions


@pytest.mark.parametrize("one_way", [False, True])
def test_a_partition_holds_up_what_is_said_and_loses_nothing(programs: Any, one_way: bool) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        with network.partition([alice], [bob], one_way=one_way):
            side.write(b"one ")
            await asyncio.sleep(10)
            side.write(b"two ")
            other.write(b"three")
            await asyncio.sleep(10)
            assert other.received == b""
            assert side.received == (b"three" if one_way else b"")
        side.write(b"four")
        await asyncio.sleep(30)
        assert other.received == b"one two four"
        assert side.received == b"three"

    simulate(story)


def test_a_partition_for_too_long_ends_the_connection_for_who_said_something(
    programs: Any,
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        with network.partition([alice], [bob]):
            began_s = network.loop.now
            side.write(b"hello")
            await side.lost.wait()
            assert isinstance(side.lost_with, TimeoutError)
            assert GIVE_UP_S < network.loop.now - began_s < GIVE_UP_S + 150
        # The other one noticed nothing, until it says something itself.
        await asyncio.sleep(10_000)
        assert other.calls == "M"
        other.write(b"hello")
        await asyncio.sleep(1)
        assert isinstance(other.lost_with, ConnectionResetError)

    simulate(story)


def test_a_reset_does_not_get_through_a_partition_of_one_way(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, _ = await programs.connected(alice, bob)
        bob.crash()
        bob.restart()
        with network.partition([bob], [alice], one_way=True):
            side.write(b"hello")
            await asyncio.sleep(100)
            assert side.calls == "M"
        await asyncio.sleep(130)
        assert isinstance(side.lost_with, ConnectionResetError)

    simulate(story)


def test_who_waits_for_room_behind_a_partition_finds_out(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        other.transport.pause_reading()
        side.write(bytes(MIB))
        await asyncio.sleep(5)
        with network.partition([bob], [alice]):
            await asyncio.sleep(1_500)
        assert isinstance(side.lost_with, TimeoutError)

    simulate(story)


# A way there, and none back


def test_a_sender_does_not_learn_over_a_line_that_is_cut_one_way_what_arrived(
    programs: Any,
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        side.transport.set_write_buffer_limits(high=0)
        side.write(bytes(WINDOW_BYTES // 2))
        await asyncio.sleep(1)
        with network.partition([bob], [alice], one_way=True):
            # What was acknowledged before does not count any more.
            side.write(bytes(WINDOW_BYTES))
            assert side.calls == "M"
            await asyncio.sleep(100)
            assert len(other.received) == WINDOW_BYTES * 1.5
            side.write(b"more")
            await asyncio.sleep(100)
            assert side.calls == "MP"
            assert len(other.received) == WINDOW_BYTES * 1.5
        await asyncio.sleep(130)
        assert side.calls == "MPR"
        assert other.received[-4:] == b"more"

    simulate(story)


def test_a_sender_that_nobody_can_answer_gives_up_although_everything_arrived(
    programs: Any,
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        with network.partition([bob], [alice], one_way=True):
            began_s = network.loop.now
            side.write(b"hello")
            await side.lost.wait()
            assert isinstance(side.lost_with, TimeoutError)
            assert GIVE_UP_S < network.loop.now - began_s < GIVE_UP_S + 150
            assert other.received == b"hello"
            assert not other.is_lost

    simulate(story)


def test_a_sender_that_is_answered_in_time_starts_to_count_anew(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        for _ in range(3):
            with network.partition([bob], [alice], one_way=True):
                side.write(b"hello ")
                await asyncio.sleep(GIVE_UP_S - 50)
            await asyncio.sleep(150)
        assert other.received == b"hello " * 3
        assert not side.is_lost

    simulate(story)


def test_room_that_a_reader_makes_is_not_heard_of_while_the_way_back_is_cut(
    programs: Any,
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        other.transport.pause_reading()
        side.write(bytes(WINDOW_BYTES + 100_000))
        await asyncio.sleep(1)
        with network.partition([bob], [alice], one_way=True):
            other.transport.resume_reading()
            await asyncio.sleep(100)
            assert len(other.received) == WINDOW_BYTES
        await asyncio.sleep(130)
        assert len(other.received) == WINDOW_BYTES + 100_000

    simulate(story)


# Ends that meet other ends


def test_who_closes_is_done_although_the_others_last_word_was_not_read(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        side.transport.pause_reading()
        other.transport.write_eof()
        await asyncio.sleep(1)
        side.transport.close()
        await asyncio.sleep(1)
        assert side.calls == "ML"
        assert not alice.streams
        assert not bob.streams

    simulate(story)


def test_an_aborted_connection_is_over_for_the_other_one_as_well(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        other.transport.pause_reading()
        side.write(bytes(MIB))
        side.transport.write_eof()
        await asyncio.sleep(1)
        side.transport.abort()
        await asyncio.sleep(1)
        other.transport.resume_reading()
        await asyncio.sleep(1)
        assert len(other.received) == WINDOW_BYTES
        assert other.calls.endswith("L")
        assert not alice.streams
        assert not bob.streams

    simulate(story)


@pytest.mark.parametrize("latency_s", [0.0, 0.01])
def test_both_ends_may_close_at_the_same_moment(programs: Any, latency_s: float) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        sides = await programs.connected(alice, bob)
        for side in sides:
            side.write(b"bye")
            side.transport.close()
        await asyncio.sleep(1)
        assert all(side.calls.endswith("L") for side in sides)
        assert not alice.streams
        assert not bob.streams

    run_in(network := Network(link=Link(latency=latency_s)), story(network))


def test_nothing_is_called_after_the_connection_is_lost(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        for end in (side, other):
            end.transport.pause_reading()
            end.write(bytes(MIB))
        await asyncio.sleep(1)
        side.transport.abort()
        await asyncio.sleep(1)
        for end in (side, other):
            end.transport.resume_reading()
            end.transport.write(b"more")
            end.transport.set_write_buffer_limits(0)
            end.transport.abort()
            end.transport.close()
        await asyncio.sleep(2_000)
        assert side.calls == other.calls == "MPL"

    simulate(story)


def test_a_transport_of_a_machine_that_crashed_is_dead(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        alice.crash()
        entries = network.trace.entries
        side.transport.write(b"from the dead")
        side.transport.write_eof()
        side.transport.close()
        side.transport.abort()
        await asyncio.sleep(1)
        assert network.trace.entries == entries
        assert (side.calls, other.calls) == ("M", "M")

    simulate(story)


# Memory


async def come_and_go(programs: Any, network: Network, count: int) -> None:
    """Connections that are closed or aborted, one after the other."""
    for number in range(count):
        side = await programs.connect(network.hosts["alice"], BOB)
        side.write(b"hello")
        (side.transport.close if number % 3 else side.transport.abort)()
        await side.lost.wait()
    await asyncio.sleep(10)


def test_ten_thousand_connections_leave_nothing_behind(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        await programs.listen(bob)
        await come_and_go(programs, network, 10_000)
        assert not alice.streams
        assert not bob.streams
        assert len(network.loop._timers) < 10
        assert len(alice.process.started) <= 1

    simulate(story)


def test_memory_does_not_grow_with_connections_that_are_over(programs: Any) -> None:
    async def story(network: Network) -> None:
        _, bob = programs.two(network)
        accepted = await programs.listen(bob)
        used = []
        for count in (1_000, 2_000):
            await come_and_go(programs, network, count)
            accepted.clear()
            gc.collect()
            used.append(tracemalloc.get_traced_memory()[0])
        # Ten bytes for each would be too many.
        assert used[1] - used[0] < 10 * 2_000

    tracemalloc.start()
    try:
        simulate(story)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("how", ["crash", "kill"])
def test_peers_that_come_and_go_leave_nothing_behind(programs: Any, how: str) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        await programs.listen(bob)
        for number in range(100):
            side = await programs.connect(alice, BOB)
            side.write(b"hello")
            await asyncio.sleep(0.005 * (number % 5))
            if number % 2:
                side.transport.close()
            getattr(bob, how)()
            side.transport.close()
            if not bob.is_up:
                bob.restart()
            await programs.listen(bob)
        await asyncio.sleep(2_000)
        assert not alice.streams
        assert not bob.streams

    simulate(story)

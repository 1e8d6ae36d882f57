"""What can happen to a machine: its programs, its peers, its disk and its clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import Host, ImpossibleWorld, Network, simulate
from simulations.virtual.network import EPOCH_S

ALICE, BOB = "192.0.2.1", "198.51.100.1"
ENDS = pytest.mark.parametrize("end", [Host.crash, Host.kill])

seconds = st.floats(0, 1e5).map(lambda value: round(value, 3))


# Peers


def test_peers_of_a_machine_that_crashes_get_no_word(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        other.write(b"the last words")
        bob.crash()
        await asyncio.sleep(86_400)
        # What had left the machine arrives.
        assert side.received == b"the last words"
        assert not side.is_lost
        assert (other.calls, bob.streams) == ("M", {})

    simulate(story)


def test_peers_of_a_program_that_is_killed_are_told_at_once(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        other.write(b"the last words")
        killed_s = network.loop.now
        bob.kill()
        await asyncio.sleep(10)
        assert side.received == b"the last words"
        assert side.lost_with is None
        assert side.lost_at_s == pytest.approx(killed_s + 0.01)
        assert (other.calls, alice.streams, bob.streams) == ("M", {}, {})

    simulate(story)


def test_what_a_killed_program_had_not_read_resets_the_connection(programs: Any) -> None:
    async def story(network: Network) -> None:
        side, other = await programs.connected(*programs.two(network))
        other.transport.pause_reading()
        side.write(b"hello")
        await asyncio.sleep(1)
        network.hosts["bob"].kill()
        await asyncio.sleep(1)
        assert isinstance(side.lost_with, ConnectionResetError)

    simulate(story)


def test_connections_from_before_a_crash_are_reset_after_the_restart(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, _ = await programs.connected(alice, bob)
        bob.crash()
        side.write(b"are you there?")
        await asyncio.sleep(300)
        assert not side.is_lost
        bob.restart()
        new = await programs.listen(bob)
        await asyncio.sleep(130)
        assert isinstance(side.lost_with, ConnectionResetError)
        assert not new
        await programs.connect(alice, BOB)
        await asyncio.sleep(1)
        assert len(new) == 1

    simulate(story)


def test_who_waits_for_room_at_a_machine_that_crashed_finds_out(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        other.transport.pause_reading()
        side.write(bytes(1_000_000))
        await asyncio.sleep(10)
        assert side.calls == "MP"
        bob.crash()
        await asyncio.sleep(2_000)
        assert isinstance(side.lost_with, TimeoutError)

    simulate(story)


def test_what_waited_for_a_way_is_lost_with_the_power(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        partition = network.partition([alice], [bob])
        side.write(b"never sent again")
        await asyncio.sleep(1)
        alice.crash()
        alice.restart()
        partition.heal()
        await asyncio.sleep(2_000)
        assert other.received == b""

    simulate(story)


@ENDS
def test_its_sockets_are_free_for_the_next_program(
    programs: Any, end: Callable[[Host], None]
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        carol = await programs.bind(bob)
        for number in range(3):
            accepted, inbox = await programs.listen(alice), await programs.bind(alice)
            side = await programs.connect(bob, ALICE)
            carol.send(b"hello", ALICE)
            await asyncio.sleep(1)
            assert (len(accepted), inbox.received) == (1, [b"hello"])
            end(alice)
            if not alice.is_up:
                alice.restart()
            inbox.send(b"nobody sends this", BOB)
            side.transport.abort()
            await asyncio.sleep(number)
        await asyncio.sleep(2_000)
        assert carol.received == []
        assert not alice.streams
        assert not bob.streams

    simulate(story)


# Its disk


async def writes_at_the_end(disk: Path) -> None:
    (disk / "kept").write_text("before")
    (disk / "changed").write_text("before")
    (disk / "folder").mkdir()
    try:
        with (disk / "open").open("w") as file:
            file.write("in the buffer")
            await asyncio.Event().wait()
    finally:
        (disk / "changed").write_text("after")
        (disk / "kept").unlink()
        (disk / "new").write_text("after")


@ENDS
def test_the_disk_is_as_it_was_when_the_power_failed(end: Callable[[Host], None]) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        alice.spawn(writes_at_the_end(alice.disk))
        await asyncio.sleep(1)
        end(alice)
        content = {
            path.name: path.read_text() for path in sorted(alice.disk.iterdir()) if path.is_file()
        }
        assert content == {"changed": "before", "kept": "before", "open": ""}
        assert (alice.disk / "folder").is_dir()

    simulate(story)


def test_a_disk_outlives_crashes_unless_it_is_lost(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        assert alice.disk != bob.disk
        where = alice.disk
        (where / "file").write_text("mine")
        (where / "link").symlink_to("file")
        alice.crash()
        alice.restart()
        assert alice.disk == where
        assert (where / "file").read_text() == "mine"
        assert (where / "link").is_symlink()
        alice.crash()
        alice.restart(keep_disk=False)
        assert alice.disk == where
        assert list(where.iterdir()) == []

    simulate(story)


@ENDS
def test_a_disk_that_nobody_used_before_the_end_stays_empty(end: Callable[[Host], None]) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice/bob", ALICE)

        async def program() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                (alice.disk / "file").write_text("too late")

        alice.spawn(program())
        await asyncio.sleep(1)
        end(alice)
        assert list(alice.disk.iterdir()) == []

    simulate(story)


# Its clocks


@given(seconds, seconds, st.floats(-1e6, 1e6))
def test_each_clock_says_what_it_is_for(before_s: float, after_s: float, offset_s: float) -> None:
    async def story(network: Network) -> None:
        await asyncio.sleep(before_s)
        alice = network.host("alice", ALICE)
        assert alice.elapsed() == 0
        assert alice.unix_time() == EPOCH_S + before_s
        await asyncio.sleep(after_s)
        assert alice.elapsed() == pytest.approx(after_s)
        alice.restart(clock_offset_s=offset_s)
        assert alice.elapsed() == 0
        assert alice.unix_time() == pytest.approx(EPOCH_S + before_s + after_s + offset_s)

    simulate(story)


@given(st.lists(st.tuples(seconds, st.floats(-1e6, 1e6)), max_size=5))
def test_only_the_wall_clock_jumps(steps: list[tuple[float, float]]) -> None:
    async def story(network: Network) -> None:
        alice, bob = network.host("alice", ALICE), network.host("bob", BOB)
        jumped_s = 0.0
        for wait_s, step_s in steps:
            await alice.run(asyncio.sleep(wait_s))
            alice.step_clock(step_s)
            jumped_s += step_s
            assert alice.unix_time() == pytest.approx(bob.unix_time() + jumped_s)
            assert alice.elapsed() == bob.elapsed() == network.loop.now
        # A crash changes nothing about it, unless it was asked for.
        alice.restart()
        assert alice.unix_time() == pytest.approx(bob.unix_time() + jumped_s)
        alice.restart(clock_offset_s=0)
        assert alice.unix_time() == bob.unix_time()

    simulate(story)


def test_a_step_of_the_clock_does_not_disturb_who_waits() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        waiting = alice.spawn(asyncio.sleep(10))
        await asyncio.sleep(5)
        alice.step_clock(-3_600)
        await waiting
        assert network.loop.now == 10

    simulate(story)


@given(st.floats(-1e6, 1e6), st.sampled_from([0.5, 0.9999, 1.0, 1.0001, 2.0]), seconds)
def test_all_clocks_of_a_machine_whose_oscillator_is_off_are_off(
    offset_s: float, rate: float, wait_s: float
) -> None:
    async def story(network: Network) -> None:
        await asyncio.sleep(7)
        alice = network.host("alice", ALICE, clock_offset_s=offset_s, clock_rate=rate)
        bob = network.host("bob", BOB)
        assert alice.unix_time() == pytest.approx(bob.unix_time() + offset_s)

        async def program() -> None:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            await asyncio.sleep(wait_s)
            # By its own clocks, it waits for as long as it wanted to.
            assert loop.time() - began_s == pytest.approx(wait_s, abs=1e-6)
            assert alice.elapsed() == pytest.approx(wait_s, abs=1e-6)
            assert alice.unix_time() == pytest.approx(EPOCH_S + 7 + wait_s + offset_s)

        await alice.run(program())
        assert network.loop.now - 7 == pytest.approx(wait_s / rate, abs=1e-6)
        assert bob.elapsed() == network.loop.now - 7

    simulate(story)


def test_a_machine_with_a_clock_of_its_own_sleeps_as_well() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE, clock_rate=2.0)
        waiting = alice.spawn(asyncio.sleep(20))
        await asyncio.sleep(5)
        alice.sleep()
        await asyncio.sleep(100)
        assert alice.elapsed() == 210
        alice.wake()
        await waiting
        assert network.loop.now == pytest.approx(110)

    simulate(story)


def test_a_machine_starts_again_with_an_earlier_clock_and_drifts_on() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE, clock_rate=1.01)
        await asyncio.sleep(1_000)
        assert alice.unix_time() == pytest.approx(EPOCH_S + 1_010)
        alice.restart(clock_offset_s=-86_400)
        before_s = alice.unix_time()
        assert before_s < EPOCH_S
        await asyncio.sleep(100)
        assert alice.unix_time() - before_s == pytest.approx(101)
        assert alice.elapsed() == pytest.approx(101)

    simulate(story)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_there_is_no_clock_that_stands_still_or_goes_backward(rate: float) -> None:
    with pytest.raises(ImpossibleWorld, match="clock_rate must be above 0"):
        Network().host("alice", ALICE, clock_rate=rate)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_a_clock_is_not_ahead_without_end(seconds: float) -> None:
    with pytest.raises(ImpossibleWorld, match="number of seconds"):
        Network().host("alice", ALICE, clock_offset_s=seconds)
    alice = Network().host("alice", ALICE)
    with pytest.raises(ImpossibleWorld, match="number of seconds"):
        alice.step_clock(seconds)


# Its entropy


def test_entropy_follows_from_the_seed_the_name_and_what_was_drawn_before() -> None:
    def drawn(seed: int, name: str) -> list[bytes]:
        network = Network(seed)
        network.host("another", BOB).entropy(100)
        host = network.host(name, ALICE)
        return [host.entropy(16), host.entropy(16)]

    assert drawn(1, "alice") == drawn(1, "alice")
    assert len({*drawn(1, "alice"), *drawn(2, "alice"), *drawn(1, "carol")}) == 6


def test_a_machine_tells_who_it_is() -> None:
    network = Network()
    alice = network.host("alice", ALICE, "2001:db8::1")
    assert repr(alice) == "Host('alice', 192.0.2.1, 2001:db8::1)"
    assert repr(network.story) == "Host('the story', no address)"


@pytest.mark.parametrize("work", [None, print], ids=["what a function returned", "a function"])
def test_a_machine_that_is_given_no_coroutine_says_so(work: Any) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        with pytest.raises(TypeError, match="a machine runs a coroutine"):
            alice.spawn(work)
        with pytest.raises(TypeError, match="a machine runs a coroutine"):
            await alice.run(work)

    simulate(story)

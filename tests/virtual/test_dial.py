"""The handshake of a connection: who is told what, also if the world changes in its middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from simulations.virtual import Host, HostDown, Link, Network, run_in, simulate

BOB, CAROL = "198.51.100.1", "203.0.113.1"
SYN, SYN_ACK, ACK = 0.5, 1.5, 2.5
"""In the middle of each flight, where a flight takes a second."""


@pytest.fixture
def network() -> Network:
    return Network(link=Link(latency=1))


def begin(programs: Any, alice: Host, address: str = BOB) -> asyncio.Task[Any]:
    return asyncio.create_task(programs.ends(programs.connect(alice, address), limit_s=10_000))


async def told_after(work: asyncio.Task[Any]) -> tuple[float, str]:
    """When a task ends, and with what."""
    loop, began_s = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    result = await work
    return round(loop.time() - began_s, 3), type(result).__name__


def test_a_connection_takes_one_round_trip_and_then_half_of_one(
    programs: Any, network: Network
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        assert await told_after(begin(programs, alice)) == (2, "Side")
        assert not accepted
        await asyncio.sleep(1.001)
        assert accepted[0].calls == "M"

    run_in(network, story(network))


def test_where_nobody_listens_the_connection_is_refused_at_once(
    programs: Any, network: Network
) -> None:
    async def story(network: Network) -> None:
        alice, _ = programs.two(network)
        assert await told_after(begin(programs, alice)) == (2, "ConnectionRefusedError")

    run_in(network, story(network))


def down(network: Network, bob: Host) -> None:
    bob.crash()


def asleep(network: Network, bob: Host) -> None:
    bob.sleep()


def cut_off(network: Network, bob: Host) -> None:
    network.partition([network.hosts["alice"]], [bob])


def unable_to_answer(network: Network, bob: Host) -> None:
    network.partition([bob], [network.hosts["alice"]], one_way=True)


def behind_a_firewall(network: Network, bob: Host) -> None:
    bob.block_inbound()


def moved(network: Network, bob: Host) -> None:
    bob.change_ip(CAROL)


@pytest.mark.parametrize(
    "silence", [down, asleep, cut_off, unable_to_answer, behind_a_firewall, moved]
)
def test_where_nobody_answers_it_takes_two_minutes_to_give_up(
    programs: Any, network: Network, silence: Callable[[Network, Host], None]
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        await programs.listen(bob)
        silence(network, bob)
        assert await told_after(begin(programs, alice)) == (127, "TimeoutError")

    run_in(network, story(network))


def test_who_answers_late_is_asked_again_until_then(programs: Any, network: Network) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        bob.crash()
        dialling = begin(programs, alice)
        await asyncio.sleep(40)
        bob.restart()
        await programs.listen(bob)
        # It is asked after 1, 3, 7, 15, 31 and 63 s.
        assert await told_after(dialling) == (25, "Side")

    run_in(network, story(network))


@pytest.mark.parametrize("listens", [True, False])
def test_what_is_lost_of_a_handshake_is_sent_again_after_a_second(
    programs: Any, listens: bool
) -> None:
    """And then after two, and so on, as on Linux: lost data is sent again much sooner."""

    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        if listens:
            await programs.listen(bob)
        told = [await told_after(begin(programs, alice)) for _ in range(30)]
        assert {kind for _, kind in told} == {"Side" if listens else "ConnectionRefusedError"}
        took_s = {seconds for seconds, _ in told}
        assert {0, 1, 3} < took_s <= {0, 1, 3, 7, 15, 31, 63}

    run_in(network := Network(seed=1, link=Link(latency=0, loss=0.25)), story(network))


def test_over_a_line_that_loses_everything_nobody_connects(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        await programs.listen(bob)
        assert await told_after(begin(programs, alice)) == (127, "TimeoutError")

    run_in(network := Network(link=Link(loss=1)), story(network))


def test_one_connection_comes_of_many_questions(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        assert await told_after(begin(programs, alice)) == (20, "Side")
        await asyncio.sleep(500)
        assert [side.calls for side in accepted] == ["M"]
        assert len(alice.streams) == len(bob.streams) == 1

    network = Network(link=Link(latency=10))
    run_in(network, story(network))


# The machine that asks


@pytest.mark.parametrize("at_s", [0.0, SYN, SYN_ACK, 2.0])
def test_a_machine_that_falls_asleep_over_it_goes_on_when_it_wakes(
    programs: Any, network: Network, at_s: float
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        dialling = begin(programs, alice)
        await asyncio.sleep(at_s)
        alice.sleep()
        await asyncio.sleep(5_000)
        assert not dialling.done()
        alice.wake()
        side = await dialling
        side.write(b"good morning")
        await asyncio.sleep(5)
        assert network.loop.now < 5_020
        assert [bytes(side.received) for side in accepted] == [b"good morning"]

    run_in(network, story(network))


def test_asleep_nobody_grows_tired_of_asking(programs: Any, network: Network) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        bob.crash()
        dialling = begin(programs, alice)
        await asyncio.sleep(100)
        alice.sleep()
        await asyncio.sleep(1_000)
        alice.wake()
        assert await told_after(dialling) == (27, "TimeoutError")

    run_in(network, story(network))


@pytest.mark.parametrize("at_s", [SYN, SYN_ACK, 2.0, ACK])
@pytest.mark.parametrize("how", ["crash", "kill"])
def test_who_asked_and_is_no_more_leaves_nothing_behind(
    programs: Any, network: Network, at_s: float, how: str
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        dialling = begin(programs, alice)
        await asyncio.sleep(at_s)
        getattr(alice, how)()
        if at_s < 2:
            assert isinstance(await dialling, HostDown)
        await asyncio.sleep(5)
        assert not alice.streams
        for side in accepted:
            side.write(b"are you there?")
        await asyncio.sleep(2_000)
        assert all(side.is_lost for side in accepted)
        assert len(accepted) == (at_s >= 2)
        assert not bob.streams

    run_in(network, story(network))


@pytest.mark.parametrize("at_s", [SYN, SYN_ACK])
def test_who_gives_up_is_not_connected_later(programs: Any, network: Network, at_s: float) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        dialling = begin(programs, alice)
        await asyncio.sleep(at_s)
        dialling.cancel()
        await asyncio.sleep(100)
        assert dialling.cancelled()
        assert not accepted
        assert not alice.streams
        assert not bob.streams

    run_in(network, story(network))


def test_who_gives_up_at_the_very_moment_closes_what_there_is(
    programs: Any, network: Network
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        connecting = alice.spawn(
            network.loop.create_connection(asyncio.Protocol, BOB, 80), name="connecting"
        )
        network.loop.happen(2.0, connecting.cancel)
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        await asyncio.sleep(100)
        assert all(side.calls == "MEL" for side in accepted)
        assert not alice.streams
        assert not bob.streams

    run_in(network, story(network))


# The machine that is asked


@pytest.mark.parametrize("at_s", [SYN, SYN_ACK, ACK])
def test_a_machine_that_crashes_over_it_says_nothing(
    programs: Any, network: Network, at_s: float
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        dialling = begin(programs, alice)
        await asyncio.sleep(at_s)
        bob.crash()
        if at_s == SYN:
            assert await told_after(dialling) == (126.5, "TimeoutError")
            return
        side = await dialling
        await asyncio.sleep(100)
        assert side.calls == "M"
        bob.restart()
        await asyncio.sleep(100)
        assert side.calls == "M"
        side.write(b"are you there?")
        await asyncio.sleep(3)
        assert isinstance(side.lost_with, ConnectionResetError)
        assert not accepted

    run_in(network, story(network))


def test_a_program_that_is_killed_over_it_has_its_system_refuse(
    programs: Any, network: Network
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        dialling = begin(programs, alice)
        await asyncio.sleep(SYN_ACK)
        bob.kill()
        other = await programs.listen(bob)
        side = await dialling
        await asyncio.sleep(5)
        assert isinstance(side.lost_with, ConnectionResetError)
        # And the next program knows nothing of it.
        assert not accepted
        assert not other

    run_in(network, story(network))


def test_a_machine_that_falls_asleep_over_it_accepts_when_it_wakes(
    programs: Any, network: Network
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        dialling = begin(programs, alice)
        await asyncio.sleep(ACK)
        bob.sleep()
        side = await dialling
        side.write(b"hello")
        await asyncio.sleep(60)
        assert not accepted
        bob.wake()
        await asyncio.sleep(60)
        assert accepted[0].received == b"hello"

    run_in(network, story(network))


# Ports


def test_ports_to_connect_from_are_not_given_out_twice(
    programs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.virtual.host.EPHEMERAL_PORTS", range(40_000, 40_005))

    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        await programs.listen(bob)
        await programs.listen(alice, port=40_001)
        sides = [await programs.connect(alice, BOB) for _ in range(4)]
        ports = {side.transport.get_extra_info("sockname")[1] for side in sides}
        assert ports == {40_000, 40_002, 40_003, 40_004}
        with pytest.raises(OSError, match="Cannot assign requested address"):
            await programs.connect(alice, BOB)
        sides[2].transport.close()
        await asyncio.sleep(1)
        await programs.connect(alice, BOB)

    simulate(story)

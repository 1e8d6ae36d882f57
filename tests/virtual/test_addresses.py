"""Addresses change, firewalls stand in the way, and nobody is told."""

from __future__ import annotations

import asyncio
import socket
from contextlib import nullcontext
from typing import Any

import pytest

from simulations.virtual import ImpossibleWorld, Nat, NatKind, Network, simulate

ALICE, BOB, CAROL = "192.0.2.1", "198.51.100.1", "203.0.113.1"
SIX = "2001:db8::1"


# Change of address


def test_a_connection_from_an_old_address_is_silent_until_it_is_given_up(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        alice.change_ip(CAROL)
        side.write(b"to nowhere")
        other.write(b"to nobody")
        await asyncio.sleep(900)
        assert (side.calls, other.calls) == ("M", "M")
        await asyncio.sleep(300)
        assert isinstance(side.lost_with, TimeoutError)
        assert isinstance(other.lost_with, TimeoutError)
        # From the new address, everything works.
        await programs.connect(alice, BOB)

    simulate(story)


def test_who_comes_back_in_time_goes_on(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        alice.change_ip(CAROL)
        side.write(b"one")
        other.write(b"two")
        await asyncio.sleep(500)
        alice.change_ip(ALICE)
        await asyncio.sleep(200)
        assert (other.received, side.received) == (b"one", b"two")

    simulate(story)


def test_the_new_owner_of_an_address_resets_what_he_does_not_know(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        bob.change_ip(CAROL)
        network.host("dave", BOB)
        side.write(b"are you bob?")
        await asyncio.sleep(1)
        assert isinstance(side.lost_with, ConnectionResetError)
        assert not other.is_lost

    simulate(story)


@pytest.mark.parametrize("why", ["down", "asleep", "cut off", "firewall", "device"])
def test_a_new_owner_who_cannot_answer_does_not(programs: Any, why: str) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, _ = await programs.connected(alice, bob)
        bob.change_ip(CAROL)
        if why == "device":
            network.gateway("router", Nat(NatKind.FULL_CONE, BOB))
        else:
            dave = network.host("dave", BOB)
            match why:
                case "down":
                    dave.crash()
                case "asleep":
                    dave.sleep()
                case "cut off":
                    network.partition([alice], [dave])
                case "firewall":
                    dave.block_inbound("drop")
        side.write(b"are you bob?")
        await asyncio.sleep(500)
        assert side.calls == "M"

    simulate(story)


def test_neighbours_behind_one_device_reset_each_other_as_well(programs: Any) -> None:
    async def story(network: Network) -> None:
        router = network.gateway("router", Nat(NatKind.FULL_CONE, CAROL))
        hosts = [network.host(f"h{n}", f"10.0.0.{n}", behind=router) for n in (1, 2, 3)]
        side, _ = await programs.connected(hosts[0], hosts[1])
        hosts[1].change_ip("10.0.0.9")
        hosts[2].change_ip("10.0.0.2")
        side.write(b"hello")
        await asyncio.sleep(1)
        assert isinstance(side.lost_with, ConnectionResetError)

    simulate(story)


def test_datagrams_to_and_from_an_old_address_are_lost(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        one, other = await programs.bound(alice, bob)
        other.send(b"under way", ALICE)
        await asyncio.sleep(0.001)
        alice.change_ip(CAROL)
        other.send(b"too late", ALICE)
        one.send(b"from the old one", BOB)
        await asyncio.sleep(1)
        assert (one.received, other.received) == ([], [])
        anew = await programs.bind(alice)
        other.send(b"to the new one", CAROL)
        await asyncio.sleep(1)
        assert anew.received == [b"to the new one"]

    simulate(story)


def test_a_socket_for_all_addresses_goes_along(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(alice, "0.0.0.0")  # noqa: S104
        inbox, other = await programs.bind(alice, "0.0.0.0"), await programs.bind(bob)  # noqa: S104
        alice.change_ip(CAROL)
        other.send(b"hello", CAROL)
        inbox.send(b"hello", BOB)
        await programs.connect(bob, CAROL)
        await asyncio.sleep(1)
        assert inbox.received == [b"hello"]
        assert other.senders == [(CAROL, 5000)]
        assert len(accepted) == 1
        assert isinstance(await programs.ends(programs.connect(bob, ALICE)), TimeoutError)

    simulate(story)


@pytest.mark.parametrize("wrong", [(BOB,), (CAROL, BOB), (CAROL, CAROL), ("nonsense",), ()])
def test_a_change_that_cannot_be_changes_nothing(wrong: tuple[str, ...]) -> None:
    network = Network()
    alice = network.host("alice", ALICE, SIX)
    network.host("bob", BOB)
    with pytest.raises(ImpossibleWorld):
        alice.change_ip(*wrong)
    assert alice.addresses == (ALICE, SIX)
    assert set(network.internet.owners) == {ALICE, SIX, BOB}


def test_addresses_can_be_exchanged_one_after_the_other() -> None:
    network = Network()
    alice, bob = network.host("alice", ALICE), network.host("bob", BOB)
    alice.change_ip(CAROL)
    bob.change_ip(ALICE)
    alice.change_ip(BOB, CAROL)
    assert (alice.addresses, bob.addresses) == ((BOB, CAROL), (ALICE,))


# Several addresses


def test_a_machine_talks_to_each_family_from_its_address_of_that_family(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE, SIX)
        bob = network.host("bob", BOB, "2001:db8::b")
        carol = network.host("carol", CAROL)
        for address in ("198.51.100.1", "2001:db8::b"):
            accepted = await programs.listen(bob, address)
            side = await programs.connect(alice, address)
            await asyncio.sleep(1)
            own = SIX if ":" in address else ALICE
            assert side.transport.get_extra_info("sockname")[0] == own
            assert accepted[0].transport.get_extra_info("peername")[0] == own
        with pytest.raises(OSError, match="unreachable"):
            await programs.connect(carol, "2001:db8::b")

    simulate(story)


def test_a_name_leads_to_the_address_that_the_network_knows_for_it(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        with pytest.raises(OSError, match="not known"):
            await programs.connect(alice, "bob.example")
        network.names["bob.example"] = BOB
        await programs.connect(alice, "bob.example")
        await asyncio.sleep(1)
        assert len(accepted) == 1

    simulate(story)


@pytest.mark.parametrize("everywhere", [None, ""])
@pytest.mark.parametrize("family", [0, socket.AF_INET, socket.AF_INET6])
def test_a_server_without_an_address_listens_on_all_of_them(
    programs: Any, everywhere: str | None, family: int
) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE, SIX)
        bob = network.host("bob", BOB, "2001:db8::b")
        loop = asyncio.get_running_loop()
        await bob.run(loop.create_server(asyncio.Protocol, everywhere, 80, family=family))
        for address, its_family in ((BOB, socket.AF_INET), ("2001:db8::b", socket.AF_INET6)):
            is_open = family in (0, its_family)
            with nullcontext() if is_open else pytest.raises(ConnectionRefusedError):
                await programs.connect(alice, address)

    simulate(story)


def test_one_port_can_be_used_once_per_address(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE, CAROL, SIX)
        bob = network.host("bob", BOB)
        by_address = {address: await programs.listen(alice, address) for address in (ALICE, CAROL)}
        await programs.bind(alice, ALICE, 80)
        for taken in (ALICE, "0.0.0.0"):  # noqa: S104
            with pytest.raises(OSError, match="in use"):
                await programs.listen(alice, taken)
        await programs.listen(alice, SIX)
        for address in (CAROL, CAROL, ALICE):
            await programs.connect(bob, address)
        await asyncio.sleep(1)
        assert [len(by_address[address]) for address in (ALICE, CAROL)] == [1, 2]

    simulate(story)


def test_a_machine_listens_on_its_own_addresses_only(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, _ = programs.two(network)
        for opening in (programs.listen(alice, BOB), programs.bind(alice, BOB)):
            with pytest.raises(OSError, match="Cannot assign"):
                await opening

    simulate(story)


# Firewalls


@pytest.mark.parametrize(
    ("how", "told"), [("drop", TimeoutError), ("refuse", ConnectionRefusedError)]
)
def test_a_firewall_keeps_strangers_out(programs: Any, how: str, told: type[Exception]) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        one, stranger = await programs.bound(bob, alice)
        known = await programs.bind(alice, port=5001)
        accepted = await programs.listen(alice)
        with bob.block_inbound(how):
            assert isinstance(await programs.ends(programs.connect(alice, BOB)), told)
            stranger.send(b"let me in", BOB)
            one.send(b"hello", ALICE, 5001)
            await asyncio.sleep(1)
            known.send(b"hello yourself", BOB)
            # Those that are in already stay, and it may go out itself.
            side.write(b"still here")
            await programs.connect(bob, ALICE)
            await asyncio.sleep(1)
            assert one.received == [b"hello yourself"]
            assert other.received == b"still here"
            assert len(accepted) == 1
        stranger.send(b"now", BOB)
        await programs.connect(alice, BOB)
        await asyncio.sleep(1)
        assert one.received[1:] == [b"now"]

    simulate(story)


@pytest.mark.parametrize("how", ["drop", "refuse"])
def test_a_firewall_knows_whom_its_machine_talked_to_before_it_came_up(
    programs: Any, how: str
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        one, other = await programs.bound(alice, bob)
        one.send(b"before", BOB)
        await asyncio.sleep(60)
        with alice.block_inbound(how):
            # Each datagram keeps it open for two minutes more, whoever sends it.
            for _ in range(5):
                other.send(b"reply", ALICE)
                await asyncio.sleep(100)
            await asyncio.sleep(21)
            other.send(b"too late", ALICE)
            await asyncio.sleep(1)
        assert one.received == [b"reply"] * 5

    simulate(story)


@pytest.mark.parametrize("how", ["drop", "refuse"])
def test_behind_a_firewall_a_machine_still_talks_to_itself(programs: Any, how: str) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        with alice.block_inbound(how):
            for address in (ALICE, "127.0.0.1"):
                accepted = await programs.listen(alice, address)
                inbox = await programs.bind(alice, address)
                inbox.send(b"hello", address)
                await programs.connect(alice, address)
                await asyncio.sleep(1)
                assert (len(accepted), inbox.received) == (1, [b"hello"])

    simulate(story)


def test_firewalls_that_overlap_are_opened_in_any_order() -> None:
    network = Network()
    alice = network.host("alice", ALICE)
    one, other = alice.block_inbound("drop"), alice.block_inbound("refuse")
    seen = [alice.inbound]
    one.heal()
    seen.append(alice.inbound)
    other.heal()
    assert [*seen, alice.inbound] == ["refuse", "refuse", None]

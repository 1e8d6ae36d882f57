"""Who reaches whom through address translation, end to end."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from simulations.virtual import (
    Gateway,
    Host,
    ImpossibleWorld,
    Nat,
    NatKind,
    Network,
    simulate,
)

ALICE = "192.0.2.1"
BOB = "198.51.100.1"
CAROL = "203.0.113.1"
PUBLIC = "203.0.113.9"
OTHER = "203.0.113.10"
HOME = "192.168.1.2"
SYMMETRIC, PORT_RESTRICTED = NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED


def at_home(
    network: Network, name: str = "alice", public: str = PUBLIC, *, nat: Nat | None = None
) -> tuple[Gateway, Host]:
    gateway = network.gateway(f"router of {name}", nat or Nat(PORT_RESTRICTED, public))
    return gateway, network.host(name, HOME, behind=gateway)


async def punch(one: Any, other: Any, meeting: Any) -> bool:
    """Whether two reach each other: a third told each where the other one sends from, both try
    again and again, and both answer to wherever something comes from."""
    known: dict[Any, set[tuple[Any, ...]]] = {}
    for inbox, peer in ((one, other), (other, one)):
        meeting.senders.clear()
        inbox.send(b"where am I?", CAROL)
        await asyncio.sleep(1)
        known[peer] = {meeting.senders[0]}
        inbox.received.clear()
    for _ in range(5):
        for inbox in (one, other):
            for address in sorted(known[inbox] | set(inbox.senders)):
                inbox.send(b"hello", *address)
        await asyncio.sleep(1)
    return bool(one.received and other.received)


# Datagrams


@pytest.mark.parametrize(("one", "other"), list(itertools.product(NatKind, NatKind)))
def test_holes_are_punched_unless_one_is_symmetric_and_the_other_asks_for_the_port(
    programs: Any, one: NatKind, other: NatKind
) -> None:
    async def story(network: Network) -> bool:
        _, alice = at_home(network, "alice", PUBLIC, nat=Nat(one, PUBLIC))
        _, bob = at_home(network, "bob", OTHER, nat=Nat(other, OTHER))
        carol = network.host("carol", CAROL)
        return await punch(
            await programs.bind(alice), await programs.bind(bob), await programs.bind(carol)
        )

    asks_for_the_port = {SYMMETRIC, PORT_RESTRICTED}
    hopeless = SYMMETRIC in {one, other} and {one, other} <= asks_for_the_port
    assert simulate(story).value != hopeless


@pytest.mark.parametrize(
    ("kind", "who"),
    [
        (NatKind.FULL_CONE, ["contacted", "other port", "stranger"]),
        (NatKind.ADDRESS_RESTRICTED, ["contacted", "other port"]),
        (NatKind.PORT_RESTRICTED, ["contacted"]),
        (NatKind.SYMMETRIC, ["contacted"]),
    ],
)
def test_each_kind_lets_in_those_it_is_named_for(
    programs: Any, kind: NatKind, who: list[str]
) -> None:
    async def story(network: Network) -> None:
        _, alice = at_home(network, nat=Nat(kind, PUBLIC))
        carol, bob = network.host("carol", CAROL), network.host("bob", BOB)
        inside, contacted = await programs.bind(alice), await programs.bind(carol)
        others = {
            "other port": await programs.bind(carol, port=5001),
            "stranger": await programs.bind(bob),
        }
        contacted.send(b"too early", PUBLIC, 20_000)
        await asyncio.sleep(1)
        inside.send(b"hello", CAROL)
        await asyncio.sleep(1)
        mapped = contacted.senders[0]
        assert mapped[0] == PUBLIC
        for name, inbox in {"contacted": contacted, **others}.items():
            inbox.send(name.encode(), *mapped)
        await asyncio.sleep(1)
        assert inside.received == [name.encode() for name in who]

    simulate(story)


@pytest.mark.parametrize("kind", NatKind)
def test_one_socket_looks_the_same_to_everybody_unless_the_device_is_symmetric(
    programs: Any,
    kind: NatKind,
) -> None:
    async def story(network: Network) -> set[tuple[Any, ...]]:
        _, alice = at_home(network, nat=Nat(kind, PUBLIC))
        inside = await programs.bind(alice)
        seen = set()
        for name, address in (("bob", BOB), ("carol", CAROL)):
            inbox = await programs.bind(network.host(name, address))
            inside.send(b"hello", address)
            await asyncio.sleep(1)
            seen.add(inbox.senders[0])
        return seen

    assert len(simulate(story).value) == (2 if kind is SYMMETRIC else 1)


def test_an_idle_mapping_is_forgotten_and_the_next_one_has_another_port(programs: Any) -> None:
    async def story(network: Network) -> None:
        _, alice = at_home(network, nat=Nat(NatKind.FULL_CONE, PUBLIC, udp_idle_s=30))
        inside, carol = (
            await programs.bind(alice),
            await programs.bind(network.host("carol", CAROL)),
        )
        inside.send(b"hello", CAROL)
        await asyncio.sleep(29)
        carol.send(b"in time", *carol.senders[0])
        await asyncio.sleep(2)
        carol.send(b"too late", *carol.senders[0])
        await asyncio.sleep(1)
        assert inside.received == [b"in time"]
        inside.send(b"again", CAROL)
        await asyncio.sleep(1)
        assert carol.senders[1] != carol.senders[0]

    simulate(story)


def test_what_goes_through_a_forwarded_port_comes_back_through_it(programs: Any) -> None:
    async def story(network: Network) -> None:
        gateway, alice = at_home(network, nat=Nat(SYMMETRIC, PUBLIC))
        gateway.nat.forward("udp", 5000, (HOME, 5000))
        inside, stranger = await programs.bind(alice), await programs.bind(network.host("bob", BOB))
        stranger.send(b"hello", PUBLIC)
        await asyncio.sleep(1)
        assert inside.senders == [(BOB, 5000)]
        inside.send(b"hello yourself", *inside.senders[0])
        await asyncio.sleep(1)
        assert stranger.senders == [(PUBLIC, 5000)]

    simulate(story)


@pytest.mark.parametrize("hairpin", [False, True])
def test_neighbours_reach_each_other_by_public_address_only_where_hairpins_are_made(
    programs: Any,
    hairpin: bool,
) -> None:
    async def story(network: Network) -> None:
        gateway, alice = at_home(network, nat=Nat(NatKind.FULL_CONE, PUBLIC, hairpin=hairpin))
        bob = network.host("bob", "192.168.1.3", behind=gateway)
        one, other = await programs.bind(alice), await programs.bind(bob)
        carol = await programs.bind(network.host("carol", CAROL))
        other.send(b"hello", CAROL)
        await asyncio.sleep(1)
        one.send(b"by public address", *carol.senders[0])
        one.send(b"by private address", "192.168.1.3")
        await asyncio.sleep(1)
        by_public = [b"by public address"] if hairpin else []
        assert other.received == [*by_public, b"by private address"]
        # A neighbour who comes by the public address looks like somebody from outside.
        assert other.senders[0][0] == (PUBLIC if hairpin else HOME)

    simulate(story)


def test_two_homes_can_use_the_same_private_addresses(programs: Any) -> None:
    async def story(network: Network) -> None:
        inboxes = []
        for name, public in (("alice", PUBLIC), ("bob", OTHER)):
            _, host = at_home(network, name, public)
            inboxes.append(await programs.bind(host))
        carol = await programs.bind(network.host("carol", CAROL))
        for inbox in inboxes:
            inbox.send(b"hello", CAROL)
        await asyncio.sleep(1)
        assert sorted(address for address, _ in carol.senders) == [OTHER, PUBLIC]
        for sender in carol.senders:
            carol.send(sender[0].encode(), *sender)
        await asyncio.sleep(1)
        assert [inbox.received for inbox in inboxes] == [[PUBLIC.encode()], [OTHER.encode()]]

    simulate(story)


def test_devices_behind_devices_translate_one_after_the_other(programs: Any) -> None:
    async def story(network: Network) -> None:
        carrier = network.gateway("carrier", Nat(NatKind.FULL_CONE, PUBLIC))
        router = network.gateway("router", Nat(PORT_RESTRICTED, "100.64.0.5"), behind=carrier)
        alice = network.host("alice", HOME, behind=router)
        neighbour = network.host("neighbour", "100.64.0.6", behind=carrier)
        inside, beside = await programs.bind(alice), await programs.bind(neighbour)
        carol, bob = (
            await programs.bind(network.host("carol", CAROL)),
            await programs.bind(network.host("bob", BOB)),
        )
        inside.send(b"hello", CAROL)
        inside.send(b"hello", "100.64.0.6")
        await asyncio.sleep(1)
        assert carol.senders[0][0] == PUBLIC
        assert beside.senders[0][0] == "100.64.0.5"
        bob.send(b"the inner device knows me not", *carol.senders[0])
        carol.send(b"hello alice", *carol.senders[0])
        beside.send(b"hello neighbour", *beside.senders[0])
        await asyncio.sleep(1)
        assert sorted(inside.received) == [b"hello alice", b"hello neighbour"]

    simulate(story)


# Connections


def test_connections_go_out_and_do_not_come_in(programs: Any) -> None:
    async def story(network: Network) -> None:
        gateway, alice = at_home(network)
        bob = network.host("bob", BOB)
        accepted, at_alice = await programs.listen(bob), await programs.listen(alice)
        side = await programs.connect(alice, BOB)
        side.write(b"hello")
        await asyncio.sleep(1)
        assert accepted[0].received == b"hello"
        assert accepted[0].transport.get_extra_info("peername")[0] == PUBLIC
        accepted[0].write(b"hello alice")
        await asyncio.sleep(1)
        assert side.received == b"hello alice"
        for address in (HOME, PUBLIC):
            assert isinstance(await programs.ends(programs.connect(bob, address)), TimeoutError)
        gateway.nat.forward("tcp", 80, (HOME, 80))
        await programs.connect(bob, PUBLIC)
        await asyncio.sleep(1)
        assert at_alice[0].transport.get_extra_info("peername")[0] == BOB

    simulate(story)


def test_a_connection_whose_mapping_expired_is_silent_for_both(programs: Any) -> None:
    async def story(network: Network) -> None:
        _, alice = at_home(network, nat=Nat(PORT_RESTRICTED, PUBLIC, tcp_idle_s=300))
        bob = network.host("bob", BOB)
        accepted = await programs.listen(bob)
        side = await programs.connect(alice, BOB)
        for _ in range(3):
            await asyncio.sleep(200)
            side.write(b".")
        await asyncio.sleep(301)
        accepted[0].write(b"are you there?")
        side.write(b"are you?")
        await asyncio.sleep(800)
        assert accepted[0].received == b"..."
        assert (side.calls, accepted[0].calls) == ("M", "MDDD")
        await asyncio.sleep(400)
        assert isinstance(side.lost_with, TimeoutError)
        assert isinstance(accepted[0].lost_with, TimeoutError)

    simulate(story)


@pytest.mark.parametrize("is_forwarded", [False, True])
def test_connections_through_a_device_end_with_its_address(
    programs: Any, is_forwarded: bool
) -> None:
    async def story(network: Network) -> None:
        gateway, alice = at_home(network)
        bob = network.host("bob", BOB)
        if is_forwarded:
            gateway.nat.forward("tcp", 80, (HOME, 80))
            accepted = await programs.listen(alice)
            side = await programs.connect(bob, PUBLIC)
        else:
            accepted = await programs.listen(bob)
            side = await programs.connect(alice, BOB)
        side.write(b"one")
        await asyncio.sleep(1)
        gateway.change_address(OTHER)
        side.write(b"two")
        accepted[0].write(b"two")
        await asyncio.sleep(100)
        assert (accepted[0].received, side.received) == (b"one", b"")
        await asyncio.sleep(2_000)
        assert isinstance(side.lost_with, TimeoutError)
        assert isinstance(accepted[0].lost_with, TimeoutError)

    simulate(story)


def test_a_device_given_another_address_directly_is_answered_there(programs: Any) -> None:
    async def story(network: Network) -> None:
        nat = Nat(PORT_RESTRICTED, PUBLIC)
        gateway, alice = at_home(network, nat=nat)
        bob = network.host("bob", BOB)
        inbox, outbox = await programs.bind(bob, BOB), await programs.bind(alice, HOME)
        nat.change_address(OTHER)
        assert (gateway.nat.address, network.host("carol", PUBLIC).addresses) == (OTHER, (PUBLIC,))
        outbox.send(b"hello", BOB)
        await asyncio.sleep(1)
        inbox.send(b"hello yourself", *inbox.senders[0])
        await asyncio.sleep(1)
        assert outbox.received == [b"hello yourself"]

    simulate(story)


def test_a_machine_behind_a_device_talks_to_itself(programs: Any) -> None:
    async def story(network: Network) -> None:
        _, alice = at_home(network)
        accepted = await programs.listen(alice, "127.0.0.1")
        side = await programs.connect(alice, "127.0.0.1")
        side.write(b"hello")
        inbox = await programs.bind(alice, "127.0.0.1")
        inbox.send(b"hello", "127.0.0.1")
        await asyncio.sleep(1)
        assert accepted[0].received == b"hello"
        assert inbox.received == [b"hello"]

    simulate(story)


def test_a_device_needs_an_address_of_its_own(programs: Any) -> None:
    async def story(network: Network) -> None:
        network.host("alice", ALICE)
        gateway, _ = at_home(network, "bob")
        for address, problem in (
            (ALICE, "already belongs to alice"),
            ("nonsense", "not an IP address"),
        ):
            with pytest.raises(ImpossibleWorld, match=problem):
                network.gateway("another", Nat(SYMMETRIC, address))
            with pytest.raises(ImpossibleWorld, match=problem):
                gateway.change_address(address)
        assert gateway.nat.address == PUBLIC
        with pytest.raises(ImpossibleWorld, match="already belongs to bob"):
            network.host("carol", HOME, behind=gateway)

    simulate(story)

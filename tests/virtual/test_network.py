# ruff: noqa: ARG005 - each takes the network and its machines, and uses what it needs
"""What there can be in a world, and what can be wrong with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from simulations.virtual import Host, ImpossibleWorld, Link, Network, run_in, simulate

ALICE, BOB, CAROL = "192.0.2.1", "198.51.100.1", "203.0.113.1"


async def heard(target: Any, word: bytes) -> bool:
    await asyncio.sleep(1)
    return word in target.received


# What cannot be


def test_a_name_belongs_to_one_machine() -> None:
    network = Network()
    network.host("alice", ALICE)
    with pytest.raises(ImpossibleWorld, match="there is already a machine named alice"):
        network.host("alice", BOB)
    network.host("bob", BOB)


@pytest.mark.parametrize(
    ("addresses", "problem"),
    [
        ((ALICE,), "already belongs to alice"),
        ((BOB, ALICE), "already belongs to alice"),
        ((BOB, BOB), "already belongs to bob"),
        (("2001:db8::1",), "already belongs to alice"),
        (("2001:0DB8:0::1",), "already belongs to alice"),
        (("nonsense",), "not an IP address"),
        ((BOB, "1.2.3"), "not an IP address"),
        ((), "needs an address"),
    ],
)
def test_there_is_no_such_machine_and_nothing_of_it_is_left(
    addresses: tuple[str, ...], problem: str
) -> None:
    network = Network()
    network.host("alice", ALICE, "2001:db8::1")
    with pytest.raises(ImpossibleWorld, match=problem):
        network.host("bob", *addresses)
    assert set(network.hosts) == {"alice"}
    assert set(network.internet.owners) == {ALICE, "2001:db8::1"}
    network.host("bob", BOB)


def test_nobody_is_on_both_sides_of_a_partition() -> None:
    network = Network()
    alice, bob = network.host("alice", ALICE), network.host("bob", BOB)
    with pytest.raises(ImpossibleWorld, match="alice cannot be on both sides"):
        network.partition([alice, bob], [alice])
    assert network.lines.is_open("alice", "bob")


@pytest.mark.parametrize("how", ["", "reject", "DROP"])
def test_there_is_no_such_firewall(how: str) -> None:
    network = Network()
    alice = network.host("alice", ALICE)
    with pytest.raises(ImpossibleWorld, match="drop or refuse"):
        network.block_inbound(alice, how)
    assert alice.inbound is None


@pytest.mark.parametrize(
    "partition",
    [
        lambda network, alice, bob, stranger: network.partition(["alice"], [bob]),
        lambda network, alice, bob, stranger: network.partition("alice", [bob]),
        lambda network, alice, bob, stranger: network.partition(alice, bob),
        lambda network, alice, bob, stranger: network.partition([alice], [bob, stranger]),
    ],
)
def test_a_partition_is_between_machines_of_the_network(partition: Any) -> None:
    network = Network()
    alice, bob = network.host("alice", ALICE), network.host("bob", BOB)
    with pytest.raises(ImpossibleWorld, match="machine"):
        partition(network, alice, bob, Network().host("stranger", ALICE))
    assert network.lines.is_open("alice", "bob")


@pytest.mark.parametrize(
    "ask",
    [
        lambda network, alice, bob: network.connect(alice, bob, 0.1),
        lambda network, alice, bob: alice.degrade(0.1),
        lambda network, alice, bob: network.degrade_all({"loss": 1}),
        lambda network, alice, bob: network.host("carol", "203.0.113.1", access=0.1),
        lambda network, alice, bob: Network(link=0.1),  # type: ignore[arg-type]
    ],
)
def test_a_line_is_a_link(ask: Any) -> None:
    network = Network()
    alice, bob = network.host("alice", ALICE), network.host("bob", BOB)
    with pytest.raises(ImpossibleWorld, match=r"a line must be a Link"):
        ask(network, alice, bob)


# Partitions


@pytest.mark.parametrize("one_way", [False, True])
def test_a_partition_lets_nothing_through_until_it_is_healed(programs: Any, one_way: bool) -> None:
    async def story(network: Network) -> None:
        hosts = *programs.two(network), network.host("carol", CAROL)
        alice, bob, carol = await programs.bound(*hosts)

        async def reaches(sender: Any, target: Any, address: str, word: bytes) -> bool:
            sender.send(word, address)
            return await heard(target, word)

        with network.partition(hosts[:1], hosts[1:], one_way=one_way):
            assert not await reaches(alice, bob, BOB, b"1")
            assert not await reaches(alice, carol, CAROL, b"2")
            assert await reaches(bob, alice, ALICE, b"3") == one_way
            assert await reaches(bob, carol, CAROL, b"4")
            assert await reaches(alice, alice, ALICE, b"5")
        assert await reaches(alice, bob, BOB, b"6")
        assert await reaches(bob, alice, ALICE, b"7")

    simulate(story)


def test_partitions_add_up_and_are_healed_once_each(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        one, other = await programs.bound(alice, bob)
        both = network.partition([alice], [bob])
        half = network.partition([alice], [bob], one_way=True)
        both.heal()
        both.heal()
        one.send(b"cut off", BOB)
        other.send(b"not cut off", ALICE)
        assert await heard(one, b"not cut off")
        assert not await heard(other, b"cut off")
        half.heal()
        one.send(b"again", BOB)
        assert await heard(other, b"again")

    simulate(story)


def test_a_partition_of_nobody_is_none() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        with network.partition([], [alice]), network.partition(iter([alice]), iter([])):
            assert network.lines.is_open("alice", "alice")

    simulate(story)


def test_what_is_under_way_when_a_partition_begins_gets_there_if_it_is_a_datagram(
    programs: Any,
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        network.connect(alice, bob, Link(latency=1))
        one, other = await programs.bound(alice, bob)
        one.send(b"before", BOB)
        await asyncio.sleep(0.5)
        with network.partition([alice], [bob]):
            one.send(b"during", BOB)
            await asyncio.sleep(5)
        assert other.received == [b"before"]

    simulate(story)


# Lines


def test_each_line_is_the_one_that_was_asked_for(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        carol = network.host("carol", CAROL, access=Link(latency=0.5))
        network.connect(alice, bob, Link(latency=2), one_way=True)
        one, other, third = await programs.bound(alice, bob, carol)

        async def takes_s(sender: Any, target: Any, address: str) -> float:
            began_s, count = network.loop.time(), len(target.times)
            sender.send(b"hello", address)
            await asyncio.sleep(10)
            assert len(target.times) == count + 1
            return float(target.times[-1] - began_s)

        assert await takes_s(one, other, BOB) == 2
        assert await takes_s(other, one, ALICE) == pytest.approx(0.25)
        assert await takes_s(one, third, CAROL) == 0.5
        with alice.degrade(Link(latency=1)):
            assert await takes_s(other, one, ALICE) == 1
            assert await takes_s(one, other, BOB) == 3
            assert await takes_s(one, third, CAROL) == 1.5
        assert await takes_s(one, third, CAROL) == 0.5
        with network.degrade_all(Link(latency=7)):
            assert await takes_s(other, one, ALICE) == 7
            assert await takes_s(one, third, CAROL) == 0.5
        assert await takes_s(other, one, ALICE) == pytest.approx(0.25)

    network = Network(link=Link(latency=0.25))
    run_in(network, story(network))


def test_losses_on_the_way_are_as_many_as_were_asked_for(programs: Any) -> None:
    async def story(network: Network) -> None:
        one, other = await programs.bound(*programs.two(network))
        for number in range(2_000):
            one.send(str(number).encode(), BOB)
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        assert len(other.received) == pytest.approx(0.7 * 2_000, rel=0.05)

    network = Network(3, link=Link(loss=0.3))
    run_in(network, story(network))


def test_duplicates_and_overtaking_are_seen_by_the_program(programs: Any) -> None:
    async def story(network: Network) -> None:
        one, other = await programs.bound(*programs.two(network))
        sent = [str(number).encode() for number in range(500)]
        for word in sent:
            one.send(word, BOB)
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        assert len(other.received) == pytest.approx(1.25 * 500, rel=0.1)
        assert set(other.received) == set(sent)
        assert other.received != sorted(other.received, key=int)
        assert other.times == sorted(other.times)

    network = Network(3, link=Link(duplicate=0.25, reorder=0.25))
    run_in(network, story(network))


# Who wants to know


def test_watchers_are_told_what_happens_and_to_whom(programs: Any) -> None:
    async def story(network: Network) -> None:
        told: list[tuple[float, str, list[str]]] = []

        def watch(at_s: float, kind: str, text: str, hosts: tuple[Host, ...]) -> None:
            told.append((at_s, f"{kind}: {text}", [host.name for host in hosts]))

        network.watch(watch)
        alice, bob = programs.two(network)
        with network.partition([alice], [bob]):
            await asyncio.sleep(3)
        bob.crash()
        alice.change_ip(CAROL)
        assert told == [
            (0, "fault: partition: alice and bob", ["alice", "bob"]),
            (3, "healed: partition: alice and bob", ["alice", "bob"]),
            (3, "down: bob crashes", ["bob"]),
            (3, f"address: alice has address {CAROL}", ["alice"]),
        ]

    simulate(story)


def test_many_names_are_not_listed() -> None:
    network = Network()
    hosts = [network.host(f"h{n}", f"192.0.2.{n + 1}") for n in range(9)]
    fault = network.partition(hosts[:1], hosts[1:])
    assert fault.text == "partition: h0 and h1, h2, h3, h4 and 4 more"


def test_two_worlds_share_nothing(programs: Any) -> None:
    one, other = Network(1), Network(1)
    alice, _ = programs.two(one)
    twin, _ = programs.two(other)
    assert alice.entropy(8) == twin.entropy(8)
    alice.entropy(8)
    alice.change_ip(CAROL)
    assert twin.addresses == (ALICE,)
    assert one.rng.random() == other.rng.random()

"""A node's address changes: noticed, told and published within a second, and never named again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import Environment, Introduction, NodeConfig
from egtp.own.own_addresses import OwnState
from simulations.virtual import Fixed, Link, NatKind

Play = Callable[[Callable[[Any], Awaitable[None]]], None]

THREE = ("5.1.0.1", "5.2.0.1", "5.3.0.1")
MOVED = "9.8.8.8"


def held(world: Any, players: list[Any], subject: Any) -> list[Any]:
    """Every record of somebody that anybody has."""
    books = [player.engine.book.find(subject.node_id) for player in players]
    records = [peer.record for peer in books if peer is not None and peer.record is not None]
    return records + [r for _, r in world.lookup.records if r.peer_id == subject.node_id]


@pytest.mark.parametrize("kind", NatKind)
def test_the_old_address_is_never_republished_after_the_router_got_another_one(
    play: Play, kind: NatKind
) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*THREE)
        (newcomer,) = await world.players("5.4.0.1")
        gateway, home = await world.at_home(kind, forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(5)
        assert world.PUBLIC in home.tcp
        last = home.node.record.sequence

        gateway.change_address(MOVED)
        await asyncio.sleep(30)
        began_s = world.now
        await home.ask(newcomer)
        await asyncio.sleep(1)
        assert world.PUBLIC not in home.tcp
        assert f"{MOVED}:4000" in home.tcp
        at_s = next(at_s for at_s, tcp in world.published(home) if f"{MOVED}:4000" in tcp)
        assert at_s - began_s <= 1.0
        assert newcomer.node.why(home.node_id).record == home.node.record, "pushed"

        await asyncio.sleep(3 * 3600)
        assert home.node.record.sequence > last
        assert home.tcp == [f"{MOVED}:4000", world.INSIDE]
        newer = [one for one in held(world, [*observers, newcomer], home) if one.sequence > last]
        assert newer
        for record in newer:
            assert world.PUBLIC not in [str(strategy.address) for strategy in record.tcp]

    play(story)


@pytest.mark.parametrize("left", [1, 2])
def test_when_all_who_saw_an_address_are_gone_those_who_are_left_decide(
    play: Play, left: int
) -> None:
    """Where one alone sees the node is not believed, but it is no longer seen where it was."""

    async def story(world: Any) -> None:
        observers = await world.players(*THREE[:2])
        newcomers = await world.players(*("5.3.0.1", "5.4.0.1")[:left])
        gateway, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(5)
        assert world.PUBLIC in home.tcp
        for observer in observers:
            await observer.run(observer.node.close())
        gateway.change_address(MOVED)
        await home.ask(*newcomers)
        await asyncio.sleep(20)
        assert home.tcp == ([world.INSIDE] if left == 1 else [f"{MOVED}:4000", world.INSIDE])
        assert home.state(world.PUBLIC) is (OwnState.FAILED if left == 1 else None)

    play(story)


def test_with_every_observer_dead_to_it_a_node_finds_its_new_address_by_its_first_words(
    play: Play,
) -> None:
    """It asks somebody it talked to before; that connection is silent, so it is dialled anew."""

    async def story(world: Any) -> None:
        observers = await world.players(*THREE)
        gateway, home = await world.at_home(forwarded=True, config=NodeConfig(silent_path_s=4))
        await home.ask(*observers)
        await asyncio.sleep(5)
        gateway.change_address(MOVED)
        asking = asyncio.ensure_future(home.ask(observers[0]))
        await asyncio.sleep(8)
        assert f"{MOVED}:4000" in home.tcp
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    play(story)


def test_in_the_middle_of_a_conversation_a_new_address_is_published_soon_after_the_silence_begins(
    play: Play,
) -> None:
    """The first sign that there is: somebody does not answer who always did."""

    async def story(world: Any) -> None:
        observers = await world.players(*THREE)
        gateway, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(5)
        talks = [asyncio.ensure_future(home.ask(*[one] * 1000)) for one in observers]
        await asyncio.sleep(1)
        gateway.change_address(MOVED)
        began_s = world.now
        await asyncio.sleep(10)
        at_s = next(at_s for at_s, tcp in world.published(home) if f"{MOVED}:4000" in tcp)
        # Asked after a quarter of silent_path_s, doubted after an eighth more, each at the next
        # look; and within a second from then.
        silent_s = home.node.config.silent_path_s
        assert at_s - began_s <= silent_s * 3 / 8 + 2 * home.node.config.clean_up_interval_s + 1
        assert not any(talk.done() and talk.exception() for talk in talks), "no query failed"
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    play(story)


@pytest.mark.parametrize("silent", [False, True])
def test_an_idle_node_behind_relays_notices_with_the_next_renewal_of_a_lease(
    play: Play, silent: bool
) -> None:
    """Nothing is said in between, so nothing can tell; a third of ``relay_lease_s`` at most."""

    async def story(world: Any) -> None:
        relays = await world.players(*THREE, relay_server=True)
        known = [Introduction(one.node_id, one.node.record) for one in relays]
        gateway, home = await world.at_home(forwarded=True, discovery=StaticDiscovery(known))
        config = home.node.config
        await asyncio.sleep(config.relay_lease_s / 3 + 1)
        assert world.PUBLIC in home.tcp
        gateway.change_address(MOVED)
        began_s = world.now
        if not silent:
            # The router is one that answers what it does not know: the sockets say so.
            home.engine.comms.drop_all("reset by the router")
        await asyncio.sleep(config.relay_lease_s)
        at_s = next(at_s for at_s, tcp in world.published(home) if f"{MOVED}:4000" in tcp)
        noticed_s = config.relay_lease_s / 3 + config.silent_path_s / 8 + 2 if silent else 0
        assert at_s - began_s <= noticed_s + 1

    play(story)


@pytest.mark.parametrize("liars", [1, 2])
def test_a_minority_of_liars_changes_nothing_and_has_nobody_hung_up_on(
    play: Play, liars: int
) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*THREE)
        _, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(5)
        before = home.node.record
        for number in range(liars):
            # What a mirror's neighbour sees, and tells in good faith, is the mirror's address.
            ip = f"7.{number}.0.1"
            await mirror(world.network.host(f"mirror {number}", ip), ip, f"5.{4 + number}.0.1")
            (liar,) = await world.players(f"5.{4 + number}.0.1", announce=f"{ip}:4000")
            await home.ask(liar)
        await asyncio.sleep(5)
        assert len(home.engine.addresses._elections[4]) == 3 + liars
        assert home.node.record == before
        assert home.state(world.PUBLIC) is OwnState.CONFIRMED
        assert all(home.paths_to(observer) for observer in observers)

    async def mirror(host: Any, ip: str, target: str) -> None:
        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(target, 4000)
            await asyncio.gather(pump(reader, back), pump(there, writer))

        await host.run(asyncio.start_server(accept, ip, 4000))

    play(story)


def test_a_machine_that_has_its_address_again_has_others_look_whether_they_still_get_through(
    play: Play,
) -> None:
    """It may be behind another router now, and in the local network there have the same address."""

    async def story(world: Any) -> None:
        observers = await world.players(*THREE)
        sees = [world.INSIDE.removesuffix(":4000")]
        gateway, home = await world.at_home(forwarded=True, local_addresses=lambda: sees)
        await home.ask(*observers)
        await asyncio.sleep(20)
        assert world.PUBLIC in home.tcp
        address = sees.pop()
        await asyncio.sleep(2)
        gateway.change_address(MOVED)
        sees.append(address)
        await asyncio.sleep(10)
        assert f"{MOVED}:4000" in home.tcp
        assert world.PUBLIC not in home.tcp

    play(story)


@pytest.mark.parametrize("slow_s", [0.02, 0.5, 0.7])
def test_behind_a_nat_with_several_addresses_no_connection_ends_however_slow_the_line_is(
    play: Play, slow_s: float
) -> None:
    """Observers contradict each other, and all of them are right."""

    async def story(world: Any) -> None:
        observers = await world.players(*THREE)
        (newcomer,) = await world.players("5.4.0.1")
        gateway, home = await world.at_home(NatKind.SYMMETRIC, forwarded=False)
        world.network.degrade(home.host, Link(latency=Fixed(slow_s)))
        await home.ask(*observers)
        await asyncio.sleep(20)
        gateway.net.take(MOVED, gateway)
        gateway.nat.address = MOVED
        await home.ask(newcomer)
        await asyncio.sleep(5)
        assert home.node.counters["path given up: this node's address has changed"] == 0
        assert all(home.paths_to(one) for one in (*observers, newcomer))

    play(story)


def test_a_machine_with_another_address_says_so_within_a_second_and_hangs_up_on_the_old_one(
    play: Play,
) -> None:
    async def story(world: Any) -> None:
        one, two, stranger = await world.players(*THREE)
        (node,) = await world.players("5.5.0.1", listen="0.0.0.0:4000")
        await node.ask(one)
        await two.ask(node)
        last = node.node.record.sequence
        node.host.change_ip("5.6.0.1")
        began_s = world.now
        await asyncio.sleep(1)
        assert node.tcp == ["5.6.0.1:4000"]
        at_s = next(at_s for at_s, tcp in world.published(node) if tcp == ["5.6.0.1:4000"])
        assert at_s - began_s <= 1.0
        assert not node.paths_to(one)
        assert not node.paths_to(two)
        await stranger.ask(node)
        await node.ask(one)
        await asyncio.sleep(3 * 3600)
        newer = [r for r in held(world, [one, two, stranger], node) if r.sequence > last]
        assert newer
        assert {str(s.address) for r in newer for s in r.tcp} == {"5.6.0.1:4000"}

    play(story)


def test_a_machine_that_moves_in_its_local_network_does_not_take_the_confirmed_address_along(
    play: Play,
) -> None:
    """The router still forwards to where it was; before, it may be behind another router."""

    async def story(world: Any) -> None:
        observers = await world.players(*THREE)
        _, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(5)
        assert world.PUBLIC in home.tcp
        last = home.node.record.sequence
        home.host.change_ip("192.168.1.9")
        await asyncio.sleep(1)
        assert home.tcp == ["192.168.1.9:4000"]
        assert home.state(world.PUBLIC) is None
        await home.ask(*observers)
        await asyncio.sleep(20)
        assert home.state(world.PUBLIC) is OwnState.FAILED
        newer = [one for one in held(world, observers, home) if one.sequence > last]
        assert newer
        assert all(world.PUBLIC not in map(str, (s.address for s in r.tcp)) for r in newer)

    play(story)


def test_a_machine_that_gains_an_address_pushes_it_to_those_who_are_connected(play: Play) -> None:
    async def story(world: Any) -> None:
        (one,) = await world.players("5.1.0.1")
        (node,) = await world.players("5.5.0.1", listen="0.0.0.0:4000")
        await node.ask(one)
        node.host.change_ip("5.5.0.1", "5.6.0.1")
        await asyncio.sleep(1)
        assert node.tcp == ["5.5.0.1:4000", "5.6.0.1:4000"]
        assert one.node.why(node.node_id).record == node.node.record
        assert node.paths_to(one), "the connection is of an address that is still there"

    play(story)


def test_a_node_that_only_dials_notices_that_its_connections_are_of_another_address(
    play: Play,
) -> None:
    async def story(world: Any) -> None:
        (one,) = await world.players("5.1.0.1")
        (node,) = await world.players("5.5.0.1", listen=())
        await node.ask(one)
        node.host.change_ip("5.6.0.1")
        await asyncio.sleep(1)
        assert not node.paths_to(one)
        assert node.tcp == []
        await node.ask(one)

    play(story)


@pytest.mark.parametrize(
    ("addresses", "stays"),
    [
        (("2a03::99", "2a03::1"), False),
        (("2a02::99", "2a02::77"), True),
    ],
)
def test_a_temporary_address_that_a_machine_dialled_from_is_gone_with_its_network(
    play: Play, addresses: tuple[str, str], stays: bool
) -> None:
    """Of its two IPv6 addresses, the machine dials from one and shows the other."""

    async def story(world: Any) -> None:
        (one,) = await world.players("2a01::1")
        host = world.network.host("private", "2a02::99", "2a02::1")
        environment = Environment(
            host.elapsed, host.unix_time, host.entropy, lambda: host.addresses[1:]
        )
        node = await world.start(host, listen=(), environment=environment)
        await node.ask(one)
        assert [it.local_host for it in node.engine.comms.all()] == ["2a02::99"]
        host.change_ip(*addresses)
        await asyncio.sleep(1)
        assert bool(node.paths_to(one)) is stays
        await node.ask(one)

    play(story)


def test_addresses_that_cannot_be_read_are_counted_and_leave_all_as_it_was(play: Play) -> None:
    async def story(world: Any) -> None:
        (node,) = await world.players("5.5.0.1", listen="0.0.0.0:4000")
        node.host.addresses = ("nonsense",)
        await asyncio.sleep(5)
        assert node.tcp == ["5.5.0.1:4000"]
        assert node.node.counters["the machine's addresses could not be read"] >= 9
        node.host.addresses = ()
        await asyncio.sleep(5)
        assert node.tcp == ["5.5.0.1:4000"], "without a network, nobody is there to be told"

    play(story)


def test_listening_elsewhere_takes_the_observed_address_along(play: Play) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*THREE)
        gateway, home = await world.at_home(forwarded=True)
        gateway.nat.forward("tcp", 4001, ("192.168.1.2", 4001))
        await home.ask(*observers)
        await asyncio.sleep(5)
        await home.run(home.node.listen("0.0.0.0:4001"))
        assert home.tcp == ["192.168.1.2:4001"]
        await asyncio.sleep(5)
        assert home.tcp == ["9.9.9.9:4001", "192.168.1.2:4001"]

    play(story)

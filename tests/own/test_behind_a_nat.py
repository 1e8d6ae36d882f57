"""A node that listens on everything and does not know where that is, seen from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import FastFail, Introduction, NodeConfig, NodeId
from egtp.own.own_addresses import OwnState
from egtp.values.comm_record import SUITE_AESGCM
from egtp.values.comm_strat import RelayStrat
from simulations.virtual import NatKind

Play = Callable[[Callable[[Any], Awaitable[None]]], None]

FEW = ("5.1.0.1", "5.2.0.1")
PORT = 4000


@pytest.mark.parametrize("kind", NatKind)
def test_a_forwarded_address_is_announced_once_two_networks_see_it_and_one_has_dialled_it(
    play: Play, kind: NatKind
) -> None:
    async def story(world: Any) -> None:
        one, two = await world.players(*FEW)
        _, home = await world.at_home(kind, forwarded=True)
        await home.ask(one)
        await asyncio.sleep(5)
        assert home.tcp == [world.INSIDE]
        assert home.state(world.PUBLIC) is None
        await home.ask(two)
        await asyncio.sleep(1)
        assert home.tcp == [world.PUBLIC, world.INSIDE]
        assert home.state(world.PUBLIC) is OwnState.CONFIRMED
        # Those who are connected have been told, the others find it.
        assert two.node.why(home.node_id).record == home.node.record
        (stranger,) = await world.players("5.3.0.1")
        await stranger.ask(home)
        assert stranger.paths_to(home) == (f"tcp {world.PUBLIC} (open)",)

    play(story)


@pytest.mark.parametrize("kind", NatKind)
def test_without_a_forwarding_the_address_is_never_announced_and_the_reason_is_told(
    play: Play, kind: NatKind
) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*FEW, "5.3.0.1", "5.4.0.1", "5.5.0.1")
        _, home = await world.at_home(kind, forwarded=False)
        await home.ask(*observers)
        await asyncio.sleep(3600)
        assert home.state(world.PUBLIC) is OwnState.FAILED
        (failed,) = [one for one in home.node.own_addresses if not one.announced]
        assert str(failed) == (
            f"{world.PUBLIC} observed, but not reachable (by 5 networks; no answer in time)"
        )
        assert all(world.PUBLIC not in tcp for _, tcp in world.published(home))
        knocks = [one.dialled.count(failed.address) for one in observers]
        assert sum(knocks) < 40, "asked more and more rarely"

    play(story)


def test_a_port_that_is_forwarded_later_is_found_by_itself(play: Play) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*FEW)
        gateway, home = await world.at_home(forwarded=False)
        await home.ask(*observers)
        await asyncio.sleep(20)
        assert home.state(world.PUBLIC) is OwnState.FAILED
        gateway.nat.forward("tcp", 4000, ("192.168.1.2", 4000))
        await asyncio.sleep(home.node.config.address_retry_s)
        assert world.PUBLIC in home.tcp

    play(story)


@pytest.mark.parametrize("forwarded", [False, True])
def test_who_wants_relays_is_reachable_once_there_is_a_way_from_other_networks(
    play: Play, *, forwarded: bool
) -> None:
    """And not as soon as a record names an address of his local network."""

    async def story(world: Any) -> None:
        (relay,) = await world.players("5.1.0.1", relay_server=True)
        observers = await world.players(*FEW[1:], "5.3.0.1")
        discovery = StaticDiscovery([Introduction(relay.node_id, relay.node.record)])
        with relay.host.block_inbound("refuse"):
            _, home = await world.at_home(forwarded=forwarded, discovery=discovery)
            waits = home.host.spawn(home.node.reachable())
            await asyncio.sleep(20)
            assert home.tcp == [world.INSIDE]
            assert not waits.done()
            if forwarded:
                await home.ask(*observers)
                await asyncio.sleep(5)
                assert home.tcp == [world.PUBLIC, world.INSIDE]
                assert waits.done()
        await waits
        assert forwarded or home.node.relays == (relay.node_id,)

    play(story)


def test_who_wants_no_relays_is_reachable_with_an_address_of_his_local_network(play: Play) -> None:
    async def story(world: Any) -> None:
        _, home = await world.at_home(forwarded=False)
        async with asyncio.timeout(1):
            await home.run(home.node.reachable())
        assert home.tcp == [world.INSIDE]

    play(story)


def test_observers_of_one_network_are_not_believed_however_many_they_are(play: Play) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*(f"5.1.{n}.1" for n in range(10)))
        _, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(60)
        assert home.tcp == [world.INSIDE]
        assert home.state(world.PUBLIC) is None

    play(story)


def test_those_who_dial_us_do_not_vote(play: Play) -> None:
    """Where they see us is what we announced, or what anybody made them believe."""

    async def story(world: Any) -> None:
        observers = await world.players(*FEW, "5.3.0.1")
        (node,) = await world.players("5.4.0.1", listen="0.0.0.0:4000")
        for observer in observers:
            await observer.ask(node)
        assert not node.engine.addresses._elections[4]._votes

    play(story)


def test_who_answers_through_a_relay_or_does_not_say_where_he_sees_us_has_no_vote(
    play: Play,
) -> None:
    async def story(world: Any) -> None:
        observer, node = await world.players(*FEW)
        await node.ask(observer)
        watch, path = node.engine.addresses, node.engine.book.find(observer.node_id).direct
        votes = watch._elections[4]._votes
        assert len(votes) == 1
        votes.clear()
        relayed = RelayStrat(bytes(32), SUITE_AESGCM, bytes(32))
        for observed, strategy in ((None, path.strategy), (path.observed, relayed)):
            watch.opened(SimpleNamespace(dialled=True, observed=observed, strategy=strategy))
            assert not votes

    play(story)


def test_an_address_that_is_confirmed_no_more_is_withdrawn_and_tried_again(play: Play) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*FEW)
        config = NodeConfig(idle_timeout_s=3600)
        _, home = await world.at_home(forwarded=True, config=config)
        await home.ask(*observers)
        await asyncio.sleep(5)
        assert world.PUBLIC in home.tcp
        with world.network.block_inbound(home.host):
            await asyncio.sleep(config.address_recheck_s + 10)
            assert home.state(world.PUBLIC) is OwnState.FAILED
            assert home.tcp == [world.INSIDE]
            assert world.published(home)[-1][1] == [world.INSIDE]
        await asyncio.sleep(config.address_retry_s + 10)
        assert world.PUBLIC in home.tcp

    play(story)


def test_a_confirmed_address_is_checked_again_though_every_connection_has_ended_meanwhile(
    play: Play,
) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*FEW)
        _, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        config = home.node.config
        await asyncio.sleep(2 * config.idle_timeout_s)
        assert not any(home.paths_to(observer) for observer in observers)
        with world.network.block_inbound(home.host):
            await asyncio.sleep(config.address_recheck_s)
            assert home.state(world.PUBLIC) is OwnState.FAILED

    play(story)


def test_strangers_are_not_dialled_to_be_asked_about_an_address(play: Play) -> None:
    """Where they say that they are may be a third party; and a crowd of them would leave nobody
    else to be asked."""

    async def story(world: Any) -> None:
        observers = await world.players(*FEW)
        _, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(5)
        strangers = await world.players(*[f"5.3.0.{number}" for number in range(1, 9)])
        for stranger in strangers:
            await stranger.ask(home)
        config = home.node.config
        await asyncio.sleep(2 * config.idle_timeout_s)
        home.dialled.clear()
        await asyncio.sleep(3 * config.address_recheck_s)
        assert {str(address) for address in home.dialled} == {f"{ip}:{PORT}" for ip in FEW}
        assert home.state(world.PUBLIC) is OwnState.CONFIRMED

    play(story)


def test_who_has_been_blocked_is_not_dialled_to_be_asked_about_an_address(play: Play) -> None:
    async def story(world: Any) -> None:
        observers, blocked = await world.players(*FEW), set[NodeId]()
        _, home = await world.at_home(forwarded=True, admit=lambda one: one not in blocked)
        await home.ask(*observers)
        await asyncio.sleep(5)
        blocked.add(observers[0].node_id)
        config = home.node.config
        await asyncio.sleep(2 * config.idle_timeout_s)
        home.dialled.clear()
        await asyncio.sleep(3 * config.address_recheck_s)
        assert {str(address) for address in home.dialled} == {f"{ip}:{PORT}" for ip in FEW[1:]}

    play(story)


def test_that_nobody_can_be_asked_is_no_reason_to_withdraw_an_address(play: Play) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*FEW)
        _, home = await world.at_home(forwarded=True)
        await home.ask(*observers)
        await asyncio.sleep(5)
        for observer in observers:
            await observer.run(observer.node.close())
        await asyncio.sleep(3 * home.node.config.address_recheck_s)
        assert home.state(world.PUBLIC) is OwnState.CONFIRMED
        assert "nobody to be asked" in str(home.node.own_addresses[0])

    play(story)


def test_a_private_port_below_1024_is_not_even_asked_for(play: Play) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*FEW)
        _, home = await world.at_home(forwarded=True, listen="0.0.0.0:443")
        await home.ask(*observers)
        await asyncio.sleep(60)
        (own,) = [one for one in home.node.own_addresses if str(one.address) == "9.9.9.9:443"]
        assert own.state is OwnState.OBSERVED
        assert "below 1024" in own.detail
        assert not any(observer.dialled for observer in observers)

    play(story)


@pytest.mark.parametrize(
    "options",
    [
        {"announce": "9.9.9.9:4444"},
        {"announce": ()},
        {"config": NodeConfig(observe_address=False)},
    ],
)
def test_what_the_user_announces_himself_is_neither_doubted_nor_added_to(
    play: Play, options: dict[str, Any]
) -> None:
    async def story(world: Any) -> None:
        observers = await world.players(*FEW)
        _, home = await world.at_home(forwarded=True, **options)
        await home.ask(*observers)
        await asyncio.sleep(60)
        announced = ["9.9.9.9:4444"] if options.get("announce") else []
        assert home.tcp == announced
        assert [str(one.address) for one in home.node.own_addresses] == announced
        assert not any(observer.dialled for observer in observers)
        assert home.node.counters["observed address is another one"] == 0

    play(story)


def test_a_machine_in_the_open_announces_the_address_of_its_interface_at_once(play: Play) -> None:
    async def story(world: Any) -> None:
        one, two = await world.players(*FEW)
        (node,) = await world.players("5.3.0.1", listen="0.0.0.0:4000")
        assert node.tcp == ["5.3.0.1:4000"]
        assert node.state("5.3.0.1:4000") is OwnState.INTERFACE
        await node.ask(one, two)
        await asyncio.sleep(5)
        assert node.tcp == ["5.3.0.1:4000"]
        assert not one.dialled
        assert not two.dialled, "what an interface has needs no dial-back"

    play(story)


def test_a_node_listens_at_several_addresses_and_of_both_families(play: Play) -> None:
    async def story(world: Any) -> None:
        host = world.network.host("node", "5.3.0.1", "5.4.0.1", "2a00::1")
        wanted = ["5.3.0.1:4000", "5.4.0.1:4001", "[2a00::1]:4002"]
        node = await world.start(host, listen=wanted)
        assert node.tcp == wanted
        everywhere = world.network.host("everywhere", "5.5.0.1", "5.6.0.1", "2a00::2")
        other = await world.start(everywhere, listen=["0.0.0.0:4000", "[::]:4001"])
        assert other.tcp == ["5.5.0.1:4000", "[2a00::2]:4001", "5.6.0.1:4000"]
        await other.ask(node)

    play(story)


def test_peers_behind_one_nat_reach_each_other_in_their_own_network(play: Play) -> None:
    async def story(world: Any) -> None:
        gateway, home = await world.at_home(forwarded=False)
        beside = world.network.host("beside", "192.168.1.3", behind=gateway)
        neighbour = await world.start(beside, listen="0.0.0.0:4000")
        await neighbour.ask(home)
        assert neighbour.paths_to(home) == (f"tcp {world.INSIDE} (open)",)

    play(story)


@pytest.mark.parametrize("address", ["192.168.2.2", "10.0.0.2"])
def test_private_addresses_of_another_network_are_not_dialled(play: Play, address: str) -> None:
    async def story(world: Any) -> None:
        gateway, home = await world.at_home(forwarded=False)
        far = world.network.host("far", address, behind=gateway)
        stranger = await world.start(far, listen=())
        with pytest.raises(FastFail, match="private") as caught:
            await stranger.ask(home)
        assert "another network" in str(caught.value)
        assert not stranger.dialled

    play(story)


def test_private_addresses_stay_at_home_if_that_is_wanted(play: Play) -> None:
    async def story(world: Any) -> None:
        config = NodeConfig(lan_addresses=False)
        gateway, home = await world.at_home(forwarded=False, config=config)
        assert home.tcp == []
        beside = world.network.host("beside", "192.168.1.3", behind=gateway)
        open_minded = await world.start(beside, listen="0.0.0.0:4000")
        with pytest.raises(FastFail):
            await home.ask(open_minded)
        assert not home.dialled

    play(story)

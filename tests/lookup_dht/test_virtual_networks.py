"""Networks in virtual time: they grow, are idle, are under attack, and do the same each time."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from egtp import NodeConfig
from egtp.errors import LookupFailed, LookupFailure
from egtp.values.identity import Identity
from lookup_dht import DHTLookup
from lookup_dht.wire.datagram import Method, Query, StoreStatus, encode_query
from lookup_dht.wire.node_id import fits
from simulations.virtual import Link, LogNormal, Network, run_in
from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.nat import Endpoint
from simulations.virtual.stream import StreamTransport
from tests.lookup_dht.town import Town, tell


def test_records_are_found_after_the_network_grew_manyfold_since_they_were_published() -> None:
    async def story(town: Town) -> None:
        await town.grow(30)
        peers = [town.identity() for _ in range(20)]
        for number, peer in enumerate(peers):
            assert await town.publish(number, town.sign(peer, 5, 24 * 3600)) >= 20
        await town.grow(110)
        found = [await town.resolve(139 - number, peer) for number, peer in enumerate(peers)]
        assert found == [5] * len(peers)
        await asyncio.sleep(60)
        # Every one is where it is looked for, so that it outlives those who had it first.
        held = [town.held_by_the_closest(peer) for peer in peers]
        assert min(held) >= 5
        assert sum(held) >= 18 * len(peers)
        await asyncio.sleep(80 * 60)  # and whatever was missed is made good within the hour
        held = [town.held_by_the_closest(peer) for peer in peers]
        assert min(held) >= 19

    tell(story)


def test_who_publishes_while_the_network_grows_is_not_warned_of_an_eclipse() -> None:
    async def story(town: Town) -> None:
        await town.grow(25)
        for number in range(20):
            await town.publish(number % 5, town.sign(town.identity(), 5))
        await town.grow(150)
        for number in range(10):
            await town.publish(number % 5, town.sign(town.identity(), 5))
        assert town.total("crowding_looked_into") > 0
        assert town.total("eclipse_suspected") == 0

    tell(story)


def test_lookups_that_were_given_up_hold_up_none_that_comes_after_them() -> None:
    """An app may ask for one peer after another and lose patience with each."""

    async def story(town: Town) -> None:
        await town.grow(3)
        host, node = town.hosts[2], town.nodes[2]
        for _ in range(3000):
            given_up = host.spawn(node.resolve(town.identity().node_id))
            await asyncio.sleep(0.003)
            given_up.cancel()
        peer = town.identity()
        await town.publish(1, town.sign(peer, 5))
        began_s = host.elapsed()
        assert await town.resolve(2, peer) == 5
        assert host.elapsed() - began_s < 3

    tell(story)


def test_an_idle_network_sends_no_store_for_hours() -> None:
    async def story(town: Town) -> None:
        await town.grow(60)
        await asyncio.sleep(60)  # until all have found their places
        for number in range(40):
            await town.publish(number, town.sign(town.identity(), 5, 24 * 3600))
        await asyncio.sleep(10)
        stores = town.total("sent_store")
        before = town.total("sent_ping", "sent_find_node", "sent_find_value")
        await asyncio.sleep(2 * 3600)
        assert town.total("sent_store") == stores
        assert town.total("record_looked_after") > 0
        idle = town.total("sent_ping", "sent_find_node", "sent_find_value") - before
        assert idle / 60 / 2 < 1000  # queries of a node in an hour

    tell(story)


def test_a_node_that_lost_its_records_gets_them_when_somebody_looks_for_them() -> None:
    async def story(town: Town) -> None:
        await town.grow(40)
        peer = town.identity()
        await town.publish(0, town.sign(peer, 5))
        holders = [node for node in town.nodes if node._node.storage.held(peer.node_id)]
        for node in holders[3:]:
            node._node.storage._drop([peer.node_id])
        for number in range(1, 6):
            assert await town.resolve(number, peer, fresh=True) == 5
        await asyncio.sleep(2)
        again = sum(node._node.storage.held(peer.node_id) is not None for node in town.nodes)
        assert again >= 20
        # Some of those who looked are close themselves, and kept a copy.
        kept = sum(
            node not in holders[:3] and node._node.storage.held(peer.node_id) is not None
            for node in town.nodes[1:6]
        )
        given = town.total("record_repaired", "record_handed_over")
        assert given + kept >= again - 3
        assert town.total("record_repaired") >= 10

    tell(story)


def test_a_node_without_a_network_says_so_at_once_and_forgets_nobody() -> None:
    async def story(town: Town) -> None:
        await town.grow(30)
        peer = town.identity()
        await town.publish(0, town.sign(peer, 5, 24 * 3600))
        host, node = town.hosts[20], town.nodes[20]
        contacts, address = node.contacts, host.addresses[0]
        host.change_ip("12.0.0.1")  # The node's socket stays at the old address.
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for _ in range(10):
            with pytest.raises(LookupFailed) as failed:
                await host.run(node.resolve(town.identity().node_id))
            assert failed.value.reason is LookupFailure.NO_NETWORK
        assert loop.time() - began_s < 0.01
        await asyncio.sleep(600)
        assert node.contacts >= contacts
        host.change_ip(address)
        assert await town.resolve(20, peer) == 5

    tell(story)


def test_a_network_that_was_without_a_network_for_an_hour_goes_on() -> None:
    """As in a data centre that is cut off: nobody can reach these nodes, but they are servers."""

    async def story(town: Town) -> None:
        await town.grow(10)
        peer = town.identity()
        await town.publish(0, town.sign(peer, 5, 24 * 3600))
        addresses = [host.addresses[0] for host in town.hosts]
        for number, host in enumerate(town.hosts):
            host.change_ip(f"12.0.{number}.1")
        await asyncio.sleep(3600)
        for host, address in zip(town.hosts, addresses, strict=True):
            host.change_ip(address)
        await asyncio.sleep(60)
        assert [node.statistics()["server"] for node in town.nodes] == [True] * 10
        assert min(node.contacts for node in town.nodes) == 9
        newcomer = town.add()
        await town.hosts[newcomer].run(town.nodes[newcomer].start())
        assert await town.resolve(newcomer, peer) == 5

    tell(story)


def test_whoever_was_offline_until_all_its_contacts_were_gone_joins_again() -> None:
    async def story(town: Town) -> None:
        await town.grow(20)
        host, node = town.hosts[10], town.nodes[10]
        address = host.addresses[0]
        host.change_ip("12.0.0.1")
        router = node._node.protocol.router
        for contact in list(router):
            if contact.address in node._node.protocol.acquaintances.seeds:
                router.remove_contact(contact)  # As if it had so many others.
        others = [it for it in town.hosts[3:] if it is not host]
        await town.grow(20)
        for other in others:
            other.kill()
        await asyncio.sleep(3600)
        peer = town.identity()
        await town.publish(25, town.sign(peer, 5))
        host.change_ip(address)
        assert await town.resolve(10, peer) == 5

    tell(story)


def test_a_node_that_is_started_anew_again_and_again_is_one_of_those_that_hold_a_record() -> None:
    async def story(town: Town) -> None:
        await town.grow(10)
        await asyncio.sleep(60)
        peer = town.identity()
        sent = []
        for sequence in range(5, 10):
            before = town.nodes[0].counters["sent_store"]
            assert await town.publish(0, town.sign(peer, sequence)) <= 9
            sent.append(town.nodes[0].counters["sent_store"] - before)
            await town.restart(7)
        assert sent[-1] <= sent[0] + 2

    tell(story)


def test_a_bootstrap_node_that_has_lost_its_state_is_given_records_though_its_id_changes() -> None:
    """It listens everywhere, so it is told its address by those that it joins, and then takes an id
    that fits. They know it from the first on, since they name it as a bootstrap node."""

    async def story(town: Town) -> None:
        for number in range(4):
            town.add(f"2{number}.1.0.1")  # Two networks are to tell it its address.
            await town.hosts[number].run(town.nodes[number].start())
        peers = [town.identity() for _ in range(20)]
        for peer in peers:
            assert await town.publish(3, town.sign(peer, 5)) >= 2
        await asyncio.sleep(600)
        host = town.hosts[1]
        host.kill()
        seeds = [f"{it.addresses[0]}:9000" for it in town.hosts if it is not host]
        node = await town.everywhere(1, seeds)
        await asyncio.sleep(60)
        assert node.counters["node_id_changed"] == 1
        assert len(node._node.storage) >= 10

    tell(story)


@pytest.mark.parametrize("seeds", [["21.1.0.1"], ["21.1.0.1", "21.1.7.1", "21.1.9.1"]])
def test_nodes_that_listen_everywhere_know_each_other_with_bootstrap_nodes_in_one_network(
    seeds: list[str],
) -> None:
    """Only these tell them their addresses, and may all be gone later."""

    async def story(town: Town) -> None:
        for address in seeds:
            number = town.add(address)
            await town.hosts[number].run(town.nodes[number].start())
        for _ in range(8):
            number = town.add()
            await town.everywhere(number, [f"{seed}:9000" for seed in seeds])
        await asyncio.sleep(600)
        assert all(node.contacts >= 7 for node in town.nodes)
        peer = town.identity()
        assert await town.publish(4, town.sign(peer, 5)) >= 8
        for host in town.hosts[: len(seeds)]:
            host.kill()
        found = await town.hosts[-1].run(town.nodes[-1].resolve(peer.node_id))
        assert found.sequence == 5

    tell(story)


def test_what_one_network_alone_says_of_an_address_is_believed_late_and_rarely() -> None:
    async def story(town: Town) -> None:
        seed = town.add("21.1.0.1")
        await town.hosts[seed].run(town.nodes[seed].start())
        number = town.add()
        host, node = town.hosts[number], await town.everywhere(number, ["21.1.0.1:9000"])
        assert node.counters["node_id_changed"] == 0
        for minute in range(130):
            assert node.counters["node_id_changed"] <= 1 + minute // 60
            host.change_ip(f"31.{minute}.0.1")
            await asyncio.sleep(60)
        assert node.counters["node_id_changed"] == 3

    tell(story)


def test_who_listens_everywhere_soon_takes_an_id_that_fits_its_new_address() -> None:
    """As when a provider gives a household another one. Nobody answers a node whose id does not fit
    by listing it, and until most contacts were asked again it cannot know."""

    async def story(town: Town) -> None:
        for number in range(3):
            town.add(f"{130 + number}.7.0.1")
            await town.hosts[number].run(town.nodes[number].start())
        seeds = [f"{it.addresses[0]}:9000" for it in town.hosts]
        for number in range(3, 40):
            town.add(f"{130 + number}.7.0.1")
            await town.everywhere(number, seeds)
        await asyncio.sleep(900)
        node = town.nodes[20]
        town.hosts[20].change_ip("99.1.7.7")
        await asyncio.sleep(180)
        assert fits(node.node_id, bytes((99, 1, 7, 7)))
        asked = node.counters["sent_ping"]
        await asyncio.sleep(300)  # Once all have said it, they are asked as seldom as ever.
        assert node.counters["sent_ping"] < asked + 80

    tell(story)


def test_a_node_that_has_lost_everybody_tries_ever_more_rarely_until_they_are_back() -> None:
    async def story(town: Town) -> None:
        await town.grow(4)
        host, node = town.hosts[3], town.nodes[3]
        for other in town.hosts[:3]:
            other.kill()
        with pytest.raises(LookupFailed):
            await host.run(node.resolve(town.identity().node_id))
        await asyncio.sleep(60)
        assert node.contacts == 0
        before = node.counters["sent_ping"]
        await asyncio.sleep(1200)
        # Twice to each of three, every half a minute.
        assert 150 <= node.counters["sent_ping"] - before <= 300
        await town.restart(0)
        await asyncio.sleep(40)
        assert node.contacts == 1

    tell(story)


class ForgetfulUplink:
    """On the lines of a router that goes on sending what comes from some ports to where it once
    sent it, though nobody is there any more."""

    def __init__(self) -> None:
        self.lost: set[tuple[str, int]] = set()

    def takes_datagram(self, socket: DatagramTransport, data: bytes, target: Endpoint) -> bool:
        return socket.get_extra_info("sockname") in self.lost

    def wrote(self, stream: StreamTransport, data: bytes) -> None:
        pass

    def takes(self, stream: StreamTransport, piece: object) -> bool:
        return False


def test_a_client_whose_port_leads_nowhere_any_more_takes_another() -> None:
    async def story(town: Town) -> None:
        town.network.tap = uplink = ForgetfulUplink()
        await town.grow(5)
        seeds = [str(node.address) for node in town.nodes[:3]]
        clients = [
            DHTLookup(
                f"{host.addresses[0]}:0", seeds, server=False, unix_time=host.unix_time,
                elapsed=host.elapsed, entropy=host.entropy,
            )
            for host in (town.network.host(f"client-{n}", f"13.0.{n}.1") for n in range(2))
        ]  # fmt: skip
        await asyncio.gather(*(client.start() for client in clients))
        lost, well = clients
        moving, staying = lost.address, [well.address, town.nodes[4].address]
        for address in (moving, staying[1]):
            uplink.lost.add((address.host, address.port))
        await asyncio.sleep(3600)
        assert lost.address != moving
        assert lost.contacts >= 3
        assert lost.counters["port_changed"] == 1
        # Nobody else moves: neither a client that is well, nor a server that is not.
        assert [well.address, town.nodes[4].address] == staying
        for client in clients:
            await client.close()

    tell(story)


def test_a_client_takes_another_port_after_a_minute_of_silence_and_then_every_half_minute() -> None:
    async def story(town: Town) -> None:
        host = town.network.host("client", "13.0.0.1")
        client = DHTLookup(
            f"{host.addresses[0]}:0", ["11.0.0.1:9000"], server=False, unix_time=host.unix_time,
            elapsed=host.elapsed, entropy=host.entropy,
        )  # fmt: skip
        await host.run(client.start())
        ports = []
        for _ in range(600):
            ports.append(client.address.port)
            await asyncio.sleep(1)
        changed_s = [at for at in range(1, 600) if ports[at] != ports[at - 1]]
        assert 50 <= changed_s[0] <= 80
        assert all(22 <= b - a <= 40 for a, b in pairwise(changed_s))
        await host.run(client.close())

    tell(story)


@pytest.mark.parametrize("hushed", [False, True])
def test_a_record_whose_holders_die_one_after_another_lives_on(hushed: bool) -> None:
    """Also if somebody tells every node all the time that he is asking around for it."""

    async def story(town: Town) -> None:
        await town.grow(60)
        peer = town.identity()
        await town.publish(0, town.sign(peer, 5, 24 * 3600))
        for _ in range(6):
            for number in _holders(town, peer)[3:8]:
                town.hosts[number].crash()
            for _ in range(4):
                if hushed:
                    _say_that_it_is_asked_for(town, bytes(peer.node_id))
                await asyncio.sleep(925)
        up = next(number for number in range(59, 0, -1) if town.hosts[number].is_up)
        assert await town.resolve(up, peer) == 5
        assert len(_holders(town, peer)) >= 10

    tell(story, limit_s=30_000)


def _holders(town: Town, peer: Identity) -> list[int]:
    return [
        number
        for number, node in enumerate(town.nodes)
        if town.hosts[number].is_up and node._node.storage.held(peer.node_id)
    ]


def _say_that_it_is_asked_for(town: Town, key: bytes) -> None:
    query = Query(Method.FIND_VALUE, "main", bytes(20), False, key, sequence=5)
    for host, node in zip(town.hosts, town.nodes, strict=True):
        if host.is_up:
            datagram = encode_query(town.rng.randbytes(20), query)
            node._node.protocol.datagram_received(datagram, ("99.0.0.1", 5000))


@pytest.mark.reaches_in
@pytest.mark.parametrize("networks", [2, 25])
def test_sybils_next_to_a_key_do_not_hide_what_its_owner_publishes(networks: int) -> None:
    """KADEMLIA.md 4.5: 25 nodes closer to the key than any honest one hold on to the old record,
    and say that they stored the new one."""

    async def story(town: Town) -> None:
        await town.grow(150)
        peer = town.identity()
        old, new = town.sign(peer, 5), town.sign(peer, 6)
        await town.publish(0, old)
        for number in range(25):
            at = f"12.0.{number % networks}.{number // networks + 1}"
            sybil = town.nodes[town.add(at)]
            _move_next_to(sybil, bytes(peer.node_id), town.rng)
            await town.hosts[-1].run(sybil.start())
            # It answers as an honest node would, but for what it holds.
            sybil._node.storage.put(bytes(peer.node_id), old.encode())
            sybil._node.storage.put = _stored  # type: ignore[method-assign, assignment]
        await asyncio.sleep(5)
        await town.publish(1, new)
        for number in (20, 60, 100):
            assert await town.resolve(number, peer, fresh=True) == 6
        if networks == 25:
            assert town.nodes[1].counters["eclipse_suspected"] == 1
        honest = await town.publish(2, town.sign(town.identity(), 5))
        assert honest >= 20
        assert town.nodes[2].counters["eclipse_suspected"] == 0

    tell(story)


def _stored(*_: object) -> StoreStatus:
    return StoreStatus.STORED


def _move_next_to(node: DHTLookup, key: bytes, rng: random.Random) -> None:
    """As if the attacker had addresses enough to find an id that fits one of them."""
    node._node.protocol.take_id(key[:4] + rng.randbytes(16))


@pytest.fixture(autouse=True)
def ids_may_be_anything(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "sybils" in request.node.name:
        monkeypatch.setattr("lookup_dht.protocol.acquaintance.fits_public", lambda *_: True)
        monkeypatch.setattr("lookup_dht.membership.own_id.fits", lambda *_: True)


def test_the_same_seed_gives_the_same_datagrams() -> None:
    async def story(town: Town) -> None:
        await town.grow(30)
        peers = [town.identity() for _ in range(5)]
        for number, peer in enumerate(peers):
            await town.publish(number, town.sign(peer, 5))
            await town.resolve(29 - number, peer)
        await asyncio.sleep(100)

    traces = [tell(story, seed).network.trace.digest for seed in (1, 1, 2)]
    assert traces[0] == traces[1] != traces[2]


def test_lost_datagrams_and_dead_nodes_cost_little() -> None:
    async def story(town: Town) -> None:
        town.network.degrade_all(Link(latency=LogNormal(0.05, 0.4), loss=0.02))
        await town.grow(120)
        peers = [town.identity() for _ in range(20)]
        for number, peer in enumerate(peers):
            await town.publish(number, town.sign(peer, 5))
        for number in range(30, 120, 5):
            town.hosts[number].crash()
        puts, gets = [], []
        for number, peer in enumerate(peers):
            began = town.network.loop.now
            await town.publish(number, town.sign(peer, 6))
            puts.append(town.network.loop.now - began)
            began = town.network.loop.now
            assert await town.resolve(119 - number * 5 - 1, peer) == 6
            gets.append(town.network.loop.now - began)
        assert sorted(gets)[18] < 0.7
        assert sorted(puts)[18] < 2.5

    tell(story)


def test_a_record_is_published_in_time_though_most_nodes_are_gone_and_lines_are_slow() -> None:
    async def story(town: Town) -> None:
        town.network.degrade_all(Link(latency=LogNormal(0.4, 0.3)))
        await town.grow(100)
        await asyncio.sleep(60)
        for number in town.rng.sample(range(1, 100), 80):
            town.hosts[number].crash()
        # As a node does it, which has friends to tell as well.
        async with asyncio.timeout(0.9 * NodeConfig().lookup_timeout_s):
            assert await town.publish(0, town.sign(town.identity(), 5)) > 0

    tell(story)


@pytest.mark.parametrize("known_from", ["bootstrap", "state"])
def test_a_node_that_is_not_told_where_to_listen_reaches_the_nodes_that_it_is_told_of(
    known_from: str,
) -> None:
    async def story(town: Town) -> None:
        await town.grow(5)
        host = town.network.host("laptop", "12.0.0.1")
        given: dict[str, Any] = {"bootstrap": ["11.0.0.1:9000"]}
        if known_from == "state":
            given = {"state": replace(town.nodes[4].state, node_id=b"")}
        node = DHTLookup(
            server=None, unix_time=host.unix_time, elapsed=host.elapsed, entropy=host.entropy,
            **given,
        )  # fmt: skip
        await host.run(node.start())
        assert node.contacts >= 4

    tell(story)


def test_a_machine_with_both_families_has_a_node_in_both_networks() -> None:
    async def story(network: Network) -> None:
        nodes: dict[str, list[DHTLookup]] = {}
        for machine, seeds in (("first", []), ("second", ["11.0.0.1:9100", "[2a00:1::1]:9100"])):
            number = len(nodes)
            host = network.host(machine, f"11.0.{number}.1", f"2a00:{number + 1}::1")
            nodes[machine] = [
                DHTLookup(
                    listen, seeds[at : at + 1], unix_time=host.unix_time, elapsed=host.elapsed,
                    entropy=host.entropy, ipv6_socket=None,
                )
                for at, listen in enumerate(("0.0.0.0:9100", "[::]:9100"))
            ]  # fmt: skip
            for node in nodes[machine]:
                await host.run(node.start())
        met = [[it.ip for it in node._node.protocol.router] for node in nodes["second"]]
        assert met == [["11.0.0.1"], ["2a00:1::1"]]

    network = Network(1)
    run_in(network, story(network), limit_s=100)

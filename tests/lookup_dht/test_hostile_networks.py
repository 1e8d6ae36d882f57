"""Whole networks with liars in them: what is promised holds, in bounded time and traffic."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from benchmarks.dht.sybils import places_near
from egtp import Identity, NodeConfig
from lookup_dht import DHTLimits
from lookup_dht.protocol.rate_limit import SOURCES_MAX
from lookup_dht.protocol.reachability import CONTACTED_MAX
from lookup_dht.wire.contact import pack_ip
from lookup_dht.wire.datagram import Method, Query, encode_query
from lookup_dht.wire.node_id import new_node_id
from tests.lookup_dht.liars import Gauge, Liars
from tests.lookup_dht.town import Town, tell


def test_a_fifth_of_liars_about_addresses_has_nobody_change_its_id() -> None:
    """They all tell whoever asks the same wrong address. An id that fits that one, and not where
    the node is, would have nobody list the node."""

    async def story(town: Town) -> None:
        for number in range(60):
            town.add(f"{130 + number % 40}.{number}.0.1")
            if number >= 3:
                await town.everywhere(number, [f"{it.addresses[0]}:9000" for it in town.hosts[:3]])
            else:
                await town.hosts[number].run(town.nodes[number].start())
        await asyncio.sleep(120)
        ids = [node.node_id for node in town.nodes]
        liars = Liars(town)
        liars.observed = bytes((77, 1, 1, 1, 0x23, 0x28))
        await liars.settle(15)
        await asyncio.sleep(300)
        assert [node.node_id for node in town.nodes] == ids

    tell(story)


HONEST: Final = 30
LIMITS: Final = DHTLimits()
WALK_DATAGRAMS: Final = 2 * (LIMITS.walk_queries_max + LIMITS.repairs_max)
"""Each query may be sent twice, and each repair."""
UPKEEP_DATAGRAMS: Final = 20
"""Pings that fall into the same seconds."""


async def _town_with_liars(town: Town, count: int) -> tuple[Liars, list[Identity]]:
    """And two peers, whose records everybody has."""
    await town.grow(HONEST)
    await asyncio.sleep(60)
    liars, peers = Liars(town), [town.identity() for _ in range(2)]
    for number, peer in enumerate(peers):
        old = town.sign(peer, 5)
        await town.publish(number, old)
        liars.records[bytes(peer.node_id)] = 5, old.encode()
    await liars.settle(count)
    return liars, peers


async def _newest_is_published_and_found(town: Town, peers: list[Identity]) -> None:
    loop, gauge = asyncio.get_running_loop(), Gauge(town)
    for number, peer in enumerate(peers):
        began_s = loop.time()
        await town.publish(number, town.sign(peer, 6))
        assert loop.time() - began_s < NodeConfig().lookup_timeout_s
        for asker in (10 + number, 20 + number):
            gauge.asked.clear()
            began_s = loop.time()
            assert await town.resolve(asker, peer, fresh=True) == 6
            assert loop.time() - began_s <= LIMITS.walk_timeout_s
            await asyncio.sleep(4)
            assert len(town.nodes[asker]._node.protocol.asker.queries) == 0
            assert gauge.asked[town.hosts[asker].addresses[0]] <= WALK_DATAGRAMS + UPKEEP_DATAGRAMS


@pytest.mark.parametrize(
    ("manner", "count"), [("all", 5), ("each other", 60), ("inventions", 60), ("all", 60)]
)
def test_liars_neither_hide_the_newest_record_nor_hold_up_who_looks_for_it(
    manner: str, count: int
) -> None:
    """They hold on to the old one, and say that they stored the new one."""

    async def story(town: Town) -> None:
        liars, peers = await _town_with_liars(town, count)
        if manner in ("inventions", "all"):
            liars.names = liars.inventions
        if manner == "all":
            liars.delay_s = 0.6  # A query is sent again a little later.
        await _newest_is_published_and_found(town, peers)

    tell(story)


def test_liars_who_name_a_victim_have_a_search_send_it_a_few_datagrams() -> None:
    async def story(town: Town) -> None:
        liars, peers = await _town_with_liars(town, 20)
        key = bytes(peers[0].node_id)
        place = next(places_near(key, town.rng))
        liars.names = liars.a_victim(place)
        gauge = Gauge(town)
        for number in range(3):
            gauge.got.clear()
            await town.publish(number, town.sign(peers[0], 6 + number))
            await asyncio.sleep(3)
            assert 0 < gauge.got[place.address] <= 2 * LIMITS.address_queries_per_walk
            gauge.got.clear()
            assert await town.resolve(10 + number, peers[0], fresh=True) == 6 + number
            await asyncio.sleep(3)
            assert 0 < gauge.got[place.address] <= 2 * LIMITS.address_queries_per_walk

    tell(story)


def test_sixty_liars_in_one_network_around_a_key_take_two_places() -> None:
    async def story(town: Town) -> None:
        liars, peers = await _town_with_liars(town, 0)
        await liars.settle_in_one_network(bytes(peers[0].node_id), 60)
        await _newest_is_published_and_found(town, peers[:1])
        node = town.nodes[0]
        there = [it for it in node._node.protocol.router if it.ip.startswith("40.1.7.")]
        assert len(there) <= LIMITS.group_contacts_max
        search = node._node.walks.new_search(bytes(peers[0].node_id), 0)
        await town.hosts[0].run(node._node.walks.search(search))
        near = [it.ip.startswith("40.1.7.") for it in search.closest]
        assert sum(near) <= LIMITS.group_candidates_per_walk

    tell(story)


def test_as_many_liars_around_a_key_as_a_search_asks_hide_the_newest_but_its_owner_is_warned() -> (
    None
):
    """What an eclipse can do, and what not: whoever held the record before has the newest."""

    async def story(town: Town) -> None:
        await town.grow(100)
        await asyncio.sleep(60)
        peer, liars = town.identity(), Liars(town)
        key, old = bytes(peer.node_id), town.sign(peer, 5)
        await town.publish(0, old)
        holders = [node for node in town.nodes if node._node.storage.held(key)]
        liars.names, liars.records[key] = liars.any_others, (5, old.encode())
        await liars.settle_around(key, LIMITS.region_nodes_max)
        await asyncio.sleep(60)
        await town.publish(0, town.sign(peer, 6))
        assert town.nodes[0].counters["eclipse_suspected"] == 1
        held = [node._node.storage.held(key) for node in holders]
        assert all(it is not None and it[0] == 6 for it in held)
        found = [await town.resolve(number, peer, fresh=True) for number in range(40, 60)]
        assert 5 in found
        assert 6 in found

    tell(story)


def test_a_flood_from_thousands_of_addresses_leaves_little_and_holds_up_no_search() -> None:
    async def story(town: Town) -> None:
        await town.grow(10)
        peer = town.identity()
        await town.publish(0, town.sign(peer, 5))
        node = town.nodes[5]
        protocol, rng = node._node.protocol, town.rng
        counters = len(node.counters)
        for number in range(10_000):
            method = Method.FIND_VALUE if number % 2 else Method.FIND_NODE
            source = (f"{20 + number % 80}.{number // 80}.0.9", 1024 + number)
            node_id = new_node_id(pack_ip(source[0]), rng.randbytes)
            query = Query(method, "main", node_id, True, rng.randbytes(20))
            protocol.datagram_received(encode_query(rng.randbytes(20), query), source)
        acquaintances, answerer = protocol.acquaintances, protocol.answerer
        assert len(acquaintances.probes) <= LIMITS.probes_max
        assert len(protocol.asker.queries) <= LIMITS.probes_max
        assert len(answerer._unproven) + len(answerer._proven) <= 2 * SOURCES_MAX
        assert len(acquaintances._probes_for) <= SOURCES_MAX
        assert len(protocol.reachability._contacted) <= CONTACTED_MAX
        assert len(node.counters) <= counters + 10
        assert await town.resolve(5, peer, fresh=True) == 5
        assert await town.resolve(8, peer, fresh=True) == 5
        await asyncio.sleep(5)
        assert not acquaintances.probes
        assert not len(protocol.asker.queries)

    tell(story)

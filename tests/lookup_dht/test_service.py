"""DHTLookup in networks of real nodes: what is published is found, and the newest of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp.errors import (
    InvalidConfig,
    LocalProtocolError,
    LookupFailed,
    LookupFailure,
    NodeClosed,
    PublishFailed,
)
from egtp.lookup import LookupService, Published
from egtp.values.comm_record import SignedCommRecord
from egtp.values.identity import Identity, NodeId
from lookup_dht import DHTLimits, DHTLookup
from lookup_dht.resolving.turns import Turns
from lookup_dht.walks.kademlia_crawl import LookupCrawl
from lookup_dht.walks.search import Search
from lookup_dht.walks.walk import Walk
from lookup_dht.wire.datagram import Method, StoreStatus
from tests.lookup_dht.at_hand import Network, Sign, Start


def test_it_is_a_lookup_service() -> None:
    service: LookupService = DHTLookup()
    assert service is not None


async def test_twenty_nodes_find_what_one_of_them_published(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(20)
    record = sign(identity, 5)
    published = await nodes[3].publish(record)
    assert published == Published(stored=19, asked=19)
    for node in (nodes[17], nodes[0], nodes[3]):
        assert await node.resolve(identity.node_id) == record


async def test_one_server_and_one_client_are_a_network(
    start: Start, identity: Identity, sign: Sign
) -> None:
    server = await start()
    client = await start(server, server=False)
    record = sign(identity, 5)
    assert await client.publish(record) == Published(stored=1, asked=1)
    assert client.state.records == ()  # A copy that nobody can ask for is none.
    assert len(server.state.records) == 1
    assert await client.resolve(identity.node_id) == record
    assert await server.resolve(identity.node_id) == record


async def test_a_client_stays_out_of_tables_and_answers_nobody(
    start: Start, open_raw: Callable[..., Awaitable[Any]]
) -> None:
    server = await start()
    client = await start(server, server=False)
    other = await start(server)
    assert (server.contacts, client.contacts, other.contacts) == (1, 1, 1)
    stranger = await open_raw()
    data = stranger.query(Method.PING, server)
    await stranger.reply()
    client._node.protocol.datagram_received(data, stranger.address)
    assert client.counters["query_to_a_client"] == 1
    assert client.counters["query_ping"] == 0


async def test_a_new_address_is_found_through_a_newer_record(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(8)
    await nodes[1].publish(sign(identity, 5, port=4000))
    before = await nodes[2].resolve(identity.node_id)
    moved = sign(identity, 6, port=4001)
    await nodes[1].publish(moved)
    assert await nodes[2].resolve(identity.node_id, newer_than=before.sequence) == moved


async def test_a_node_whose_address_changes_keeps_its_id_and_is_met_at_the_new_one(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(6)
    moving = nodes[2]
    node_id, before = moving.node_id, moving._node.bound
    await moving.rebind("127.0.4.4:0")
    assert moving.node_id == node_id
    assert moving.address.host == "127.0.4.4"
    async with asyncio.timeout(5):
        for node in nodes:
            while node._node.protocol.acquaintances.probes:
                # Each asks the old address, twice, before it believes the new one.
                await asyncio.sleep(0.01)
    addresses = [it.address for it in nodes[4]._node.protocol.router if it.id == node_id]
    assert addresses == [moving._node.bound] != [before]
    record = sign(identity, 5)
    assert (await moving.publish(record)).stored == 5
    assert await nodes[5].resolve(identity.node_id) == record


async def test_a_node_that_moves_serves_again_once_a_stranger_reaches_it_there(
    start: Start,
) -> None:
    node = await start(server=None)
    reachability = node._node.protocol.reachability
    for address in ("127.0.0.2:0", "127.0.0.3:0"):
        assert reachability.heard_from(f"stranger to {address}", 0.0)
        assert node.statistics()["server"]
        await node.rebind(address)
        assert not node.statistics()["server"]


async def test_a_busy_address_is_refused_and_the_node_stays_where_it_is(start: Start) -> None:
    one, two = await start(), await start()
    for attempt in (one.rebind(str(two.address)), start(listen=str(two.address))):
        with pytest.raises(InvalidConfig, match=f"{two.address}.*in use"):
            await attempt
    before = one.address
    with pytest.raises(InvalidConfig, match="IPv4"):
        await one.rebind("[::1]:0")
    assert one.address == before


async def test_a_block_whose_node_cannot_start_is_not_entered(start: Start) -> None:
    one = await start()
    with pytest.raises(InvalidConfig, match="in use"):
        async with DHTLookup(str(one.address), private_addresses=True):
            raise AssertionError


async def test_the_newest_wins_when_a_third_of_the_nodes_hold_an_older_copy(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(20)
    old, new = sign(identity, 5), sign(identity, 6)
    for number, node in enumerate(nodes):
        node._node.storage.put(identity.node_id, (old if number % 10 < 3 else new).encode())
    for node in nodes:  # those among them whose own copy is the old one
        assert await node.resolve(identity.node_id, fresh=True) == new


async def test_who_holds_an_older_record_gets_the_new_one_though_it_is_outside_by_now(
    network: Network, identity: Identity, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = DHTLimits(replication=3, region_nodes_max=9, witnesses=0, hand_over_delay_s=3600)
    nodes = await network(14, limits=limits)

    def sequences() -> list[int]:
        held = [node._node.storage.held(bytes(identity.node_id)) for node in nodes]
        return [it[0] for it in held if it is not None]

    size = nodes[0]._node.walks.size
    monkeypatch.setattr(size, "radius", lambda *_: 2**160)
    first = await nodes[0].publish(sign(identity, 5))
    assert first.stored > limits.replication
    assert set(sequences()) == {5}
    monkeypatch.setattr(size, "radius", lambda *_: 0)
    assert (await nodes[0].publish(sign(identity, 6))).stored >= first.stored
    assert set(sequences()) == {6}


async def test_who_publishes_from_afar_keeps_no_copy_and_replaces_the_one_that_it_has(
    network: Network, identity: Identity, sign: Sign
) -> None:
    limits = DHTLimits(replication=3, region_nodes_max=3, witnesses=0, hand_over_delay_s=3600)
    nodes = await network(12, limits=limits)
    target = int.from_bytes(identity.node_id, "big")
    far = max(nodes, key=lambda node: int.from_bytes(node.node_id, "big") ^ target)
    held = far._node.storage.held
    await far.publish(sign(identity, 5))
    assert held(bytes(identity.node_id)) is None
    far._node.storage.put(identity.node_id, sign(identity, 6).encode())
    await far.publish(sign(identity, 7))
    copy = held(bytes(identity.node_id))
    assert copy is not None
    assert copy[0] == 7


async def test_one_new_copy_outvotes_all_old_ones(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(15)
    old, new = sign(identity, 5), sign(identity, 6)
    for node in nodes:
        node._node.storage.put(identity.node_id, old.encode())
    nodes[9]._node.storage.put(identity.node_id, new.encode())
    assert await nodes[0].resolve(identity.node_id, fresh=True) == new


@pytest.mark.parametrize("was_published", [False, True])
async def test_what_was_resolved_or_published_once_is_not_gone_below(
    start: Start, identity: Identity, sign: Sign, was_published: bool
) -> None:
    server = await start()
    client = await start(server, server=False)
    old, new = sign(identity, 5), sign(identity, 6)
    if was_published:
        await client.publish(new)
    else:
        server._node.storage.put(identity.node_id, new.encode())
        assert await client.resolve(identity.node_id) == new
    del server._node.storage._records[identity.node_id]
    server._node.storage._floor._highest.clear()
    server._node.storage.put(identity.node_id, old.encode())
    assert await client.resolve(identity.node_id) == new  # as found a moment ago
    with pytest.raises(LookupFailed) as failed:
        await client.resolve(identity.node_id, fresh=True)
    assert failed.value.reason is LookupFailure.SUPERSEDED
    assert client.counters["record_below_floor"] == 1


async def test_an_expired_record_is_never_returned(
    start: Start, identity: Identity, sign: Sign
) -> None:
    """Not even if the node that holds it has a clock that is late. And it is said that this is
    why, since it may be the own clock that is wrong."""
    late = await start(unix_time=lambda: 1000.0)
    client = await start(late)
    late._node.storage.put(identity.node_id, sign(identity, 5, expiry=2000).encode())
    for count in (1, 2):
        with pytest.raises(LookupFailed, match="expired, by the clock of this machine") as failed:
            await client.resolve(identity.node_id)
        assert failed.value.reason is LookupFailure.NOT_FOUND
        assert client.counters["record_expired"] == count
    with pytest.raises(PublishFailed, match="expired"):
        await client.publish(sign(identity, 5, expiry=2000))


async def test_a_lookup_that_takes_longer_than_its_record_lives_finds_nothing(
    start: Start, identity: Identity, sign: Sign
) -> None:
    """As when the machine sleeps for hours in the middle of it."""
    unix_s, found = time.time(), sign(identity, 5)
    client = await start(await start(), unix_time=lambda: unix_s)

    async def slowly(search: Search, known: int = 0) -> None:
        nonlocal unix_s
        search.findings.add(found)
        unix_s = found.expiry_unix_s
        search.over = True
        search.tell()

    client._node.walks.search = slowly  # type: ignore[method-assign]
    with pytest.raises(LookupFailed):
        await client.resolve(identity.node_id)


async def test_an_expired_record_hides_none_that_has_not_expired(
    start: Start, identity: Identity, sign: Sign
) -> None:
    late = await start(unix_time=lambda: 1000.0)
    other = await start(late)
    client = await start(late)
    late._node.storage.put(identity.node_id, sign(identity, 6, expiry=2000).encode())
    valid = sign(identity, 5)
    other._node.storage.put(identity.node_id, valid.encode())
    assert await client.resolve(identity.node_id, fresh=True) == valid
    assert client.counters["record_expired"] == 1


async def test_of_many_peers_that_are_looked_up_at_once_a_few_are_asked_for_at_a_time(
    start: Start,
) -> None:
    """Else a node would lose the replies in its own socket, and say that nobody answered."""
    server = await start()
    client = await start(server, server=False, limits=DHTLimits(searches_at_once=3))
    lookups = [
        asyncio.ensure_future(client.resolve(NodeId(number.to_bytes(20, "big"))))
        for number in range(20)
    ]
    under_way = 0
    for one in asyncio.as_completed(lookups):
        with pytest.raises(LookupFailed) as failed:
            await one
        assert failed.value.reason is LookupFailure.NOT_FOUND
        under_way = max(under_way, client.statistics()["open_queries"])
    assert 0 < under_way <= 3
    assert client.counters["sent_find_value"] == 20


async def test_of_many_records_that_are_published_at_once_a_few_are_stored_at_a_time(
    start: Start, sign: Sign
) -> None:
    server = await start()
    client = await start(server, server=False, limits=DHTLimits(searches_at_once=3))
    owners = [Identity.generate(random.Random(number).randbytes) for number in range(20)]
    under_way = 0
    publishing = [asyncio.ensure_future(client.publish(sign(owner, 5))) for owner in owners]
    for one in asyncio.as_completed(publishing):
        assert await one == Published(stored=1, asked=1)
        under_way = max(under_way, client.statistics()["open_queries"])
    assert 0 < under_way <= 3


async def test_of_many_walks_at_once_the_first_begin_at_once_and_the_rest_at_their_pace() -> None:
    loop = asyncio.get_running_loop()
    turns, begun = Turns(DHTLimits(searches_at_once=100, searches_per_s=10), loop.time), []
    began_s = loop.time()

    async def walk() -> None:
        async with turns.turn():
            begun.append(round(loop.time() - began_s, 3))

    await asyncio.gather(*(walk() for _ in range(24)))
    assert begun == [0.0] * 21 + [0.1, 0.2, 0.3]


async def test_nothing_is_logged_of_what_goes_well(
    network: Network, identity: Identity, sign: Sign, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that logs at INFO is to see its own lines."""
    nodes = await network(5)
    caplog.set_level(logging.INFO)
    await nodes[3].publish(sign(identity, 5))
    await nodes[4].resolve(identity.node_id)
    with pytest.raises(LookupFailed):
        await nodes[4].resolve(NodeId(bytes(20)))
    assert caplog.messages == []


async def test_each_way_to_find_nothing_has_its_reason(
    start: Start, identity: Identity, sign: Sign, open_raw: Callable[..., Awaitable[Any]]
) -> None:
    async def reason(node: DHTLookup, newer_than: int = 0) -> LookupFailure:
        with pytest.raises(LookupFailed) as failed:
            await node.resolve(identity.node_id, newer_than=newer_than)
        return failed.value.reason

    alone = await start()
    assert await reason(alone) is LookupFailure.NO_NODES
    seed = await start()
    node = await start(seed)
    assert await reason(node) is LookupFailure.NOT_FOUND
    await node.publish(sign(identity, 5))
    assert await reason(node, newer_than=5) is LookupFailure.SUPERSEDED

    liar = await open_raw()
    liar.answer = lambda data: liar.as_server(data, record=bytes(100))
    victim = await start(f"{liar.address[0]}:{liar.address[1]}")
    assert await reason(victim) is LookupFailure.INVALID
    liar.answer = None
    assert await reason(victim) is LookupFailure.NO_RESPONSES


async def test_a_contact_is_silent_even_while_the_system_refuses_what_goes_elsewhere(
    start: Start,
    identity: Identity,
    open_raw: Callable[..., Awaitable[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any contact can have this node ping an address, such as that of a broadcast, which the system
    refuses."""
    silent = await open_raw()
    silent.answer = silent.as_server
    node = await start(f"{silent.address[0]}:{silent.address[1]}")
    silent.answer = None
    protocol = node._node.protocol
    asker, sendto = protocol.asker, protocol.transport.sendto
    elsewhere = ("127.0.9.255", 9000)

    def refuse(data: bytes, address: tuple[str, int]) -> bool:
        return address != elsewhere and sendto(data, address)

    monkeypatch.setattr(protocol.transport, "sendto", refuse)

    async def ask_elsewhere() -> None:
        while True:
            asker.ask(elsewhere, asker.query(Method.PING), lambda _: None, None, 1)
            await asyncio.sleep(0.01)

    asking = asyncio.ensure_future(ask_elsewhere())
    for contacts in (1, 0):
        with pytest.raises(LookupFailed) as failed:
            await node.resolve(identity.node_id)
        assert failed.value.reason is LookupFailure.NO_RESPONSES
        assert node.contacts == contacts
    asking.cancel()


async def test_publishing_to_nobody_or_below_what_is_stored_fails(
    start: Start, identity: Identity, sign: Sign
) -> None:
    alone = await start(server=False)
    with pytest.raises(PublishFailed, match="no node"):
        await alone.publish(sign(identity, 5))
    other = await start(await start())
    await other.publish(sign(identity, 6))
    with pytest.raises(PublishFailed, match="newer"):
        await other.publish(sign(identity, 5))
    far = sign(identity, int(time.time()) + 2 * 24 * 3600)
    with pytest.raises(PublishFailed, match="1 of 1 nodes refused the record: by their clocks it"):
        await other.publish(far)


async def test_a_walk_that_is_over_does_not_wait_for_the_garbage_collector(
    network: Network, identity: Identity, sign: Sign
) -> None:
    """It has met hundreds of nodes; with thousands of walks that is most of the memory."""
    nodes = await network(5)
    gc.collect()
    gc.disable()
    try:
        await nodes[0].publish(sign(identity, 5))
        await nodes[1].resolve(identity.node_id, fresh=True)
        with pytest.raises(LookupFailed):
            await nodes[1].resolve(NodeId(bytes(20)))
        left = [one for one in gc.get_objects() if isinstance(one, LookupCrawl | Walk)]
    finally:
        gc.enable()
    assert left == []


async def test_who_found_out_a_moment_ago_that_nobody_has_a_record_publishes_without_a_walk(
    network: Network, identity: Identity, sign: Sign
) -> None:
    """As a node does when it starts."""
    nodes = await network(20)
    with pytest.raises(LookupFailed):
        await nodes[3].resolve(identity.node_id)
    before = nodes[3].counters["sent_find_value"]
    assert await nodes[3].publish(sign(identity, 5)) == Published(stored=19, asked=19)
    assert nodes[3].counters["sent_find_value"] == before
    await nodes[3].publish(sign(identity, 6))  # What was known counts once.
    assert nodes[3].counters["sent_find_value"] == before + 19


@pytest.mark.parametrize(
    "why", ["somebody has one", "we gave it one", "of another peer", "too long ago"]
)
async def test_what_another_search_found_does_not_spare_who_publishes_the_walk(
    network: Network, identity: Identity, sign: Sign, why: str
) -> None:
    now = [0.0]
    nodes = await network(20, elapsed=lambda: now[0])
    if why == "somebody has one":
        await nodes[0].publish(sign(identity, 5))
    sought = NodeId(bytes(20)) if why == "of another peer" else identity.node_id
    with contextlib.suppress(LookupFailed):
        if why == "we gave it one":
            await nodes[3].publish(sign(identity, 5))
        else:
            await nodes[3].resolve(sought, fresh=True)
    now[0] += nodes[3]._settings.limits.absent_cache_s if why == "too long ago" else 0.0
    before = nodes[3].counters["sent_find_value"]
    await nodes[3].publish(sign(identity, 6))
    assert nodes[3].counters["sent_find_value"] == before + 19


async def test_resolves_of_one_peer_at_a_time_share_one_walk(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(5)
    await nodes[0].publish(sign(identity, 5))
    before = nodes[1].counters["sent_find_value"]
    calls = [asyncio.create_task(nodes[1].resolve(identity.node_id)) for _ in range(10)]
    await asyncio.sleep(0)
    calls[0].cancel()  # The others do not notice.
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(it, SignedCommRecord) for it in results[1:])
    assert nodes[1].counters["sent_find_value"] - before == 4


async def test_a_resolve_after_a_cancelled_one_is_a_new_one(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(3)
    record = sign(identity, 5)
    await nodes[0].publish(record)
    first = asyncio.create_task(nodes[1].resolve(identity.node_id))
    await asyncio.sleep(0)
    first.cancel()
    assert await nodes[1].resolve(identity.node_id) == record
    assert first.cancelled()


async def test_an_idle_network_stores_nothing(
    network: Network, identity: Identity, sign: Sign
) -> None:
    """Upstream: upstream's nodes handed records to and fro for ever."""
    now = [1000.0]
    nodes = await network(14, elapsed=lambda: now[0])
    await nodes[0].publish(sign(identity, 5))
    stores = sum(node.counters["query_store"] for node in nodes)
    for _ in range(4):
        now[0] += 4000  # each bucket is lonely, each contact silent, each record left alone
        for node in nodes:
            await node._node._refresh_table()
    await nodes[0]._node.bootstrap()
    assert sum(node.counters["bucket_refreshed"] for node in nodes) >= 30
    assert sum(node.counters["query_store"] for node in nodes) == stores == 13


async def test_dead_nodes_cost_a_lookup_little(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(15)
    await nodes[0].publish(sign(identity, 5))
    for node in nodes[1:6]:
        await node.close()
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    assert (await nodes[14].resolve(identity.node_id, fresh=True)).sequence == 5
    assert loop.time() - asked_at < 4  # Upstream: five seconds for each round with a dead one.
    assert (await nodes[14].publish(sign(identity, 6))).stored >= 9


async def test_a_node_that_is_not_running_says_so() -> None:
    node = DHTLookup()
    with pytest.raises(NodeClosed, match="start"):
        await node.resolve(NodeId(bytes(20)))
    with pytest.raises(NodeClosed, match="start"):
        await anext(node.resolve_stream(NodeId(bytes(20))))
    await node.start()
    with pytest.raises(LocalProtocolError):
        await node.start()
    await node.close()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("nonsense",), {}, "IP:PORT"),
        (("127.0.0.1:0", ["localhost"]), {}, "HOST:PORT, such as .*, not 'localhost'"),
        (("127.0.0.1:0", ["127.0.0.1:9100"]), {}, "private"),
        (("127.0.0.1:0", ["10.1.1.1:9100"]), {}, "private"),
        (("0.0.0.0:0", ["8.8.8.8:0"]), {}, "needs a port from 1 to 65535"),
        (("[::]:0", ["8.8.8.8:9100"]), {}, "IPv6"),
        (
            ("127.0.0.1:9100", ["8.8.8.8:9100"]),
            {},
            "listens on 127.0.0.1:9100 cannot reach 8.8.8.8:9100; listen on 0.0.0.0:9100",
        ),
        (
            ("127.0.0.1:0", ["224.0.0.1:1"]),
            {"private_addresses": True},
            "cannot be the address of a node",
        ),
        ((), {"network": "No Such"}, "network"),
        ((), {"network": ""}, "network"),
        ((), {"bootstrap": None}, "bootstrap must be a list of HOST:PORT, not None"),
        (
            (),
            {"state": "dht"},
            "state must be the DHTLookup.state of an earlier run, not 'dht'; store=",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_with_what_to_do(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        DHTLookup(*arguments, **options)


async def test_a_seed_may_have_the_name_that_a_container_has(start: Start) -> None:
    """``acme_dht_1`` is no name on the internet, but one in most networks of containers."""
    seed, asked = await start(), list[str]()

    async def resolve(name: str, port: int) -> list[tuple[str, int]]:
        asked.append(name)
        return [("127.0.0.1", port)]

    node = await start(f"acme_dht_1:{seed.address.port}", resolve_name=resolve)
    assert (asked, node.contacts) == (["acme_dht_1"], 1)


async def test_upstreams_names_work_with_raw_keys(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(3)
    record, key = sign(identity, 5), bytes(identity.node_id)
    assert await nodes[0]._node.set(key, record.encode())
    assert await nodes[1]._node.get(key) == record.encode()
    assert await nodes[1]._node.get(bytes(20)) is None
    assert not await nodes[1]._node.set(bytes(20), record.encode())
    protocol, asked = nodes[0]._node.protocol, nodes[1]._node.bound
    older = sign(identity, 4).encode()
    _, reply = await protocol.store(asked, nodes[0].node_id, key, older)
    assert reply is not None
    assert reply.status is StoreStatus.TOKEN
    _, reply = await protocol.store(asked, nodes[0].node_id, key, older, reply.token)
    assert reply is not None
    assert reply.status is StoreStatus.NEWER_HELD

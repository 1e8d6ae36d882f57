"""Only nodes that strangers can reach are listed: the others find that out, and are clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_dht import DHTLimits, DHTLookup
from lookup_dht.protocol.reachability import CONTACTED_MAX, Reachability
from lookup_dht.wire.datagram import BYTES_IN_MAX, Method, Query, decode_query, encode_query
from simulations.virtual import Host, Nat, NatKind, Network, run_in
from tests.lookup_dht.at_hand import Start

LIMITS = DHTLimits()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["query", "sent", "asked"]), st.integers(0, 3), st.floats(0, 900)
        ),
        max_size=60,
    )
)
def test_what_is_proven_is_doubted_in_time_and_void_only_if_nobody_proves_it_again(
    events: list[tuple[str, int, float]],
) -> None:
    reachability = Reachability(None, LIMITS)
    sent_at: dict[int, float] = {}
    now = proven_at = 0.0
    missed = 0
    for kind, host, passed_s in events:
        now += passed_s
        before = reachability.proven
        reachability.time_passed(now)
        assert reachability.proven == before  # Time alone says nothing.
        stranger = host not in sent_at or now - sent_at[host] >= LIMITS.stranger_after_s
        assert reachability.is_stranger(host, now) == stranger
        if kind == "query":
            assert reachability.heard_from(host, now) == (stranger and not before)
            assert reachability.proven == (stranger or before)
            if stranger:
                proven_at, missed = now, 0
                assert not reachability.open
            if reachability.proven:
                sent_at[host] = now
        elif kind == "sent":
            reachability.sent_to(host, now)
            sent_at[host] = now
        elif reachability.open:
            missed += host
            void = reachability.requested(float(host))
            assert void == (before and missed > LIMITS.proofs_missed_max)
            assert reachability.proven == (before and not void)
        if reachability.proven and now - proven_at < LIMITS.proof_holds_s:
            assert not reachability.open


def test_a_proof_that_nobody_repeats_is_void_when_requests_should_have_brought_it_ten_times() -> (
    None
):
    reachability = Reachability(None, LIMITS)
    assert reachability.heard_from("stranger", 100.0)
    opened = []
    for now in (99.0, 100.0):
        reachability.time_passed(now + LIMITS.proof_holds_s)
        opened.append(reachability.open)
    assert opened == [False, True]
    for _ in range(1000):
        assert not reachability.requested(strangers=0.0)  # Nobody could have proved it.
    for _ in range(int(2 * LIMITS.proofs_missed_max)):
        assert not reachability.requested(strangers=0.5)
        assert reachability.proven
    assert reachability.requested(strangers=0.5)
    assert (reachability.proven, reachability.open) == (False, True)


def test_who_moves_has_proven_nothing() -> None:
    reachability = Reachability(None, LIMITS)
    assert reachability.heard_from("stranger", 0.0)
    reachability.moved()
    assert (reachability.proven, reachability.open) == (False, True)
    assert not reachability.heard_from("stranger", 1.0)  # It was answered a moment ago.
    assert reachability.heard_from("another", 1.0)


def test_who_is_said_to_be_no_server_is_none() -> None:
    reachability = Reachability(False, LIMITS)
    assert not reachability.open
    reachability.sent_to("host", 0.0)
    assert not reachability.heard_from("other", 0.0)
    reachability.moved()
    reachability.time_passed(1e9)
    assert not reachability.requested(strangers=0.5)
    assert not reachability.open
    assert not reachability.proven


def test_a_promise_holds_until_strangers_could_have_proven_it_and_none_did() -> None:
    reachability = Reachability(True, LIMITS)
    assert (reachability.proven, reachability.open) == (True, False)
    reachability.time_passed(1e9)
    assert (reachability.proven, reachability.open) == (True, True)
    for _ in range(1000):
        assert not reachability.requested(strangers=0.0)
    reachability.moved()
    assert (reachability.proven, reachability.open) == (True, False)
    reachability.time_passed(1e9)
    for _ in range(int(2 * LIMITS.proofs_missed_max)):
        assert not reachability.requested(strangers=0.5)
        assert reachability.proven
    assert reachability.requested(strangers=0.5)
    assert (reachability.proven, reachability.open) == (False, True)
    assert reachability.heard_from("stranger", 0.0)
    assert (reachability.proven, reachability.open) == (True, False)


def test_the_hosts_remembered_are_bounded() -> None:
    reachability = Reachability(None, LIMITS)
    for host in range(CONTACTED_MAX + 1):
        reachability.sent_to(host, 0.0)
    assert not reachability.heard_from(CONTACTED_MAX, 1.0)
    assert reachability.heard_from(0, 1.0)


def test_the_datagrams_for_it_come_back_as_they_were() -> None:
    ping = Query(Method.PING, "main", bytes(20), False, prove=True)
    assert decode_query(encode_query(bytes(20), ping)) == ping
    for address in (bytes(6), bytes(18)):
        reach = Query(Method.REACH, "main", bytes(20), True, address=address)
        data = encode_query(bytes(20), reach)
        assert decode_query(data) == reach
        assert len(data) < BYTES_IN_MAX


async def test_nobody_pings_for_a_stranger_or_whoever_it_may_not_be(
    start: Start, open_raw: Callable[..., Awaitable[Any]]
) -> None:
    node, stranger, victim = await start(), await open_raw(), await open_raw("127.0.9.7")
    packed = victim.contact.compact[20:]
    stranger.query(Method.REACH, node, address=packed)
    await stranger.ask(Method.PING, node)
    assert node.counters["reach_refused"] == 1
    stranger.answer = stranger.as_server
    assert await node._node.bootstrap_node(stranger.address) is not None  # a contact now
    for address in (bytes(6), b"\x7f\0\0\1\0\0", bytes(18)):
        stranger.query(Method.REACH, node, address=address)
    await stranger.ask(Method.PING, node)
    assert node.counters["reach_refused"] == 4
    for _ in range(10):
        stranger.query(Method.REACH, node, address=packed)
    await stranger.ask(Method.PING, node)
    assert node.counters["probe_over_rate"] >= 5  # one a second, and a few at once
    async with asyncio.timeout(5):
        data, _ = await victim.received.get()
    assert decode_query(data).method is Method.PING


@pytest.mark.parametrize("server", [True, False])
async def test_who_asks_for_proof_gets_it_whether_it_serves_already_or_not(
    start: Start, open_raw: Callable[..., Awaitable[Any]], server: bool
) -> None:
    node, helper, asker = await start(), await open_raw(), await open_raw("127.0.9.7")
    helper.answer = helper.as_server
    assert await node._node.bootstrap_node(helper.address) is not None
    helper.answer = None
    await asker.ask(Method.PING, node, server=server, prove=True)
    async with asyncio.timeout(5):
        data, _ = await helper.received.get()
    query = decode_query(data)
    assert (query.method, query.address) == (Method.REACH, asker.contact.compact[20:])


async def test_a_contact_that_says_it_is_a_client_is_asked_itself_and_a_forger_drops_nobody(
    start: Start, open_raw: Callable[..., Awaitable[Any]]
) -> None:
    node, server = await start(), await open_raw()
    server.answer = server.as_server
    assert await node._node.bootstrap_node(server.address) is not None
    protocol = node._node.protocol
    # As a forger would: from that address and with that id, but not a server.
    await server.ask(Method.PING, node)
    async with asyncio.timeout(5):
        while protocol.acquaintances.probes:
            await asyncio.sleep(0.01)
    assert protocol.router.has_address(server.address)
    assert node.counters["sent_ping"] == 2
    server.answer = lambda data: server.as_server(data, server=False)
    await server.ask(Method.PING, node)
    async with asyncio.timeout(5):
        while protocol.acquaintances.probes:
            await asyncio.sleep(0.01)
    assert not protocol.router.has_address(server.address)


def node_on(host: Host, address: str, **options: Any) -> DHTLookup:
    return DHTLookup(
        f"{address}:9000", ["11.0.0.1:9000", "11.0.1.1:9000"], unix_time=host.unix_time,
        elapsed=host.elapsed, entropy=host.entropy, **options,
    )  # fmt: skip


async def servers_in(network: Network, count: int) -> list[DHTLookup]:
    servers = []
    for number in range(count):
        address = f"11.0.{number}.1"
        host = network.host(f"server-{number}", address)
        servers.append(node_on(host, address))
        await host.run(servers[-1].start())
    return servers


def listed_by(servers: list[DHTLookup], ip: str) -> int:
    """How many have a contact at that address, and would tell others of it."""
    return sum(
        any(
            entry.contact.ip == ip and not entry.strikes
            for bucket in it._node.protocol.router.buckets.values()
            for entry in bucket.entries.values()
        )
        for it in servers
    )


def test_who_can_be_reached_serves_soon_and_who_is_behind_a_router_never() -> None:
    async def story(network: Network) -> None:
        servers = await servers_in(network, 8)
        home = network.gateway("router", Nat(NatKind.PORT_RESTRICTED, "11.1.0.1"))
        hidden_host = network.host("hidden", "192.168.0.2", behind=home)
        hidden = node_on(hidden_host, "192.168.0.2", server=None)
        open_host = network.host("open", "11.2.0.1")
        opened = node_on(open_host, "11.2.0.1", server=None)
        await hidden_host.run(hidden.start())
        await open_host.run(opened.start())
        await asyncio.sleep(300)
        told = (opened.statistics()["server"], hidden.statistics()["server"])
        assert told == (True, False)
        assert listed_by(servers, "11.2.0.1") > 4
        assert listed_by(servers, "11.1.0.1") == 0
        assert hidden.contacts > 4

    network = Network(1)
    run_in(network, story(network), limit_s=1000)


@pytest.mark.parametrize("count", [2, 3])
def test_a_network_grows_beyond_the_servers_that_everybody_knows(count: int) -> None:
    async def story(network: Network) -> None:
        servers = await servers_in(network, count)
        seeds = [str(server.address) for server in servers]
        home = network.gateway("router", Nat(NatKind.PORT_RESTRICTED, "11.1.0.1"))
        hosts = [network.host(f"open-{n}", f"11.{2 + n}.0.1") for n in range(6)]
        hosts += [network.host(f"hidden-{n}", f"192.168.0.{2 + n}", behind=home) for n in range(3)]
        nodes = [
            DHTLookup(
                f"{host.addresses[0]}:9000", seeds, server=None, unix_time=host.unix_time,
                elapsed=host.elapsed, entropy=host.entropy,
            ) for host in hosts
        ]  # fmt: skip
        for host, node in zip(hosts, nodes, strict=True):
            await host.run(node.start())
        await asyncio.sleep(3600)
        assert [node.statistics()["server"] for node in nodes] == [True] * 6 + [False] * 3
        assert listed_by(servers, "11.2.0.1") == count
        await asyncio.sleep(11 * 3600)
        assert [node.statistics()["server"] for node in nodes] == [True] * 6 + [False] * 3

    network = Network(1)
    run_in(network, story(network), limit_s=50_000)


@pytest.mark.parametrize("count", [8, 30])
def test_a_server_behind_a_new_firewall_is_a_client_within_the_hour_and_serves_again_without_it(
    count: int,
) -> None:
    async def story(network: Network) -> None:
        servers = await servers_in(network, count)
        host = network.host("laptop", "11.2.0.1")
        laptop = node_on(host, "11.2.0.1", server=None)
        await host.run(laptop.start())
        await asyncio.sleep(6 * 3600)
        assert laptop.statistics()["server"]
        assert laptop.counters["not_reachable_any_more"] == 0
        assert listed_by(servers, "11.2.0.1") > 4
        firewall = host.block_inbound()
        await asyncio.sleep(3600)
        assert not laptop.statistics()["server"]
        assert laptop.counters["not_reachable_any_more"] == 1
        await asyncio.sleep(1800)
        assert listed_by(servers, "11.2.0.1") == 0
        assert laptop.contacts > 4
        firewall.heal()
        await asyncio.sleep(1200)
        assert laptop.statistics()["server"]
        assert listed_by(servers, "11.2.0.1") > 4

    network = Network(1)
    run_in(network, story(network), limit_s=40_000)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_first_nodes_of_a_network_serve_on_the_promise_of_their_users(count: int) -> None:
    async def story(network: Network) -> None:
        servers = await servers_in(network, count)
        await asyncio.sleep(12 * 3600)
        for server in servers:
            assert server.statistics()["server"]
            assert server.contacts == count - 1
            assert server.counters["not_reachable_any_more"] == 0

    network = Network(1)
    run_in(network, story(network), limit_s=50_000)


def test_whose_promise_strangers_find_empty_is_a_client(caplog: pytest.LogCaptureFixture) -> None:
    async def story(network: Network) -> None:
        servers = await servers_in(network, 8)
        home = network.gateway("router", Nat(NatKind.PORT_RESTRICTED, "11.1.0.1"))
        host = network.host("hidden", "192.168.0.2", behind=home)
        hidden = node_on(host, "192.168.0.2", server=True)
        await host.run(hidden.start())
        assert hidden.statistics()["server"]
        await asyncio.sleep(3600)
        assert not hidden.statistics()["server"]
        assert hidden.counters["not_reachable_any_more"] == 1
        await asyncio.sleep(1800)
        assert listed_by(servers, "11.1.0.1") == 0
        assert hidden.contacts > 4
        assert all(it.statistics()["server"] for it in servers)

    network = Network(1)
    run_in(network, story(network), limit_s=10_000)
    assert [record.message for record in caplog.records] == [
        "no stranger can reach the UDP port of this node; it serves nobody until one can"
    ]

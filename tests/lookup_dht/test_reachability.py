"""Only nodes that strangers can reach are listed: the others find that out, and are clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_dht import DHTLookup
from lookup_dht.datagram import BYTES_IN_MAX, Method, Query, decode_query, encode_query
from lookup_dht.reachability import CONTACTED_MAX, Reachability
from simulations.virtual import Host, Nat, NatKind, Network, run_in

Start = Callable[..., Awaitable[DHTLookup]]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30))
def test_only_a_query_from_somebody_never_sent_to_is_a_proof(
    events: list[tuple[bool, int]],
) -> None:
    reachability, sent_to = Reachability(None), set()
    for is_query, host in events:
        if is_query:
            was_open = reachability.open
            assert reachability.heard_from(host) == (was_open and host not in sent_to)
        else:
            reachability.sent_to(host)
            sent_to.add(host)
        if reachability.proven:
            assert not reachability.open
            reachability.moved()
            sent_to.clear()
            assert reachability.open


@pytest.mark.parametrize("server", [True, False])
def test_what_the_user_says_needs_no_proof(server: bool) -> None:
    reachability = Reachability(server)
    assert not reachability.open
    reachability.sent_to("host")
    assert not reachability.heard_from("other")
    reachability.moved()
    assert reachability.proven is server


def test_the_hosts_remembered_are_bounded() -> None:
    reachability = Reachability(None)
    for host in range(CONTACTED_MAX + 1):
        reachability.sent_to(host)
    assert not reachability.heard_from(CONTACTED_MAX)
    assert reachability.heard_from(0)


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


def test_who_can_be_reached_serves_soon_and_who_is_behind_a_router_never() -> None:
    def node(host: Host, address: str, **options: Any) -> DHTLookup:
        return DHTLookup(
            f"{address}:9000", ["11.0.0.1:9000", "11.0.1.1:9000"], unix_time=host.unix_time,
            elapsed=host.elapsed, entropy=host.entropy, **options,
        )  # fmt: skip

    async def story(network: Network) -> None:
        servers = []
        for number in range(8):
            address = f"11.0.{number}.1"
            host = network.host(f"server-{number}", address)
            servers.append(node(host, address))
            await host.run(servers[-1].start())
        home = network.gateway("router", Nat(NatKind.PORT_RESTRICTED, "11.1.0.1"))
        hidden_host = network.host("hidden", "192.168.0.2", behind=home)
        hidden = node(hidden_host, "192.168.0.2", server=None)
        open_host = network.host("open", "11.2.0.1")
        opened = node(open_host, "11.2.0.1", server=None)
        await hidden_host.run(hidden.start())
        await open_host.run(opened.start())
        await asyncio.sleep(300)
        told = (opened.statistics()["server"], hidden.statistics()["server"])
        assert told == (True, False)
        listed = [
            sum(any(contact.ip == ip for contact in it._node.protocol.router) for it in servers)
            for ip in ("11.2.0.1", "11.1.0.1")
        ]
        assert listed[0] > 4
        assert listed[1] == 0
        assert hidden.contacts > 4

    network = Network(1)
    run_in(network, story(network), limit_s=1000)

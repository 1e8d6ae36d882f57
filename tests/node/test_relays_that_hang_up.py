"""Relays that end the connections of their clients, or seem to move all the time: soon taken back,
and never followed in a loop. In virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import Identity, Incoming, Introduction, Node
from egtp.reaching.dialling import INITIATION_AGAIN_S
from egtp.relay.leases import RelayLimits
from egtp.relay.listener import HELD_S, RETRY_MAX_S
from egtp.relay.wire import LEASE_KIND, encode_lease
from egtp.values.comm_strat import Address, TCPStrat
from tests.lab import Lab, in_lab
from tests.node.at_hand import engine_of


async def relay_that_hangs_up(lab: Lab, after_s: float) -> tuple[Node, list[float]]:
    """It grants each lease; and when it did."""
    relay = await lab.node()
    engine = engine_of(relay)
    granted: list[float] = []

    async def lease(query: Incoming) -> bytes:
        granted.append(lab.now_s)
        path = engine.book.find(query.peer_id).direct
        engine.loop.call_later(after_s, lambda: engine.routes.lose(path, "bye", at_once=True))
        return encode_lease(600)

    engine.handlers.add(LEASE_KIND, lease, reserved=True)
    return relay, granted


def client_of(*relays: Node) -> StaticDiscovery:
    return StaticDiscovery(Introduction(relay.node_id, relay.record) for relay in relays)


@pytest.mark.parametrize("after_s", [0.0001, 0.1, 2.0])
def test_a_relay_that_grants_a_lease_and_hangs_up_is_left_alone_for_longer_each_time(
    after_s: float,
) -> None:
    async def story(lab: Lab) -> None:
        relay, granted = await relay_that_hangs_up(lab, after_s)
        node = await lab.node(listens=False, discovery=client_of(relay))
        await asyncio.sleep(240)
        pauses = [later - sooner for sooner, later in pairwise(granted)]
        expected = [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
        assert 8 <= len(pauses) <= len(expected)
        for pause_s, expected_s in zip(pauses, expected, strict=False):
            assert expected_s / 2 <= pause_s < expected_s + after_s + 0.5
        assert node.counters["relay lease failed: hung up at once"] == len(granted) - 1

    in_lab(Lab, story)


def test_who_loses_its_connections_just_after_its_start_is_back_at_its_relay_at_once() -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        node = await lab.hidden(relay)
        engine = engine_of(node)

        async def cut() -> None:
            engine.comms.drop_all("moved")

        await lab.hosts[node].run(cut())
        await asyncio.sleep(0.2)
        assert node.relays == (relay.node_id,)
        assert not node.counters["relay lease failed: hung up at once"]

    in_lab(Lab, story)


def test_a_relay_that_hangs_up_later_is_dialled_no_more_often_than_that() -> None:
    async def story(lab: Lab) -> None:
        relay, granted = await relay_that_hangs_up(lab, HELD_S + 0.1)
        await lab.node(listens=False, discovery=client_of(relay))
        await asyncio.sleep(60)
        assert len(granted) in (11, 12)

    in_lab(Lab, story)


def test_another_relay_takes_the_place_of_one_that_hangs_up() -> None:
    async def story(lab: Lab) -> None:
        bad, _ = await relay_that_hangs_up(lab, 0.1)
        good = [await lab.node(relay_server=True) for _ in range(2)]
        node = await lab.node(listens=False, discovery=client_of(bad, *good))
        await asyncio.sleep(RETRY_MAX_S)
        assert set(node.relays) == {one.node_id for one in good}

    in_lab(Lab, story)


@pytest.mark.parametrize("held_s", [1.0, 60.0])
def test_an_honest_relay_that_is_restarted_is_soon_taken_back(held_s: float) -> None:
    async def story(lab: Lab) -> None:
        host = lab.host()
        identity = Identity.generate(host.entropy)
        relay = await lab.node(identity=identity, on=host, relay_server=True)
        node = await lab.hidden(relay)
        await asyncio.sleep(held_s)
        await lab.close(relay)
        lab.hosts.pop(relay)
        relay = await lab.node(identity=identity, on=host, relay_server=True)
        started_s = lab.now_s
        await asyncio.sleep(0.5)
        while not node.relays:
            await asyncio.sleep(0.05)
            assert lab.now_s - started_s < 2.0
        asker = await lab.asker(node)
        assert await lab.query(asker, node.node_id) == b"x"

    in_lab(Lab, story)


def test_a_relay_that_is_elsewhere_each_second_has_its_clients_sign_few_records() -> None:
    """Each record is pushed to all who are connected, and published; and the sequences would run
    ahead of the clock, until no DHT node takes them."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=RelayLimits(lease_s_max=1))
        node = await lab.hidden(relay)
        publisher = engine_of(relay).publisher
        (own,) = relay.record.tcp
        signed = {node.record.sequence}
        for second in range(120):
            port = 5000 + second
            elsewhere = TCPStrat(Address(own.address.ip, port))

            async def move(to: TCPStrat = elsewhere) -> None:
                publisher._own.change((to,))
                publisher._push(publisher._own.current)

            await lab.hosts[relay].run(move())
            await asyncio.sleep(1)
            signed.add(node.record.sequence)
        assert 12 <= len(signed) <= 24
        await asyncio.sleep(12)
        (way,) = node.record.relays
        assert way.hints == (Address(own.address.ip, port),), "what it said last is published"

    in_lab(Lab, story)


def test_who_comes_back_to_its_relay_is_given_the_dial_that_was_held_for_it() -> None:
    """Sooner than that is repeated."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        client = await lab.hidden(relay)
        asker = await lab.asker(relay, client)
        await lab.query(asker, relay.node_id)
        engine = engine_of(client)

        async def cut() -> None:
            engine.comms.drop_all("moved")

        with lab.hosts[relay].block_inbound("refuse"):
            await lab.hosts[client].run(cut())
            await asyncio.sleep(0.2)
            began_s = lab.now_s
            query = asyncio.ensure_future(lab.query(asker, client.node_id))
            await asyncio.sleep(0.2)
            server: Any = relay.relay_server
            assert server.counters["held packets"] == 1
        assert await query == b"x"
        assert lab.now_s - began_s < INITIATION_AGAIN_S

    in_lab(Lab, story)

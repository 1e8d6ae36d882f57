"""Peers that nobody can connect to, reached through relays. The relays' counters tell whether the
bytes really crossed them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import (
    CommRecord,
    FastFail,
    Identity,
    Incoming,
    Introduction,
    MemoryLookup,
    Node,
    PublishFailed,
    RelayLimits,
    RelayStrat,
    SignedCommRecord,
)
from egtp.channel.packet import Initiation
from egtp.queries.outgoing import Outgoing
from egtp.relay.wire import DELIVERY_KIND, RELAY_KIND, Delivery, Relay, encode_lease
from egtp.values.identity import NodeId
from egtp.values.message import Send
from tests.node.at_hand import Config, Eventually, Start, echo, engine_of, greets

Hidden = Callable[..., Awaitable[Node]]

MIB = 1024 * 1024
TOO_MANY = "dropped: too many handshakes through relays"


def relayed_bytes(relay: Node) -> int:
    assert relay.relay_server is not None
    return relay.relay_server.counters["relayed bytes"]


def path_to(node: Node, peer: Node) -> Any:
    found = engine_of(node).book.find(peer.node_id)
    return None if found is None else found.relayed


def introductions(relays: Sequence[Node]) -> list[Introduction]:
    return [Introduction(relay.node_id, relay.record) for relay in relays]


def answer(node: Node) -> Node:
    node.handle("echo", echo)
    return greets(node)


@pytest.fixture
async def relay(start: Start) -> Node:
    return await start(relay_server=True)


@pytest.fixture
def hidden(start: Start, eventually: Eventually) -> Hidden:
    """Start a node that listens nowhere and is registered at as many of the relays as it wants."""

    async def make(*relays: Node, **options: Any) -> Node:
        node = answer(
            await start(listen=(), discovery=StaticDiscovery(introductions(relays)), **options)
        )
        await eventually(lambda: len(node.relays) == min(len(relays), node.config.relays_wanted))
        if options.get("lookup", True) is not None:
            await node.published()
        return node

    return make


# The way through


async def test_a_query_goes_through_a_relay(start: Start, relay: Node, hidden: Hidden) -> None:
    node, asker = await hidden(relay), await start(listen=())
    assert [type(strategy) for strategy in node.record.strategies] == [RelayStrat]
    before = relayed_bytes(relay)
    body = os.urandom(10_000)
    assert await asker.query(node.node_id, "echo", body) == body
    assert relayed_bytes(relay) - before > 2 * len(body)
    assert len(engine_of(asker).comms) == 1, "connected to the relay only"
    for one in (node, relay, asker):
        assert not one.counters["no such kind"], "what a relay is told is for nobody else"


async def test_a_sender_without_a_relay_of_its_own_gets_replies_to_all_it_asks(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    node, asker = await hidden(relay), await start(listen=(), lookup=None)
    asker.add_contact(node.record)
    assert asker.relays == ()
    bodies = [b"%d" % number for number in range(200)]
    replies = await asyncio.gather(*(asker.query(node.node_id, "greet", b) for b in bodies))
    assert replies == [b"hello " + body for body in bodies]


@pytest.mark.parametrize("dht", [None, MemoryLookup()], ids=["no DHT", "a DHT that knows nothing"])
async def test_a_relay_is_used_although_the_record_it_was_introduced_with_has_expired(
    start: Start, relay: Node, eventually: Eventually, dht: MemoryLookup | None
) -> None:
    """As contacts are: a list of relays holds for years, and a record for two hours."""
    content = relay.record.content
    assert content is not None
    old = SignedCommRecord.sign(relay.identity, 5, replace(content, expiry_unix_s=1000))
    discovery = StaticDiscovery([Introduction(relay.node_id, old)])
    node = await start(listen=(), lookup=dht, discovery=discovery)
    await eventually(lambda: node.relays == (relay.node_id,))


async def test_two_hidden_peers_talk_both_ways(relay: Node, hidden: Hidden) -> None:
    left, right = await hidden(relay), await hidden(relay)
    replies = await asyncio.gather(
        *(left.query(right.node_id, "greet", b"%d" % n) for n in range(20)),
        *(right.query(left.node_id, "greet", b"%d" % n) for n in range(20)),
    )
    assert replies == [b"hello %d" % n for n in range(20)] * 2
    assert relayed_bytes(relay) > 0


async def test_two_hidden_peers_at_different_relays_talk(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    other = await start(relay_server=True)
    left, right, third = await hidden(relay), await hidden(other), await hidden(other)
    assert await left.query(right.node_id, "greet", b"far") == b"hello far"
    # Back by the path that is there, so through the same relay.
    assert await right.query(left.node_id, "greet", b"back") == b"hello back"
    assert relayed_bytes(other) > 0
    assert relayed_bytes(relay) == 0
    assert await third.query(left.node_id, "greet", b"new") == b"hello new"
    assert relayed_bytes(relay) > 0


async def test_hidden_peers_that_ask_each_other_at_once_lose_nothing(
    relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    """Crossed handshakes through the relay, many rounds."""
    for _ in range(8):
        left, right = await hidden(relay), await hidden(relay)
        replies = await asyncio.gather(
            left.query(right.node_id, "greet", b"l", hard_timeout_s=4),
            right.query(left.node_id, "greet", b"r", hard_timeout_s=4),
        )
        assert list(replies) == [b"hello l", b"hello r"]
        await left.close()
        await right.close()


async def test_a_first_contact_needs_the_relay_in_no_lookup_service(
    start: Start, hidden: Hidden, lookup: MemoryLookup
) -> None:
    relay = await start(relay_server=True, lookup=None)
    node = await hidden(relay)
    asker = await start(listen=())
    assert relay.node_id not in lookup._records
    assert await asker.query(node.node_id, "greet", b"hints") == b"hello hints"
    assert relayed_bytes(relay) > 0


async def test_the_relay_can_be_asked_directly_as_well(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    node = await hidden(relay)
    answer(relay)
    assert await node.query(relay.node_id, "greet", b"relay") == b"hello relay"
    assert await relay.query(node.node_id, "greet", b"back") == b"hello back"


@pytest.mark.parametrize("size", [16_000, 16_384, 17_000, 64_000, 65_000, 65_536, 66_000, 200_000])
async def test_a_body_of_any_size_goes_through_a_relay(
    start: Start, relay: Node, hidden: Hidden, size: int
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    body = os.urandom(size)
    assert await asker.query(node.node_id, "echo", body, hard_timeout_s=4) == body


async def test_5_mib_go_through_a_relay_both_ways(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    body = os.urandom(5 * MIB)
    assert await asker.query(node.node_id, "echo", body) == body
    assert relayed_bytes(relay) > 10 * MIB


async def test_many_bodies_at_once_go_through_a_relay(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    bodies = [os.urandom(100_000 + number) for number in range(30)]
    replies = await asyncio.gather(*(asker.query(node.node_id, "echo", b) for b in bodies))
    assert replies == bodies


async def test_small_queries_are_answered_beside_a_large_body_through_a_relay(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    await asker.query(node.node_id, "greet")
    body = os.urandom(3 * MIB)
    replies = await asyncio.gather(
        asker.query(node.node_id, "echo", body),
        *(asker.query(node.node_id, "greet", b"%d" % number) for number in range(30)),
    )
    assert replies == [body, *(b"hello %d" % number for number in range(30))]


# Relays die


async def test_who_waits_to_be_reachable_is_when_his_first_lease_is_published(
    start: Start, lookup: MemoryLookup
) -> None:
    relay, other = await start(relay_server=True), await start(listen=())
    hidden = answer(await start(listen=(), discovery=StaticDiscovery(introductions([relay]))))
    async with asyncio.timeout(10):
        await hidden.reachable()
    assert hidden.relays == (relay.node_id,)
    assert (await lookup.resolve(hidden.node_id)).relays
    assert await other.query(hidden.node_id, "greet", b"") == b"hello "
    assert (await relay.reachable()).stored == 1
    nowhere = asyncio.ensure_future(other.reachable())
    await asyncio.sleep(0)
    await other.close()
    with pytest.raises(PublishFailed):
        await nowhere


async def test_another_relay_takes_over_and_a_new_record_is_published(
    start: Start, relay: Node, hidden: Hidden, config: Config, eventually: Eventually,
    lookup: MemoryLookup,
) -> None:  # fmt: skip
    spare = await start(relay_server=True)
    node = await hidden(relay, spare, config=config(relays_wanted=1))
    asker = await start(listen=())
    assert await asker.query(node.node_id, "greet") == b"hello "
    (first,) = node.relays
    dies, lives = (relay, spare) if first == relay.node_id else (spare, relay)
    old = node.record.sequence
    started = time.monotonic()
    await dies.close()
    await eventually(lambda: node.relays == (lives.node_id,), 5)
    await node.published()
    assert time.monotonic() - started < 3
    stored = await lookup.resolve(node.node_id)
    assert stored.sequence > old
    assert [relay.relay_id for relay in stored.relays] == [lives.node_id]
    assert await asker.query(node.node_id, "greet", b"again") == b"hello again"
    assert relayed_bytes(lives) > 0


async def test_a_conversation_goes_on_when_one_of_two_relays_dies(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    other = await start(relay_server=True)
    node, asker = await hidden(relay, other), await start(listen=())
    await asker.query(node.node_id, "greet")
    dies, lives = (relay, other) if relayed_bytes(relay) else (other, relay)
    await dies.close()
    assert await asker.query(node.node_id, "greet", b"on", hard_timeout_s=4) == b"hello on"
    assert relayed_bytes(lives) > 0


async def test_when_all_relays_are_dead_the_fast_fail_lists_each(
    start: Start, relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    other = await start(relay_server=True)
    node, asker = await hidden(relay, other), await start(listen=())
    asker.add_contact(node.record)
    for one in (relay, other):
        await one.close()
    started = time.monotonic()
    with pytest.raises(FastFail) as failed:
        await asker.query(node.node_id, "greet")
    assert time.monotonic() - started < 2
    tried = {
        a.strategy.relay_id for a in failed.value.attempts if isinstance(a.strategy, RelayStrat)
    }
    assert tried == {relay.node_id, other.node_id}
    for attempt in failed.value.attempts:
        if isinstance(attempt.strategy, RelayStrat):
            assert "refused" in attempt.detail
    await eventually(lambda: node.relays == () and node.record.strategies == ())


async def test_a_relay_that_restarts_is_used_again(
    start: Start, hidden: Hidden, eventually: Eventually
) -> None:
    who = Identity.generate(os.urandom)
    relay = await start(who, relay_server=True)
    address = relay.listening[0]
    node, asker = await hidden(relay), await start(listen=())
    assert await asker.query(node.node_id, "greet") == b"hello "
    await relay.close()
    await eventually(lambda: node.relays == ())
    relay = await start(who, relay_server=True, listen=address)
    await eventually(lambda: node.relays == (relay.node_id,))
    await node.published()
    assert await asker.query(node.node_id, "greet", b"again") == b"hello again"
    assert relayed_bytes(relay) > 0


async def test_a_hidden_node_that_restarts_is_reached_again(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    """The asker's session is one that the new process does not know."""
    who, asker = Identity.generate(os.urandom), await start(listen=())
    node = await hidden(relay, identity=who)
    assert await asker.query(node.node_id, "greet", b"1") == b"hello 1"
    await node.close()
    node = await hidden(relay, identity=who)
    assert await asker.query(node.node_id, "greet", b"2", hard_timeout_s=4) == b"hello 2"


async def test_a_hidden_node_that_crashes_and_restarts_is_reached_by_the_next_query(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    """No goodbye reaches the asker. Nothing is resent that was given away, so one query may time
    out; but it must make the asker see that the session is gone."""
    who, asker = Identity.generate(os.urandom), await start(listen=())
    node = await hidden(relay, identity=who)
    assert await asker.query(node.node_id, "greet", b"1") == b"hello 1"
    engine_of(node).comms.drop_all("crash")
    await node.close()
    await hidden(relay, identity=who)
    first = asyncio.ensure_future(asker.query(node.node_id, "greet", b"2", hard_timeout_s=1))
    await asyncio.gather(first, return_exceptions=True)
    assert await asker.query(node.node_id, "greet", b"3", hard_timeout_s=4) == b"hello 3"


async def test_a_relay_that_knows_no_lease_says_so_at_once(start: Start, relay: Node) -> None:
    who = Identity.generate(os.urandom)
    through = RelayStrat(
        relay.identity.key, 1, relay.identity.channel_key, (relay.record.tcp[0].address,)
    )
    content = CommRecord(int(time.time()) + 600, bytes(8), ((1, who.channel_key),), (through,))
    asker = await start(listen=(), lookup=None)
    asker.add_contact(SignedCommRecord.sign(who, 5, content))
    started = time.monotonic()
    with pytest.raises(FastFail) as failed:
        await asker.query(who.node_id, "greet")
    assert time.monotonic() - started < 0.5
    (attempt,) = failed.value.attempts
    assert attempt.strategy == through
    assert "does not know the peer" in attempt.reason
    assert relayed_bytes(relay) == 0


async def test_a_relay_without_room_for_a_lease_is_passed_over(
    start: Start, relay: Node, hidden: Hidden, config: Config, eventually: Eventually
) -> None:
    full = await start(relay_server=RelayLimits(leases_max=1))
    await hidden(full)
    node = answer(
        await start(
            listen=(),
            config=config(relays_wanted=2),
            discovery=StaticDiscovery(introductions([full, relay])),
        )
    )
    await eventually(lambda: node.relays == (relay.node_id,))
    server = full.relay_server
    assert server is not None
    await eventually(lambda: server.counters["lease refused: full"] >= 1)


async def test_nodes_that_want_few_of_many_relays_share_the_load_between_them(
    start: Start, relay: Node, hidden: Hidden, config: Config
) -> None:
    relays = [relay, await start(relay_server=True)]
    one_wanted = config(relays_wanted=1)
    chosen = {(await hidden(*relays, config=one_wanted)).relays for _ in range(20)}
    assert chosen == {(relay.node_id,) for relay in relays}


# Direct and relayed


async def test_queries_go_on_through_the_relay_when_the_direct_way_is_gone(
    start: Start, relay: Node, eventually: Eventually
) -> None:
    node = answer(await start(discovery=StaticDiscovery(introductions([relay]))))
    await eventually(lambda: node.relays == (relay.node_id,))
    await node.published()
    asker = await start(listen=())
    assert await asker.query(node.node_id, "greet", b"direct") == b"hello direct"
    assert relayed_bytes(relay) == 0
    await node.listen(())
    for connection in engine_of(node).comms.all():
        path = engine_of(node).channels.path_of(connection.number)
        if path is not None and path.peer_id == asker.node_id:
            connection.abort("the direct way is gone")
    # Until the asker sees it, it would give its query to a socket that nobody reads.
    await eventually(lambda: engine_of(asker).book.find(node.node_id).direct is None)
    assert await asker.query(node.node_id, "greet", b"relayed") == b"hello relayed"
    assert relayed_bytes(relay) > 0
    assert node.relays == (relay.node_id,)


async def test_a_hidden_node_that_listens_again_is_reached_directly(
    start: Start, relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    await asker.query(node.node_id, "greet")
    await node.listen("127.0.0.1:0")
    await eventually(lambda: engine_of(asker).book.find(node.node_id).direct is not None)
    before = relayed_bytes(relay)
    assert await asker.query(node.node_id, "greet", b"direct") == b"hello direct"
    assert relayed_bytes(relay) == before


# Lies


async def test_what_waits_for_a_relays_connection_leaves_by_the_one_that_replaces_it(
    start: Start, config: Config, relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    node, heard = await hidden(relay), asyncio.Event()

    @node.handler("note")
    async def note(query: Incoming) -> bytes:
        heard.set()
        return b""

    # Nobody looks after what waits now and then.
    asker = await start(listen=(), config=config(clean_up_interval_s=3600.0))
    await asker.query(node.node_id, "greet", b"")
    engine = engine_of(asker)
    to_relay = engine.book.find(relay.node_id)
    connection = engine.comms.connection(to_relay.direct.strategy.connection)
    connection.pause_writing()
    sending = asyncio.ensure_future(asker.send(node.node_id, "note", b"at last"))
    await eventually(lambda: path_to(asker, node).outbox)
    assert not heard.is_set()
    engine.searching.renew(to_relay, to_relay.direct, engine.now())
    await eventually(heard.is_set)
    await sending


async def test_a_relay_message_inside_a_relay_message_is_dropped(
    start: Start, relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    await asker.query(node.node_id, "greet")
    for kind, body in (
        (RELAY_KIND, Relay(relay.node_id, 1000, os.urandom(100)).encode()),
        (DELIVERY_KIND, Delivery(relay.node_id, os.urandom(100)).encode()),
    ):
        inner = Send(os.urandom(16), kind, 1000, body).encode()
        path_to(asker, node).queue(Outgoing(inner, engine_of(asker).now()))
    reason = "dropped: a relay message inside a relay message"
    await eventually(lambda: node.counters[reason] == 2)
    assert await asker.query(node.node_id, "greet", b"on") == b"hello on"


async def test_a_chosen_relay_that_delivers_garbage_harms_nothing(
    start: Start, relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    await asker.query(node.node_id, "greet")
    session = path_to(node, asker).session
    for packet in (
        b"",
        os.urandom(100),
        bytes((1, 1, 1, 0)) + os.urandom(200),
        bytes((2, 1, 1, 0)) + os.urandom(200),
        bytes((3, 1, 1, 0)) + session.index.to_bytes(8, "big") + os.urandom(60),
        bytes((4, 1, 1, 0)) + session.remote_index.to_bytes(8, "big") + os.urandom(16),
    ):
        body = Delivery(asker.node_id, packet).encode()
        send = Send(os.urandom(16), DELIVERY_KIND, 1000, body).encode()
        direct = engine_of(relay).book.find(node.node_id).direct
        direct.queue(Outgoing(send, engine_of(relay).now()))
    await eventually(lambda: node.counters.total() >= 6)
    assert node.relays == (relay.node_id,)
    assert await asker.query(node.node_id, "greet", b"on") == b"hello on"
    assert path_to(node, asker).session is session


async def test_a_flood_of_handshakes_through_a_relay_is_bounded_and_keeps_nobody_out(
    start: Start, relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    assert relay.relay_server is not None
    channel_key = node.record.channel_key()
    assert channel_key is not None
    for number in range(500):
        packet = Initiation.with_mac(number, bytes(240), channel_key).encode()
        relay.relay_server._deliver(node.node_id, NodeId(bytes(20)), packet, 5000)
    await eventually(lambda: node.counters[TOO_MANY] > 400)
    reasons = [reason for reason in node.counters if reason.startswith("dropped: ")]
    assert sum(node.counters[reason] for reason in reasons) <= 500, "each was dropped once"
    assert await asker.query(node.node_id, "greet", b"still") == b"hello still"


@pytest.mark.parametrize(
    "packet", [b"\x01", bytes((1, 1, 1, 0)) + bytes(240), bytes((1, 2, 1, 0)) + bytes(240)]
)
async def test_what_cannot_become_a_handshake_takes_no_place_of_one(
    start: Start, relay: Node, hidden: Hidden, eventually: Eventually, packet: bytes
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    assert relay.relay_server is not None
    before = node.counters.total()
    for number in range(1000):
        sender = NodeId(number.to_bytes(20, "big"))
        relay.relay_server._deliver(node.node_id, sender, packet, 5000)
    await eventually(lambda: node.counters.total() >= before + 1000)
    assert node.counters[TOO_MANY] == 0
    assert await asker.query(node.node_id, "greet", b"still") == b"hello still"


async def test_who_has_left_a_full_relay_makes_way(start: Start, hidden: Hidden) -> None:
    full = await start(relay_server=RelayLimits(leases_max=1))
    node = await hidden(full)
    server = full.relay_server
    assert server is not None
    assert server.leases.has(node.node_id, engine_of(full).now())
    engine_of(full).comms.drop_all("cut")
    newcomer = Identity.generate(os.urandom).node_id
    server.lease(newcomer, encode_lease(30))
    assert not server.leases.has(node.node_id, engine_of(full).now())


@pytest.mark.reaches_in
async def test_a_relay_that_repeats_every_packet_runs_no_handler_twice(
    start: Start, relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    told: list[bytes] = []

    @node.handler("count")
    async def count(query: Incoming) -> bytes:
        told.append(query.body)
        return query.body

    assert relay.relay_server is not None
    deliver = relay.relay_server._deliver

    def twice(*arguments: Any) -> None:
        deliver(*arguments)
        deliver(*arguments)

    relay.relay_server._deliver = twice  # type: ignore[method-assign, assignment]
    for number in range(20):
        assert await asker.query(node.node_id, "count", b"%d" % number) == b"%d" % number
    assert told == [b"%d" % number for number in range(20)]


@pytest.mark.reaches_in
async def test_a_relay_that_drops_packets_loses_queries_but_not_the_session(
    start: Start, relay: Node, hidden: Hidden
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    await asker.query(node.node_id, "greet")
    session = path_to(asker, node).session
    assert relay.relay_server is not None
    deliver = relay.relay_server._deliver
    relay.relay_server._deliver = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        await asker.query(node.node_id, "greet", hard_timeout_s=0.1)
    relay.relay_server._deliver = deliver  # type: ignore[method-assign]
    assert await asker.query(node.node_id, "greet", b"on") == b"hello on"
    assert path_to(asker, node).session is session


@pytest.mark.reaches_in
async def test_a_relay_that_reorders_packets_loses_nothing(
    start: Start, relay: Node, hidden: Hidden, eventually: Eventually
) -> None:
    node, asker = await hidden(relay), await start(listen=())
    await asker.query(node.node_id, "greet")
    assert relay.relay_server is not None
    deliver = relay.relay_server._deliver
    held: list[tuple[Any, ...]] = []
    relay.relay_server._deliver = lambda *arguments: held.append(arguments)  # type: ignore[method-assign]
    queries = []
    for number in range(10):
        # One packet each, since the next query is asked only when the last one is at the relay.
        queries.append(asker.open_query(node.node_id, "greet", b"%d" % number))
        await eventually(lambda: len(held) == len(queries))
    relay.relay_server._deliver = deliver  # type: ignore[method-assign]
    for arguments in reversed(held):
        deliver(*arguments)
    assert [await query for query in queries] == [b"hello %d" % number for number in range(10)]

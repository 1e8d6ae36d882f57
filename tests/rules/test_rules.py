"""The seed's rules, each in a test that names it, as a user of a node meets them.

docs/rules.md says what each rule is, and where else it is tested. In virtual time.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

from egtp import (
    FastFail,
    HardTimeout,
    Identity,
    LocalProtocolError,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
    OutcomeUnknown,
    RelayStrat,
    SignedCommRecord,
    TCPStrat,
    WrongLoop,
)
from egtp.queries.outgoing import Outgoing
from egtp.relay.wire import Relay
from egtp.values.comm_strat import CryptoStrat
from egtp.values.message import Query, Reply, decode_message
from lookup_dht import DHTLookup
from tests.lab import LATENCY_S, Lab, in_lab, kept

ROUND_TRIP_S: Final = 2 * LATENCY_S
TICK_S: Final = 0.05
"""Timeouts pass on a coarse tick."""


def play(story: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    in_lab(Lab, story)


def engine_of(node: Node) -> Any:
    return node._engine


def path_of(node: Node, peer_id: NodeId) -> Any:
    return engine_of(node).book.find(peer_id).best_path


def query_bytes(node: Node) -> list[bytes]:
    """The messages of all queries that are open."""
    return [exchange.message for exchange in engine_of(node).exchanges.all()]


def replies_to(node: Node) -> list[Reply]:
    """Every reply that comes to a node from now on, as it is read from the wire."""
    came: list[Reply] = []
    exchanges = engine_of(node).exchanges
    match = exchanges.match

    def heard(peer_id: NodeId, reply: Reply) -> Any:
        came.append(reply)
        return match(peer_id, reply)

    exchanges.match = heard
    return came


async def cut_by(node: Node, lab: Lab) -> None:
    """All connections of a node are reset."""

    async def drop() -> None:
        engine_of(node).comms.drop_all("a test")

    await lab.hosts[node].run(drop())


# Messages


def test_r1_every_message_has_a_random_nonce_that_no_other_has() -> None:
    async def story(lab: Lab) -> None:
        peer = await lab.node()
        askers = [await lab.asker(peer) for _ in range(2)]
        asked = [
            await lab.open_query(asker, peer.node_id, "wait", b"the same")
            for asker in askers
            for _ in range(500)
        ]
        queries = [decode_message(data) for asker in askers for data in query_bytes(asker)]
        nonces = {query.nonce for query in queries}
        assert len(nonces) == len(queries) == 1000
        assert {len(nonce) for nonce in nonces} == {16}
        # Every bit of them is drawn: about half of the time it is set.
        set_bits = sum(int.from_bytes(nonce).bit_count() for nonce in nonces)
        assert set_bits == pytest.approx(1000 * 64, rel=0.02)
        for query in asked:
            query.cancel()

    play(story)


@pytest.mark.reaches_in
def test_r2_a_reply_refers_to_its_query_by_the_hash_of_its_canonical_form() -> None:
    async def story(lab: Lab) -> None:
        peer = await lab.node()
        asker = await lab.asker(peer)
        came = replies_to(asker)
        query = await lab.open_query(asker, peer.node_id, "echo", b"x")
        (message,) = query_bytes(asker)
        decoded = decode_message(message)
        assert isinstance(decoded, Query)
        assert decoded.encode() == message, "equal messages have equal bytes"
        assert await query == b"x"
        assert came[0].reference == hashlib.sha256(message).digest()

    play(story)


def test_r3_a_reply_with_a_wrong_reference_or_of_a_wrong_peer_leaves_the_query_open() -> None:
    async def story(lab: Lab) -> None:
        peer, other, asker = await lab.node(), await lab.node(), await lab.node()
        for one in (peer, other):
            await lab.query(one, asker.node_id)
        query = await lab.open_query(asker, peer.node_id, "wait", b"x", hard_timeout_s=5)
        reference = hashlib.sha256(query_bytes(asker)[0]).digest()
        async with asyncio.timeout(1):
            await lab.called.wait()

        def reply(by: Node, reference: bytes, body: bytes) -> None:
            data = Reply(by.identity.key[:16], reference, 0, body).encode()
            path_of(by, asker.node_id).queue(Outgoing(data, lab.now_s))

        reply(peer, bytes(32), b"wrong reference")
        reply(other, reference, b"wrong peer")
        await asyncio.sleep(ROUND_TRIP_S)
        assert asker.counters["reply with unknown reference"] == 1
        assert asker.counters["reply from the wrong peer"] == 1
        assert not query.done()
        reply(peer, reference, b"the answer")
        assert await query == b"the answer"
        # The same again is a replay: it ends nothing any more.
        reply(peer, reference, b"the answer")
        await asyncio.sleep(ROUND_TRIP_S)
        assert asker.counters["reply with unknown reference"] == 2

    play(story)


@pytest.mark.reaches_in
def test_r4_nonce_and_reference_are_in_the_message_whatever_carries_it() -> None:
    """Given to a relay first, then to a connection: the same bytes, and the reply to them."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        peer = await lab.hidden(relay)
        asker = await lab.asker(peer)
        came = replies_to(asker)
        release = asyncio.Event()

        @peer.handler("later")
        async def later(query: Any) -> bytes:
            await release.wait()
            return b"done"

        query = await lab.open_query(asker, peer.node_id, "later", hard_timeout_s=20)
        await asyncio.sleep(1)
        assert path_of(asker, peer.node_id).relayed
        (by_relay,) = query_bytes(asker)
        await lab.hosts[peer].run(peer.listen(f"{lab.hosts[peer].addresses[0]}:4000"))

        async def learn() -> None:
            asker.add_contact(peer.record)

        await lab.hosts[asker].run(learn())
        await cut_by(relay, lab)
        await asyncio.sleep(5)
        assert not path_of(asker, peer.node_id).relayed
        (by_connection,) = query_bytes(asker)
        assert by_connection == by_relay
        release.set()
        assert await query == b"done"
        assert came[-1].reference == hashlib.sha256(by_relay).digest()

    play(story)


# Timeouts


@pytest.mark.parametrize("hard_timeout_s", [None, 5.0])
def test_r5_every_query_has_a_hard_timeout_that_frees_everything(
    hard_timeout_s: float | None,
) -> None:
    async def story(lab: Lab) -> None:
        peer = await lab.node()
        asker = await lab.asker(peer)
        await lab.query(asker, peer.node_id)
        began_s = lab.now_s
        with pytest.raises(HardTimeout) as timeout:
            await lab.query(asker, peer.node_id, "wait", hard_timeout_s=hard_timeout_s)
        expected_s = hard_timeout_s or asker.config.hard_timeout_s
        assert lab.now_s - began_s == pytest.approx(expected_s, abs=TICK_S)
        assert timeout.value.may_have_run
        assert kept(asker) == []
        assert engine_of(asker).exchanges.next_deadline_s() is None

    play(story)


def test_r5_an_answer_after_the_hard_timeout_is_dropped_and_counted() -> None:
    async def story(lab: Lab) -> None:
        peer = await lab.node()
        asker = await lab.asker(peer)

        @peer.handler("stubborn")
        async def stubborn(query: Any) -> bytes:
            try:
                await asyncio.sleep(3)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            return b"late"

        with pytest.raises(HardTimeout):
            await lab.query(asker, peer.node_id, "stubborn", hard_timeout_s=2)
        await asyncio.sleep(5)
        assert asker.counters["reply with unknown reference"] == 1
        assert kept(asker) == []

    play(story)


def test_r6_a_soft_timeout_is_a_notice_and_the_late_reply_counts_as_if_on_time() -> None:
    async def story(lab: Lab) -> None:
        peer = await lab.node()
        asker = await lab.asker(peer)

        @peer.handler("slow")
        async def slow(query: Any) -> bytes:
            await asyncio.sleep(3)
            return b"slow"

        told_s: list[float] = []
        began_s = lab.now_s
        query = await lab.open_query(
            asker,
            peer.node_id,
            "slow",
            soft_timeout_s=1,
            on_soft_timeout=lambda: told_s.append(lab.now_s),
        )
        assert await query.soft_timeout()
        assert lab.now_s - began_s == pytest.approx(1, abs=TICK_S)
        assert not query.done()
        assert await query == b"slow"
        assert lab.now_s - began_s == pytest.approx(3 + 3 * ROUND_TRIP_S, abs=0.01)
        assert told_s == [pytest.approx(began_s + 1, abs=TICK_S)]

    play(story)


# Looking up


class Counted(MemoryLookup):
    """A lookup service that counts what it is asked for, and how much newer it has to be."""

    def __init__(self, inner: MemoryLookup) -> None:
        super().__init__()
        self._inner = inner
        self.asked: list[tuple[NodeId, int]] = []

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        self.asked.append((peer_id, newer_than))
        return await self._inner.resolve(peer_id, newer_than=newer_than)


def test_r7_the_lookup_service_is_asked_without_a_strategy_and_when_the_known_ones_fail() -> None:
    async def story(lab: Lab) -> None:
        peer, lookup = await lab.node(), Counted(lab.lookup)
        asker = await lab.node(listens=False, lookup=lookup)
        lookup.asked.clear()
        await lab.query(asker, peer.node_id)
        assert lookup.asked == [(peer.node_id, 0)], "there was no strategy"
        await lab.query(asker, peer.node_id)
        assert len(lookup.asked) == 1, "what works is not looked up"
        known = peer.record.sequence
        await lab.close(peer)
        again = await lab.node(identity=peer.identity)
        await asyncio.sleep(1)
        assert await lab.query(asker, peer.node_id, body=b"moved") == b"moved"
        assert lookup.asked[1:] == [(peer.node_id, known)], "the strategies known had failed"
        assert again.record.sequence > known

    play(story)


def test_r8_a_dht_of_signed_strategies_is_a_lookup_service() -> None:
    async def story(lab: Lab) -> None:
        seeds: list[str] = []

        async def with_dht() -> tuple[Node, DHTLookup]:
            host = lab.host()
            address = f"{host.addresses[0]}:9000"
            lookup = DHTLookup(
                address,
                tuple(seeds),
                unix_time=host.unix_time,
                elapsed=host.elapsed,
                entropy=host.entropy,
            )
            await host.run(lookup.start())
            seeds.append(address)
            node = await lab.node(on=host, lookup=lookup)
            return node, lookup

        parts = [await with_dht() for _ in range(4)]
        first, last = parts[0][0], parts[-1][0]
        await lab.hosts[last].run(last.published())
        assert await lab.query(first, last.node_id, body=b"found") == b"found"
        assert first.why(last.node_id).source == "lookup"
        for node, lookup in parts:
            host = lab.hosts.pop(node)
            await host.run(node.close())
            await host.run(lookup.close())

    play(story)


# Identities


def test_r12_a_node_id_is_the_sha1_of_the_public_key_and_a_fixed_string() -> None:
    identity = Identity.generate(lambda size: bytes(range(size)))
    assert (
        identity.node_id
        == hashlib.sha1(  # noqa: S324 - the seed says so
            identity.key + b"EGTP nodeId 1"
        ).digest()
    )
    assert len(identity.node_id) == 20
    with pytest.raises(LocalProtocolError):
        NodeId(identity.node_id[:19])


# Relays


@pytest.mark.reaches_in
def test_r13_a_relayed_message_is_a_message_to_the_relay_that_names_the_recipient() -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        peer = await lab.hidden(relay)
        asker = await lab.asker(peer)
        server = engine_of(relay).relaying.server
        seen: list[tuple[NodeId, Relay]] = []
        pass_on = server.relay

        def look(sender: NodeId, body: bytes, age_ms: int) -> None:
            seen.append((sender, Relay.decode(body)))
            pass_on(sender, body, age_ms)

        server.relay = look
        secret = b"what the relay must not read"
        assert await lab.query(asker, peer.node_id, body=secret) == secret
        asked = [message for sender, message in seen if sender == asker.node_id]
        assert asked
        assert {message.recipient for message in asked} == {peer.node_id}
        assert not any(secret in message.packet for _, message in seen)

    play(story)


def test_r14_sending_through_a_relay_being_one_and_listening_at_one_are_three_things() -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        peer = await lab.hidden(relay)
        asker = await lab.asker(peer)
        await lab.query(asker, peer.node_id)
        parts = [engine_of(node).relaying for node in (asker, relay, peer)]
        assert [part.server is not None for part in parts] == [False, True, False]
        assert [part.listener is not None for part in parts] == [False, False, True]

    play(story)


def test_r24_what_a_relay_holds_never_outlives_its_hard_timeout() -> None:
    """The peer comes back to its relay before the relay forgets the packet, and after the query is
    over: it does not run it."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        peer = await lab.hidden(relay)
        asker = await lab.asker(peer)
        ran: list[bytes] = []

        @peer.handler("pay")
        async def pay(query: Any) -> bytes:
            ran.append(query.body)
            return b""

        async def away_for(
            seconds: float, body: bytes, hard_timeout_s: float
        ) -> BaseException | None:
            with lab.network.partition([lab.hosts[relay]], [lab.hosts[peer]]):
                path = path_of(relay, peer.node_id)
                engine_of(relay).routes.lose(path, "a test", at_once=True)
                query = await lab.open_query(
                    asker, peer.node_id, "pay", body, early=True, hard_timeout_s=hard_timeout_s
                )
                await asyncio.sleep(seconds)
            # Its connection is dead, and it finds out.
            await lab.query(peer, relay.node_id)
            await asyncio.gather(query, return_exceptions=True)
            # Until what had come by then has run, and a second connection has been drained.
            await asyncio.sleep(10)
            return query.exception()

        assert await away_for(2.0, b"in time", 10) is None
        assert ran == [b"in time"]
        server = relay.relay_server
        assert server is not None
        held = server.counters["held packets"]
        assert held > 0
        asker = await lab.asker(peer)
        assert isinstance(await away_for(2.0, b"too late", 1), HardTimeout)
        assert server.counters["held packets"] > held
        assert ran == [b"in time"]

    play(story)


# One event loop


def test_r15_a_call_from_another_thread_or_loop_raises_at_once() -> None:
    caught: list[BaseException] = []

    async def run() -> None:
        async with Node(Identity.generate(lambda size: bytes(range(size)))) as node:

            def elsewhere() -> None:
                for call in (
                    lambda: asyncio.run(node.query(NodeId(bytes(20)), "echo")),
                    lambda: node.open_query(NodeId(bytes(20)), "echo"),
                    lambda: node.throttle(send_bytes_per_s=1),
                ):
                    try:
                        call()
                    except WrongLoop as error:
                        caught.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.to_thread(thread.join)
            assert kept(node) == []

    asyncio.run(run())
    assert len(caught) == 3
    assert all("run_coroutine_threadsafe" in str(error) for error in caught)


# Throttling


def test_r16_a_throttled_connection_holds_its_messages_and_sends_them_when_unthrottled() -> None:
    async def story(lab: Lab) -> None:
        peer = await lab.node()
        asker = await lab.asker(peer)
        await lab.query(asker, peer.node_id)
        asker.throttle(send_bytes_per_s=100)
        bodies = [bytes([n]) * 1000 for n in range(50)]
        queries = [await lab.open_query(asker, peer.node_id, "echo", body) for body in bodies]
        await asyncio.sleep(10)
        assert not all(query.done() for query in queries)
        asker.throttle()
        began_s = lab.now_s
        assert [await query for query in queries] == bodies
        assert lab.now_s - began_s < 1

    play(story)


# Strategies and connections


def test_r17_a_strategy_is_an_address_a_socket_or_a_relay_and_crypto_wraps_it() -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        peer = await lab.hidden(relay)
        asker = await lab.asker(peer, relay)
        for one, lower in ((relay, TCPStrat), (peer, RelayStrat)):
            await lab.query(asker, one.node_id)
            strategy = path_of(asker, one.node_id)._strategy
            assert type(strategy) is CryptoStrat
            assert type(strategy.lower) is lower
            # Each of them moves a packet by its own send.
            assert callable(strategy.send)
            assert callable(strategy.lower.send)
        socket, address = path_of(asker, relay.node_id).strategy, relay.record.tcp[0]
        assert socket.connection is not None
        assert address.connection is None
        for node in (relay, peer, asker):
            listed = Counter(type(strategy) for strategy in node.record.strategies)
            assert set(listed) <= {TCPStrat, RelayStrat}
            assert all(tcp.connection is None for tcp in node.record.tcp)

    play(story)


def test_r18_connections_that_are_used_again_are_kept_and_idle_ones_are_closed() -> None:
    async def story(lab: Lab) -> None:
        used, idle = await lab.node(), await lab.node()
        asker = await lab.asker(used, idle, config=NodeConfig(idle_timeout_s=60))
        comms = engine_of(asker).comms
        for peer in (used, idle):
            await lab.query(asker, peer.node_id)
        kept_open = path_of(asker, used.node_id)
        assert len(comms) == 2
        for _ in range(6):
            await asyncio.sleep(30)
            await lab.query(asker, used.node_id)
        assert path_of(asker, used.node_id) is kept_open
        assert len(comms) == 1
        assert path_of(asker, idle.node_id) is None
        assert await lab.query(asker, idle.node_id, body=b"again") == b"again"

    play(story)


def test_r19_a_connection_has_one_socket_whose_stream_is_cut_into_the_very_packets() -> None:
    """Queries of many sizes at once, of which the line delivers pieces: all go over one
    connection, and each reply is whole."""

    async def story(lab: Lab) -> None:
        peer = await lab.node()
        asker = await lab.asker(peer)
        # In pieces that fit nothing: so many bytes may leave in each moment.
        asker.throttle(send_bytes_per_s=50_000)
        bodies = [bytes([n % 256]) * (n * 37) for n in range(100)]
        queries = [await lab.open_query(asker, peer.node_id, "echo", body) for body in bodies]
        assert [await query for query in queries] == bodies
        for node in (asker, peer):
            assert len(engine_of(node).comms) == 1
        # Closing sends what was accepted first.
        await lab.hosts[asker].run(asker.send(peer.node_id, "wait"))
        await lab.close(asker)
        await asyncio.sleep(ROUND_TRIP_S)
        assert lab.called.is_set()
        lab.hosts.pop(asker)

    play(story)


# Fast fail


def test_r20_a_query_fails_fast_if_and_only_if_it_could_not_leave_this_machine() -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async def story(lab: Lab) -> None:
        peer = await lab.gone()
        host, address = lab.hosts[peer], lab.records[peer].tcp[0].address
        asker = await lab.asker(peer)
        with pytest.raises(FastFail) as failed:
            await lab.query(asker, peer.node_id, early=True)
        assert failed.value.attempts[0].reason == "connection refused"
        await asyncio.sleep(1)
        server = await host.run(asyncio.start_server(take, address.host, address.port))
        with pytest.raises(FastFail):
            await lab.query(asker, peer.node_id)  # nothing of it is in the dial
        await asyncio.sleep(2)
        with pytest.raises(HardTimeout) as timeout:
            await lab.query(asker, peer.node_id, early=True, hard_timeout_s=3)
        assert timeout.value.may_have_run
        server.close()

    play(story)


def test_r21_once_a_relay_was_given_a_copy_nothing_that_it_says_is_a_fast_fail() -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        peer = await lab.hidden(relay)
        asker = await lab.asker(peer)
        query = await lab.open_query(
            asker, peer.node_id, "wait", hard_timeout_s=20, idempotent=True
        )
        await lab.called.wait()
        await lab.close(peer)
        # Of a new one only a dial was given to the relay, so it may fail fast, and does.
        with pytest.raises(FastFail) as failed:
            await lab.query(asker, peer.node_id)
        assert "the relay says that it does not know the peer" in str(failed.value)
        await asyncio.gather(query, return_exceptions=True)
        error = query.exception()
        assert isinstance(error, HardTimeout)
        assert error.may_have_run
        server = relay.relay_server
        assert server is not None
        assert server.counters["dropped: no lease"] > 1

    play(story)


# Retrying


def test_r22_what_may_have_run_is_not_run_again_by_a_restarted_peer_unless_harmless() -> None:
    async def story(lab: Lab) -> None:
        peer = await lab.node()
        asker = await lab.asker(peer)
        unsafe = await lab.open_query(asker, peer.node_id, "wait", hard_timeout_s=20)
        safe = await lab.open_query(asker, peer.node_id, "wait", hard_timeout_s=20, idempotent=True)
        await lab.called.wait()
        await asyncio.sleep(ROUND_TRIP_S)
        host = lab.hosts.pop(peer)
        host.kill()
        lab.called.clear()
        again = await lab.node(identity=peer.identity, on=host)
        await asyncio.gather(unsafe, return_exceptions=True)
        assert isinstance(unsafe.exception(), OutcomeUnknown)
        await asyncio.sleep(1)
        assert lab.called.is_set()
        assert again.counters
        safe.cancel()

    play(story)


def test_r23_a_query_whose_connection_is_lost_is_retried_by_itself_and_runs_once() -> None:
    async def story(lab: Lab) -> None:
        peer = await lab.node()
        asker = await lab.asker(peer)
        ran: list[bytes] = []

        @peer.handler("pay")
        async def pay(query: Any) -> bytes:
            ran.append(query.body)
            await asyncio.sleep(3)
            return b"paid"

        query = await lab.open_query(asker, peer.node_id, "pay", b"10 nanobux", hard_timeout_s=10)
        for _ in range(3):
            await asyncio.sleep(0.8)
            await cut_by(asker, lab)
        assert await query == b"paid"
        assert ran == [b"10 nanobux"]
        assert asker.counters["query sent again: its path is gone"] >= 1

    play(story)

"""Why a message fails fast, and what never makes it: the two tables of docs/outcomes.md.

A fast fail says that no copy of the message was ever given to a socket (R20). Once one was, no
fast fail comes any more, whatever a peer, a relay or the network says (R21). In virtual time, so
that durations are exact; the last ones are on real sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final

import pytest

from discovery import StaticDiscovery
from egtp import (
    Address,
    Attempt,
    AttemptReason,
    CommRecord,
    FastFail,
    FastFailReason,
    HandlerFailed,
    HardTimeout,
    Incoming,
    Introduction,
    LookupFailed,
    LookupFailure,
    MemoryLookup,
    Node,
    NodeClosed,
    NodeConfig,
    NodeId,
    OutcomeUnknown,
    RelayLimits,
    RelayStrat,
    ReplyCode,
    SignedCommRecord,
    TCPStrat,
)
from egtp.channel.frames import frame
from egtp.channel.packet import Initiation, Response, decode_packet
from egtp.reaching.dialling import INITIATION_AGAIN_S
from egtp.relay.wire import HINT_KIND, NO_LEASE, Hint, Relay, digest_of
from simulations.lab import LATENCY_S, Lab, in_lab, kept
from tests.node.at_hand import Start, engine_of

ROUND_TRIP_S: Final = 2 * LATENCY_S


class Hanging(MemoryLookup):
    """A lookup service that never answers."""

    async def resolve(self, *args: Any, **options: Any) -> Any:
        await asyncio.Event().wait()


class World(Lab):
    """Nodes, and what became of a query."""

    async def fails(
        self,
        asker: Node,
        peer_id: NodeId,
        body: bytes = b"x",
        reason: FastFailReason = FastFailReason.NO_WAY,
        **options: Any,
    ) -> tuple[FastFail, float]:
        """Ask in vain. Returns the error, and how long it took."""
        before, began_s = kept(asker), self.now_s
        with pytest.raises(FastFail) as failed:
            await self.query(asker, peer_id, body=body, **options)
        assert failed.value.reason is reason
        assert not failed.value.may_have_run
        assert kept(asker) == before
        return failed.value, self.now_s - began_s

    def sign(
        self, peer: Node, channel: tuple[int, bytes], *strategies: TCPStrat | RelayStrat
    ) -> SignedCommRecord:
        """A record of the peer's, newer than all others, that says something else."""
        expiry_unix_s = int(self.network.story.unix_time()) + 600
        content = CommRecord(expiry_unix_s, bytes(8), (channel,), strategies)
        return SignedCommRecord.sign(peer.identity, 2**40, content)

    @asynccontextmanager
    async def given(
        self, asker: Node, peer_id: NodeId, *, hard_timeout_s: float = 6.0, **options: Any
    ) -> AsyncIterator[asyncio.Task[bytes]]:
        """A query that the peer has begun to run, and never answers. What is done meanwhile must
        not make it fail fast: the block ends with the outcome, which is anything else."""
        query = self.query(asker, peer_id, "wait", hard_timeout_s=hard_timeout_s, **options)
        task = asyncio.ensure_future(query)
        async with asyncio.timeout(2):
            await self.called.wait()
        yield task
        await asyncio.wait([task])
        assert not isinstance(task.exception(), FastFail)


def play(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    in_lab(World, story)


def said(
    failure: FastFail,
) -> list[tuple[type[TCPStrat | RelayStrat] | None, AttemptReason]]:
    """What kind of strategy each attempt was, None for a lookup, and why it failed."""
    return [(None if a.strategy is None else type(a.strategy), a.reason) for a in failure.attempts]


def lasted(attempt: Attempt, seconds: float) -> bool:
    return attempt.duration_s == pytest.approx(seconds, abs=0.002)


def timed_out(task: asyncio.Task[bytes]) -> None:
    """It ended as a query does that may have run, and of which nobody has heard again."""
    error = task.exception()
    assert isinstance(error, HardTimeout)
    assert error.may_have_run


# Nothing known


def test_nothing_known_and_no_lookup_service() -> None:
    async def story(world: World) -> None:
        asker = await world.asker()
        failure, took_s = await world.fails(asker, NodeId(bytes(20)))
        assert (failure.attempts, took_s) == ((), 0)

    play(story)


def test_nothing_known_and_the_lookup_comes_back_empty() -> None:
    async def story(world: World) -> None:
        asker = await world.node()
        failure, took_s = await world.fails(asker, NodeId(bytes(20)))
        assert said(failure) == [(None, AttemptReason.NOT_FOUND)]
        assert took_s == 0

    play(story)


def test_the_lookup_does_not_answer() -> None:
    async def story(world: World) -> None:
        asker = await world.asker(lookup=Hanging())
        await asyncio.sleep(30)
        failure, took_s = await world.fails(asker, NodeId(bytes(20)))
        assert said(failure) == [(None, AttemptReason.LOOKUP_SILENT)]
        assert took_s == pytest.approx(10, abs=0.001)

    play(story)


@pytest.mark.parametrize("why", LookupFailure)
def test_the_lookup_says_why_it_found_nothing(why: LookupFailure) -> None:
    class Empty(MemoryLookup):
        async def resolve(self, *args: Any, **options: Any) -> SignedCommRecord:
            raise LookupFailed(why)

    async def story(world: World) -> None:
        failure, took_s = await world.fails(await world.asker(lookup=Empty()), NodeId(bytes(20)))
        assert said(failure) == [(None, AttemptReason(why.value))]
        assert (failure.attempts[0].detail, took_s) == ("", 0)

    play(story)


def test_the_lookup_gives_the_record_of_somebody_else() -> None:
    async def story(world: World) -> None:
        bystander = await world.node()

        class Confused(MemoryLookup):
            async def resolve(self, *args: Any, **options: Any) -> SignedCommRecord:
                return bystander.record

        asker = await world.asker(lookup=Confused())
        failure, _ = await world.fails(asker, NodeId(bytes(20)))
        assert said(failure) == [(None, AttemptReason.LOOKUP_CONFUSED)]

    play(story)


def test_the_record_names_no_strategy() -> None:
    async def story(world: World) -> None:
        unreachable = await world.node(listens=False)
        asker = await world.node()
        failure, took_s = await world.fails(asker, unreachable.node_id)
        assert said(failure) == [(None, AttemptReason.SUPERSEDED)]
        assert failure.summary.endswith("its record names none")
        assert took_s == 0

    play(story)


def test_the_record_names_a_key_of_low_order() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker()
        asker.add_contact(world.sign(peer, (1, bytes(32)), *peer.record.strategies))
        failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.BAD_KEY)]
        assert failure.attempts[0].detail == "a key of low order"
        assert took_s == 0
        engine = engine_of(asker)
        (strategy,) = peer.record.tcp
        assert not engine.dialler.backoff.remaining_s(strategy.address, engine.now()), (
            "it is innocent"
        )

    play(story)


def test_the_record_names_no_key_that_this_version_knows() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker()
        asker.add_contact(world.sign(peer, (9, bytes(32)), *peer.record.strategies))
        failure, took_s = await world.fails(asker, peer.node_id)
        assert (failure.attempts, took_s) == ((), 0)

    play(story)


# Addresses


def test_a_port_refuses() -> None:
    async def story(world: World) -> None:
        peer = await world.gone()
        failure, took_s = await world.fails(await world.asker(peer), peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.REFUSED)]
        assert lasted(failure.attempts[0], ROUND_TRIP_S)
        assert took_s < 0.05

    play(story)


@pytest.mark.parametrize("dial_timeout_s", [3.0, 0.5])
def test_an_address_is_silent(dial_timeout_s: float) -> None:
    """Bounded: 3 s, unless it is set otherwise."""
    assert NodeConfig().dial_timeout_s == 3.0

    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer, config=NodeConfig(dial_timeout_s=dial_timeout_s))
        with world.hosts[peer].block_inbound("drop"):
            failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.SILENT)]
        assert lasted(failure.attempts[0], dial_timeout_s)
        assert took_s == pytest.approx(dial_timeout_s, abs=0.002)

    play(story)


def test_a_port_accepts_and_says_nothing() -> None:
    async def story(world: World) -> None:
        peer = await world.gone()
        async with stranger(world, peer, lambda _reader, _writer: asyncio.sleep(60)):
            failure, took_s = await world.fails(await world.asker(peer), peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.NO_HANDSHAKE)]
        assert took_s == pytest.approx(3, abs=0.002)

    play(story)


def test_a_port_belongs_to_somebody_who_hangs_up() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def story(world: World) -> None:
        peer = await world.gone()
        async with stranger(world, peer, hang_up):
            failure, took_s = await world.fails(await world.asker(peer), peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.LOST)]
        assert failure.attempts[0].detail == "connection reset by peer"
        assert took_s < 0.1

    play(story)


def test_an_address_belongs_to_another_node() -> None:
    async def story(world: World) -> None:
        peer = await world.gone()
        await world.node(on=world.hosts[peer])
        failure, took_s = await world.fails(await world.asker(peer), peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.HUNG_UP)]
        assert took_s < 0.1

    play(story)


@pytest.mark.parametrize(
    ("junk", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", AttemptReason.NO_FRAMES),
        (frame(b"no packet"), AttemptReason.NOT_EGTP),
    ],
)
def test_somebody_at_a_port_speaks_something_else(junk: bytes, reason: AttemptReason) -> None:

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(junk)
        await asyncio.sleep(1)

    async def story(world: World) -> None:
        peer = await world.gone()
        async with stranger(world, peer, answer):
            failure, took_s = await world.fails(await world.asker(peer), peer.node_id)
        assert said(failure) == [(TCPStrat, reason)]
        assert took_s < 0.1

    play(story)


def test_somebody_at_a_port_answers_without_the_key_of_the_peer() -> None:
    """It speaks EGTP, and its response does not authenticate."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        initiation = decode_packet(await reader.readexactly(length))
        assert isinstance(initiation, Initiation)
        writer.write(frame(Response(initiation.sender_index, 1, bytes(range(1, 101))).encode()))
        await asyncio.sleep(1)

    async def story(world: World) -> None:
        peer = await world.gone()
        async with stranger(world, peer, answer):
            failure, took_s = await world.fails(await world.asker(peer), peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.NOT_PROVEN)]
        assert failure.attempts[0].detail == "the handshake does not authenticate"
        assert took_s < 0.1

    play(story)


@pytest.mark.reaches_in
@pytest.mark.parametrize("shows", ["nothing", "another's"])
def test_a_peer_known_from_somebody_elses_record_does_not_show_its_own(shows: str) -> None:
    """A relay, named by the record of who is reached through it: that its identity goes with that
    key, nobody has signed but itself, so it has to show it."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=True, lookup=None)
        hidden = await world.hidden(relay)
        asker = await world.asker(hidden)
        engine = engine_of(relay)
        nothing: Any = SimpleNamespace(sequence=0)
        engine.own_record = lambda: nothing if shows == "nothing" else hidden.record
        failure, _ = await world.fails(asker, hidden.node_id)
        assert said(failure) == [(RelayStrat, AttemptReason.RELAY_UNREACHABLE)]
        assert AttemptReason.NOT_PROVEN in failure.attempts[0].detail
        failure, _ = await world.fails(asker, relay.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.NOT_PROVEN)]
        wrong = "the responder's record is not of the peer that was dialled"
        no_record = "the peer did not show its record"
        assert failure.attempts[0].detail == (no_record if shows == "nothing" else wrong)

    play(story)


@asynccontextmanager
async def stranger(
    world: World,
    peer: Node,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[None]:
    """Somebody else listens where the peer was."""
    address = world.records[peer].tcp[0].address
    host = world.hosts[peer]

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await host.run(asyncio.start_server(served, address.host, address.port))
    yield
    server.close()


def test_an_address_failed_a_moment_ago() -> None:
    async def story(world: World) -> None:
        peer = await world.gone()
        asker = await world.asker(peer)
        await world.fails(asker, peer.node_id)
        failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.FAILED_BEFORE)]
        assert failure.attempts[0].detail == "tried again in 0.5 s"
        assert took_s == 0
        assert failure.attempts[0].duration_s == 0

    play(story)


def test_an_address_must_not_be_dialled() -> None:
    async def story(world: World) -> None:
        peer = await world.node(announce="10.0.0.1:4000")
        failure, took_s = await world.fails(await world.asker(peer), peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.PRIVATE_ADDRESS)]
        assert took_s == 0

    play(story)


def test_an_address_is_nobodys() -> None:
    async def story(world: World) -> None:
        peer, asker = await world.node(), await world.asker()
        nobody, key = TCPStrat(Address.parse("0.0.0.0:4000")), (1, peer.identity.channel_key)
        asker.add_contact(world.sign(peer, key, nobody))
        failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.NEVER_DIALLED)]
        assert took_s == 0

    play(story)


def test_the_system_knows_no_way_to_an_address() -> None:
    """This machine has no IPv6, for instance."""

    async def story(world: World) -> None:
        peer = await world.node(announce="[2001:4860::1]:4000")
        failure, took_s = await world.fails(await world.asker(peer), peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.UNREACHABLE)]
        assert failure.attempts[0].detail == "network is unreachable"
        assert took_s == 0

    play(story)


def test_a_connection_holds_less_than_a_handshake() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer, config=NodeConfig(connection_buffer_bytes_max=100))
        failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.BUFFER_FULL)]
        assert took_s == 0

    play(story)


def test_there_are_too_many_connections() -> None:
    async def story(world: World) -> None:
        peer, other = await world.node(), await world.node()
        asker = await world.asker(peer, other, config=NodeConfig(connections_max=1))
        async with world.given(asker, other.node_id):
            failure, took_s = await world.fails(asker, peer.node_id)
            assert said(failure) == [(TCPStrat, AttemptReason.TOO_MANY_CONNECTIONS)]
            assert took_s == 0

    play(story)


# Relays


def test_a_relay_cannot_be_reached() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        await world.close(relay)
        failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(RelayStrat, AttemptReason.RELAY_UNREACHABLE)]
        assert "connection refused" in failure.attempts[0].detail
        assert took_s < 0.05

    play(story)


def test_a_relay_does_not_know_the_peer() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        await world.close(peer)
        failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(RelayStrat, AttemptReason.RELAY_KNOWS_NOT)]
        assert took_s < 0.1

    play(story)


def test_a_relay_has_no_room_for_a_packet() -> None:
    """The peer lost its connection, and its mailbox is full."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=RelayLimits(mailbox_packets_max=0))
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        world.hosts.pop(peer).kill()
        failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(RelayStrat, AttemptReason.RELAY_FULL)]
        assert took_s < 0.1

    play(story)


def test_the_peer_does_not_answer_through_the_relay() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        with world.network.partition([world.hosts[relay]], [world.hosts[peer]]):
            failure, took_s = await world.fails(asker, peer.node_id)
            assert said(failure) == [(RelayStrat, AttemptReason.RELAY_SILENT)]
            assert took_s == pytest.approx(3 + 2 * ROUND_TRIP_S, abs=0.01)

    play(story)


def test_the_relay_is_lost_while_it_is_waited_for() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        with world.network.partition([world.hosts[relay]], [world.hosts[peer]]):
            failing = asyncio.ensure_future(world.fails(asker, peer.node_id))
            await asyncio.sleep(0.5)
            world.hosts.pop(relay).kill()
            failure, took_s = await failing
        assert said(failure) == [(RelayStrat, AttemptReason.RELAY_LOST)]
        assert took_s < INITIATION_AGAIN_S + 0.1

    play(story)


def test_what_travels_with_a_dial_is_past_its_time() -> None:
    """The dial ends, for a relay must hold no query for longer than its hard timeout (R24). What
    did not travel with it fails fast."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        with world.network.partition([world.hosts[relay]], [world.hosts[peer]]):
            early = asyncio.ensure_future(
                world.query(asker, peer.node_id, early=True, hard_timeout_s=0.5)
            )
            other = asyncio.ensure_future(world.query(asker, peer.node_id, early=False))
            await asyncio.wait([early, other])
        assert isinstance(early.exception(), HardTimeout)
        failure = other.exception()
        assert isinstance(failure, FastFail)
        assert said(failure) == [(RelayStrat, AttemptReason.TOO_LATE)]

    play(story)


def test_this_node_is_the_only_relay_of_the_peer() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True, lookup=None)
        peer = await world.hidden(relay)
        record = peer.record
        await world.close(peer)
        relay.add_contact(record)
        failure, took_s = await world.fails(relay, peer.node_id)
        assert said(failure) == [(RelayStrat, AttemptReason.RELAY_IS_AN_END)]
        assert took_s == 0

    play(story)


# Everything at once


def test_every_attempt_is_listed_with_strategy_reason_and_duration() -> None:
    """Two addresses, a relay and the lookup: four attempts, in the order of their ends."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        hidden = await world.hidden(relay)
        refuses, silent = await world.gone(), await world.node()
        through = hidden.record.relays[0]
        identity = hidden.identity
        addresses = (*world.records[silent].tcp, *world.records[refuses].tcp)
        record = world.sign(hidden, (1, identity.channel_key), *addresses, through)
        await world.close(hidden)
        asker = await world.asker(lookup=world.lookup)
        asker.add_contact(record)
        with world.hosts[silent].block_inbound("drop"):
            failure, took_s = await world.fails(asker, identity.node_id)
        looked_up, refused, by_relay, no_answer = failure.attempts
        assert refused.strategy == world.records[refuses].tcp[0]
        assert refused.reason is AttemptReason.REFUSED
        assert lasted(refused, ROUND_TRIP_S)
        assert by_relay.strategy == through
        assert by_relay.reason is AttemptReason.RELAY_KNOWS_NOT
        assert lasted(by_relay, 3 * ROUND_TRIP_S)
        assert no_answer.strategy == world.records[silent].tcp[0]
        assert no_answer.reason is AttemptReason.SILENT
        assert lasted(no_answer, 3)
        assert (looked_up.strategy, lasted(looked_up, 0)) == (None, True)
        assert looked_up.reason is AttemptReason.SUPERSEDED
        assert took_s == pytest.approx(3, abs=0.002)
        for attempt in failure.attempts:
            assert str(attempt) in str(failure)
            assert attempt in asker.why(identity.node_id).attempts

    play(story)


# The peer is away


def test_the_peer_asked_to_be_left_alone() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id):
            closing = world.hosts[peer].spawn(peer.close(drain_s=5))
            await asyncio.sleep(ROUND_TRIP_S)
            failure, took_s = await world.fails(asker, peer.node_id, reason=FastFailReason.AWAY)
            assert "asked to be left alone" in failure.summary
            assert (failure.attempts, took_s) == ((), 0)
        await closing

    play(story)


# Limits of this node and of the peer


def test_the_body_is_too_large_for_this_node() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer, config=NodeConfig(body_bytes_max=1000))
        failure, took_s = await world.fails(
            asker, peer.node_id, bytes(1001), FastFailReason.TOO_LARGE
        )
        assert "1001 bytes, at most 1000" in failure.summary
        assert (failure.attempts, took_s) == ((), 0)
        assert not asker.why(peer.node_id).paths, "nobody was dialled for it"

    play(story)


def test_the_body_is_too_large_for_the_peer() -> None:
    async def story(world: World) -> None:
        peer = await world.node(config=NodeConfig(body_bytes_max=1000))
        asker = await world.asker(peer)
        failure, _ = await world.fails(asker, peer.node_id, bytes(2000), FastFailReason.TOO_LARGE)
        assert "takes 1000 bytes" in failure.summary
        assert await world.query(asker, peer.node_id, body=bytes(1000)) == bytes(1000)

    play(story)


def test_too_many_queries_are_open_here() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer, config=NodeConfig(exchanges_max=1))
        async with world.given(asker, peer.node_id):
            failure, took_s = await world.fails(
                asker, peer.node_id, reason=FastFailReason.TOO_MANY_OPEN
            )
            assert "exchanges_max" in failure.summary
            assert took_s == 0

    play(story)


def test_too_many_queries_are_open_for_the_peer() -> None:
    async def story(world: World) -> None:
        peer = await world.node(config=NodeConfig(open_queries_max=1))
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id):
            failure, took_s = await world.fails(
                asker, peer.node_id, reason=FastFailReason.TOO_MANY_OPEN
            )
            assert "takes 1 open queries" in failure.summary
            assert took_s == 0

    play(story)


def test_too_much_waits_for_a_way_to_the_peer() -> None:
    async def story(world: World) -> None:
        asker = await world.asker(lookup=Hanging(), config=NodeConfig(waiting_bytes_max=1000))
        unknown = NodeId(bytes(20))
        waits = asyncio.ensure_future(world.query(asker, unknown, body=bytes(800)))
        await asyncio.sleep(0.1)
        failure, took_s = await world.fails(
            asker, unknown, bytes(800), FastFailReason.TOO_MUCH_WAITS
        )
        assert "waiting_bytes_max" in failure.summary
        assert took_s == 0
        assert isinstance((await asyncio.gather(waits, return_exceptions=True))[0], FastFail)

    play(story)


def test_too_much_waits_on_the_way_to_the_peer() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(
            peer, config=NodeConfig(waiting_bytes_max=100_000, send_bytes_per_s=1000)
        )
        await world.query(asker, peer.node_id)
        waits = [
            asyncio.ensure_future(
                world.query(asker, peer.node_id, body=bytes(60_000), hard_timeout_s=2)
            )
        ]
        await asyncio.sleep(0.1)
        failure, took_s = await world.fails(
            asker, peer.node_id, bytes(90_000), FastFailReason.TOO_MUCH_WAITS
        )
        assert "waiting_bytes_max" in failure.summary
        assert took_s == 0
        await asyncio.gather(*waits, return_exceptions=True)

    play(story)


def test_a_send_finds_no_way_in_its_time() -> None:
    async def story(world: World) -> None:
        asker = await world.asker(lookup=Hanging())
        began_s = world.now_s
        with pytest.raises(FastFail) as failed:
            await world.hosts[asker].run(asker.send(NodeId(bytes(20)), "echo", hard_timeout_s=2))
        assert failed.value.reason is FastFailReason.NO_TIME
        assert world.now_s - began_s == pytest.approx(2, abs=0.001)
        assert kept(asker) == []

    play(story)


def test_an_errand_of_a_node_that_is_closed() -> None:
    """Its callers get NodeClosed; what the engine itself still wants to do fails fast."""

    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        await world.close(asker)
        with pytest.raises(NodeClosed):
            await world.query(asker, peer.node_id)
        engine = engine_of(asker)
        with pytest.raises(FastFail) as failed:
            await engine.connect(engine.book.get(peer.node_id))
        assert failed.value.reason is FastFailReason.CLOSED

    play(story)


# What never fails fast: some copy was given to a socket (R21)


def test_the_connection_is_reset_and_the_port_then_refuses() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id) as query:
            world.hosts.pop(peer).kill()
            await asyncio.sleep(4)
            assert not query.done()
            why = asker.why(peer.node_id)
            assert any(one.reason is AttemptReason.REFUSED for one in why.attempts), str(why)
        timed_out(query)

    play(story)


def test_the_peer_goes_silent() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id, hard_timeout_s=30) as query:
            with world.network.partition([world.hosts[asker]], [world.hosts[peer]]):
                await asyncio.sleep(25)
                assert not query.done()
                assert not asker.why(peer.node_id).paths
                assert asker.counters["path given up: silent"] == 1
                await asyncio.wait([query])
        timed_out(query)

    play(story)


def test_the_peer_says_goodbye() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id) as query:
            await world.close(peer)
        timed_out(query)

    play(story)


def test_the_lookup_says_that_there_is_no_such_peer() -> None:
    """After the path was lost, all that is known is looked up anew, and nothing is found."""

    async def story(world: World) -> None:
        peer = await world.node(lookup=None)
        asker = await world.asker(peer, lookup=world.lookup)
        async with world.given(asker, peer.node_id) as query:
            await world.close(peer)
            await asyncio.sleep(1)
            reasons = [attempt.reason for attempt in asker.why(peer.node_id).attempts]
            assert AttemptReason.NOT_FOUND in reasons
        timed_out(query)

    play(story)


def test_the_relay_dies_after_it_took_the_packet() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id) as query:
            await world.close(relay)
            await asyncio.sleep(1)
            (failed,) = asker.why(peer.node_id).attempts
            assert failed.reason is AttemptReason.RELAY_UNREACHABLE
        timed_out(query)

    play(story)


def test_the_relay_says_that_it_does_not_know_the_peer() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id, hard_timeout_s=20) as query:
            await world.close(peer)
            await asyncio.sleep(15)
            server = relay.relay_server
            assert server is not None
            assert server.counters["dropped: no lease"]
        timed_out(query)

    play(story)


@pytest.mark.reaches_in
def test_the_relay_lies_about_every_packet_it_was_given() -> None:
    """It passes them on, and says of each that it does not know the peer."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        engine = engine_of(relay)
        passed_on = engine.relaying.server.relay

        def lie(sender: NodeId, body: bytes, age_ms: int) -> None:
            passed_on(sender, body, age_ms)
            if sender == asker.node_id and world.called.is_set():
                hint = Hint(digest_of(Relay.decode(body).packet), NO_LEASE).encode()
                engine.relaying.say(engine.book.find(sender).direct, HINT_KIND, hint, 1000)

        engine.relaying.server.relay = lie
        async with world.given(asker, peer.node_id) as query:
            other = asyncio.ensure_future(world.query(asker, peer.node_id, body=b"y"))
            await asyncio.sleep(1)
            assert asker.counters["dropped: hint about nothing we wait for"]
            assert other.result() == b"y"
        timed_out(query)

    play(story)


def test_the_peer_says_that_it_does_not_know_the_session() -> None:
    """It was started again behind its relay, so it cannot know, and nobody does."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id, hard_timeout_s=30) as query:
            world.hosts[peer].kill()
            introductions = [Introduction(relay.node_id, relay.record)]
            await world.node(
                identity=peer.identity,
                listens=False,
                on=world.hosts.pop(peer),
                discovery=StaticDiscovery(introductions),
            )
        assert isinstance(query.exception(), OutcomeUnknown)

    play(story)


def test_the_peer_was_restarted_and_takes_only_smaller_bodies() -> None:
    """What would be a fast fail for a new query is not one for a query that was given before."""

    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        large = world.query(
            asker, peer.node_id, "wait", bytes(5000), hard_timeout_s=20, idempotent=True
        )
        query = asyncio.ensure_future(large)
        await world.called.wait()
        host = world.hosts.pop(peer)
        host.kill()
        again = await world.node(
            identity=peer.identity, on=host, config=NodeConfig(body_bytes_max=1000)
        )
        await asyncio.wait([query])
        error = query.exception()
        assert isinstance(error, OutcomeUnknown)
        assert "takes 1000 bytes" in str(error)
        assert again.node_id == peer.node_id

    play(story)


def test_early_data_was_taken_by_whoever_it_is() -> None:
    """It travelled with the dial, and the dial then failed."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async def story(world: World) -> None:
        peer = await world.gone()
        asker = await world.asker(peer)
        async with stranger(world, peer, take):
            with pytest.raises(HardTimeout) as timeout:
                await world.query(asker, peer.node_id, early=True, hard_timeout_s=5)
        assert timeout.value.may_have_run

    play(story)


def test_the_limits_of_this_node_do_not_end_what_was_given() -> None:
    """A given query waits for a way again, though as much waits as may."""

    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer, config=NodeConfig(waiting_bytes_max=1000))
        async with world.given(asker, peer.node_id, body=bytes(900)) as query:
            other = asyncio.ensure_future(
                world.query(asker, peer.node_id, "wait", bytes(900), hard_timeout_s=6)
            )
            await asyncio.sleep(1)
            await world.close(peer)
            await asyncio.sleep(1)
            assert not query.done()
            assert not other.done()
        await asyncio.wait([other])
        timed_out(query)
        timed_out(other)

    play(story)


def test_this_node_is_closed_while_the_query_is_open() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id) as query:
            await world.close(asker)
        error = query.exception()
        assert isinstance(error, NodeClosed)
        assert error.may_have_run

    play(story)


def test_the_peer_refuses_to_run_it() -> None:
    """That is an answer: it is the peer that says so, and says it of one query."""

    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        with pytest.raises(HandlerFailed) as failed:
            await world.query(asker, peer.node_id, "nothing")
        assert failed.value.code == ReplyCode.NO_SUCH_KIND

    play(story)


def test_time_is_over_while_a_way_is_searched_for() -> None:
    """A hard timeout is one even if nothing was given to a socket, which it says."""

    async def story(world: World) -> None:
        asker = await world.asker(lookup=Hanging())
        with pytest.raises(HardTimeout) as timeout:
            await world.query(asker, NodeId(bytes(20)), hard_timeout_s=2)
        assert not timeout.value.may_have_run

    play(story)


# On real sockets


async def test_a_port_of_this_machine_refuses_within_50_ms(start: Start) -> None:
    node, asker = await start(), await start(listen=())
    address = node.record.tcp[0].address
    await node.close()
    best_s = 1.0
    for _ in range(5):
        began_s = time.perf_counter()
        with pytest.raises(FastFail) as failed:
            await asker.query(node.node_id, "echo")
        best_s = min(best_s, time.perf_counter() - began_s)
        assert failed.value.attempts[0].reason is AttemptReason.REFUSED
        engine = engine_of(asker)
        engine.dialler.backoff.worked(address)
    assert best_s < 0.05


async def test_a_real_connection_is_reset_after_the_query_was_written(start: Start) -> None:
    node, asker = await start(), await start(listen=())
    called = asyncio.Event()

    @node.handler("wait")
    async def wait(query: Incoming) -> bytes:
        called.set()
        await asyncio.Event().wait()
        return b""

    query = asker.open_query(node.node_id, "wait", hard_timeout_s=0.5)
    await called.wait()
    engine = engine_of(node)
    engine.comms._listeners.close()  # the port refuses before the asker can come back
    engine.comms.drop_all("a test")
    await node.close()
    with pytest.raises(HardTimeout) as timeout:
        await query
    assert timeout.value.may_have_run

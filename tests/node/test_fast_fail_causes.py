"""Why a message fails fast: the first table of docs/outcomes.md.

A fast fail says that no copy of the message was ever given to a socket (R20). In virtual time, so
that durations are exact; the last one is on a real socket.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from egtp import (
    AttemptReason,
    FastFail,
    FastFailReason,
    LookupFailed,
    LookupFailure,
    MemoryLookup,
    NodeClosed,
    NodeConfig,
    NodeId,
    SignedCommRecord,
    TCPStrat,
)
from tests.lab import kept
from tests.node.at_hand import Start, engine_of
from tests.node.failing import ROUND_TRIP_S, Hanging, World, lasted, play, said

# Nothing known


def test_nothing_known_and_no_lookup_service() -> None:
    async def story(world: World) -> None:
        asker = await world.asker()
        failure, took_s = await world.fails(asker, NodeId(bytes(20)))
        assert (failure.attempts, took_s) == ((), 0)
        assert failure.summary.endswith(": nothing is known of it, and there is no lookup service")

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
        assert failure.summary.endswith(": its record names none")
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
        assert failure.summary.endswith(": its record names no channel key that can be used here")

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
        with pytest.raises(FastFail) as failed:
            await world.hosts[asker].run(asker.send(peer.node_id, "echo", bytes(1001)))
        assert failed.value.reason is FastFailReason.TOO_LARGE
        assert not asker.why(peer.node_id).paths, "nobody was dialled for it"

    play(story)


def test_the_body_is_too_large_for_the_peer() -> None:
    async def story(world: World) -> None:
        peer = await world.node(config=NodeConfig(body_bytes_max=1000))
        asker = await world.asker(peer)
        failure, _ = await world.fails(asker, peer.node_id, bytes(1001), FastFailReason.TOO_LARGE)
        assert "takes at most 1000 bytes" in failure.summary
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
            assert "it takes at most 1" in failure.summary
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


# On a real socket


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

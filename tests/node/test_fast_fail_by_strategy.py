"""Why a message fails fast at an address, or through a relay: rows of the first table of
docs/outcomes.md. In virtual time, so that durations are exact.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from egtp import (
    Address,
    AttemptReason,
    HardTimeout,
    NodeConfig,
    RelayLimits,
    RelayStrat,
    TCPStrat,
)
from egtp.channel.frames import frame
from egtp.channel.packet import Initiation, Response, decode_packet
from egtp.reaching.dialling import INITIATION_AGAIN_S
from tests.node.at_hand import engine_of
from tests.node.failing import ROUND_TRIP_S, World, lasted, play, said, stranger

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


def test_an_address_failed_a_moment_ago() -> None:
    async def story(world: World) -> None:
        peer = await world.gone()
        asker = await world.asker(peer)
        await world.fails(asker, peer.node_id)
        failure, took_s = await world.fails(asker, peer.node_id)
        assert said(failure) == [(TCPStrat, AttemptReason.FAILED_BEFORE)]
        assert failure.attempts[0].detail == "connection refused, tried again in 0.5 s"
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


def test_on_one_line_with_others_it_is_clear_which_attempts_are_those_for_a_relay() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer, lookup=world.lookup)
        await world.close(relay)
        failure, _ = await world.fails(asker, peer.node_id)
        _, *attempts = str(failure).split("; ")
        assert len(attempts) == len(failure.attempts) > 1
        (of_relay,) = [it for it in attempts if it.startswith(f"relay {relay.node_id}: ")]
        assert ": connection refused (20 ms), lookup: no record newer than the one " in of_relay
        assert of_relay.count(str(relay.node_id)) == 1

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


def test_a_query_past_its_time_does_not_end_the_dial_for_the_others() -> None:
    """A relay must hold no query for longer than its hard timeout (R24), so the dial that it
    travels with ends; but another one takes its place, until the relay has had all of its time."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        with world.network.partition([world.hosts[relay]], [world.hosts[peer]]):
            early = asyncio.ensure_future(
                world.query(asker, peer.node_id, early=True, hard_timeout_s=0.5)
            )
            failure, took_s = await world.fails(asker, peer.node_id, early=False)
            assert isinstance(early.exception(), HardTimeout)
        assert said(failure) == [(RelayStrat, AttemptReason.RELAY_SILENT)]
        assert took_s == pytest.approx(3 + 2 * ROUND_TRIP_S, abs=0.01)

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

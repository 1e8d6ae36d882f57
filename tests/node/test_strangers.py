"""Crowds and recordings: what somebody can do who has no identity worth anything.

Single pieces of garbage are in ``test_bad_input.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from egtp import (
    Address,
    CommRecord,
    Identity,
    Incoming,
    Node,
    SignedCommRecord,
    TCPStrat,
)
from tests.node.at_hand import Eventually, MakeProxy, Start, direct_path, engine_of

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[Node], Awaitable[Streams]]


def with_address(node: Node, address: str) -> SignedCommRecord:
    """The node's record as if it listened somewhere else."""
    content = node.record.content
    assert content is not None
    there = (TCPStrat(Address.parse(address)),)
    moved = CommRecord(content.expiry_unix_s, content.incarnation, content.channels, there)
    return SignedCommRecord.sign(node.identity, node.record.sequence + 1, moved)


@pytest.fixture
async def dial(problems: list[dict[str, Any]]) -> AsyncIterator[Dial]:
    """A bare TCP connection to a node."""
    writers: list[asyncio.StreamWriter] = []

    async def connect(node: Node) -> Streams:
        host, port = node.listening[0].rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes or resets the connection."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


# Crowds


@pytest.mark.parametrize("length", [16 * 1024 + 1, 65_535, 2**31])
async def test_no_frame_above_16_kib_is_taken_from_a_stranger(
    attacked: Node, bystander: Node, dial: Dial, length: int
) -> None:
    reader, writer = await dial(attacked)
    writer.write(struct.pack(">I", length))
    started = time.monotonic()
    assert await read_to_end(reader) == b""
    assert time.monotonic() - started < 0.25, "closed for its silence only"
    assert attacked.counters["dropped: a frame of a length that is not allowed"] == 1


async def test_a_byte_now_and_then_does_not_keep_a_connection_open(
    attacked: Node, bystander: Node, dial: Dial
) -> None:
    reader, writer = await dial(attacked)
    started = time.monotonic()
    writer.write(struct.pack(">I", 1000))
    end = asyncio.ensure_future(read_to_end(reader))
    while not end.done() and time.monotonic() - started < 2:
        writer.write(b"x")
        await asyncio.wait([end], timeout=0.02)
    assert time.monotonic() - started < 1.5
    await end


async def test_nothing_is_reserved_for_a_frame_that_is_only_promised(
    attacked: Node, bystander: Node, dial: Dial, eventually: Eventually
) -> None:
    reader, writer = await dial(attacked)
    writer.write(struct.pack(">I", 16 * 1024) + b"x")
    held: list[int] = []

    def arrived() -> bool:
        connections = engine_of(attacked).comms.all()
        held[:] = [c.half_frame_bytes for c in connections if c.half_frame_bytes]
        return bool(held)

    await eventually(arrived)
    assert held == [5]
    await read_to_end(reader)


async def test_a_flood_of_connections_is_bounded_and_passes(
    attacked: Node, bystander: Node, dial: Dial, start: Start, eventually: Eventually
) -> None:
    flood = [await dial(attacked) for _ in range(100)]
    await eventually(lambda: attacked.counters["connection refused: too many unproven"] >= 92)
    assert len(engine_of(attacked).comms) <= 8 + 1
    # When their time to prove somebody is over, others are let in again.
    for reader, _ in flood:
        await read_to_end(reader)
    newcomer = await start(listen=())
    assert await newcomer.query(attacked.node_id, "greet") == b"hello "


async def test_peers_that_are_proven_take_no_places_of_strangers(
    attacked: Node, start: Start
) -> None:
    for _ in range(12):
        peer = await start(listen=())
        assert await peer.query(attacked.node_id, "greet") == b"hello "
    assert len(engine_of(attacked).comms) == 12


# Recordings


async def test_a_replayed_connection_runs_no_handler_again(
    attacked: Node, bystander: Node, dial: Dial, start: Start, proxy: MakeProxy
) -> None:
    told: list[bytes] = []

    @attacked.handler("tell")
    async def tell(message: Incoming) -> bytes:
        told.append(message.body)
        return b""

    between = await proxy(attacked.listening[0])
    client = await start(listen=(), lookup=None)
    client.add_contact(with_address(attacked, between.address))
    await client.query(attacked.node_id, "tell", b"once")
    await client.send(attacked.node_id, "tell", b"a send")
    await client.query(attacked.node_id, "tell", b"twice")
    await client.close()
    assert told == [b"once", b"a send", b"twice"]
    for _ in range(5):
        reader, writer = await dial(attacked)
        writer.write(bytes(between.captured[0]))
        await read_to_end(reader)
    assert told == [b"once", b"a send", b"twice"]
    peer = engine_of(attacked).book.find(client.node_id)
    assert peer is None or not peer.paths, "a recording has made a route"


async def test_a_recording_takes_nothing_from_the_living_client(
    attacked: Node, bystander: Node, dial: Dial, start: Start, proxy: MakeProxy
) -> None:
    between = await proxy(attacked.listening[0])
    client = await start(listen=(), lookup=None)
    client.add_contact(with_address(attacked, between.address))
    await client.query(attacked.node_id, "greet")
    paths = direct_path(client, attacked), direct_path(attacked, client)
    for _ in range(3):
        reader, writer = await dial(attacked)
        writer.write(bytes(between.captured[0]))
        await read_to_end(reader)
        assert await client.query(attacked.node_id, "greet", b"me") == b"hello me"
    assert (direct_path(client, attacked), direct_path(attacked, client)) == paths


async def test_recorded_initiations_do_not_keep_their_maker_out(
    start: Start, dial: Dial, proxy: MakeProxy, greeter: Node
) -> None:
    """Whoever recorded a few initiations of a peer can replay them for ever: each is answered,
    since nobody can tell it from a first one. The peer itself must still get in beside them."""
    victim = Identity.generate(os.urandom)
    recordings = []
    for _ in range(3):
        between = await proxy(greeter.listening[0])
        client = await start(victim, listen=(), lookup=None)
        client.add_contact(with_address(greeter, between.address))
        await client.query(greeter.node_id, "greet")
        await client.close()
        recordings.append(bytes(between.captured[0]))
    for recording in recordings:
        reader, writer = await dial(greeter)
        (length,) = struct.unpack_from(">I", recording)
        writer.write(recording[: 4 + length])
        # A response has come, or the connection was closed.
        async with asyncio.timeout(2):
            await reader.read(4)
    client = await start(victim, listen=(), lookup=None)
    client.add_contact(greeter.record)
    assert await client.query(greeter.node_id, "greet", hard_timeout_s=2) == b"hello "

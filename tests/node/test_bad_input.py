"""What strangers send to a node's TCP port: dropped, counted, and nobody else is disturbed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from egtp import CommRecord, Identity, Node, NodeConfig, SignedCommRecord
from egtp.channel.frames import frame
from egtp.channel.sealed import ItemType, item
from egtp.queries.outgoing import Outgoing
from egtp.values.message import Reply
from tests.node.at_hand import Held, Start, engine_of


async def throw(node: Node, data: bytes) -> bytes:
    """Send ``data`` to the node's port as a stranger; what comes back until it hangs up."""
    host, _, port = node.listening[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    try:
        async with asyncio.timeout(8):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        os.urandom(4096),
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(4),
        (2**32 - 1).to_bytes(4, "big"),
        frame(os.urandom(200)),
        frame(b"\x01\x01\x01\0" + os.urandom(300)),
        frame(b"\x02\x01\x01\0" + os.urandom(300)),
        frame(b"\x03\x01\x01\0" + os.urandom(300)),
        frame(b"\x04\x01\x01\0" + os.urandom(24)),
    ],
    ids=["noise", "http", "empty", "4 GiB", "packet", "initiation", "response", "data", "note"],
)
async def test_garbage_is_counted_and_gets_no_answer(
    greeter: Node, start: Start, data: bytes
) -> None:
    other = await start(listen=())
    conversation = asyncio.gather(*(other.query(greeter.node_id, "greet") for _ in range(50)))
    answer = await throw(greeter, data)
    assert answer == b""
    assert sum(greeter.counters.values()) == 1, greeter.counters
    assert await conversation == [b"hello "] * 50
    assert await other.query(greeter.node_id, "greet") == b"hello "


async def test_half_a_frame_and_then_silence_is_closed_in_time(
    start: Start, config: Callable[..., NodeConfig]
) -> None:
    node = await start(config=config(prove_timeout_s=0.2, clean_up_interval_s=0.05))
    assert await throw(node, frame(bytes(100))[:50]) == b""
    assert node.counters == {"connection closed: proved nobody in time": 1}


def record_of(identity: Identity, sequence: int, expiry_unix_s: int) -> SignedCommRecord:
    content = CommRecord(expiry_unix_s, bytes(8), ((1, identity.channel_key),))
    return SignedCommRecord.sign(identity, sequence, content)


async def pushed(
    start: Start, greeter: Node, data: bytes, identity: Identity | None = None
) -> Node:
    """A peer pushes ``data`` as its record; returns after the greeter has seen it."""
    node = await start(identity, listen=())
    await node.query(greeter.node_id, "greet")
    path = _path(node, greeter)
    path.queue_control(item(ItemType.RECORD, data))
    # In order on one connection, so the reply says that the record was seen before.
    return node


async def test_a_record_with_a_wrong_signature_is_dropped(greeter: Node, start: Start) -> None:
    identity = Identity.generate(os.urandom)
    data = bytearray(record_of(identity, 2**47, 2**40).encode())
    data[-1] ^= 1
    await pushed(start, greeter, bytes(data), identity)
    await _counted(greeter, "dropped: the signature is wrong")


async def test_a_record_of_somebody_else_is_dropped(greeter: Node, start: Start) -> None:
    stranger = Identity.generate(os.urandom)
    await pushed(start, greeter, record_of(stranger, 2**47, 2**40).encode())
    await _counted(greeter, "dropped: pushed record of somebody else")
    assert greeter.why(stranger.node_id).record is None


async def test_a_record_that_is_no_news_is_not_verified(
    greeter: Node, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity.generate(os.urandom)
    news = record_of(identity, 2**47, 2**40).encode()
    node = await pushed(start, greeter, news, identity)
    await node.query(greeter.node_id, "greet")
    assert greeter.why(node.node_id).record == SignedCommRecord.decode(news)
    verified: list[bytes] = []
    decode = SignedCommRecord.decode

    def counted(data: bytes) -> SignedCommRecord:
        verified.append(data)
        return decode(data)

    monkeypatch.setattr(SignedCommRecord, "decode", counted)
    path = _path(node, greeter)
    somebody = record_of(Identity.generate(os.urandom), 2**47, 2**40).encode()
    for data in (news, record_of(identity, 2**47 - 1, 2**40).encode(), somebody) * 10:
        path.queue_control(item(ItemType.RECORD, data))
    newer = record_of(identity, 2**47 + 1, 2**40).encode()
    path.queue_control(item(ItemType.RECORD, newer))
    await node.query(greeter.node_id, "greet")
    assert verified == [newer]
    assert greeter.counters["dropped: pushed record that is no news"] >= 20
    assert greeter.counters["dropped: pushed record of somebody else"] == 10


async def test_an_expired_and_an_older_record_change_nothing(greeter: Node, start: Start) -> None:
    identity = Identity.generate(os.urandom)
    node = await start(identity, listen=())
    await node.query(greeter.node_id, "greet")
    known = greeter.why(node.node_id).record
    path = _path(node, greeter)
    path.queue_control(item(ItemType.RECORD, record_of(identity, 2**47, 1000).encode()))
    path.queue_control(item(ItemType.RECORD, record_of(identity, 1, 2**40).encode()))
    assert await node.query(greeter.node_id, "greet") == b"hello "
    await _counted(greeter, "dropped: expired record")
    assert greeter.why(node.node_id).record == known


async def test_replies_with_a_wrong_reference_leave_the_query_open(
    greeter: Node, start: Start
) -> None:
    node, slow = await start(), Held(b"the true one")
    node.handle("slow", slow)
    query = greeter.open_query(node.node_id, "slow")
    await node.query(greeter.node_id, "greet")
    forged = Reply(os.urandom(16), os.urandom(32), 0, b"forged").encode()
    _path(node, greeter).queue(Outgoing(forged, 0.0))
    await _counted(greeter, "reply with unknown reference")
    assert not query.done()
    slow.go.set()
    assert await query == b"the true one"


def _path(node: Node, peer: Node) -> Any:
    engine = engine_of(node)
    found = engine.book.find(peer.node_id)
    assert found is not None
    return found.best_path


async def _counted(node: Node, reason: str) -> None:
    async with asyncio.timeout(5):
        while not node.counters[reason]:
            await asyncio.sleep(0.005)
    assert node.counters[reason] == 1

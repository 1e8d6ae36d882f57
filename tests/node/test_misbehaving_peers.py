"""Peers that have proven who they are, and then break the protocol or lie."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest

from egtp import HandlerFailed, Incoming, Node
from egtp.channel.sealed import CHUNK_BYTES_MAX, ItemType, item, write_chunk
from egtp.queries.outgoing import Outgoing
from egtp.relay.wire import DELIVERY_KIND, HINT_KIND, RELAY_KIND, Delivery, Hint, Relay
from egtp.values.message import Reply, ReplyCode, Send
from tests.node.at_hand import Eventually, Held, Start, direct_path, dropped, engine_of


def has_path(node: Node, peer: Node) -> bool:
    return engine_of(node).book.find(peer.node_id).direct is not None


def say(node: Node, peer: Node, message: bytes) -> None:
    """Send the bytes of any message over the connection there is."""
    direct_path(node, peer).queue(Outgoing(message, engine_of(node).now()))


@pytest.fixture
async def liar(start: Start, attacked: Node) -> Node:
    """Connected to the attacked node."""
    node = await start(listen=())
    await node.query(attacked.node_id, "greet")
    return node


@pytest.fixture
async def open_query(start: Start, attacked: Node, eventually: Eventually) -> Any:
    """(asker, its query to the attacked node, the reference, the event that lets it be answered)"""
    asker, slow = await start(), Held(b"true")
    attacked.handle("wait", slow)

    @asker.handler("hello")
    async def hello(query: Incoming) -> bytes:
        return b""

    query = asker.open_query(attacked.node_id, "wait")
    await eventually(lambda: any(exchange.given for exchange in engine_of(asker).exchanges.all()))
    (exchange,) = engine_of(asker).exchanges.all()
    await asker.query(attacked.node_id, "greet")
    return asker, query, exchange.reference, slow.go


# Streams and items


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" + os.urandom(5000), struct.pack(">I", 2**31), struct.pack(">I", 40) + bytes(40)],
    ids=["noise", "2 GiB", "zeroes"],
)
async def test_garbage_after_a_valid_handshake_ends_that_connection_only(
    attacked: Node, bystander: Node, liar: Node, eventually: Eventually, garbage: bytes
) -> None:
    (connection,) = engine_of(liar).comms.all()
    connection._transport.write(garbage)
    await eventually(lambda: not has_path(liar, attacked))
    assert dropped(attacked) == 1
    assert await liar.query(attacked.node_id, "greet") == b"hello "


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (77, b"x"),
        (ItemType.CHUNK, b"short"),
        (ItemType.CHUNK, struct.pack(">III", 1, 100, 50) + b"x"),
        (ItemType.CHUNK, struct.pack(">III", 1, 2**32 - 1, 0) + b"x"),
        (ItemType.CHUNK, struct.pack(">III", 1, 1, 0) + b"too much"),
        (ItemType.RECORD, b"garbage"),
    ],
)
async def test_an_item_that_breaks_the_protocol_ends_that_connection_only(
    attacked: Node, bystander: Node, liar: Node, eventually: Eventually, kind: int, data: bytes
) -> None:
    direct_path(liar, attacked).queue_control(item(kind, data))
    await eventually(lambda: dropped(attacked) == 1)
    await eventually(lambda: not has_path(liar, attacked))


@pytest.mark.parametrize("kind", [0x8F, 0xFE, ItemType.PADDING])
async def test_an_item_of_a_later_version_that_may_be_skipped_is_skipped(
    attacked: Node, bystander: Node, liar: Node, kind: int
) -> None:
    path = direct_path(liar, attacked)
    path.queue_control(item(kind, os.urandom(50)))
    assert await liar.query(attacked.node_id, "greet", b"on") == b"hello on"
    assert direct_path(liar, attacked) is path


@pytest.mark.parametrize(
    "data", [b"", bytes(3), bytes(4) + b"garbage", bytes(4) + b"\x93\x03\x01\x02"]
)
async def test_a_message_that_is_none_is_dropped_and_the_connection_stays(
    attacked: Node, bystander: Node, liar: Node, eventually: Eventually, data: bytes
) -> None:
    path = direct_path(liar, attacked)
    path.queue_control(item(ItemType.MESSAGE, data))
    await eventually(lambda: dropped(attacked) == 1)
    assert await liar.query(attacked.node_id, "greet") == b"hello "
    assert direct_path(liar, attacked) is path


@pytest.mark.parametrize("size", [50, 20_000])
async def test_what_came_in_chunks_and_is_no_message_is_dropped_and_the_connection_stays(
    attacked: Node, bystander: Node, liar: Node, eventually: Eventually, size: int
) -> None:
    path = direct_path(liar, attacked)
    for offset in range(0, size, CHUNK_BYTES_MAX):
        data = bytes(min(CHUNK_BYTES_MAX, size - offset))
        path.queue_control(write_chunk(1, size, offset, data))
    await eventually(lambda: dropped(attacked) == 1)
    assert await liar.query(attacked.node_id, "greet") == b"hello "
    assert direct_path(liar, attacked) is path


async def test_promises_of_large_messages_are_limited_in_number(
    attacked: Node, bystander: Node, liar: Node, eventually: Eventually
) -> None:
    for number in range(65):
        chunk = struct.pack(">III", number, 16 * 1024 * 1024, 0) + b"x"
        direct_path(liar, attacked).queue_control(item(ItemType.CHUNK, chunk))
    await eventually(lambda: not has_path(liar, attacked))
    assert attacked.counters["dropped: too many messages under way in chunks"] == 1


# Replies


async def test_a_reply_of_the_wrong_peer_leaves_the_query_open(
    attacked: Node, bystander: Node, liar: Node, open_query: Any, eventually: Eventually
) -> None:
    asker, query, reference, release = open_query
    await liar.query(asker.node_id, "hello")
    say(liar, asker, Reply(os.urandom(16), reference, ReplyCode.OK, b"forged").encode())
    await eventually(lambda: asker.counters["reply from the wrong peer"] == 1)
    assert not query.done()
    release.set()
    assert await query == b"true"


async def test_a_reply_that_comes_twice_counts_once(
    attacked: Node, bystander: Node, open_query: Any, eventually: Eventually
) -> None:
    asker, query, reference, release = open_query
    for word in (b"first", b"second"):
        say(attacked, asker, Reply(os.urandom(16), reference, ReplyCode.OK, word).encode())
    assert await query == b"first"
    await eventually(lambda: asker.counters["reply with unknown reference"] == 1)
    release.set()
    await eventually(lambda: asker.counters["reply with unknown reference"] == 2)


async def test_an_unknown_reply_code_means_that_the_handler_failed(
    attacked: Node, bystander: Node, open_query: Any
) -> None:
    asker, query, reference, release = open_query
    say(attacked, asker, Reply(os.urandom(16), reference, 55, b"").encode())
    with pytest.raises(HandlerFailed) as failed:
        await query
    assert failed.value.code == ReplyCode.HANDLER_ERROR
    release.set()


async def test_a_reply_larger_than_asked_for_leaves_the_query_open(
    attacked: Node, bystander: Node, open_query: Any, eventually: Eventually
) -> None:
    asker, query, reference, release = open_query
    (exchange,) = engine_of(asker).exchanges.all()
    exchange.reply_bytes_max = 10
    say(attacked, asker, Reply(os.urandom(16), reference, ReplyCode.OK, bytes(11)).encode())
    await eventually(lambda: asker.counters["reply larger than asked for"] == 1)
    release.set()
    assert await query == b"true"


async def test_nobody_cancels_the_query_of_somebody_else(
    attacked: Node, bystander: Node, liar: Node, open_query: Any
) -> None:
    _, query, reference, release = open_query
    direct_path(liar, attacked).queue_control(item(ItemType.CANCEL, reference))
    await liar.query(attacked.node_id, "greet")
    assert attacked.counters["cancelled by the asker"] == 0
    release.set()
    assert await query == b"true"


# Relay messages of those who are no relays


async def test_a_delivery_of_a_relay_that_was_not_chosen_is_dropped(
    attacked: Node, bystander: Node, start: Start, eventually: Eventually
) -> None:
    pusher = await start(listen=(), relay_server=True)
    await pusher.query(attacked.node_id, "greet")
    body = Delivery(bystander.node_id, os.urandom(100)).encode()
    say(pusher, attacked, Send(os.urandom(16), DELIVERY_KIND, 1000, body).encode())
    reason = "dropped: delivery of a relay that was not chosen"
    await eventually(lambda: attacked.counters[reason] == 1)
    assert attacked.relays == ()


async def test_a_relay_message_to_a_node_that_is_no_relay_is_dropped(
    attacked: Node, bystander: Node, liar: Node, eventually: Eventually
) -> None:
    body = Relay(bystander.node_id, 1000, os.urandom(100)).encode()
    say(liar, attacked, Send(os.urandom(16), RELAY_KIND, 1000, body).encode())
    await eventually(lambda: attacked.counters["dropped: not a relay server"] == 1)


async def test_a_hint_about_nothing_is_dropped(
    attacked: Node, bystander: Node, liar: Node, eventually: Eventually
) -> None:
    body = Hint(os.urandom(16), 1).encode()
    say(liar, attacked, Send(os.urandom(16), HINT_KIND, 1000, body).encode())
    await eventually(lambda: attacked.counters["dropped: hint about nothing we wait for"] == 1)


@pytest.mark.parametrize("kind", [RELAY_KIND, DELIVERY_KIND, HINT_KIND])
async def test_a_relay_body_that_is_none_is_dropped_and_the_connection_stays(
    attacked: Node, bystander: Node, liar: Node, eventually: Eventually, kind: str
) -> None:
    path = direct_path(liar, attacked)
    say(liar, attacked, Send(os.urandom(16), kind, 1000, b"\xc1 garbage").encode())
    await eventually(lambda: dropped(attacked) == 1)
    assert await liar.query(attacked.node_id, "greet") == b"hello "
    assert direct_path(liar, attacked) is path

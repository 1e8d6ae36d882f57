"""Large messages go in two pieces, and are byte for byte what they would be in one."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.sealed import Chunk
from egtp.paths.reassembly import Reassembly, RoomForChunks
from egtp.queries import large_message
from egtp.queries.exchange import ExchangeTable
from egtp.queries.large_message import (
    LARGE_BYTES,
    LOOKS_MAX,
    Arrived,
    Arriving,
    LargeMessage,
    pack_message,
)
from egtp.values.identity import NodeId
from egtp.values.message import Message, Query, Reply, Send, decode_message, reference_of

MIB = 1024 * 1024
PEER, OTHER = NodeId(bytes(20)), NodeId(bytes(19) + b"1")
NONCES = st.binary(min_size=16, max_size=16)
KINDS = st.text("abcdefghij.", min_size=1, max_size=60).map(lambda text: "k" + text + "k")
U32 = st.integers(0, 2**32 - 1)
SIZES = st.integers(LARGE_BYTES - 3, LARGE_BYTES + 40_000)
PIECES = st.lists(st.integers(1, 30_000), max_size=12)


@st.composite
def messages(draw: st.DrawFn) -> tuple[Message, tuple[object, ...]]:
    """A message with a large body, and its fields before the body. In the nonce may be what looks
    like a body's head."""
    size = draw(SIZES)
    body = draw(st.binary(min_size=4, max_size=4)) * (size // 4 + 1)
    body = body[:size]
    nonce = draw(st.one_of(NONCES, st.just(b"\xc6" + (size + 40).to_bytes(4, "big") + bytes(11))))
    kind, lifetime_ms = draw(KINDS).replace("..", "."), draw(U32)
    match draw(st.sampled_from("qrs")):
        case "q":
            number = draw(st.integers(0, 2**64 - 1))
            query = Query(nonce, number, kind, lifetime_ms, draw(U32), body)
            return query, (1, nonce, None, number, kind, lifetime_ms, query.reply_bytes_max)
        case "r":
            reference = draw(st.binary(min_size=32, max_size=32))
            return Reply(nonce, reference, 0, body), (2, nonce, reference, 0)
        case _:
            return Send(nonce, kind, lifetime_ms, body), (3, nonce, None, kind, lifetime_ms)


def cut(data: bytes | LargeMessage, pieces: list[int]) -> list[bytes]:
    parts, at = [], 0
    for size in pieces:
        parts.append(bytes(data[at : at + size]))
        at += size
    return [part for part in (*parts, bytes(data[at : len(data)])) if part]


@given(messages(), PIECES)
def test_the_pieces_are_those_of_the_message_and_give_its_reference(
    made: tuple[Message, tuple[object, ...]], pieces: list[int]
) -> None:
    message, fields = made
    fields = (*fields, message.body)
    assert isinstance(pack_message(fields), LargeMessage) == (len(message.body) >= LARGE_BYTES)
    whole = message.encode()
    assert bytes(pack_message(fields)) == whole
    if len(message.body) < LARGE_BYTES:
        return
    told: list[bytes] = []
    large = LargeMessage(fields, told.append)
    assert len(large) == len(whole)
    # It leaves in part by one path, and then as a whole by another, or twice.
    parts = cut(large, pieces)
    assert b"".join(parts) == whole
    assert told == [reference_of(whole)]
    assert b"".join(cut(large, pieces[::-1])) == whole
    assert len(told) == 1


@given(st.integers(0, 70_000), st.integers(1, 30_000))
def test_a_message_that_begins_again_before_it_has_left_once_has_its_reference(
    left: int, size: int
) -> None:
    told: list[bytes] = []
    large = LargeMessage((3, bytes(16), None, "k", 1, bytes(LARGE_BYTES)), told.append)
    for _ in range(2):
        for at in range(0, left, size):
            assert large[at : at + size] == bytes(large)[at : at + size]
    assert not told or left + size > len(large)
    for at in range(0, len(large), size):
        assert large[at : at + size]
    assert told == [sha256(bytes(large)).digest()]


@given(messages(), PIECES, st.integers(0, 2**32 - 1))
def test_what_arrives_in_pieces_is_the_message_however_it_was_cut(
    ample_room: RoomForChunks,
    made: tuple[Message, tuple[object, ...]],
    pieces: list[int],
    age_ms: int,
) -> None:
    message, _ = made
    whole = age_ms.to_bytes(4, "big") + message.encode()
    reassembly = Reassembly(MIB, MIB, ample_room)
    at, came = 0, None
    for part in cut(whole, pieces):
        assert came is None
        came = reassembly.feed(Chunk(1, len(whole), at, part), 0.0)
        at += len(part)
        assert reassembly.held_bytes == (0 if at == len(whole) else at)
    if isinstance(came, Arrived):
        reference = reference_of(message.encode()) if isinstance(message, Query) else b""
        assert came == (age_ms, message, reference, False)
    else:
        # The first piece did not tell.
        assert came == whole
        assert pieces
        assert pieces[0] < 600


@given(messages(), st.integers(4, 200), st.integers(0, 255))
def test_what_is_no_message_is_none_in_pieces_either(
    ample_room: RoomForChunks, made: tuple[Message, tuple[object, ...]], at: int, byte: int
) -> None:
    """Exactly what is a message in one piece is one in several, and the same."""
    whole = bytearray(bytes(4) + made[0].encode())
    whole[min(at, len(whole) - 1)] = byte
    reassembly = Reassembly(MIB, MIB, ample_room)
    assert reassembly.feed(Chunk(1, len(whole), 0, bytes(whole[:16_384])), 0.0) is None
    came = reassembly.feed(Chunk(1, len(whole), 16_384, bytes(whole[16_384:])), 0.0)
    if isinstance(came, Arrived):
        assert came.message == decode_message(bytes(whole[4:]))
    else:
        assert came == whole


def large_query(table: ExchangeTable[None], peer_id: NodeId = PEER) -> LargeMessage:
    exchange = table.open(peer_id, "k", bytes(LARGE_BYTES), bytes(16), 100, 5.0, None, 0.0, None)
    assert isinstance(exchange.message, LargeMessage)
    return exchange.message


def table() -> ExchangeTable[None]:
    return ExchangeTable(Counter())


def test_a_reply_finds_a_large_query_once_that_has_left_and_not_before() -> None:
    exchanges = table()
    message = large_query(exchanges)
    (exchange,) = exchanges.all()
    reference = sha256(bytes(message)).digest()
    reply = Reply(bytes(16), reference, 0, b"done")
    assert message[:50_000]
    assert exchanges.match(PEER, reply) is None
    assert message[50_000:]
    assert exchanges.find(PEER, reference) is exchange
    assert exchange.reference == reference
    assert exchanges.match(OTHER, reply) is None
    assert exchanges.match(PEER, reply) is exchange
    assert len(exchanges) == 0


@pytest.mark.parametrize("left", [0, 50_000, 100_000])
def test_nothing_is_left_of_a_large_query_that_was_closed(left: int) -> None:
    exchanges = table()
    message = large_query(exchanges)
    (exchange,) = exchanges.all()
    assert len(message[:left]) == min(left, len(message))
    exchanges.close(exchange)
    # The rest of it leaves all the same, if its path is too far to take it back.
    assert message[:]
    assert not exchanges.is_open(exchange)
    assert not exchanges._by_reference
    assert exchanges.settled(PEER) == 1


@pytest.mark.reaches_in
@pytest.mark.parametrize("size", [256, 300, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1])
def test_a_body_of_another_size_than_it_says_or_in_a_longer_form_is_none(size: int) -> None:
    whole = bytes(4) + Send(bytes(16), "kind", 1000, bytes(size)).encode()
    assert Arriving.begin(whole, len(whole)) is not None
    for other in (-1, 1):
        assert Arriving.begin(whole, len(whole) + other) is None
    if size < LARGE_BYTES:
        head = whole[: -size - 3]
        longer = head + b"\xc6" + size.to_bytes(4, "big") + bytes(size)
        assert Arriving.begin(longer, len(longer)) is None


@pytest.mark.reaches_in
def test_a_piece_made_of_beginnings_of_bodies_is_read_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It took a millisecond for 600 bytes: half a megabyte of them a second stopped a node."""
    total, looks = 900, Counter[str]()
    piece = bytes(4) + b"\x98\x01\xc4\x10"
    while len(piece) < 516:
        piece += b"\xc5" + (total - len(piece) - 3).to_bytes(2, "big")

    def looked(data: bytes) -> Message:
        looks["at a beginning"] += 1
        return decode_message(data)

    monkeypatch.setattr(large_message, "decode_message", looked)
    assert Arriving.begin(piece, total) is None
    assert looks["at a beginning"] == LOOKS_MAX

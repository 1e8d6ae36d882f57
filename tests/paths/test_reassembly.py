"""Reassembly: whole messages or a typed error, and memory only for bytes that came."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.channel.sealed import (
    CHUNK_BYTES_MAX,
    U32_MAX,
    Chunk,
    parse_chunk,
    parse_sealed,
    write_chunk,
    write_sealed,
)
from egtp.channel.session import Session
from egtp.config import NodeConfig
from egtp.errors import InvalidPacket
from egtp.limits.shares import Shares
from egtp.paths.path import Path, PathOwner
from egtp.paths.reassembly import COMING_S, MESSAGES_MAX, Reassembly
from egtp.paths.uploads import Uploads
from egtp.queries.large_message import Arrived
from egtp.queries.outgoing import Outgoing
from egtp.values.comm_strat import Address, Carrier, TCPStrat
from egtp.values.identity import NodeId
from egtp.values.message import Query, Reply, Send, reference_of

MIB = 1024 * 1024


class Room:
    """So many bytes, and every reply is awaited, or none."""

    is_strangers = True

    def __init__(self, left: int = U32_MAX, *, awaited: bool = True) -> None:
        self.left = left
        self.awaited = awaited

    def take_room(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True

    def give_room_back(self, size: int) -> None:
        self.left += size

    def is_awaited(self, reply: Reply) -> bool:
        return self.awaited


def reassembly_of(bytes_max: int, message_bytes_max: int, room: Room | None = None) -> Reassembly:
    return Reassembly(bytes_max, message_bytes_max, room or Room())


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=400), st.integers(1, 100)), min_size=1, max_size=8
    ),
    st.randoms(use_true_random=False),
)
def test_messages_come_out_whole_however_their_chunks_are_interleaved(
    messages: list[tuple[bytes, int]], order: random.Random
) -> None:
    left = {
        number: [
            Chunk(number, len(data), offset, data[offset : offset + step])
            for offset in range(0, len(data), step)
        ]
        for number, (data, step) in enumerate(messages)
    }
    total = sum(len(data) for data, _ in messages)
    reassembly = reassembly_of(total, max(len(data) for data, _ in messages))
    held = dict.fromkeys(left, 0)
    whole = {}
    while left:
        number = order.choice(list(left))
        chunk = left[number].pop(0)
        held[number] += len(chunk.data)
        message = reassembly.feed(chunk, 0.0)
        if not left[number]:
            del left[number]
            held[number] = 0
            assert message is not None
            whole[number] = message
        else:
            assert message is None
        assert reassembly.held_bytes == sum(held.values())
    assert whole == {number: data for number, (data, _) in enumerate(messages)}
    assert not reassembly._parts


class ReassemblyMachine(RuleBasedStateMachine):
    """A hostile sender: anything may come, and the limits hold."""

    BYTES_MAX = 300
    MESSAGE_BYTES_MAX = 200

    def __init__(self) -> None:
        super().__init__()
        self.reassembly = reassembly_of(self.BYTES_MAX, self.MESSAGE_BYTES_MAX)
        self.model: dict[int, tuple[int, bytes]] = {}

    @rule(
        message_id=st.integers(0, 5),
        total=st.integers(0, 210),
        offset=st.integers(0, 210),
        size=st.integers(1, 210),
    )
    def anything(self, message_id: int, total: int, offset: int, size: int) -> None:
        self._feed(Chunk(message_id, total, offset, bytes(size)))

    @rule(message_id=st.integers(0, 5), total=st.integers(1, 205), part=st.binary(min_size=1))
    def what_follows(self, message_id: int, total: int, part: bytes) -> None:
        known, held = self.model.get(message_id, (total, b""))
        self._feed(Chunk(message_id, known, len(held), part))

    def _feed(self, chunk: Chunk) -> None:
        total, held = self.model.get(chunk.message_id, (chunk.total, b""))
        held_bytes = sum(len(data) for _, data in self.model.values())
        grown = held + chunk.data
        right = (
            chunk.total == total
            and chunk.offset == len(held)
            and len(grown) <= total <= self.MESSAGE_BYTES_MAX
            and held_bytes + len(chunk.data) <= self.BYTES_MAX
        )
        if not right:
            with pytest.raises(InvalidPacket):
                self.reassembly.feed(chunk, 0.0)
            return
        whole = self.reassembly.feed(chunk, 0.0)
        if len(grown) == total:
            assert whole == grown
            self.model.pop(chunk.message_id, None)
        else:
            assert whole is None
            self.model[chunk.message_id] = (total, grown)

    @invariant()
    def what_is_held_is_counted_and_within_the_limit(self) -> None:
        held = {i: (one.total, bytes(one.pieces)) for i, one in self.reassembly._parts.items()}
        assert held == self.model
        assert self.reassembly.held_bytes == sum(len(data) for _, data in self.model.values())
        assert self.reassembly.held_bytes <= self.BYTES_MAX


def test_whatever_comes_the_limits_hold_and_a_refused_chunk_changes_nothing() -> None:
    run_state_machine_as_test(ReassemblyMachine)


def test_a_message_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert reassembly_of(10, 10).feed(Chunk(1, 10, 0, bytes(10)), 0.0) == bytes(10)
    with pytest.raises(InvalidPacket, match="limit"):
        reassembly_of(100, 10).feed(Chunk(1, 11, 0, b"x"), 0.0)


def test_all_that_is_under_way_may_be_as_much_as_the_limit_and_not_a_byte_more() -> None:
    reassembly = reassembly_of(10, 100)
    assert reassembly.feed(Chunk(1, 20, 0, bytes(6)), 0.0) is None
    assert reassembly.feed(Chunk(2, 20, 0, bytes(4)), 0.0) is None
    assert reassembly.held_bytes == 10
    for chunk in (Chunk(1, 20, 6, b"x"), Chunk(3, 1, 0, b"x")):
        with pytest.raises(InvalidPacket, match="too much"):
            reassembly.feed(chunk, 0.0)
    assert reassembly.held_bytes == 10


def test_so_many_messages_may_be_under_way_and_not_one_more() -> None:
    reassembly = reassembly_of(MIB, MIB)
    for number in range(MESSAGES_MAX):
        assert reassembly.feed(Chunk(number, 2, 0, b"a"), 0.0) is None
    with pytest.raises(InvalidPacket, match="too many"):
        reassembly.feed(Chunk(MESSAGES_MAX, 2, 0, b"a"), 0.0)
    # Those under way still come to their end, and make room.
    assert reassembly.feed(Chunk(7, 2, 1, b"b"), 0.0) == b"ab"
    assert reassembly.feed(Chunk(MESSAGES_MAX, 2, 0, b"a"), 0.0) is None


def test_promises_of_huge_messages_cost_nothing() -> None:
    reassembly = reassembly_of(MIB, U32_MAX)
    tracemalloc.start()
    try:
        for number in range(MESSAGES_MAX):
            reassembly.feed(Chunk(number, U32_MAX, 0, b"x"), 0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reassembly.held_bytes == MESSAGES_MAX
    assert peak < 100_000


@pytest.mark.parametrize(
    "second",
    [
        Chunk(1, 10, 0, b"abc"),
        Chunk(1, 10, 2, b"abc"),
        Chunk(1, 10, 4, b"abc"),
        Chunk(1, 11, 3, b"abc"),
        Chunk(1, 9, 3, b"abc"),
        Chunk(1, 10, 3, b"abcdefgh"),
    ],
    ids=["again", "overlapping", "with a gap", "grown", "shrunk", "too long"],
)
def test_a_chunk_that_does_not_follow_the_last_is_refused(second: Chunk) -> None:
    reassembly = reassembly_of(100, 100)
    reassembly.feed(Chunk(1, 10, 0, b"abc"), 0.0)
    with pytest.raises(InvalidPacket):
        reassembly.feed(second, 0.0)
    assert reassembly.held_bytes == 3


def test_a_first_chunk_from_the_middle_is_refused_and_leaves_nothing() -> None:
    reassembly = reassembly_of(100, 100)
    with pytest.raises(InvalidPacket):
        reassembly.feed(Chunk(1, 10, 3, b"abc"), 0.0)
    assert not reassembly._parts


def test_a_chunk_of_nothing_or_of_more_than_a_chunk_is_no_chunk() -> None:
    for size in (0, CHUNK_BYTES_MAX + 1):
        with pytest.raises(InvalidPacket):
            parse_chunk(bytes(12 + size))
    assert len(parse_chunk(bytes(12 + CHUNK_BYTES_MAX)).data) == CHUNK_BYTES_MAX


@pytest.mark.reaches_in
def test_the_largest_body_that_a_node_says_it_takes_it_takes() -> None:
    """A message is larger than its body, and so is what its chunks add up to: a real path leaves
    room for that even if reassembly is given no more than a body."""
    limits = NodeConfig(body_bytes_max=20_000, reassembly_bytes_max=20_000).limits
    room = Shares(MIB, strangers_max=MIB, peer_max=MIB)
    path = Path(
        NodeId(bytes(20)),
        cast("Session", SimpleNamespace(started_s=0.0)),
        TCPStrat(Address(bytes(4), 1)),
        cast("Carrier", None),
        cast("PathOwner", SimpleNamespace(uploads=Uploads(room, MIB, Counter()))),
        dialled=True,
        theirs=limits,
        ours=limits,
        incarnation=bytes(8),
    )
    # The largest query there is: a kind of 64 characters, all numbers at their largest.
    message = bytes(limits.body_bytes_max + 1 + 1 + 18 + 1 + 9 + 66 + 5 + 5 + 5)
    path.outbox.push(Outgoing(message, 0.0))
    whole = None
    while path.outbox:
        for _, _, data in parse_sealed(write_sealed(0, 0, path.outbox.next_batch(0.0).parts)).items:
            whole = path.reassemble(data)
    assert whole == bytes(4) + message


NONCE = bytes(range(16))
REFERENCE = bytes(range(32))
SIZES = [300, 5000, 65_535, 65_536, 100_000]


def pieces_of(message: Query | Reply | Send, size: int = 16_384) -> list[bytes]:
    whole = bytes(4) + message.encode()
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def arrives(reassembly: Reassembly, message: Query | Reply | Send) -> Arrived:
    pieces, at = pieces_of(message), 0
    total = sum(map(len, pieces))
    for piece in pieces:
        whole = reassembly.feed(Chunk(7, total, at, piece), 0.0)
        at += len(piece)
    assert isinstance(whole, Arrived)
    return whole


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("left", [0, 200, 16_384, 40_000])
def test_a_query_without_room_is_refused_under_its_own_reference(size: int, left: int) -> None:
    room = Room(left)
    reassembly = Reassembly(MIB, MIB, room)
    query = Query(NONCE, 5, "kind", 1000, 2000, bytes(size))
    arrived = arrives(reassembly, query)
    fits = sum(map(len, pieces_of(query))) <= left
    assert arrived.refused == (not fits)
    assert arrived.message == query._replace(body=query.body if fits else b"")
    assert arrived.reference == reference_of(query.encode())
    assert room.left == left
    assert reassembly.held_bytes == 0


def test_what_is_refused_keeps_no_memory_while_the_rest_of_it_comes() -> None:
    room = Room(3 * 16_384)
    reassembly = Reassembly(40 * MIB, 20 * MIB, room)
    pieces = pieces_of(Send(NONCE, "kind", 1000, bytes(16 * MIB)))
    total, at = sum(map(len, pieces)), 0
    tracemalloc.start()
    try:
        for piece in pieces[:-1]:
            reassembly.feed(Chunk(1, total, at, piece), 0.0)
            at += len(piece)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000
    assert room.left == 3 * 16_384
    assert reassembly.held_bytes == at, "both sides count what has come"


@pytest.mark.parametrize("awaited", [True, False])
def test_a_large_reply_is_kept_if_somebody_waits_for_it_and_takes_no_room_of_others(
    awaited: bool,
) -> None:
    room = Room(0, awaited=awaited)
    reply = Reply(NONCE, REFERENCE, 0, bytes(100_000))
    arrived = arrives(Reassembly(MIB, MIB, room), reply)
    assert arrived.refused == (not awaited)
    assert arrived.message == (reply if awaited else reply._replace(body=b""))


def test_a_reply_is_coming_while_chunks_come_and_part_of_that_very_reply_is_here() -> None:
    reassembly = Reassembly(MIB, MIB, Room())
    query = Query(NONCE, 5, "kind", 1000, 2000, bytes(100_000))
    for message in (query, Reply(NONCE, REFERENCE, 0, bytes(100_000))):
        assert not reassembly.is_bringing_reply(REFERENCE, 1.0)
        pieces = pieces_of(message)
        chunk = Chunk(len(reassembly._parts), sum(map(len, pieces)), 0, pieces[0])
        assert reassembly.feed(chunk, 1.0) is None
    assert reassembly.is_bringing_reply(REFERENCE, 1.0 + COMING_S)
    assert not reassembly.is_bringing_reply(REFERENCE[::-1], 1.0)
    assert not reassembly.is_bringing_reply(REFERENCE, 1.1 + COMING_S)


def test_what_cannot_be_read_in_pieces_and_has_no_room_ends_the_path() -> None:
    room = Room(100)
    reassembly = Reassembly(MIB, MIB, room)
    assert reassembly.feed(Chunk(1, 300, 0, bytes(100)), 0.0) is None
    with pytest.raises(InvalidPacket, match="no room"):
        reassembly.feed(Chunk(1, 300, 100, bytes(100)), 0.0)
    reassembly.abandon_all()
    assert (room.left, reassembly.held_bytes) == (100, 0)


@pytest.mark.parametrize("left", [0, U32_MAX], ids=["refused", "kept"])
@pytest.mark.parametrize("size", [1, 300, 5000, 16_000])
def test_of_the_packet_in_which_a_chunk_came_nothing_is_kept(size: int, left: int) -> None:
    """Its bytes were looked at where they lay; a view of one of them would keep them all."""
    body = bytes(50_000)
    messages = [
        Query(NONCE, 5, "kind", 1000, 2000, body).encode(),
        Reply(NONCE, REFERENCE, 0, body).encode(),
        Send(NONCE, "kind", 1000, body).encode(),
    ]
    if left:
        messages.append(b"no message" + body)
    reassembly = Reassembly(MIB, MIB, Room(left, awaited=left > 0))
    for number, message in enumerate(messages):
        whole = bytes(4) + message
        # What begins with a piece too small to be read is refused with its path.
        first = size if left or size > 200 else 200
        for at, end in ((0, first), (first, first + size), (first + size, first + 2 * size)):
            data = write_chunk(number, len(whole), at, whole[at:end])[5:]
            holders = sys.getrefcount(data)
            reassembly.feed(parse_chunk(data), 0.0)
            assert sys.getrefcount(data) == holders


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["query", "send", "reply", "raw"]),
            st.integers(1, 90_000),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.integers(0, 200_000),
    st.randoms(use_true_random=False),
)
def test_whatever_becomes_of_messages_all_room_is_given_back(
    messages: list[tuple[str, int, bool]], left: int, order: random.Random
) -> None:
    room = Room(left, awaited=order.random() < 0.5)
    reassembly = Reassembly(MIB, MIB, room)
    made: dict[str, Callable[[int], bytes]] = {
        "query": lambda size: Query(NONCE, 1, "kind", 1000, 2000, bytes(size)).encode(),
        "send": lambda size: Send(NONCE, "kind", 1000, bytes(size)).encode(),
        "reply": lambda size: Reply(NONCE, REFERENCE, 0, bytes(size)).encode(),
        "raw": bytes,
    }
    under_way = {}
    for number, (kind, size, finishes) in enumerate(messages):
        whole = bytes(4) + made[kind](size)
        pieces = [
            Chunk(number, len(whole), at, whole[at : at + 16_384])
            for at in range(0, len(whole), 16_384)
        ]
        under_way[number] = pieces if finishes else pieces[:-1]
    kept = 0
    while any(under_way.values()):
        number = order.choice([number for number, pieces in under_way.items() if pieces])
        try:
            reassembly.feed(under_way[number].pop(0), 0.0)
        except InvalidPacket:
            under_way[number].clear()
            reassembly.abandon(number)
        kept = sum(part.room for part in reassembly._parts.values())
        assert room.left == left - kept >= 0
    reassembly.abandon_all()
    assert room.left == left
    assert reassembly.held_bytes == 0

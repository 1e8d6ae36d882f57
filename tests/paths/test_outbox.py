"""The outbox and what is at its other end: everything leaves once, whole, and in fair turns."""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.channel.packet import DATA_HEADER, END_TO_END_BYTES_MAX
from egtp.channel.sealed import (
    CHUNK_BYTES_MAX,
    U32_MAX,
    Chunk,
    ItemType,
    item,
    parse_age,
    parse_chunk,
    parse_sealed,
    write_sealed,
)
from egtp.paths.outbox import BATCH_BYTES, BATCH_BYTES_MAX, TURNS_MAX, Batch, Outbox
from egtp.paths.reassembly import Reassembly, RoomForChunks
from egtp.queries.exchange import EXCEPTIONS_MAX
from egtp.queries.large_message import Arrived, LargeMessage
from egtp.queries.outgoing import Outgoing, PassedOn
from egtp.values.identity import NodeId

MIB = 1024 * 1024
PLAINTEXT_BYTES_MAX = END_TO_END_BYTES_MAX - DATA_HEADER.size - 16
"""What a packet that a relay can wrap has room for, header and tag taken off."""
ADDED_BYTES_MAX = {False: 13, True: 13 + 5 + 8 * (1 + EXCEPTIONS_MAX)}
"""What a path may add: a ping and, if there is room, what is settled."""
MESSAGE_BYTES_MIN = 26
"""The smallest message there is: a send of one-letter kind and no body."""
REASSEMBLY_BYTES_MAX = 200_000
LARGEST = 150_000

SIZES = st.one_of(
    st.integers(MESSAGE_BYTES_MIN, 300),
    st.integers(MESSAGE_BYTES_MIN, LARGEST),
    st.sampled_from(
        [
            MESSAGE_BYTES_MIN,
            BATCH_BYTES - 1,
            BATCH_BYTES,
            BATCH_BYTES + 1,
            CHUNK_BYTES_MAX - 5,
            CHUNK_BYTES_MAX - 4,
            CHUNK_BYTES_MAX,
            CHUNK_BYTES_MAX + 1,
            2 * CHUNK_BYTES_MAX - 4,
            LARGEST,
        ]
    ),
)


def plaintext_of(batch: Batch) -> bytes:
    return write_sealed(0, 0, batch.parts)


class Receiver:
    """The other end: parses packets and puts chunks together under the limits that it told."""

    def __init__(self, room: RoomForChunks, bytes_max: int = REASSEMBLY_BYTES_MAX) -> None:
        self.reassembly = Reassembly(bytes_max, bytes_max, room)
        self.messages: list[tuple[int, bytes]] = []
        self.controls: list[bytes] = []
        self.ended = 0
        self.chunk_bytes = 0

    def take(self, batch: Batch) -> list[Chunk]:
        """Returns the chunks among what the packet has."""
        plaintext = plaintext_of(batch)
        assert len(plaintext) + ADDED_BYTES_MAX[batch.has_room] <= PLAINTEXT_BYTES_MAX
        chunks = []
        for kind, age_ms, data in parse_sealed(plaintext).items:
            if kind == ItemType.MESSAGE:
                self.messages.append((age_ms, data))
            elif kind == ItemType.CHUNK:
                chunk = parse_chunk(data)
                chunks.append(chunk)
                self.chunk_bytes += len(chunk.data)
                whole = self.reassembly.feed(chunk, 0.0)
                assert not isinstance(whole, Arrived)
                if whole is not None:
                    self.chunk_bytes -= len(whole)
                    self.messages.append(parse_age(whole))
            elif kind == ItemType.CHUNKS_END:
                held = self.reassembly.held_bytes
                self.reassembly.abandon(int.from_bytes(data, "big"))
                self.chunk_bytes -= held - self.reassembly.held_bytes
                self.ended += 1
            else:
                self.controls.append(item(kind, data))
        return chunks


def message_of(serial: int, size: int) -> bytes:
    """A message unlike all others, in which a swapped or missing piece shows."""
    pattern = (serial * 2654435761 % 2**32).to_bytes(4, "big")
    return (serial.to_bytes(8, "big") + pattern * (size // 4 + 1))[:size]


class OutboxMachine(RuleBasedStateMachine):
    """The model: messages that have not begun to leave, those that have, and those that arrived."""

    def __init__(self, room: RoomForChunks) -> None:
        super().__init__()
        self.outbox = Outbox(REASSEMBLY_BYTES_MAX)
        self.receiver = Receiver(room)
        self.serial = count()
        self.unsent: dict[Outgoing, bytes] = {}
        self.begun: dict[Outgoing, bytes] = {}
        self.finished: list[Outgoing] = []
        self.expected_small: list[bytes] = []
        self.controls: list[bytes] = []
        self.to_end = 0
        self.taken_back: set[Outgoing] = set()

    @rule(size=SIZES)
    def push(self, size: int) -> None:
        message = message_of(next(self.serial), size)
        outgoing = Outgoing(message, 0.0)
        self.unsent[outgoing] = message
        self.outbox.push(outgoing)

    @rule(size=st.integers(0, 925))
    def push_control(self, size: int) -> None:
        control = item(ItemType.RECORD, message_of(next(self.serial), size))
        self.outbox.push_control(control)
        self.controls.append(control)

    @rule(
        times=st.integers(1, 5),
        size_max=st.sampled_from([BATCH_BYTES, BATCH_BYTES_MAX]),
        chunks=st.integers(0, 5),
        chunk_bytes=st.sampled_from([2048, 5000, CHUNK_BYTES_MAX]),
    )
    def next_batch(self, times: int, size_max: int, chunks: int, chunk_bytes: int) -> None:
        for _ in range(times):
            self._one_batch(size_max, chunks, chunk_bytes)

    def _one_batch(
        self,
        size_max: int = BATCH_BYTES,
        chunks: int = 1,
        chunk_bytes: int = CHUNK_BYTES_MAX,
    ) -> None:
        had, waits = bool(self.outbox), self._waits(chunks)
        arrived = len(self.receiver.messages)
        batch = self.outbox.next_batch(0.0, size_max, chunks=chunks, chunk_bytes=chunk_bytes)
        assert had or not batch.parts
        assert batch.parts or not waits
        pieces = self.receiver.take(batch)
        # Each chunk is two parts, and so is a small message.
        most = chunks if len(batch.parts) == 2 * len(pieces) else 1
        assert len(pieces) <= min(most, chunks, 3)
        assert len({piece.message_id for piece in pieces}) <= 1, "a packet each"
        assert all(len(piece.data) == chunk_bytes for piece in pieces[:-1])
        assert all(len(piece.data) <= chunk_bytes for piece in pieces)
        assert batch.bulk_bytes == sum(len(piece.data) for piece in pieces)
        assert batch.has_small == any(len(self.unsent[o]) <= CHUNK_BYTES_MAX for o in batch.begun)
        for outgoing in batch.begun:
            message = self.unsent.pop(
                outgoing
            )  # fails for one that began before, or was taken back
            self.begun[outgoing] = message
            if len(message) <= CHUNK_BYTES_MAX:
                self.expected_small.append(message)
        for _, message in self.receiver.messages[arrived:]:
            (outgoing,) = [t for t, m in self.begun.items() if m == message]
            del self.begun[outgoing]
            self.finished.append(outgoing)

    def _waits(self, chunks: int) -> bool:
        """Whether there is something for the next packet."""
        return (
            len(self.controls) > len(self.receiver.controls)
            or self.to_end > self.receiver.ended
            or any(chunks or len(message) <= CHUNK_BYTES_MAX for message in self.unsent.values())
            or bool(chunks and self.begun)
        )

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        messages = [*self.unsent, *self.begun, *self.finished[-3:], Outgoing(b"never pushed", 0.0)]
        outgoing = data.draw(st.sampled_from(messages))
        assert self.outbox.holds(outgoing) == (outgoing in self.unsent or outgoing in self.begun)
        self.outbox.take_back(outgoing)
        assert not self.outbox.holds(outgoing)
        self.unsent.pop(outgoing, None)
        if self.begun.pop(outgoing, None) is not None:
            self.to_end += 1
            self.taken_back.add(outgoing)

    @rule()
    def take_cut_off(self) -> None:
        taken = self.outbox.take_cut_off()
        assert set(taken) == set(self.begun)
        self.to_end += len(taken)
        self.taken_back.update(taken)
        self.begun.clear()

    @rule()
    def take_unsent(self) -> None:
        taken = self.outbox.take_unsent()
        assert {outgoing: outgoing.message for outgoing in taken} == self.unsent
        assert len(taken) == len(self.unsent)
        for small in (True, False):
            serials = [
                bytes(outgoing.message[:8])
                for outgoing in taken
                if (len(outgoing.message) <= CHUNK_BYTES_MAX) == small
            ]
            assert serials == sorted(serials), "reordered"
        # A path that is lost hands its messages to another, which gives them in the same order.
        for outgoing in taken:
            self.outbox.push(outgoing)

    @invariant()
    def waiting_bytes_is_what_is_still_to_come(self) -> None:
        unsent = sum(map(len, self.unsent.values()))
        begun = sum(len(message) + 4 for message in self.begun.values())
        controls = sum(map(len, self.controls)) - sum(map(len, self.receiver.controls))
        ends = (self.to_end - self.receiver.ended) * len(item(ItemType.CHUNKS_END, bytes(4)))
        arrived = self.receiver.chunk_bytes - self._ended_at_the_receiver()
        assert self.outbox.waiting_bytes == unsent + begun - arrived + controls + ends
        assert bool(self.outbox) or not self.outbox.waiting_bytes

    def _ended_at_the_receiver(self) -> int:
        """Bytes of messages taken back that the receiver still holds: their end has not come."""
        parts = self.receiver.reassembly._parts.values()
        begun = {message[:8] for message in self.begun.values()}
        return sum(part.size for part in parts if bytes(part.pieces[4:12]) not in begun)

    @invariant()
    def what_takes_turns_is_within_what_the_other_side_holds(self) -> None:
        assert len(self.begun) <= TURNS_MAX
        assert sum(len(message) + 4 for message in self.begun.values()) <= REASSEMBLY_BYTES_MAX
        assert self.receiver.reassembly.held_bytes == self.receiver.chunk_bytes
        assert len(self.outbox._small) + len(self.outbox._chunked) <= 2 * len(self.unsent) + 1

    @invariant()
    def the_order_is_kept_among_small_ones_and_among_controls(self) -> None:
        small = [m for _, m in self.receiver.messages if len(m) <= CHUNK_BYTES_MAX]
        assert small == self.expected_small
        assert small == sorted(small, key=lambda message: message[:8])
        assert self.receiver.controls == self.controls[: len(self.receiver.controls)]

    def teardown(self) -> None:
        for _ in range(10_000):
            if not self.outbox:
                break
            self._one_batch()
        assert not self.unsent, "lost"
        assert not self.begun, "lost halfway"
        assert self.receiver.controls == self.controls
        assert self.outbox.waiting_bytes == 0
        assert self.receiver.reassembly.held_bytes == 0
        assert self.outbox.next_batch(0.0).parts == []
        assert self.receiver.ended == self.to_end


def test_every_message_leaves_once_and_whole_or_has_not_begun_to_leave(
    ample_room: RoomForChunks,
) -> None:
    # Any factory will do.
    run_state_machine_as_test(lambda: OutboxMachine(ample_room))  # type: ignore[arg-type]


def batches(outbox: Outbox) -> Iterator[Batch]:
    while outbox:
        yield outbox.next_batch(0.0)


def test_a_huge_message_delays_a_small_one_by_one_batch_at_most(ample_room: RoomForChunks) -> None:
    outbox = Outbox(32 * MIB)
    receiver = Receiver(ample_room, 32 * MIB)
    huge = message_of(1, 16 * MIB)
    outbox.push(Outgoing(huge, 0.0))
    smalls = 0
    for number, batch in enumerate(batches(outbox)):
        receiver.take(batch)
        if number % 100 == 0:
            small = message_of(2 + number, 100)
            outbox.push(Outgoing(small, 0.0))
            receiver.take(outbox.next_batch(0.0))
            smalls += 1
            assert receiver.messages[smalls - 1] == (0, small)
    assert smalls > 5
    assert receiver.messages[-1] == (0, huge)


def test_a_stream_of_small_messages_does_not_stop_a_large_one(ample_room: RoomForChunks) -> None:
    """While less than a batch of small ones comes each time, the large one goes on."""
    outbox = Outbox(32 * MIB)
    receiver = Receiver(ample_room, 32 * MIB)
    large = message_of(0, 10 * CHUNK_BYTES_MAX)
    outbox.push(Outgoing(large, 0.0))
    for serial in range(1, 12):
        outbox.push(Outgoing(message_of(serial, BATCH_BYTES - 1), 0.0))
        receiver.take(outbox.next_batch(0.0))
    assert (0, large) in receiver.messages


def test_large_messages_take_turns_so_a_short_one_overtakes_a_long_one(
    ample_room: RoomForChunks,
) -> None:
    outbox = Outbox(32 * MIB)
    receiver = Receiver(ample_room, 32 * MIB)
    long, short = message_of(1, 8 * MIB), message_of(2, 3 * CHUNK_BYTES_MAX)
    outbox.push(Outgoing(long, 0.0))
    for _ in range(3):
        receiver.take(outbox.next_batch(0.0))
    outbox.push(Outgoing(short, 0.0))
    for _ in range(8):
        receiver.take(outbox.next_batch(0.0))
    assert receiver.messages == [(0, short)]


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_newcomers_do_not_starve_those_whose_turn_it_is(
    ample_room: RoomForChunks, chunks: int
) -> None:
    outbox = Outbox(32 * MIB)
    receiver = Receiver(ample_room, 32 * MIB)
    first = message_of(0, 10 * CHUNK_BYTES_MAX)
    outbox.push(Outgoing(first, 0.0))
    for serial in range(1, 400):
        outbox.push(Outgoing(message_of(serial, 2 * CHUNK_BYTES_MAX - 4), 0.0))
        receiver.take(outbox.next_batch(0.0, chunks=chunks))
        if (0, first) in receiver.messages:
            break
    else:
        pytest.fail("the first one never came to its end")


def test_a_message_larger_than_the_other_side_holds_does_not_stop_the_queue(
    ample_room: RoomForChunks,
) -> None:
    """Whether it may be sent at all is decided before; here it goes alone."""
    outbox = Outbox(1000)
    sent = [message_of(serial, 40_000) for serial in (1, 2)]
    for message in sent:
        outbox.push(Outgoing(message, 0.0))
    receiver = Receiver(ample_room, MIB)
    for batch in batches(outbox):
        receiver.take(batch)
        assert receiver.reassembly.held_bytes <= 40_004
    assert [message for _, message in receiver.messages] == sent


@given(st.lists(st.integers(0, PLAINTEXT_BYTES_MAX - 100), min_size=1, max_size=6), SIZES)
@example([79, 64_864], MESSAGE_BYTES_MIN)
def test_a_batch_fits_into_a_packet_however_large_the_controls_are(
    sizes: list[int], size: int
) -> None:
    """A pong is as large as the ping that a peer sent, and pings may be as large as a packet."""
    outbox = Outbox(MIB)
    for pong in sizes:
        outbox.push_control(item(ItemType.PONG, bytes(pong)))
    outbox.push(Outgoing(message_of(1, size), 0.0))
    largest = max(len(plaintext_of(batch)) for batch in batches(outbox))
    assert largest <= PLAINTEXT_BYTES_MAX


@given(
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e7),
    st.sampled_from([MESSAGE_BYTES_MIN, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1]),
)
def test_the_age_is_the_time_waited_and_fits_its_field(
    ample_room: RoomForChunks, born_s: float, now_s: float, size: int
) -> None:
    outbox = Outbox(MIB)
    outbox.push(Outgoing(message_of(1, size), born_s))
    receiver = Receiver(ample_room, MIB)
    receiver.take(outbox.next_batch(now_s))
    while outbox:
        receiver.take(outbox.next_batch(now_s + 100))
    ((age_ms, _),) = receiver.messages
    assert age_ms == min(max(0, int((now_s - born_s) * 1000)), U32_MAX)


def test_a_message_that_moves_to_another_path_is_as_old_as_it_is(ample_room: RoomForChunks) -> None:
    first = Outbox(MIB)
    second = Outbox(MIB)
    for size in (100, 20_000):
        first.push(Outgoing(message_of(size, size), 1.0))
    for outgoing in first.take_unsent():
        second.push(outgoing)
    receiver = Receiver(ample_room, MIB)
    while second:
        receiver.take(second.next_batch(4.0))
    assert receiver.messages == [(3000, message_of(size, size)) for size in (100, 20_000)]


def test_chunk_numbers_go_round_without_meeting_each_other(ample_room: RoomForChunks) -> None:
    outbox = Outbox(MIB)
    outbox._next_chunk_id = U32_MAX - 1
    sent = [message_of(serial, 2 * CHUNK_BYTES_MAX) for serial in range(4)]
    for message in sent:
        outbox.push(Outgoing(message, 0.0))
    receiver = Receiver(ample_room, MIB)
    for batch in batches(outbox):
        receiver.take(batch)
    assert sorted(message for _, message in receiver.messages) == sorted(sent)


def test_of_a_large_message_no_copy_is_made_while_it_leaves() -> None:
    outbox = Outbox(32 * MIB)
    message = bytes(4 * MIB)
    outbox.push(Outgoing(message, 0.0))
    tracemalloc.start()
    try:
        for _ in range(3):
            outbox.next_batch(1.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * CHUNK_BYTES_MAX


@pytest.mark.parametrize("only_control", [False, True])
def test_beside_what_fills_a_packet_there_is_no_room(only_control: bool) -> None:
    outbox = Outbox(REASSEMBLY_BYTES_MAX)
    outbox.push_control(item(ItemType.PONG, bytes(60_000)))
    assert not outbox.next_batch(0.0, only_control=only_control).has_room


@pytest.mark.parametrize("at_a_relay", [False, True])
def test_what_is_passed_on_is_never_cut_and_keeps_its_order(at_a_relay: bool) -> None:
    """A packet of 65,000 bytes and what wraps it fills a packet of its own."""
    outbox, items = Outbox(REASSEMBLY_BYTES_MAX), []
    sizes = [100, 65_060, 100, 17_000, 65_060, 16_384, 300]
    messages = [message_of(serial, size) for serial, size in enumerate(sizes)]
    for message in messages:
        if at_a_relay:
            outbox.pass_on(PassedOn(message, 0.0, NodeId(bytes(20))))
        else:
            outbox.push(PassedOn(message, 0.0))
    outbox.push_control(item(ItemType.PING, bytes(8)))
    while outbox:
        batch = outbox.next_batch(0.0, 16_384)
        assert len(plaintext_of(batch)) + 36 <= 65_535, "header and tag have no room"
        items += parse_sealed(plaintext_of(batch)).items
    assert items == [
        (ItemType.PING, 0, bytes(8)),
        *((ItemType.MESSAGE, 0, message) for message in messages),
    ]


class Own(Outgoing):
    """What this node asks itself, as queries and sends are."""

    __slots__ = ()


@pytest.mark.reaches_in
def test_for_who_does_not_read_what_others_made_is_dropped_and_what_is_our_own_stays(
    ample_room: RoomForChunks,
) -> None:
    outbox, receiver = Outbox(REASSEMBLY_BYTES_MAX), Receiver(ample_room)
    begun = Outgoing(bytes(CHUNK_BYTES_MAX * 2), 0.0)
    outbox.push(begun)
    receiver.take(outbox.next_batch(0.0))
    replies = [Outgoing(b"reply", 0.0), Outgoing(bytes(CHUNK_BYTES_MAX + 1), 0.0)]
    given_up = Outgoing(b"given up", 0.0)
    own = Own(b"own", 0.0)
    for one in (*replies, PassedOn(b"a hint", 0.0), given_up, own):
        outbox.push(one)
    outbox.pass_on(PassedOn(b"passed on", 0.0, NodeId(bytes(20))))
    outbox.take_back(given_up)
    assert outbox.drop_unread() == 5
    assert [outbox.holds(one) for one in (begun, *replies, own)] == [False, False, False, True]
    while outbox:
        receiver.take(outbox.next_batch(0.0))
    assert [message for _, message in receiver.messages] == [b"own"]
    assert receiver.ended == 1, "the other side is told that the rest does not come"
    assert outbox.waiting_bytes == 0


def large_reply(reference: bytes) -> Outgoing:
    return Outgoing(LargeMessage((2, bytes(16), reference, 0, bytes(70_000))), 0.0)


class Unseen(deque[Any]):
    """A queue that nobody may look through."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("a look at all that waits")


@pytest.mark.reaches_in
def test_however_many_large_replies_wait_one_is_found_without_a_look_at_the_others() -> None:
    """A peer that does not read may cancel thousands of queries with each packet, in five bytes
    each. The look through 900 replies took 0.2 ms: one packet stopped the node for seconds."""
    outbox = Outbox(MIB)
    replies = [large_reply(bytes([number]) * 32) for number in range(9)]
    for reply in replies:
        outbox.push(reply)
    outbox._chunked = Unseen(outbox._chunked)
    assert outbox.large_reply(b"none of them") is None
    assert outbox.large_reply(bytes([7]) * 32) is replies[7]


@pytest.mark.reaches_in
def test_nor_is_there_a_look_at_those_that_have_begun_to_leave() -> None:
    """Sixteen on each of a dozen paths made 13 us of each cancel, of which a packet has room for
    13,000."""
    outbox = Outbox(MIB)
    replies = [large_reply(bytes([number]) * 32) for number in range(9)]
    for reply in replies:
        outbox.push(reply)
        outbox.next_batch(0.0, chunk_bytes=100)
    assert all(outbox.holds(reply) and not reply.queued for reply in replies)
    outbox._begun = Unseen(outbox._begun)
    outbox.take_unsent()
    assert outbox.large_reply(b"none of them") is None
    assert outbox.large_reply(bytes([7]) * 32) is replies[7]


@pytest.mark.reaches_in
def test_a_large_reply_is_found_for_as_long_as_any_of_it_has_yet_to_leave() -> None:
    outbox, reference = Outbox(REASSEMBLY_BYTES_MAX), bytes(32)
    first, copy, other = large_reply(reference), large_reply(reference), large_reply(b"r" * 32)
    outbox.push(first)
    outbox.take_back(first)
    assert outbox.large_reply(reference) is None
    outbox.push(copy)
    outbox.push(other)
    while outbox.holds(copy):
        assert outbox.large_reply(reference) is copy
        outbox.next_batch(0.0)
    assert outbox.large_reply(reference) is None
    assert outbox.large_reply(b"r" * 32) is other
    outbox.take_unsent()
    while outbox:
        outbox.next_batch(0.0)
    assert outbox.large_reply(b"r" * 32) is None
    assert outbox._large_replies is Outbox(MIB)._large_replies, "a path at rest has none of its own"


@pytest.mark.reaches_in
@pytest.mark.parametrize("end", ["left", "taken back while it leaves", "taken back before"])
@pytest.mark.parametrize("size", [100, 2 * CHUNK_BYTES_MAX])
def test_a_path_at_rest_has_no_queues(size: int, end: str) -> None:
    """An empty one takes more memory than all the rest of it."""
    outbox, fresh = Outbox(MIB), Outbox(MIB)
    outgoing = Outgoing(bytes(size), 0.0)
    outbox.push_control(item(ItemType.PING, bytes(8)))
    outbox.push(outgoing)
    if end != "taken back before":
        outbox.next_batch(0.0)
    if end != "left":
        outbox.take_back(outgoing)
    while outbox:
        outbox.next_batch(0.0)
    queues = ("_begun", "_chunked", "_control", "_small")
    assert [name for name in queues if getattr(outbox, name) is not getattr(fresh, name)] == []


@pytest.mark.parametrize("kind", ["replies", "passed on", "passed on, of one each"])
def test_what_waits_takes_no_more_memory_than_is_accounted_for(kind: str) -> None:
    outbox, count = Outbox(MIB), 3000
    senders = [NodeId(number.to_bytes(20, "big")) for number in range(count)]
    tracemalloc.start()
    try:
        for number in range(count):
            message = number.to_bytes(60, "big")
            if kind == "replies":
                outbox.push(Outgoing(message, number / 7))
            else:
                sender = senders[number if "one each" in kind else number % 10]
                outbox.pass_on(PassedOn(message, number / 7, sender))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outbox.waiting_bytes == 60 * count
    assert outbox.memory_bytes / 2 < taken < outbox.memory_bytes

"""Frames, replay windows, sessions and what is inside a sealed packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.errors import InvalidPacket
from egtp.frames import FrameSplitter, frame
from egtp.outbox import Outbox, Waiting
from egtp.packet import Data, decode_packet
from egtp.reassembly import Reassembly
from egtp.sealed import (
    ItemType,
    item,
    parse_age,
    parse_chunk,
    parse_sealed,
    write_chunk,
    write_sealed,
)
from egtp.session import InOrder, Session, SlidingWindow

MIB = 1024 * 1024


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.data())
def test_frames_split_anywhere_arrive_whole(packets: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, packets))
    splitter = FrameSplitter()
    arrived = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        arrived += list(splitter.feed(stream[:cut]))
        stream = stream[cut:]
    assert arrived == packets
    assert splitter.pending_bytes == 0


@pytest.mark.parametrize("length", [0, 16 * 1024 + 1, 65_536, 2**32 - 1])
def test_a_frame_length_that_is_not_allowed_is_refused_at_once(length: int) -> None:
    splitter = FrameSplitter()
    with pytest.raises(InvalidPacket):
        list(splitter.feed(length.to_bytes(4, "big")))


def test_the_limit_lifted_by_one_frame_holds_for_the_next_in_the_same_bytes() -> None:
    splitter = FrameSplitter()
    arrived = []
    for packet in splitter.feed(frame(b"proof") + frame(bytes(20_000))):
        arrived.append(len(packet))
        splitter.lift_limit()
    assert arrived == [5, 20_000]


@given(st.lists(st.integers(0, 60) | st.integers(0, 2**64 - 1), max_size=60))
def test_the_sliding_window_takes_each_counter_once_and_none_too_old(counters: list[int]) -> None:
    window, taken = SlidingWindow(16), set[int]()
    for counter in counters:
        expected = counter not in taken and counter > max(taken, default=-1) - 16
        assert window.fits(counter) == expected
        if expected:
            window.take(counter)
            taken.add(counter)


def sessions() -> tuple[Session, Session]:
    def one(index: int, remote: int, send: bytes, receive: bytes) -> Session:
        return Session(
            index=index,
            remote_index=remote,
            send_key=send,
            receive_key=receive,
            window=InOrder(),
            started_s=0.0,
        )

    return one(1, 2, b"a" * 32, b"b" * 32), one(2, 1, b"b" * 32, b"a" * 32)


def test_a_packet_opens_once_and_in_order_only() -> None:
    sender, receiver = sessions()
    first, second = (decode_packet(sender.seal(text)) for text in (b"1", b"2"))
    assert isinstance(first, Data)
    assert isinstance(second, Data)
    with pytest.raises(InvalidPacket):
        receiver.open(second)
    assert receiver.open(first) == b"1"
    with pytest.raises(InvalidPacket):
        receiver.open(first)
    assert receiver.open(second) == b"2"


@given(st.integers(0))
def test_a_flipped_bit_does_not_open_and_changes_nothing(place: int) -> None:
    sender, receiver = sessions()
    packet = sender.seal(b"text")
    bent = bytearray(packet)
    place %= 8 * len(packet)
    bent[place // 8] ^= 1 << place % 8
    with pytest.raises(InvalidPacket):
        data = decode_packet(bytes(bent))
        assert isinstance(data, Data)
        if data.receiver_index != 2:
            raise InvalidPacket("not for this session")
        receiver.open(data)
    whole = decode_packet(packet)
    assert isinstance(whole, Data)
    assert receiver.open(whole) == b"text"


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_an_invalid_packet_or_one_that_can_be_read(data: bytes) -> None:
    for decode in (decode_packet, parse_sealed, parse_chunk, parse_age):
        try:
            decode(data)
        except InvalidPacket:
            continue


@given(st.integers(0x80, 0xFF), st.binary(max_size=20))
def test_unknown_ignorable_items_are_skipped(kind: int, data: bytes) -> None:
    ping = item(ItemType.PING, b"token")
    sealed = parse_sealed(write_sealed(7, 9, [item(kind, data), ping]))
    assert (sealed.t_ms, sealed.settled) == (7, 9)
    assert sealed.items[-1] == (ItemType.PING, b"token")


@given(st.integers(0, 0x7F).filter(lambda kind: kind not in frozenset(ItemType)))
def test_unknown_critical_items_are_refused(kind: int) -> None:
    with pytest.raises(InvalidPacket):
        parse_sealed(write_sealed(0, 0, [item(kind)]))


@given(st.lists(st.integers(1, 70_000), max_size=120))
def test_every_message_arrives_whole_whatever_its_size(sizes: list[int]) -> None:
    outbox: Outbox[int] = Outbox(2 * MIB)
    for number, size in enumerate(sizes):
        outbox.push(Waiting(number.to_bytes(2, "big") * size, 0.0, number))
    reassembly = Reassembly(2 * MIB + 256, MIB)
    arrived, begun = [], []
    while outbox:
        batch = outbox.next_batch(1.0)
        begun += batch.begun
        plaintext = write_sealed(0, 0, batch.items)
        assert len(plaintext) < 65_000 - 36
        for kind, data in parse_sealed(plaintext).items:
            whole = data if kind == ItemType.MESSAGE else reassembly.feed(parse_chunk(data))
            if whole is not None:
                age_ms, message = parse_age(whole)
                assert age_ms == 1000
                arrived.append(message)
    expected = [number.to_bytes(2, "big") * size for number, size in enumerate(sizes)]
    assert sorted(arrived) == sorted(expected)
    assert sorted(begun) == list(range(len(sizes)))
    assert outbox.waiting_bytes == reassembly.held_bytes == 0


def test_a_small_message_waits_for_one_batch_of_a_large_one_at_most() -> None:
    outbox: Outbox[str] = Outbox(32 * MIB)
    outbox.push(Waiting(bytes(16 * MIB), 0.0, "large"))
    outbox.next_batch(0.0)
    outbox.push(Waiting(b"small", 0.0, "small"))
    assert outbox.next_batch(0.0).begun == ["small"]


def test_a_promise_of_much_costs_nothing() -> None:
    reassembly = Reassembly(1000, 10 * MIB)
    chunk = parse_chunk(
        parse_sealed(write_sealed(0, 0, [write_chunk(1, 9 * MIB, 0, b"x")])).items[0][1]
    )
    assert reassembly.feed(chunk) is None
    assert reassembly.held_bytes == 1

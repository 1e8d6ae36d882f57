"""Frames: a stream cut anywhere gives the packets that were put in, and no length can hurt."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.frames import UNCONFIRMED_FRAME_BYTES_MAX, FrameSplitter, frame
from egtp.channel.packet import PACKET_BYTES_MAX
from egtp.errors import InvalidPacket

PACKETS = st.lists(st.binary(min_size=1, max_size=50), max_size=8)


@given(PACKETS, st.data())
def test_a_frame_split_anywhere_arrives_whole(packets: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, packets))
    points = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    splitter = FrameSplitter()
    arrived = []
    for start, end in zip([0, *points], [*points, len(stream)], strict=True):
        arrived += list(splitter.feed(stream[start:end]))
    assert arrived == packets
    assert splitter.pending_bytes == 0


@given(PACKETS)
def test_a_frame_that_comes_byte_by_byte_arrives_whole(packets: list[bytes]) -> None:
    splitter = FrameSplitter()
    stream = b"".join(map(frame, packets))
    arrived = [packet for byte in stream for packet in splitter.feed(bytes((byte,)))]
    assert arrived == packets


def test_what_comes_in_many_pieces_is_not_copied_anew_for_each() -> None:
    """Otherwise a frame that comes byte by byte would take the square of its size."""
    splitter = FrameSplitter()
    stream = frame(bytes(1000))
    for size in (500, 1, 1):
        assert list(splitter.feed(stream[:size])) == []
        stream = stream[size:]
    held = splitter._part
    for byte in stream[:-1]:
        assert list(splitter.feed(bytes((byte,)))) == []
        assert splitter._part is held
    assert list(splitter.feed(stream[-1:])) == [bytes(1000)]


@given(st.binary(min_size=2, max_size=60), st.data())
def test_half_a_frame_is_held_and_nothing_is_given(packet: bytes, data: st.DataObject) -> None:
    held = data.draw(st.integers(0, len(packet) + 3))
    splitter = FrameSplitter()
    assert list(splitter.feed(frame(packet)[:held])) == []
    assert splitter.pending_bytes == held
    assert list(splitter.feed(frame(packet)[held:])) == [packet]


@pytest.mark.parametrize(
    ("limit", "length"),
    [
        (limit, length)
        for limit in (UNCONFIRMED_FRAME_BYTES_MAX, PACKET_BYTES_MAX)
        for length in (0, limit + 1, 2**31, 2**32 - 1)
    ],
)
def test_a_length_that_is_not_allowed_is_refused_at_once_and_reserves_nothing(
    limit: int, length: int
) -> None:
    splitter = FrameSplitter(limit)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidPacket):
            list(splitter.feed(length.to_bytes(4, "big")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


@pytest.mark.parametrize("limit", [UNCONFIRMED_FRAME_BYTES_MAX, PACKET_BYTES_MAX])
def test_a_frame_of_exactly_the_limit_is_taken(limit: int) -> None:
    packet = bytes(limit)
    assert list(FrameSplitter(limit).feed(frame(packet))) == [packet]


def test_the_limits_are_those_of_the_protocol() -> None:
    splitter = FrameSplitter()
    assert splitter.frame_bytes_max == 16_384
    splitter.lift_limit()
    assert splitter.frame_bytes_max == 65_535


def test_packets_before_a_bad_frame_still_arrive() -> None:
    packets = FrameSplitter().feed(frame(b"good") + bytes(4))
    assert next(packets) == b"good"
    with pytest.raises(InvalidPacket):
        next(packets)


def test_the_limit_lifted_by_one_frame_holds_for_the_next_in_the_same_bytes() -> None:
    splitter = FrameSplitter()
    arrived = []
    for packet in splitter.feed(frame(b"proof") + frame(bytes(20_000))):
        arrived.append(len(packet))
        splitter.lift_limit()
    assert arrived == [5, 20_000]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_arbitrary_bytes_raise_nothing_else(pieces: list[bytes]) -> None:
    splitter = FrameSplitter(32)
    try:
        for piece in pieces:
            for packet in splitter.feed(piece):
                assert 1 <= len(packet) <= 32
            assert splitter.pending_bytes < 4 + 32
    except InvalidPacket:
        pass


def test_the_form_of_a_frame() -> None:
    assert frame(b"abc") == bytes.fromhex("00000003616263")

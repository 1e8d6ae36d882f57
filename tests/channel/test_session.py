"""Replay windows and sessions: a packet opens at most once, and only as it was sealed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egtp.channel.packet import Data, decode_packet
from egtp.channel.session import InOrder, ReplayWindow, Session, SlidingWindow
from egtp.errors import InvalidPacket

COUNTERS = st.one_of(
    st.integers(0, 60),
    st.integers(2**63, 2**63 + 40),
    st.integers(0, 2**64 - 1),
    st.just(2**64 - 1),
)


@given(st.integers(0, 50), st.lists(COUNTERS))
def test_in_order_takes_exactly_the_next_counter(taken: int, others: list[int]) -> None:
    window = InOrder()
    for counter in range(taken):
        assert window.fits(counter)
        window.take(counter)
    for counter in others:
        assert window.fits(counter) == (counter == taken)


@given(st.integers(1, 20), st.lists(COUNTERS, max_size=60))
@example(16, [2**64 - 1, 0, 2**64 - 1, 2**64 - 16, 2**64 - 17])
def test_the_sliding_window_takes_each_counter_once_and_none_too_old(
    size: int, counters: list[int]
) -> None:
    window, taken = SlidingWindow(size), set[int]()
    for counter in counters:
        expected = counter not in taken and counter > max(taken, default=-1) - size
        assert window.fits(counter) == expected
        if expected:
            window.take(counter)
            taken.add(counter)


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=80), st.integers(8_180, 8_200))
def test_the_window_of_a_relayed_path_reaches_8192_counters_back(
    counters: list[int], step: int
) -> None:
    window, taken = SlidingWindow(), set[int]()
    for counter in [probe for c in counters for probe in (c, c + step, c)]:
        expected = counter not in taken and counter > max(taken, default=-1) - 8192
        assert window.fits(counter) == expected
        if expected:
            window.take(counter)
            taken.add(counter)


def test_a_window_remembers_no_more_than_its_size_however_many_packets_come() -> None:
    window = SlidingWindow(100)
    for counter in range(1000):
        window.take(counter)
    assert window._seen.bit_length() == 100


def test_asking_a_window_changes_nothing() -> None:
    for window in (InOrder(), SlidingWindow(16)):
        for counter in (2**64 - 1, 0, 2**64 - 1, 0):
            window.fits(counter)
        assert window.fits(0)


def session(window: ReplayWindow | None = None, *, index: int = 1, remote: int = 2) -> Session:
    """One side; the other one is ``session(index=2, remote=1)``."""
    keys = (b"a" * 32, b"b" * 32)
    send, receive = keys if index < remote else keys[::-1]
    return Session(
        index=index,
        remote_index=remote,
        send_key=send,
        receive_key=receive,
        window=window or InOrder(),
        started_s=0.0,
    )


def data(packet: bytes) -> Data:
    decoded = decode_packet(packet)
    assert isinstance(decoded, Data)
    return decoded


def opens(receiver: Session, packet: bytes) -> bool:
    try:
        receiver.open(data(packet))
    except InvalidPacket:
        return False
    return True


def test_both_directions_open_what_the_other_sealed() -> None:
    ours, theirs = session(), session(index=2, remote=1)
    assert theirs.open(data(ours.seal(b"there"))) == b"there"
    assert ours.open(data(theirs.seal(b"back"))) == b"back"


def test_a_packet_of_ours_does_not_open_when_it_comes_back() -> None:
    ours = session()
    assert not opens(ours, ours.seal(b"reflected"))


@given(st.integers(1, 60))
def test_no_two_packets_have_the_same_counter(packets: int) -> None:
    sender = session()
    sealed = [data(sender.seal(b"the same")) for _ in range(packets)]
    assert [packet.counter for packet in sealed] == list(range(packets))
    assert len({packet.ciphertext for packet in sealed}) == packets
    assert sender.sent == packets


def test_on_tcp_a_packet_opens_once_and_in_order_only() -> None:
    sender, receiver = session(), session(index=2, remote=1)
    first, second, third = (sender.seal(text) for text in (b"1", b"2", b"3"))
    assert not opens(receiver, second)
    assert receiver.open(data(first)) == b"1"
    assert not opens(receiver, first)
    assert not opens(receiver, third)
    assert receiver.open(data(second)) == b"2"
    assert receiver.open(data(third)) == b"3"


@given(st.lists(st.integers(0, 29), max_size=120))
def test_on_a_relayed_path_each_packet_opens_once_in_whatever_order(order: list[int]) -> None:
    sender, receiver = session(), session(SlidingWindow(), index=2, remote=1)
    packets = [sender.seal(b"%d" % number) for number in range(30)]
    opened = set[int]()
    for number in order:
        assert opens(receiver, packets[number]) == (number not in opened)
        opened.add(number)


@given(st.integers(0), st.booleans())
def test_a_packet_with_a_flipped_bit_does_not_open_and_changes_nothing(
    place: int, relayed: bool
) -> None:
    window = SlidingWindow() if relayed else InOrder()
    sender, receiver = session(), session(window, index=2, remote=1)
    packet = sender.seal(b"text")
    bent = bytearray(packet)
    # The first four bytes are not the session's to check: the decoder refuses any change there.
    place %= 8 * (len(packet) - 4)
    bent[4 + place // 8] ^= 1 << place % 8
    assert not opens(receiver, bytes(bent))
    assert receiver.open(data(packet)) == b"text"


@given(COUNTERS, st.binary(min_size=16, max_size=64))
def test_a_forged_packet_cannot_move_the_window(counter: int, ciphertext: bytes) -> None:
    sender, receiver = session(), session(SlidingWindow(), index=2, remote=1)
    forged = struct.pack(">BBBBQQ", 3, 1, 1, 0, 2, counter) + ciphertext
    assert not opens(receiver, forged)
    assert receiver.open(data(sender.seal(b"real"))) == b"real"


@given(st.integers(0, 39))
def test_a_truncated_packet_does_not_open(cut: int) -> None:
    sender, receiver = session(), session(index=2, remote=1)
    packet = sender.seal(bytes(40))
    with pytest.raises(InvalidPacket):
        receiver.open(data(packet[: len(packet) - 1 - cut]))
    assert receiver.open(data(packet)) == bytes(40)


def test_a_packet_of_another_session_does_not_open() -> None:
    # Same index, other keys: as when a session was replaced after a restart.
    receiver = Session(
        index=2,
        remote_index=1,
        send_key=b"c" * 32,
        receive_key=b"d" * 32,
        window=InOrder(),
        started_s=0.0,
    )
    assert not opens(receiver, session().seal(b"text"))

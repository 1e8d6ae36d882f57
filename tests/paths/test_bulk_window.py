"""The window of large messages: small while they queue on the way, large enough for any path."""

from __future__ import annotations

import struct
from collections import deque
from itertools import pairwise
from math import inf, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.paths.bulk_window import (
    ASKED_MIN,
    BESIDE_S,
    BYTES_FIRST,
    BYTES_MAX,
    CHUNK_BYTES_FIRST,
    CHUNK_BYTES_MIN,
    CHUNKS_MIN,
    FILLING_SHARE,
    OVERDUE_MAX_S,
    OVERDUE_S,
    QUEUE_S,
    BulkWindow,
)
from egtp.paths.outbox import CHUNKS_MAX

PIECE = 16_384


def carry(
    window: BulkWindow,
    bytes_per_s: float,
    delay_s: float,
    for_s: float,
    *,
    small_ones_after_s: float = inf,
    begins_s: float = 0.0,
) -> tuple[float, float]:
    """Send as much as the window allows over a path of that rate and delay; the share of the rate
    that was used in the second half, and the longest that a packet waited there."""
    now_s = free_s = begins_s
    for_s += begins_s
    half_s = (begins_s + for_s) / 2
    pongs: deque[tuple[float, bytes]] = deque()
    carried, longest_s = 0, 0.0
    while now_s < for_s:
        while pongs and pongs[0][0] <= now_s:
            window.pong(pongs.popleft()[1], now_s)
        if now_s > small_ones_after_s:
            window.small_one_passes(now_s)
        packet = window.chunk_bytes * min(window.chunks(now_s), CHUNKS_MAX)
        if not packet:
            now_s = pongs[0][0]
            continue
        if free_s - now_s > 10:
            break
        free_s = max(free_s, now_s) + packet / bytes_per_s
        ping = window.sent(packet, now_s)
        if ping is not None:
            pongs.append((free_s + delay_s, ping))
        if now_s > half_s:
            carried += packet
            longest_s = max(longest_s, free_s - now_s)
        now_s += 1e-6
    for at_s, pong in pongs:
        window.pong(pong, at_s)
    return carried / (bytes_per_s * (for_s - half_s)), longest_s


def test_a_slow_path_holds_little_and_is_kept_busy() -> None:
    """A megabyte a second, 20 ms: what is under way is what the path carries in a tenth of one."""
    used, longest_s = carry(BulkWindow(), 1e6, 0.02, 20)
    assert used > 0.95
    assert longest_s < 0.25


def test_a_fast_path_holds_milliseconds_and_is_kept_busy() -> None:
    used, longest_s = carry(BulkWindow(), 500e6, 0.0002, 1)
    assert used > 0.9
    assert longest_s < 0.004


def test_a_long_fat_path_is_filled() -> None:
    """50 MB/s over 100 ms: 5 MB under way, forty times what the window begins with."""
    window = BulkWindow()
    used, longest_s = carry(window, 50e6, 0.1, 8)
    assert used > 0.9
    assert window.bytes_max > 4e6
    assert longest_s < 0.25


@pytest.mark.parametrize(
    ("bytes_per_s", "delay_s"), [(5e6, 0.6), (20e6, 0.2), (50e6, 0.1), (100e6, 0.02)]
)
def test_a_new_path_is_filled_about_as_fast_as_by_tcp(bytes_per_s: float, delay_s: float) -> None:
    """Whose window doubles with each round trip."""
    window = BulkWindow()
    doublings = log2(bytes_per_s * delay_s / BYTES_FIRST)
    _, longest_s = carry(window, bytes_per_s, delay_s, (doublings + 3) * delay_s)
    assert window.bytes_max > bytes_per_s * delay_s
    assert longest_s < FILLING_SHARE * delay_s + 0.02
    # What queued while the path was filled does not stay.
    _, longest_s = carry(BulkWindow(), bytes_per_s, delay_s, 2 * (doublings + 9) * delay_s)
    assert longest_s < FILLING_SHARE * delay_s / 2 + 0.02


def test_while_small_messages_pass_a_fast_path_holds_a_few_chunks_and_is_kept_busy() -> None:
    window = BulkWindow()
    used, longest_s = carry(window, 500e6, 0.0001, 2, small_ones_after_s=0.9)
    assert window.bytes_max < 16 * PIECE
    assert longest_s < 0.0005
    assert used > 0.7


def test_while_small_messages_pass_a_long_path_is_filled_all_the_same() -> None:
    used, longest_s = carry(BulkWindow(), 50e6, 0.1, 20, small_ones_after_s=0)
    assert used > 0.8
    assert longest_s < 0.25


def test_a_window_that_shrinks_never_waits_for_a_pong_that_nobody_asked_for() -> None:
    """It had grown so large that less than a quarter of it, which has no ping, fills it now."""
    window, now_s = BulkWindow(), 0.0
    asked: list[bytes] = []
    for round_trip_s in [0.0001] * 40 + [0.5] * 40:
        while window.chunks(now_s):
            ping = window.sent(PIECE, now_s)
            if ping is not None:
                asked.append(ping)
        assert asked, "it waits, and nothing will come"
        window.small_one_passes(now_s)
        now_s += round_trip_s
        for ping in asked:
            window.pong(ping, now_s)
        asked.clear()


def test_on_a_slow_line_a_small_message_waits_for_a_second_and_the_line_is_kept_busy() -> None:
    """10 kB/s, as where a mobile network is bad. At 3 kB/s it waits for less than it takes to
    believe that nobody is there."""
    used, longest_s = carry(BulkWindow(), 10_000, 0.04, 200)
    assert used > 0.95
    assert longest_s < 1.5
    used, longest_s = carry(BulkWindow(), 3000, 0.1, 600)
    assert used > 0.95
    assert longest_s < 5


def test_a_line_that_loses_packets_now_and_then_is_not_taken_for_a_slow_one() -> None:
    """What is lost comes a quarter of a second later, and so does all that is behind it."""
    window, now_s = BulkWindow(), 0.0
    asked: list[bytes] = []
    windows = []
    for turn in range(400):
        while window.chunks(now_s):
            ping = window.sent(window.chunk_bytes, now_s)
            if ping is not None:
                asked.append(ping)
        now_s += 0.3 if turn % 5 == 0 else 0.03
        for ping in asked:
            window.pong(ping, now_s)
        asked.clear()
        windows.append(window.bytes_max)
    settled = sorted(windows[40:])
    assert settled[len(settled) // 10] >= CHUNKS_MIN * PIECE, "but while a round trip is measured"


def test_a_path_that_has_become_a_longer_one_is_filled_again() -> None:
    """From 20 ms to 800, as when a phone leaves the house."""
    window = BulkWindow()
    carry(window, 1e6, 0.02, 5)
    used, _ = carry(window, 1e6, 0.8, 120, begins_s=10)
    assert used > 0.8


def test_what_queues_is_never_taken_for_the_length_of_the_path() -> None:
    """There is always something under way, so no round trip shows the bare path by itself."""
    used, longest_s = carry(BulkWindow(), 1e6, 0.02, 300)
    assert used > 0.95
    assert longest_s < 0.1


def test_a_path_that_has_become_a_faster_one_is_filled_again() -> None:
    window = BulkWindow()
    carry(window, 1e5, 0.05, 20)
    used, _ = carry(window, 1e7, 0.05, 5, begins_s=30)
    assert used > 0.9


def test_a_path_that_has_become_a_slower_one_soon_holds_less() -> None:
    """From Wi-Fi to a phone's line, say: what the old one held would take seconds on the new."""
    window = BulkWindow()
    carry(window, 10e6, 0.02, 5)
    used, longest_s = carry(window, 200e3, 0.02, 20, begins_s=5)
    assert used > 0.9
    assert longest_s < 0.3


def test_a_path_that_has_little_to_carry_for_a_while_keeps_its_window() -> None:
    """That little was read says nothing of how much would have been."""
    window, now_s = BulkWindow(), 10.0
    carry(window, 50e6, 0.1, 8)
    before = window.bytes_max
    for _ in range(100):
        ping = window.sent(PIECE, now_s)
        assert ping is not None
        window.pong(ping, now_s + 0.1)
        now_s += 5
    assert window.bytes_max > 0.9 * before


def test_a_path_that_has_had_little_to_carry_so_far_keeps_the_window_that_it_began_with() -> None:
    window, now_s = BulkWindow(), 0.0
    for _ in range(100):
        ping = window.sent(300, now_s)
        now_s += 0.1
        if ping is not None:
            window.pong(ping, now_s)
    assert window.round_trip_s > 0
    assert window.bytes_max >= BYTES_FIRST
    assert window.chunk_bytes >= CHUNK_BYTES_FIRST


def test_the_small_packets_that_a_relay_passes_on_are_not_each_answered() -> None:
    window, pings = BulkWindow(), 0
    for number in range(100):
        ping = window.sent(160, number)
        if ping is not None:
            pings += 1
            window.pong(ping, number + 0.01)
    assert pings == 100 * 160 // ASKED_MIN


def test_small_packets_alone_measure_the_length_of_a_path_anew() -> None:
    """Else the window would stay as small as measuring needs it."""
    window, now_s = BulkWindow(), 0.0
    while window.bytes_max > window.chunk_bytes:
        asked = list[bytes]()
        while window.chunks(now_s):
            ping = window.sent(PIECE, now_s)
            if ping is not None:
                asked.append(ping)
        # Longer and longer: something queues, as far as can be seen.
        now_s += 0.1 + now_s / 1000
        for ping in asked:
            window.pong(ping, now_s)
    for _ in range(100):
        ping = window.sent(300, now_s)
        now_s += 0.1
        if ping is not None:
            window.pong(ping, now_s)
    assert window.bytes_max > window.chunk_bytes


def test_a_pong_that_never_comes_stops_nothing_for_ever() -> None:
    window = BulkWindow()
    while window.chunks(0.0):
        window.sent(PIECE, 0.0)
    assert not window.chunks(OVERDUE_S / 2)
    assert window.chunks(OVERDUE_S)


def test_a_peer_whose_pongs_are_late_is_not_given_more_and_more() -> None:
    """They are believed when they come: that they are late says most about the line."""
    window, asked, now_s, sent = BulkWindow(), list[bytes](), 0.0, 0
    while now_s < 60:
        if window.chunks(now_s):
            ping = window.sent(window.chunk_bytes, now_s)
            sent += window.chunk_bytes
            if ping is not None:
                asked.append(ping)
        else:
            now_s += OVERDUE_S / 4
    # Asked again after two seconds, and each time after twice as long.
    assert sent <= BYTES_FIRST + 5 * window.chunk_bytes
    before = window.bytes_max
    for ping in asked:
        window.pong(ping, now_s)
    assert window.bytes_max < before
    assert window.chunks(now_s)


def test_a_peer_that_never_answers_is_asked_again_twice_a_minute() -> None:
    window, now_s = BulkWindow(), 0.0
    probes = list[float]()
    while now_s < 600:
        if window.chunks(now_s):
            window.sent(window.chunk_bytes, now_s)
            probes.append(now_s)
        now_s += 0.5
    last = probes[-10:]
    assert [after - before for before, after in pairwise(last)] == [OVERDUE_MAX_S] * 9


def test_a_pong_speaks_for_those_that_a_relay_has_lost() -> None:
    window, asked = BulkWindow(), list[bytes]()
    while window.chunks(0.0):
        ping = window.sent(PIECE, 0.0)
        if ping is not None:
            asked.append(ping)
    assert len(asked) > 1
    assert window.pong(asked[-1], 0.1)
    assert window.chunks(0.1)


def test_a_slow_peer_is_given_twice_the_time_it_took_lately() -> None:
    """Else more and more would be sent to who cannot follow."""
    window = BulkWindow()
    ping = window.sent(PIECE, 0.0)
    assert ping is not None
    window.pong(ping, 3 * OVERDUE_S)
    while window.chunks(3 * OVERDUE_S):
        window.sent(PIECE, 3 * OVERDUE_S)
    assert not window.chunks(8 * OVERDUE_S)
    assert window.chunks(9 * OVERDUE_S)


@given(
    st.lists(
        st.one_of(
            st.integers(1, 65_000),
            st.binary(max_size=9),
            st.integers(0, 2**24).map(lambda total: struct.pack(">Q", total)),
        ),
        max_size=60,
    )
)
def test_whatever_pongs_a_peer_makes_up_the_window_is_within_its_bounds(
    events: list[int | bytes],
) -> None:
    window, asked, now_s = BulkWindow(), deque[bytes](), 0.0
    for event in events:
        now_s += QUEUE_S / 3
        if isinstance(event, int):
            ping = window.sent(event, now_s)
            if ping is not None:
                asked.append(ping)
        elif event in asked:
            while asked.popleft() != event:
                pass
            window.pong(event, now_s)
        else:
            before = window.bytes_max
            assert not window.pong(event, now_s)
            assert window.bytes_max == before
        assert CHUNK_BYTES_MIN <= window.bytes_max <= BYTES_MAX


@given(
    st.lists(
        st.one_of(
            st.just("send"),
            st.just("send"),
            st.just("pong"),
            st.just("small"),
            st.sampled_from([0.000_01, 0.001, 0.1, BESIDE_S, OVERDUE_S]),
        ),
        max_size=200,
    )
)
def test_large_messages_wait_while_the_window_is_full_and_a_packet_is_little_of_it(
    events: list[str | float],
) -> None:
    window, now_s, small_s = BulkWindow(), 0.0, -inf
    sent = read = 0
    asked: deque[tuple[float, bytes]] = deque()
    for event in events:
        if isinstance(event, float):
            now_s += event
        elif event == "small":
            window.small_one_passes(now_s)
            small_s = now_s
        elif event == "pong" and asked:
            _, pong = asked.popleft()
            (read,) = struct.unpack(">Q", pong)
            window.pong(pong, now_s)
        elif event == "send":
            chunks = window.chunks(now_s)
            if asked and sent - read >= window.bytes_max:
                # One more, if nobody has answered for long.
                assert chunks <= (now_s - asked[-1][0] >= OVERDUE_S)
            else:
                assert chunks
            if now_s < small_s + BESIDE_S:
                assert chunks <= 1, "in the way of small ones"
            assert chunks * PIECE <= max(window.bytes_max // 2, PIECE)
            # A packet may have less than it might, and the last chunk may be short.
            size = min(chunks, CHUNKS_MAX) * PIECE
            if size:
                sent += size
                ping = window.sent(size, now_s)
                if ping is not None:
                    asked.append((now_s, ping))
                assert asked, "nobody would say how far the peer has read"

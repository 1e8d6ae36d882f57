"""The window of a relayed path: never more under way than the peer wants, and never stuck.

Pings, pongs and everything else may be lost, late, twice, or made up by the other side.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.paths.relayed_window import ASK_AGAIN_S, BYTES_MIN, RelayedWindow

LIMIT = 100_000
PACKET_MAX = 65_000


class WindowMachine(RuleBasedStateMachine):
    """The model: how much was sent, and how far the peer has read in truth."""

    def __init__(self) -> None:
        super().__init__()
        self.window = RelayedWindow(LIMIT)
        self.now_s = 0.0
        self.sent = self.read = self.known = 0
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []

    @rule(size=st.integers(1, PACKET_MAX))
    def send(self, size: int) -> None:
        """As a path does: only if there is room, and with a ping if it is time for one."""
        if not self.window.has_room:
            return
        ping = self.window.ping(self.now_s)
        if ping is not None:
            self.pings.append(ping)
        self.window.sent(size)
        self.sent += size

    @rule(data=st.data(), lost=st.booleans())
    def a_ping_arrives(self, data: st.DataObject, *, lost: bool) -> None:
        """Packets overtake each other; a ping tells how much was sent before it."""
        if self.pings:
            ping = self.pings.pop(data.draw(st.integers(0, len(self.pings) - 1)))
            if not lost:
                (total,) = struct.unpack(">Q", ping)
                self.read = max(self.read, total)
                self.pongs.append(ping)

    @rule(data=st.data(), again=st.booleans())
    def a_pong_arrives(self, data: st.DataObject, *, again: bool) -> None:
        if self.pongs:
            pong = data.draw(st.sampled_from(self.pongs))
            if not again:
                self.pongs.remove(pong)
            (total,) = struct.unpack(">Q", pong)
            assert self.window.pong(pong) == (total > self.known)
            self.known = max(self.known, total)

    @rule(made_up=st.one_of(st.binary(max_size=12), st.integers(0, 2**64 - 1)))
    def somebody_makes_up_a_pong(self, made_up: bytes | int) -> None:
        """Nothing that was not sent can be said to be read; what was, the peer may claim."""
        total = -1
        if isinstance(made_up, int):
            made_up = struct.pack(">Q", made_up)
        if len(made_up) == 8:
            (total,) = struct.unpack(">Q", made_up)
        if self.known < total <= self.sent:
            return
        assert not self.window.pong(made_up)

    @rule(seconds=st.sampled_from([0.1, 1.0, ASK_AGAIN_S, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def no_more_is_under_way_than_the_peer_wants_and_one_packet(self) -> None:
        assert self.sent - self.known < LIMIT + PACKET_MAX
        assert self.window.has_room == (self.sent - self.known < LIMIT)
        assert self.read <= self.sent

    def teardown(self) -> None:
        """However many pings and pongs were lost: it is asked again, and goes on."""
        for _ in range(3):
            if self.window.has_room:
                break
            self.now_s += ASK_AGAIN_S
            ping = self.window.ping(self.now_s)
            if ping is not None:
                self.window.pong(ping)
        assert self.window.has_room


def test_never_more_is_under_way_than_the_peer_wants_and_it_is_never_stuck() -> None:
    run_state_machine_as_test(WindowMachine)


@given(st.integers(0, 2**64), st.lists(st.integers(1, PACKET_MAX), max_size=60))
def test_a_peer_that_reads_is_asked_early_enough_for_the_window_never_to_close(
    limit: int, sizes: list[int]
) -> None:
    """If pongs come back before half of it was used, nothing ever waits."""
    window = RelayedWindow(limit)
    bytes_max = max(limit, BYTES_MIN)
    for size in sizes:
        assert window.has_room
        ping = window.ping(0.0)
        if ping is not None:
            window.pong(ping)
        window.sent(min(size, bytes_max // 4))


def test_while_it_is_closed_it_is_asked_again_now_and_then_and_not_more_often() -> None:
    window = RelayedWindow(0)
    window.sent(BYTES_MIN)
    assert not window.has_room
    asked = [tenth / 10 for tenth in range(100) if window.ping(tenth / 10) is not None]
    assert asked == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_while_it_is_open_it_is_asked_each_quarter_whatever_the_time() -> None:
    window = RelayedWindow(4 * BYTES_MIN)
    assert window.ping(1e9) is None
    window.sent(BYTES_MIN - 1)
    assert window.ping(2e9) is None
    window.sent(1)
    assert window.ping(2e9) == struct.pack(">Q", BYTES_MIN)
    assert window.ping(3e9) is None


@pytest.mark.parametrize("data", [b"", bytes(7), bytes(9), bytes(8), b"\xff" * 8])
def test_what_is_no_pong_of_ours_opens_nothing(data: bytes) -> None:
    window = RelayedWindow(0)
    window.sent(BYTES_MIN)
    assert not window.pong(data)
    assert not window.has_room

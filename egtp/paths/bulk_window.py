"""How much of large messages may be under way on a connection while small ones must pass (pure).

What the kernels of both sides and everything between them have taken goes first, whatever is
more urgent; on a fast path that is megabytes. So no more of large messages is given away than keeps
the path busy: a ping tells how much was sent before it, its pong that the peer has read as far. A
round trip that grows says that something waits on the way, and the window shrinks; while none does,
it grows, as TCP Vegas and LEDBAT (RFC 6817) do. Small messages are never held back.

How much queues is a bargain: with more under way both ends of a fast path are busier. So as long
as small messages pass beside the large ones it is as little as keeps them short, and otherwise
more.
"""

from __future__ import annotations

import struct
from collections import deque
from math import inf
from typing import Final

from egtp.channel.sealed import CHUNK_BYTES_MAX

__all__ = ["BulkWindow"]

_TOTAL: Final = struct.Struct(">Q")
PACKETS_MIN: Final = 2
"""A packet of several chunks is at most this part of the window."""
BYTES_MIN: Final = 3 * CHUNK_BYTES_MAX
"""Three chunks: with less under way, both ends of a path would wait for each other."""
SMALL_CHUNKS: Final = 5
"""A smaller window is of a slow line. There chunks are smaller, too, so that a packet takes less
than seconds; and there are more of them, for a relay passes on what it has whole."""
CHUNK_BYTES_MIN: Final = 2048
"""Of less, what a packet costs would be a tenth."""
BYTES_LEAST: Final = 3 * CHUNK_BYTES_MIN
BYTES_FIRST: Final = BYTES_MIN // 2
"""Before anything is known of a path: TCP begins with 14 KiB, and a line of 10 kB/s has them for
two seconds."""
CHUNK_BYTES_FIRST: Final = BYTES_FIRST // SMALL_CHUNKS
SLOW_S: Final = 0.25
"""A line is slow if it takes longer than that for :data:`BYTES_MIN`: there, less may be under way,
but no less than it takes in that time."""
RATE_KEPT: Final = 0.75
"""Of the highest rate, with each pong: where packets are lost, some of them are late that were not
behind others."""
BYTES_MAX: Final = 64 * 1024 * 1024
"""A path of 100 ms carries 5 Gbit/s with it."""
QUEUE_S: Final = 0.001
"""So long large messages may wait on the way, beside what the fastest round trip took: part of it
is the scheduling of both sides."""
QUEUE_BESIDE_S: Final = 0.000_05
"""The same, while small messages pass."""
BESIDE_S: Final = 0.25
"""For so long after one has passed, others are believed to come."""
QUEUE_RELAYED_S: Final = 0.5
"""The same, at a relay and on the lines to and from it: what queues there is bounded otherwise, and
others do not wait behind it. But if it is many seconds, as on slow lines, nobody is heard."""
QUEUE_MAX_S: Final = 1.0
"""As long as the fastest round trip took, large messages may wait in any case, but no longer than
this: a peer that is not heard of for seconds is believed to be gone."""
LEAST_FIRST_S: Final = 2.0
"""What the first round trip takes longer than that is believed to be what queues."""
OVERDUE_S: Final = 2.0
"""A peer that answers no ping for so long may have dropped it, and is asked again."""
OVERDUE_MAX_S: Final = 30.0


class BulkWindow:
    """Invariant: if :meth:`chunks` is asked before each packet, less than :attr:`bytes_max` and a
    packet more of large messages is under way, as far as is known; and one more for each time that
    nobody answered for long."""

    __slots__ = (
        "_acknowledged",
        "_asked",
        "_beside_until_s",
        "_full",
        "_least_large_s",
        "_least_s",
        "_patience_s",
        "_pings",
        "_queue_s",
        "_rate",
        "_sent",
        "_shrunk",
        "_starting",
        "bytes_max",
        "round_trip_s",
    )

    def __init__(self, queue_s: float = QUEUE_S) -> None:
        """``queue_s`` is how long large messages may wait on the way."""
        self._queue_s = queue_s
        self.bytes_max = BYTES_FIRST
        self._sent = self._acknowledged = self._asked = 0
        self._full = 0
        """How much was sent when the window was last full."""
        self._shrunk = 0
        """How much was sent when the window last shrank for a slow line."""
        self._patience_s = OVERDUE_S
        self._pings: deque[tuple[int, float, bool, int]] = deque()
        """What is asked and not answered: how much was sent by then, when, whether in chunks of
        full size, and how much was known to be read then."""
        self._rate = 0.0
        """In bytes a second, what the peer has read lately."""
        self._least_s = LEAST_FIRST_S
        """The fastest round trip."""
        self._least_large_s = inf
        """The same, of chunks of full size: a fast line takes little longer for them."""
        self.round_trip_s = 0.0
        """The last one."""
        self._starting = True
        self._beside_until_s = -inf

    def small_one_passes(self, now_s: float) -> None:
        """A small message is being sent on the same connection."""
        self._beside_until_s = now_s + BESIDE_S

    def chunks(self, now_s: float) -> int:
        """How many chunks the next packet may have; 0 if no large message may go now.

        More than one, if they are little of what is under way, so that no slow path is silent for
        longer; and none is to be in the way of small messages.
        """
        # Without a ping under way nobody would say how far the peer has read: the next packet then
        # has one, since the window has shrunk.
        if self.is_full:
            # Nobody is to wait for ever on a pong that does not come. But it may only be late, and
            # a slow line not be given all the more.
            return 0 if now_s - self._pings[-1][1] < self._patience_s else 1
        if now_s < self._beside_until_s:
            return 1
        return max(self.bytes_max // (PACKETS_MIN * CHUNK_BYTES_MAX), 1)

    @property
    def chunk_bytes(self) -> int:
        """How large a chunk may be."""
        if self.bytes_max >= BYTES_MIN:
            return CHUNK_BYTES_MAX
        return max(self.bytes_max // SMALL_CHUNKS, CHUNK_BYTES_MIN)

    @property
    def is_full(self) -> bool:
        """Whether no more may be under way. What is sent all the same asks again who has not
        answered for long."""
        return self._sent - self._acknowledged >= self.bytes_max and bool(self._pings)

    def sent(self, size: int, now_s: float) -> bytes | None:
        """So much of large messages is being sent. The bytes of a ping to send behind it, if it is
        time for one: with the first packet, with each quarter of the window, with what fills it as
        long as it grows fast, and if none was answered for long."""
        asks_again = self.is_full
        self._sent += size
        fills = self._sent - self._acknowledged >= self.bytes_max
        if fills:
            self._full = self._sent
        if asks_again:
            self._patience_s = min(2 * self._patience_s, OVERDUE_MAX_S)
        elif (
            self._pings
            and self._sent - self._asked < self.bytes_max // 4
            and not (fills and self._starting)
        ):
            return None
        self._asked = self._sent
        is_large = self.bytes_max >= BYTES_MIN
        self._pings.append((self._sent, now_s, is_large, self._acknowledged))
        return _TOTAL.pack(self._sent)

    def pong(self, data: bytes, now_s: float) -> bool:
        """The peer has read as far as ``data`` says. True if more may be sent than before."""
        if len(data) != _TOTAL.size:
            return False
        total: int = _TOTAL.unpack(data)[0]
        if all(asked[0] != total for asked in self._pings):
            return False
        while self._pings[0][0] != total:
            self._pings.popleft()  # A relay has lost it, or its pong.
        _, asked_s, was_large, read_then = self._pings.popleft()
        news, self._acknowledged = total - self._acknowledged, total
        self.round_trip_s = round_trip_s = now_s - asked_s
        rate = (total - read_then) / max(round_trip_s, 1e-6)
        self._rate = max(rate, RATE_KEPT * self._rate)
        # Of the first round trip nobody knows whether anything queued in it.
        is_idle = self._least_s < LEAST_FIRST_S and round_trip_s < 1.5 * self._least_s
        self._least_s = min(self._least_s, round_trip_s)
        if was_large:
            self._least_large_s = min(self._least_large_s, round_trip_s)
        least_s = self._least_s
        if round_trip_s < SLOW_S:
            least_s = min(self._least_large_s, round_trip_s)
        self._patience_s = max(OVERDUE_S, 2 * round_trip_s)
        is_beside = now_s < self._beside_until_s
        # TCP begins slowly, too, and takes some round trips for the first of a window.
        queued_s = min((2 if self._starting else 1) * least_s, QUEUE_MAX_S)
        most_s = least_s + queued_s + (QUEUE_BESIDE_S if is_beside else self._queue_s)
        if round_trip_s > most_s:
            self._shrink(total, most_s, is_beside=is_beside)
        elif total <= self._full:
            # Two or four times as much with each round trip until something queues, and an eighth
            # from then on.
            more = news // 8
            if self._starting:
                more = 3 * news if is_idle else news
            self.bytes_max = min(self.bytes_max + more, BYTES_MAX)
        return news > 0

    def _shrink(self, total: int, most_s: float, *, is_beside: bool) -> None:
        """The pong for ``total`` took longer than ``most_s``."""
        is_slow = self.round_trip_s >= SLOW_S
        # What has grown while nothing was beside it is in the way of who comes now.
        share = 1 / 8
        if is_beside or is_slow:
            share = min(max(1 - most_s / self.round_trip_s, share), 1 / 2)
        self._starting = False
        least = BYTES_MIN
        if is_slow:
            if total <= self._shrunk:
                return  # It was sent before the window shrank.
            self._shrunk = self._sent
            least = min(max(int(self._rate * SLOW_S), BYTES_LEAST), BYTES_MIN)
            if self.bytes_max == BYTES_LEAST:
                # It is not large messages that wait: the path has become a longer one.
                self._least_s, self._starting = self.round_trip_s, True
        least = min(least, self.bytes_max)
        self.bytes_max = max(self.bytes_max - int(self.bytes_max * share), least)

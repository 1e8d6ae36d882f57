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
BYTES_MAX: Final = 64 * 1024 * 1024
"""A path of 100 ms carries 5 Gbit/s with it."""
QUEUE_S: Final = 0.001
"""So long large messages may wait on the way, beside what the fastest round trip took: part of it
is the scheduling of both sides."""
QUEUE_BESIDE_S: Final = 0.000_05
"""The same, while small messages pass."""
BESIDE_S: Final = 0.25
"""For so long after one has passed, others are believed to come."""
QUEUE_RELAYED_S: Final = 1.0
"""The same, at a relay and on the lines to and from it: what queues there is bounded otherwise, and
others do not wait behind it. But if it is many seconds, as on slow lines, nobody is heard."""
OVERDUE_S: Final = 2.0
"""A peer that answers no ping for so long is believed to have dropped it, and is asked again."""


class BulkWindow:
    """Invariant: if :meth:`chunks` is asked before each packet, less than :attr:`bytes_max` and a
    packet more of large messages is under way, as far as is known."""

    __slots__ = (
        "_acknowledged",
        "_asked",
        "_beside_until_s",
        "_least_s",
        "_pings",
        "_queue_s",
        "_sent",
        "_starting",
        "bytes_max",
        "round_trip_s",
    )

    def __init__(self, queue_s: float = QUEUE_S) -> None:
        """``queue_s`` is how long large messages may wait on the way."""
        self._queue_s = queue_s
        self.bytes_max = BYTES_MIN
        self._sent = self._acknowledged = self._asked = 0
        self._pings: deque[tuple[int, float]] = deque()
        """What is asked and not answered: how much was sent by then, and when."""
        self._least_s = inf
        """The fastest round trip."""
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
        if self._sent - self._acknowledged >= self.bytes_max and self._pings:
            if now_s - self._pings[-1][1] < max(OVERDUE_S, 2 * self.round_trip_s):
                return 0
            # Nobody is to wait for ever on a pong that does not come.
            self._acknowledged = self._sent
            self._pings.clear()
        if now_s < self._beside_until_s:
            return 1
        return max(self.bytes_max // (PACKETS_MIN * CHUNK_BYTES_MAX), 1)

    def sent(self, size: int, now_s: float) -> bytes | None:
        """So much of large messages is being sent. The bytes of a ping to send behind it, if it is
        time for one: with each quarter of the window."""
        self._sent += size
        if self._sent - self._asked < self.bytes_max // 4:
            return None
        self._asked = self._sent
        self._pings.append((self._sent, now_s))
        return _TOTAL.pack(self._sent)

    def pong(self, data: bytes, now_s: float) -> bool:
        """The peer has read as far as ``data`` says. True if more may be sent than before."""
        if len(data) != _TOTAL.size:
            return False
        total: int = _TOTAL.unpack(data)[0]
        if all(asked != total for asked, _ in self._pings):
            return False
        while self._pings[0][0] != total:
            self._pings.popleft()  # A relay has lost it, or its pong.
        _, asked_s = self._pings.popleft()
        was_full = self._sent - self._acknowledged >= self.bytes_max
        news, self._acknowledged = total - self._acknowledged, total
        self.round_trip_s = round_trip_s = now_s - asked_s
        self._least_s = min(self._least_s, round_trip_s)
        is_beside = now_s < self._beside_until_s
        most_s = 2 * self._least_s + (QUEUE_BESIDE_S if is_beside else self._queue_s)
        if round_trip_s > most_s:
            # What has grown while nothing was beside it is in the way of who comes now.
            share = min(max(1 - most_s / round_trip_s, 1 / 8), 1 / 2) if is_beside else 1 / 8
            self.bytes_max = max(self.bytes_max - int(self.bytes_max * share), BYTES_MIN)
            self._starting = False
        elif was_full:
            # Twice as much with each round trip until something queues, and an eighth from then on.
            more = news if self._starting else news // 8
            self.bytes_max = min(self.bytes_max + more, BYTES_MAX)
        return news > 0

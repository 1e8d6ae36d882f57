"""How much of large messages may be under way on a path while small ones must pass (pure).

Whatever the kernels of both sides and the line between them have taken goes first, however urgent
the next message is; on a fast path that is megabytes. So no more of large messages is given away
than keeps the path busy. A ping tells how much was sent before it, its pong that the peer has read
that far. From these come, as in BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control",
2016), the two things that say how much a path holds: the highest rate at which the peer has read
lately, and the shortest round trip. Their product is under way, and as much again as may queue.
Small messages are never held back.

How much may queue is a bargain: with more under way both ends of a fast path are busier. So it is
little while small messages pass beside the large ones, and more otherwise.
"""

from __future__ import annotations

import struct
from collections import deque
from math import inf
from typing import Final, NamedTuple

from egtp.channel.sealed import CHUNK_BYTES_MAX

__all__ = ["BulkWindow"]

_TOTAL: Final = struct.Struct(">Q")
BYTES_FIRST: Final = 24 * 1024
"""While nothing is known of a path. TCP begins with 14 KiB; a line of 10 kB/s has this for two
seconds."""
BYTES_MAX: Final = 64 * 1024 * 1024
"""A path of 100 ms carries 5 Gbit/s with it."""
CHUNKS_MIN: Final = 3
"""With fewer under way, both ends of a path would wait for each other."""
CHUNK_BYTES_MIN: Final = 3072
"""Some eighty bytes go with each."""
CHUNK_BYTES_FIRST: Final = 4096
CHUNK_S: Final = 0.05
"""How long a line may be busy with one chunk, if that is no smaller than the smallest."""
PACKETS_MIN: Final = 2
"""A packet of several chunks is at most this part of the window."""
QUEUE_SHARE: Final = 1 / 2
"""Large messages may queue for this part of a round trip, so that the window grows by it with each
until something queues."""
QUEUE_MAX_S: Final = 1.0
"""But for no longer than this: a peer that is not heard of for seconds is believed to be gone."""
QUEUE_S: Final = 0.001
"""And for so long beside that: part of it is the scheduling of both sides."""
QUEUE_RELAYED_S: Final = 0.5
"""The same, at a relay and on the lines to and from it: what queues there is bounded otherwise, and
others do not wait behind it. But if it is many seconds, as on slow lines, nobody is heard."""
QUEUE_BESIDE_S: Final = 0.000_04
"""The same, while small messages pass."""
BESIDE_S: Final = 0.25
"""For so long after one has passed, others are believed to come."""
RATE_ROUNDS: Final = 3
"""The rate is the highest of at least so many round trips: one that is slow says little, since
TCP gives what was lost again, and all that is behind it waits."""
LEAST_KEPT_S: Final = 10.0
"""The shortest round trip is believed for so long. Then the path may have become a longer one."""
LEAST_KEPT_ROUNDS: Final = 30
"""And for as long as so many of it take: to measure it costs two."""
MEASURING_S: Final = 0.05
"""For so long, and one round trip at least, a single chunk is under way at a time to measure the
round trip anew."""
OVERDUE_S: Final = 2.0
"""A peer that answers no ping for so long may have dropped it, and is asked again."""
OVERDUE_MAX_S: Final = 30.0


class _Ping(NamedTuple):
    """One that is not answered. How much had been sent by then, how much of that was known to be
    read, and since when."""

    sent: int
    sent_s: float
    read: int
    read_s: float
    goes_alone: bool
    """Nothing of a large message was under way before it."""


class BulkWindow:
    """Invariant: if :meth:`chunks` is asked before each packet, less than :attr:`bytes_max` and a
    packet more of large messages is under way, as far as is known; and one more for each time that
    nobody answered for long."""

    __slots__ = (
        "_asked",
        "_beside_until_s",
        "_full",
        "_least_s",
        "_least_until_s",
        "_measured_s",
        "_measuring_until_s",
        "_patience_s",
        "_pings",
        "_queue_s",
        "_rate_before",
        "_rate_now",
        "_read",
        "_read_s",
        "_round",
        "_rounds",
        "_sent",
        "bytes_max",
        "chunk_bytes",
        "round_trip_s",
    )

    def __init__(self, queue_s: float = QUEUE_S) -> None:
        """``queue_s`` is how long large messages may queue while no small ones pass."""
        self._queue_s = queue_s
        self.bytes_max = BYTES_FIRST
        self.chunk_bytes = CHUNK_BYTES_FIRST
        """How large a chunk may be."""
        self.round_trip_s = 0.0
        """The last one; 0 if there was none."""
        self._sent = self._read = self._asked = 0
        self._read_s = 0.0
        """When the peer was last known to have read something, or began to have anything to."""
        self._full = 0
        """How much was sent when the window was last full."""
        self._pings: deque[_Ping] = deque()
        self._patience_s = OVERDUE_S
        self._rate_now = self._rate_before = 0.0
        """The highest rate, in bytes a second, of these :data:`RATE_ROUNDS` round trips and of
        those before."""
        self._round = self._rounds = 0
        """How much must have been read for one more round trip, and how many there were."""
        self._least_s = self._measured_s = inf
        """The shortest round trip, and that of packets that went alone since it is measured
        anew."""
        self._least_until_s = self._measuring_until_s = inf
        self._beside_until_s = -inf

    def small_one_passes(self, now_s: float) -> None:
        """A small message is being sent on the same path."""
        was_beside, self._beside_until_s = now_s < self._beside_until_s, now_s + BESIDE_S
        if not was_beside:
            self._resize(now_s)

    def chunks(self, now_s: float) -> int:
        """How many chunks the next packet may have; 0 if no large message may go now.

        More than one, if they are little of what is under way, so that no slow path is silent for
        longer; and none is to be in the way of small messages.
        """
        if self.is_full:
            # Nobody is to wait for ever on a pong that does not come. But it may only be late, and
            # a slow line not be given all the more.
            return 0 if now_s - self._pings[-1].sent_s < self._patience_s else 1
        if now_s < self._beside_until_s:
            return 1
        return max(self.bytes_max // (PACKETS_MIN * CHUNK_BYTES_MAX), 1)

    @property
    def is_full(self) -> bool:
        """Whether no more may be under way. What is sent all the same asks again who has not
        answered for long. Without a ping under way nobody would say how far the peer has read: then
        the next packet has one."""
        return self._sent - self._read >= self.bytes_max and bool(self._pings)

    def sent(self, size: int, now_s: float) -> bytes | None:
        """So much of large messages is being sent. The bytes of a ping to send behind it, if it is
        time for one: with the first packet, with each quarter of the window, and if none was
        answered for long."""
        asks_again, goes_alone = self.is_full, self._sent == self._read
        if goes_alone:
            self._read_s = now_s
        self._sent += size
        if self._sent - self._read >= self.bytes_max:
            self._full = self._sent
        if asks_again:
            self._patience_s = min(2 * self._patience_s, OVERDUE_MAX_S)
        elif self._pings and self._sent - self._asked < self.bytes_max // 4:
            return None
        self._asked = self._sent
        self._pings.append(_Ping(self._sent, now_s, self._read, self._read_s, goes_alone))
        return _TOTAL.pack(self._sent)

    def pong(self, data: bytes, now_s: float) -> bool:
        """The peer has read as far as ``data`` says. True if more may be sent than before."""
        if len(data) != _TOTAL.size:
            return False
        total: int = _TOTAL.unpack(data)[0]
        if all(ping.sent != total for ping in self._pings):
            return False
        while self._pings[0].sent != total:
            self._pings.popleft()  # A relay has lost it, or its pong.
        ping = self._pings.popleft()
        has_news, self._read, self._read_s = total > self._read, total, now_s
        self.round_trip_s = now_s - ping.sent_s
        self._patience_s = max(OVERDUE_S, 2 * self.round_trip_s)
        self._learn_rate(ping, now_s)
        self._learn_round_trip(ping, now_s)
        self._resize(now_s)
        return has_news

    def _learn_rate(self, ping: _Ping, now_s: float) -> None:
        rate = (ping.sent - ping.read) / max(now_s - ping.read_s, 1e-6)
        self._rate_now = max(self._rate_now, rate)
        if ping.sent < self._round or ping.sent > self._full or self._is_measuring:
            return  # While there is little to send, nothing says that more could not be.
        self._round = self._sent
        self._rounds += 1
        if self._rounds % RATE_ROUNDS == 0:
            self._rate_before, self._rate_now = self._rate_now, 0.0

    def _learn_round_trip(self, ping: _Ping, now_s: float) -> None:
        """The shortest is measured anew now and then while the window is full, since what queues
        makes all of them longer."""
        if ping.goes_alone:
            self._measured_s = min(self._measured_s, self.round_trip_s)
        if self._is_measuring and self._measured_s < inf and now_s >= self._measuring_until_s:
            self._measuring_until_s = inf
            self._believe(self._measured_s, now_s)
        elif self.round_trip_s <= self._least_s:
            self._believe(self.round_trip_s, now_s)
        elif now_s >= self._least_until_s and ping.sent <= self._full and not self._is_measuring:
            self._measured_s, self._measuring_until_s = inf, now_s + MEASURING_S

    def _believe(self, least_s: float, now_s: float) -> None:
        self._least_s = least_s
        self._least_until_s = now_s + max(LEAST_KEPT_S, LEAST_KEPT_ROUNDS * least_s)

    @property
    def _is_measuring(self) -> bool:
        return self._measuring_until_s < inf

    def _resize(self, now_s: float) -> None:
        rate = max(self._rate_now, self._rate_before)
        if not rate:
            return
        self.chunk_bytes = min(max(int(rate * CHUNK_S), CHUNK_BYTES_MIN), CHUNK_BYTES_MAX)
        if self._is_measuring:
            self.bytes_max = self.chunk_bytes
            return
        queue_s = QUEUE_BESIDE_S if now_s < self._beside_until_s else self._queue_s
        queue_s += min(self._least_s * QUEUE_SHARE, QUEUE_MAX_S)
        holds = int(rate * (self._least_s + queue_s))
        self.bytes_max = min(max(holds, CHUNKS_MIN * self.chunk_bytes), BYTES_MAX)

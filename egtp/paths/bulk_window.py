"""How much of large messages may be in flight on a path without holding up small ones (pure).

Whatever the kernels of both sides and the line between them have accepted goes first, however
urgent the next message is; on a fast path that is megabytes. So large messages are handed over only
as far as it takes to keep the path busy. A ping says how much was sent before it; its pong, that
the peer has read that far. As in BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control",
2016), they yield the two figures that tell how much a path holds: the highest rate at which the
peer has read lately, and the shortest round trip. The window is their product plus what may queue.
Small messages are never held back.

How much may queue is a trade-off: a larger window keeps both ends of a fast path busier. So it is
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
"""While nothing is known of a path. TCP starts with 14 KiB; a line of 10 kB/s needs two seconds for
this."""
BYTES_MAX: Final = 64 * 1024 * 1024
"""Enough for 5 Gbit/s over a round trip of 100 ms."""
CHUNKS_MIN: Final = 3
"""With fewer in flight, the two ends of a path would wait for each other."""
CHUNK_BYTES_MIN: Final = 3072
"""Each carries some eighty bytes of overhead."""
CHUNK_BYTES_FIRST: Final = 4096
CHUNK_S: Final = 0.05
"""How long one chunk may occupy a line, unless it is of the smallest size."""
PACKETS_MIN: Final = 2
"""At least this many packets of several chunks fit into the window."""
QUEUE_SHARE: Final = 1 / 2
"""Large messages may queue for this fraction of a round trip, so that the window grows by it every
round trip until something queues."""
FILLING_SHARE: Final = 3 / 2
"""The same while a path is being filled, so that the window more than doubles every round trip, as
TCP's does at first."""
GROWTH: Final = 1.25
"""A path is being filled while the rate grows by this factor..."""
FILLING_ROUNDS: Final = 2
"""...at least once in so many round trips."""
QUEUE_MAX_S: Final = 1.0
"""The fraction is at most this long: a peer that is silent for seconds is believed to be gone."""
QUEUE_S: Final = 0.001
"""Large messages may queue for this long on top; scheduling on both sides takes part of it."""
QUEUE_RELAYED_S: Final = 0.5
"""The same at a relay and on the lines to and from it: what queues there is bounded by other means,
and others do not wait behind it. But with many seconds of it, as on slow lines, nobody is heard."""
QUEUE_BESIDE_S: Final = 0.000_04
"""The same while small messages pass."""
BESIDE_S: Final = 0.25
"""After a small message, more are expected for this long."""
RATE_ROUNDS: Final = 3
"""The rate is the highest of at least this many round trips: a single slow one says little, since
everything behind a lost segment waits until TCP has sent it again."""
LEAST_KEPT_S: Final = 10.0
"""How long the shortest round trip is believed. After that, the path may have become longer."""
LEAST_KEPT_ROUNDS: Final = 30
"""It is believed for at least this many round trips, too: measuring it costs two."""
MEASURING_S: Final = 0.05
"""To measure the round trip anew, a single chunk at a time is in flight for this long, and for one
round trip at least."""
ASKED_MIN: Final = 2048
"""A ping for less costs more than it tells: what a relay passes on is often this small."""
OVERDUE_S: Final = 2.0
"""A peer that answers no ping for this long may have dropped it, and is asked again."""
OVERDUE_MAX_S: Final = 30.0


class _Ping(NamedTuple):
    """A ping not answered yet: how much had been sent by then, how much of that was known to be
    read, and since when."""

    sent: int
    sent_s: float
    read: int
    read_s: float
    goes_alone: bool
    """Nothing of a large message was in flight before the packet that it follows."""


class BulkWindow:
    """Invariant: if :meth:`chunks` is asked before each packet, less than :attr:`bytes_max` plus
    one packet of large messages is in flight, as far as is known; plus one more packet for each
    time that an answer was overdue."""

    __slots__ = (
        "_asked",
        "_beside_until_s",
        "_filling",
        "_full",
        "_least_s",
        "_least_until_s",
        "_measured_s",
        "_measuring_until_s",
        "_patience_s",
        "_pings",
        "_queue_s",
        "_rate_before",
        "_rate_filled",
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
        """The largest size of a chunk."""
        self.round_trip_s = 0.0
        """The last one measured; 0 before the first."""
        self._sent = self._read = self._asked = 0
        self._read_s = 0.0
        """When the peer was last known to have read something, or was first given something to."""
        self._full = 0
        """How much had been sent when the window was last full."""
        self._pings: deque[_Ping] = deque()
        self._patience_s = OVERDUE_S
        self._rate_now = self._rate_before = 0.0
        """The highest rates, in bytes per second, of the current :data:`RATE_ROUNDS` round trips
        and of those before."""
        self._rate_filled = 0.0
        """The highest rate when it last grew much..."""
        self._filling = FILLING_ROUNDS
        """...and how many more round trips without that end the filling."""
        self._round = self._rounds = 0
        """How much must have been read to complete the current round trip, and how many are
        complete."""
        self._least_s = self._measured_s = inf
        """The shortest round trip; and the shortest of packets that went alone since measuring
        began anew."""
        self._least_until_s = self._measuring_until_s = inf
        self._beside_until_s = -inf

    def small_one_passes(self, now_s: float) -> None:
        """A small message is being sent on the same path."""
        was_beside, self._beside_until_s = now_s < self._beside_until_s, now_s + BESIDE_S
        if not was_beside:
            self._resize(now_s)

    def chunks(self, now_s: float) -> int:
        """How many chunks the next packet may have; 0 if no large message may go now.

        More than one only where they are a small part of the window, so that a slow path is not
        silent for longer; and only while no small messages pass, which would wait behind them.
        """
        if self.is_full:
            # A pong that never comes must not stop the path for ever. But it may just be late, and
            # then a slow line must not be given even more.
            return 0 if now_s - self._pings[-1].sent_s < self._patience_s else 1
        if now_s < self._beside_until_s:
            return 1
        return max(self.bytes_max // (PACKETS_MIN * CHUNK_BYTES_MAX), 1)

    @property
    def is_full(self) -> bool:
        """Whether no more may be in flight. A packet sent regardless carries another ping, since
        the last pong is overdue. Without a ping in flight the window is not full: nothing would say
        how far the peer has read, so the next packet of some size carries one."""
        return self._sent - self._read >= self.bytes_max and bool(self._pings)

    def sent(self, size: int, now_s: float) -> bytes | None:
        """``size`` bytes of large messages are being sent. Returns the bytes of a ping to send
        behind them if one is due: with the first packet of some size, with each quarter of the
        window, and when an answer is overdue."""
        asks_again, goes_alone = self.is_full, self._sent == self._read
        if goes_alone:
            self._read_s = now_s
        self._sent += size
        if self._sent - self._read >= self.bytes_max:
            self._full = self._sent
        if asks_again:
            self._patience_s = min(2 * self._patience_s, OVERDUE_MAX_S)
        elif not self._is_ping_due:
            return None
        self._asked = self._sent
        self._pings.append(_Ping(self._sent, now_s, self._read, self._read_s, goes_alone))
        return _TOTAL.pack(self._sent)

    @property
    def _is_ping_due(self) -> bool:
        unasked = self._sent - self._asked
        if self._pings:
            return unasked >= self.bytes_max // 4
        # Measuring takes a packet that goes alone, whatever its size.
        return unasked >= ASKED_MIN or self._is_measuring

    def pong(self, data: bytes, now_s: float) -> bool:
        """The peer has read as far as ``data`` says. True if more may be sent than before."""
        if len(data) != _TOTAL.size:
            return False
        total: int = _TOTAL.unpack(data)[0]
        if all(ping.sent != total for ping in self._pings):
            return False
        while self._pings[0].sent != total:
            self._pings.popleft()  # It or its pong was lost at a relay.
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
            return  # With little to send, a low rate does not mean a slow path.
        self._round = self._sent
        self._rounds += 1
        highest = max(self._rate_now, self._rate_before)
        if self._filling and highest >= GROWTH * self._rate_filled:
            self._rate_filled, self._filling = highest, FILLING_ROUNDS
        elif self._filling:
            self._filling -= 1
        if self._rounds % RATE_ROUNDS == 0:
            self._rate_before, self._rate_now = self._rate_now, 0.0

    def _learn_round_trip(self, ping: _Ping, now_s: float) -> None:
        """Now and then measure the shortest anew, if the window is full: queueing makes all of them
        longer."""
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
        # Before the window was ever full, the rate says only that a path carries no less.
        is_known = self._rounds > 0
        chunk_least = CHUNK_BYTES_MIN if is_known else CHUNK_BYTES_FIRST
        self.chunk_bytes = min(max(int(rate * CHUNK_S), chunk_least), CHUNK_BYTES_MAX)
        if self._is_measuring:
            self.bytes_max = self.chunk_bytes
            return
        is_beside = now_s < self._beside_until_s
        share = FILLING_SHARE if self._filling and not is_beside else QUEUE_SHARE
        queue_s = QUEUE_BESIDE_S if is_beside else self._queue_s
        queue_s += min(self._least_s * share, QUEUE_MAX_S)
        holds = int(rate * (self._least_s + queue_s))
        least = CHUNKS_MIN * self.chunk_bytes if is_known else BYTES_FIRST
        self.bytes_max = min(max(holds, least), BYTES_MAX)

"""Accept limits: how many connections others may open to this node, and how fast (pure).

A connection costs a stranger nothing and this node a handshake. So they are counted by where they
come from: an IPv4 address, or an IPv6 /64, which is what one customer is given. Rates are token
buckets, one for each of these and one for all.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from egtp.throttle import TokenBucket

__all__ = ["AcceptLimits", "origin"]

BURST_S: Final = 5.0
"""So many seconds' worth may come at once: after an outage all who are behind one NAT come back."""
ORIGINS_MAX: Final = 4096
"""Buckets that are remembered. Whoever has more addresses than that is held up by the one of all:
until it has used them in turn, the first is full again anyway."""


def origin(ip: bytes) -> bytes:
    """What connections are counted by: the IPv4 address, or the first half of an IPv6 address."""
    if len(ip) == 16:
        mapped = ip[:12] == bytes(10) + b"\xff\xff"
        return ip[12:] if mapped else ip[:8]
    return ip


class AcceptLimits:
    """Of accepted connections only: whom this node dials is its own choice."""

    __slots__ = ("_all", "_buckets", "_open", "_per_origin_max", "_per_origin_per_s")

    def __init__(
        self, *, per_s: float, per_origin_per_s: float, per_origin_max: int, now_s: float
    ) -> None:
        self._all = TokenBucket(per_s, BURST_S, now_s)
        self._per_origin_per_s = per_origin_per_s
        self._per_origin_max = per_origin_max
        self._open: Counter[bytes] = Counter()
        self._buckets: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def enter(self, where: bytes, now_s: float) -> str | None:
        """Let a connection in, and return None; or the reason not to."""
        if self._open[where] >= self._per_origin_max:
            return "too many from one address"
        bucket = self._bucket(where, now_s)
        if bucket.ready_s > now_s:
            return "too fast from one address"
        if self._all.ready_s > now_s:
            return "too fast"
        bucket.take(1, now_s)
        self._all.take(1, now_s)
        self._open[where] += 1
        return None

    def leave(self, where: bytes) -> None:
        """A connection that was let in is gone."""
        self._open[where] -= 1
        if not self._open[where]:
            del self._open[where]

    def _bucket(self, where: bytes, now_s: float) -> TokenBucket:
        bucket = self._buckets.pop(where, None)
        if bucket is None:
            bucket = TokenBucket(self._per_origin_per_s, BURST_S, now_s)
            if len(self._buckets) >= ORIGINS_MAX:
                self._buckets.popitem(last=False)
        self._buckets[where] = bucket
        return bucket

    @property
    def remembered(self) -> int:
        """How much is held, in entries."""
        return len(self._buckets) + len(self._open)

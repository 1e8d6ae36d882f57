"""Accept limits: how many handshakes others may begin with this node, and how fast (pure).

A connection costs a stranger nothing, but this node a handshake. So connections are counted by
origin: an IPv4 address, or an IPv6 /64, which is what one customer gets. Rates are token buckets,
one per origin and one for all. A handshake through a relay costs as much, without a connection; its
origin is the relay, and the sender that the relay names. Half of both is kept for newcomers:
however many come again and again, a peer that has not come lately need not wait behind them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from egtp.limits.throttle import TokenBucket
from egtp.values.identity import NodeId

__all__ = ["AcceptLimits", "ArrivalRates", "RelayedInitiations", "origin"]

BURST_S: Final = 5.0
"""So many seconds' worth may come at once: after an outage, all peers behind one NAT come back."""
ORIGINS_MAX: Final = 4096
"""Buckets that are remembered. The bucket for all holds up somebody with more addresses than that:
by the time they have all been used in turn, the first is full again anyway."""
NEWCOMER_S: Final = 60.0
"""An origin that has not come for this long is new again: to be new all the time, a crowd must be
sixty times as large as the newcomers' share per second."""


def origin(ip: bytes) -> bytes:
    """What connections are counted by: the IPv4 address, or the first half of an IPv6 address."""
    if len(ip) == 16:
        mapped = ip[:12] == bytes(10) + b"\xff\xff"
        return ip[12:] if mapped else ip[:8]
    return ip


class ArrivalRates:
    """Limits how fast something may come: from each origin, and from all together."""

    __slots__ = ("_all", "_buckets", "_per_origin_per_s")

    def __init__(self, *, per_s: float, per_origin_per_s: float, now_s: float) -> None:
        self._all = TokenBucket(per_s, BURST_S, now_s)
        self._per_origin_per_s = per_origin_per_s
        self._buckets: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """How many origins are remembered."""
        return len(self._buckets)

    def take(self, where: bytes, now_s: float) -> str | None:
        """Let one in and return None, or return the reason not to."""
        bucket = self._bucket(where, now_s)
        if bucket.ready_s > now_s:
            return "too fast from one address"
        if self._all.ready_s > now_s:
            return "too fast"
        bucket.take(1, now_s)
        self._all.take(1, now_s)
        return None

    def _bucket(self, where: bytes, now_s: float) -> TokenBucket:
        bucket = self._buckets.pop(where, None)
        if bucket is None:
            bucket = TokenBucket(self._per_origin_per_s, BURST_S, now_s)
            if len(self._buckets) >= ORIGINS_MAX:
                self._buckets.popitem(last=False)
        self._buckets[where] = bucket
        return bucket


class _Lately:
    """The origins that were let in lately: the last :data:`ORIGINS_MAX` of them."""

    __slots__ = ("_last_s",)

    def __init__(self) -> None:
        self._last_s: OrderedDict[bytes, float] = OrderedDict()
        """When each was last let in, the least recent first."""

    def __len__(self) -> int:
        return len(self._last_s)

    def is_new(self, where: bytes, now_s: float) -> bool:
        last_s = self._last_s.get(where)
        return last_s is None or now_s >= last_s + NEWCOMER_S

    def let_in(self, where: bytes, now_s: float) -> None:
        if self._last_s.pop(where, None) is None and len(self._last_s) >= ORIGINS_MAX:
            self._last_s.popitem(last=False)
        self._last_s[where] = now_s


class AcceptLimits:
    """Limits accepted connections only: whom this node dials is its own choice."""

    __slots__ = ("_again", "_lately", "_open", "_per_origin_max", "_rates")

    def __init__(
        self, *, per_s: float, per_origin_per_s: float, per_origin_max: int, now_s: float
    ) -> None:
        self._rates = ArrivalRates(per_s=per_s, per_origin_per_s=per_origin_per_s, now_s=now_s)
        self._again = TokenBucket(per_s / 2, BURST_S, now_s)
        self._lately = _Lately()
        self._per_origin_max = per_origin_max
        self._open: Counter[bytes] = Counter()

    def enter(self, where: bytes, now_s: float) -> str | None:
        """Let a connection in and return None, or return the reason not to."""
        if self._open[where] >= self._per_origin_max:
            return "too many from one address"
        comes_again = not self._lately.is_new(where, now_s)
        if comes_again and self._again.ready_s > now_s:
            return "too fast"
        reason = self._rates.take(where, now_s)
        if reason is None:
            if comes_again:
                self._again.take(1, now_s)
            self._lately.let_in(where, now_s)
            self._open[where] += 1
        return reason

    def leave(self, where: bytes) -> None:
        """A connection that was let in is gone."""
        self._open[where] -= 1
        if not self._open[where]:
            del self._open[where]

    @property
    def remembered(self) -> int:
        """How many entries are held."""
        return len(self._rates) + len(self._lately) + len(self._open)


class RelayedInitiations:
    """Limits the handshakes that others begin through relays. One relay may bring at most half of
    them, since it may make up senders; one sender behind it an eighth of that, since it may make up
    peers. Half of what a relay may bring is kept for newcomers."""

    __slots__ = ("_again", "_by_relay", "_by_sender", "_lately")

    def __init__(self, per_s: float, now_s: float) -> None:
        self._by_relay = ArrivalRates(per_s=per_s, per_origin_per_s=per_s / 2, now_s=now_s)
        self._again = ArrivalRates(per_s=per_s / 2, per_origin_per_s=per_s / 4, now_s=now_s)
        self._by_sender = ArrivalRates(per_s=float("inf"), per_origin_per_s=per_s / 16, now_s=now_s)
        self._lately = _Lately()

    def admit(self, relay_id: NodeId, sender: NodeId, now_s: float) -> bool:
        """Whether to process this one. A sender that is too fast takes nothing from others."""
        # Separately for each relay: the sender is only what that relay claims.
        where = relay_id + sender
        admitted = (
            self._by_sender.take(where, now_s) is None
            and (self._lately.is_new(where, now_s) or self._again.take(relay_id, now_s) is None)
            and self._by_relay.take(relay_id, now_s) is None
        )
        if admitted:
            self._lately.let_in(where, now_s)
        return admitted

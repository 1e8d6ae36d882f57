"""Throttling: who may move bytes, and when (seed II.D, R16; pure).

A limit is a token bucket: tokens flow in at its rate, and moving bytes takes as many. A packet may
take more than there are, so that one larger than the bucket gets through; the bucket is then in
debt, and nobody takes from it until that is paid. So in any time t, at most ``rate * t``, plus what
flows in within :data:`BURST_S`, plus one packet or read is moved; and the rate is used in full
while there is enough to move.

Nothing here holds data. A key that may not move bytes now waits for a turn. Turns are given in the
order in which they were asked for, for one packet or read each, so no key starves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from egtp.limits.deadlines import KeyedDeadlines

__all__ = ["BURST_S", "GRANT_S", "Throttler", "TokenBucket"]

BURST_S: Final = 0.05
"""What flows into the bucket of a throttle in this time may be moved at once. It is longer than
timers and a busy event loop are late, which would otherwise cost bandwidth, and far shorter than
the seconds over which a rate matters."""
GRANT_S: Final = 0.05
"""A turn that is not used within this time is over, and what was reserved for it is free again."""

Key = TypeVar("Key", bound=Hashable)


class TokenBucket:
    """A rate and a burst, of bytes or of anything else.

    Its state is the time at which it is full again: one number, from which the rest follows.
    """

    __slots__ = ("_burst_s", "_full_s", "rate")

    def __init__(self, rate_per_s: float, burst_s: float, now_s: float) -> None:
        """A full bucket, which holds what flows in within ``burst_s``."""
        self.rate = rate_per_s
        """Per second."""
        self._burst_s = burst_s
        self._full_s = now_s

    @property
    def ready_s(self) -> float:
        """When something may be taken again: as soon as it is not in debt."""
        return self._full_s - self._burst_s

    def take(self, amount: float, now_s: float) -> None:
        """Take, into debt if necessary; a negative ``amount`` is given back."""
        self._full_s = max(self._full_s, now_s) + amount / self.rate

    def change(self, rate_per_s: float, now_s: float) -> None:
        """Set another rate; what was taken and has not flowed in again is still owed."""
        self._full_s = now_s + max(self._full_s - now_s, 0.0) * self.rate / rate_per_s
        self.rate = rate_per_s


class Throttler(Generic[Key]):
    """One direction of all connections of a node: a limit for all together, and one for each that
    has its own. Rates are in bytes per second; None means no limit.

    Invariant: a key that waits is in the queue, or waits for its own limit, never both.
    """

    __slots__ = ("_all", "_granted", "_later", "_own", "_queue", "_reserve_bytes", "_waiting")

    def __init__(self, reserve_bytes: int = 0) -> None:
        """:param reserve_bytes: taken with each turn, and set off against what was moved once that
        is known. For turns that are used some time after they were given: without a reserve, all
        that wait would get one at the same moment."""
        self._reserve_bytes = reserve_bytes
        self._all: TokenBucket | None = None
        self._own: dict[Key, TokenBucket] = {}
        self._waiting: set[Key] = set()
        self._queue: OrderedDict[Key, None] = OrderedDict()
        self._later: KeyedDeadlines[Key] = KeyedDeadlines()
        """Keys that wait for their own limit."""
        self._granted: OrderedDict[Key, float] = OrderedDict()
        """Keys that have a turn and have not used it yet, with the time when it was given."""

    # Limits

    def limit_all(self, rate: float | None, now_s: float) -> None:
        """Limit all keys together from now on."""
        self._all = _changed(self._all, rate, now_s)

    def limit(self, key: Key, rate: float | None, now_s: float) -> None:
        """Limit one key from now on, in addition to the limit for all."""
        bucket = _changed(self._own.pop(key, None), rate, now_s)
        if bucket is not None:
            self._own[key] = bucket
        if key in self._waiting:
            self._leave(key)
            self.wait(key, now_s)

    def rate_of(self, key: Key) -> float | None:
        """The lower of the limits that apply to the key; None if none does."""
        rates = [bucket.rate for bucket in (self._all, self._own.get(key)) if bucket is not None]
        return min(rates, default=None)

    def forget(self, key: Key) -> None:
        """The key is gone, and waits for nothing."""
        self._leave(key)
        self._own.pop(key, None)
        if key in self._granted:
            self._give_back(key, self._granted.pop(key))

    @property
    def waiting(self) -> list[Key]:
        """The keys that wait for a turn, in no particular order."""
        return list(self._waiting)

    # Moving

    def may_move(self, key: Key, now_s: float) -> bool:
        """Whether ``key`` may move a packet now: it has a turn, or nothing is in its way."""
        if key in self._granted:
            return True
        if self._queue or (self._all is not None and self._all.ready_s > now_s):
            return False
        own = self._own.get(key)
        return own is None or own.ready_s <= now_s

    def moved(self, key: Key, size: int, now_s: float) -> None:
        """So many bytes of ``key`` were moved, whether or not they should have been."""
        amount = size
        if self._granted.pop(key, None) is not None:
            amount -= self._reserve_bytes
        self._take(key, amount, now_s)

    def wait(self, key: Key, now_s: float) -> None:
        """Wait for a turn; a second call changes nothing."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        own = self._own.get(key)
        if own is not None and own.ready_s > now_s:
            self._later.set(key, own.ready_s)
        else:
            self._queue[key] = None

    def turn(self, now_s: float) -> Key | None:
        """The next key that may move one packet now; it no longer waits. Call this until it returns
        None, and again at :meth:`next_s`."""
        while self._granted and next(iter(self._granted.values())) <= now_s - GRANT_S:
            self._give_back(*self._granted.popitem(last=False))
        self._queue.update(dict.fromkeys(self._later.due(now_s)))
        if not self._queue or (self._all is not None and self._all.ready_s > now_s):
            return None
        key, _ = self._queue.popitem(last=False)
        self._waiting.discard(key)
        self._take(key, self._reserve_bytes, now_s)
        self._granted[key] = now_s
        return key

    def next_s(self) -> float | None:
        """When to call :meth:`turn` next; None while nobody waits."""
        if not self._waiting:
            return None
        times = [self._later.next_s()]
        if self._queue:
            times.append(self._all.ready_s if self._all is not None else 0.0)
        if self._granted and self._reserve_bytes:
            times.append(next(iter(self._granted.values())) + GRANT_S)
        return min(time for time in times if time is not None)

    def _take(self, key: Key, amount: float, now_s: float) -> None:
        if self._all is not None:
            self._all.take(amount, now_s)
        own = self._own.get(key)
        if own is not None:
            own.take(amount, now_s)

    def _give_back(self, key: Key, granted_s: float) -> None:
        self._take(key, -self._reserve_bytes, granted_s)

    def _leave(self, key: Key) -> None:
        self._waiting.discard(key)
        self._queue.pop(key, None)
        self._later.discard(key)


def _changed(bucket: TokenBucket | None, rate: float | None, now_s: float) -> TokenBucket | None:
    if rate is None:
        return None
    if bucket is None:
        return TokenBucket(rate, BURST_S, now_s)
    bucket.change(rate, now_s)
    return bucket

"""Lines: the links between machines at the moment, and which machines are cut off from which."""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final, TypeAlias

from simulations.virtual.errors import ImpossibleWorld
from simulations.virtual.faults import Faults
from simulations.virtual.link import Link

__all__ = ["Lines", "Map", "Name"]

Name: TypeAlias = str
"""The name of a machine."""
Map: TypeAlias = Callable[[Name, Name], Link]
"""Returns the line from one machine to another, so that a million lines need no list."""

_WITHIN: Final = Link(latency=0.000_01)
"""Between two programs on one machine."""
RETRANSMIT_MIN_S: Final = 0.2
"""TCP retransmits a lost segment after this long, and doubles the wait each time."""
RETRANSMITS_MAX: Final = 8
"""Losses in a row of one segment; after that, it gets through however bad the line is."""


class _Turns:
    """When a line is busy. A packet sent now reaches the second line of its route later, perhaps
    after one that was sent later from nearby. So the schedule may have gaps, and a packet takes the
    first gap that it fits into when it arrives."""

    def __init__(self) -> None:
        self._busy: list[tuple[float, float]] = []
        """(begin, end) times in order, with gaps between them."""

    def next_s(self, at_s: float, takes_s: float, now_s: float) -> float:
        """When a packet that arrives at ``at_s`` and takes ``takes_s`` has its turn."""
        busy = self._busy
        while busy and busy[0][1] <= now_s:
            busy.pop(0)
        for begin_s, end_s in busy:
            if at_s < begin_s and at_s + takes_s <= begin_s:
                break
            at_s = max(at_s, end_s)
        return at_s

    def take(self, begin_s: float, takes_s: float) -> float:
        """Be busy from ``begin_s`` on. Returns when that ends."""
        busy, end_s = self._busy, begin_s + takes_s
        at = bisect(busy, (begin_s, end_s))
        if at and busy[at - 1][1] == begin_s:
            at -= 1
            busy[at] = busy[at][0], end_s
        else:
            busy.insert(at, (begin_s, end_s))
        return end_s


class Lines:
    """What happens to a packet between two machines. Draws randomness from the given generator."""

    def __init__(self, rng: random.Random, default: Link | Map) -> None:
        self._rng: Final = rng
        self.default: Final = _a_line(default)
        """The line between any two machines for which no other was set."""
        self._pairs: dict[tuple[Name, Name], Link] = {}
        self._access: dict[Name, Link] = {}
        self._bad: defaultdict[Name, Faults[Link]] = defaultdict(Faults)
        self._all_bad: Faults[Link | Map] = Faults()
        self._turns: defaultdict[tuple[Name, Name], _Turns] = defaultdict(_Turns)
        self._cut: Counter[tuple[Name, Name]] = Counter()

    # Configuration

    def set_pair(self, source: Name, target: Name, link: Link) -> None:
        """Set the line between two machines, in one direction."""
        self._pairs[source, target] = _a_link(link)

    def set_access(self, name: Name, link: Link) -> None:
        """Set a machine's own line to everybody, in both directions. A packet between two machines
        with lines of their own takes both."""
        self._access[name] = _a_link(link)

    def degrade(self, name: Name, link: Link) -> Callable[[], None]:
        """Replace a machine's own line, for everybody. Returns the function that heals it."""
        return self._bad[name].begin(_a_link(link))

    def degrade_all(self, link: Link | Map) -> Callable[[], None]:
        """Replace the default. Returns the function that heals it."""
        return self._all_bad.begin(_a_line(link))

    def cut(self, source: Name, target: Name) -> None:
        """Let nothing pass until :meth:`mend` was called as often as this."""
        self._cut[source, target] += 1

    def mend(self, source: Name, target: Name) -> None:
        self._cut[source, target] -= 1
        if not self._cut[source, target]:
            del self._cut[source, target]

    def is_open(self, source: Name, target: Name) -> bool:
        return not self._cut or (source, target) not in self._cut

    # Packets

    def datagrams(self, source: Name, target: Name, size: int, now_s: float) -> list[float]:
        """The arrival times of the copies of a datagram; empty if it is lost."""
        rng = self._rng
        at_s = now_s
        copies = 1
        for link, key in self._between(source, target):
            if size > link.mtu_bytes or (link.loss and rng.random() < link.loss):
                return []
            if link.bandwidth_bytes_per_s != math.inf:
                turns, takes_s = self._turns[key], size / link.bandwidth_bytes_per_s
                begin_s = turns.next_s(at_s, takes_s, now_s)
                if begin_s - at_s > link.queue_s:
                    return []
                at_s = turns.take(begin_s, takes_s)
            at_s += link.draw_latency_s(rng)
            if link.reorder and rng.random() < link.reorder:
                at_s += link.reorder_s * rng.random()
            if link.duplicate and rng.random() < link.duplicate:
                copies += 1
        return [at_s] + [at_s + 0.001 * number for number in range(1, copies)]

    def handshake(self, source: Name, target: Name, now_s: float) -> float | None:
        """When a packet that begins a connection arrives; None if it is lost. A kernel that knows
        no round trip yet sends it again much later than a segment, by a timer of its own."""
        rng = self._rng
        at_s = now_s
        for link, key in self._between(source, target):
            if link.loss and rng.random() < link.loss:
                return None
            if link.bandwidth_bytes_per_s != math.inf:
                at_s = self._turns[key].next_s(at_s, 0.0, now_s)
            at_s += link.draw_latency_s(rng)
        return at_s

    def segment(self, source: Name, target: Name, size: int, now_s: float) -> float:
        """When a piece of a stream arrives, retransmissions included."""
        rng = self._rng
        at_s = now_s
        for link, key in self._between(source, target):
            if link.bandwidth_bytes_per_s != math.inf:
                turns, takes_s = self._turns[key], size / link.bandwidth_bytes_per_s
                at_s = turns.take(turns.next_s(at_s, takes_s, now_s), takes_s)
            at_s += link.draw_latency_s(rng)
            if link.loss:
                again_s = RETRANSMIT_MIN_S
                for _ in range(RETRANSMITS_MAX):
                    if rng.random() >= link.loss:
                        break
                    at_s += again_s
                    again_s *= 2
        return at_s

    def _between(self, source: Name, target: Name) -> list[tuple[Link, tuple[Name, Name]]]:
        """The lines that a packet takes in turn, each with the key of its queue.

        Computed for each packet, not cached: ten thousand machines form millions of pairs.
        """
        if source == target:
            return [(_WITHIN, (source, target))]
        pair = self._pairs.get((source, target)) if self._pairs else None
        found = [] if pair is None else [(pair, (source, target))]
        if self._access or self._bad:
            for name, key in ((source, (source, "")), (target, ("", target))):
                usual = self._access.get(name) if pair is None else None
                own = (self._bad[name].last if name in self._bad else None) or usual
                if own is not None:
                    found.append((own, key))
        if found:
            return found
        line = self._all_bad.last or self.default
        if not isinstance(line, Link):
            line = _a_link(line(source, target))
        return [(line, (source, target))]


def _a_link(link: object) -> Link:
    """Checked at run time, since not all users run a type checker."""
    if not isinstance(link, Link):
        raise ImpossibleWorld(f"a line must be a Link(latency=..., ...), not {link!r}")
    return link


def _a_line(line: Link | Map) -> Link | Map:
    return line if callable(line) else _a_link(line)

"""Lines: the links between machines, as they are at the moment, and who is cut off from whom."""

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
"""Of a machine."""
Map: TypeAlias = Callable[[Name, Name], Link]
"""Says which line leads from one machine to another: a million of them need not be listed."""

_WITHIN: Final = Link(latency=0.000_01)
"""Between two programs of one machine."""
RETRANSMIT_MIN_S: Final = 0.2
"""TCP sends a lost segment again after this long, and then after twice as long each time."""
RETRANSMITS_MAX: Final = 8
"""Losses of one segment in a row; a line worse than that counts as one that was lucky now."""


class _Turns:
    """When a line is busy. What is sent now reaches the second line on its way later, perhaps after
    what is sent later and by somebody nearer: so there may be gaps, and whoever fits into one that
    is there when he comes has it."""

    def __init__(self) -> None:
        self._busy: list[tuple[float, float]] = []
        """From when to when, in order, with gaps between them."""

    def next_s(self, at_s: float, takes_s: float, now_s: float) -> float:
        """When what comes then, and takes so long, has its turn."""
        busy = self._busy
        while busy and busy[0][1] <= now_s:
            busy.pop(0)
        for begin_s, end_s in busy:
            if at_s < begin_s and at_s + takes_s <= begin_s:
                break
            at_s = max(at_s, end_s)
        return at_s

    def take(self, begin_s: float, takes_s: float) -> float:
        """Be busy from then on. Returns until when."""
        busy, end_s = self._busy, begin_s + takes_s
        at = bisect(busy, (begin_s, end_s))
        if at and busy[at - 1][1] == begin_s:
            at -= 1
            busy[at] = busy[at][0], end_s
        else:
            busy.insert(at, (begin_s, end_s))
        return end_s


class Lines:
    """What a packet from one machine to another meets. Draws from the generator handed in."""

    def __init__(self, rng: random.Random, default: Link | Map) -> None:
        self._rng: Final = rng
        self.default: Final = _a_line(default)
        """Between any two machines of which nothing else is said."""
        self._pairs: dict[tuple[Name, Name], Link] = {}
        self._access: dict[Name, Link] = {}
        self._bad: defaultdict[Name, Faults[Link]] = defaultdict(Faults)
        self._all_bad: Faults[Link | Map] = Faults()
        self._turns: defaultdict[tuple[Name, Name], _Turns] = defaultdict(_Turns)
        self._cut: Counter[tuple[Name, Name]] = Counter()

    # What there is

    def set_pair(self, source: Name, target: Name, link: Link) -> None:
        """The line in one direction between two."""
        self._pairs[source, target] = _a_link(link)

    def set_access(self, name: Name, link: Link) -> None:
        """The line that connects a machine with everybody, both directions. Between two machines
        that have one, both count."""
        self._access[name] = _a_link(link)

    def degrade(self, name: Name, link: Link) -> Callable[[], None]:
        """A machine's own line is this one, for everybody. Returns what heals it."""
        return self._bad[name].begin(_a_link(link))

    def degrade_all(self, link: Link | Map) -> Callable[[], None]:
        """The default is this one. Returns what heals it."""
        return self._all_bad.begin(_a_line(link))

    def cut(self, source: Name, target: Name) -> None:
        """Nothing gets from one to the other until :meth:`mend`, as often as it was cut."""
        self._cut[source, target] += 1

    def mend(self, source: Name, target: Name) -> None:
        self._cut[source, target] -= 1
        if not self._cut[source, target]:
            del self._cut[source, target]

    def is_open(self, source: Name, target: Name) -> bool:
        return not self._cut or (source, target) not in self._cut

    # What they do

    def datagrams(self, source: Name, target: Name, size: int, now_s: float) -> list[float]:
        """When the copies of a datagram arrive: none if it is lost."""
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

    def segment(self, source: Name, target: Name, size: int, now_s: float) -> float:
        """When a piece of a stream arrives, however often it has to be sent."""
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
        """The lines that a packet takes one after the other, and whose queue it waits in at each.

        Asked for each packet, and not kept: of ten thousand machines, millions talk in pairs.
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
        return [(line if isinstance(line, Link) else line(source, target), (source, target))]


def _a_link(link: object) -> Link:
    """Users are not all checked for types."""
    if not isinstance(link, Link):
        raise ImpossibleWorld(f"a line must be a Link(latency=..., ...), not {link!r}")
    return link


def _a_line(line: Link | Map) -> Link | Map:
    return line if callable(line) else _a_link(line)

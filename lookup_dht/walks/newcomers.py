"""Which new contacts of the table are examined for a hand-over, and when. Pure; time comes in.

Examining one means going through all records for those that it should have, and asking it about
each of them. A host that changes its id is new again, as often as it likes. So a host is examined
once per interval, and its latest newcomer waits for the next.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from lookup_dht.wire.contact import Contact

__all__ = ["Newcomers"]

SECOND_LOOK_AFTER_S: Final = 15.0
"""By then, nodes that joined at the same time have met each other."""


class Newcomers:
    """The newcomers that one node meets."""

    def __init__(self, interval_s: float, hosts_max: int) -> None:
        self._interval_s = interval_s
        self._hosts_max = hosts_max
        self._looked_at: dict[Hashable, float] = {}
        """When each host was last examined, in the order of time."""
        self._seen_once: dict[Hashable, Contact] = {}
        """By host: the newcomer to examine a second time."""
        self._waiting: dict[Hashable, Contact] = {}
        """By host: its latest newcomer, which waits for the next interval."""

    def met(self, newcomers: Iterable[tuple[Hashable, Contact]], now: float) -> list[Contact]:
        """Those of ``newcomers``, given as (host, contact) pairs, to examine now.

        Each is examined once more later: when many join at once, the node that should give it a
        record may itself have joined a moment before, and not have had the record yet.
        """
        chosen = []
        for host, newcomer in newcomers:
            kept, other = self._waiting, self._seen_once
            if self._is_due(host, self._interval_s, now):
                chosen.append(newcomer)
                self._note(host, now)
                kept, other = other, kept
            other.pop(host, None)
            if host in kept or len(kept) < self._hosts_max:
                kept[host] = newcomer
        return chosen

    def again(self, now: float) -> list[Contact]:
        """The contacts due for their second examination, or for a first that had to wait."""
        due = [host for host in self._seen_once if self._is_due(host, SECOND_LOOK_AFTER_S, now)]
        due += [host for host in self._waiting if self._is_due(host, self._interval_s, now)]
        both = self._seen_once | self._waiting
        for host in due:
            self._note(host, now)
        # New dicts: one that was large once would stay so.
        self._seen_once = _without(due, self._seen_once)
        self._waiting = _without(due, self._waiting)
        return [both[host] for host in due]

    def _is_due(self, host: Hashable, after_s: float, now: float) -> bool:
        looked_at = self._looked_at.get(host)
        return looked_at is None or now >= looked_at + after_s

    def _note(self, host: Hashable, now: float) -> None:
        self._looked_at.pop(host, None)
        self._looked_at[host] = now
        if len(self._looked_at) > self._hosts_max:
            del self._looked_at[next(iter(self._looked_at))]


def _without(hosts: Iterable[Hashable], kept: dict[Hashable, Contact]) -> dict[Hashable, Contact]:
    left_out = set(hosts)
    return {host: contact for host, contact in kept.items() if host not in left_out}

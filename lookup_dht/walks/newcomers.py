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
        self._waiting: dict[Hashable, tuple[Contact, float]] = {}
        """By host: the contact to examine, and when."""

    def met(self, newcomers: Iterable[tuple[Hashable, Contact]], now: float) -> list[Contact]:
        """Those of ``newcomers``, given as (host, contact) pairs, to examine now.

        Each is examined once more later: when many join at once, the node that should give it a
        record may itself have joined a moment before, and not have had the record yet.
        """
        chosen = []
        for host, newcomer in newcomers:
            looked_at = self._looked_at.get(host)
            if looked_at is None or now >= looked_at + self._interval_s:
                chosen.append(newcomer)
                self._note(host, now)
                self._wait(host, newcomer, now + SECOND_LOOK_AFTER_S)
            else:
                self._wait(host, newcomer, looked_at + self._interval_s)
        return chosen

    def again(self, now: float) -> list[Contact]:
        """The contacts due for their second examination, or for a first that had to wait."""
        due = [(host, contact) for host, (contact, at) in self._waiting.items() if now >= at]
        for host, _ in due:
            del self._waiting[host]
            self._note(host, now)
        return [contact for _, contact in due]

    def _wait(self, host: Hashable, newcomer: Contact, at: float) -> None:
        if host in self._waiting or len(self._waiting) < self._hosts_max:
            self._waiting[host] = newcomer, at

    def _note(self, host: Hashable, now: float) -> None:
        self._looked_at.pop(host, None)
        self._looked_at[host] = now
        if len(self._looked_at) > self._hosts_max:
            del self._looked_at[next(iter(self._looked_at))]

"""Which of the contacts that are new in the table are looked at, and when. Pure; time comes in.

To look at one means to go through all records for those that it should have, and to ask it for
each of them. Whoever takes another id is new again, as often as he likes. So there is one look at
a host in an interval, and the one who came last waits for the next.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from lookup_dht.wire.contact import Contact

__all__ = ["Newcomers"]

SECOND_LOOK_AFTER_S: Final = 15.0
"""By then those who came together have met each other."""


class Newcomers:
    """Of one node."""

    def __init__(self, interval_s: float, hosts_max: int) -> None:
        self._interval_s = interval_s
        self._hosts_max = hosts_max
        self._looked_at: dict[Hashable, float] = {}
        """By host, in the order of time."""
        self._waiting: dict[Hashable, tuple[Contact, float]] = {}
        """By host: whom to look at, and from when on."""

    def met(self, newcomers: Iterable[tuple[Hashable, Contact]], now: float) -> list[Contact]:
        """Those of ``newcomers``, each with its host, that are to be looked at now.

        Each is looked at once more later: where many come at once, who has to give a record may
        have come a moment before, and not have had it yet.
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
        """Whose second look it is time for, or first if they had to wait."""
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

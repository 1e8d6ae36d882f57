"""A walk towards a target: whom to ask next, and when it is over. Pure; time comes in.

There are no rounds: whenever a query ends, or has been open for the soft timeout, its place goes
to the closest node not asked yet. The walk is over when the k closest nodes known have all been
heard, leaving out those that failed or are slow. It never ends earlier because something was
found: a recording of an old record is found just as fast as the newest.
"""

from __future__ import annotations

import bisect
import collections
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from lookup_dht.contact import Contact, SocketAddress
from lookup_dht.settings import DHTLimits

__all__ = ["CANDIDATES_MAX", "Walk"]

CANDIDATES_MAX: Final = 160
"""Those beyond are too far away to be asked in any case; they are not remembered."""


class _State(enum.Enum):
    NEW = "not asked yet"
    ASKED = "asked a moment ago"
    SLOW = "asked, silent for the soft timeout; may still answer"
    HEARD = "has answered"
    FAILED = "did not answer, twice"


@dataclass(slots=True)
class _Candidate:
    contact: Contact
    state: _State = _State.NEW
    asked_at: float = 0.0


class Walk:
    """The state of one walk. Every method takes small, bounded time."""

    def __init__(
        self,
        target: int,
        start: Iterable[Contact],
        limits: DHTLimits,
        *,
        soft_timeout_s: float,
        allowed: Callable[[Contact], bool],
        groups_limited: bool,
    ) -> None:
        """``start`` is trusted; ``allowed`` says which suggested contacts may be asked at all."""
        self._target = target
        self._limits = limits
        self._soft_timeout_s = soft_timeout_s
        self._allowed = allowed
        self._groups_limited = groups_limited
        self._nearest: list[_Candidate] = []
        self._known: dict[Contact, _Candidate] = {}
        self._quick: dict[Contact, _Candidate] = {}
        self._slow: set[Contact] = set()
        self._asked_addresses: set[SocketAddress] = set()
        self.asked = 0
        self.heard = 0
        for contact in start:
            self._add(contact)

    def next_queries(self, now: float) -> list[Contact]:
        """Whom to ask now; they count as asked from here on."""
        window = self._window(now)
        places = min(
            self._limits.parallel_queries - len(self._quick),
            self._limits.walk_queries_max - self.asked,
        )
        chosen = [it for it in window if it.state is _State.NEW][: max(0, places)]
        for candidate in chosen:
            candidate.state, candidate.asked_at = _State.ASKED, now
            self._quick[candidate.contact] = candidate
            self._asked_addresses.add(candidate.contact.address)
        self.asked += len(chosen)
        return [candidate.contact for candidate in chosen]

    def answered(self, contact: Contact, actual: Contact, nodes: Iterable[Contact]) -> None:
        """The node at the address of ``contact`` answered, late or not, and suggested ``nodes``.

        ``actual`` has the id that it gave. It differs if somebody told us a wrong id for that
        address; so nobody can hide a node from a walk by suggesting its address under another id.
        """
        self.failed(contact)
        self._add(actual)
        self._known[actual].state = _State.HEARD
        self.heard += 1
        for node in nodes:
            if node not in self._known and self._allowed(node):
                self._add(node)
        for candidate in self._nearest[CANDIDATES_MAX:]:
            if candidate.state is _State.NEW:
                del self._known[candidate.contact]
        self._nearest[CANDIDATES_MAX:] = [
            it for it in self._nearest[CANDIDATES_MAX:] if it.state is not _State.NEW
        ]

    def failed(self, contact: Contact) -> None:
        """``contact`` did not answer, or not as the node that it is said to be."""
        self._quick.pop(contact, None)
        self._slow.discard(contact)
        self._known[contact].state = _State.FAILED

    def done(self, now: float) -> bool:
        window = self._window(now)
        if any(candidate.state is _State.ASKED for candidate in window):
            return False
        if self.asked < self._limits.walk_queries_max and any(
            candidate.state is _State.NEW for candidate in window
        ):
            return False
        # Slow ones are waited for only while there is nobody else.
        return self.heard > 0 or not self._slow

    def deadline(self) -> float | None:
        """When the next query becomes slow; None if none is open, or all are slow."""
        asked = [candidate.asked_at for candidate in self._quick.values()]
        return min(asked) + self._soft_timeout_s if asked else None

    def closest(self) -> list[Contact]:
        """The k closest that have answered."""
        heard = [it.contact for it in self._nearest if it.state is _State.HEARD]
        return heard[: self._limits.replication]

    def _add(self, contact: Contact) -> None:
        if contact not in self._known:
            candidate = self._known[contact] = _Candidate(contact)
            bisect.insort(
                self._nearest, candidate, key=lambda it: it.contact.long_id ^ self._target
            )

    def _window(self, now: float) -> list[_Candidate]:
        """The k closest that have answered or can be expected to answer soon.

        One per address and few per network group: however many ids and addresses one owner
        invents, it is asked few times. Addresses that failed do not count, so nobody can use up
        the share of another's network by inventing addresses in it.
        """
        for candidate in list(self._quick.values()):
            if now >= candidate.asked_at + self._soft_timeout_s:
                del self._quick[candidate.contact]
                self._slow.add(candidate.contact)
                candidate.state = _State.SLOW
        window: list[_Candidate] = []
        addresses = self._asked_addresses.copy()
        groups: collections.Counter[bytes] = collections.Counter()
        for candidate in self._nearest:
            if candidate.state in (_State.FAILED, _State.SLOW):
                continue
            contact = candidate.contact
            if candidate.state is _State.NEW and (
                contact.address in addresses
                or (
                    self._groups_limited
                    and groups[contact.group] >= self._limits.group_candidates_per_walk
                )
            ):
                continue
            addresses.add(contact.address)
            groups[contact.group] += 1
            window.append(candidate)
            if len(window) == self._limits.replication:
                break
        return window

"""A walk towards a target: whom to ask next, and when it is over. Pure; time comes in.

There are no rounds: whenever a query ends, or has been open for the soft timeout, its place goes
to the closest node not asked yet. The walk is over when the k closest nodes known have all been
heard, leaving out those that failed or are slow. It never ends earlier because something was
found: a recording of an old record is found just as fast as the newest.

With a ``radius``, all nodes within it are asked too, however many are closer: an attacker who puts
twenty of his own next to a key does not push the honest ones out of sight (SR-DHT-Store).

``witnesses`` are asked in any case, though others tell of closer ones: colluders tell of each other
only, and if those that a walk begins with are theirs, nobody else is ever heard of.
"""

from __future__ import annotations

import bisect
import enum
import itertools
from collections.abc import Callable, Iterable
from typing import Final

from lookup_dht.contact import Contact, SocketAddress, group_of
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


class _Candidate:
    __slots__ = ("asked_at", "contact", "distance", "group", "state")

    def __init__(self, contact: Contact, distance: int) -> None:
        self.contact: Final = contact
        self.distance: Final = distance
        self.group: Final = group_of(contact.packed)
        self.state = _State.NEW
        self.asked_at = 0.0


class Walk:
    """The state of one walk. Every method takes small, bounded time."""

    def __init__(
        self,
        target: int,
        start: Iterable[Contact],
        limits: DHTLimits,
        *,
        soft_timeout_s: float,
        believe: Callable[[bytes], Contact | None],
        groups_limited: bool,
        radius: int = 0,
        witnesses: Iterable[Contact] = (),
    ) -> None:
        """``start`` is trusted; ``believe`` makes a contact of the compact form of one that a node
        suggested, or None if it must not be asked. ``radius`` is a distance.
        ``witnesses`` are trusted too."""
        self._target = target
        self._limits = limits
        self._soft_timeout_s = soft_timeout_s
        self._believe = believe
        self._groups_limited = groups_limited
        self._radius = radius
        self._nearest: list[_Candidate] = []
        self._distances: list[int] = []
        """Of those, in the same order."""
        self._known: dict[bytes, _Candidate | None] = {}
        """By compact form; None for what was suggested and is not believed, or is too far away."""
        self._quick: dict[bytes, _Candidate] = {}
        """Asked and not slow yet, in the order of asking."""
        self._slow = 0
        self._asked_addresses: set[SocketAddress] = set()
        self.asked = 0
        self.heard = 0
        for contact in start:
            self._add(contact)
        self._witnesses = [self._add(contact) for contact in witnesses]

    def next_queries(self, now: float) -> list[Contact]:
        """Whom to ask now; they count as asked from here on."""
        return self.step(now)[0]

    def done(self, now: float) -> bool:
        """Whether it is over, if nobody else is asked."""
        self._pass_time(now)
        new, open_ones = self._scan()
        return self._over(bool(new), open_ones)

    def step(self, now: float) -> tuple[list[Contact], bool]:
        """Whom to ask now, and whether the walk is over: both in one go."""
        self._pass_time(now)
        new, open_ones = self._scan()
        places = min(
            self._limits.parallel_queries - len(self._quick),
            self._limits.walk_queries_max - self.asked,
        )
        chosen = new[: max(0, places)]
        for candidate in chosen:
            candidate.state, candidate.asked_at = _State.ASKED, now
            self._quick[candidate.contact.compact] = candidate
            self._asked_addresses.add(candidate.contact.address)
        self.asked += len(chosen)
        over = not chosen and self._over(bool(new), open_ones)
        return [candidate.contact for candidate in chosen], over

    def answered(self, contact: Contact, actual: Contact, nodes: Iterable[bytes]) -> None:
        """The node at the address of ``contact`` answered, late or not, and suggested ``nodes``.

        ``actual`` has the id that it gave. It differs if somebody told us a wrong id for that
        address; so nobody can hide a node from a walk by suggesting its address under another id.
        """
        self.failed(contact)
        self._add(actual).state = _State.HEARD
        self.heard += 1
        known = self._known
        limit = self._nearest[CANDIDATES_MAX - 1].distance if self._full else None
        for compact in nodes:
            if compact not in known:
                far = limit is not None and (
                    int.from_bytes(compact[:20], "big") ^ self._target > limit
                )
                suggested = None if far else self._believe(compact)
                if suggested is None:
                    known[compact] = None
                else:
                    self._add(suggested)
        if len(self._nearest) > CANDIDATES_MAX:
            self._forget_far_ones()

    def failed(self, contact: Contact) -> None:
        """``contact`` did not answer, or not as the node that it is said to be."""
        candidate = self._known[contact.compact]
        if candidate is not None:
            self._quick.pop(contact.compact, None)
            self._slow -= candidate.state is _State.SLOW
            candidate.state = _State.FAILED

    def deadline(self) -> float | None:
        """When the next query becomes slow; None if none is open, or all are slow."""
        for candidate in self._quick.values():
            return candidate.asked_at + self._soft_timeout_s
        return None

    def closest(self) -> list[Contact]:
        """The k closest that have answered, and the others within the radius that have."""
        heard = [it for it in self._nearest if it.state is _State.HEARD]
        k = self._limits.replication
        within = itertools.takewhile(lambda it: it.distance <= self._radius, heard[k:])
        chosen = [*heard[:k], *within][: self._limits.region_nodes_max]
        return [candidate.contact for candidate in chosen]

    def _add(self, contact: Contact) -> _Candidate:
        candidate = self._known.get(contact.compact)
        if candidate is None:
            distance = contact.long_id ^ self._target
            candidate = _Candidate(contact, distance)
            self._known[contact.compact] = candidate
            place = bisect.bisect(self._distances, distance)
            self._distances.insert(place, distance)
            self._nearest.insert(place, candidate)
        return candidate

    @property
    def _full(self) -> bool:
        return len(self._nearest) >= CANDIDATES_MAX

    def _forget_far_ones(self) -> None:
        """Those not asked yet; that they were suggested stays known, which costs less."""
        far = self._nearest[CANDIDATES_MAX:]
        for candidate in far:
            if candidate.state is _State.NEW:
                self._known[candidate.contact.compact] = None
        self._nearest[CANDIDATES_MAX:] = [it for it in far if it.state is not _State.NEW]
        self._distances = [it.distance for it in self._nearest]

    def _pass_time(self, now: float) -> None:
        quick = self._quick
        while quick:
            compact, candidate = next(iter(quick.items()))
            if now < candidate.asked_at + self._soft_timeout_s:
                return
            del quick[compact]
            candidate.state = _State.SLOW
            self._slow += 1

    def _over(self, anybody_new: bool, open_ones: bool) -> bool:
        if open_ones or (anybody_new and self.asked < self._limits.walk_queries_max):
            return False
        # Slow ones are waited for only while there is nobody else.
        return self.heard > 0 or not self._slow

    def _scan(self) -> tuple[list[_Candidate], bool]:
        """Goes through the k closest, and those within the radius, that have answered or can be
        expected to answer soon: those not asked yet, and whether any of them is open.

        One per address and few per network group: however many ids and addresses one owner
        invents, it is asked few times. Addresses that failed do not count, so nobody can use up
        the share of another's network by inventing addresses in it.
        """
        new: list[_Candidate] = []
        open_ones, count, within = False, 0, 0
        addresses = self._asked_addresses
        added: set[SocketAddress] = set()
        groups: dict[bytes, int] = {}
        k, most = self._limits.replication, self._limits.region_nodes_max
        # Far fewer within the radius than there must be: others are being kept from us.
        enough = k * 3 // 4 if self._radius else 0
        groups_limited, group_max = self._groups_limited, self._limits.group_candidates_per_walk
        unasked, asked, failed, slow = _State.NEW, _State.ASKED, _State.FAILED, _State.SLOW
        for candidate in self._nearest:
            state = candidate.state
            if state is failed or state is slow:
                continue
            outside = candidate.distance > self._radius
            if count >= most or (count >= k and outside and within >= enough):
                break
            if state is unasked:
                address = candidate.contact.address
                if address in addresses or address in added:
                    continue
                if groups_limited and groups.get(candidate.group, 0) >= group_max:
                    continue
                added.add(address)
                new.append(candidate)
            elif state is asked:
                open_ones = True
            if groups_limited:
                groups[candidate.group] = groups.get(candidate.group, 0) + 1
            count += 1
            within += not outside
        for witness in self._witnesses:
            if witness.state is unasked and witness not in new:
                new.append(witness)
            open_ones = open_ones or witness.state is asked
        return new, open_ones

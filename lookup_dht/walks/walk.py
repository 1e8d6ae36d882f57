"""A walk towards a target: whom to ask next, and when it is over. Pure; time comes in.

There are no rounds: whenever a query ends, or has been open for the soft timeout, its place goes to
the closest node not asked yet. The walk is over when the k closest known nodes have all answered,
not counting those that failed or are slow. It never ends early because something was found: a
replayed old record is found just as fast as the newest.

With a ``radius``, all nodes within it are asked too, however many are closer: an attacker who
places twenty nodes next to a key does not hide the honest ones (SR-DHT-Store).

``witnesses`` are asked in any case, even if closer nodes are known: colluders suggest only each
other, so a walk that began with colluders alone would never hear of anybody else.

Who names nodes that do not answer is soon not taken at its word: what nobody else names comes last.
Otherwise a few liars could use up a walk by inventing nodes closer to the target than there are.
"""

from __future__ import annotations

import bisect
import enum
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from egtp.values.identity import NODE_ID_BYTES
from lookup_dht.settings import DHTLimits
from lookup_dht.wire.contact import Contact, group_of

__all__ = ["CANDIDATES_MAX", "Walk"]

CANDIDATES_MAX: Final = 160
"""Of the nodes known by hearsay and not asked yet, so many are remembered: more than there are in a
walk among the honest."""
UNANSWERED_MAX: Final = 4
"""Of the nodes that one node names, so many may leave a query unanswered, or not have answered it
yet, before the others are doubted: fewer than there are places."""


class _State(enum.Enum):
    NEW = "not asked yet"
    ASKED = "asked a moment ago"
    SLOW = "asked, silent for the soft timeout; may still answer"
    HEARD = "has answered"
    FAILED = "did not answer, twice"


_NEW, _ASKED, _SLOW, _HEARD, _FAILED = _State
"""Module constants, since looking one up in the class costs as much as comparing two numbers."""


class _Candidate:
    """A node that could be asked. Most never are, so a Contact is made only when one is."""

    __slots__ = (
        "asked_at", "compact", "contact", "distance", "group", "named_by", "state", "unanswered",
    )  # fmt: skip

    def __init__(self, compact: bytes, distance: int, contact: Contact | None) -> None:
        self.compact: Final = compact
        self.distance: Final = distance
        self.contact = contact
        """Set for nodes that the walk began with, and for those that have answered."""
        self.state = _NEW
        self.asked_at = 0.0
        self.group = b""
        """Filled in when needed, which is rare."""
        self.named_by: list[_Candidate] = []
        self.unanswered = 0
        """How many of the nodes that it named were asked and have not answered."""

    def waits_in(self, doubted: list[_Candidate]) -> bool:
        """Whether it is doubted, and so has been added to them."""
        if self.doubted:
            doubted.append(self)
            return True
        return False

    @property
    def doubted(self) -> bool:
        """Whether it is known by hearsay alone, of nodes that are not taken at their word."""
        if self.contact is not None:
            return False
        for other in self.named_by:  # noqa: SIM110  (a generator costs more)
            if other.unanswered < UNANSWERED_MAX:
                return False
        return True


class Walk:
    """The state of one walk. The time of every method is small and bounded."""

    def __init__(
        self,
        target: int,
        start: Iterable[Contact],
        limits: DHTLimits,
        *,
        soft_timeout_s: float,
        believe: Callable[[bytes], bool],
        groups_limited: bool,
        radius: int = 0,
        witnesses: Iterable[Contact] = (),
    ) -> None:
        """``start`` and ``witnesses`` are trusted; ``believe`` says whether a suggested node, in
        compact form, may be asked. ``radius`` is a distance."""
        self._target = target
        self._limits = limits
        self._soft_timeout_s = soft_timeout_s
        self._believe = believe
        self._groups_limited = groups_limited
        self._radius = radius
        self._nearest: list[_Candidate] = []
        self._distances: list[int] = []
        """The distances of ``_nearest``, in the same order."""
        self._known: dict[bytes, _Candidate | None] = {}
        """By compact form; None for suggestions that are not believed, or too far away."""
        self._quick: dict[bytes, _Candidate] = {}
        """Asked and not yet slow, in the order of asking."""
        self._slow = 0
        self._asked_homes: set[bytes] = set()
        self._asked_of: Counter[bytes] = Counter()
        """How many were asked, by IP address and by network group, whatever the outcome."""
        self.asked = 0
        self.heard = 0
        for contact in start:
            self._add(contact.compact, contact)
        self._witnesses = [self._add(contact.compact, contact) for contact in witnesses]

    def step(self, now: float) -> tuple[list[Contact], bool]:
        """The nodes to ask now, which count as asked from here on, and whether the walk is over."""
        self._pass_time(now)
        places = self._limits.parallel_queries - len(self._quick)
        if places <= 0:
            return [], False
        chosen, open_ones = self._scan(min(places, self._limits.walk_queries_max - self.asked))
        for candidate in chosen:
            candidate.state, candidate.asked_at = _ASKED, now
            for other in candidate.named_by:
                other.unanswered += 1
            self._quick[candidate.compact] = candidate
            self._asked_homes.add(candidate.compact[NODE_ID_BYTES:])
            if self._groups_limited:
                ip, group = candidate.compact[NODE_ID_BYTES:-2], candidate.group
                self._asked_of.update((ip, group or _group(candidate)))
        self.asked += len(chosen)
        # Slow nodes are waited for only as long as nobody has answered.
        over = not (chosen or open_ones) and (self.heard > 0 or not self._slow)
        return [it.contact or Contact.unpack(it.compact) for it in chosen], over

    def answered(self, contact: Contact, actual: Contact, nodes: Iterable[bytes]) -> None:
        """The node at the address of ``contact`` answered, late or not, and suggested ``nodes``.

        ``actual`` has the id that the node itself gave. It differs if the node was suggested under
        a wrong id; so nobody can hide a node from a walk by suggesting its address under another.
        """
        known = self._known
        asked = known[contact.compact]
        if asked is not None:
            for other in asked.named_by:
                other.unanswered -= 1
        self.failed(contact)
        heard = self._add(actual.compact, actual)
        heard.state = _HEARD
        self.heard += 1
        for compact in nodes:
            if compact in known:
                named = known[compact]
                if named is not None and named.state is _NEW:
                    named.named_by.append(heard)
            elif self._believe(compact):
                self._add(compact).named_by.append(heard)
            else:
                known[compact] = None
        if len(self._nearest) > CANDIDATES_MAX:
            self._forget_some()

    def failed(self, contact: Contact) -> None:
        """``contact`` did not answer, or turned out to have another id."""
        candidate = self._known[contact.compact]
        if candidate is not None:
            self._quick.pop(contact.compact, None)
            self._slow -= candidate.state is _SLOW
            candidate.state = _FAILED

    def deadline(self) -> float | None:
        """When the next query becomes slow; None if none is open, or all are slow."""
        for candidate in self._quick.values():
            return candidate.asked_at + self._soft_timeout_s
        return None

    def closest(self) -> list[Contact]:
        """The k closest nodes that have answered, and all others within the radius that have; few
        of one network, however many of it were asked since the first were slow."""
        heard = [it for it in self._nearest if it.state is _HEARD]
        if self._groups_limited:
            heard = self._few_of_each_group(heard)
        k = self._limits.replication
        within = itertools.takewhile(lambda it: it.distance <= self._radius, heard[k:])
        chosen = [*heard[:k], *within][: self._limits.region_nodes_max]
        return [it.contact for it in chosen if it.contact is not None]

    def _few_of_each_group(self, candidates: Iterable[_Candidate]) -> list[_Candidate]:
        count, few = Counter[bytes](), []
        for candidate in candidates:
            group = candidate.group or _group(candidate)
            count[group] += 1
            if count[group] <= self._limits.group_candidates_per_walk:
                few.append(candidate)
        return few

    def _add(self, compact: bytes, contact: Contact | None = None) -> _Candidate:
        candidate = self._known.get(compact)
        if candidate is None:
            distance = int.from_bytes(compact[:NODE_ID_BYTES], "big") ^ self._target
            candidate = self._known[compact] = _Candidate(compact, distance, contact)
            place = bisect.bisect(self._distances, distance)
            self._distances.insert(place, distance)
            self._nearest.insert(place, candidate)
        else:
            candidate.contact = contact
        return candidate

    def _forget_some(self) -> None:
        """Forget nodes not asked yet, first the doubted and then the most distant ones; only that
        they were named stays known."""
        new = [it for it in reversed(self._nearest) if it.state is _NEW and it.contact is None]
        new.sort(key=lambda it: not it.doubted)
        for candidate in new[: max(0, len(new) - CANDIDATES_MAX)]:
            self._known[candidate.compact] = None
        self._nearest = [it for it in self._nearest if self._known[it.compact] is not None]
        self._distances = [it.distance for it in self._nearest]

    def _pass_time(self, now: float) -> None:
        quick = self._quick
        while quick:
            compact, candidate = next(iter(quick.items()))
            if now < candidate.asked_at + self._soft_timeout_s:
                return
            del quick[compact]
            candidate.state = _SLOW
            self._slow += 1

    def _scan(self, wanted: int) -> tuple[list[_Candidate], bool]:
        """Scan the k closest nodes, and those within the radius, skipping failed and slow ones.
        Returns the first ``wanted`` not asked yet, the doubted ones last, and, if there are none,
        whether a query is open.

        One per address and few per network group count: however many ids and addresses one owner
        invents, few of them are asked. Failed addresses do not count, so nobody can use up the
        share of another's network by inventing addresses in it. What such inventions cost that
        network is limited by :meth:`_bothered`.
        """
        new: list[_Candidate] = []
        doubted: list[_Candidate] = []
        open_ones, count, count_within = False, 0, 0
        homes = self._asked_homes
        added: set[bytes] = set()
        groups: dict[bytes, int] = {}
        group, of_group = b"", 0
        k, most = self._limits.replication, self._limits.region_nodes_max
        within = bisect.bisect(self._distances, self._radius)
        # Far fewer nodes within the radius than there must be: some are being kept from us.
        enough = k * 3 // 4 if self._radius else 0
        groups_limited, group_max = self._groups_limited, self._limits.group_candidates_per_walk
        for place, candidate in enumerate(self._nearest):
            state = candidate.state
            if state is _FAILED or state is _SLOW:
                continue
            if count >= most or (count >= k and place >= within and count_within >= enough):
                break
            if groups_limited:
                group = candidate.group or _group(candidate)
                of_group = groups.get(group, 0)
            if state is _NEW:
                home = candidate.compact[NODE_ID_BYTES:]
                refused = home in homes or home in added or of_group >= group_max
                if refused or self._bothered(candidate, new) or candidate.waits_in(doubted):
                    continue
                added.add(home)
                new.append(candidate)
                if len(new) == wanted:
                    return new, open_ones
            elif state is _ASKED:
                open_ones = True
            if groups_limited:
                groups[group] = of_group + 1
            count += 1
            count_within += place < within
        for witness in self._witnesses:
            if witness.state is _NEW and witness not in new:
                new.append(witness)
            open_ones = open_ones or witness.state is _ASKED
        self._choose_doubted(new, doubted, added, groups)
        return new[:wanted], open_ones

    def _choose_doubted(
        self,
        new: list[_Candidate],
        doubted: Iterable[_Candidate],
        added: set[bytes],
        groups: dict[bytes, int],
    ) -> None:
        """Add those of the ``doubted`` to the ``new`` ones that may be asked together with them."""
        for candidate in doubted:
            home, group = candidate.compact[NODE_ID_BYTES:], candidate.group
            refused = home in added or (
                self._groups_limited
                and groups.get(group, 0) >= self._limits.group_candidates_per_walk
            )
            if refused or self._bothered(candidate, new):
                continue
            added.add(home)
            groups[group] = groups.get(group, 0) + 1
            new.append(candidate)

    def _bothered(self, candidate: _Candidate, new: list[_Candidate]) -> bool:
        """Whether so many at its IP address or in its group were asked already, the ``new`` ones
        included, that asking one more on hearsay would burden whoever is there. Contacts that this
        node knew before have answered it, and are exempt."""
        if candidate.contact is not None or not self._groups_limited:
            return False
        ip, group = candidate.compact[NODE_ID_BYTES:-2], candidate.group
        of_ip = sum(it.compact[NODE_ID_BYTES:-2] == ip for it in new)
        of_group = sum(it.group == group for it in new)
        limits, asked_of = self._limits, self._asked_of
        return (
            asked_of[ip] + of_ip >= limits.address_queries_per_walk
            or asked_of[group] + of_group >= limits.group_queries_per_walk
        )


def _group(candidate: _Candidate) -> bytes:
    group = candidate.group = group_of(candidate.compact[NODE_ID_BYTES:-2])
    return group

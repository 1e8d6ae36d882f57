"""Idle policy: which connections are kept, and which go when there are too many (pure).

It tries to be "very clever about keeping connections open if it expects to use them again" (seed
III.B, R18), in three ways: a connection in use is never closed; one that was used lately goes last;
and a peer that came back soon after its idle connection was closed gets twice as long next time.

When room is needed, connections go in the order of :class:`Standing`. Within a standing, the next
:data:`LOOKS` in turn are looked at, and the one of these that is unused for longest goes. Looking
at all of them each time would let strangers keep this node busy looking.

Each connection is looked at once in a while, so thousands of idle ones cost next to nothing: none
has a timer, and no packet touches this machine.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["LOOKS", "IdlePolicy", "Look", "Standing", "Use"]

LOOKS: Final = 16
"""How many connections to look at to find one that may go."""
LOOKS_PER_TIMEOUT: Final = 4
"""How often per idle timeout to look at a connection: it is closed late by one such interval at
most."""
JUST_USED_S: Final = 1.0
"""A connection used so lately is in the middle of something, and does not make room for others."""
RETURNS_MAX: Final = 4096
"""Peers whose idle timeouts are remembered; the least recently closed are forgotten first."""

Peer = TypeVar("Peer", bound=Hashable)


class Standing(enum.IntEnum):
    """Classes of connections, in the order in which they make room."""

    STRANGER = 0
    """Its peer has proven its identity, and nobody here has asked for that peer."""
    UNPROVEN = 1
    """Accepted, and its peer has not proven its identity yet. The oldest goes first."""
    KNOWN = 2
    """Its peer has proven its identity, and somebody here wanted to reach that peer."""
    OPENING = 3
    """Being dialled, or the dialled peer is proving its identity: somebody here waits for that, so
    it never makes room."""


@dataclass(frozen=True, slots=True)
class Use:
    """How a connection is used at the moment."""

    used_s: float
    """When something last went over it."""
    keep: str | None = None
    """Why it must stay even if nothing went over it lately; None if it need not."""


Look = Callable[[int], Use]


class _Resident(Generic[Peer]):
    __slots__ = ("allowed_s", "peer", "seen_s", "standing")

    def __init__(self, standing: Standing, now_s: float, allowed_s: float) -> None:
        self.standing = standing
        self.seen_s = now_s
        """When it was last looked at, or else when it came or got its standing."""
        self.peer: Peer | None = None
        self.allowed_s = allowed_s


class IdlePolicy(Generic[Peer]):
    """The policy for all connections, each known by its number.

    Invariant: each is in the list of its standing and in no other, and every list is ordered by
    when its connections were last seen.
    """

    __slots__ = ("_idle_s", "_idle_s_max", "_lists", "_of_peer", "_residents", "_returns")

    def __init__(self, *, idle_timeout_s: float, idle_timeout_max_s: float) -> None:
        self._idle_s = idle_timeout_s
        self._idle_s_max = max(idle_timeout_s, idle_timeout_max_s)
        self._residents: dict[int, _Resident[Peer]] = {}
        self._lists: dict[Standing, OrderedDict[int, None]] = {s: OrderedDict() for s in Standing}
        self._of_peer: dict[Peer, tuple[int, ...]] = {}
        self._returns: OrderedDict[Peer, tuple[float, float]] = OrderedDict()
        """When a peer's idle connection was closed, and how long that had been allowed to idle."""

    def count(self, standing: Standing) -> int:
        return len(self._lists[standing])

    def of_peer(self, peer: Peer) -> tuple[int, ...]:
        """The proven connections of a peer, the oldest first."""
        return self._of_peer.get(peer, ())

    def awaits_proof(self, number: int) -> bool:
        """Whether the connection's peer has not proven its identity yet, but still may."""
        resident = self._residents.get(number)
        return resident is not None and resident.peer is None

    def oldest(self, standing: Standing) -> int | None:
        """The one that was last seen longest ago; None if there is none."""
        return next(iter(self._lists[standing]), None)

    # Coming and going

    def add(self, number: int, standing: Standing, now_s: float) -> None:
        """Add a connection whose peer has proven nothing yet: accepted, or being opened."""
        self._residents[number] = _Resident(standing, now_s, self._idle_s)
        self._lists[standing][number] = None

    def prove(self, number: int, peer: Peer, standing: Standing, now_s: float) -> None:
        """A peer has proven itself on the connection, which has ``standing`` from now on."""
        resident = self._move(number, standing, now_s)
        resident.peer, resident.allowed_s = peer, self._allowance(peer, now_s)
        self._of_peer[peer] = (*self.of_peer(peer), number)

    def promote(self, peer: Peer, now_s: float) -> None:
        """The peer is no longer a stranger."""
        for number in self.of_peer(peer):
            self._move(number, Standing.KNOWN, now_s)

    def _move(self, number: int, standing: Standing, now_s: float) -> _Resident[Peer]:
        resident = self._residents[number]
        del self._lists[resident.standing][number]
        self._lists[standing][number] = None
        resident.standing, resident.seen_s = standing, now_s
        return resident

    def remove(self, number: int) -> None:
        """The connection is gone or being closed; a second call does nothing."""
        resident = self._residents.pop(number, None)
        if resident is None:
            return
        del self._lists[resident.standing][number]
        if resident.peer is not None:
            others = tuple(other for other in self.of_peer(resident.peer) if other != number)
            if others:
                self._of_peer[resident.peer] = others
            else:
                del self._of_peer[resident.peer]

    # What should be closed

    def overdue(self, standing: Standing, since_s: float) -> list[int]:
        """The connections of a standing that were last seen at ``since_s`` or before."""
        overdue = []
        for number in self._lists[standing]:
            if self._residents[number].seen_s > since_s:
                break
            overdue.append(number)
        return overdue

    def idle(self, now_s: float, look: Look) -> list[int]:
        """The connections that have been unused for longer than allowed; looks only at those whose
        turn it is. The caller must remove them."""
        idle = []
        for standing in (Standing.STRANGER, Standing.KNOWN):
            for number in self.overdue(standing, now_s - self._idle_s / LOOKS_PER_TIMEOUT):
                use = self._look(number, now_s, look)
                resident = self._residents[number]
                if use.keep is None and now_s - use.used_s > resident.allowed_s:
                    idle.append(number)
                    self._remember(resident, now_s)
        return idle

    def make_room(self, up_to: Standing, now_s: float, look: Look) -> int | None:
        """The connection that should make room for a new one, from the standings up to ``up_to``,
        which is never ``OPENING``; None if none may. The caller must remove it."""
        for standing in Standing:
            if standing > up_to:
                break
            if standing is Standing.UNPROVEN:
                number = self.oldest(standing)
            else:
                number = self.least_used(standing, now_s, look)
            if number is not None:
                return number
        return None

    def least_used(self, standing: Standing, now_s: float, look: Look) -> int | None:
        """Among those whose turn it is to be looked at, the one unused for longest; None if all of
        these are in use."""
        turns = self._lists[standing]
        longest: tuple[float, int] | None = None
        for _ in range(min(LOOKS, len(turns))):
            number = next(iter(turns))
            use = self._look(number, now_s, look)
            if use.keep is None and now_s - use.used_s >= JUST_USED_S:
                longest = min(longest or (use.used_s, number), (use.used_s, number))
        return None if longest is None else longest[1]

    def _look(self, number: int, now_s: float, look: Look) -> Use:
        resident = self._residents[number]
        resident.seen_s = now_s
        self._lists[resident.standing].move_to_end(number)
        return look(number)

    # How long a peer may be idle

    def _remember(self, resident: _Resident[Peer], now_s: float) -> None:
        if resident.peer is None:
            return
        self._returns.pop(resident.peer, None)
        if len(self._returns) >= RETURNS_MAX:
            self._returns.popitem(last=False)
        self._returns[resident.peer] = (now_s, resident.allowed_s)

    def _allowance(self, peer: Peer, now_s: float) -> float:
        """Twice as long as last time if that would have kept the connection until now; half as
        long if not."""
        if peer not in self._returns:
            return self._idle_s
        closed_s, allowed_s = self._returns[peer]
        if now_s - closed_s <= allowed_s:
            return min(2 * allowed_s, self._idle_s_max)
        return max(allowed_s / 2, self._idle_s)

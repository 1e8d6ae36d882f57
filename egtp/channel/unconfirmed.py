"""Sessions of which only one side is sure yet.

A responder has answered an initiation, but the initiation may be a recording: only a first data
packet that opens proves that its sender lives now. Until then the session waits here, in a table
of its own, small and short-lived, so that recordings can neither fill memory nor displace a
session that is confirmed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from egtp.values.identity import NodeId

__all__ = ["PER_PEER_MAX", "SESSIONS_MAX", "WAIT_S", "Unconfirmed", "UnconfirmedSessions"]

SESSIONS_MAX: Final = 256
RELAYED_MAX: Final = SESSIONS_MAX // 2
"""Of these, how many may be of handshakes through relays: there one needs no connection each."""
PER_PEER_MAX: Final = 8
"""As many as a record has strategies: an honest peer races them all, and a session that it has
confirmed already must not be displaced before its proof is here."""
WAIT_S: Final = 5.0

PathLike = TypeVar("PathLike")


@dataclass(frozen=True, slots=True)
class Unconfirmed(Generic[PathLike]):
    """A session, the initiation that asked for it, and the response that was given."""

    path: PathLike
    peer_id: NodeId
    initiation: bytes
    response: bytes
    deadline_s: float
    relayed: bool


class UnconfirmedSessions(Generic[PathLike]):
    """Invariants: at most 256 sessions, at most half of them through relays, at most 8 of a peer,
    none older than 5 s after :meth:`expire`; one entry per initiation."""

    def __init__(self) -> None:
        self._by_initiation: dict[bytes, Unconfirmed[PathLike]] = {}
        self._per_peer: Counter[NodeId] = Counter()
        self._relayed = 0

    def __len__(self) -> int:
        return len(self._by_initiation)

    def find(self, initiation: bytes) -> Unconfirmed[PathLike] | None:
        """The entry of a byte-identical initiation: it gets the same response again."""
        return self._by_initiation.get(initiation)

    def paths(self) -> list[PathLike]:
        return [entry.path for entry in self._by_initiation.values()]

    def has_room(self, peer_id: NodeId, *, relayed: bool) -> bool:
        return (
            len(self) < SESSIONS_MAX
            and (not relayed or self._relayed < RELAYED_MAX)
            and self._per_peer[peer_id] < PER_PEER_MAX
        )

    def displace(self, peer_id: NodeId, *, relayed: bool) -> list[PathLike]:
        """Make room for another session of a peer: take out and return its own oldest one if its
        places are all taken, the oldest through a relay if their half is, the oldest of all if the
        table is full.

        Whoever recorded initiations of a peer can replay them, and would hold its places for as
        long as he likes if the first to come kept them; as whoever makes up peers would hold all
        places, with fifty initiations a second. An honest peer needs one for one round trip only.
        """
        displaced = []
        while not self.has_room(peer_id, relayed=relayed):
            oldest = next(filter(self._who_goes(peer_id, relayed), self._by_initiation.values()))
            self._forget(oldest)
            displaced.append(oldest.path)
        return displaced

    def _who_goes(self, peer_id: NodeId, relayed: bool) -> Callable[[Unconfirmed[PathLike]], bool]:
        if self._per_peer[peer_id] >= PER_PEER_MAX:
            return lambda entry: entry.peer_id == peer_id
        if relayed and self._relayed >= RELAYED_MAX:
            return lambda entry: entry.relayed
        return lambda _: True

    def add(
        self,
        path: PathLike,
        peer_id: NodeId,
        initiation: bytes,
        response: bytes,
        now_s: float,
        *,
        relayed: bool,
    ) -> None:
        """The caller has made sure of :meth:`has_room`."""
        self._by_initiation[initiation] = Unconfirmed(
            path, peer_id, initiation, response, now_s + WAIT_S, relayed
        )
        self._per_peer[peer_id] += 1
        self._relayed += relayed

    def remove(self, path: PathLike) -> bool:
        """Take a session out: confirmed, or lost. False if it is not here."""
        for entry in self._by_initiation.values():
            if entry.path is path:
                self._forget(entry)
                return True
        return False

    def expire(self, now_s: float) -> list[PathLike]:
        """Take out and return the sessions that waited too long."""
        # Entries are in order of their deadlines, since all wait equally long.
        old = []
        for entry in self._by_initiation.values():
            if entry.deadline_s > now_s:
                break
            old.append(entry)
        for entry in old:
            self._forget(entry)
        return [entry.path for entry in old]

    def _forget(self, entry: Unconfirmed[PathLike]) -> None:
        del self._by_initiation[entry.initiation]
        self._relayed -= entry.relayed
        self._per_peer[entry.peer_id] -= 1
        if not self._per_peer[entry.peer_id]:
            del self._per_peer[entry.peer_id]

"""Sessions that a responder has not confirmed yet.

It has answered an initiation, but that may be a recording: only the first data packet that opens
proves that its sender is alive now. Until then the session waits here, in a separate table, small
and short-lived, so that recordings can neither fill memory nor displace a confirmed session.
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
"""How many of these may come from handshakes through relays, which need no connection each."""
PER_PEER_MAX: Final = 8
"""As many as a record may have strategies. An honest peer races them all, and a session that it has
already confirmed must not be displaced before its proof arrives."""
WAIT_S: Final = 5.0

PathLike = TypeVar("PathLike")


@dataclass(frozen=True, slots=True)
class Unconfirmed(Generic[PathLike]):
    """A session, with the initiation that asked for it and the response to that."""

    path: PathLike
    peer_id: NodeId
    initiation: bytes
    response: bytes
    deadline_s: float
    relayed: bool


class UnconfirmedSessions(Generic[PathLike]):
    """Invariants: at most 256 sessions, at most half of them through relays, at most 8 per peer;
    after :meth:`expire`, none older than 5 s; one entry per initiation."""

    def __init__(self) -> None:
        self._by_initiation: dict[bytes, Unconfirmed[PathLike]] = {}
        self._per_peer: Counter[NodeId] = Counter()
        self._relayed = 0

    def __len__(self) -> int:
        return len(self._by_initiation)

    def find(self, initiation: bytes) -> Unconfirmed[PathLike] | None:
        """The entry of a byte-identical initiation, which gets the same response again."""
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
        """Make room for another session of a peer: remove and return the peer's own oldest if all
        its places are taken, the oldest through a relay if the relayed half is full, the oldest of
        all if the table is full.

        If the first to come kept its place, an attacker could hold a peer's places for ever by
        replaying recorded initiations, and all places by making up peers, with fifty initiations a
        second. An honest peer needs its place for one round trip only.
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
        """The caller must have made sure of :meth:`has_room`."""
        self._by_initiation[initiation] = Unconfirmed(
            path, peer_id, initiation, response, now_s + WAIT_S, relayed
        )
        self._per_peer[peer_id] += 1
        self._relayed += relayed

    def remove(self, path: PathLike) -> bool:
        """Remove a session that is confirmed or lost. False if it is not here."""
        for entry in self._by_initiation.values():
            if entry.path is path:
                self._forget(entry)
                return True
        return False

    def expire(self, now_s: float) -> list[PathLike]:
        """Remove and return the sessions that have waited too long."""
        # Entries are in the order of their deadlines, since all may wait equally long.
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

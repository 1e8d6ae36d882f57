"""What a node knows about one peer: where it may be, which paths lead to it, what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Final

from egtp.errors import FastFail
from egtp.later import begin_later
from egtp.limits.throttle import TokenBucket
from egtp.paths.path import Path
from egtp.queries.early import Early
from egtp.queries.outgoing import Outgoing
from egtp.values.attempts import Attempt
from egtp.values.comm_record import SignedCommRecord, supersedes
from egtp.values.contact import Contact
from egtp.values.identity import NodeId

__all__ = ["CROSSED_S", "Explanation", "Peer", "Search", "preferred"]

CROSSED_S: Final = 5.0
"""Two connections to one peer that begin this close together were dialled from both ends."""


def preferred(old: Path, new: Path, me: NodeId) -> Path:
    """Which of two confirmed paths to one peer stays; ``new`` was confirmed later here, which the
    other end may see otherwise. Both ends come to the same answer.

    The newer one, since its dialler had a reason to dial; but if both ends dialled at about the
    same time, the one dialled by the smaller nodeId. Which of its own a dialler began later, it has
    told in the handshake.
    """
    if old.incarnation != new.incarnation:
        return new
    if old.dialled == new.dialled:
        return max(new, old, key=_order_of_dialling)
    if new.session.started_s - old.session.started_s < CROSSED_S:
        mine = me < new.peer_id
        return new if new.dialled == mine else old
    return new


def outlasting(one: Path, other: Path, me: NodeId) -> Path:
    """Which of two paths is used when it turns out that the two ends have not come to the same
    answer: whether dials crossed is a matter of seconds, and each end counts them by itself. So
    this goes by what both see alike."""
    if one.dialled == other.dialled:
        return max(one, other, key=_order_of_dialling)
    return one if one.dialled == (me < one.peer_id) else other


def _order_of_dialling(path: Path) -> tuple[int, int]:
    """Of two in the same millisecond, either will do, if only it is the same at both ends."""
    session = path.session
    return path.dialled_at_ms, session.index if path.dialled else session.remote_index


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a peer is reached and why, or why it is not: what ``node.why(peer_id)`` returns.
    ``str()`` shows it in lines for people."""

    peer_id: NodeId
    record: SignedCommRecord | None
    """The newest record known; None if there is none."""
    source: str
    """Where that record came from: ``lookup``, ``handshake``, ``pushed by the peer``, ..."""
    record_age_s: float | None
    """How many seconds ago it was learned."""
    paths: tuple[str, ...]
    """The live paths, best first; empty if there are none."""
    round_trip_s: float | None
    """The round trip in seconds, as last measured on the best path."""
    silent_s: float | None
    """For how many seconds nothing has come on the best path. A silent peer that a query waits for
    is pinged (``silent_path_s``), so one that is merely slow to answer is never silent for long."""
    open_queries: int
    """Queries of this node to the peer that are open."""
    attempts: tuple[Attempt, ...]
    """The failed attempts of the last search for a path."""

    runs_twice: bool = False
    """Whether two processes have signed its records in turn, so that a copy of its identity is in
    use: either may answer what the peer is asked."""

    def __str__(self) -> str:
        lines = [f"peer {self.peer_id}"]
        if self.runs_twice:
            lines.append(
                "  a copy of its identity is in use: two processes sign its records in turn"
            )
        if self.record is None:
            lines.append("  no record known")
        else:
            lines.append(f"  record {self.record.sequence}, {self.source}")
            lines.append(f"    {self.record_age_s:.1f} s ago")
            lines += [f"    {strategy}" for strategy in self.record.strategies]
        paths = [f"  path: {path}" for path in self.paths] or ["  no path"]
        if self.silent_s is not None:
            paths.insert(1, f"    last heard from {self.silent_s:.1f} s ago")
        lines += paths
        lines += [f"  tried: {attempt}" for attempt in self.attempts]
        return "\n".join(lines)


class Search:
    """A search for a path that is under way. ``found`` is done when there is one."""

    __slots__ = ("found", "task")

    def __init__(
        self, run: Callable[[asyncio.Future[None]], Coroutine[None, None, FastFail | None]]
    ) -> None:
        self.found: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        # It may end without waiting, and is to be known as the search by then.
        self.task: Final = begin_later(partial(run, self.found))

    def path_opened(self) -> None:
        if not self.found.done():
            self.found.set_result(None)


class Peer:
    """One peer. ``waiting`` holds messages for which there is no path yet."""

    def __init__(self, peer_id: NodeId) -> None:
        self.peer_id: Final = peer_id
        self.is_wanted = False
        """Whether anybody here has asked or named it; if not, it is a stranger. Set by the book."""
        self.record: SignedCommRecord | None = None
        self.source = ""
        self.learned_s = 0.0
        self._former: bytes | None = None
        """The incarnation of records before those of the present one."""
        self.runs_twice = False
        """Whether two processes sign its records by turns, each with one that is newer than the
        other's: after a restart, the former one never signs again."""
        self._contact: Contact | None = None
        """As of the record, when it was last asked for."""
        self.hearsay: Contact | None = None
        """What a third party's record says of this peer, for when it has no record of its own."""
        self.direct: Path | None = None
        self.relayed: Path | None = None
        self.superseded: dict[Path, float] = {}
        """Older paths that still receive, and may be used again; and since when that is so."""
        self.retired: list[Path] = []
        """Paths that the peer wants to be left alone on: they only receive."""
        self.waiting: dict[Outgoing, None] = {}
        self.waiting_bytes = 0
        self.search: Search | None = None
        """For any path, on behalf of the messages that wait."""
        self.direct_search: Search | None = None
        """For a direct path, on behalf of what goes through this peer as a relay."""
        self.direct_due_s = float("inf")
        """When to search for a direct path, since the peer has said where there may be one."""
        self.direct_again_s = float("-inf")
        """No sooner than this at the peer's word."""
        self.pushes: TokenBucket | None = None
        """How many records it may push, once it has pushed one."""
        self.attempts: tuple[Attempt, ...] = ()
        self.notes: TokenBucket | None = None
        """How many sessions it may say it does not know, once it has said so of one."""
        self.early: Early | None = None
        """What travels with a dial at present."""
        self.seek_again_s = float("inf")
        """When to search again, for messages that an earlier path was given."""
        self.failed_searches = 0
        self.away_until_s = float("-inf")
        """Until when the peer asked to be left alone: not beyond the path that it said so on."""
        self.renewal: asyncio.Task[None] | None = None
        """A handshake under way that replaces an old session."""
        self.renewed_s = float("-inf")
        """When one was begun last, or a search beside a silent path."""

    @property
    def best_path(self) -> Path | None:
        """Where to send now: the direct path if there is one. A path whose session the peer seems
        to have lost is not used while a search for a better one is under way."""
        path = self.direct
        if path is not None and not path.suspect:
            return path
        for path in (self.direct, self.relayed):
            if path is not None and not (path.suspect and self.search is not None):
                return path
        return None

    @property
    def paths(self) -> list[Path]:
        return [p for p in (self.direct, self.relayed) if p is not None] + self.others

    @property
    def others(self) -> list[Path]:
        """Paths that only receive, and end when nothing comes any more."""
        return [*self.superseded, *self.retired]

    def learn(self, record: SignedCommRecord, source: str, now_s: float) -> bool:
        """Take a verified record of this peer. False if it is not newer than what is known."""
        if not supersedes(record, self.record):
            return False
        self._note_incarnation(record.incarnation)
        self.record, self.source, self.learned_s = record, source, now_s
        self._contact = None
        return True

    def _note_incarnation(self, new: bytes | None) -> None:
        old = None if self.record is None else self.record.incarnation
        if new is None or old in {None, new}:
            return
        self.runs_twice |= new == self._former
        self._former = old

    def contact(self, unix_s: float) -> Contact | None:
        """How to dial the peer, as far as is known."""
        record, contact = self.record, self._contact
        if record is not None and (contact is None or contact.expired != record.expired(unix_s)):
            contact = self._contact = Contact.of_record(record, unix_s)
        return contact or self.hearsay

    def add_path(self, path: Path, me: NodeId, now_s: float) -> None:
        """A path was confirmed; of two alike, one from now on only receives."""
        old = self.relayed if path.relayed else self.direct
        stays = path if old is None else preferred(old, path, me)
        if path.relayed:
            self.relayed = stays
        else:
            self.direct = stays
        loser = old if stays is path else path
        if loser is not None:
            self.superseded[loser] = now_s

    def settle(self, path: Path, me: NodeId, now_s: float) -> None:
        """The other end goes on using a path that this end has superseded: agree on one."""
        rival = self.relayed if path.relayed else self.direct
        if rival is None or rival.incarnation != path.incarnation:
            return
        self.superseded[path] = now_s
        if outlasting(path, rival, me) is path:
            del self.superseded[path]
            self.superseded[rival] = now_s
            if path.relayed:
                self.relayed = path
            else:
                self.direct = path

    def retire(self, path: Path) -> None:
        """The peer asks to be left alone on a path: it only receives from now on."""
        if path in (self.direct, self.relayed):
            self.remove_path(path)
            self.retired.append(path)

    def remove_path(self, path: Path) -> None:
        """A path is gone. One that was superseded takes its place if it still lives."""
        if path in self.superseded:
            del self.superseded[path]
            return
        if path in self.retired:
            self.retired.remove(path)
            if not self.retired:
                # It has closed by now, and may be there again already.
                self.away_until_s = float("-inf")
            return
        successor = next((p for p in self.superseded if p.relayed == path.relayed), None)
        if successor is not None:
            del self.superseded[successor]
        if path is self.direct:
            self.direct = successor
        elif path is self.relayed:
            self.relayed = successor

    def wait(self, outgoing: Outgoing) -> None:
        """Keep a message until there is a path."""
        outgoing.path, outgoing.queued = None, True
        self.waiting[outgoing] = None
        self.waiting_bytes += len(outgoing.message)

    def take_waiting(self) -> list[Outgoing]:
        """All that waits, which then waits no longer."""
        waiting = list(self.waiting)
        for outgoing in waiting:
            outgoing.queued = False
        self.waiting.clear()
        self.waiting_bytes = 0
        return waiting

    def drop_waiting(self, outgoing: Outgoing) -> None:
        """A message that waits here is not wanted any more."""
        if outgoing in self.waiting:
            del self.waiting[outgoing]
            outgoing.queued = False
            self.waiting_bytes -= len(outgoing.message)

    @property
    def in_use(self) -> bool:
        """Whether forgetting this peer would lose more than a record."""
        return bool(self.paths or self.waiting or self.search or self.direct_search or self.renewal)

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
from egtp.reaching.strategy_choice import Way, way_of
from egtp.values.attempts import Attempt
from egtp.values.comm_record import SignedCommRecord, supersedes
from egtp.values.contact import Contact
from egtp.values.identity import NodeId

__all__ = ["CROSSED_S", "Explanation", "Peer", "Search", "preferred"]

CROSSED_S: Final = 5.0
"""Two paths, one dialled from each end, that begin less than this apart are crossed dials."""
SHORT_LIFE_S: Final = 1.0
SHORT_LIVES_MAX: Final = 3
"""So many paths in a row may end sooner than that; then the next one is made after a second, and
the pause doubles each time."""
REST_MAX_S: Final = 10.0
DEAD_ENDS_MAX: Final = 8
"""As many ways as a record may name."""
DEAD_END_KEPT_S: Final = 600.0
"""How long other ways are preferred to one that led nowhere."""
CUT_OFF_S: Final = 5.0
"""If a path begins so soon after one by the same way fell silent, and itself falls silent so soon,
the way leads nowhere: the peer is there, since handshakes succeed."""


@dataclass(frozen=True, slots=True)
class _DeadEnd:
    """A way that led nowhere."""

    way: Way
    since_s: float
    in_vain: bool = False
    """Signs of life came by it all the same."""


def preferred(old: Path, new: Path, me: NodeId) -> Path:
    """Which of two confirmed paths to one peer stays. ``new`` is the one that this end confirmed
    later; the other end may have seen them in the opposite order. Both come to the same answer,
    unless they disagree on whether dials crossed: :func:`outlasting` settles that.

    The newer path stays, since its dialler had a reason to dial; but of crossed dials, the one from
    the smaller nodeId. If one end dialled both, its handshakes have told when it began each.
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
    """Which of two paths is used once it shows that the two ends prefer different ones: each judges
    by its own clock whether dials crossed. So this depends only on what both ends see alike."""
    if one.dialled == other.dialled:
        return max(one, other, key=_order_of_dialling)
    return one if one.dialled == (me < one.peer_id) else other


def _order_of_dialling(path: Path) -> tuple[int, int]:
    """The dialler's session index breaks ties within a millisecond: either path will do, as long as
    both ends choose the same one."""
    session = path.session
    return path.dialled_at_ms, session.index if path.dialled else session.remote_index


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a peer is reached and why, or why it is not: what ``node.why(peer_id)`` returns.
    ``str()`` formats it as lines for people."""

    peer_id: NodeId
    record: SignedCommRecord | None
    """The newest record known; None if there is none."""
    source: str
    """Where that record came from: ``lookup``, ``handshake``, ``pushed by the peer``, ``contact``
    or ``discovery``; empty if there is none."""
    record_age_s: float | None
    """How many seconds ago it was learned."""
    paths: tuple[str, ...]
    """The live paths, best first; empty if there are none."""
    round_trip_s: float | None
    """The round trip in seconds, as last measured on the best path."""
    silent_s: float | None
    """Seconds since anything came on the best path. A silent peer that a query waits for is pinged
    (``silent_path_s``), so one that is merely slow to answer is never silent for long."""
    open_queries: int
    """How many queries from this node to the peer are open."""
    attempts: tuple[Attempt, ...]
    """The failed attempts of the last search for a path; none once there was a path again."""

    runs_twice: bool = False
    """Whether two processes have signed its records in turn. Then a copy of its identity is in use,
    and either process may answer queries to the peer."""
    rests_s: float = 0.0
    """For how many seconds no path will be made, since the last ones ended as soon as they had
    begun, with queries open."""

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
        if self.rests_s:
            lines.append(
                f"    the last ones ended within a second; the next in {self.rests_s:.1f} s"
            )
        lines += [f"  tried: {attempt}" for attempt in self.attempts]
        return "\n".join(lines)


class Search:
    """A search under way for a path. ``found`` is done once there is one."""

    __slots__ = ("found", "task")

    def __init__(
        self, run: Callable[[asyncio.Future[None]], Coroutine[None, None, FastFail | None]]
    ) -> None:
        self.found: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        # Begun later: it may end without ever waiting, and must be registered by then.
        self.task: Final = begin_later(partial(run, self.found))

    def path_opened(self) -> None:
        if not self.found.done():
            self.found.set_result(None)


class Peer:
    """One peer. ``waiting`` holds the messages for which there is no path yet."""

    # Thousands are remembered; of so many attributes, a dictionary takes 1.3 KiB more.
    __slots__ = (
        "_contact",
        "_cut_off",
        "_dead_ends",
        "_former",
        "attempts",
        "away_until_s",
        "direct",
        "direct_again_s",
        "direct_due_s",
        "direct_search",
        "early",
        "ended",
        "failed_searches",
        "hearsay",
        "is_wanted",
        "learned_s",
        "notes",
        "peer_id",
        "pushes",
        "record",
        "relayed",
        "renewal",
        "renewed_s",
        "rests_until_s",
        "retired",
        "runs_twice",
        "search",
        "seek_again_s",
        "short_lives",
        "source",
        "superseded",
        "waiting",
        "waiting_bytes",
    )

    def __init__(self, peer_id: NodeId) -> None:  # noqa: PLR0915 - one line each
        self.peer_id: Final = peer_id
        self.is_wanted = False
        """Whether somebody here wants, or has wanted, to reach it; if not, it is a stranger. Set by
        the book."""
        self.record: SignedCommRecord | None = None
        self.source = ""
        self.learned_s = 0.0
        self._former: bytes | None = None
        """The incarnation whose records came before those of the present one."""
        self.runs_twice = False
        """Whether two processes sign its records in turn, each superseding the other's. A mere
        restart looks different: the former process never signs again."""
        self._contact: Contact | None = None
        """Made from the record when it was last asked for."""
        self._dead_ends: tuple[_DeadEnd, ...] = ()
        """Ways that led nowhere, and when that was last noticed, the last one last."""
        self._cut_off: tuple[Way, float] | None = None
        """The way of the last path that fell silent, and when."""
        self.hearsay: Contact | None = None
        """What a third party's record says of this peer, for when it has no record of its own."""
        self.direct: Path | None = None
        self.relayed: Path | None = None
        self.superseded: dict[Path, float] = {}
        """Paths that gave way to another: they still receive, and may be used again. The value is
        when that was last decided."""
        self.retired: list[Path] = []
        """Paths on which the peer asked to be left alone: they only receive."""
        self.waiting: dict[Outgoing, None] = {}
        self.waiting_bytes = 0
        self.search: Search | None = None
        """For any path."""
        self.direct_search: Search | None = None
        """For a direct path: to a relay, or to a peer that so far is reached through relays."""
        self.direct_due_s = float("inf")
        """When to search for a direct path, once the peer has said where it may be reached."""
        self.direct_again_s = float("-inf")
        """The peer's word begins no other such search before this."""
        self.pushes: TokenBucket | None = None
        """Limits the records that it pushes; None until the first."""
        self.attempts: tuple[Attempt, ...] = ()
        self.notes: TokenBucket | None = None
        """Limits its notes of unknown sessions; None until the first."""
        self.early: Early | None = None
        """What travels with a dial that is under way."""
        self.seek_again_s = float("inf")
        """When to search again for messages that were given away before, and so cannot fail
        fast."""
        self.ended: bytes | None = None
        """The incarnation that has said that it ends."""
        self.failed_searches = 0
        self.short_lives = 0
        """How many paths have ended soon after they began, one after the other, with work on them
        left and no other path to take it."""
        self.rests_until_s = float("-inf")
        """No search begins before this, since too many of them have."""
        self.away_until_s = float("-inf")
        """Until when the peer asked to be left alone; reset once all paths on which it asked that
        are gone."""
        self.renewal: asyncio.Task[None] | None = None
        """A handshake under way that is to replace an old session."""
        self.renewed_s = float("-inf")
        """When a renewal, or a search beside a silent path, last began."""

    @property
    def best_path(self) -> Path | None:
        """Where to send now: the direct path if there is one. A path whose session the peer seems
        to have lost is not used while a search is under way."""
        path = self.direct
        if path is not None and not path.suspect:
            return path
        for path in (self.direct, self.relayed):
            if path is not None and not (path.suspect and self.search is not None):
                return path
        return None

    @property
    def hears_by(self) -> Path | None:
        """The direct path by which others reach the peer through this node. Even one on which the
        peer asked to be left alone: what it waits for itself comes from others."""
        if self.direct is not None:
            return self.direct
        return next((path for path in self.retired if not path.relayed), None)

    @property
    def paths(self) -> list[Path]:
        return [p for p in (self.direct, self.relayed) if p is not None] + self.others

    @property
    def others(self) -> list[Path]:
        """Paths that only receive, and end once they are idle."""
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
        """A path was confirmed. Of two direct paths, or two relayed ones, one only receives from
        now on."""
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

    def fell_silent(self, path: Path, now_s: float) -> None:
        """The peer is silent on a path. If nothing but a handshake has come by it, it may be a dead
        end: a relay that lies, or a line that takes no packets of full size. That would win the
        race for a path again and again. Where small messages pass beside what is lost, something
        comes by each path at first: then two in a row show it."""
        if not path.dialled:
            return
        way, began_s = way_of(path.strategy), path.session.started_s
        before, self._cut_off = self._cut_off, (way, now_s)
        follows = before is not None and before[0] == way and began_s - before[1] < CUT_OFF_S
        if path.heard_s <= began_s:
            self._add_dead_end(_DeadEnd(way, now_s))
        elif follows and path.heard_s - began_s < CUT_OFF_S:
            self._add_dead_end(_DeadEnd(way, now_s, in_vain=True))

    def asked_in_vain(self, path: Path, now_s: float) -> None:
        """The peer is there, but has said nothing of a query however often it was sent: a relay
        lets signs of life through, and drops what is larger, say."""
        self._add_dead_end(_DeadEnd(way_of(path.strategy), now_s, in_vain=True))

    def was_asked_in_vain(self, path: Path, now_s: float) -> bool:
        """Whether it was, lately, by the way that ``path`` takes."""
        way = way_of(path.strategy)
        return any(end.in_vain and end.way == way for end in self._recent_dead_ends(now_s))

    def _recent_dead_ends(self, now_s: float) -> list[_DeadEnd]:
        return [end for end in self._dead_ends if now_s < end.since_s + DEAD_END_KEPT_S]

    def _add_dead_end(self, end: _DeadEnd) -> None:
        others = tuple(one for one in self._dead_ends if one.way != end.way)
        self._dead_ends = (*others, end)[-DEAD_ENDS_MAX:]

    def network_changed(self) -> None:
        """This machine is on another network, or back on one: what led nowhere may lead there."""
        self._dead_ends = ()

    def dead_ends(self, now_s: float) -> tuple[Way, ...]:
        """The ways that have lately led nowhere, the last one last."""
        return tuple(end.way for end in self._recent_dead_ends(now_s))

    def next_forgiven_s(self, now_s: float) -> float:
        """When the next of them may be tried like others again; infinite if there are none."""
        ends_s = (end.since_s + DEAD_END_KEPT_S for end in self._recent_dead_ends(now_s))
        return min(ends_s, default=float("inf"))

    def path_ended(self, life_s: float, now_s: float, *, had_work: bool) -> None:
        """The last path has ended. If the work on it ends one path after the other (a bug at the
        peer, or somebody on the way who does not like its bytes), making ever new ones at once
        would keep both ends busy until the queries have ended."""
        if life_s >= SHORT_LIFE_S:
            self.short_lives = 0
        elif had_work:
            self.short_lives += 1
        too_many = self.short_lives - SHORT_LIVES_MAX
        if had_work and too_many > 0:
            self.rests_until_s = now_s + min(1 << min(too_many - 1, 10), REST_MAX_S)

    def retire(self, path: Path) -> None:
        """The peer asks to be left alone on a path, which only receives from now on."""
        if path in self.paths and path not in self.retired:
            self.remove_path(path)
            self.retired.append(path)

    def remove_path(self, path: Path) -> None:
        """A path is gone. If there is a superseded one of its kind, that takes its place."""
        if self._dead_ends and path.heard_s > path.session.started_s:
            # The peer was merely busy for a while.
            way = way_of(path.strategy)
            self._dead_ends = tuple(end for end in self._dead_ends if end.way != way or end.in_vain)
        if path in self.superseded:
            del self.superseded[path]
            return
        if path in self.retired:
            self.retired.remove(path)
            if not self.retired:
                # The peer has closed by now, and may already be back.
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
        """Remove and return all that waits."""
        waiting = list(self.waiting)
        for outgoing in waiting:
            outgoing.queued = False
        self.waiting.clear()
        self.waiting_bytes = 0
        return waiting

    def drop_waiting(self, outgoing: Outgoing) -> None:
        """A message is not wanted any more: drop it if it waits here."""
        if outgoing in self.waiting:
            del self.waiting[outgoing]
            outgoing.queued = False
            self.waiting_bytes -= len(outgoing.message)

    @property
    def in_use(self) -> bool:
        """Whether forgetting this peer would lose more than a record."""
        return bool(self.paths or self.waiting or self.search or self.direct_search or self.renewal)

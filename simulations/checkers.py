"""Checkers: invariants that are checked continuously while a scenario runs.

A scenario checks that good things happen; the checkers, that bad things never do. Where possible
they look from outside, at what peers send each other and what handlers are called with; they look
into a node only for unconfirmed routes and for what it must have forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from egtp import (
    EgtpError,
    FastFail,
    HandlerFailed,
    HardTimeout,
    Incoming,
    Node,
    NodeClosed,
    NodeId,
    OutcomeUnknown,
)
from egtp.lookup import LookupService, Published
from egtp.paths.path import Path
from egtp.values.comm_record import SignedCommRecord
from simulations.virtual import HostDown

__all__ = ["ENDED", "MARK_BYTES", "REPLY", "TYPED", "Checkers", "Violation", "outcome_of"]

MARK_BYTES: Final = 12
"""Length of the prefix that makes each body unique in its cluster, to be recognised anywhere."""
VIOLATIONS_MAX: Final = 100

REPLY: Final = "reply"
TYPED: Final[dict[type[BaseException], str]] = {
    FastFail: "fast fail",
    HardTimeout: "hard timeout",
    HandlerFailed: "handler failed",
    OutcomeUnknown: "outcome unknown",
}
"""The errors that a query may end with, while its asker runs on."""
ENDED: Final[dict[type[BaseException], str]] = {
    NodeClosed: "node closed",
    HostDown: "host down",
}
"""The errors that it may end with when its asker stops."""
_OUTCOMES: Final = {**TYPED, **ENDED, asyncio.CancelledError: "cancelled"}


def outcome_of(error: BaseException) -> str:
    """The outcome as text; for an error that no query should end with, its type."""
    return _OUTCOMES.get(type(error), type(error).__name__)


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant."""

    at_s: float
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: {self.rule}: {self.detail}"


class Witness(Protocol):
    """Observes how queries and lookups end. Times are those of the cluster's world."""

    def way(self, node: str, peer: str) -> str:
        """The way currently in use from ``node`` to ``peer``."""

    def query(
        self, at_s: float, took_s: float, node: str, peer: str, way: str, outcome: str
    ) -> None: ...

    def left(self, node: str) -> None: ...

    def lookup(
        self, at_s: float, took_s: float, node: str, peer_id: NodeId, found: bool
    ) -> None: ...


class Checkers:
    """The checkers of one cluster. Unless :attr:`violations` is empty, the engine is broken."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self.violations: Final[list[Violation]] = []
        self.witness: Witness | None = None
        self.asked = 0
        self.outcomes: Final[dict[str, int]] = {}
        self._elapsed = elapsed
        self._failed_fast: dict[bytes, str] = {}
        self._handled: dict[bytes, int] = {}
        self._resolved: dict[tuple[str, NodeId], int] = {}

    def violated(self, rule: str, detail: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(self._elapsed(), rule, detail))

    # Queries

    def mark(self, body: bytes) -> bytes:
        """The body with a unique prefix."""
        self.asked += 1
        return b"~%010d~" % self.asked + body

    @contextlib.contextmanager
    def asking(self, name: str, node: Node, other: str, body: bytes) -> Iterator[None]:
        """A query is open within this context; its exception passes through."""
        outcome, began_s = REPLY, self._elapsed()
        way = "none" if self.witness is None else self.witness.way(name, other)
        try:
            yield
        except BaseException as error:
            outcome = outcome_of(error)
            if isinstance(error, FastFail):
                self._failed_fast[body] = name
                if body in self._handled:
                    self.violated("a fast fail means that nothing left", f"{name} was answered")
            elif isinstance(error, HardTimeout):
                self._nothing_is_stored(name, node, body)
            raise
        finally:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
            self._look_inside(name, node)
            if self.witness is not None:
                took_s = self._elapsed() - began_s
                now = self.witness.way(name, other)
                self.witness.query(
                    began_s, took_s, name, other, way if now == "none" else now, outcome
                )

    def left(self, name: str) -> None:
        """A member has ended properly, saying goodbye."""
        if self.witness is not None:
            self.witness.left(name)

    def answered(self, name: str, other: str, body: bytes, reply: bytes) -> None:
        """A reply came for the query with that body."""
        if reply != body:
            self.violated("a reply reaches the exchange that it is for", f"{name} asked {other}")

    def handled(self, name: str, query: Incoming) -> None:
        """A handler was called."""
        times = self._handled[query.body] = self._handled.get(query.body, 0) + 1
        if times > 1:
            self.violated("no handler runs twice for one query", f"{name}: {times} times")
        if query.body in self._failed_fast:
            self.violated("a fast fail means that nothing left", f"{name} was asked all the same")

    def _look_inside(self, name: str, node: Node) -> None:
        unproven = [path for path in _paths(node) if not path.confirmed]
        if unproven:
            self.violated("an unconfirmed session teaches no route", f"{name}: {unproven[0]}")

    def _nothing_is_stored(self, name: str, node: Node, body: bytes) -> None:
        held = [message for message in _messages(node) if body in message]
        if held:
            text = f"{name} holds {len(held)} messages"
            self.violated("after its hard timeout nothing of a query is stored", text)

    # Records

    def watched(
        self, name: str, lookup: LookupService, unix_time: Callable[[], float]
    ) -> LookupService:
        """The same lookup service, with every record checked."""
        return _WatchedLookup(self, name, lookup, unix_time)

    def started_again(self, name: str) -> None:
        """A member restarts, and has forgotten all records: members keep none on disk."""
        for key in [key for key in self._resolved if key[0] == name]:
            del self._resolved[key]

    @contextlib.contextmanager
    def looking_up(self, name: str, peer_id: NodeId) -> Iterator[None]:
        """A lookup is under way within this context."""
        began_s, found = self._elapsed(), False
        try:
            yield
            found = True
        finally:
            if self.witness is not None:
                took_s = self._elapsed() - began_s
                self.witness.lookup(began_s, took_s, name, peer_id, found)

    def resolved(
        self, name: str, peer_id: NodeId, record: SignedCommRecord, newer_than: int, unix_s: float
    ) -> None:
        """A lookup returned a record."""
        try:
            SignedCommRecord.decode(record.encode())
        except EgtpError as error:
            self.violated("a resolved record verifies", f"{name}: {error}")
        if record.peer_id != peer_id:
            self.violated("a resolved record is of the peer asked for", f"{name}: {peer_id}")
        if record.expired(unix_s):
            self.violated("a resolved record has not expired", f"{name}: {record.sequence}")
        floor = max(newer_than, self._resolved.get((name, peer_id), 0))
        if record.sequence < floor or record.sequence <= newer_than:
            text = f"{name}: {record.sequence} after {floor}"
            self.violated("a resolved record never goes backward", text)
        self._resolved[name, peer_id] = max(floor, record.sequence)


def _paths(node: Node) -> Iterator[Path]:
    engine = node._engine
    for peer in engine.book.all() if engine is not None else ():
        yield from peer.paths


def _messages(node: Node) -> Iterator[bytes]:
    """Every message of its own that a node still holds."""
    engine = node._engine
    if engine is None:
        return
    for exchange in engine.exchanges.all():
        yield bytes(exchange.message)
    for peer in engine.book.all():
        for outgoing in peer.waiting:
            yield bytes(outgoing.message)
    for path in _paths(node):
        outbox = path.outbox
        for outgoing in (*outbox._small, *outbox._chunked):
            if outgoing.queued:
                yield bytes(outgoing.message)
        for begun in outbox._begun:
            yield bytes(begun.outgoing.message)


class _WatchedLookup:
    def __init__(
        self, checkers: Checkers, name: str, lookup: LookupService, unix_time: Callable[[], float]
    ) -> None:
        self._checkers = checkers
        self._name = name
        self._lookup = lookup
        self._unix_time = unix_time

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        with self._checkers.looking_up(self._name, peer_id):
            record = await self._lookup.resolve(peer_id, newer_than=newer_than)
        self._checkers.resolved(self._name, peer_id, record, newer_than, self._unix_time())
        return record

    async def publish(self, record: SignedCommRecord) -> Published:
        return await self._lookup.publish(record)

"""What an observer of a node is told: turning points, never traffic.

An observer is for people and tests that want to see what a node does. It is called on the event
loop, in the middle of the node's work, so it must be quick and must not call the node. What it
raises is passed to the exception handler of the event loop, the same error once a minute at most. A
node without an observer spends nothing on this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from egtp.bug_reports import BugReports
from egtp.lookup import Published
from egtp.values.attempts import Attempt
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import Address, CommStrat
from egtp.values.identity import NodeId

__all__ = [
    "Dialling",
    "Event",
    "IdentityRunsElsewhere",
    "LeaseNotGranted",
    "Observer",
    "PathLost",
    "PathOpened",
    "RecordLearned",
    "RecordNotPublished",
    "RecordPublished",
    "SearchFailed",
]


@dataclass(frozen=True, slots=True)
class Dialling:
    """A TCP connection to ``address`` is being opened."""

    address: Address


@dataclass(frozen=True, slots=True)
class PathOpened:
    """A peer has proven its identity on a path."""

    peer_id: NodeId
    strategy: CommStrat


@dataclass(frozen=True, slots=True)
class PathLost:
    """A path can no longer be used, for ``reason``."""

    peer_id: NodeId
    strategy: CommStrat
    reason: str


@dataclass(frozen=True, slots=True)
class RecordLearned:
    """A newer record of a peer has become known, from ``source`` (as in :class:`Explanation`)."""

    record: SignedCommRecord
    source: str


@dataclass(frozen=True, slots=True)
class RecordPublished:
    """A lookup service has stored this node's own record."""

    record: SignedCommRecord
    published: Published


@dataclass(frozen=True, slots=True)
class RecordNotPublished:
    """No lookup service has stored this node's own record, so others may not find the node. It is
    tried again after ``again_s`` seconds, and when the record changes.

    Also told, once until it is over, when a new record is due but its sequence could not be stored,
    as on a full disk. ``record`` is then the one before, which stays in use.
    """

    record: SignedCommRecord
    reason: str
    again_s: float


@dataclass(frozen=True, slots=True)
class LeaseNotGranted:
    """A relay that this node was introduced to grants it no lease, so others do not reach it there.
    The relay is asked again after ``again_s`` seconds, and later and later. Told once for each
    relay, and again only after it granted a lease that lasted or this machine changed networks."""

    relay_id: NodeId
    reason: str
    again_s: float

    def __str__(self) -> str:
        return f"relay {self.relay_id} grants no lease: {self.reason}; still trying"


@dataclass(frozen=True, slots=True)
class IdentityRunsElsewhere:
    """Another process signed ``record``, which is newer than this node's own: a copy of the
    identity is in use, or was until lately. Peers reach one or the other in turn, and neither for
    sure. Told at most once an hour."""

    record: SignedCommRecord

    def __str__(self) -> str:
        return (
            f"a copy of the identity of {self.record.peer_id} is, or was, in use elsewhere: it "
            f"signed record {self.record.sequence}; each machine needs an identity of its own"
        )


@dataclass(frozen=True, slots=True)
class SearchFailed:
    """No path to a peer was found; ``attempts`` says what was tried."""

    peer_id: NodeId
    attempts: tuple[Attempt, ...]


Event: TypeAlias = (
    Dialling
    | PathOpened
    | PathLost
    | RecordLearned
    | RecordPublished
    | RecordNotPublished
    | IdentityRunsElsewhere
    | LeaseNotGranted
    | SearchFailed
)
"""What an observer may be told."""
Observer: TypeAlias = Callable[[Event], None]
"""A function that is called with each event."""


def guarded(observer: Observer, loop: asyncio.AbstractEventLoop) -> Observer:
    """The same observer, but what it raises goes to the exception handler of ``loop``."""
    bugs = BugReports()

    def tell(event: Event) -> None:
        try:
            observer(event)
        except Exception as error:
            bugs.report("an observer raised an exception", error, loop)

    return tell

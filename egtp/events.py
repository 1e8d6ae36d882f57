"""What an observer of a node is told: the turning points, never the traffic.

An observer is for people and tests who want to see what a node does. It is called on the event
loop, in the middle of the node's work: it must be quick, and must not call the node. What it raises
is told to the exception handler of the event loop. A node without one spends nothing on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from egtp.lookup import Published
from egtp.values.attempts import Attempt
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import Address, CommStrat
from egtp.values.identity import NodeId

__all__ = [
    "Dialling",
    "Event",
    "IdentityRunsElsewhere",
    "Observer",
    "PathLost",
    "PathOpened",
    "RecordLearned",
    "RecordNotPublished",
    "RecordPublished",
    "SearchFailed",
    "guarded",
]


@dataclass(frozen=True, slots=True)
class Dialling:
    """A TCP connection to ``address`` is being opened."""

    address: Address


@dataclass(frozen=True, slots=True)
class PathOpened:
    """A peer has proven itself on a path."""

    peer_id: NodeId
    strategy: CommStrat


@dataclass(frozen=True, slots=True)
class PathLost:
    """A path is of no use any more."""

    peer_id: NodeId
    strategy: CommStrat
    reason: str


@dataclass(frozen=True, slots=True)
class RecordLearned:
    """A newer record of a peer is known now."""

    record: SignedCommRecord
    source: str


@dataclass(frozen=True, slots=True)
class RecordPublished:
    """A lookup service has stored the own record."""

    record: SignedCommRecord
    published: Published


@dataclass(frozen=True, slots=True)
class RecordNotPublished:
    """No lookup service has stored the own record, so others may not find this node. It is tried
    again after ``again_s`` seconds, and when the record changes.

    Or it should be another one, but its sequence could not be stored, as on a full disk: told once
    until that is over. ``record`` is the one before, which is used on meanwhile."""

    record: SignedCommRecord
    reason: str
    again_s: float


@dataclass(frozen=True, slots=True)
class IdentityRunsElsewhere:
    """Another process signed ``record``, which is newer than what this node had signed: a copy of
    the identity is in use, or was until lately. Both are reached by turns, and neither for sure.
    Told once an hour at most."""

    record: SignedCommRecord

    def __str__(self) -> str:
        return (
            f"a copy of the identity of {self.record.peer_id} is, or was, in use elsewhere: it "
            f"signed record {self.record.sequence}; each machine needs an identity of its own"
        )


@dataclass(frozen=True, slots=True)
class SearchFailed:
    """No path to a peer was found."""

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
    | SearchFailed
)
Observer: TypeAlias = Callable[[Event], None]


def guarded(observer: Observer, loop: asyncio.AbstractEventLoop) -> Observer:
    """The same observer, whose mistakes are no part of what it observes."""

    def tell(event: Event) -> None:
        try:
            observer(event)
        except Exception as error:
            loop.call_exception_handler({"message": "an observer raised", "exception": error})

    return tell

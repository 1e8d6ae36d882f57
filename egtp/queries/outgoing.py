"""Outgoing messages, as they wait in queues, whoever made them (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from egtp.values.identity import NodeId

if TYPE_CHECKING:
    from egtp.queries.large_message import LargeMessage

__all__ = ["Outgoing", "PassedOn", "Way"]


class Way(Protocol):
    """What a message is queued on: as much of a path as messages need."""

    @property
    def relayed(self) -> bool: ...

    @property
    def bulk_round_trip_s(self) -> float:
        """How long the peer took lately to report that it had read part of a large message; 0 if
        there was none."""

    def holds(self, outgoing: Outgoing) -> bool:
        """Whether any of it still waits there."""

    def take_back(self, outgoing: Outgoing) -> None:
        """It is not wanted any more: free the part that has not left."""


class Outgoing:
    """A message, whose bytes stay the same however often they are sealed.

    Invariant: ``given`` never goes back to False (R21).
    """

    __slots__ = ("born_s", "given", "message", "path", "queued")

    def __init__(self, message: bytes | LargeMessage, born_s: float) -> None:
        self.message = message
        self.born_s = born_s
        """When it was made, on this node's elapsed clock; its age travels beside it."""
        self.given = False
        """Whether any copy was ever given to a socket."""
        self.queued = False
        """Whether it is in a queue and nothing of it has left from there."""
        self.path: Way | None = None
        """Where it was queued last; None while it waits for a path."""

    def leave(self) -> None:
        """A copy is being given to a socket."""
        self.given = True


class PassedOn(Outgoing):
    """A packet between two others, on its way to or from a relay. It is never cut into chunks,
    however large, so that it neither overtakes another one of theirs nor is overtaken."""

    __slots__ = ("sender",)

    def __init__(self, message: bytes, born_s: float, sender: NodeId | None = None) -> None:
        super().__init__(message, born_s)
        self.sender = sender
        """At a relay, the peer that sent it; None for what a relay is asked, or says itself."""

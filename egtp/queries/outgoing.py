"""A message that is to leave this machine: what waits in queues, whoever made it (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from egtp.values.identity import NodeId

if TYPE_CHECKING:
    from egtp.queries.large_message import LargeMessage

__all__ = ["Outgoing", "PassedOn", "Way"]


class Way(Protocol):
    """What a message is queued on: a path, as far as messages know it."""

    @property
    def relayed(self) -> bool: ...

    @property
    def bulk_round_trip_s(self) -> float:
        """How long the peer took lately to say that it had read of a large message; 0 if there was
        none."""

    def holds(self, outgoing: Outgoing) -> bool:
        """Whether any of it waits there still."""

    def take_back(self, outgoing: Outgoing) -> None:
        """It is not wanted any more: free what of it has not left."""


class Outgoing:
    """Bytes that are sealed as often as it takes, and always the same.

    Invariant: ``given`` never goes back to False (R21).
    """

    __slots__ = ("born_s", "given", "message", "path", "queued")

    def __init__(self, message: bytes | LargeMessage, born_s: float) -> None:
        self.message = message
        self.born_s = born_s
        """When it was made, on this node's elapsed clock: its age travels beside it."""
        self.given = False
        """Whether any copy was ever given to a socket."""
        self.queued = False
        """Whether it is in a queue, and nothing of it has left from there."""
        self.path: Way | None = None
        """Where it was queued last; None while it waits for a path."""

    def leave(self) -> None:
        """A copy is given to a socket, now."""
        self.given = True


class PassedOn(Outgoing):
    """A packet between two others, on its way to or from a relay. It is never cut, however large it
    is, so that it overtakes none of theirs and is overtaken by none."""

    __slots__ = ("sender",)

    def __init__(self, message: bytes, born_s: float, sender: NodeId | None = None) -> None:
        super().__init__(message, born_s)
        self.sender = sender
        """Whose it is, at a relay; None for what a relay is asked, or says itself."""

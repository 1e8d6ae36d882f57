"""Attempts: what was tried to reach a peer, and why it failed (pure).

``docs/outcomes.md`` lists every reason with its cause and its test.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from egtp.values.comm_strat import CommStrat

__all__ = ["Attempt", "AttemptReason", "Cause"]


class AttemptReason(enum.StrEnum):
    """Why an attempt to reach a peer failed. Each value is a phrase for people, so a reason can
    stand wherever text is expected."""

    # Lookups; the first six have the phrases of LookupFailure
    NO_NODES = "no nodes to ask"
    NO_NETWORK = "this machine can send nothing to any node"
    NO_RESPONSES = "no node answered"
    NOT_FOUND = "no record found"
    INVALID = "only invalid records found"
    SUPERSEDED = "no record newer than the one known"
    LOOKUP_SILENT = "no result in time"
    LOOKUP_RAISED = "the lookup service raised"
    LOOKUP_CONFUSED = "a record of another peer"

    # Strategies that were passed over
    NEVER_DIALLED = "an address that cannot be dialled"
    PRIVATE_ADDRESS = "a private address of another network (private_addresses would allow it)"
    FAILED_BEFORE = "failed a moment ago"
    RELAY_IS_AN_END = "a relay cannot be one of the two ends"
    BAD_KEY = "a channel key that cannot be one"

    # Connections
    TOO_MANY_CONNECTIONS = "too many connections (connections_max)"
    BUFFER_FULL = "the connection's buffer is full"
    REFUSED = "connection refused"
    UNREACHABLE = "the address cannot be reached"
    SILENT = "no answer in time"
    NO_HANDSHAKE = "connected, but no handshake in time"
    HUNG_UP = "closed by the other side"
    LOST = "the connection was lost"
    NO_FRAMES = "a frame of a length that is not allowed"
    NOT_EGTP = "what came was not EGTP"
    NOT_PROVEN = "the other side did not prove to be the peer"

    # Relays
    RELAY_UNREACHABLE = "the relay cannot be reached"
    RELAY_LOST = "the connection to the relay is gone"
    RELAY_KNOWS_NOT = "the relay says that it does not know the peer"
    RELAY_FULL = "the relay says that it has no room for it"
    RELAY_SILENT = "no answer through the relay in time"


class Cause(NamedTuple):
    """A reason, and more detail in words."""

    reason: AttemptReason
    detail: str = ""

    @classmethod
    def of(cls, words: str) -> Cause:
        """Why a connection ended: ``words`` is a reason, or other text, such as the operating
        system's."""
        return cls(words) if isinstance(words, AttemptReason) else cls(AttemptReason.LOST, words)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason.value


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to reach a peer, and how it ended. ``str()`` shows it in one line."""

    strategy: CommStrat | None
    """The strategy tried; None for a lookup."""
    reason: AttemptReason
    """Why it failed."""
    duration_s: float
    """How long it took, in seconds."""
    detail: str = ""
    """More detail in words, such as an error of the operating system; empty if there is none."""

    def __str__(self) -> str:
        what = "lookup" if self.strategy is None else str(self.strategy)
        cause = Cause(self.reason, self.detail)
        return f"{what}: {cause} ({self.duration_s * 1000:.0f} ms)"

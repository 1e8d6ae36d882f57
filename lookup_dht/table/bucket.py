"""A bucket of the routing table: contacts at about the same distance from its node. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lookup_dht.wire.contact import Contact

__all__ = ["ID_BITS", "Bucket", "Entry"]

ID_BITS: Final = 160


@dataclass(slots=True, eq=False)
class Entry:
    """A contact that has answered, when it last did, and what it left unanswered since."""

    contact: Contact
    bucket: Bucket
    met_at: float
    answered_at: float
    strikes: int = 0
    sees: bytes = b""
    """The packed address at which it last saw this node; empty if it has not said."""


@dataclass(slots=True, eq=False)
class Bucket:
    """The contacts that share exactly ``index`` leading bits with this node."""

    index: int
    refreshed_at: float
    bit: int = field(init=False)
    """The first bit in which its ids differ from this node's."""
    entries: dict[int, Entry] = field(default_factory=dict)
    """By id as a number, in the order of their last answers, the longest silent first."""
    replacements: dict[int, Contact] = field(default_factory=dict)
    """Contacts that have answered too and wait for a place, the latest last."""
    live: list[int] | None = None
    """Ids of the contacts without a strike, cached since others ask for them far more often than
    they change. None after a change."""

    def __post_init__(self) -> None:
        self.bit = 1 << (ID_BITS - 1 - self.index)

    def live_ones(self) -> list[int]:
        if self.live is None:
            self.live = [number for number, entry in self.entries.items() if not entry.strikes]
        return self.live

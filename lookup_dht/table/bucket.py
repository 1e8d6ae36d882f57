"""The contacts of a routing table that are about as far from its node as each other. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lookup_dht.wire.contact import Contact

__all__ = ["ID_BITS", "Bucket", "Entry"]

ID_BITS: Final = 160


@dataclass(slots=True, eq=False)
class Entry:
    """A contact that has answered, and since when it has not."""

    contact: Contact
    bucket: Bucket
    met_at: float
    answered_at: float
    strikes: int = 0


@dataclass(slots=True, eq=False)
class Bucket:
    """The contacts that share exactly ``index`` leading bits with this node."""

    index: int
    refreshed_at: float
    bit: int = field(init=False)
    """The one of the ids that is the first to differ."""
    entries: dict[int, Entry] = field(default_factory=dict)
    """By the number that the id is, in order of their last answer, the longest silent one first."""
    replacements: dict[int, Contact] = field(default_factory=dict)
    """Contacts that have answered too, and wait for a place; the latest last."""
    live: list[int] | None = None
    """The numbers of the contacts without a strike. None when something has changed: others ask
    for these far more often than they change."""

    def __post_init__(self) -> None:
        self.bit = 1 << (ID_BITS - 1 - self.index)

    def live_ones(self) -> list[int]:
        if self.live is None:
            self.live = [number for number, entry in self.entries.items() if not entry.strikes]
        return self.live

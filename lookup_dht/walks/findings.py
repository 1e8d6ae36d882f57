"""What a search for the record of a peer has come upon so far. Pure: the newest valid one wins.

Never a majority: signatures stop forging, not replay, and twenty copies of an old record say no
more than one. How many nodes hold the newest only says how soon to stop looking.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egtp.values.comm_record import SignedCommRecord, supersedes
from lookup_dht.wire.contact import Contact

__all__ = ["Findings", "Holder"]


class Holder(NamedTuple):
    """A node that was asked about the peer, and what it had."""

    contact: Contact
    sequence: int
    """0 if it had nothing."""
    token: bytes
    """To store something better there."""


class Findings:
    """Accumulates replies; :attr:`record` only ever gets newer."""

    def __init__(self, own: SignedCommRecord | None, floor: int) -> None:
        """``own`` is the copy in this node; below ``floor`` nothing is believed."""
        self.floor: Final = floor
        self.record: SignedCommRecord | None = None
        self.holders: dict[bytes, Holder] = {}
        """By compact form of the node."""
        self.invalid = 0
        """Nodes that gave something that is no valid record of that peer."""
        self.below_floor = 0
        self._copies = 0
        if own is not None:
            self.add(own)

    def add(self, record: SignedCommRecord) -> bool:
        """A valid record of the peer, from a node not heard before. True if it is the newest."""
        if record is self.record:
            # As nearly always: whoever verified it gives the same one for the same bytes.
            self._copies += 1
            return False
        if record.sequence < self.floor:
            self.below_floor += 1
            return False
        if self.record is None or supersedes(record, self.record):
            self.record = record
            self._copies = 1
            return True
        if record.item == self.record.item:
            self._copies += 1
        return False

    def agreed(self, agreement: int, newer_than: int) -> bool:
        """Whether enough nodes hold the newest record, and it is new enough."""
        return (
            self._copies >= agreement
            and self.record is not None
            and self.record.sequence > newer_than
        )

    def token_of(self, node: Contact) -> bytes:
        """What is needed to store at that node; empty if it was not heard."""
        holder = self.holders.get(node.compact)
        return b"" if holder is None else holder.token

    def lacking(self) -> list[Holder]:
        """The nodes that had an older record than the newest, or none."""
        if self.record is None:
            return []
        sequence = self.record.sequence
        return [holder for holder in self.holders.values() if holder.sequence < sequence]

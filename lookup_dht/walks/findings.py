"""What a search for the record of a peer has found so far: the newest valid record wins. Pure.

Never the majority: signatures prevent forgery, not replay, and twenty copies of an old record mean
no more than one. How many nodes hold the newest only decides how soon to stop looking.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egtp.values.comm_record import SignedCommRecord, supersedes
from lookup_dht.wire.contact import Contact

__all__ = ["Findings", "Holder"]


class Holder(NamedTuple):
    """A node that answered a query for the record, and what it had."""

    contact: Contact
    sequence: int
    """0 if it had nothing."""
    token: bytes
    """Needed to store a newer record there."""


class Findings:
    """Accumulates replies; :attr:`record` only ever gets newer."""

    def __init__(self, own: SignedCommRecord | None, floor: int) -> None:
        """``own`` is this node's own copy; no record below ``floor`` is accepted."""
        self.floor: Final = floor
        self.record: SignedCommRecord | None = None
        self.holders: dict[bytes, Holder] = {}
        """By compact form of the node."""
        self.invalid = 0
        """How many nodes sent something that is not a valid record of the peer."""
        self.expired = 0
        """How many sent a record that has expired by this machine's clock, so not by theirs."""
        self.below_floor = 0
        self._copies = 0
        if own is not None:
            self.add(own)

    def add(self, record: SignedCommRecord) -> bool:
        """Add a valid record of the peer, once per node. True if it is the newest so far."""
        if record is self.record:
            # The usual case: the verifier returns the same object for the same bytes.
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
        """The token for a store on that node; empty if it has not answered."""
        holder = self.holders.get(node.compact)
        return b"" if holder is None else holder.token

    def lacking(self) -> list[Holder]:
        """The nodes that had an older record than the newest, or none at all."""
        if self.record is None:
            return []
        sequence = self.record.sequence
        return [holder for holder in self.holders.values() if holder.sequence < sequence]

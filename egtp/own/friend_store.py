"""The records that a node keeps for its friends.

Pure. A record is taken only from its owner, who has proven its identity, and given to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from egtp.values.comm_record import SignedCommRecord, supersedes
from egtp.values.identity import NodeId

__all__ = ["EXPIRY_S_MAX", "FriendStore"]

EXPIRY_S_MAX: Final = 24 * 3600.0 + 600.0
"""No record is kept longer than by DHT nodes, with an allowance for clocks."""
SEQUENCE_AHEAD_MAX: Final = 24 * 3600
"""Nor one whose sequence is further ahead: it would lock out its own owner."""


class FriendStore:
    """Invariants: at most one record per peer, of at most ``strangers_max`` peers besides those
    listed; a record that is still good is never replaced by an older one."""

    def __init__(self, strangers_max: int) -> None:
        self._listed: frozenset[NodeId] = frozenset()
        self._strangers_max = strangers_max
        self._records: dict[NodeId, SignedCommRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def keep_for(self, listed: Iterable[NodeId]) -> None:
        """From now on these peers always have a place, and all others share ``strangers_max``. What
        is kept for others that were listed stays if there is room; the oldest goes first."""
        before, self._listed = self._listed, frozenset(listed)
        strangers_now = before - self._listed
        # In an order that depends on no hash.
        for peer_id in [one for one in self._records if one in strangers_now]:
            record = self._records.pop(peer_id)
            if self._has_room():
                self._records[peer_id] = record

    def put(self, record: SignedCommRecord, unix_s: float) -> str | None:
        """Keep a verified record that its owner sent. Returns the reason if it is not kept."""
        self.expire(unix_s)
        if record.expired(unix_s):
            return "expired"
        if record.expiry_unix_s > unix_s + EXPIRY_S_MAX:
            return "expires too late"
        if record.sequence > unix_s + SEQUENCE_AHEAD_MAX:
            return "numbered too far ahead"
        kept = self._records.get(record.peer_id)
        if kept is None and record.peer_id not in self._listed and not self._has_room():
            return "no room for one more stranger"
        if kept != record and not supersedes(record, kept):
            return "a newer one is kept"
        self._records[record.peer_id] = record
        return None

    def get(self, peer_id: NodeId, unix_s: float) -> SignedCommRecord | None:
        """The record of a peer, if there is one that is still good."""
        record = self._records.get(peer_id)
        return None if record is None or record.expired(unix_s) else record

    def expire(self, unix_s: float) -> None:
        """Forget expired records."""
        self._records = {i: one for i, one in self._records.items() if not one.expired(unix_s)}

    def _has_room(self) -> bool:
        return len(self._records.keys() - self._listed) < self._strangers_max

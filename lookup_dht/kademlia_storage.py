"""The records that a node keeps for others: kademlia's storage contract, for verified ones only."""

from __future__ import annotations

import collections
import heapq
from collections.abc import Iterator

from kademlia.storage import IStorage

from egtp.comm_record import SignedCommRecord, supersedes
from egtp.errors import InvalidRecord
from lookup_dht.datagram import StoreStatus
from lookup_dht.record_verifier import RecordVerifier, SequenceFloor
from lookup_dht.settings import NodeSettings

__all__ = ["RecordStore"]


class RecordStore(IStorage):  # type: ignore[misc]
    """At most one record per peer: valid, not expired, and the newest ever seen.

    The key is the peerId itself. A record's end is the one it says; storing it again does not
    prolong it. When there are too many, those farthest from this node's own id go first: for
    these this node is the least likely to be asked.
    """

    def __init__(
        self, center: bytes, settings: NodeSettings, counters: collections.Counter[str]
    ) -> None:
        self.center = center
        """The node's own id, which distances are measured from."""
        self._settings = settings
        self._limits = settings.limits
        self._counters = counters
        self._verifier = RecordVerifier(self._limits.verified_records_max, counters)
        self._floor = SequenceFloor(self._limits.sequences_max)
        self._records: dict[bytes, tuple[SignedCommRecord, bytes]] = {}

    def __bool__(self) -> bool:
        """Server.__init__ says ``storage or ForgetfulStorage()``: an empty one must be true."""
        return True

    def __len__(self) -> int:
        return len(self._records)

    def verify(self, peer_id: bytes, data: bytes) -> SignedCommRecord:
        """Raises :class:`InvalidRecord`. For readers, who share the memory of what is good."""
        return self._verifier.verify(peer_id, data)

    def put(self, key: bytes, data: bytes) -> StoreStatus:
        """Store what a stranger sent, if it deserves it; what does not is counted."""
        held = self._records.get(key)
        if held is not None and held[1] == data and not self._expired(held[0]):
            return StoreStatus.STORED
        try:
            record = self._verifier.verify(key, data)
        except InvalidRecord:
            return StoreStatus.REFUSED
        now = self._settings.unix_time()
        refusal = None
        if record.expired(now):
            refusal = "record_expired"
        elif record.sequence > now + self._limits.sequence_ahead_max_s:
            refusal = "record_sequence_too_high"
        elif record.expiry_unix_s > now + self._limits.lifetime_max_s:
            refusal = "record_expiry_too_far"
        if refusal is not None:
            self._counters[refusal] += 1
            return StoreStatus.REFUSED
        if record.sequence < self._floor[key] or not supersedes(record, held and held[0]):
            self._counters["record_older"] += 1
            return StoreStatus.NEWER_HELD
        self._floor.note(key, record.sequence)
        self._records[key] = (record, data)
        if len(self._records) > self._limits.records_max:
            self._make_room()
        return StoreStatus.STORED if key in self._records else StoreStatus.REFUSED

    def record(self, key: bytes) -> SignedCommRecord | None:
        """The record of that peer, unless it has expired."""
        held = self._records.get(key)
        if held is None:
            return None
        if self._expired(held[0]):
            del self._records[key]
            return None
        return held[0]

    def drop_expired(self) -> None:
        for key in [key for key, (record, _) in self._records.items() if self._expired(record)]:
            del self._records[key]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        """Raises :class:`InvalidRecord` if the record is not stored."""
        status = self.put(key, value)
        if status is not StoreStatus.STORED:
            raise InvalidRecord(f"not stored: {status.name.lower()}")

    def __getitem__(self, key: bytes) -> bytes:
        if self.record(key) is None:
            raise KeyError(key)
        return self._records[key][1]

    def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        return default if self.record(key) is None else self._records[key][1]

    def iter_older_than(
        self,
        seconds_old: float,  # noqa: ARG002
    ) -> Iterator[tuple[bytes, bytes]]:
        """Empty: upstream republishes what this gives, and only an owner republishes a record."""
        return iter(())

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        self.drop_expired()
        return iter([(key, data) for key, (_, data) in self._records.items()])

    def _expired(self, record: SignedCommRecord) -> bool:
        return record.expired(self._settings.unix_time())

    def _make_room(self) -> None:
        self.drop_expired()
        # A hundredth at once, so that the search costs little per record.
        excess = len(self._records) - self._limits.records_max
        if excess > 0:
            center = int.from_bytes(self.center, "big")
            for key in heapq.nlargest(
                max(excess, self._limits.records_max // 100),
                self._records,
                key=lambda key: int.from_bytes(key, "big") ^ center,
            ):
                del self._records[key]
                self._counters["record_evicted"] += 1

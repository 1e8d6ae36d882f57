"""Turns bytes from strangers into trusted records, verifying each only once."""

from __future__ import annotations

import collections
import hashlib
from typing import NamedTuple

from egtp.errors import InvalidRecord
from egtp.values.comm_record import SignedCommRecord, expiry_of, owner_of
from egtp.values.mutable_item import MutableItem
from lookup_dht.records.record_file import RecordFile

__all__ = ["RecordVerifier", "SequenceFloor", "Storable"]


class Storable(NamedTuple):
    """What a node must know about a record that it keeps for others."""

    sequence: int
    expiry_unix_s: int


class RecordVerifier:
    """Decodes and verifies. Recent results are cached by the hash of the bytes: the twenty holders
    of a record all send the same one, and checking a signature takes a tenth of a millisecond."""

    def __init__(self, entries_max: int, counters: collections.Counter[str]) -> None:
        self._entries_max = entries_max
        self._counters = counters
        self._verified: dict[bytes, SignedCommRecord] = {}

    def verify(self, peer_id: bytes, data: bytes) -> SignedCommRecord:
        """The record, if it is valid and of that peer. Raises :class:`InvalidRecord`."""
        digest = hashlib.sha256(data).digest()
        record = self._verified.pop(digest, None)
        if record is None or record.peer_id != peer_id:
            self._check_owner(peer_id, data)
            try:
                record = SignedCommRecord.decode(data)
            except InvalidRecord:
                self._counters["record_invalid"] += 1
                raise
        self._verified[digest] = record
        if len(self._verified) > self._entries_max:
            del self._verified[next(iter(self._verified))]
        return record

    def check(self, peer_id: bytes, data: bytes) -> Storable:
        """Check that the peer signed ``data``, for a node that only stores it. The rest of the
        contents, perhaps of a later format, concerns only those who read the record. Raises
        :class:`InvalidRecord`."""
        self._check_owner(peer_id, data)
        try:
            item = MutableItem.decode(data)
            return Storable(item.sequence, expiry_of(item.value))
        except InvalidRecord:
            self._counters["record_invalid"] += 1
            raise

    def _check_owner(self, peer_id: bytes, data: bytes) -> None:
        if owner_of(data) != peer_id:
            # Checked first because it is cheap: anybody can sign records of their own.
            self._counters["record_of_another_peer"] += 1
            raise InvalidRecord("the record is not of the peer that it is stored under")


class SequenceFloor:
    """The highest sequence seen of each peer, for the most recent peers. It outlives the record, so
    that an old record cannot be replayed once the newer one has expired; with a file, it also
    outlives the process."""

    def __init__(self, entries_max: int, kind: str = "", file: RecordFile | None = None) -> None:
        """``kind`` distinguishes this floor from others in the same file."""
        self._entries_max = entries_max
        self._kind = kind
        self._file = file
        self._highest: dict[bytes, int] = {} if file is None else dict(file.sequences(kind))

    def __getitem__(self, peer_id: bytes) -> int:
        return self._highest.get(peer_id, 0)

    def __len__(self) -> int:
        return len(self._highest)

    def note(self, peer_id: bytes, sequence: int) -> None:
        before = self._highest.pop(peer_id, 0)
        self._highest[peer_id] = max(sequence, before)
        if self._file is not None and sequence > before:
            self._file.note(self._kind, peer_id, sequence)
        if len(self._highest) > self._entries_max:
            oldest = next(iter(self._highest))
            del self._highest[oldest]
            if self._file is not None:
                self._file.forget(self._kind, oldest)

"""The records that a node keeps for others: kademlia's storage contract, verified records only."""

from __future__ import annotations

import collections
import hashlib
import heapq
from collections.abc import Iterable, Iterator
from typing import Final

from kademlia.storage import IStorage

from egtp.errors import InvalidRecord
from egtp.values.comm_record import SignedCommRecord
from lookup_dht.records.record_file import RecordFile
from lookup_dht.records.record_verifier import RecordVerifier, SequenceFloor, Storable
from lookup_dht.settings import NodeSettings
from lookup_dht.wire.datagram import StoreStatus

__all__ = ["RecordStore"]

OTHER_SOURCES_MAX: Final = 3
"""Networks remembered per record besides the first: its owner's, or those of nodes that passed it
on."""


class _Held:
    __slots__ = ("care_at", "care_by", "data", "expiry_unix_s", "others", "sequence", "source")

    def __init__(self, record: Storable, data: bytes, source: bytes) -> None:
        self.sequence = record.sequence
        self.expiry_unix_s = record.expiry_unix_s
        self.data = data
        self.source = source
        """The network whose quota it counts against, at first the one it came from; empty if
        none."""
        self.others: tuple[bytes, ...] = ()
        """Other networks that it came from. Not in the file, since owners publish again."""
        self.care_at = self.care_by = 0.0
        """In elapsed seconds. This node looks after the record at ``care_at``, which moves on
        whenever others store it or ask around for it, though never beyond ``care_by``."""


class RecordStore(IStorage):  # type: ignore[misc]
    """At most one record per peer: valid, not expired, and the newest ever seen.

    The key is the peerId itself. A record expires when it says so; storing it again does not
    prolong it.

    **Eviction.** While more than half of the store is taken, the source network that is over its
    quota by the most makes room: it loses the one of its records that is farthest from this node's
    id. (In a small DHT, a node holds the records of all, and thousands of devices may be behind one
    NAT.) A full store drops expired records, then the farthest of all: this node is the least
    likely to be asked for those. A record stored from several networks counts against the first of
    them. If that network is about to lose it, it counts from then on against another that has room.
    So nobody can evict another's record by storing it too, whether first or later.
    """

    def __init__(
        self,
        center: bytes,
        settings: NodeSettings,
        counters: collections.Counter[str],
        file: RecordFile | None = None,
    ) -> None:
        self.center = center
        """The node's own id, from which distances are measured."""
        self._settings = settings
        self._limits = settings.limits
        self._counters = counters
        self._file = file
        self._verifier = RecordVerifier(self._limits.verified_records_max, counters)
        self._floor = SequenceFloor(self._limits.sequences_max, "stored", file)
        self._records: dict[bytes, _Held] = {}
        self._of_source: dict[bytes, list[bytes]] = {}
        """Keys by source. Mostly one or two each: lists take a third of the memory of sets."""
        self._over_quota: dict[bytes, None] = {}
        """The sources that have more than their quota, in an order that depends on no hash."""

    def __bool__(self) -> bool:
        """True even if empty: Server.__init__ evaluates ``storage or ForgetfulStorage()``."""
        return True

    def __len__(self) -> int:
        return len(self._records)

    def verify(self, peer_id: bytes, data: bytes) -> SignedCommRecord:
        """Verify a record for a reader; readers share the cache of verified records. Raises
        :class:`InvalidRecord`."""
        return self._verifier.verify(peer_id, data)

    def put(self, key: bytes, data: bytes, source: bytes = b"") -> StoreStatus:
        """Store a record from the network ``source`` if it is acceptable; refusals are counted.
        An empty ``source`` counts against no quota."""
        if self._settings.private_addresses:
            source = b""  # In a lab, all nodes are in one network.
        held = self._records.get(key)
        if held is not None and held.data == data and not self._expired(held):
            self._stored_again(key, held, source)
            return StoreStatus.STORED
        try:
            record = self._verifier.check(key, data)
        except InvalidRecord:
            return StoreStatus.REFUSED
        refusal = self._refusal(record)
        if refusal is not None:
            self._counters[refusal] += 1
            return StoreStatus.REFUSED
        if record.sequence < self._floor[key] or not _supersedes(record.sequence, data, held):
            self._counters["record_older"] += 1
            return StoreStatus.NEWER_HELD
        kept = _Held(record, data, source)
        self._take_care(kept)
        self._keep(key, kept)
        if key not in self._records:
            return StoreStatus.REFUSED
        self._floor.note(key, record.sequence)
        return StoreStatus.STORED

    def restore(self) -> Iterator[None]:
        """Take back the records of the file, one per step, since each costs a signature check."""
        for key, source, data in [] if self._file is None else list(self._file.records()):
            self.put(key, data, source)
            # If the peer has a record, the row is that one's: a newer may have come meanwhile.
            if key not in self._records:
                self._drop([key])
            yield

    def held(self, key: bytes) -> tuple[int, bytes] | None:
        """Sequence and bytes of the record of that peer, unless it has expired."""
        held = self._records.get(key)
        return None if held is None or self._expired(held) else (held.sequence, held.data)

    def record(self, key: bytes) -> SignedCommRecord | None:
        """The record of that peer, unless it has expired or is of a format not known here."""
        held = self.held(key)
        try:
            return None if held is None else self._verifier.verify(key, held[1])
        except InvalidRecord:
            return None

    def drop_expired(self) -> None:
        self._drop([key for key, held in self._records.items() if self._expired(held)])

    def asked_around(self, key: bytes) -> None:
        """Another node says that it is walking the neighbourhood of ``key``, and will give the
        record to the nodes that lack it."""
        held = self._records.get(key)
        if held is not None:
            self._leave_care(held)

    def looked_after(self, key: bytes) -> None:
        """This node itself does that now."""
        held = self._records.get(key)
        if held is not None:
            self._take_care(held)

    def untended(self) -> bytes | None:
        """The key of the record that has been due for care the longest; None if none is due."""
        first = min(self._records.items(), key=lambda it: it[1].care_at, default=None)
        due = first is not None and first[1].care_at <= self._settings.elapsed()
        return first[0] if first is not None and due else None

    def _take_care(self, held: _Held) -> None:
        """Draw the time by which this node looks after the record, whatever others say by then."""
        limits, settings = self._limits, self._settings
        # Random, so that if all holders are lied to, one of them acts first, not all at once.
        most_s = max(limits.care_interval_s, limits.care_interval_max_s)
        held.care_by = settings.elapsed() + settings.between(limits.care_interval_s, most_s)
        self._leave_care(held)

    def _leave_care(self, held: _Held) -> None:
        """Put the care off, as another node seems to have taken it on. That takes a single
        datagram to forge, so it never delays this node beyond ``care_by``."""
        # Random, so that one holder acts first and spares the others.
        settings = self._settings
        care_at = settings.elapsed() + settings.jitter(self._limits.care_interval_s)
        held.care_at = min(care_at, held.care_by)

    @property
    def size_bytes(self) -> int:
        """Bytes of the records themselves."""
        return sum(len(held.data) for held in self._records.values())

    def keys(self) -> Iterable[bytes]:
        return self._records.keys()

    def catch_up(self) -> Iterator[None]:
        """Write to the file what earlier failed, some rows per step."""
        return iter(()) if self._file is None else self._file.catch_up()

    def close(self) -> None:
        """Close the file; later changes are not written to it."""
        if self._file is not None:
            self._file.close()

    def __setitem__(self, key: bytes, value: bytes) -> None:
        """Raises :class:`InvalidRecord` if the record is not stored."""
        status = self.put(key, value)
        if status is not StoreStatus.STORED:
            raise InvalidRecord(f"not stored: {status.name.lower()}")

    def __getitem__(self, key: bytes) -> bytes:
        held = self.held(key)
        if held is None:
            raise KeyError(key)
        return held[1]

    def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        held = self.held(key)
        return default if held is None else held[1]

    def iter_older_than(
        self,
        seconds_old: float,  # noqa: ARG002
    ) -> Iterator[tuple[bytes, bytes]]:
        """Always empty: upstream republishes what this yields, but only owners republish."""
        return iter(())

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        self.drop_expired()
        return iter([(key, held.data) for key, held in self._records.items()])

    def _refusal(self, record: Storable) -> str | None:
        now = self._settings.unix_time()
        if now >= record.expiry_unix_s:
            return "record_expired"
        if record.sequence > now + self._limits.sequence_ahead_max_s:
            return "record_sequence_too_high"
        if record.expiry_unix_s > now + self._limits.lifetime_max_s:
            return "record_expiry_too_far"
        return None

    def _expired(self, held: _Held) -> bool:
        return self._settings.unix_time() >= held.expiry_unix_s

    def _keep(self, key: bytes, held: _Held) -> None:
        self._remove(key)
        self._add(key, held)
        if self._over_quota and len(self._records) > self._limits.records_max // 2:
            self._pay(max(self._over_quota, key=lambda source: len(self._of_source[source])))
        if len(self._records) > self._limits.records_max:
            self._make_room()

    def _add(self, key: bytes, held: _Held) -> None:
        self._records[key] = held
        if self._file is not None:
            self._file.put(key, held.source, held.data)
        if held.source:
            keys = self._of_source.setdefault(held.source, [])
            keys.append(key)
            if len(keys) > self._limits.records_per_source:
                self._over_quota[held.source] = None

    def _stored_again(self, key: bytes, held: _Held, source: bytes) -> None:
        self._leave_care(held)
        if not held.source or source in (held.source, *held.others):
            return
        if not source:
            self._count_for(key, held, source)  # Stored by this node itself: against no quota.
        elif len(held.others) < OTHER_SOURCES_MAX:
            # The first ones stay, or an attacker in a few networks could replace all of them.
            held.others = (*held.others, source)

    def _pay(self, source: bytes) -> None:
        """Evict the farthest records of ``source``, which is over its quota, or count them against
        other networks."""
        keys = self._of_source[source]
        count = min(len(keys) - self._limits.records_per_source, self._at_once)
        evicted = []
        for key in self._farthest(count, keys):
            held = self._records[key]
            used = {other: len(self._of_source.get(other, ())) for other in held.others}
            other = min(used, key=lambda it: used[it], default=None)
            if other is None or used[other] >= self._limits.records_per_source:
                evicted.append(key)
            else:
                self._count_for(key, held, other)
        self._evict(evicted)

    def _count_for(self, key: bytes, held: _Held, source: bytes) -> None:
        sources = (held.source, *held.others)
        self._remove(key)
        held.source, held.others = source, tuple(it for it in sources if it != source)
        self._add(key, held)

    def _drop(self, keys: list[bytes]) -> None:
        """Drop ``keys``, in one transaction: after a night's sleep a whole store may have
        expired."""
        for key in keys:
            self._remove(key)
        if keys and self._file is not None:
            self._file.drop(keys)

    def _remove(self, key: bytes) -> None:
        held = self._records.pop(key, None)
        if held is not None and held.source:
            keys = self._of_source[held.source]
            keys.remove(key)
            if len(keys) <= self._limits.records_per_source:
                self._over_quota.pop(held.source, None)
            if not keys:
                del self._of_source[held.source]

    def _make_room(self) -> None:
        self.drop_expired()
        excess = len(self._records) - self._limits.records_max
        if excess > 0:
            self._evict(self._farthest(max(excess, self._at_once), self._records))

    @property
    def _at_once(self) -> int:
        """A hundredth is evicted at once, which spreads the cost of finding the farthest."""
        return max(1, self._limits.records_max // 100)

    def _farthest(self, count: int, among: Iterable[bytes]) -> list[bytes]:
        center = int.from_bytes(self.center, "big")
        return heapq.nlargest(count, among, key=lambda key: int.from_bytes(key, "big") ^ center)

    def _evict(self, evicted: list[bytes]) -> None:
        self._drop(evicted)
        self._counters["record_evicted"] += len(evicted)


def _supersedes(sequence: int, data: bytes, held: _Held | None) -> bool:
    """:func:`egtp.values.comm_record.supersedes` for encoded records."""
    if held is None or sequence != held.sequence:
        return held is None or sequence > held.sequence
    return hashlib.sha256(data).digest() < hashlib.sha256(held.data).digest()

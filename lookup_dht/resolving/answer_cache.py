"""A cache of lookup results: records, and the absence of one. Pure."""

from __future__ import annotations

from egtp.values.comm_record import SignedCommRecord, supersedes
from egtp.values.identity import NodeId
from lookup_dht.settings import DHTLimits

__all__ = ["AnswerCache"]


class AnswerCache:
    """Holds the latest ``cached_max`` peers. A record is returned until it expires or ``cache_s``
    have passed, whichever comes first; an absence counts for ``absent_cache_s``."""

    def __init__(self, limits: DHTLimits) -> None:
        self._limits = limits
        self._answers: dict[NodeId, tuple[SignedCommRecord | None, float]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def found(self, record: SignedCommRecord, now: float) -> None:
        held, until = self._answers.get(record.peer_id, (None, 0.0))
        if until <= now or held == record or supersedes(record, held):
            self._remember(record.peer_id, record, now + self._limits.cache_s)

    def absent(self, peer_id: NodeId, now: float) -> None:
        self._remember(peer_id, None, now + self._limits.absent_cache_s)

    def forget(self, peer_id: NodeId) -> None:
        self._answers.pop(peer_id, None)

    def record(self, peer_id: NodeId, now: float, unix_s: float) -> SignedCommRecord | None:
        """The cached record, unless its time here is over or it has expired."""
        record, until = self._answers.get(peer_id, (None, 0.0))
        if record is None or until <= now or record.expired(unix_s):
            return None
        return record

    def known_absent(self, peer_id: NodeId, now: float) -> bool:
        """Whether a lookup a moment ago found no record."""
        record, until = self._answers.get(peer_id, (None, 0.0))
        return record is None and until > now

    def _remember(self, peer_id: NodeId, record: SignedCommRecord | None, until: float) -> None:
        self._answers.pop(peer_id, None)
        self._answers[peer_id] = (record, until)
        if len(self._answers) > self._limits.cached_max:
            del self._answers[next(iter(self._answers))]

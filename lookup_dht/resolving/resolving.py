"""Resolves a peerId to a record: from the cache, or by a search that callers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

from egtp.errors import LookupFailed, LookupFailure
from egtp.values.comm_record import SignedCommRecord
from egtp.values.identity import NodeId
from lookup_dht.kademlia_server import LookupServer
from lookup_dht.records.record_file import RecordFile
from lookup_dht.records.record_verifier import SequenceFloor
from lookup_dht.resolving.answer_cache import AnswerCache
from lookup_dht.resolving.searches import SharedSearches
from lookup_dht.resolving.turns import Turns
from lookup_dht.settings import NodeSettings
from lookup_dht.walks.search import Search

__all__ = ["Resolver"]

EXPIRED: Final = "what was found has expired, by the clock of this machine"
"""A node returns no record that has expired by its own clock, so the two differ."""


class Resolver:
    """The resolver of one node. The highest valid sequence wins. Never returns a record older than
    one it returned before, in this run or, with a record file, an earlier one."""

    def __init__(
        self,
        node: LookupServer,
        settings: NodeSettings,
        file: RecordFile | None,
        turns: Turns,
        begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """``begin`` starts a task that ends with the service. ``file`` keeps the sequences."""
        self._settings = settings
        self._node = node
        self._counters = node.counters
        self._floor = SequenceFloor(settings.limits.sequences_max, "resolved", file)
        self._answers = AnswerCache(settings.limits)
        self._searches = SharedSearches(node, settings, self._floor, self._answers, turns, begin)

    def close(self) -> None:
        """Learn nothing more from searches that end now."""
        self._searches.close()

    def learn(self, record: SignedCommRecord) -> None:
        """Take ``record``, just published, as the newest of its peer."""
        self._floor.note(record.peer_id, record.sequence)
        self._answers.found(record, self._settings.elapsed())

    async def resolve(self, peer_id: NodeId, newer_than: int, *, fresh: bool) -> SignedCommRecord:
        """Raises :class:`LookupFailed`."""
        if not fresh:
            known = self._cached(peer_id)
            if known is not None and known.sequence > newer_than:
                return known
            self._fail_if_absent(peer_id)
        agreement = self._settings.limits.agreement
        with self._searches.join(peer_id) as search:
            findings = search.findings
            await search.until(lambda: not fresh and findings.agreed(agreement, newer_than))
            return self._outcome(search, newer_than)

    async def stream(
        self, peer_id: NodeId, newer_than: int
    ) -> AsyncGenerator[SignedCommRecord, None]:
        """Yield records of strictly increasing sequence. Raises :class:`LookupFailed` if there was
        none at all. Closing the iterator leaves the search."""
        told = newer_than
        known = self._cached(peer_id)
        if known is None:
            self._fail_if_absent(peer_id)
        elif known.sequence > told:
            told = known.sequence
            yield known
        with self._searches.join(peer_id) as search:
            findings, over = search.findings, False

            def news() -> SignedCommRecord | None:
                record = findings.record
                if record is None or record.sequence <= told or self._expired(record):
                    return None
                return record

            while not over:
                await search.until(lambda: news() is not None)
                over, record = search.over, news()
                if record is not None:
                    told = record.sequence
                    self._floor.note(peer_id, told)
                    yield record
            if told == newer_than:
                self._outcome(search, newer_than)

    def _outcome(self, search: Search, newer_than: int) -> SignedCommRecord:
        """The record found. Raises :class:`LookupFailed`."""
        findings = search.findings
        record = findings.record
        # Check expiry again: the machine may have slept for hours in the middle of the search.
        if record is not None and not self._expired(record):
            if record.sequence > newer_than:
                return record
            raise LookupFailed(LookupFailure.SUPERSEDED)
        if findings.below_floor:
            self._counters["record_below_floor"] += 1
            raise LookupFailed(LookupFailure.SUPERSEDED)
        if findings.invalid:
            raise LookupFailed(LookupFailure.INVALID)
        if search.heard:
            raise LookupFailed(LookupFailure.NOT_FOUND, EXPIRED if findings.expired else "")
        if self._node.protocol.asker.took_nothing_since(search.taken_before):
            raise LookupFailed(LookupFailure.NO_NETWORK)
        if search.asked:
            raise LookupFailed(LookupFailure.NO_RESPONSES)
        raise LookupFailed(LookupFailure.NO_NODES, self._node.joining.seeds.unresolved)

    def _cached(self, peer_id: NodeId) -> SignedCommRecord | None:
        settings = self._settings
        return self._answers.record(peer_id, settings.elapsed(), settings.unix_time())

    def _fail_if_absent(self, peer_id: NodeId) -> None:
        if self._answers.known_absent(peer_id, self._settings.elapsed()):
            self._counters["absent_from_cache"] += 1
            raise LookupFailed(LookupFailure.NOT_FOUND)

    def _expired(self, record: SignedCommRecord) -> bool:
        return record.expired(self._settings.unix_time())

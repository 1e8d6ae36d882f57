"""Answering who asks for the record of a peer: from memory, or by a search that callers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

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


class Resolver:
    """Of one node. The highest valid sequence wins, and nothing below what was given before, in
    this run or an earlier one, is given."""

    def __init__(
        self,
        node: LookupServer,
        settings: NodeSettings,
        file: RecordFile | None,
        turns: Turns,
        begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """``begin`` makes a task that is ended with the service. The sequences are in ``file``."""
        self._settings = settings
        self._counters = node.counters
        self._floor = SequenceFloor(settings.limits.sequences_max, "resolved", file)
        self._answers = AnswerCache(settings.limits)
        self._searches = SharedSearches(node, settings, self._floor, self._answers, turns, begin)

    def close(self) -> None:
        """Nothing is learned any more from searches that end now."""
        self._searches.close()

    def learn(self, record: SignedCommRecord) -> None:
        """This is the newest one of its peer: it was just published."""
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
        """Records of strictly increasing sequence. Raises :class:`LookupFailed` if there was none
        at all. Ending the iteration ends the search."""
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
        """Raises :class:`LookupFailed`."""
        findings = search.findings
        record = findings.record
        # Looked at again: the machine may have been asleep for hours in the middle of the search.
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
            raise LookupFailed(LookupFailure.NOT_FOUND)
        raise LookupFailed(LookupFailure.NO_RESPONSES if search.asked else LookupFailure.NO_NODES)

    def _cached(self, peer_id: NodeId) -> SignedCommRecord | None:
        settings = self._settings
        return self._answers.record(peer_id, settings.elapsed(), settings.unix_time())

    def _fail_if_absent(self, peer_id: NodeId) -> None:
        if self._answers.known_absent(peer_id, self._settings.elapsed()):
            self._counters["absent_from_cache"] += 1
            raise LookupFailed(LookupFailure.NOT_FOUND)

    def _expired(self, record: SignedCommRecord) -> bool:
        return record.expired(self._settings.unix_time())

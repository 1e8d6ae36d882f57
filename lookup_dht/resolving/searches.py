"""Searches shared by callers who want the same peer, and what is learned from each at its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from egtp.errors import NodeClosed
from egtp.values.identity import NodeId
from lookup_dht.kademlia_server import LookupServer
from lookup_dht.records.record_verifier import SequenceFloor
from lookup_dht.resolving.answer_cache import AnswerCache
from lookup_dht.resolving.turns import Turns
from lookup_dht.settings import NodeSettings
from lookup_dht.walks.search import Search

__all__ = ["SharedSearches"]


class SharedSearches:
    """At most one search per peer at a time. It goes on while anybody is interested."""

    def __init__(
        self,
        node: LookupServer,
        settings: NodeSettings,
        floor: SequenceFloor,
        answers: AnswerCache,
        turns: Turns,
        begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """``begin`` starts a task that ends with the service."""
        self._node = node
        self._settings = settings
        self._floor = floor
        self._answers = answers
        self._begin = begin
        self._turns = turns
        self._shared: dict[NodeId, _SharedSearch] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._shared)

    def close(self) -> None:
        """Learn nothing more from searches that end now."""
        self._closed = True

    @contextlib.contextmanager
    def join(self, peer_id: NodeId) -> Iterator[Search]:
        """Join the search for this peer that is under way, or begin one. When the last caller
        leaves, the search ends and its findings are put to use. Raises :class:`NodeClosed`."""
        if self._closed:
            raise NodeClosed("the lookup service was closed")
        shared = self._shared.get(peer_id)
        if shared is None:
            search = self._node.walks.new_search(bytes(peer_id), self._floor[peer_id])
            task = self._begin(self._carry_out(search))
            task.add_done_callback(search.ended)
            shared = self._shared[peer_id] = _SharedSearch(search, task)
        shared.users += 1
        try:
            yield shared.search
        finally:
            shared.users -= 1
            if not shared.users:
                # Removed at once, so that the next caller does not join a cancelled search.
                del self._shared[peer_id]
                shared.task.cancel()
                if not self._closed:
                    self._learn(peer_id, shared.search)

    async def _carry_out(self, search: Search) -> None:
        async with self._turns.turn():
            await self._node.joining.ensure_contacts()
            await self._node.walks.search(search)

    def _learn(self, peer_id: NodeId, search: Search) -> None:
        """Remember the answer, and give the record to nodes that should have had it."""
        now = self._settings.elapsed()
        findings, record = search.findings, search.findings.record
        if record is not None and not record.expired(self._settings.unix_time()):
            self._floor.note(peer_id, record.sequence)
            self._answers.found(record, now)
            self._node.walks.repair(search)
        elif search.over and search.heard and not (findings.invalid or findings.expired):
            self._answers.absent(peer_id, now)


class _SharedSearch:
    def __init__(self, search: Search, task: asyncio.Task[None]) -> None:
        self.search = search
        self.task = task
        self.users = 0

"""Storing one record on many nodes, until enough of them have it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Final

from lookup_dht.contact import Contact
from lookup_dht.datagram import Method, Reply, StoreStatus
from lookup_dht.kademlia_protocol import LookupProtocol
from lookup_dht.open_queries import OpenQuery
from lookup_dht.settings import DHTLimits

__all__ = ["StoreRound"]

TRIES: Final = 2
"""Each of two datagrams. A node that is silent to all four is not asked again."""


class StoreRound:
    """Asks all at once. Who refuses the token gets the one that it gave with its refusal; who is
    silent is asked once more."""

    def __init__(
        self, protocol: LookupProtocol, key: bytes, record: bytes, limits: DHTLimits
    ) -> None:
        self._protocol = protocol
        self._key = key
        self._record = record
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._open: dict[bytes, OpenQuery] = {}
        self._tries: dict[bytes, int] = {}
        self._progress: asyncio.Future[None] = self._loop.create_future()
        self.stored_by: list[Contact] = []
        self.newer_held = 0

    async def run(self, nodes: Sequence[tuple[Contact, bytes]]) -> None:
        """Return when all have answered or failed; or when half of them have stored it, and the
        others have had as long again. These may still answer, but are not waited for.

        Cancelling it takes back every query.
        """
        began_at = self._loop.time()
        for contact, token in nodes:
            self._ask(contact, token)
        enough = (min(len(nodes), self._limits.replication) + 1) // 2
        ends_at: float | None = None
        try:
            while self._open and (ends_at is None or self._loop.time() < ends_at):
                if ends_at is None and len(self.stored_by) >= enough:
                    took_s = self._loop.time() - began_at
                    ends_at = began_at + took_s + max(took_s, self._limits.soft_timeout_min_s)
                self._progress = self._loop.create_future()
                timer = self._loop.call_at(ends_at, self._tell) if ends_at is not None else None
                try:
                    await self._progress
                finally:
                    if timer is not None:
                        timer.cancel()
        except asyncio.CancelledError:
            for query in self._open.values():
                self._protocol.asker.forget(query)
            raise

    def _ask(self, contact: Contact, token: bytes) -> None:
        compact = contact.compact
        self._tries[compact] = self._tries.get(compact, 0) + 1
        query = self._protocol.ask(
            contact, Method.STORE, functools.partial(self._ended, contact, token),
            key=self._key, record=self._record, token=token,
        )  # fmt: skip
        if query is not None:
            self._open[compact] = query

    def _ended(self, contact: Contact, token: bytes, reply: Reply | None) -> None:
        self._open.pop(contact.compact, None)
        if self._tries[contact.compact] < TRIES:
            if reply is None:
                self._ask(contact, token)
            elif reply.status is StoreStatus.TOKEN:
                self._ask(contact, reply.token)
        if reply is not None and reply.status is StoreStatus.STORED:
            self.stored_by.append(contact)
        elif reply is not None and reply.status is StoreStatus.NEWER_HELD:
            self.newer_held += 1
        self._tell()

    def _tell(self) -> None:
        if not self._progress.done():
            self._progress.set_result(None)

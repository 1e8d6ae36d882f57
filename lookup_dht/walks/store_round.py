"""Storing one record on many nodes, until enough of them have it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Final

from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.protocol.open_queries import OpenQuery
from lookup_dht.settings import DHTLimits
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.datagram import Method, Reply, StoreStatus

__all__ = ["StoreRound"]

TRIES: Final = 2
"""Queries per node, of up to two datagrams each. A node silent to all four is given up."""


class StoreRound:
    """Asks all nodes at once. A node that refuses the token is asked again with the token that came
    with its refusal; a silent one is asked once more."""

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
        self._enough = 0
        self._half: asyncio.Future[None] = self._loop.create_future()
        """Done once half have stored it, or no query is open any more."""
        self._over: asyncio.Future[None] = self._loop.create_future()
        self.stored_by: list[Contact] = []
        self.newer_held = 0
        self.refused = 0

    async def run(self, nodes: Sequence[tuple[Contact, bytes]]) -> None:
        """Return when all have answered or failed; or when half of the replicas are stored and the
        other nodes have had as long again. Those may still answer, but are not waited for.

        Cancelling this call drops every open query.
        """
        began_at = self._loop.time()
        for contact, token in nodes:
            self._ask(contact, token)
        self._enough = (min(len(nodes), self._limits.replication) + 1) // 2
        try:
            self._look()
            await self._half
            took_s = self._loop.time() - began_at
            await asyncio.wait([self._over], timeout=max(took_s, self._limits.soft_timeout_min_s))
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
        elif reply is not None and reply.status is StoreStatus.REFUSED:
            self.refused += 1
        self._look()

    def _look(self) -> None:
        """Wake :meth:`run` only when something it waits for has happened."""
        if not self._open:
            _settle(self._half)
            _settle(self._over)
        elif len(self.stored_by) >= self._enough:
            _settle(self._half)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

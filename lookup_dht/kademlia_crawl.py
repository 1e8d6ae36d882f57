"""Carries out a walk: kademlia's crawl without rounds, recursion or a slowest peer to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kademlia.crawling import SpiderCrawl

from lookup_dht.contact import Contact
from lookup_dht.datagram import Reply
from lookup_dht.settings import NodeSettings
from lookup_dht.walk import Walk

__all__ = ["LookupCrawl"]

RPCMethod = Callable[[Contact, Any], Awaitable[tuple[bool, Reply | None]]]


class LookupCrawl(SpiderCrawl):  # type: ignore[misc]
    """One walk. Upstream waits in each round for the slowest of alpha peers, up to five seconds,
    and recurses per round; here every reply moves the walk on by itself.

    When :meth:`find` ends, in whatever way, every query that it began has ended too.
    """

    def __init__(
        self,
        protocol: Any,
        node: Any,
        peers: list[Contact],
        settings: NodeSettings,
        on_reply: Callable[[Reply], None] | None = None,
    ) -> None:
        limits = settings.limits
        # Upstream would log the peers, and keep them in a heap that is not used here.
        super().__init__(protocol, node, [], limits.replication, limits.parallel_queries)
        self._settings = settings
        self._on_reply = on_reply
        self.walk = Walk(
            node.long_id,
            peers,
            limits,
            soft_timeout_s=protocol.soft_timeout_s,
            allowed=protocol.believable,
            groups_limited=not settings.private_addresses,
        )

    async def find(self) -> list[Contact]:
        """Ask for nodes; the k closest that answered."""
        return await self._find(self.protocol.call_find_node)

    async def find_value(self) -> list[Contact]:
        """The same, asking for a value too; ``on_reply`` sees every reply."""
        return await self._find(self.protocol.call_find_value)

    async def _find(self, rpcmethod: RPCMethod) -> list[Contact]:
        now = self._settings.elapsed
        queries: dict[asyncio.Future[tuple[bool, Reply | None]], Contact] = {}
        ends_at = now() + self._settings.limits.walk_timeout_s
        try:
            while now() < ends_at and not self.walk.done(now()):
                for contact in self.walk.next_queries(now()):
                    queries[asyncio.ensure_future(rpcmethod(contact, self.node))] = contact
                if not queries:
                    break
                deadline = min(ends_at, self.walk.deadline() or ends_at)
                answered, _ = await asyncio.wait(
                    queries,
                    timeout=max(0.0, deadline - now()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for query in answered:
                    self._query_ended(queries.pop(query), *query.result())
        finally:
            for query in queries:
                query.cancel()
            if queries:
                await asyncio.wait(queries)
        return self.walk.closest()

    def _query_ended(self, contact: Contact, happened: bool, reply: Reply | None) -> None:
        if not happened or reply is None or not reply.server:
            self.walk.failed(contact)
            return
        actual = contact
        if reply.sender != contact.id:
            actual = Contact(reply.sender, contact.packed, contact.port)
            if not self.protocol.believable(actual):
                self.walk.failed(contact)
                return
        self.walk.answered(contact, actual, reply.nodes)
        if self._on_reply is not None:
            self._on_reply(reply)

"""Carries out a walk: kademlia's crawl without rounds, recursion or waits for the slowest peer."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import Any

from kademlia.crawling import SpiderCrawl

from lookup_dht.protocol.alarm import Alarm
from lookup_dht.protocol.asking import SameForAll
from lookup_dht.protocol.open_queries import OpenQuery
from lookup_dht.settings import NodeSettings
from lookup_dht.walks.walk import Walk
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.datagram import Method, Reply

__all__ = ["LookupCrawl"]

OnReply = Callable[[Contact, Reply], None]


class LookupCrawl(SpiderCrawl):  # type: ignore[misc]
    """One walk. In each round, upstream waits up to five seconds for the slowest of alpha peers,
    and then recurses; here every reply moves the walk on directly, without a task.

    However :meth:`find` ends, every query that it began has ended too.
    """

    def __init__(
        self,
        protocol: Any,
        node: Any,
        peers: list[Contact],
        settings: NodeSettings,
        on_reply: OnReply | None = None,
        *,
        radius: int = 0,
        witnesses: Iterable[Contact] = (),
    ) -> None:
        """``on_reply`` is called with every reply and the contact that it came from."""
        limits = settings.limits
        # No super().__init__(): it logs a line per walk and builds a heap that is not used here.
        self.protocol, self.node = protocol, node
        self._settings = settings
        self._on_reply = on_reply
        self._open: dict[bytes, OpenQuery] = {}
        """By compact form of the contact asked."""
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._alarm = Alarm(self._move_on)
        self._ends_at = 0.0
        self._asker = protocol.asker
        self._query: SameForAll
        self.walk = Walk(
            node.long_id,
            peers,
            limits,
            soft_timeout_s=protocol.asker.soft_timeout_s,
            believe=protocol.acquaintances.believe,
            groups_limited=not settings.private_addresses,
            radius=radius,
            witnesses=witnesses,
        )

    async def find(self) -> list[Contact]:
        """Ask for nodes. Returns the k closest that answered, and others within the radius."""
        return await self._find(Method.FIND_NODE, 0)

    async def find_value(self, sequence: int = 0) -> list[Contact]:
        """The same, but also ask for records above ``sequence``."""
        return await self._find(Method.FIND_VALUE, sequence)

    async def _find(self, rpcmethod: Method, sequence: int) -> list[Contact]:
        """``rpcmethod`` is a query method; upstream passes a coroutine function."""
        self._query = self._asker.same_for_all(rpcmethod, self.node.id, sequence)
        self._ends_at = self._loop.time() + self._settings.limits.walk_timeout_s
        try:
            self._move_on()
            await self._over
        finally:
            self._over.cancel()
            self._alarm.close()
            for query in self._open.values():
                self._asker.forget(query)
            self._open.clear()
        return self.walk.closest()

    def _move_on(self) -> None:
        """Ask the next nodes, or end the walk. Called after every event."""
        if self._over.done():
            return
        now = self._loop.time()
        refused, over = True, False
        while refused:
            chosen, over = self.walk.step(now)
            refused = False
            for contact in chosen:
                query = self._asker.ask_the_same(
                    contact, self._query, functools.partial(self._query_ended, contact)
                )
                if query is None:
                    refused = True
                    self.walk.failed(contact)
                else:
                    self._open[contact.compact] = query
        if over or now >= self._ends_at:
            self._over.set_result(None)
        else:
            self._alarm.set(min(self._ends_at, self.walk.deadline() or self._ends_at))

    def _query_ended(self, contact: Contact, reply: Reply | None) -> None:
        self._open.pop(contact.compact, None)
        if reply is None or not reply.server:
            self.walk.failed(contact)
        elif reply.sender == contact.id:
            self._heard(contact, contact, reply)
        else:
            actual = Contact(reply.sender, contact.packed, contact.port)
            if self.protocol.acquaintances.believe(actual.compact):
                self._heard(contact, actual, reply)
            else:
                self.walk.failed(contact)
        self._move_on()

    def _heard(self, contact: Contact, actual: Contact, reply: Reply) -> None:
        self.walk.answered(contact, actual, reply.nodes)
        if self._on_reply is not None:
            self._on_reply(actual, reply)

"""Sends queries and waits for the replies: again if need be, with one timer for all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from lookup_dht.checked_transport import CheckedTransport
from lookup_dht.contact import Contact, SocketAddress
from lookup_dht.datagram import MESSAGE_ID_BYTES, Method, Query, Reply, query_body, query_datagram
from lookup_dht.open_queries import OpenQueries, OpenQuery
from lookup_dht.round_trip import RoundTripEstimate
from lookup_dht.settings import NodeSettings

__all__ = ["Answer", "Asker", "Ended"]

Answer = tuple[bool, Reply | None]
"""Whether there was a reply, and the reply: what upstream's ``call_*`` pass on."""

Ended = Callable[[Reply | None], None]
"""Called once: with the reply, or with None if there was none."""

LAST_TRY_PATIENCE: Final = 1.5
"""How many times as long the last try waits: who is blamed should have had his chance."""
_SENT: Final = {method: f"sent_{method.name.lower()}" for method in Method}


class Asker:
    """One node's side as the one who asks. It makes no task."""

    def __init__(
        self,
        settings: NodeSettings,
        counters: Counter[str],
        on_sent: Callable[[SocketAddress], None],
        on_answer: Callable[[Contact, Reply | None], None],
    ) -> None:
        """``on_sent`` is told of every datagram, ``on_answer`` of the end of every query to a
        contact, before the one who asked."""
        limits = settings.limits
        self.queries: Final = OpenQueries(limits.pending_queries_max)
        self.transport: CheckedTransport
        self._settings = settings
        self._counters = counters
        self._on_sent = on_sent
        self._on_answer = on_answer
        self._round_trip = RoundTripEstimate(limits.reply_timeout_min_s, limits.reply_timeout_max_s)
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None

    def use(self, transport: CheckedTransport) -> None:
        """Send through it from now on. Called on the loop."""
        self._loop = asyncio.get_running_loop()
        self.transport = transport

    def close(self) -> None:
        """End every query, as failed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for query in self.queries.all():
            self.queries.close(query)
            query.ended(None)

    def ask(
        self,
        address: SocketAddress,
        query: Query,
        ended: Ended,
        contact: Contact | None,
        tries: int,
        body: bytes | None = None,
    ) -> OpenQuery | None:
        """Send. None if too many are open, or the socket is closed; then nobody is told.

        ``body`` is the query's, if it is known already."""
        if self.transport.is_closing():
            return None
        if self.queries.full:
            self._counters["pending_queries_full"] += 1
            return None
        message_id = self._settings.entropy(MESSAGE_ID_BYTES)
        data = query_datagram(message_id, query_body(query) if body is None else body)
        sent = OpenQuery(message_id, address, contact, query, data, ended, tries)
        now = sent.sent_at = self._loop.time()
        self._transmit(sent, now)
        return sent

    async def ask_and_wait(self, address: SocketAddress, query: Query) -> Answer:
        """Of somebody who is no contact yet. Cancelling this frees everything."""
        replied: asyncio.Future[Reply | None] = self._loop.create_future()

        def ended(reply: Reply | None) -> None:
            if not replied.done():
                replied.set_result(reply)

        sent = self.ask(address, query, ended, None, 2)
        if sent is None:
            return False, None
        try:
            reply = await replied
        finally:
            self.queries.close(sent)
        return reply is not None, reply

    def replied(self, query: OpenQuery, reply: Reply) -> None:
        """The reply to ``query``, checked. It may be that the node wants to see first that this is
        where we are."""
        if reply.again and reply.token and not query.query.token:
            self._ask_again(query, reply.token)
            return
        if query.sent_at is not None:
            self._round_trip.observe(self._loop.time() - query.sent_at)
        self._end(query, reply)

    @property
    def soft_timeout_s(self) -> float:
        limits = self._settings.limits
        return self._round_trip.soft_timeout_s(limits.soft_timeout_s, limits.soft_timeout_min_s)

    def _transmit(self, query: OpenQuery, now: float) -> None:
        query.tries_left -= 1
        self._counters[_SENT[query.query.method]] += 1
        patience = 1.0 if query.tries_left else LAST_TRY_PATIENCE
        due_at = now + patience * self._round_trip.timeout_s
        self.queries.wait(query, due_at)
        self._on_sent(query.address)
        self.transport.sendto(query.data, query.address)
        self._wake_at(due_at)

    def _ask_again(self, query: OpenQuery, token: bytes) -> None:
        self._counters["asked_again_with_token"] += 1
        query.query = query.query._replace(token=token)
        query.data = query_datagram(query.message_id, query_body(query.query))
        query.sent_at = None
        query.tries_left = max(1, query.tries_left)
        self._transmit(query, self._loop.time())

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= when:
                return  # Too early costs less than a timer for every query.
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        now = self._loop.time()
        for query in self.queries.due(now):
            if query.tries_left:
                query.sent_at = None
                self._transmit(query, now)
            else:
                self._end(query, None)
        next_due_at = self.queries.next_due_at
        if next_due_at is not None:
            self._wake_at(next_due_at)

    def _end(self, query: OpenQuery, reply: Reply | None) -> None:
        self.queries.close(query)
        if query.contact is not None:
            self._on_answer(query.contact, reply)
        query.ended(reply)

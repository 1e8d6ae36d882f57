"""Sends queries, retransmits them, and matches the replies, with one timer for all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from lookup_dht.protocol.alarm import Alarm
from lookup_dht.protocol.checked_transport import CheckedTransport
from lookup_dht.protocol.open_queries import OpenQueries, OpenQuery
from lookup_dht.protocol.reachability import Reachability
from lookup_dht.protocol.round_trip import RoundTripEstimate
from lookup_dht.settings import NodeSettings
from lookup_dht.wire.contact import Contact, SocketAddress
from lookup_dht.wire.datagram import (
    HEADER_BYTES,
    MESSAGE_ID_BYTES,
    DatagramError,
    Method,
    Query,
    Reply,
    decode_reply,
    query_body,
    query_datagram,
)

__all__ = ["Answer", "Asker", "Ended", "SameForAll"]

Answer = tuple[bool, Reply | None]
"""Whether there was a reply, and the reply: the form of upstream's ``call_*`` results."""

Ended = Callable[[Reply | None], None]
"""Called once: with the reply, or with None if there was none."""

SameForAll = tuple[Query, bytes]
"""A query, and its encoding without the message id."""

MESSAGE_IDS_AT_ONCE: Final = 32
"""Ids drawn at a time, since entropy is usually a system call. Those not yet sent are as
unguessable as fresh ones."""
LAST_TRY_PATIENCE: Final = 1.5
"""The last try waits this many times as long: a node should have had its chance before it gets a
strike."""
_SENT: Final = {method: f"sent_{method.name.lower()}" for method in Method}


class Asker:
    """The asking side of one node. It creates no tasks."""

    def __init__(
        self,
        settings: NodeSettings,
        counters: Counter[str],
        own_id: Callable[[], bytes],
        reachability: Reachability,
        on_answer: Callable[[Contact, Reply | None], None],
    ) -> None:
        """``on_answer`` is called at the end of every query to a contact, before the query's own
        ``ended``."""
        limits = settings.limits
        self.queries: Final = OpenQueries(limits.pending_queries_max)
        self.transport: CheckedTransport
        self.taken = 0
        """How many datagrams of queries the system took."""
        self.has_network = True
        """Whether it took the last one. If not, it may take none at all."""
        self._settings = settings
        self._counters = counters
        self._own_id = own_id
        self._reachability = reachability
        self._on_answer = on_answer
        self._message_ids: list[bytes] = []
        self._round_trip = RoundTripEstimate(limits.reply_timeout_min_s, limits.reply_timeout_max_s)
        self._loop: asyncio.AbstractEventLoop
        self._alarm = Alarm(self._time_passed)

    def took_nothing_since(self, taken_before: int) -> bool:
        """Whether the system refuses all queries since :attr:`taken` had that value."""
        return self.taken == taken_before and not self.has_network

    def use(self, transport: CheckedTransport) -> None:
        """Send through ``transport`` from now on. Must be called on the loop."""
        self._loop = asyncio.get_running_loop()
        self.transport = transport

    def close(self) -> None:
        """End every open query as failed."""
        self._alarm.close()
        for query in self.queries.all():
            self.queries.close(query)
            query.ended(None)

    def query(
        self,
        method: Method,
        key: bytes = b"",
        record: bytes = b"",
        token: bytes = b"",
        sequence: int = 0,
    ) -> Query:
        """A query with this node's current id, role and need for proof."""
        reachability = self._reachability
        return Query(
            method, self._settings.network, self._own_id(), reachability.proven, key, record,
            token, sequence, method is Method.PING and reachability.open,
        )  # fmt: skip

    def same_for_all(self, method: Method, key: bytes, sequence: int) -> SameForAll:
        """A query to be sent to many by :meth:`ask_the_same`."""
        query = self.query(method, key, sequence=sequence)
        return query, query_body(query)

    def ask_the_same(self, contact: Contact, same: SameForAll, ended: Ended) -> OpenQuery | None:
        """:meth:`ask` a contact without encoding the query again."""
        return self._send(contact.address, *same, ended, contact, 2)

    def ask(
        self,
        address: SocketAddress,
        query: Query,
        ended: Ended,
        contact: Contact | None,
        tries: int,
    ) -> OpenQuery | None:
        """Send a query. Returns None, and never calls ``ended``, if too many are open or the socket
        is closed."""
        return self._send(address, query, query_body(query), ended, contact, tries)

    def _send(
        self,
        address: SocketAddress,
        query: Query,
        body: bytes,
        ended: Ended,
        contact: Contact | None,
        tries: int,
    ) -> OpenQuery | None:
        if self.transport.is_closing():
            return None
        if self.queries.full:
            self._counters["pending_queries_full"] += 1
            return None
        message_id = self._new_message_id()
        data = query_datagram(message_id, body)
        sent = OpenQuery(message_id, address, contact, query, data, ended, tries)
        now = sent.sent_at = self._loop.time()
        self._transmit(sent, now)
        return sent

    def tell(self, address: SocketAddress, query: Query) -> None:
        """Send a query that has no reply, once."""
        self._counters[_SENT[query.method]] += 1
        self._put(query_datagram(self._new_message_id(), query_body(query)), address)

    def _new_message_id(self) -> bytes:
        if not self._message_ids:
            drawn = self._settings.entropy(MESSAGE_IDS_AT_ONCE * MESSAGE_ID_BYTES)
            self._message_ids = [
                drawn[start : start + MESSAGE_ID_BYTES]
                for start in range(0, len(drawn), MESSAGE_ID_BYTES)
            ]
        return self._message_ids.pop()

    def forget(self, query: OpenQuery) -> None:
        """Close a query that nobody waits for any more: its reply will be dropped, and its silence
        costs the node no strike."""
        self.queries.close(query)

    async def ask_and_wait(
        self, address: SocketAddress, query: Query, contact: Contact | None = None
    ) -> Answer:
        """:meth:`ask`, and wait for the reply. Cancelling this frees everything."""
        replied: asyncio.Future[Reply | None] = self._loop.create_future()

        def ended(reply: Reply | None) -> None:
            if not replied.done():
                replied.set_result(reply)

        sent = self.ask(address, query, ended, contact, 2)
        if sent is None:
            return False, None
        try:
            reply = await replied
        finally:
            self.forget(sent)
        return reply is not None, reply

    def reply_received(self, data: bytes, source: SocketAddress) -> None:
        """Match a reply to its query. A wrong one is dropped, and the query stays open."""
        query = self.queries.get(data[1:HEADER_BYTES])
        if query is None:
            self._counters["reply_unknown"] += 1
            return
        if source != query.address:
            self._counters["reply_from_another_address"] += 1
            return
        try:
            reply = decode_reply(data)
        except DatagramError as error:
            self._counters[str(error)] += 1
            return
        if reply.network != self._settings.network:
            self._counters["datagram_of_another_network"] += 1
        elif reply.method is not query.query.method:
            self._counters["reply_of_another_method"] += 1
        elif reply.again and reply.token and not query.query.token:
            # A node under strain first wants proof that we are at this address.
            self._ask_again(query, reply.token)
        else:
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
        query.is_taken = self._put(query.data, query.address)
        if not query.is_taken and query.sent_at is not None:
            # Nobody can answer. It ends soon, not here: whoever asks has not got the query yet.
            query.tries_left = 0
            query.due_at = due_at = now
        self._alarm.set(due_at)

    def _put(self, data: bytes, address: SocketAddress) -> bool:
        """Whether the system took it."""
        self.has_network = self.transport.sendto(data, address)
        if not self.has_network:
            return False
        self.taken += 1
        reachability, settings = self._reachability, self._settings
        if reachability.wanted:
            reachability.sent_to(settings.host_of(address), settings.elapsed())
        return True

    def _ask_again(self, query: OpenQuery, token: bytes) -> None:
        self._counters["asked_again_with_token"] += 1
        query.query = query.query._replace(token=token)
        query.data = query_datagram(query.message_id, query_body(query.query))
        query.sent_at = None
        query.tries_left = max(1, query.tries_left)
        self._transmit(query, self._loop.time())

    def _time_passed(self) -> None:
        now = self._loop.time()
        for query in self.queries.due(now):
            if query.tries_left:
                query.sent_at = None
                self._transmit(query, now)
            else:
                self._end(query, None)
        next_due_at = self.queries.next_due_at
        if next_due_at is not None:
            self._alarm.set(next_due_at)

    def _end(self, query: OpenQuery, reply: Reply | None) -> None:
        self.queries.close(query)
        # Without a network, the silence of others says nothing about them.
        counts = reply is not None or query.is_taken or self.has_network
        if query.contact is not None and counts:
            self._on_answer(query.contact, reply)
        query.ended(reply)

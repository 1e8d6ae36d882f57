"""Answers queries: from the bytes of a datagram to the bytes of its reply, synchronously.

Everything is checked before anything is done, cheapest first: address, rate, form, network.
Nothing that a stranger sends raises an exception; dropped datagrams are counted by reason.

Under strain, who shows a token, and so cannot have forged its address, is answered as always; all
others get a token to ask again with, which costs little, or a pong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any, Final

from lookup_dht.protocol.acquaintance import Acquaintances
from lookup_dht.protocol.checked_transport import CheckedTransport
from lookup_dht.protocol.rate_limit import Bucket, SourceLimit
from lookup_dht.protocol.reachability import Reachability
from lookup_dht.protocol.write_token import TokenMint
from lookup_dht.settings import NodeSettings
from lookup_dht.table.kademlia_table import LookupTable
from lookup_dht.wire.contact import Contact, SocketAddress, pack_ip
from lookup_dht.wire.datagram import (
    HEADER_BYTES,
    DatagramError,
    Method,
    Query,
    Reply,
    StoreStatus,
    decode_query,
    encode_reply,
    reply_bytes_max,
)
from lookup_dht.wire.query_head import QueryHead, network_field, read_head

__all__ = ["Answerer"]

BRIEF_ANSWERS: Final = 4
"""How many of them are given per second, for each that is no brief one. They take less than half of
the time, and have no effect."""
_RECEIVED: Final = {method: f"query_{method.name.lower()}" for method in Method}


class Answerer:
    """The answering side of one node."""

    def __init__(
        self,
        handlers: Any,
        router: LookupTable,
        acquaintances: Acquaintances,
        reachability: Reachability,
        settings: NodeSettings,
        counters: Counter[str],
    ) -> None:
        """``handlers`` has the ``rpc_*`` methods that others may call, by upstream's names."""
        limits = settings.limits
        self.transport: CheckedTransport
        self._network: Final = network_field(settings.network)
        self.answers: Final = Bucket(limits.queries_per_s)
        self._brief_answers: Final = Bucket(BRIEF_ANSWERS * limits.queries_per_s)
        self._proven: Final = SourceLimit(limits.source_queries_per_s)
        self._unproven: Final = SourceLimit(limits.source_queries_per_s)
        """Apart, so that who forges the address of another keeps nothing from it but new tokens."""
        self._handlers = handlers
        self._router = router
        self._acquaintances = acquaintances
        self._reachability = reachability
        self._settings = settings
        self._counters = counters
        self._tokens = TokenMint(settings.entropy)
        self._helps_at = 0.0
        """When this node helps a contact the next time, if it is a client."""

    def query_received(self, data: bytes, source: SocketAddress) -> None:
        """Answer the query, then let the acquaintances decide whether to meet its sender."""
        known = self._router.at(source)
        packed = pack_ip(source[0]) if known is None else known.packed
        if packed is None or (
            known is None and (source[1] == 0 or not self._acquaintances.may_be_node(packed))
        ):
            self._counters["query_from_refused_address"] += 1
            return
        now, host = self._settings.elapsed(), self._settings.host_of(source)
        if not self._hears(host, now, is_contact=known is not None):
            return
        home = packed + source[1].to_bytes(2, "big")
        head = read_head(data, self._network)
        proven = head is not None and self._tokens.knows(head.token, home, head.key, now)
        sources = self._proven if proven else self._unproven
        if not sources.allow(host, now):
            self._counters["query_over_rate"] += 1
        elif self.answers.take(now, leave=0.0 if proven else self.answers.half):
            self._answer(data, source, known, home, now, proven=proven)
        elif not proven and head is not None and self._brief_answers.take(now):
            self._answer_briefly(head, data, source, home, now)
        else:
            self._counters["query_over_rate"] += 1

    def _hears(self, host: Hashable, now: float, *, is_contact: bool) -> bool:
        """Whether a query from ``host`` is read at all. A client reads those of its contacts, which
        may ask it to ping another node."""
        if self._reachability.heard_from(host, now):
            self._counters["proven_reachable"] += 1
        if not (self._reachability.proven or is_contact):
            self._counters["query_to_a_client"] += 1
            return False
        return True

    def _answer(
        self,
        data: bytes,
        source: SocketAddress,
        known: Contact | None,
        home: bytes,
        now: float,
        *,
        proven: bool,
    ) -> None:
        query = self._read(data)
        if query is None:
            return
        if known is not None and known.id == query.sender:
            sender = known
        else:
            sender = Contact.unpack(query.sender + home)
        if query.method is Method.REACH:
            if self._may_help(now):
                self._acquaintances.reach(sender, query.address)
            return
        if not self._reachability.proven:
            self._counters["query_to_a_client"] += 1
            return
        reply = self._reply_to(query, sender, now, proven=proven)
        if self._send(reply, data, source) and not self.answers.strained:
            self._acquaintances.asked(
                sender, known=sender is known, server=query.server, prove=query.prove
            )

    def _answer_briefly(
        self, head: QueryHead, data: bytes, source: SocketAddress, home: bytes, now: float
    ) -> None:
        """Under strain, to who shows no token: a pong, or a token to ask again with."""
        method = head.method
        if method is Method.REACH or not self._reachability.proven:
            self._counters["query_over_rate"] += 1
            return
        self._counters[_RECEIVED[method]] += 1
        reply = Reply(method, self._settings.network, self._router.node.id, True, home)
        if method is Method.STORE:
            self._counters["store_without_token"] += 1
            token = self._tokens.token(home, head.key, now)
            reply = reply._replace(status=StoreStatus.TOKEN, token=token)
        elif method is not Method.PING:
            self._counters["query_unproven_under_strain"] += 1
            token = self._tokens.token(home, head.key, now)
            reply = reply._replace(again=True, token=token)
        self._send(reply, data, source)

    def _send(self, reply: Reply, query: bytes, source: SocketAddress) -> bool:
        """Whether there is room for it in what may be sent for such a query."""
        encoded = encode_reply(query[1:HEADER_BYTES], reply, reply_bytes_max(len(query)))
        if encoded is None:
            self._counters["query_too_short_for_a_reply"] += 1
            return False
        self.transport.sendto(encoded, source)
        return True

    def _may_help(self, now: float) -> bool:
        """Whether to ping another node for a contact. Whomever a client pings is no stranger to it
        any more, and it needs strangers to be reached by itself: so it helps now and then."""
        if self._reachability.proven:
            return True
        if now < self._helps_at:
            self._counters["reach_refused"] += 1
            return False
        self._helps_at = now + 2 * self._settings.limits.stranger_after_s
        return True

    def _read(self, data: bytes) -> Query | None:
        """The query, if it is valid and of this network."""
        try:
            query = decode_query(data)
        except DatagramError as error:
            self._counters[str(error)] += 1
            return None
        if query.network != self._settings.network:
            self._counters["datagram_of_another_network"] += 1
            return None
        return query

    def _reply_to(self, query: Query, sender: Contact, now: float, *, proven: bool) -> Reply:
        method, handlers, observed = query.method, self._handlers, sender.home
        self._counters[_RECEIVED[method]] += 1
        head = (method, self._settings.network, self._router.node.id, True, observed)
        if method is Method.PING:
            return Reply(*head)
        token = self._tokens.token(observed, query.key, now)
        if method is Method.STORE:
            if proven:
                status = handlers.rpc_store(sender, query.sender, query.key, query.record)
            else:
                status = StoreStatus.TOKEN
                self._counters["store_without_token"] += 1
            return Reply(*head, (), b"", status, token)
        if method is Method.FIND_NODE:
            nodes = handlers.rpc_find_node(sender, query.sender, query.key)
            return Reply(*head, nodes, b"", StoreStatus.REFUSED, token)
        held, nodes = handlers.rpc_find_value(sender, query.sender, query.key)
        sequence, record = held if held is not None else (0, b"")
        if sequence <= query.sequence:
            record = b""
            if sequence == query.sequence > 0:
                handlers.storage.asked_around(query.key)
        return Reply(*head, nodes, record, StoreStatus.REFUSED, token, sequence)

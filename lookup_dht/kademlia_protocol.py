# ruff: noqa: ARG002  (the arguments are those that upstream passes)
"""The datagram path of a node: kademlia's protocol, of which a stranger can call four methods.

What is kept is upstream's contract: ``rpc_*`` answer, ``call_*`` ask and report to
``handle_call_response``, ``welcome_if_new`` meets strangers. What is replaced is how a datagram
becomes a call: one synchronous function that checks everything before it does anything, and
makes no task. Upstream's RPCs by ``__getattr__``, its pending map that leaks when a lookup is
cancelled, and its handing over of every record to every new node are gone.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import ipaddress
import json
from collections.abc import Callable
from typing import Any

from kademlia.protocol import KademliaProtocol

from egtp.identity import NODE_ID_BYTES
from lookup_dht.asking import Answer, Asker, Ended
from lookup_dht.checked_transport import CheckedTransport
from lookup_dht.contact import AddressPolicy, Contact, SocketAddress, pack_ip
from lookup_dht.datagram import (
    BYTES_IN_MAX,
    BYTES_IN_MIN,
    HEADER_BYTES,
    MESSAGE_ID_BYTES,
    QUERY_TYPE,
    REPLY_TYPE,
    STATISTICS_QUERY_TYPE,
    STATISTICS_REPLY_TYPE,
    DatagramError,
    Method,
    Query,
    Reply,
    StoreStatus,
    decode_query,
    decode_reply,
    encode_query,
    encode_reply,
    query_body,
    reply_bytes_max,
)
from lookup_dht.kademlia_storage import RecordStore
from lookup_dht.kademlia_table import LookupTable
from lookup_dht.node_id import AddressVotes, fits
from lookup_dht.open_queries import OpenQuery
from lookup_dht.rate_limit import RateLimit
from lookup_dht.reachability import Reachability
from lookup_dht.settings import NodeSettings
from lookup_dht.statistics import STATISTICS_BYTES_MAX
from lookup_dht.write_token import TokenMint

__all__ = ["Answer", "LookupProtocol", "SameForAll"]

SameForAll = tuple[Query, bytes]
"""A query, and how it is encoded but for its message id."""


class LookupProtocol(KademliaProtocol):  # type: ignore[misc]
    """One node's side of the protocol. It outlives its socket: see :meth:`LookupServer.rebind`."""

    def __init__(
        self,
        source_node: Any,
        storage: RecordStore,
        ksize: int,
        settings: NodeSettings,
        counters: collections.Counter[str],
    ) -> None:
        super().__init__(source_node, storage, ksize)
        limits = settings.limits
        self.source_node: Any = source_node
        self.storage: RecordStore = storage
        self.router = LookupTable(self, ksize, source_node, settings, counters)
        self.transport: CheckedTransport
        self.counters = counters
        self.votes = AddressVotes()
        self.statistics: Callable[[], dict[str, Any]] = dict
        """What to tell this machine's operator."""
        self.host = ""
        """The address that the socket is bound to."""
        self.family_bytes = 4
        """4 or 16: the length of the addresses that the socket can send to."""
        self.seeds: dict[SocketAddress, None] = {}
        """Addresses that the user named. Their ids may not fit: a seed that listens on 0.0.0.0
        learns its address from the first nodes that join."""
        self._settings = settings
        self._limits = limits
        self.reachability = Reachability(settings.server)
        self._policy = AddressPolicy(private_addresses=settings.private_addresses)
        self._asker = Asker(settings, counters, self._sent_to, self._answered)
        self.open_queries = self._asker.queries
        self._tokens = TokenMint(settings.entropy)
        self._query_rate = RateLimit(limits.source_queries_per_s, limits.queries_per_s)
        self._probe_rate = RateLimit(1.0, limits.probes_per_s)
        self._probes: set[SocketAddress] = set()
        self._sockets_open = 0
        self._all_sockets_closed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        """Upstream turns any unknown name into a remote call; here it is the typo that it is."""
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # The socket.

    def connection_made(self, transport: Any) -> None:
        self.transport = CheckedTransport(transport, self.counters)
        self._asker.use(self.transport)
        self.host = transport.get_extra_info("sockname")[0]
        self.family_bytes = 16 if ":" in self.host else 4
        self._sockets_open += 1
        self._all_sockets_closed.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sockets_open -= 1
        if self._sockets_open == 0:
            self._all_sockets_closed.set()

    def error_received(self, exc: Exception) -> None:
        self.counters["socket_error"] += 1

    async def close(self) -> None:
        """End every query, as failed, and wait until the socket, closed by the server, is gone."""
        self._asker.close()
        if self._sockets_open:
            await self._all_sockets_closed.wait()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if not BYTES_IN_MIN <= len(data) <= BYTES_IN_MAX:
            self.counters["datagram_size"] += 1
        elif data[0] == REPLY_TYPE:
            self._reply_received(data, (addr[0], addr[1]))
        elif data[0] == QUERY_TYPE:
            self._query_received(data, (addr[0], addr[1]))
        elif data[0] == STATISTICS_QUERY_TYPE:
            self._statistics_asked(data, (addr[0], addr[1]))
        else:
            self.counters["datagram_type"] += 1

    def _reply_received(self, data: bytes, source: SocketAddress) -> None:
        """Whatever is wrong with a reply, the query stays open for the right one."""
        query = self.open_queries.get(data[1:HEADER_BYTES])
        if query is None:
            self.counters["reply_unknown"] += 1
            return
        if source != query.address:
            self.counters["reply_from_another_address"] += 1
            return
        try:
            reply = decode_reply(data)
        except DatagramError as error:
            self.counters[str(error)] += 1
            return
        if reply.network != self._settings.network:
            self.counters["datagram_of_another_network"] += 1
        elif reply.method is not query.query.method:
            self.counters["reply_of_another_method"] += 1
        else:
            self._note_observed(source, reply)
            self._asker.replied(query, reply)

    def _query_received(self, data: bytes, source: SocketAddress) -> None:
        known = self.router.at(source)
        packed = pack_ip(source[0]) if known is None else known.packed
        refusal = self._refusal(packed, source)
        if refusal is not None or packed is None:
            self.counters[refusal or "query_from_refused_address"] += 1
            return
        try:
            query = decode_query(data)
        except DatagramError as error:
            self.counters[str(error)] += 1
            return
        if query.network != self._settings.network:
            self.counters["datagram_of_another_network"] += 1
            return
        if known is not None and known.id == query.sender:
            sender = known
        else:
            sender = Contact(query.sender, packed, source[1])
        if query.method is Method.REACH:
            self._reach(sender, query.address)
            return
        reply = self._reply_to(query, sender)
        encoded = encode_reply(data[1:HEADER_BYTES], reply, reply_bytes_max(len(data)))
        if encoded is None:
            self.counters["query_too_short_for_a_reply"] += 1
            return
        self.transport.sendto(encoded, source)
        if self._query_rate.strained:
            return
        if query.server:
            if sender is not known:
                self.welcome_if_new(sender)
        elif query.prove:
            self._have_reached(sender)

    def _refusal(self, packed: bytes | None, source: SocketAddress) -> str | None:
        """Why a query is dropped unread."""
        host = self._host_of(source)
        if not self.serves:
            if not self.reachability.heard_from(host):
                return "query_to_a_client"
            self.counters["proven_reachable"] += 1
        if packed is None or source[1] == 0 or not self._policy.allows(packed):
            return "query_from_refused_address"
        if not self._query_rate.allow(host, self._settings.elapsed()):
            return "query_over_rate"
        return None

    @property
    def serves(self) -> bool:
        """Whether this node answers, and may be listed."""
        return self.reachability.proven

    def _host_of(self, source: SocketAddress) -> SocketAddress | str:
        """Who counts as one sender. On one machine the ports are the hosts."""
        return source if self._settings.private_addresses else source[0]

    def _have_reached(self, asker: Contact) -> None:
        """The asker wants to know if strangers can reach it: ask one of ours to try."""
        if not self._probe_rate.allow(self._host_of(asker.address), self._settings.elapsed()):
            self.counters["probe_over_rate"] += 1
            return
        number = int.from_bytes(self._settings.entropy(20), "big")
        for helper in self.router.closest(number):
            if self._host_of(helper.address) != self._host_of(asker.address):
                query = self._query(Method.REACH)._replace(address=asker.compact[20:])
                data = encode_query(self._settings.entropy(MESSAGE_ID_BYTES), query)
                self.counters["sent_reach"] += 1
                self.transport.sendto(data, helper.address)
                return

    def _reach(self, asker: Contact, address: bytes) -> None:
        """A contact asks to ping somebody for it. It costs whoever forges this a datagram each."""
        self.counters["query_reach"] += 1
        packed, port = address[:-2], int.from_bytes(address[-2:], "big")
        if self.router.is_new_node(asker) or not self.may_be_node(packed) or port == 0:
            self.counters["reach_refused"] += 1
        elif not self._probe_rate.allow(self._host_of(asker.address), self._settings.elapsed()):
            self.counters["probe_over_rate"] += 1
        else:
            somebody = Contact(bytes(20), packed, port)
            self._asker.ask(somebody.address, self._query(Method.PING), _nothing, None, 1)

    def _statistics_asked(self, data: bytes, source: SocketAddress) -> None:
        """Nobody but this machine may ask: the answer says a lot, and is longer than the query."""
        host = source[0].partition("%")[0]
        if not ipaddress.ip_address(host).is_loopback and host != self.host:
            self.counters["statistics_asked_from_afar"] += 1
            return
        self.counters["statistics_asked"] += 1
        text = json.dumps(self.statistics(), separators=(",", ":")).encode()
        if len(text) <= STATISTICS_BYTES_MAX:
            reply_type = bytes((STATISTICS_REPLY_TYPE,))
            self.transport.sendto(reply_type + data[1:HEADER_BYTES] + text, source)

    def _reply_to(self, query: Query, sender: Contact) -> Reply:
        method = query.method
        self.counters[_RECEIVED[method]] += 1
        observed = sender.compact[20:]
        head = (method, self._settings.network, self.source_node.id, True, observed)
        if method is Method.PING:
            self.rpc_ping(sender, query.sender)
            return Reply(*head)
        now = self._settings.elapsed()
        token = self._tokens.token(sender.packed, sender.port, query.key, now)
        proven = token == query.token or self._tokens.knows(
            query.token, sender.packed, sender.port, query.key, now
        )
        if method is Method.STORE:
            if proven:
                status = self.rpc_store(sender, query.sender, query.key, query.record)
            else:
                status = StoreStatus.TOKEN
                self.counters["store_without_token"] += 1
            return Reply(*head, (), b"", status, token)
        if self._query_rate.strained and not proven:
            self.counters["query_unproven_under_strain"] += 1
            return Reply(*head, (), b"", StoreStatus.REFUSED, token, 0, True)
        if method is Method.FIND_NODE:
            nodes = self.rpc_find_node(sender, query.sender, query.key)
            return Reply(*head, nodes, b"", StoreStatus.REFUSED, token)
        held, nodes = self.rpc_find_value(sender, query.sender, query.key)
        sequence, record = held if held is not None else (0, b"")
        if sequence <= query.sequence:
            record = b""
            if sequence == query.sequence > 0:
                self.storage.looked_after(query.key)
        return Reply(*head, nodes, record, StoreStatus.REFUSED, token, sequence)

    # What others may ask.

    def rpc_ping(self, sender: Contact, nodeid: bytes) -> bytes:
        return bytes(self.source_node.id)

    def rpc_store(self, sender: Contact, nodeid: bytes, key: bytes, value: bytes) -> StoreStatus:
        return self.storage.put(key, value, sender.group)

    def rpc_find_node(self, sender: Contact, nodeid: bytes, key: bytes) -> tuple[bytes, ...]:
        return self.router.suggestions(int.from_bytes(key, "big"), sender.address)

    def rpc_find_value(
        self, sender: Contact, nodeid: bytes, key: bytes
    ) -> tuple[tuple[int, bytes] | None, tuple[bytes, ...]]:
        """Sequence and bytes of the record, if it is here, and in any case the closest nodes:
        others may have a newer one, so a walk does not end here."""
        return self.storage.held(key), self.rpc_find_node(sender, nodeid, key)

    def rpc_stun(self, sender: Contact) -> SocketAddress:
        """Every reply carries it as ``observed``; no datagram calls this."""
        return sender.address

    # What this node asks. Upstream's call_ping, call_store, call_find_* call the coroutines.

    async def ping(self, address: SocketAddress, nodeid: bytes) -> Answer:
        return await self._asker.ask_and_wait(address, self._query(Method.PING))

    async def store(
        self, address: SocketAddress, nodeid: bytes, key: bytes, value: bytes, token: bytes = b""
    ) -> Answer:
        return await self._asker.ask_and_wait(address, self._query(Method.STORE, key, value, token))

    async def find_node(self, address: SocketAddress, nodeid: bytes, key: bytes) -> Answer:
        return await self._asker.ask_and_wait(address, self._query(Method.FIND_NODE, key))

    async def find_value(self, address: SocketAddress, nodeid: bytes, key: bytes) -> Answer:
        return await self._asker.ask_and_wait(address, self._query(Method.FIND_VALUE, key))

    def ask(
        self,
        contact: Contact,
        method: Method,
        ended: Ended,
        *,
        key: bytes = b"",
        record: bytes = b"",
        token: bytes = b"",
        sequence: int = 0,
        tries: int = 2,
    ) -> OpenQuery | None:
        """Send, without a task: ``ended`` is called with the reply, or with None if there was
        none, after the table has been told. None if too many are open."""
        query = self._query(method, key, record, token, sequence)
        return self._asker.ask(contact.address, query, ended, contact, tries)

    def same_for_all(self, method: Method, key: bytes, sequence: int) -> SameForAll:
        """A query to be sent to many by :meth:`ask_the_same`."""
        query = self._query(method, key, sequence=sequence)
        return query, query_body(query)

    def ask_the_same(self, contact: Contact, same: SameForAll, ended: Ended) -> OpenQuery | None:
        """:meth:`ask`, without encoding it once more."""
        query, body = same
        return self._asker.ask(contact.address, query, ended, contact, 2, body)

    def forget(self, query: OpenQuery) -> None:
        """Nobody waits for it any more. A reply is dropped, and its node is not blamed."""
        self.open_queries.close(query)

    def _query(
        self,
        method: Method,
        key: bytes = b"",
        record: bytes = b"",
        token: bytes = b"",
        sequence: int = 0,
    ) -> Query:
        settings = self._settings
        return Query(
            method, settings.network, self.source_node.id, self.serves, key, record, token,
            sequence, method is Method.PING and self.reachability.open,
        )  # fmt: skip

    def _sent_to(self, address: SocketAddress) -> None:
        self.reachability.sent_to(self._host_of(address))

    def _answered(self, contact: Contact, reply: Reply | None) -> None:
        self.handle_call_response((reply is not None, reply), contact)

    def _note_observed(self, address: SocketAddress, reply: Reply) -> None:
        if self._settings.private_addresses:
            return  # Nobody can be told by his address there.
        voter = pack_ip(address[0])
        if voter is not None and self._policy.allows(voter):
            self.votes.cast(voter, reply.observed[:-2])

    @property
    def soft_timeout_s(self) -> float:
        return self._asker.soft_timeout_s

    # Whom this node knows.

    def may_be_node(self, packed: bytes | None) -> bool:
        """Whether a node can be at this IP address, as seen from this one."""
        return (
            packed is not None and len(packed) == self.family_bytes and self._policy.allows(packed)
        )

    def believable(self, contact: Contact) -> bool:
        """Whether a contact that somebody told us of may be asked at all."""
        return self.believe(contact.compact)

    def believe(self, compact: bytes) -> bool:
        """The same, of its compact form: many that a walk hears of are never asked, and never
        become a contact."""
        node_id, packed = compact[:NODE_ID_BYTES], compact[NODE_ID_BYTES:-2]
        if node_id == self.source_node.id or len(packed) != self.family_bytes:
            return False
        if not self._policy.allows(packed):
            self.counters["contact_at_refused_address"] += 1
            return False
        if not fits(node_id, packed) and Contact.unpack(compact).address not in self.seeds:
            self.counters["contact_id_does_not_fit"] += 1
            return False
        return True

    def handle_call_response(self, result: Answer, node: Contact) -> Answer:
        """A contact that answers is in the table, one that does not gets a strike."""
        happened, reply = result
        if not happened or reply is None:
            self.router.strike(node)
            return result
        answered = node
        if reply.sender != node.id:
            self.counters["reply_of_another_id"] += 1
            self.router.remove_contact(node)
            answered = Contact(reply.sender, node.packed, node.port)
        if not reply.server:
            self.router.remove_contact(answered)
        elif not self.router.heard(answered) and self.believable(answered):
            self.router.add_contact(answered)
        return result

    def welcome_if_new(self, node: Contact) -> None:
        """A stranger asked us something. It enters the table only after it has answered a ping,
        sent once, to the address that it seems to have. It is handed no records: whoever
        publishes finds it by itself."""
        if not self.router.wants(node) or not self.believable(node):
            return
        if not self._probe_rate.allow(self._host_of(node.address), self._settings.elapsed()):
            self.counters["probe_over_rate"] += 1
            return
        self._probe(node, tries=1)

    def check(self, node: Contact) -> None:
        """Ping a contact in the background, to learn whether it deserves its place."""
        self._probe(node, tries=2)

    def get_refresh_ids(self) -> list[bytes]:
        return [self.router.refresh_id(bucket) for bucket in self.router.lonely_buckets()]

    def _probe(self, node: Contact, tries: int) -> None:
        if node.address in self._probes or len(self._probes) >= self._limits.probes_max:
            return
        ended = functools.partial(self._probe_ended, node.address)
        if self.ask(node, Method.PING, ended, tries=tries) is not None:
            self._probes.add(node.address)

    def _probe_ended(self, address: SocketAddress, _: Reply | None) -> None:
        self._probes.discard(address)


def _nothing(_: Reply | None) -> None:
    """Whether it answers is the business of who wanted to know."""


_RECEIVED = {method: f"query_{method.name.lower()}" for method in Method}

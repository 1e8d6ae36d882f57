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
from typing import Any

from kademlia.protocol import KademliaProtocol

from lookup_dht.checked_transport import CheckedTransport
from lookup_dht.contact import AddressPolicy, Contact, SocketAddress, pack_ip
from lookup_dht.datagram import (
    BYTES_IN_MAX,
    BYTES_IN_MIN,
    HEADER_BYTES,
    MESSAGE_ID_BYTES,
    QUERY_TYPE,
    REPLY_TYPE,
    DatagramError,
    Method,
    Query,
    Reply,
    StoreStatus,
    decode_query,
    decode_reply,
    encode_query,
    encode_reply,
    reply_bytes_max,
)
from lookup_dht.kademlia_storage import RecordStore
from lookup_dht.kademlia_table import LookupTable
from lookup_dht.node_id import AddressVotes, fits
from lookup_dht.rate_limit import RateLimit
from lookup_dht.round_trip import RoundTripEstimate
from lookup_dht.settings import NodeSettings

__all__ = ["Answer", "LookupProtocol"]

Answer = tuple[bool, Reply | None]
"""Whether there was a reply, and the reply: what upstream's ``call_*`` pass on."""

_Waiting = tuple[SocketAddress, Method, "asyncio.Future[Reply]"]


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
        self.family_bytes = 4
        """4 or 16: the length of the addresses that the socket can send to."""
        self.seeds: set[SocketAddress] = set()
        """Addresses that the user named. Their ids may not fit: a seed that listens on 0.0.0.0
        learns its address from the first nodes that join."""
        self._settings = settings
        self._limits = limits
        self._policy = AddressPolicy(private_addresses=settings.private_addresses)
        self._pending: dict[bytes, _Waiting] = {}
        self._round_trip = RoundTripEstimate(limits.reply_timeout_min_s, limits.reply_timeout_max_s)
        self._query_rate = RateLimit(limits.source_queries_per_s, limits.queries_per_s)
        self._probe_rate = RateLimit(1.0, limits.probes_per_s)
        self._probes: dict[SocketAddress, asyncio.Task[None]] = {}
        self._sockets_open = 0
        self._all_sockets_closed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        """Upstream turns any unknown name into a remote call; here it is the typo that it is."""
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # The socket.

    def connection_made(self, transport: Any) -> None:
        self.transport = CheckedTransport(transport, self.counters)
        self.family_bytes = 16 if ":" in transport.get_extra_info("sockname")[0] else 4
        self._sockets_open += 1
        self._all_sockets_closed.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sockets_open -= 1
        if self._sockets_open == 0:
            self._all_sockets_closed.set()

    def error_received(self, exc: Exception) -> None:
        self.counters["socket_error"] += 1

    async def close(self) -> None:
        """End every probe and wait until the socket, closed by the server, is gone."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        if probes:
            await asyncio.wait(probes)
        if self._sockets_open:
            await self._all_sockets_closed.wait()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if not BYTES_IN_MIN <= len(data) <= BYTES_IN_MAX:
            self.counters["datagram_size"] += 1
        elif data[0] == REPLY_TYPE:
            self._reply_received(data, (addr[0], addr[1]))
        elif data[0] == QUERY_TYPE:
            self._query_received(data, (addr[0], addr[1]))
        else:
            self.counters["datagram_type"] += 1

    def _reply_received(self, data: bytes, source: SocketAddress) -> None:
        """Whatever is wrong with a reply, the query stays open for the right one."""
        waiting = self._pending.get(data[1:HEADER_BYTES])
        if waiting is None:
            self.counters["reply_unknown"] += 1
            return
        address, method, future = waiting
        if source != address:
            self.counters["reply_from_another_address"] += 1
            return
        try:
            reply = decode_reply(data)
        except DatagramError as error:
            self.counters[str(error)] += 1
            return
        if reply.network != self._settings.network:
            self.counters["datagram_of_another_network"] += 1
        elif reply.method is not method:
            self.counters["reply_of_another_method"] += 1
        elif not future.done():
            future.set_result(reply)

    def _query_received(self, data: bytes, source: SocketAddress) -> None:
        packed = pack_ip(source[0])
        if not self._settings.server:
            self.counters["query_to_a_client"] += 1
            return
        if packed is None or source[1] == 0 or not self._policy.allows(packed):
            self.counters["query_from_refused_address"] += 1
            return
        # On one machine the ports are the hosts.
        host = source if self._settings.private_addresses else source[0]
        if not self._query_rate.allow(host, self._settings.elapsed()):
            self.counters["query_over_rate"] += 1
            return
        try:
            query = decode_query(data)
        except DatagramError as error:
            self.counters[str(error)] += 1
            return
        if query.network != self._settings.network:
            self.counters["datagram_of_another_network"] += 1
            return
        sender = Contact(query.sender, packed, source[1])
        reply = self._reply_to(query, sender)
        encoded = encode_reply(data[1:HEADER_BYTES], reply, reply_bytes_max(len(data)))
        if encoded is None:
            self.counters["query_too_short_for_a_reply"] += 1
            return
        self.transport.sendto(encoded, source)
        if query.server:
            self.welcome_if_new(sender)

    def _reply_to(self, query: Query, sender: Contact) -> Reply:
        self.counters[f"query_{query.method.name.lower()}"] += 1
        nodes: list[Contact] = []
        record = b""
        status = StoreStatus.REFUSED
        match query.method:
            case Method.PING:
                self.rpc_ping(sender, query.sender)
            case Method.FIND_NODE:
                nodes = self.rpc_find_node(sender, query.sender, query.key)
            case Method.FIND_VALUE:
                record, nodes = self.rpc_find_value(sender, query.sender, query.key)
            case Method.STORE:
                status = self.rpc_store(sender, query.sender, query.key, query.record)
        return Reply(
            query.method,
            self._settings.network,
            self.source_node.id,
            True,
            sender.packed + sender.port.to_bytes(2, "big"),
            tuple(nodes),
            record,
            status,
        )

    # What others may ask.

    def rpc_ping(self, sender: Contact, nodeid: bytes) -> bytes:
        return bytes(self.source_node.id)

    def rpc_store(self, sender: Contact, nodeid: bytes, key: bytes, value: bytes) -> StoreStatus:
        return self.storage.put(key, value)

    def rpc_find_node(self, sender: Contact, nodeid: bytes, key: bytes) -> list[Contact]:
        target = Contact(key, sender.packed, sender.port)
        return self.router.find_neighbors(target, exclude=sender, live_only=True)

    def rpc_find_value(
        self, sender: Contact, nodeid: bytes, key: bytes
    ) -> tuple[bytes, list[Contact]]:
        """The record, if it is here, and in any case the closest nodes: others may have a newer
        one, so a walk does not end here."""
        return self.storage.get(key) or b"", self.rpc_find_node(sender, nodeid, key)

    def rpc_stun(self, sender: Contact) -> SocketAddress:
        """Every reply carries it as ``observed``; no datagram calls this."""
        return sender.address

    # What this node asks. Upstream's call_ping, call_store, call_find_* call these.

    async def ping(self, address: SocketAddress, nodeid: bytes) -> Answer:
        return await self._ask(address, self._query(Method.PING))

    async def store(
        self, address: SocketAddress, nodeid: bytes, key: bytes, value: bytes
    ) -> Answer:
        return await self._ask(address, self._query(Method.STORE, key, value))

    async def find_node(self, address: SocketAddress, nodeid: bytes, key: bytes) -> Answer:
        return await self._ask(address, self._query(Method.FIND_NODE, key))

    async def find_value(self, address: SocketAddress, nodeid: bytes, key: bytes) -> Answer:
        return await self._ask(address, self._query(Method.FIND_VALUE, key))

    def _query(self, method: Method, key: bytes = b"", record: bytes = b"") -> Query:
        return Query(
            method, self._settings.network, self.source_node.id, self._settings.server, key, record
        )

    async def _ask(self, address: SocketAddress, query: Query, tries: int = 2) -> Answer:
        """Send, and once more if need be. Cancelling this frees everything."""
        if len(self._pending) >= self._limits.pending_queries_max:
            self.counters["pending_queries_full"] += 1
            return False, None
        message_id = self._settings.entropy(MESSAGE_ID_BYTES)
        data = encode_query(message_id, query)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[message_id] = (address, query.method, future)
        try:
            for attempt in range(tries):
                sent_at = self._settings.elapsed()
                self.counters[f"sent_{query.method.name.lower()}"] += 1
                self.transport.sendto(data, address)
                await asyncio.wait((future,), timeout=self._round_trip.timeout_s)
                if future.done():
                    if attempt == 0:
                        self._round_trip.observe(self._settings.elapsed() - sent_at)
                    reply = future.result()
                    self._note_observed(address, reply)
                    return True, reply
            return False, None
        finally:
            del self._pending[message_id]

    def _note_observed(self, address: SocketAddress, reply: Reply) -> None:
        voter = pack_ip(address[0])
        if voter is not None and self._policy.allows(voter):
            self.votes.cast(voter, reply.observed[:-2])

    @property
    def soft_timeout_s(self) -> float:
        return self._round_trip.soft_timeout_s(self._limits.soft_timeout_s)

    # Whom this node knows.

    def believable(self, contact: Contact) -> bool:
        """Whether a contact that somebody told us of may be asked at all."""
        if contact.id == self.source_node.id or len(contact.packed) != self.family_bytes:
            return False
        if not self._policy.allows(contact.packed):
            self.counters["contact_at_refused_address"] += 1
            return False
        if not fits(contact.id, contact.packed) and contact.address not in self.seeds:
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
        elif self.believable(answered):
            self.router.add_contact(answered)
        return result

    def welcome_if_new(self, node: Contact) -> None:
        """A stranger asked us something. It enters the table only after it has answered a ping,
        sent once, to the address that it seems to have. It is handed no records: whoever
        publishes finds it by itself."""
        if not self.router.wants(node) or not self.believable(node):
            return
        host = node.address if self._settings.private_addresses else node.ip
        if not self._probe_rate.allow(host, self._settings.elapsed()):
            self.counters["probe_over_rate"] += 1
            return
        self._probe(node, tries=1)

    def check(self, node: Contact) -> None:
        """Ping a contact in the background, to learn whether it deserves its place."""
        self._probe(node, tries=2)

    def get_refresh_ids(self) -> list[bytes]:
        return [self.router.random_id_in(bucket) for bucket in self.router.lonely_buckets()]

    def _probe(self, node: Contact, tries: int) -> None:
        if node.address in self._probes or len(self._probes) >= self._limits.probes_max:
            return
        task = asyncio.get_running_loop().create_task(self._ping_and_note(node, tries))
        self._probes[node.address] = task
        task.add_done_callback(lambda _: self._probes.pop(node.address))

    async def _ping_and_note(self, node: Contact, tries: int) -> None:
        answer = await self._ask(node.address, self._query(Method.PING), tries)
        self.handle_call_response(answer, node)

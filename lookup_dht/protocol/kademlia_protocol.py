# ruff: noqa: ARG002  (the arguments are those that upstream passes)
"""The datagram path of a node: kademlia's protocol, reduced to the methods strangers may call.

Upstream's contract is kept: ``rpc_*`` answer, ``call_*`` ask and report to
``handle_call_response``, ``welcome_if_new`` meets strangers. How a datagram becomes a call is
replaced: one synchronous function checks everything before it does anything, and creates no task.
Gone are upstream's RPCs by ``__getattr__``, its map of pending queries, which leaks when a lookup
is cancelled, and its hand-over of every record to every new node.
"""

from __future__ import annotations

import asyncio
import collections
import ipaddress
import json
from collections.abc import Callable
from typing import Any

from kademlia.protocol import KademliaProtocol

from egtp.errors import NodeClosed
from lookup_dht.protocol.acquaintance import Acquaintances
from lookup_dht.protocol.answering import Answerer
from lookup_dht.protocol.asking import Answer, Asker, Ended
from lookup_dht.protocol.checked_transport import CheckedTransport
from lookup_dht.protocol.open_queries import OpenQuery
from lookup_dht.protocol.reachability import Reachability
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.settings import NodeSettings
from lookup_dht.statistics import STATISTICS_BYTES_MAX
from lookup_dht.table.kademlia_table import LookupTable
from lookup_dht.wire.contact import Contact, SocketAddress
from lookup_dht.wire.datagram import (
    BYTES_IN_MAX,
    BYTES_IN_MIN,
    HEADER_BYTES,
    QUERY_TYPE,
    REPLY_TYPE,
    STATISTICS_QUERY_TYPE,
    STATISTICS_REPLY_TYPE,
    Method,
    StoreStatus,
)

__all__ = ["Answer", "LookupProtocol"]


class LookupProtocol(KademliaProtocol):  # type: ignore[misc]
    """One node's side of the protocol. It outlives its socket: see :meth:`LookupServer.listen`.

    Answering, asking, and deciding whom to believe are delegated to three objects.
    """

    def __init__(
        self,
        source_node: Any,
        storage: RecordStore,
        ksize: int,
        settings: NodeSettings,
        counters: collections.Counter[str],
    ) -> None:
        super().__init__(source_node, storage, ksize)
        self.source_node: Any = source_node
        self.storage: RecordStore = storage
        self.router = LookupTable(self, ksize, source_node, settings, counters)
        self.reachability = Reachability(settings.server, settings.limits)
        self.acquaintances = Acquaintances(self.router, settings, counters)
        self.asker = Asker(
            settings,
            counters,
            lambda: bytes(self.router.node.id),
            self.reachability,
            self.acquaintances.answered,
        )
        self.acquaintances.asker = self.asker
        self.answerer = Answerer(
            self, self.router, self.acquaintances, self.reachability, settings, counters
        )
        self.transport: CheckedTransport
        self.counters = counters
        self.statistics: Callable[[], dict[str, Any]] = dict
        """Called for the statistics that a program on this machine asks for."""
        self.host = ""
        """The address that the socket is bound to."""
        self._by_type: dict[int, Callable[[bytes, tuple[Any, ...]], None]] = {
            QUERY_TYPE: self.answerer.query_received,
            REPLY_TYPE: self.asker.reply_received,
            STATISTICS_QUERY_TYPE: self._statistics_asked,
        }
        self._socket: Any = None
        """The one that is sent through."""
        self._sockets_open = 0
        self._all_sockets_closed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        """Upstream turns any unknown name into a remote call; here it is an error as usual."""
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # The socket.

    def connection_made(self, transport: Any) -> None:
        self.use(transport)
        self._sockets_open += 1
        self._all_sockets_closed.clear()

    def use(self, transport: Any) -> None:
        """Send through this socket from now on."""
        self._socket = transport
        self.transport = CheckedTransport(transport, self.counters)
        self.asker.use(self.transport)
        self.answerer.transport = self.transport
        self.host = transport.get_extra_info("sockname")[0]
        self.acquaintances.family_bytes = 16 if ":" in self.host else 4

    def take_back(self, transport: Any) -> None:
        """Opening another socket was cancelled: send through this one, if any, again. The loops of
        asyncio close the other one by then; uvloop leaves it open, and nobody else knows of it."""
        if self._socket is not transport:
            self._socket.close()
        if transport is not None:
            self.use(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sockets_open -= 1
        if self._sockets_open == 0:
            self._all_sockets_closed.set()

    def error_received(self, exc: Exception) -> None:
        self.counters["socket_error"] += 1
        self.transport.error_received(exc)

    async def close(self) -> None:
        """End every open query as failed, and wait until the socket, which the server has closed,
        is gone."""
        self.asker.close()
        if self._sockets_open:
            await self._all_sockets_closed.wait()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if not BYTES_IN_MIN <= len(data) <= BYTES_IN_MAX:
            self.counters["datagram_size"] += 1
            return
        received = self._by_type.get(data[0])
        if received is None:
            self.counters["datagram_type"] += 1
        else:
            received(data, addr[:2])  # IPv6 addresses have a flow and a scope too.

    def _statistics_asked(self, data: bytes, source: SocketAddress) -> None:
        """Answered to this machine only: the answer reveals a lot, and is longer than the query."""
        host = source[0].partition("%")[0]
        if not ipaddress.ip_address(host).is_loopback and host != self.host:
            self.counters["statistics_asked_from_afar"] += 1
            return
        try:
            told = self.statistics()
        except NodeClosed:
            return  # The socket stays open a little longer than the node runs.
        self.counters["statistics_asked"] += 1
        text = json.dumps(told, separators=(",", ":")).encode()
        if len(text) <= STATISTICS_BYTES_MAX:
            reply_type = bytes((STATISTICS_REPLY_TYPE,))
            self.transport.sendto(reply_type + data[1:HEADER_BYTES] + text, source)

    def take_id(self, node_id: bytes) -> None:
        """Be known by another id from now on. Whoever shares :attr:`source_node` has it at once."""
        self.source_node.id, self.source_node.long_id = node_id, int.from_bytes(node_id, "big")
        self.router.sort_again()
        self.storage.center = node_id
        self.counters["node_id_changed"] += 1

    # What others may ask.

    def rpc_ping(self, sender: Contact, nodeid: bytes) -> bytes:
        """Part of upstream's contract; no datagram calls it: every reply has the id as
        ``sender``."""
        return bytes(self.source_node.id)

    def rpc_store(self, sender: Contact, nodeid: bytes, key: bytes, value: bytes) -> StoreStatus:
        return self.storage.put(key, value, sender.group)

    def rpc_find_node(self, sender: Contact, nodeid: bytes, key: bytes) -> tuple[bytes, ...]:
        return self.router.suggestions(int.from_bytes(key, "big"), sender.address)

    def rpc_find_value(
        self, sender: Contact, nodeid: bytes, key: bytes
    ) -> tuple[tuple[int, bytes] | None, tuple[bytes, ...]]:
        """Sequence and bytes of the record, if held here, and always the closest nodes too: they
        may hold a newer one, so the walk goes on."""
        return self.storage.held(key), self.rpc_find_node(sender, nodeid, key)

    def rpc_stun(self, sender: Contact) -> SocketAddress:
        """Part of upstream's contract; no datagram calls it: every reply has the address as
        ``observed``."""
        return sender.address

    # What this node asks. Upstream's call_ping, call_store and call_find_* await these coroutines.

    async def ping(self, address: SocketAddress, nodeid: bytes) -> Answer:
        return await self.asker.ask_and_wait(address, self.asker.query(Method.PING))

    async def store(
        self, address: SocketAddress, nodeid: bytes, key: bytes, value: bytes, token: bytes = b""
    ) -> Answer:
        query = self.asker.query(Method.STORE, key, value, token)
        return await self.asker.ask_and_wait(address, query)

    async def find_node(self, address: SocketAddress, nodeid: bytes, key: bytes) -> Answer:
        return await self.asker.ask_and_wait(address, self.asker.query(Method.FIND_NODE, key))

    async def find_value(self, address: SocketAddress, nodeid: bytes, key: bytes) -> Answer:
        return await self.asker.ask_and_wait(address, self.asker.query(Method.FIND_VALUE, key))

    def ask(
        self,
        contact: Contact,
        method: Method,
        ended: Ended,
        *,
        key: bytes = b"",
        record: bytes = b"",
        token: bytes = b"",
    ) -> OpenQuery | None:
        """Send a query without a task. ``ended`` is called with the reply, or None if there was
        none, after the table was updated. Returns None, and never calls it, if the query cannot be
        sent."""
        query = self.asker.query(method, key, record, token)
        return self.asker.ask(contact.address, query, ended, contact, 2)

    # Whom this node knows.

    def handle_call_response(self, result: Answer, node: Contact) -> Answer:
        """Update the table: a contact that answers enters or stays, a silent one gets a strike."""
        self.acquaintances.answered(node, result[1])
        return result

    def welcome_if_new(self, node: Contact) -> None:
        """A server, possibly a stranger, asked us something."""
        self.acquaintances.asked(node, known=False, server=True, prove=False)

    def check(self, node: Contact) -> None:
        """Ping a contact in the background, to learn whether it deserves its place."""
        self.acquaintances.check(node)

    def get_refresh_ids(self) -> list[bytes]:
        return [self.router.refresh_id(bucket) for bucket in self.router.lonely_buckets()]

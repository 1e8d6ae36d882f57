"""Liars: nodes of one party in a town, who answer in time and in form, but not truly."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from benchmarks.dht.sybils import places_near
from lookup_dht.wire.contact import Contact, pack_ip
from lookup_dht.wire.datagram import (
    DatagramError,
    Method,
    Query,
    Reply,
    StoreStatus,
    decode_query,
    encode_query,
    encode_reply,
)
from lookup_dht.wire.node_id import new_node_id
from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.nat import Endpoint
from simulations.virtual.stream import StreamTransport
from tests.lookup_dht.town import Town, distance

__all__ = ["Gauge", "Liar", "Liars"]

PORT: Final = 9000
Names = Callable[["Liar", Query], tuple[bytes, ...]]


class Liar(asyncio.DatagramProtocol):
    """One of them, with a socket of its own."""

    def __init__(self, liars: Liars, address: str, node_id: bytes) -> None:
        packed = pack_ip(address)
        assert packed is not None
        self.contact: Final = Contact(node_id, packed, PORT)
        self.asked = Counter[Method]()
        self._liars = liars
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data[0] != 0:
            return
        with suppress(DatagramError):
            query = decode_query(data)
            self.asked[query.method] += 1
            reply = self._liars.reply(self, query, addr)
            if reply is not None:
                encoded = encode_reply(data[1:21], reply, 1200)
                asyncio.get_running_loop().call_later(
                    self._liars.delay_s, self.transport.sendto, encoded, addr
                )

    def ask(self, address: tuple[str, int], method: Method, key: bytes, **fields: Any) -> None:
        query = Query(method, "main", self.contact.id, True, key, **fields)
        self.transport.sendto(encode_query(self._liars.rng.randbytes(20), query), address)


class Liars:
    """All of them."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.rng = random.Random(f"{town.network.seed}/liars")
        self.all: list[Liar] = []
        self.delay_s = 0.0
        self.names: Names = self.each_other
        """Whom they name to who asks for nodes."""
        self.records: dict[bytes, tuple[int, bytes]] = {}
        """What they give out for records."""
        self.observed: bytes | None = None
        """Where they say that they see whoever asks."""
        self._endless: dict[bytes, Any] = {}

    async def settle(self, count: int, near: bytes | None = None, per_network: int = 1) -> None:
        """So many more of them move in: anywhere, or where ids may be next to a key."""
        places = None if near is None else places_near(near, self.rng)
        for number in range(count):
            if places is not None and near is not None:
                place = next(places)
                address, node_id = place.address, place.node_id(near, self.rng)
            else:
                of_all = len(self.all) + number
                net, host = of_all // per_network, of_all % per_network + 1
                address = f"{40 + net % 50}.{net // 50}.7.{host}"
                node_id = new_node_id(pack_ip(address), self.rng.randbytes)
            await self.move_in(address, node_id)
        await self.say_hello()

    async def move_in(self, address: str, node_id: bytes) -> Liar:
        liar = Liar(self, address, node_id)
        host = self.town.network.host(f"liar-{address}", address)
        opening = asyncio.get_running_loop().create_datagram_endpoint(
            lambda: liar, local_addr=(address, PORT)
        )
        await host.run(opening)
        self.all.append(liar)
        return liar

    async def say_hello(self) -> None:
        """Ask all honest nodes something, so that they ping back."""
        for liar in self.all:
            for host in self.town.hosts:
                liar.ask((host.addresses[0], 9000), Method.FIND_NODE, liar.contact.id)
            await asyncio.sleep(5)  # A node meets 20 strangers a second.

    def reply(self, liar: Liar, query: Query, source: tuple[Any, ...]) -> Reply | None:
        packed = pack_ip(source[0])
        assert packed is not None
        observed = self.observed or packed + source[1].to_bytes(2, "big")
        head = Reply(query.method, "main", liar.contact.id, True, observed)
        match query.method:
            case Method.PING:
                return head
            case Method.REACH:
                return None
            case Method.STORE:
                return head._replace(token=b"token", status=StoreStatus.STORED)
        nodes = self.names(liar, query)
        sequence, record = self.records.get(query.key, (0, b""))
        if query.method is Method.FIND_NODE:
            sequence, record = 0, b""
        record = record if sequence > query.sequence else b""
        return head._replace(token=b"token", nodes=nodes, sequence=sequence, record=record)

    # Whom they name

    def each_other(self, liar: Liar, query: Query) -> tuple[bytes, ...]:
        """Those of them next to the key."""
        others = [it.contact for it in self.all if it is not liar]
        near = heapq.nsmallest(20, others, key=lambda it: distance(it.id, query.key))
        return tuple(it.compact for it in near)

    def any_others(self, liar: Liar, query: Query) -> tuple[bytes, ...]:
        """Any of them that are nearer to the key than most of the world."""
        target = query.key[:2]
        others = [it.contact for it in self.all if it is not liar and it.contact.id[:2] == target]
        others = others or [it.contact for it in self.all if it is not liar]
        return tuple(it.compact for it in self.rng.sample(others, min(20, len(others))))

    def inventions(self, _: Liar, query: Query) -> tuple[bytes, ...]:
        """Nodes next to the key that do not exist, each in a network of its own."""
        places = self._places(query.key)
        return tuple(
            Contact(place.node_id(query.key, self.rng), pack_ip(place.address) or b"", PORT).compact
            for place in places
        )

    def _places(self, key: bytes) -> list[Any]:
        endless = self._endless.setdefault(key, places_near(key, self.rng))
        return [next(endless) for _ in range(20)]


class Gauge:
    """Reads every line, and counts what honest nodes send."""

    def __init__(self, town: Town) -> None:
        self.sent = Counter[str]()
        """Datagrams, by the address that sent them."""
        self.got = Counter[str]()
        """Datagrams, by the address that they went to."""
        self.got_bytes = Counter[str]()
        town.network.tap = self

    def takes_datagram(self, socket: DatagramTransport, data: bytes, target: Endpoint) -> bool:
        self.sent[socket.host.addresses[0]] += data[0] == 0
        self.got[target[0]] += 1
        self.got_bytes[target[0]] += len(data)
        return False

    def wrote(self, stream: StreamTransport, data: bytes) -> None:
        pass

    def takes(self, stream: StreamTransport, piece: object) -> bool:
        return False

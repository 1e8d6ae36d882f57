"""Liars: nodes of one party in a town, who answer in time and in form, but not truly."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from benchmarks.dht.sybils import Place, places_near
from lookup_dht.wire.contact import Contact, pack_ip
from lookup_dht.wire.datagram import (
    NODES_MAX,
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
        self._liars = liars
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data[0] != 0:
            return
        with suppress(DatagramError):
            query = decode_query(data)
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
        self._places: dict[bytes, Iterator[Place]] = {}

    async def settle(self, count: int) -> None:
        """So many more of them move in, each in a network of its own."""
        for number in range(len(self.all), len(self.all) + count):
            address = f"{40 + number % 50}.{number // 50}.7.1"
            await self.move_in(address, new_node_id(pack_ip(address), self.rng.randbytes))
        await self.say_hello()

    async def settle_around(self, key: bytes, count: int) -> None:
        """The same, where ids may be next to a key."""
        for place in itertools.islice(places_near(key, self.rng), count):
            await self.move_in(place.address, place.node_id(key, self.rng))
        await self.say_hello()

    async def settle_in_one_network(self, key: bytes, count: int) -> None:
        """The same in a /24, with the ids closest to a key that there can be in it."""
        ids = []
        for last, choice in itertools.product(range(1, 255), range(8)):
            address = f"40.1.7.{last}"
            node_id = new_node_id(pack_ip(address), bytes((choice,)).__mul__)
            ids.append((distance(node_id, key), address, node_id))
        near: dict[str, bytes] = {}
        for _, address, node_id in sorted(ids):
            near.setdefault(address, node_id)
        for address, node_id in itertools.islice(near.items(), count):
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
            await asyncio.sleep(0.2)  # A node meets 20 strangers a second.

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
        near = heapq.nsmallest(NODES_MAX, others, key=lambda it: distance(it.id, query.key))
        return tuple(it.compact for it in near)

    def any_others(self, liar: Liar, _: Query) -> tuple[bytes, ...]:
        """Any of them."""
        others = [it.contact.compact for it in self.all if it is not liar]
        return tuple(self.rng.sample(others, min(NODES_MAX, len(others))))

    def inventions(self, _: Liar, query: Query) -> tuple[bytes, ...]:
        """Nodes next to the key that do not exist, each in a network of its own."""
        places = self._places.setdefault(query.key, places_near(query.key, self.rng))
        return tuple(
            self._at(place, query.key, PORT) for place in itertools.islice(places, NODES_MAX)
        )

    def a_victim(self, place: Place) -> Names:
        """Nodes next to the key on many ports of one address, where there is no node."""

        def names(_: Liar, query: Query) -> tuple[bytes, ...]:
            ports = self.rng.sample(range(1024, 65536), NODES_MAX)
            return tuple(self._at(place, query.key, port) for port in ports)

        return names

    def _at(self, place: Place, key: bytes, port: int) -> bytes:
        packed = pack_ip(place.address)
        assert packed is not None
        return Contact(place.node_id(key, self.rng), packed, port).compact


class Gauge:
    """Reads every line, and counts."""

    def __init__(self, town: Town) -> None:
        self.asked = Counter[str]()
        """Datagrams with queries, by the address that sent them."""
        self.got = Counter[str]()
        """Datagrams, by the address that they went to."""
        self.got_bytes = Counter[str]()
        town.network.tap = self

    def takes_datagram(self, socket: DatagramTransport, data: bytes, target: Endpoint) -> bool:
        self.asked[socket.host.addresses[0]] += data[0] == 0
        self.got[target[0]] += 1
        self.got_bytes[target[0]] += len(data)
        return False

    def wrote(self, stream: StreamTransport, data: bytes) -> None:
        pass

    def takes(self, stream: StreamTransport, piece: object) -> bool:
        return False

"""Nodes, records to put into them, and strangers with a bare socket; most in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import Identity
from lookup_dht import DHTLimits, DHTLookup
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.datagram import Method, Query, Reply, decode_query, encode_query, encode_reply
from simulations.virtual import Network
from simulations.virtual.loop import VirtualLoop
from tests.lookup_dht.at_hand import Start

# In real time no answer is too late, however busy the machine is.
PATIENT = DHTLimits(reply_timeout_min_s=60, reply_timeout_max_s=60, walk_timeout_s=60)


@pytest.fixture
def identity() -> Identity:
    return Identity.generate(random.Random(1).randbytes)


@pytest.fixture
def sign() -> Callable[..., SignedCommRecord]:
    def sign(
        identity: Identity, sequence: int, *, expiry: int | None = None, port: int = 4000
    ) -> SignedCommRecord:
        content = CommRecord(
            int(time.time()) + 3600 if expiry is None else expiry,
            bytes(8),
            ((SUITE_AESGCM, identity.channel_key),),
            (TCPStrat(Address(b"\x7f\x00\x00\x01", port)),),
        )
        return SignedCommRecord.sign(identity, sequence, content)

    return sign


def virtual_loop() -> asyncio.AbstractEventLoop:
    """That of a machine with all addresses that anybody here listens on."""
    network = Network(seed=1)
    network.host("this", *(f"127.0.{net}.{number}" for net in range(10) for number in range(1, 10)))
    return network.loop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Virtual time, so that no answer is late because a machine is busy, but for what is about
    real sockets, processes and files."""
    real: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    match item.path.name:
        case "test_hostile_datagrams.py":
            return {**real, "uvloop": uvloop.new_event_loop}
        case "test_program.py" | "test_real_sockets.py" | "test_record_file.py":
            return real
        case "test_start_and_end.py":
            return {**real, "uvloop": uvloop.new_event_loop, "virtual": virtual_loop}
    return {"virtual": virtual_loop}


class RawPeer(asyncio.DatagramProtocol):
    """A stranger: sends any bytes, keeps what arrives, and answers queries as it is told."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()
        self.answer: Callable[[bytes], bytes | None] | None = None
        self.id = os.urandom(20)
        self.transport: Any = None

    @classmethod
    async def open(cls, host: str = "127.0.9.9") -> RawPeer:
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_datagram_endpoint(cls, local_addr=(host, 0))
        return peer

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data[0] == 0 and self.answer is not None:
            answer = self.answer(data)
            if answer is not None:
                self.transport.sendto(answer, addr)
        else:
            self.received.put_nowait((data, (addr[0], addr[1])))

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port

    @property
    def contact(self) -> Contact:
        return Contact(self.id, bytes(map(int, self.address[0].split("."))), self.address[1])

    def send(self, data: bytes, node: DHTLookup) -> None:
        self.transport.sendto(data, (node.address.host, node.address.port))

    def query(self, method: Method, node: DHTLookup, **fields: Any) -> bytes:
        """Send a well-formed query; its bytes."""
        sender = fields.pop("sender", self.id)
        network, server = fields.pop("network", "main"), fields.pop("server", False)
        query = Query(method, network, sender, server, **fields)
        data = encode_query(os.urandom(20), query)
        self.send(data, node)
        return data

    async def reply(self) -> bytes:
        """The next reply that arrives."""
        async with asyncio.timeout(5):
            while True:
                data, _ = await self.received.get()
                if data[0] == 1:
                    return data

    async def ask(self, method: Method, node: DHTLookup, **fields: Any) -> bytes:
        self.query(method, node, **fields)
        return await self.reply()

    def as_server(self, data: bytes, **fields: Any) -> bytes | None:
        """The reply of an honest server to the query ``data``, but for ``fields``."""
        fields = {
            "sender": self.id, "server": True, "observed": bytes(6), "token": b"token", **fields,
        }  # fmt: skip
        return encode_reply(data[1:21], Reply(decode_query(data).method, "main", **fields), 1200)

    def close(self) -> None:
        self.transport.close()


@pytest.fixture
def raw_peer_type() -> type[RawPeer]:
    return RawPeer


@pytest.fixture
async def open_raw() -> AsyncIterator[Callable[..., Awaitable[RawPeer]]]:
    """Open strangers; all are closed in the end."""
    peers: list[RawPeer] = []

    async def open_raw(host: str = "127.0.9.9") -> RawPeer:
        peers.append(await RawPeer.open(host))
        return peers[-1]

    yield open_raw
    for peer in peers:
        peer.close()


@pytest.fixture
async def loop_errors() -> AsyncIterator[list[dict[str, Any]]]:
    """What reached the loop's exception handler. The test fails if anything did."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    yield errors
    assert errors == []


@pytest.fixture
async def start(loop_errors: list[dict[str, Any]]) -> AsyncIterator[Start]:
    """Start nodes with private addresses; all are closed in the end."""
    nodes: list[DHTLookup] = []

    async def start(*bootstrap: DHTLookup | str, **options: Any) -> DHTLookup:
        loop = asyncio.get_running_loop()
        limits = DHTLimits() if isinstance(loop, VirtualLoop) else PATIENT
        options = {
            "private_addresses": True, "limits": limits, "elapsed": loop.time, **options,
        }  # fmt: skip
        seeds = [str(it.address) if isinstance(it, DHTLookup) else it for it in bootstrap]
        node = DHTLookup(options.pop("listen", "127.0.0.1:0"), seeds, **options)
        nodes.append(node)
        await node.start()
        return node

    yield start
    for node in nodes:
        await node.close()


@pytest.fixture
async def network(start: Start) -> Callable[..., Awaitable[list[DHTLookup]]]:
    async def network(count: int, **options: Any) -> list[DHTLookup]:
        nodes = [await start(**options)]
        for _ in range(count - 1):
            nodes.append(await start(nodes[0], **options))
        return nodes

    return network


@pytest.fixture
def ids() -> Iterator[bytes]:
    """Ids without end, the same in each run."""
    return (hashlib.sha256(b"%d" % number).digest()[:20] for number in itertools.count())

"""Connections of the real class, and what they tell, on every event loop.

Every test of this folder runs on asyncio's own event loop, on uvloop, and on the simulated one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import pytest
import uvloop

from egtp.config import NodeConfig
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.tcp.connection import TCPConnection
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import NodeId
from simulations.virtual import Network

LIMIT_S: Final = 8.0
"""How long anything may take here before the test gives up. Nothing comes near it."""
SERVER: Final = "127.0.0.1"
CLIENT: Final = "127.0.0.2"
ALSO_CLIENT: Final = "127.0.0.3"
"""Another address of the same machine."""


def virtual_loop() -> asyncio.AbstractEventLoop:
    network = Network(seed=1)
    network.host("one", SERVER)
    network.host("two", CLIENT, ALSO_CLIENT)
    return network.loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test once per event loop."""
    return {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
        "virtual": virtual_loop,
    }


class Watcher:
    """Owns one connection: notes what it tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.connection: TCPConnection = None  # type: ignore[assignment]  # set by Net
        self.calls: list[str] = []
        self.packets: list[bytes] = []
        self.reason: str | None = None
        self.on_closed: Callable[[], object] = lambda: None
        self.on_writable: Callable[[], object] = lambda: None
        self._called = asyncio.Event()

    def note(self, call: str) -> None:
        self.calls.append(call)
        self._called.set()

    def opened(self, connection: TCPConnection) -> None:
        self.note("opened")

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        self.packets.append(packet)
        self._called.set()

    def read(self, connection: TCPConnection) -> None:
        pass

    def writable(self, connection: TCPConnection) -> None:
        assert connection.takes_more
        self.on_writable()
        self.note("writable")

    def garbage(self, reason: str) -> None:
        self.note("garbage")

    def closing(self, connection: TCPConnection) -> None:
        assert not connection.takes_more
        self.note("closing")

    def closed(self, connection: TCPConnection, reason: str) -> None:
        assert connection.is_closed
        assert not connection.takes_more
        self.reason = reason
        self.on_closed()
        self.note("closed")

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait for something that comes about by a call."""
        async with asyncio.timeout(LIMIT_S):
            while not predicate():
                self._called.clear()
                await self._called.wait()

    async def has(self, packets: list[bytes]) -> None:
        """Wait for so many packets, which must be these."""
        await self.until(lambda: len(self.packets) >= len(packets) or self.reason is not None)
        assert list(map(len, self.packets)) == list(map(len, packets))
        assert self.packets == packets

    async def ended(self) -> str:
        """Wait for the end, and return its reason."""
        await self.until(lambda: self.reason is not None)
        assert self.reason is not None
        return self.reason

    @property
    def transport(self) -> Any:
        return self.connection._transport


class Raw(asyncio.Protocol):
    """The other end, when it is not one of ours."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.data = bytearray()
        self.made = asyncio.Event()
        self.ended = asyncio.Event()
        self.saw_end = asyncio.Event()
        self.keeps_open = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.saw_end.set()
        return self.keeps_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ended.set()


class Net:
    """All that a test opened; is closed after it."""

    def __init__(self) -> None:
        self._number = 0
        self.watchers: list[Watcher] = []
        self._servers: list[asyncio.Server] = []
        self._raw: list[Raw] = []

    def connection(self, *, dialled: Address | None, held_bytes_max: int = 1 << 20) -> Watcher:
        watcher = Watcher()
        self._number += 1
        watcher.connection = TCPConnection(
            self._number, watcher, dialled=dialled, held_bytes_max=held_bytes_max, started_s=0.0
        )
        watcher.connection.lift_limit()
        self.watchers.append(watcher)
        return watcher

    async def listen(self, protocol: Callable[[], asyncio.BaseProtocol]) -> Address:
        server = await asyncio.get_running_loop().create_server(protocol, SERVER, 0)
        self._servers.append(server)
        return Address.of(*server.sockets[0].getsockname()[:2])

    async def connect(self, watcher: Watcher, address: Address) -> None:
        await asyncio.get_running_loop().create_connection(
            lambda: watcher.connection, address.host, address.port, local_addr=(CLIENT, 0)
        )

    async def pair(self, **options: Any) -> tuple[Watcher, Watcher]:
        """A connection: the end that dialled, and the end that accepted."""
        accepted = self.connection(dialled=None)
        address = await self.listen(lambda: accepted.connection)
        dialling = self.connection(dialled=address, **options)
        await self.connect(dialling, address)
        await accepted.until(lambda: accepted.connection.is_open)
        return dialling, accepted

    async def raw_pair(self, **options: Any) -> tuple[Watcher, Raw]:
        """A connection to somebody who does as the test likes."""
        raw = Raw()
        self._raw.append(raw)
        dialling = self.connection(dialled=None, **options)
        address = await self.listen(lambda: raw)
        await self.connect(dialling, address)
        async with asyncio.timeout(LIMIT_S):
            await raw.made.wait()
        return dialling, raw

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for raw in self._raw:
            if raw.transport is not None and not raw.ended.is_set():
                raw.transport.abort()
                await raw.ended.wait()
        for watcher in self.watchers:
            watcher.connection.abort("the test is over")
            assert watcher.calls.count("closed") == 1
            assert watcher.calls[-1] == "closed"
        await asyncio.sleep(0.01)


class End:
    """A whole handler, owned by nobody but the test: peers are proven when the test says so."""

    def __init__(self, elapsed: Callable[[], float], **settings: Any) -> None:
        self.counters: Counter[str] = Counter()
        self.comms = TCPCommsHandler(self, NodeConfig(**settings), elapsed, self.counters)
        self.packets: list[bytes] = []
        self.writables: list[TCPConnection] = []
        self.reasons: dict[int, str] = {}
        """Why each connection that has ended did so."""
        self.used: dict[int, float] = {}
        self.busy: set[int] = set()
        self.known: set[NodeId] = set()
        self.looks = 0
        self.slow: list[TCPConnection] = []
        self._called = asyncio.Event()

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        self.packets.append(packet)
        self._called.set()

    def read(self, connection: TCPConnection) -> None:
        pass

    def writable(self, connection: TCPConnection) -> None:
        self.writables.append(connection)
        self._called.set()

    def closed(self, connection: TCPConnection, reason: str) -> None:
        assert connection.number not in self.reasons, "told twice"
        self.reasons[connection.number] = reason
        self._called.set()

    def why_keep(self, connection: TCPConnection) -> str | None:
        return "in use" if connection.number in self.busy else None

    def confirmed_on(self, connection: TCPConnection) -> float | None:
        self.looks += 1
        return self.used.get(connection.number)

    def held_back(self, connection: TCPConnection) -> None:
        self.slow.append(connection)

    def knows(self, peer_id: NodeId) -> bool:
        return peer_id in self.known

    def prove(self, connection: TCPConnection, peer: int, *, used_s: float = 0.0) -> None:
        """Peer number so-and-so proves itself."""
        self.used[connection.number] = used_s
        self.comms.proven(connection, peer_id(peer))

    async def listen(self) -> TCPStrat:
        (address,) = await self.comms.listen([Address.parse(f"{SERVER}:0")])
        return TCPStrat(address)

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait for something that comes about by a call, or soon."""
        async with asyncio.timeout(LIMIT_S):
            while not predicate():
                self._called.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._called.wait()


def peer_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


@pytest.fixture
async def make_end(problems: list[dict[str, Any]]) -> AsyncIterator[Callable[..., End]]:
    """Make handlers; they are closed after the test, and nothing may be left of them."""
    ends: list[End] = []

    def make(
        *,
        elapsed: Callable[[], float] | None = None,
        dial_from: str | None = CLIENT,
        **settings: Any,
    ) -> End:
        end = End(elapsed or asyncio.get_running_loop().time, **settings)
        end.comms.dial_from = dial_from
        ends.append(end)
        return end

    yield make
    for end in ends:
        await end.comms.close()
        assert len(end.comms) == 0
        assert end.comms._policy._residents == {}
        assert end.comms._closing_until_s == {}
        assert end.comms._accepts._open == {}
        for throttler in (end.comms._throttling._sending, end.comms._throttling._receiving):
            assert throttler.waiting == []
            assert throttler._own == throttler._granted == {}
    await asyncio.sleep(0.01)


@pytest.fixture
async def net(problems: list[dict[str, Any]]) -> AsyncIterator[Net]:
    """Open things that are closed after the test."""
    net = Net()
    yield net
    await net.close()

"""Ends of connections that note what the event loop calls, for any event loop.

Every test of this folder runs on asyncio's own event loop, on uvloop, and on the simulated one, and
says what is true on all three. The simulated network has the same addresses as a real machine's
loopback, so no test knows where it runs. Where real loops differ, a test demands what they share,
and says what differs.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import pytest
import uvloop

from simulations.virtual import Network

LIMIT_S: Final = 5.0
"""How long anything may take here before the test gives up. Nothing comes near it."""
SERVER: Final = "127.0.0.1"
CLIENT: Final = "127.0.0.2"
ALSO_SERVER: Final = "127.0.0.3"
"""Another address of the same machine."""

LIFE: Final = re.compile(r"M[DPR]*(E[PR]*)?L?")
"""What may happen to one end of a connection: it is made, gets data, then perhaps the end of what
the other side sends, and is lost. P and R are pauses and resumptions of writing."""
LETTERS: Final = {"made": "M", "data": "D", "eof": "E", "pause": "P", "resume": "R", "lost": "L"}


def virtual_loop() -> asyncio.AbstractEventLoop:
    network = Network(seed=1)
    network.host("one", SERVER, ALSO_SERVER)
    network.host("two", CLIENT)
    network.host("six", "::1")
    return network.loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test once per event loop."""
    return {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
        "virtual": virtual_loop,
    }


class Noting:
    """Notes calls by name, reacts to them as it was told, and lets a test wait for them."""

    def __init__(self, reactions: Mapping[str, Callable[[Any], object]]) -> None:
        self.calls: list[str] = []
        self.transport: Any = None
        self.lost_with: BaseException | None = None
        self._reactions = reactions
        self._called = asyncio.Event()

    def note(self, call: str) -> None:
        self.calls.append(call)
        self._called.set()
        if call in self._reactions:
            self._reactions[call](self)

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait for something that comes about by a call."""
        async with asyncio.timeout(LIMIT_S):
            while not predicate():
                self._called.clear()
                await self._called.wait()

    async def ended(self) -> BaseException | None:
        """Wait for ``connection_lost``, and return what it said."""
        await self.until(lambda: "lost" in self.calls)
        return self.lost_with

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost_with = exc
        self.note("lost")

    @property
    def sockname(self) -> Any:
        return self.transport.get_extra_info("sockname")

    @property
    def peername(self) -> Any:
        return self.transport.get_extra_info("peername")


class Side(Noting, asyncio.Protocol):
    """One end of a connection. ``keeps_open`` is what it answers to the end of the other's data."""

    def __init__(
        self, *, keeps_open: bool | None = None, **reactions: Callable[[Any], object]
    ) -> None:
        super().__init__(reactions)
        self.received = bytearray()
        self.pieces: list[bytes] = []
        self._keeps_open = keeps_open

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.pieces.append(data)
        self.note("data")

    def eof_received(self) -> bool | None:
        self.note("eof")
        return self._keeps_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    async def has(self, data: bytes) -> None:
        """Wait for so many bytes, which must be these."""
        await self.until(lambda: len(self.received) >= len(data) or "lost" in self.calls)
        whole = self.received == data
        assert whole, f"{len(self.received)} bytes instead of {len(data)}, {self.received[:50]!r}"

    def check(self) -> None:
        """What is true of every connection, whatever happens to it."""
        assert LIFE.fullmatch("".join(LETTERS[call] for call in self.calls)), self.calls
        turns = [call for call in self.calls if call in {"pause", "resume"}]
        assert turns == ["pause", "resume"] * (len(turns) // 2) + ["pause"] * (len(turns) % 2)
        assert all(type(piece) is bytes and piece for piece in self.pieces)


class Endpoint(Noting, asyncio.DatagramProtocol):
    """One end of datagrams."""

    def __init__(self, **reactions: Callable[[Any], object]) -> None:
        super().__init__(reactions)
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []

    @property
    def payloads(self) -> list[bytes]:
        return [data for data, _ in self.received]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))
        self.note("data")

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self.note("error")

    async def has(self, *payloads: bytes) -> None:
        """Wait for so many datagrams, which must be these in this order."""
        await self.until(lambda: len(self.received) >= len(payloads))
        assert self.payloads == list(payloads)

    def check(self) -> None:
        assert self.calls[0] == "made"
        assert self.calls[-1] == "lost"
        assert self.calls.count("made") == self.calls.count("lost") == 1
        assert all(type(data) is bytes for data in self.payloads)


class Listening:
    """A server, and its ends of the connections it accepted."""

    def __init__(self, server: asyncio.Server, accepted: list[Side]) -> None:
        self.server = server
        self.accepted = accepted
        self.address: tuple[Any, ...] = server.sockets[0].getsockname()[:2]

    def close(self) -> None:
        self.server.close()


class Net:
    """All that a test opened; is closed after it."""

    def __init__(self) -> None:
        self.servers: list[Listening] = []
        self.ends: list[Side | Endpoint] = []
        self._arrived = asyncio.Event()
        self._fence: Side | None = None

    async def listen(
        self, host: str = SERVER, port: int = 0, options: Any = None, **reactions: Any
    ) -> Listening:
        """Listen; ``reactions`` are those of the ends of accepted connections."""
        accepted: list[Side] = []

        def accept() -> Side:
            side = Side(**reactions)
            accepted.append(side)
            self.ends.append(side)
            self._arrived.set()
            return side

        loop = asyncio.get_running_loop()
        listening = Listening(
            await loop.create_server(accept, host, port, **(options or {})), accepted
        )
        self.servers.append(listening)
        return listening

    async def accepted(self, listening: Listening, number: int = 0) -> Side:
        """Wait for a server's end of a connection."""
        async with asyncio.timeout(LIMIT_S):
            while len(listening.accepted) <= number:
                self._arrived.clear()
                await self._arrived.wait()
        side = listening.accepted[number]
        await side.until(lambda: "made" in side.calls)
        return side

    async def connect(
        self, address: tuple[Any, ...], local: str | tuple[str, int] = CLIENT, **reactions: Any
    ) -> Side:
        side = Side(**reactions)
        local_addr = (local, 0) if isinstance(local, str) else local
        async with asyncio.timeout(LIMIT_S):
            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: side, *address[:2], local_addr=local_addr
            )
        assert transport is side.transport
        assert protocol is side
        self.ends.append(side)
        return side

    async def pair(self, near: Any = None, far: Any = None) -> tuple[Side, Side]:
        """A connection: the end that connected, and the end that was accepted."""
        listening = await self.listen(**(far or {}))
        side = await self.connect(listening.address, **(near or {}))
        return side, await self.accepted(listening)

    async def endpoint(
        self, local: str | tuple[str, int] = SERVER, remote: Any = None, **reactions: Any
    ) -> Endpoint:
        endpoint = Endpoint(**reactions)
        local_addr = (local, 0) if isinstance(local, str) else local
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: endpoint, local_addr=local_addr, remote_addr=remote
        )
        assert transport is endpoint.transport
        assert protocol is endpoint
        self.ends.append(endpoint)
        return endpoint

    async def closed_port(self) -> Any:
        """An address where nobody takes datagrams; of a host that nothing else is opened on, so
        that nobody is given the port again."""
        gone = await self.endpoint(ALSO_SERVER)
        address = gone.sockname
        gone.transport.close()
        await gone.ended()
        return address

    async def settled(self) -> None:
        """Something went to the server and back twice meanwhile; so what was on its way between the
        same machines has arrived, and what was said in answer to it too."""
        if self._fence is None:
            self._fence, _ = await self.pair(far={"data": lambda side: side.transport.write(b".")})
        fence = self._fence
        for _ in range(2):
            fence.transport.write(b".")
            await fence.until(lambda: fence.received)
            fence.received.clear()

    async def close(self) -> None:
        for listening in self.servers:
            listening.close()
        for end in self.ends:
            if "lost" not in end.calls and end.transport is not None:
                end.transport.abort()
        for end in self.ends:
            if end.calls:
                await end.ended()
        for end in self.ends:
            if end.calls:
                end.check()


@pytest.fixture
async def net(problems: list[dict[str, Any]]) -> AsyncIterator[Net]:
    """Open things that are closed after the test."""
    net = Net()
    yield net
    await net.close()


@pytest.fixture
def ipv6() -> str:
    """The IPv6 loopback address, where the machine has one."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    return "::1"

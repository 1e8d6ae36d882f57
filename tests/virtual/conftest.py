"""Small programs for simulated machines, which note what they are told and when.

The tests are told nothing of an event loop: each story runs in one of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import pytest

from simulations.virtual import Host, Network

_T = TypeVar("_T")

ALICE: Final = "192.0.2.1"
BOB: Final = "198.51.100.1"


class Side(asyncio.Protocol):
    """One end of a connection. It answers nothing, and closes when the other one does."""

    def __init__(self) -> None:
        self.calls = ""
        """M for made, D for data, E for the end of the other's data, L for lost, P and R for the
        pauses of writing."""
        self.received = bytearray()
        self.transport: Any = None
        self.lost_at_s: float | None = None
        self.lost_with: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self.lost: Final = asyncio.Event()

    @property
    def is_lost(self) -> bool:
        return self.lost_at_s is not None

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls += "M"
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.calls += "D"
        self.received += data

    def eof_received(self) -> None:
        self.calls += "E"

    def pause_writing(self) -> None:
        self.calls += "P"

    def resume_writing(self) -> None:
        self.calls += "R"

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls += "L"
        self.lost_at_s = self._loop.time()
        self.lost_with = exc
        self.lost.set()


class Inbox(asyncio.DatagramProtocol):
    """A bound socket."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.senders: list[tuple[Any, ...]] = []
        self.times: list[float] = []
        self.errors: list[Exception] = []
        self.transport: Any = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.received.append(data)
        self.senders.append(addr)
        self.times.append(self._loop.time())

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def send(self, data: bytes, address: str, port: int = 5000) -> None:
        self.transport.sendto(data, (address, port))


class Programs:
    """Starts them on machines."""

    def two(self, network: Network) -> tuple[Host, Host]:
        """Who most stories are about."""
        return network.host("alice", ALICE), network.host("bob", BOB)

    async def listen(
        self, host: Host, address: str | None = None, port: int = 80, kind: type[Side] = Side
    ) -> list[Side]:
        """Every connection that comes in, from now on."""
        sides: list[Side] = []

        def accept() -> Side:
            sides.append(kind())
            return sides[-1]

        loop = asyncio.get_running_loop()
        await host.run(loop.create_server(accept, address or host.addresses[0], port))
        return sides

    async def connect(self, host: Host, address: str, port: int = 80) -> Side:
        loop = asyncio.get_running_loop()
        _, side = await host.run(loop.create_connection(Side, address, port))
        return side

    async def connected(self, alice: Host, bob: Host, port: int = 80) -> tuple[Side, Side]:
        """A connection that alice asked bob for."""
        accepted = await self.listen(bob, port=port)
        side = await self.connect(alice, bob.addresses[0], port)
        while not accepted:
            await asyncio.sleep(0.1)
        return side, accepted[0]

    async def bind(self, host: Host, address: str | None = None, port: int = 5000) -> Inbox:
        loop = asyncio.get_running_loop()
        local = (address or host.addresses[0], port)
        _, inbox = await host.run(loop.create_datagram_endpoint(Inbox, local))
        return inbox

    async def bound(self, *hosts: Host) -> list[Inbox]:
        return [await self.bind(host) for host in hosts]

    async def ends(self, work: Coroutine[Any, Any, _T], limit_s: float = 500) -> _T | Exception:
        """What comes of something, be it a result or an exception."""
        async with asyncio.timeout(limit_s):
            try:
                return await work
            except Exception as error:
                return error


@pytest.fixture(scope="session")
def programs() -> Programs:
    return Programs()

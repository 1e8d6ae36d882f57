"""Sockets: Mallory's own machine, from which she sends recorded packets to others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from egtp.channel.frames import FrameSplitter, frame
from egtp.channel.packet import PACKET_BYTES_MAX
from egtp.errors import RemoteProtocolError
from simulations.virtual import Host
from simulations.virtual.nat import Endpoint

__all__ = ["OwnSockets", "Visit"]

VISITS_MAX: Final = 64
"""Connections that she keeps open; a new one beyond that closes the oldest."""


class Visit(asyncio.Protocol):
    """A connection from Mallory to somebody."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answers: Final[list[bytes]] = []
        """The packets that came back."""
        self.is_open = False
        self._splitter = FrameSplitter(PACKET_BYTES_MAX)

    def write(self, packets: Iterable[bytes]) -> None:
        """Write packets, each in a frame of its own."""
        if self.transport is not None:
            self.transport.write(b"".join(frame(packet) for packet in packets))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.is_open = transport, True

    def data_received(self, data: bytes) -> None:
        try:
            self.answers.extend(self._splitter.feed(data))
        except RemoteProtocolError:
            self.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False


class OwnSockets:
    """Connections from a machine of Mallory's."""

    def __init__(self, host: Host) -> None:
        self.host: Final = host
        self.visits: Final[deque[Visit]] = deque()

    def visit(self, endpoint: Endpoint, packets: Iterable[bytes]) -> asyncio.Task[Visit | None]:
        """Connect, write these packets, and stay connected. The task returns None if nobody
        accepts."""
        return self.host.spawn(self._visit(endpoint, list(packets)))

    async def _visit(self, endpoint: Endpoint, packets: list[bytes]) -> Visit | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(10):
                _, visit = await loop.create_connection(Visit, *endpoint)
        except OSError:
            return None
        while len(self.visits) >= VISITS_MAX:
            self.visits.popleft().close()
        self.visits.append(visit)
        visit.write(packets)
        return visit

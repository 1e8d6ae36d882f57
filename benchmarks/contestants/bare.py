"""The reference R: a bare uvloop echo over TCP, and a byte-copying proxy as its relay."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from benchmarks.asyncio_station import take_part_on_asyncio
from benchmarks.contestants.framed import EchoClient, EchoServer, FramedSession


async def serve(settings: dict[str, Any]) -> object:
    server = await asyncio.get_running_loop().create_server(EchoServer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if "relay" not in settings:
        return port
    # Whoever comes to the relay is taken here.
    return await _told(settings["relay"], port)


async def connect(settings: dict[str, Any]) -> FramedSession:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(EchoClient, "127.0.0.1", settings["address"])
    return FramedSession(protocol)


class _Copy(asyncio.Protocol):
    """Writes to the other side what comes from this one."""

    def __init__(self, to: int | None) -> None:
        self.to = to
        self.other: asyncio.Transport | None = None
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.to is not None:
            self.dialling = asyncio.ensure_future(self._dial(self.to))

    async def _dial(self, port: int) -> None:
        far = _Copy(None)
        far.other = self.transport
        await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", port)
        self.other = far.transport
        self.other.write(self.early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


async def relay(settings: dict[str, Any]) -> object:
    """Listens twice: once for the one port number that it is to copy to, then for clients."""
    loop = asyncio.get_running_loop()
    target: list[int] = []

    async def learn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target.append(int(await reader.readline()))
        clients = await loop.create_server(lambda: _Copy(target[0]), "127.0.0.1", 0)
        writer.write(b"%d\n" % clients.sockets[0].getsockname()[1])

    server = await asyncio.start_server(learn, "127.0.0.1", 0)
    return server.sockets[0].getsockname()[1]


async def _told(relay_port: int, port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay_port)
    writer.write(b"%d\n" % port)
    return int(await reader.readline())


if __name__ == "__main__":
    take_part_on_asyncio(serve, connect, relay=relay)

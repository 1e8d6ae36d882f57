"""Mutual TLS 1.3: on uvloop as a protocol or with streams, and with aiofastnet's transports."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from benchmarks.asyncio_station import Session, take_part_on_asyncio
from benchmarks.certificates import client_context, server_context
from benchmarks.contestants.framed import HEADER, LENGTH, EchoClient, EchoServer, FramedSession

LIMIT = 2**26


async def serve(settings: dict[str, Any]) -> object:
    context = server_context(settings["certificates"])
    loop = asyncio.get_running_loop()
    if settings["form"] == "streams":
        server = await asyncio.start_server(_echo, "127.0.0.1", 0, ssl=context, limit=LIMIT)
    elif settings["form"] == "aiofastnet":
        fast = importlib.import_module("aiofastnet")
        server = await fast.create_server(loop, EchoServer, "127.0.0.1", 0, ssl=context)
    else:
        server = await loop.create_server(EchoServer, "127.0.0.1", 0, ssl=context)
    return server.sockets[0].getsockname()[1]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readexactly(4)
            writer.write(head + await reader.readexactly(LENGTH.unpack(head)[0]))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class StreamSession:
    """Calls over a pair of streams: a lock around nothing, one reading task."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while True:
            length, number = HEADER.unpack(await self._reader.readexactly(12))
            body = await self._reader.readexactly(length - 8)
            self._waiting.pop(number).set_result(body)

    async def call(self, body: bytes) -> bytes:
        self._last = number = self._last + 1
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(HEADER.pack(8 + len(body), number) + body)
        await self._writer.drain()
        return await future

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        await self._writer.wait_closed()


async def connect(settings: dict[str, Any]) -> Session:
    loop = asyncio.get_running_loop()
    port, context = settings["address"], client_context(settings["certificates"])
    if settings["form"] == "streams":
        streams = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=LIMIT)
        return StreamSession(*streams)
    if settings["form"] == "aiofastnet":
        fast = importlib.import_module("aiofastnet")
        _, protocol = await fast.create_connection(loop, EchoClient, "127.0.0.1", port, ssl=context)
    else:
        _, protocol = await loop.create_connection(EchoClient, "127.0.0.1", port, ssl=context)
    return FramedSession(protocol)


if __name__ == "__main__":
    take_part_on_asyncio(serve, connect)

"""websockets: WebSocket over mutual TLS 1.3, uncompressed."""

from __future__ import annotations

import asyncio
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_wss
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_wss

from benchmarks.asyncio_station import take_part_on_asyncio
from benchmarks.certificates import client_context, server_context
from benchmarks.contestants.framed import NUMBER

LIMIT = 2**26


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def serve(settings: dict[str, Any]) -> object:
    server = await serve_wss(
        echo,
        "127.0.0.1",
        0,
        ssl=server_context(settings["certificates"]),
        compression=None,
        max_size=LIMIT,
        ping_interval=None,
    )
    return next(iter(server.sockets)).getsockname()[1]


class Session:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        try:
            async for message in self._connection:
                self._waiting.pop(NUMBER.unpack_from(message)[0]).set_result(message[8:])
        except websockets.ConnectionClosed:
            pass

    async def call(self, body: bytes) -> bytes:
        self._last = number = self._last + 1
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(NUMBER.pack(number) + body)
        return await future

    async def close(self) -> None:
        await self._connection.close()
        await self._reading


async def connect(settings: dict[str, Any]) -> Session:
    return Session(
        await connect_wss(
            f"wss://127.0.0.1:{settings['address']}/",
            ssl=client_context(settings["certificates"]),
            compression=None,
            max_size=LIMIT,
            ping_interval=None,
        )
    )


if __name__ == "__main__":
    take_part_on_asyncio(serve, connect)

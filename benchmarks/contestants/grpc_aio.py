"""grpcio's asyncio side with mutual TLS: a unary call each, or one bidirectional stream.

It does not run on uvloop, so asyncio's own loop runs it. No generated code: bytes both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from benchmarks.asyncio_station import Session, take_part_on_asyncio
from benchmarks.contestants.framed import NUMBER

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


async def unary(request: bytes, _: Any) -> bytes:
    return request


async def bidi(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


def _pem(settings: dict[str, Any], name: str) -> bytes:
    return Path(settings["certificates"], name).read_bytes()


async def serve(settings: dict[str, Any]) -> object:
    server = grpc.aio.server(options=OPTIONS)
    methods = {
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "bidi": grpc.stream_stream_rpc_method_handler(bidi),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench", methods)])
    pair = (_pem(settings, "server.key"), _pem(settings, "server.pem"))
    credentials = grpc.ssl_server_credentials([pair], _pem(settings, "ca.pem"), True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    kept.append(server)
    return port


kept: list[Any] = []


class UnarySession:
    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.call = channel.unary_unary("/bench/unary")

    async def close(self) -> None:
        await self._channel.close()


class BidiSession:
    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._stream = channel.stream_stream("/bench/bidi")()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._writing = asyncio.Lock()
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while (reply := await self._stream.read()) is not grpc.aio.EOF:
            self._waiting.pop(NUMBER.unpack_from(reply)[0]).set_result(reply[8:])

    async def call(self, body: bytes) -> bytes:
        self._last = number = self._last + 1
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        async with self._writing:
            await self._stream.write(NUMBER.pack(number) + body)
        return await future

    async def close(self) -> None:
        await self._stream.done_writing()
        await self._reading
        await self._channel.close()


async def connect(settings: dict[str, Any]) -> Session:
    credentials = grpc.ssl_channel_credentials(
        _pem(settings, "ca.pem"), _pem(settings, "client.key"), _pem(settings, "client.pem")
    )
    channel = grpc.aio.secure_channel(f"127.0.0.1:{settings['address']}", credentials, OPTIONS)
    return BidiSession(channel) if settings["form"] == "bidi" else UnarySession(channel)


if __name__ == "__main__":
    take_part_on_asyncio(serve, connect, run=asyncio.run)

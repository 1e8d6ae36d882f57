"""picows: WebSocket over mutual TLS 1.3, by its fast core interface (listeners, not messages)."""

from __future__ import annotations

import asyncio
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from benchmarks.asyncio_station import take_part_on_asyncio
from benchmarks.certificates import client_context, server_context
from benchmarks.contestants.framed import NUMBER

LIMIT = 2**26


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


async def serve(settings: dict[str, Any]) -> object:
    server = await ws_create_server(
        lambda _: Echo(),
        "127.0.0.1",
        0,
        ssl=server_context(settings["certificates"]),
        max_frame_size=LIMIT,
    )
    return server.sockets[0].getsockname()[1]


class Caller(WSListener):
    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.last = 0
        self.create_future = asyncio.get_running_loop().create_future

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if frame.msg_type == WSMsgType.BINARY:
            self.waiting.pop(NUMBER.unpack_from(payload)[0]).set_result(payload[8:])

    def call(self, body: bytes) -> asyncio.Future[bytes]:
        self.last = number = self.last + 1
        future = self.waiting[number] = self.create_future()
        self.transport.send(WSMsgType.BINARY, NUMBER.pack(number) + body)
        return future

    async def close(self) -> None:
        self.transport.send_close()
        self.transport.disconnect()
        await self.transport.wait_disconnected()


async def connect(settings: dict[str, Any]) -> Caller:
    _, caller = await ws_connect(
        Caller,
        f"wss://127.0.0.1:{settings['address']}/",
        ssl_context=client_context(settings["certificates"]),
        max_frame_size=LIMIT,
    )
    assert isinstance(caller, Caller)
    return caller


if __name__ == "__main__":
    take_part_on_asyncio(serve, connect)

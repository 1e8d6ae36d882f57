"""iroh: QUIC by key, through its Python bindings, with no relay and no discovery.

One stream carries all calls, length-prefixed, and what waits is written and read together: each
crossing of the bindings costs tens of microseconds. A stream for each call is slower still.
"""

from __future__ import annotations

import asyncio
from typing import Any

import iroh

from benchmarks.asyncio_station import take_part_on_asyncio
from benchmarks.contestants.framed import HEADER, NUMBER, cut

ALPN = b"bench/1"
READ_BYTES = 65536
tasks: set[asyncio.Future[None]] = set()
kept: list[Any] = []


async def endpoint() -> Any:
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(),
        relay_mode=iroh.RelayMode.disabled(),
        bind_addr="127.0.0.1:0",
        alpns=[ALPN],
    )
    return await iroh.Endpoint.bind(options)


def _spawn(coroutine: Any) -> None:
    task = asyncio.ensure_future(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def serve(_: dict[str, Any]) -> object:
    here = await endpoint()
    kept.append(here)

    async def accept() -> None:
        while (incoming := await here.accept_next()) is not None:
            _spawn(_serve_one(incoming))

    _spawn(accept())
    return [here.id().to_bytes().hex(), here.bound_sockets()[0]]


async def _serve_one(incoming: Any) -> None:
    connection = await (await incoming.accept()).connect()
    stream = await connection.accept_bi()
    receive, send = stream.recv(), stream.send()
    rest = b""
    try:
        while data := await receive.read(READ_BYTES):
            frames, rest = cut(rest + data)
            if frames:
                await send.write_all(b"".join(frames))
    except iroh.IrohError:
        return


class Session:
    def __init__(self, here: Any, connection: Any, stream: Any) -> None:
        self._here, self._connection = here, connection
        self._receive, self._send = stream.recv(), stream.send()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._outgoing: list[bytes] = []
        self._something = asyncio.Event()
        self._tasks = asyncio.gather(self._read(), self._write())

    async def _read(self) -> None:
        rest = b""
        while data := await self._receive.read(READ_BYTES):
            frames, rest = cut(rest + data)
            for frame in frames:
                self._waiting.pop(NUMBER.unpack_from(frame, 4)[0]).set_result(frame[12:])

    async def _write(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            outgoing, self._outgoing = self._outgoing, []
            await self._send.write_all(b"".join(outgoing))

    async def call(self, body: bytes) -> bytes:
        self._last = number = self._last + 1
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._outgoing.append(HEADER.pack(8 + len(body), number) + body)
        self._something.set()
        return await future

    async def close(self) -> None:
        self._tasks.cancel()
        self._connection.close(0, b"")


endpoints: list[Any] = []


async def connect(settings: dict[str, Any]) -> Session:
    if not endpoints:
        endpoints.append(await endpoint())
    key, address = settings["address"]
    peer = iroh.EndpointAddr(iroh.EndpointId.from_bytes(bytes.fromhex(key)), None, [address])
    connection = await endpoints[0].connect(peer, ALPN)
    return Session(endpoints[0], connection, await connection.open_bi())


if __name__ == "__main__":
    take_part_on_asyncio(serve, connect)

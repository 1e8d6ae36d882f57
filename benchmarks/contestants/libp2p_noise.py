"""py-libp2p: TCP, Noise and Yamux on trio, all calls over one stream, length-prefixed."""

from __future__ import annotations

from typing import Any

import multiaddr
import trio
from libp2p import new_host
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr

from benchmarks.contestants.framed import HEADER, LENGTH, NUMBER
from benchmarks.load import Load
from benchmarks.stations import Settings, next_work, say, take_part

PROTOCOL = TProtocol("/bench/1")


async def read_exactly(stream: Any, size: int) -> bytes:
    parts = []
    while size:
        part = await stream.read(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


async def echo(stream: Any) -> None:
    while True:
        head = await read_exactly(stream, 4)
        await stream.write(head + await read_exactly(stream, LENGTH.unpack(head)[0]))


async def serve(_: Settings) -> None:
    host = new_host()
    async with host.run([multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        host.set_stream_handler(PROTOCOL, echo)
        say("ready", address=str(host.get_addrs()[0]))
        await trio.sleep_forever()


class Caller:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._waiting: dict[int, tuple[trio.Event, list[bytes]]] = {}
        self._last = 0
        self._writing = trio.Lock()

    async def read(self) -> None:
        while True:
            (length,) = LENGTH.unpack(await read_exactly(self._stream, 4))
            frame = await read_exactly(self._stream, length)
            event, reply = self._waiting.pop(NUMBER.unpack_from(frame)[0])
            reply.append(frame[8:])
            event.set()

    async def call(self, body: bytes) -> bytes:
        self._last = number = self._last + 1
        event, reply = trio.Event(), []  # type: tuple[trio.Event, list[bytes]]
        self._waiting[number] = event, reply
        async with self._writing:
            await self._stream.write(HEADER.pack(8 + len(body), number) + body)
        await event.wait()
        return reply[0]


async def client(settings: Settings) -> None:
    host = new_host()
    async with (
        host.run([multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        trio.open_nursery() as nursery,
    ):
        info = info_from_p2p_addr(multiaddr.Multiaddr(settings["address"]))
        await host.connect(info)
        caller = Caller(await host.new_stream(info.peer_id, [PROTOCOL]))
        nursery.start_soon(caller.read)
        assert await caller.call(b"right?") == b"right?"
        say("ready")
        while True:
            work = await trio.to_thread.run_sync(next_work)
            load = Load(caller.call, work)
            async with trio.open_nursery() as workers:
                for _ in range(load.at_once):
                    workers.start_soon(load.worker)
                await load.watch(trio.sleep)


if __name__ == "__main__":
    take_part(
        {
            "serve": lambda settings: trio.run(serve, settings),
            "client": lambda settings: trio.run(client, settings),
        }
    )

"""pyzmq with CURVE, DEALER to ROUTER: blocking loops, or zmq.asyncio.

The blocking client keeps its calls in flight by hand, as blocking programs do; it has no futures.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import zmq
import zmq.asyncio
import zmq.auth

from benchmarks.asyncio_station import take_part_on_asyncio
from benchmarks.contestants.framed import NUMBER
from benchmarks.load import percentile_us
from benchmarks.stations import Settings, next_work, say, take_part


def server_socket(context: zmq.Context[Any]) -> tuple[Any, list[object]]:
    public, secret = zmq.curve_keypair()
    socket = context.socket(zmq.ROUTER)
    _no_limits(socket)
    socket.curve_server = True
    socket.curve_secretkey, socket.curve_publickey = secret, public
    return socket, [socket.bind_to_random_port("tcp://127.0.0.1"), public.decode()]


def client_socket(context: zmq.Context[Any], address: list[Any]) -> Any:
    socket = context.socket(zmq.DEALER)
    _no_limits(socket)
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = address[1].encode()
    socket.connect(f"tcp://127.0.0.1:{address[0]}")
    return socket


def _no_limits(socket: Any) -> None:
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)


# Blocking


def serve_blocking(_: Settings) -> None:
    socket, address = server_socket(zmq.Context())
    say("ready", address=address)
    while True:
        socket.send_multipart(socket.recv_multipart())


def client_blocking(settings: Settings) -> None:
    socket = client_socket(zmq.Context(), settings["address"])
    socket.send(b"right?")
    assert socket.recv() == b"right?"
    say("ready")
    while True:
        _carry(socket, next_work())


def _carry(socket: Any, work: dict[str, Any]) -> None:
    """As many messages in flight as asked for: one goes out for each that comes in."""
    body, at_once = bytes(work["bytes"]), work["at_once"]
    numbers = itertools.count()
    sent_at: dict[int, float] = {}
    clock = time.perf_counter

    def ask() -> None:
        number = next(numbers)
        sent_at[number] = clock()
        socket.send(NUMBER.pack(number) + body)

    def answer(times: list[float]) -> None:
        reply = socket.recv()
        times.append(clock() - sent_at.pop(NUMBER.unpack_from(reply)[0]))

    for _ in range(at_once):
        ask()
    until = clock() + work["warm_up_s"]
    while clock() < until:
        answer([])
        ask()
    say("begin")
    times: list[float] = []
    began = clock()
    until = began + work["seconds"]
    while clock() < until:
        answer(times)
        ask()
    took_s = clock() - began
    facts = {"done": len(times), "seconds": took_s, "per_s": len(times) / took_s}
    if at_once == 1:
        facts |= {"p50_us": percentile_us(times, 0.5), "p99_us": percentile_us(times, 0.99)}
    say("end", **facts)
    while sent_at:
        answer([])


# asyncio


async def serve_asyncio(_: Settings) -> object:
    socket, address = server_socket(zmq.asyncio.Context())

    async def echo() -> None:
        while True:
            await socket.send_multipart(await socket.recv_multipart())

    tasks.add(asyncio.ensure_future(echo()))
    return address


tasks: set[asyncio.Future[None]] = set()
contexts: list[Any] = []


class Session:
    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while True:
            reply = await self._socket.recv()
            self._waiting.pop(NUMBER.unpack_from(reply)[0]).set_result(reply[8:])

    async def call(self, body: bytes) -> bytes:
        self._last = number = self._last + 1
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(NUMBER.pack(number) + body)
        return await future

    async def close(self) -> None:
        self._reading.cancel()
        self._socket.close()


async def connect(settings: Settings) -> Session:
    if not contexts:
        contexts.append(zmq.asyncio.Context())
        contexts[0].set(zmq.MAX_SOCKETS, 20_000)
    return Session(client_socket(contexts[0], settings["address"]))


if __name__ == "__main__":
    import sys

    if "blocking" in sys.argv[2]:
        take_part({"serve": serve_blocking, "client": client_blocking})
    else:
        take_part_on_asyncio(serve_asyncio, connect)

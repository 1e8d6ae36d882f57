"""A length-prefixed echo over any transport of asyncio's shape: the bare reference, and TLS.

Length, id and body; one future per call, one write per message, nothing else. It stands for what
a competent programmer writes by hand.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import cast

__all__ = ["HEADER", "LENGTH", "NUMBER", "EchoClient", "EchoServer", "FramedSession", "cut"]

LENGTH = struct.Struct(">I")
NUMBER = struct.Struct(">Q")
HEADER = struct.Struct(">IQ")


def cut(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames at the start of ``buffer``, their length included, and what is left."""
    frames = []
    start, end = 0, len(buffer)
    while end - start >= 4:
        (length,) = LENGTH.unpack_from(buffer, start)
        after = start + 4 + length
        if end < after:
            break
        frames.append(buffer[start:after])
        start = after
    return frames, buffer[start:]


class _Framed(asyncio.Protocol):
    """Cuts the stream into frames."""

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        frames, self.buffer = cut(self.buffer + data if self.buffer else data)
        for frame in frames:
            self.frame(frame)

    def frame(self, frame: bytes) -> None:
        raise NotImplementedError


class EchoServer(_Framed):
    def frame(self, frame: bytes) -> None:
        self.transport.write(frame)


class EchoClient(_Framed):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.last = 0
        self.create_future: Callable[[], asyncio.Future[bytes]] = (
            asyncio.get_running_loop().create_future
        )
        self.gone = asyncio.Event()

    def frame(self, frame: bytes) -> None:
        (number,) = NUMBER.unpack_from(frame, 4)
        self.waiting.pop(number).set_result(frame[12:])

    def call(self, body: bytes) -> asyncio.Future[bytes]:
        self.last = number = self.last + 1
        future = self.waiting[number] = self.create_future()
        self.transport.write(HEADER.pack(8 + len(body), number) + body)
        return future

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()


class FramedSession:
    """One connection of an :class:`EchoClient`."""

    def __init__(self, protocol: EchoClient) -> None:
        self._protocol = protocol
        self.call = protocol.call

    async def close(self) -> None:
        self._protocol.transport.close()
        await self._protocol.gone.wait()

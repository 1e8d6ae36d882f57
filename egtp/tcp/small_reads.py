"""Small reads: while receiving is throttled, a connection reads its socket in small pieces.

Event loops read up to 256 KiB at a time. At 20 kB/s that would be one read in 13 seconds: the rate
would be right, but the peer would seem dead in between. Only a protocol with its own buffer decides
how much is read, so one stands between the socket and the connection while receiving is throttled.
"""

from __future__ import annotations

import asyncio

__all__ = ["SmallReads"]


class SmallReads(asyncio.BufferedProtocol):
    """Passes what is read on to ``protocol``, at most a buffer at a time. Connections may share a
    buffer, since it is filled and emptied within one callback of the event loop."""

    __slots__ = ("_buffer", "_protocol")

    def __init__(self, protocol: asyncio.Protocol, buffer: memoryview) -> None:
        self._protocol = protocol
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

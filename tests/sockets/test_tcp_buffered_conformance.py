"""Reading into a buffer of the program's own: as much at a time as fits into it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

CONTENT = random.Random(1).randbytes(300_000)


class Buffered(asyncio.BufferedProtocol):
    """Reads into a small buffer, and passes the rest on to a protocol that does not."""

    def __init__(self, side: Any, size: int) -> None:
        self.side = side
        self.buffer = bytearray(size)
        self.sizes: list[int] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.sizes.append(nbytes)
        self.side.data_received(bytes(self.buffer[:nbytes]))

    def eof_received(self) -> bool | None:
        return bool(self.side.eof_received())

    def connection_lost(self, exc: BaseException | None) -> None:
        self.side.connection_lost(exc)


def read_buffered(side: Any, size: int) -> Buffered:
    """Reading is stopped meanwhile: uvloop looks at the protocol only when it begins to read."""
    buffered = Buffered(side, size)
    side.transport.pause_reading()
    side.transport.set_protocol(buffered)
    side.transport.resume_reading()
    return buffered


@pytest.mark.parametrize("size", [1000, 65_536])
async def test_no_more_is_read_at_a_time_than_fits_into_the_buffer(net: Any, size: int) -> None:
    near, far = await net.pair()
    buffered = read_buffered(far, size)
    near.transport.write(CONTENT)
    await far.has(CONTENT)
    assert max(buffered.sizes) <= size
    near.transport.close()
    assert await far.ended() is None


async def test_pausing_after_each_piece_holds_back_the_next(net: Any) -> None:
    near, far = await net.pair(far={"data": lambda side: side.transport.pause_reading()})
    buffered = read_buffered(far, 50_000)
    near.transport.write(CONTENT)
    pieces = 0
    while len(far.received) < len(CONTENT):
        pieces += 1
        await far.until(lambda pieces=pieces: len(far.pieces) == pieces)
        await net.settled()
        assert len(far.pieces) == pieces
        far.transport.resume_reading()
    assert far.received == CONTENT
    assert max(buffered.sizes) <= 50_000


async def test_a_protocol_can_be_exchanged_there_and_back_while_data_comes(net: Any) -> None:
    near, far = await net.pair()
    near.transport.write(CONTENT[:100_000])
    await far.until(lambda: far.received)
    buffered = read_buffered(far, 10_000)
    near.transport.write(CONTENT[100_000:200_000])
    await far.until(lambda: buffered.sizes or len(far.received) == 100_000)
    far.transport.pause_reading()
    far.transport.set_protocol(far)
    far.transport.resume_reading()
    near.transport.write(CONTENT[200_000:])
    await far.has(CONTENT)

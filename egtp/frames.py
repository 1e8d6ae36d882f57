"""Frames: how packets are told apart in a TCP stream. u32 big-endian length, then the packet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from egtp.errors import InvalidPacket
from egtp.packet import PACKET_BYTES_MAX

__all__ = ["UNCONFIRMED_FRAME_BYTES_MAX", "FrameSplitter", "frame"]

UNCONFIRMED_FRAME_BYTES_MAX: Final = 16 * 1024
"""The largest frame that is taken from somebody who has proven nothing yet."""

_LENGTH: Final = struct.Struct(">I")


def frame(packet: bytes) -> bytes:
    return _LENGTH.pack(len(packet)) + packet


class FrameSplitter:
    """Cuts a stream of bytes into packets, however the stream was split on its way.

    Holds at most one frame: a length above :attr:`frame_bytes_max` is refused as soon as its four
    bytes are there, before anything is reserved for it.
    """

    __slots__ = ("_buffer", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int = UNCONFIRMED_FRAME_BYTES_MAX) -> None:
        self._buffer = b""
        self.frame_bytes_max = frame_bytes_max

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The packets that ``data`` completes, one by one: what the first one proves may lift the
        limit for the next.

        Raises :class:`InvalidPacket` at a frame that is empty or too large; the stream is then
        beyond repair.
        """
        buffer = self._buffer + data if self._buffer else data
        self._buffer = b""
        end = len(buffer)
        start = 0
        while end - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if not 1 <= length <= self.frame_bytes_max:
                raise InvalidPacket("a frame of a length that is not allowed")
            if end - start - 4 < length:
                break
            start += 4 + length
            yield buffer[start - length : start]
        self._buffer = buffer[start:]

    def lift_limit(self) -> None:
        """The other side is confirmed: take frames of full size."""
        self.frame_bytes_max = PACKET_BYTES_MAX

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished frame is held."""
        return len(self._buffer)

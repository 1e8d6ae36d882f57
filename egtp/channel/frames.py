"""Frames: how packets are told apart in a TCP stream. u32 big-endian length, then the packet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from egtp.channel.packet import PACKET_BYTES_MAX
from egtp.errors import InvalidPacket

__all__ = ["LENGTH_BYTES", "UNCONFIRMED_FRAME_BYTES_MAX", "FrameSplitter", "frame"]

UNCONFIRMED_FRAME_BYTES_MAX: Final = 16 * 1024
"""The largest frame that is taken from somebody who has proven nothing yet."""
LENGTH_BYTES: Final = 4

_read_length: Final = struct.Struct(">I").unpack_from


def frame(packet: bytes) -> bytes:
    return len(packet).to_bytes(LENGTH_BYTES, "big") + packet


class FrameSplitter:
    """Cuts a stream of bytes into packets, however the stream was split on its way.

    Holds at most one frame: a length above :attr:`frame_bytes_max` is refused as soon as its four
    bytes are there, before anything is reserved for it. A packet that comes in one piece is copied
    once, one in two pieces twice, and one in more pieces as often as a growing bytearray is: the
    work stays linear, and what is held stays near what came.
    """

    __slots__ = ("_length", "_part", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int = UNCONFIRMED_FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._length = 0
        """Of the packet that has begun to come; 0 while its length has not come whole."""
        self._part: bytes | bytearray = b""
        """What has come of that packet, or of its length."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The packets that ``data`` completes, one by one: what the first one proves may lift the
        limit for the next. Must be run to its end before more is fed.

        Raises :class:`InvalidPacket` at a frame that is empty or too large; the stream is then
        beyond repair.
        """
        start, end = 0, len(data)
        if self._part or self._length:
            if not self._length:
                # The length itself was cut.
                data = bytes(self._part) + data
                end += len(self._part)
                self._part = b""
            else:
                start = self._length - len(self._part)
                if end < start:
                    if type(self._part) is bytes:
                        self._part = bytearray(self._part)
                    self._part += data
                    return
                packet = b"".join((self._part, memoryview(data)[:start]))
                self._length, self._part = 0, b""
                yield packet
        while end - start >= LENGTH_BYTES:
            (length,) = _read_length(data, start)
            if not 1 <= length <= self.frame_bytes_max:
                raise InvalidPacket("a frame of a length that is not allowed")
            start += LENGTH_BYTES
            stop = start + length
            if stop > end:
                self._length = length
                break
            yield data[start:stop]
            start = stop
        if start < end:
            self._part = data[start:]

    def lift_limit(self) -> None:
        """The other side is confirmed: take frames of full size."""
        self.frame_bytes_max = PACKET_BYTES_MAX

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished frame is held."""
        return len(self._part) + (LENGTH_BYTES if self._length else 0)

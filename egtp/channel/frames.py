"""Frames delimit packets in a TCP stream: a u32 big-endian length, then the packet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from egtp.channel.packet import PACKET_BYTES_MAX
from egtp.errors import InvalidPacket

__all__ = ["LENGTH_BYTES", "UNCONFIRMED_FRAME_BYTES_MAX", "FrameSplitter", "frame"]

UNCONFIRMED_FRAME_BYTES_MAX: Final = 16 * 1024
"""The largest frame accepted from a peer that has not proven its identity yet."""
LENGTH_BYTES: Final = 4

_read_length: Final = struct.Struct(">I").unpack_from


def frame(packet: bytes) -> bytes:
    return len(packet).to_bytes(LENGTH_BYTES, "big") + packet


class FrameSplitter:
    """Cuts a stream of bytes into packets, however the stream was split on its way.

    Holds at most one frame: a length above :attr:`frame_bytes_max` is refused as soon as its four
    bytes are there, before anything is allocated for it. A packet that comes in one piece is copied
    once, one in two pieces twice, and one in more pieces as often as a growing bytearray is: work
    stays linear, and memory close to what has arrived.
    """

    __slots__ = ("_length", "_part", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int = UNCONFIRMED_FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._length = 0
        """Of the unfinished packet; 0 until its whole length has arrived."""
        self._part: bytes | bytearray = b""
        """What has arrived of that packet, or of its length."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the packets that ``data`` completes, one by one, since the proof in the first may
        lift the limit for the next. Exhaust the iterator before you feed more.

        Raises :class:`InvalidPacket` at a frame that is empty or too large: nothing can be read
        from the stream after that.
        """
        start, end = 0, len(data)
        if self._part or self._length:
            if not self._length:
                # The length itself was split.
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
        """The other side is confirmed: accept frames of full size."""
        self.frame_bytes_max = PACKET_BYTES_MAX

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished frame is held."""
        return len(self._part) + (LENGTH_BYTES if self._length else 0)

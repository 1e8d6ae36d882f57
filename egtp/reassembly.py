"""Putting chunks together again.

Memory is charged as bytes arrive, never by what a chunk promises, so a promise costs nothing.
Chunks of one message come in order; of different messages, interleaved.
"""

from __future__ import annotations

from typing import Final

from egtp.errors import InvalidPacket
from egtp.large_message import Arrived, Arriving
from egtp.sealed import Chunk

__all__ = ["MESSAGES_MAX", "Reassembly"]

MESSAGES_MAX: Final = 64
"""How many messages of one path may be under way in chunks at a time."""


class _Part:
    """Of one message: its pieces in one, or a large message that is being read."""

    __slots__ = ("pieces", "reader", "size", "total")

    def __init__(self, total: int) -> None:
        self.total: Final = total
        self.size = 0
        self.pieces = bytearray()
        self.reader: Arriving | None = None

    def add(self, data: bytes) -> None:
        if not self.size:
            self.reader = Arriving.begin(data, self.total)
            if self.reader is None:
                self.pieces += data
        elif self.reader is not None:
            self.reader.feed(data)
        else:
            self.pieces += data
        self.size += len(data)


class Reassembly:
    """The unfinished messages of one path.

    Invariant: :attr:`held_bytes` is the sum of the parts' sizes and never above the limit.
    """

    __slots__ = ("_bytes_max", "_message_bytes_max", "_parts", "held_bytes")

    def __init__(self, bytes_max: int, message_bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._message_bytes_max = message_bytes_max
        self._parts: dict[int, _Part] = {}
        self.held_bytes = 0

    def feed(self, chunk: Chunk) -> bytes | bytearray | Arrived | None:
        """The whole if ``chunk`` is its last part, else None: the bytes of a message item, or what
        has been read from them already.

        Raises :class:`InvalidPacket` for chunks out of order or over a limit; the path is then
        beyond repair, since both sides know the limits.
        """
        part = self._parts.get(chunk.message_id) or _Part(chunk.total)
        total = part.total
        if chunk.total != total or chunk.offset != part.size:
            raise InvalidPacket("a chunk out of order")
        if total > self._message_bytes_max or part.size + len(chunk.data) > total:
            raise InvalidPacket("a chunked message over its limit")
        if self.held_bytes + len(chunk.data) > self._bytes_max:
            raise InvalidPacket("too much under way in chunks")
        if not part.size:
            if len(self._parts) >= MESSAGES_MAX:
                raise InvalidPacket("too many messages under way in chunks")
            self._parts[chunk.message_id] = part
        part.add(chunk.data)
        self.held_bytes += len(chunk.data)
        if part.size < total:
            return None
        del self._parts[chunk.message_id]
        self.held_bytes -= total
        return part.pieces if part.reader is None else part.reader.whole()

    def abandon(self, message_id: int) -> None:
        """The rest of a message will not come."""
        part = self._parts.pop(message_id, None)
        if part is not None:
            self.held_bytes -= part.size

"""Putting chunks together again.

Memory is charged as bytes arrive, never by what a chunk promises, so a promise costs nothing.
Chunks of one message come in order; of different messages, interleaved.
"""

from __future__ import annotations

from typing import Final

from egtp.errors import InvalidPacket
from egtp.sealed import Chunk

__all__ = ["MESSAGES_MAX", "Reassembly"]

MESSAGES_MAX: Final = 64
"""How many messages of one path may be under way in chunks at a time."""


class Reassembly:
    """The unfinished messages of one path.

    Invariant: :attr:`held_bytes` is the sum of the parts' sizes and never above the limit.
    """

    __slots__ = ("_bytes_max", "_message_bytes_max", "_parts", "held_bytes")

    def __init__(self, bytes_max: int, message_bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._message_bytes_max = message_bytes_max
        self._parts: dict[int, tuple[int, bytearray]] = {}
        self.held_bytes = 0

    def feed(self, chunk: Chunk) -> bytes | bytearray | None:
        """The whole message if ``chunk`` is its last part, else None.

        Raises :class:`InvalidPacket` for chunks out of order or over a limit; the path is then
        beyond repair, since both sides know the limits.
        """
        total, part = self._parts.get(chunk.message_id) or (chunk.total, bytearray())
        if chunk.total != total or chunk.offset != len(part):
            raise InvalidPacket("a chunk out of order")
        if total > self._message_bytes_max or len(part) + len(chunk.data) > total:
            raise InvalidPacket("a chunked message over its limit")
        if self.held_bytes + len(chunk.data) > self._bytes_max:
            raise InvalidPacket("too much under way in chunks")
        if not part:
            if len(self._parts) >= MESSAGES_MAX:
                raise InvalidPacket("too many messages under way in chunks")
            self._parts[chunk.message_id] = (total, part)
        part += chunk.data
        self.held_bytes += len(chunk.data)
        if len(part) < total:
            return None
        del self._parts[chunk.message_id]
        self.held_bytes -= total
        return part

    def abandon(self, message_id: int) -> None:
        """The rest of a message will not come."""
        _, part = self._parts.pop(message_id, (0, b""))
        self.held_bytes -= len(part)

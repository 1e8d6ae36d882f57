"""Putting chunks together again.

Memory is charged as bytes arrive, never by what a chunk promises, so a promise costs nothing.
Chunks of one message come in order; of different messages, interleaved. A message for which there
is no room is read on without being kept: then it can be refused when it has ended, and what comes
beside it is none the worse.
"""

from __future__ import annotations

from typing import Final, Protocol

from egtp.errors import InvalidPacket
from egtp.large_message import Arrived, Arriving
from egtp.message import Reply
from egtp.sealed import Chunk

__all__ = ["MESSAGES_MAX", "Reassembly", "RoomForChunks"]

MESSAGES_MAX: Final = 64
"""How many messages of one path may be under way in chunks at a time."""


class RoomForChunks(Protocol):
    """What a node has for those who send in chunks."""

    def take_room(self, size: int) -> bool:
        """Whether there is room for so many bytes of a query or send; they are taken then."""

    def give_room_back(self, size: int) -> None:
        """So many bytes that were taken are not held any more."""

    def is_awaited(self, reply: Reply) -> bool:
        """Whether somebody here waits for that reply, and so has room for it."""


class _Part:
    """Of one message: its pieces in one, or a message that is being read."""

    __slots__ = ("pieces", "reader", "room", "size", "total")

    def __init__(self, total: int) -> None:
        self.total: Final = total
        self.size = 0
        self.pieces = bytearray()
        self.reader: Arriving | None = None
        self.room = 0
        """What was taken for it."""

    def add(self, data: bytes | memoryview) -> None:
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

    Invariant: :attr:`held_bytes` is the sum of the parts' sizes and never above the limit. It is
    what both sides count; of it, what is kept of queries and sends has room of the node's.
    """

    __slots__ = ("_bytes_max", "_message_bytes_max", "_parts", "_room", "held_bytes")

    def __init__(self, bytes_max: int, message_bytes_max: int, room: RoomForChunks) -> None:
        self._bytes_max = bytes_max
        self._message_bytes_max = message_bytes_max
        self._room = room
        self._parts: dict[int, _Part] = {}
        self.held_bytes = 0

    def feed(self, chunk: Chunk) -> bytes | bytearray | Arrived | None:
        """The whole if ``chunk`` is its last part, else None: the bytes of a message item, or what
        has been read from them already.

        Raises :class:`InvalidPacket` for chunks out of order or over a limit that both sides know,
        or without room for what cannot be read in pieces; the path is then beyond repair.
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
        self._keep(part, len(chunk.data))
        if part.size < total:
            return None
        del self._parts[chunk.message_id]
        self._forget(part)
        return part.pieces if part.reader is None else part.reader.whole()

    def _keep(self, part: _Part, size: int) -> None:
        """There is so much more of a message: have room for it, or keep nothing of it."""
        reader = part.reader
        if reader is not None and reader.is_refused:
            return
        if reader is not None and type(reader.message) is Reply:
            if part.size == size and not self._room.is_awaited(reader.message):
                reader.refuse()
        elif self._room.take_room(size):
            part.room += size
        elif reader is not None:
            reader.refuse()
            self._room.give_room_back(part.room)
            part.room = 0
        else:
            raise InvalidPacket("no room for what comes in chunks")

    def abandon(self, message_id: int) -> None:
        """The rest of a message will not come."""
        part = self._parts.pop(message_id, None)
        if part is not None:
            self._forget(part)

    def abandon_all(self) -> None:
        """Nothing comes any more."""
        for message_id in list(self._parts):
            self.abandon(message_id)

    def _forget(self, part: _Part) -> None:
        self.held_bytes -= part.size
        self._room.give_room_back(part.room)

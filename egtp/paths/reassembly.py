"""Reassembles messages from their chunks.

Memory is charged as bytes arrive, never by the size that a chunk announces, so announcing costs
nothing. Chunks of one message come in order; those of different messages may interleave. A message
without room is read to its end but not kept: it can then be refused, and messages beside it are not
affected. The same happens to one that is let go because it is past its lifetime, because nothing
more comes, or because others need the room.
"""

from __future__ import annotations

from typing import Final, Protocol

from egtp.channel.sealed import Chunk
from egtp.errors import InvalidPacket
from egtp.queries.large_message import Arrived, Arriving
from egtp.values.message import Reply

__all__ = ["MESSAGES_MAX", "PAUSE_MAX_S", "Reassembly", "RoomForChunks"]

MESSAGES_MAX: Final = 64
"""How many messages of one path may be under way in chunks at a time."""
PAUSE_MAX_S: Final = 30.0
"""Unfinished messages are let go when no chunk of *any* message came for this long: on a slow line
they take turns, and wait for each other. A line that takes longer than this for the 16 KiB of one
chunk is no line for messages that need chunks."""
COMING_S: Final = 4.0
"""After a chunk, more are expected for this long: a slow line takes seconds for each."""


class RoomForChunks(Protocol):
    """The room that a node has for what one peer sends in chunks."""

    def take_room(self, size: int) -> bool:
        """Take room for ``size`` bytes of a query or send. False if there is none."""

    def give_room_back(self, size: int) -> None:
        """``size`` bytes for which room was taken are no longer held."""

    def is_awaited(self, reply: Reply) -> bool:
        """Whether somebody here waits for that reply, and so has room for it."""

    @property
    def is_strangers(self) -> bool:
        """Whether the peer is a stranger: strangers make way when others lack room."""


class _Part:
    """An unfinished message: its bytes so far, or a reader that has parsed them."""

    __slots__ = ("is_kept", "pieces", "reader", "room", "size", "total", "until_s")

    def __init__(self, total: int) -> None:
        self.total: Final = total
        self.is_kept = True
        self.until_s = float("inf")
        """When its lifetime ends, and it is let go unless it is a reply that somebody waits for."""
        self.size = 0
        self.pieces = bytearray()
        self.reader: Arriving | None = None
        self.room = 0
        """How much room was taken for it."""

    def add(self, data: bytes | memoryview, now_s: float) -> None:
        if not self.size:
            self.reader = Arriving.begin(data, self.total)
            if self.reader is not None:
                self.until_s = now_s + self.reader.left_s
            else:
                self.pieces += data
        elif self.reader is not None:
            self.reader.feed(data)
        else:
            self.pieces += data
        self.size += len(data)

    def refuse(self) -> None:
        """Keep nothing of it. Without a reader, its next chunk ends the path."""
        self.is_kept = False
        self.pieces = bytearray()
        if self.reader is not None:
            self.reader.refuse()


class Reassembly:
    """The unfinished messages of one path.

    Invariant: :attr:`held_bytes` is the sum of the parts' sizes and never above the limit. Both
    sides keep this count; for what is kept of queries and sends, room of the node's is taken.
    """

    __slots__ = (
        "_bytes_max",
        "_fed_bytes",
        "_fed_s",
        "_message_bytes_max",
        "_next_end_s",
        "_parts",
        "_room",
        "_since_s",
        "held_bytes",
    )

    def __init__(self, bytes_max: int, message_bytes_max: int, room: RoomForChunks) -> None:
        self._bytes_max = bytes_max
        self._message_bytes_max = message_bytes_max
        self._room = room
        self._parts: dict[int, _Part] = {}
        self.held_bytes = 0
        self._since_s = self._fed_s = 0.0
        self._fed_bytes = 0
        self._next_end_s = float("inf")
        """No lifetime ends before this, so looking through all parts earlier would be in vain."""

    def __bool__(self) -> bool:
        """Whether any unfinished message is kept."""
        return any(part.is_kept for part in self._parts.values())

    @property
    def is_strangers(self) -> bool:
        return self._room.is_strangers

    def is_bringing_reply(self, reference: bytes, now_s: float) -> bool:
        """Whether part of the reply to that query is here, and chunks still come."""
        if now_s - self._fed_s > COMING_S:
            return False
        messages = [part.reader.message for part in self._parts.values() if part.reader is not None]
        return any(type(one) is Reply and one.reference == reference for one in messages)

    def pace(self, now_s: float) -> float:
        """Bytes per second, of all messages together, since there have been unfinished ones."""
        return self._fed_bytes / max(now_s - self._since_s, 1e-3)

    def feed(self, chunk: Chunk, now_s: float) -> bytes | bytearray | Arrived | None:
        """Take a chunk. Returns the whole if it is the last one, else None: the bytes of a message
        item, or what was already parsed from them.

        Raises :class:`InvalidPacket` for a chunk out of order, over a limit that both sides know,
        or without room if its message cannot be parsed in pieces; the path is then beyond repair.
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
            if not self._parts:
                self._since_s, self._fed_bytes = now_s, 0
            self._parts[chunk.message_id] = part
        size = len(chunk.data)
        self._fed_s = now_s
        self._fed_bytes += size
        part.add(chunk.data, now_s)
        self._next_end_s = min(self._next_end_s, part.until_s)
        self.held_bytes += size
        self._keep(part, size)
        if part.size < total:
            return None
        del self._parts[chunk.message_id]
        self._forget(part)
        return part.pieces if part.reader is None else part.reader.whole()

    def _keep(self, part: _Part, size: int) -> None:
        """``size`` more bytes of a message are here: take room for them, or keep nothing of it."""
        reader = part.reader
        if part.is_kept and reader is not None and type(reader.message) is Reply:
            if part.size == size and not self._room.is_awaited(reader.message):
                part.refuse()
        elif part.is_kept:
            if self._room.take_room(size):
                part.room += size
            else:
                part.refuse()
        if not part.is_kept:
            # Making room may have refused this very message, and then taken some for it.
            self._give_back(part)
            if reader is None:
                raise InvalidPacket("no room for what comes in chunks")

    def look(self, now_s: float) -> int:
        """Let go messages past their lifetime, replies that nobody waits for any more, or all if
        nothing more comes. Returns how many."""
        if now_s - self._fed_s > PAUSE_MAX_S:
            return self.let_go()
        if now_s < self._next_end_s:
            return 0
        gone = self._refuse([part for part in self._parts.values() if part.until_s <= now_s])
        ends = (part.until_s for part in self._parts.values() if part.is_kept)
        self._next_end_s = min(ends, default=float("inf"))
        return gone

    def let_go(self) -> int:
        """Let go all unfinished messages, except replies that somebody waits for. Returns how
        many."""
        return self._refuse(list(self._parts.values()))

    def _refuse(self, parts: list[_Part]) -> int:
        gone = 0
        for part in parts:
            message = None if part.reader is None else part.reader.message
            if part.is_kept and not (type(message) is Reply and self._room.is_awaited(message)):
                part.refuse()
                self._give_back(part)
                gone += 1
        return gone

    def abandon(self, message_id: int) -> None:
        """The rest of a message will not come."""
        part = self._parts.pop(message_id, None)
        if part is not None:
            self._forget(part)

    def abandon_all(self) -> None:
        """No more chunks will come."""
        for message_id in list(self._parts):
            self.abandon(message_id)

    def _forget(self, part: _Part) -> None:
        self.held_bytes -= part.size
        self._give_back(part)

    def _give_back(self, part: _Part) -> None:
        self._room.give_room_back(part.room)
        part.room = 0

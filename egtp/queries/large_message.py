"""Large messages: head and body stay apart, so that no single step works through all the bytes.

Hashing sixteen megabytes takes eight milliseconds, copying them takes more, and everything else
would wait for that. So a large message is hashed piece by piece as it leaves, and as it arrives;
and its body is the very object that the caller gave, or that the handler gets (pure).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, NamedTuple

from egtp.channel.sealed import AGE_BYTES
from egtp.errors import InvalidMessage
from egtp.values.bodies import BYTES_16, BYTES_32
from egtp.values.canonical import decode_with_body, pack
from egtp.values.message import Message, Query, Reply, decode_message

__all__ = ["LARGE_BYTES", "Arrived", "Arriving", "LargeMessage", "body_bytes", "pack_message"]

LARGE_BYTES: Final = 65_536
"""From this size on, a body has a five-byte head in canonical form."""
HEAD_BYTES_MAX: Final = 512
"""What precedes a body is shorter than this."""
SIZE_BYTES_MAX: Final = 4
"""The bytes of a body's size, after the byte that it begins with."""
_BODY_HEAD: Final = bytes((BYTES_32,))
_BODY_HEADS: Final = ((bytes((BYTES_32,)), 5, LARGE_BYTES), (bytes((BYTES_16,)), 3, 256))
"""How a body begins: its first byte, how many bytes that and the size take, and the smallest body
of that form."""
LOOKS_MAX: Final = 4
"""At how many places that look like the beginning of the body a message is read. By chance, hardly
one message in a thousand has a second one; but a piece can be made of nothing else."""
_NO_BODY: Final = pack(b"")


class LargeMessage:
    """The bytes of a message, as a sequence to be sliced from beginning to end."""

    __slots__ = ("_body", "_hash", "_hashed", "_head", "_size", "_tell", "_view", "refers_to")

    def __init__(
        self, fields: tuple[Any, ...], tell: Callable[[bytes], object] | None = None
    ) -> None:
        """The last of the fields is a large body. ``tell`` is called once, after each byte was in a
        slice, with the SHA-256 of them all: the reference, if this is a query (R2)."""
        body = bytes(fields[-1])
        before_body = pack((*fields[:-1], b""))[: -len(_NO_BODY)]
        self._head = before_body + _BODY_HEAD + len(body).to_bytes(4, "big")
        self.refers_to: Final[bytes | None] = fields[2]
        """In a reply, the reference of the query that it answers."""
        self._body = body
        self._view = memoryview(body)
        self._size = len(self._head) + len(body)
        self._tell = tell
        self._hash = None if tell is None else sha256()
        self._hashed = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, piece: slice) -> bytes | memoryview:
        start, stop, _ = piece.indices(self._size)
        body_at = len(self._head)
        data: bytes | memoryview
        if start >= body_at:
            data = self._view[start - body_at : stop - body_at]
        else:
            data = self._head[start:stop] + self._body[: max(0, stop - body_at)]
        if self._hash is not None and start <= self._hashed < stop:
            # It may begin to leave again, by another path, before it has left once.
            self._hash.update(data[self._hashed - start :])
            self._hashed = stop
            if stop == self._size and self._tell is not None:
                digest, self._hash = self._hash.digest(), None
                self._tell(digest)
        return data

    def __bytes__(self) -> bytes:
        return self._head + self._body

    @property
    def body_bytes(self) -> int:
        return len(self._body)


def body_bytes(message: bytes | LargeMessage) -> int:
    """The size of the body of a message that this node made. Not for hot code."""
    if isinstance(message, LargeMessage):
        return message.body_bytes
    return len(decode_with_body(message)[-1])


def pack_message(fields: tuple[Any, ...]) -> bytes | LargeMessage:
    """The canonical form of a message with these fields, the last of which is its body."""
    return pack(fields) if len(fields[-1]) < LARGE_BYTES else LargeMessage(fields)


class Arrived(NamedTuple):
    """A message that has arrived completely."""

    age_ms: int
    message: Message
    reference: bytes
    """The reference of a query; empty for others."""
    refused: bool
    """Whether its body was not kept."""


class Arriving:
    """A message that has arrived in part."""

    __slots__ = ("_age", "_body", "_hash", "message")

    def __init__(self, age: bytes, message: Message, head: bytes) -> None:
        self._age = age
        self.message: Final = message
        """The message without its body."""
        # BytesIO gives its bytes away without a copy.
        self._body: io.BytesIO | None = io.BytesIO()
        self._hash = sha256(head) if type(message) is Query else None

    @classmethod
    def begin(cls, piece: bytes | memoryview, total: int) -> Arriving | None:
        """The message that begins with this piece and has ``total`` bytes, including its age. None
        if it is not a message with a body of at least 256 bytes, or the piece is too short to tell.
        """
        first = bytes(piece[: HEAD_BYTES_MAX + SIZE_BYTES_MAX])
        looks = 0
        for body_head, head_bytes, size_min in _BODY_HEADS:
            at = first.find(body_head, AGE_BYTES, HEAD_BYTES_MAX)
            while at >= 0 and looks < LOOKS_MAX:
                body_at = at + head_bytes
                size = int.from_bytes(first[at + 1 : body_at], "big")
                if size_min <= size == total - body_at and len(first) >= body_at:
                    looks += 1
                    try:
                        # No canonical form is a prefix of another, so this is the whole head.
                        message = decode_message(first[AGE_BYTES:at] + _NO_BODY)
                    except InvalidMessage:
                        pass
                    else:
                        arriving = cls(first[:AGE_BYTES], message, first[AGE_BYTES:body_at])
                        arriving.feed(piece[body_at:])
                        return arriving
                at = first.find(body_head, at + 1, HEAD_BYTES_MAX)
        return None

    def feed(self, piece: bytes | memoryview) -> None:
        if self._body is not None:
            self._body.write(piece)
        if self._hash is not None:
            self._hash.update(piece)

    @property
    def left_s(self) -> float:
        """What was left of its lifetime when it began to leave. A reply has none: it is kept for as
        long as somebody waits for it, who may give up at any moment."""
        if isinstance(self.message, Reply):
            return 0.0
        return (self.message.lifetime_ms - int.from_bytes(self._age, "big")) / 1000

    def refuse(self) -> None:
        """Drop the body, including what has arrived. The reference is still computed, so that the
        refusal can name it."""
        self._body = None

    def whole(self) -> Arrived:
        """Call this once, after the last piece."""
        body = b"" if self._body is None else self._body.getvalue()
        return Arrived(
            int.from_bytes(self._age, "big"),
            self.message._replace(body=body),
            b"" if self._hash is None else self._hash.digest(),
            self._body is None,
        )

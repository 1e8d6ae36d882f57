"""The plaintext of a sealed packet: a clock, a mark, and items.

``t`` (u32: milliseconds on the sender's elapsed clock since the session began) lets the receiver
see how long packets are under way. ``settled`` (u64) says that all queries of the sender with a
lower number are finished. Then come the items: u8 type, u32 length, bytes. An unknown type is
skipped if it is 0x80 or above, and an error if it is below.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from egtp.errors import InvalidPacket

__all__ = [
    "CHUNK_BYTES_MAX",
    "CLOSE_FOR_GOOD",
    "GOAWAY_CLOSING",
    "Chunk",
    "AGE_BYTES",
    "MESSAGE",
    "ItemType",
    "Sealed",
    "chunk_head",
    "item",
    "message_head",
    "parse_age",
    "parse_chunk",
    "parse_goaway",
    "parse_sealed",
    "parse_settled_except",
    "write_chunk",
    "write_goaway",
    "write_message",
    "write_sealed",
    "write_settled_except",
]

_PREFIX: Final = struct.Struct(">IQ")
_ITEM: Final = struct.Struct(">BI")
_MESSAGE: Final = struct.Struct(">BII")
_CHUNK: Final = struct.Struct(">BIIII")
_CHUNK_HEADER: Final = struct.Struct(">III")
_U32: Final = struct.Struct(">I")
_GOAWAY: Final = struct.Struct(">II")
_new: Final = tuple.__new__
GOAWAY_CLOSING: Final = 1
"""The reason of a goaway: the node is about to close."""
CLOSE_FOR_GOOD: Final = b"\x01"
"""What a close says if not only the path ends, but the incarnation of the peer."""

U32_MAX: Final = 2**32 - 1
CHUNK_BYTES_MAX: Final = 16 * 1024
"""How much of a message a chunk may carry."""
PREFIX_BYTES: Final = 12
ITEM_HEAD_BYTES: Final = 5
MESSAGE_HEAD_BYTES: Final = 9
"""Including its age."""
CHUNK_HEAD_BYTES: Final = 12
"""What precedes a chunk's bytes within the item."""
message_head: Final = _MESSAGE.pack
"""``message_head(MESSAGE, len(message) + 4, age_ms)``: what precedes a message. For hot code;
:func:`write_message` makes the whole item."""


class ItemType(enum.IntEnum):
    """The types of items; docs/protocol.md describes their bytes."""

    MESSAGE = 1
    CHUNK = 2
    WORKING = 3
    CANCEL = 4
    PING = 5
    PONG = 6
    LIMITS = 7
    RECORD = 8
    GOAWAY = 9
    CLOSE = 10
    PADDING = 0x80
    SETTLED_EXCEPT = 0x81
    CHUNKS_END = 0x82


KNOWN_TYPES: Final = frozenset(map(int, ItemType)) - {ItemType.PADDING}
MESSAGE: Final = int(ItemType.MESSAGE)
AGE_BYTES: Final = 4
IGNORABLE_FROM: Final = 0x80


class Sealed(NamedTuple):
    """A parsed plaintext."""

    t_ms: int
    settled: int
    items: list[tuple[int, int, bytes]]
    """For each its type, the age in ms if it is a message (0 for others), and its bytes."""


class Chunk(NamedTuple):
    """A piece of a message that is too large for one item."""

    message_id: int
    total: int
    offset: int
    data: bytes | memoryview


def item(kind: int, data: bytes = b"") -> bytes:
    return _ITEM.pack(kind, len(data)) + data


def write_message(age_ms: int, message: bytes) -> bytes:
    """A message item. The age is outside the bytes that the reference hashes, so that the message
    itself stays the same however often it is sealed."""
    return _MESSAGE.pack(ItemType.MESSAGE, len(message) + 4, min(age_ms, U32_MAX)) + message


def parse_age(data: bytes | bytearray) -> tuple[int, bytes]:
    """The age in milliseconds, and the message, from the bytes of a message item."""
    if len(data) < AGE_BYTES:
        raise InvalidPacket("a message item without its age")
    # There may be many megabytes of it, so copy it once only.
    return _U32.unpack_from(data)[0], bytes(memoryview(data)[AGE_BYTES:])


def chunk_head(message_id: int, total: int, offset: int, length: int) -> bytes:
    """What precedes a chunk of that length."""
    return _CHUNK.pack(ItemType.CHUNK, CHUNK_HEAD_BYTES + length, message_id, total, offset)


def write_chunk(message_id: int, total: int, offset: int, data: bytes) -> bytes:
    return chunk_head(message_id, total, offset, len(data)) + data


def parse_chunk(data: bytes) -> Chunk:
    if not CHUNK_HEAD_BYTES < len(data) <= CHUNK_HEAD_BYTES + CHUNK_BYTES_MAX:
        raise InvalidPacket("a chunk of a wrong size")
    message_id, total, offset = _CHUNK_HEADER.unpack_from(data)
    return _new(Chunk, (message_id, total, offset, memoryview(data)[CHUNK_HEAD_BYTES:]))


def write_sealed(t_ms: int, settled: int, items: Iterable[bytes | memoryview]) -> bytes:
    return _PREFIX.pack(min(t_ms, U32_MAX), settled) + b"".join(items)


def parse_sealed(plaintext: bytes) -> Sealed:
    """Raises :class:`InvalidPacket` for a malformed plaintext or an unknown critical item."""
    end = len(plaintext)
    if end < PREFIX_BYTES:
        raise InvalidPacket("a sealed packet without its clock")
    t_ms, settled = _PREFIX.unpack_from(plaintext)
    items: list[tuple[int, int, bytes]] = []
    position = PREFIX_BYTES
    length: int
    while position < end:
        if end - position >= MESSAGE_HEAD_BYTES:
            # Nearly all items are messages, so read those in one step.
            kind, length, age_ms = _MESSAGE.unpack_from(plaintext, position)
            if kind == MESSAGE and length >= AGE_BYTES:
                start, position = position + MESSAGE_HEAD_BYTES, position + ITEM_HEAD_BYTES + length
                if position > end:
                    raise InvalidPacket("an item longer than its packet")
                items.append((MESSAGE, age_ms, plaintext[start:position]))
                continue
        if end - position < ITEM_HEAD_BYTES:
            raise InvalidPacket("half an item")
        kind, length = _ITEM.unpack_from(plaintext, position)
        position += ITEM_HEAD_BYTES
        if end - position < length:
            raise InvalidPacket("an item longer than its packet")
        if kind in KNOWN_TYPES:
            # A message item too short for an age yields empty bytes, which are no message.
            data = b"" if kind == MESSAGE else plaintext[position : position + length]
            items.append((kind, 0, data))
        elif kind < IGNORABLE_FROM:
            raise InvalidPacket(f"unknown critical item {kind}")
        position += length
    return _new(Sealed, (t_ms, settled, items))


def write_goaway(reason: int, retry_after_s: float) -> bytes:
    """The bytes of an item that says: ask me nothing more, and stay away for so long."""
    return _GOAWAY.pack(reason, min(int(retry_after_s * 1000), U32_MAX))


def parse_goaway(data: bytes) -> tuple[int, float]:
    """The reason, and how many seconds to stay away. Raises :class:`InvalidPacket`."""
    if len(data) < _GOAWAY.size:
        raise InvalidPacket("half a goaway")
    reason, retry_after_ms = _GOAWAY.unpack_from(data)
    return reason, retry_after_ms / 1000


def write_settled_except(upto: int, exceptions: Iterable[int]) -> bytes:
    """The bytes of an item that says: all numbers below ``upto`` but these are settled."""
    numbers = (upto, *exceptions)
    return struct.pack(f">{len(numbers)}Q", *numbers)


def parse_settled_except(data: bytes, exceptions_max: int) -> tuple[int, frozenset[int]]:
    """Raises :class:`InvalidPacket`."""
    if not 8 <= len(data) <= 8 * (exceptions_max + 1) or len(data) % 8:
        raise InvalidPacket("numbers that are no numbers")
    upto, *exceptions = struct.unpack(f">{len(data) // 8}Q", data)
    return upto, frozenset(exceptions)

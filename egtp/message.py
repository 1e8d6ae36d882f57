"""Messages: what one application says to another, in canonical form (R1-R4).

Three kinds exist. A *query* wants a reply; a *reply* carries the reference of its query, which
is the SHA-256 of the query's bytes; a *send* wants nothing back. Each begins with a random
16-byte nonce, unique for ever. Nonce and reference are in the message whatever carries it, so the
association of reply and query, and the acknowledgement that it is, hold end to end.
"""

from __future__ import annotations

import enum
import hashlib
import re
from typing import Final, NamedTuple, TypeAlias

from egtp import canonical
from egtp.canonical import pack
from egtp.errors import CanonicalError, InvalidMessage, LocalProtocolError

__all__ = [
    "NONCE_BYTES",
    "Message",
    "Query",
    "Reply",
    "ReplyCode",
    "Send",
    "check_kind",
    "decode_message",
    "reference_of",
]

NONCE_BYTES: Final = 16
REFERENCE_BYTES: Final = 32
U32_LIMIT: Final = 2**32
U64_LIMIT: Final = 2**64

_KIND: Final = re.compile(r"[a-z0-9._-]{1,64}")
RESERVED_PREFIX: Final = "egtp."


class ReplyCode(enum.IntEnum):
    """How a query was answered. 64-127 are the application's; an unknown code means 2."""

    OK = 0
    NO_SUCH_KIND = 1
    HANDLER_ERROR = 2
    BUSY = 3
    TOO_LARGE = 4
    REFUSED = 5
    EXPIRED = 6
    RAN_REPLY_GONE = 7


class Query(NamedTuple):
    """``[1, nonce, nil, number, kind, lifetime_ms, reply_bytes_max, body]``"""

    nonce: bytes
    number: int
    """Plus one per query to that peer, per incarnation of the sender."""
    kind: str
    lifetime_ms: int
    """The hard timeout: older than this the query must not be run."""
    reply_bytes_max: int
    """The largest reply body that the sender takes."""
    body: bytes

    def encode(self) -> bytes:
        return pack((1, self.nonce, None, *self[1:]))


class Reply(NamedTuple):
    """``[2, nonce, reference, code, body]``"""

    nonce: bytes
    reference: bytes
    code: int
    body: bytes

    def encode(self) -> bytes:
        return pack((2, *self))


class Send(NamedTuple):
    """``[3, nonce, nil, kind, lifetime_ms, body]``"""

    nonce: bytes
    kind: str
    lifetime_ms: int
    body: bytes

    def encode(self) -> bytes:
        return pack((3, self.nonce, None, *self[1:]))


Message: TypeAlias = Query | Reply | Send


def reference_of(query: bytes) -> bytes:
    """The reference of a query, from its bytes as sent or as received (R2): 32 bytes."""
    return hashlib.sha256(query).digest()


def decode_message(data: bytes) -> Message:
    """Raises :class:`InvalidMessage` unless ``data`` is the canonical form of a message."""
    try:
        fields = canonical.decode_flat(data)
    except CanonicalError as error:
        raise InvalidMessage(f"message: {error}") from None
    # On the path of every message: plain tests, in the order in which they tell most.
    if type(fields) is list and fields and type(fields[-1]) is bytes and _is_nonce(fields):
        size, kind = len(fields), fields[0]
        if kind == 2 and size == 5:
            _, nonce, reference, code, body = fields
            if (
                type(reference) is bytes
                and len(reference) == REFERENCE_BYTES
                and type(code) is int
                and 0 <= code < 128
            ):
                return Reply(nonce, reference, code, body)  # type: ignore[arg-type]
        elif kind == 1 and size == 8 and fields[2] is None:
            _, nonce, _, number, name, lifetime_ms, reply_max, body = fields
            if (
                type(number) is int
                and 0 <= number < U64_LIMIT
                and _is_u32(lifetime_ms)
                and _is_u32(reply_max)
                and type(name) is str
                and _KIND.fullmatch(name)
            ):
                return Query(nonce, number, name, lifetime_ms, reply_max, body)  # type: ignore[arg-type]
        elif kind == 3 and size == 6 and fields[2] is None:
            _, nonce, _, name, lifetime_ms, body = fields
            if _is_u32(lifetime_ms) and type(name) is str and _KIND.fullmatch(name):
                return Send(nonce, name, lifetime_ms, body)  # type: ignore[arg-type]
    raise InvalidMessage("not a query, reply or send")


def _is_nonce(fields: list[canonical.Value]) -> bool:
    # True equals 1 and is no type of message.
    return (
        type(fields[0]) is int
        and len(fields) > 1
        and type(fields[1]) is bytes
        and len(fields[1]) == NONCE_BYTES
    )


def _is_u32(value: canonical.Value) -> bool:
    return type(value) is int and 0 <= value < U32_LIMIT


def check_kind(kind: str, *, reserved: bool = False) -> None:
    """Raises :class:`LocalProtocolError` for a kind that an application cannot use.

    A kind is 1-64 of ``a-z 0-9 . _ -``; those that start with ``egtp.`` are the engine's.
    """
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise LocalProtocolError(f"a kind is 1 to 64 of a-z 0-9 . _ - and not {kind!r}")
    if kind.startswith(RESERVED_PREFIX) and not reserved:
        raise LocalProtocolError(f"kinds that start with {RESERVED_PREFIX!r} are the engine's own")

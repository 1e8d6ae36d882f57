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
        return canonical.encode((1, self.nonce, None, *self[1:]))


class Reply(NamedTuple):
    """``[2, nonce, reference, code, body]``"""

    nonce: bytes
    reference: bytes
    code: int
    body: bytes

    def encode(self) -> bytes:
        return canonical.encode((2, *self))


class Send(NamedTuple):
    """``[3, nonce, nil, kind, lifetime_ms, body]``"""

    nonce: bytes
    kind: str
    lifetime_ms: int
    body: bytes

    def encode(self) -> bytes:
        return canonical.encode((3, self.nonce, None, *self[1:]))


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
    if not isinstance(fields, list) or not fields or type(fields[0]) is not int:
        raise InvalidMessage("a message is an array that starts with its type")
    match fields:
        case [1, bytes(nonce), None, number, str(kind), lifetime_ms, reply_max, bytes(body)]:
            return Query(
                _nonce(nonce),
                _unsigned(number, U64_LIMIT),
                _kind(kind),
                _unsigned(lifetime_ms, U32_LIMIT),
                _unsigned(reply_max, U32_LIMIT),
                body,
            )
        case [2, bytes(nonce), bytes(reference), code, bytes(body)] if (
            len(reference) == REFERENCE_BYTES
        ):
            return Reply(_nonce(nonce), reference, _unsigned(code, 128), body)
        case [3, bytes(nonce), None, str(kind), lifetime_ms, bytes(body)]:
            return Send(_nonce(nonce), _kind(kind), _unsigned(lifetime_ms, U32_LIMIT), body)
    raise InvalidMessage("not a query, reply or send")


def check_kind(kind: str, *, reserved: bool = False) -> None:
    """Raises :class:`LocalProtocolError` for a kind that an application cannot use.

    A kind is 1-64 of ``a-z 0-9 . _ -``; those that start with ``egtp.`` are the engine's.
    """
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise LocalProtocolError(f"a kind is 1 to 64 of a-z 0-9 . _ - and not {kind!r}")
    if kind.startswith(RESERVED_PREFIX) and not reserved:
        raise LocalProtocolError(f"kinds that start with {RESERVED_PREFIX!r} are the engine's own")


def _nonce(nonce: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        raise InvalidMessage(f"a nonce is {NONCE_BYTES} bytes")
    return nonce


def _kind(kind: str) -> str:
    if not _KIND.fullmatch(kind):
        raise InvalidMessage("not a kind")
    return kind


def _unsigned(value: canonical.Value, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise InvalidMessage("a number out of its range")
    return value

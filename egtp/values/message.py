"""Messages: what one application says to another, in canonical form (R1-R4).

There are three types. A *query* wants a reply; a *reply* carries the reference of its query, the
SHA-256 of the query's bytes; a *send* wants nothing back. Each carries a random 16-byte nonce,
unique for ever. Nonce and reference are in the message, whatever carries it, so a reply is tied to
its query, and acknowledges it, end to end.
"""

from __future__ import annotations

import enum
import hashlib
import re
import struct
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from egtp.errors import CanonicalError, InvalidMessage, LocalProtocolError
from egtp.values.bodies import body_at
from egtp.values.canonical import decode_with_body, pack

__all__ = [
    "APPLICATION_CODES",
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
QUERY_HEAD: Final = b"\x98\x01\xc4\x10"
REPLY_HEAD: Final = b"\x95\x02\xc4\x10"
REFERENCE_HEAD: Final = b"\xc4\x20"
_REPLY: Final = struct.Struct(f"{NONCE_BYTES}s2s32sB")
REPLY_BODY_AT: Final = 55
SEND_HEAD: Final = b"\x96\x03\xc4\x10"
U32_LIMIT: Final = 2**32
U64_LIMIT: Final = 2**64

_new: Final = tuple.__new__
"""Makes a NamedTuple as its constructor does, at half the cost."""
_KIND: Final = re.compile(r"[a-z0-9._-]{1,64}")
RESERVED_PREFIX: Final = "egtp."


APPLICATION_CODES: Final = range(64, 128)
"""The codes whose meaning an application defines."""


class ReplyCode(enum.IntEnum):
    """How a query was answered. Codes 64 to 127 are the application's (:data:`APPLICATION_CODES`);
    any other unknown code means 2."""

    OK = 0
    NO_SUCH_KIND = 1
    """The peer has no handler for the kind: nothing has run."""
    HANDLER_ERROR = 2
    """The handler raised an exception, or returned what is no reply."""
    BUSY = 3
    """The peer has no room for the query, or is about to close: nothing has run."""
    TOO_LARGE = 4
    """The query is larger than the peer takes; or it has run, and the reply is larger than this
    node takes."""
    REFUSED = 5
    """One of the library's own handlers does not do what was asked."""
    EXPIRED = 6
    """The time of the query was over."""
    RAN_REPLY_GONE = 7
    """The query has run, or may have, and its reply is no longer there."""


class Query(NamedTuple):
    """``[1, nonce, nil, number, kind, lifetime_ms, reply_bytes_max, body]``"""

    nonce: bytes
    number: int
    """One more with each query to the peer in one incarnation of the sender."""
    kind: str
    lifetime_ms: int
    """The hard timeout: a query older than this must not run."""
    reply_bytes_max: int
    """The largest reply body that the sender accepts."""
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
    """The reference of a query, from its bytes as sent or received (R2): 32 bytes."""
    return hashlib.sha256(query).digest()


def decode_message(data: bytes) -> Message:
    """Raises :class:`InvalidMessage` unless ``data`` is the canonical form of a message."""
    # Hot: every message passes through here. Since the form is canonical, the first four bytes tell
    # the number of fields, the type of message, and that a 16-byte nonce follows.
    head = data[:4]
    if head == REPLY_HEAD:
        # All fields but the last have a fixed length.
        if len(data) > REPLY_BODY_AT + 1:
            nonce, reference_head, reference, code = _REPLY.unpack_from(data, 4)
            body = body_at(data, REPLY_BODY_AT)
            if reference_head == REFERENCE_HEAD and code < 128 and body is not None:
                return _new(Reply, (nonce, reference, code, body))
        raise InvalidMessage("message: not the canonical form of a reply")
    if head not in (QUERY_HEAD, SEND_HEAD):
        # What is no message must cost no more than one: a packet has room for 13,000 of them.
        raise InvalidMessage("not a query, reply or send")
    try:
        fields = decode_with_body(data)
    except CanonicalError as error:
        raise InvalidMessage(f"message: {error}") from None
    if head == QUERY_HEAD:
        _, nonce, nothing, number, kind, lifetime_ms, reply_max, body = fields
        if (
            nothing is None
            and type(number) is int
            and number >= 0
            and type(lifetime_ms) is int
            and 0 <= lifetime_ms < U32_LIMIT
            and type(reply_max) is int
            and 0 <= reply_max < U32_LIMIT
            and type(kind) is str
            and _is_kind(kind)
        ):
            return _new(Query, (nonce, number, kind, lifetime_ms, reply_max, body))
    else:
        _, nonce, nothing, kind, lifetime_ms, body = fields
        if (
            nothing is None
            and type(lifetime_ms) is int
            and 0 <= lifetime_ms < U32_LIMIT
            and type(kind) is str
            and _is_kind(kind)
        ):
            return _new(Send, (nonce, kind, lifetime_ms, body))
    raise InvalidMessage("not a query, reply or send")


@lru_cache(256)
def _is_kind(kind: str) -> bool:
    return _KIND.fullmatch(kind) is not None


def check_kind(kind: object, *, reserved: bool = False) -> None:
    """Raises :class:`LocalProtocolError` for a kind that an application cannot use.

    A kind is 1-64 of ``a-z 0-9 . _ -``; the engine reserves those that start with ``egtp.``, which
    ``reserved`` allows.
    """
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise LocalProtocolError(f"a kind must be 1 to 64 of a-z 0-9 . _ -, not {kind!r}")
    if kind.startswith(RESERVED_PREFIX) and not reserved:
        raise LocalProtocolError(
            f"kinds that start with {RESERVED_PREFIX!r} are reserved for the engine"
        )

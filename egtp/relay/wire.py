"""Messages to and from a relay: the bodies of kinds ``egtp.relay*``.

To relay a packet to B through R, a node sends "recipient B, packet" to R (seed II.B). The packet is
sealed end to end; a relay learns who talks to whom, when and how much, and nothing else.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from egtp.channel.packet import END_TO_END_BYTES_MAX
from egtp.errors import CanonicalError, InvalidMessage
from egtp.values import canonical
from egtp.values.bodies import body_at
from egtp.values.canonical import INTEGER_16
from egtp.values.identity import NodeId
from egtp.values.message import U32_LIMIT

__all__ = [
    "DELIVERY_KIND",
    "HINT_KIND",
    "LEASE_KIND",
    "NO_LEASE",
    "RELAY_KIND",
    "TOO_MUCH",
    "Delivery",
    "Hint",
    "Relay",
    "decode_lease",
    "digest_of",
    "encode_lease",
]

RELAY_KIND: Final = "egtp.relay"
DELIVERY_KIND: Final = "egtp.relay.delivery"
HINT_KIND: Final = "egtp.relay.hint"
LEASE_KIND: Final = "egtp.relay.lease"

RELAY_HEAD: Final = b"\x93\xc4\x14"
DELIVERY_HEAD: Final = b"\x92\xc4\x14"
"""How an array begins whose first element is a nodeId of 20 bytes."""
_new: Final = tuple.__new__

NO_LEASE: Final = 1
"""Hint: the recipient is not registered here."""
TOO_MUCH: Final = 2
"""Hint: a quota of the sender or the recipient is used up."""


class Relay(NamedTuple):
    """To the relay: ``[recipient, lifetime_ms, packet]``."""

    recipient: NodeId
    lifetime_ms: int
    packet: bytes

    def encode(self) -> bytes:
        return canonical.pack(self)

    @classmethod
    def decode(cls, body: bytes) -> Relay:
        # Every packet passes here, so its usual form, with a lifetime of 16 bits, has a fast path.
        if body[:3] == RELAY_HEAD and len(body) > 27 and body[23] == INTEGER_16 and body[24]:
            data = body_at(body, 26)
            if data is not None and len(data) <= END_TO_END_BYTES_MAX:
                return _new(cls, (NodeId(body[3:23]), body[24] << 8 | body[25], data))
        match _decode(body):
            case [bytes(recipient), int(lifetime_ms), bytes(packet), *_] if (
                len(recipient) == 20
                and type(lifetime_ms) is int
                and 0 <= lifetime_ms < U32_LIMIT
                and len(packet) <= END_TO_END_BYTES_MAX
            ):
                return cls(NodeId(recipient), lifetime_ms, packet)
        raise InvalidMessage("not a relay message")


class Delivery(NamedTuple):
    """From the relay: ``[sender, packet]``. The sender is only the relay's claim, and tells where
    an answer goes; who made the packet, the packet itself proves."""

    sender: NodeId
    packet: bytes

    def encode(self) -> bytes:
        return canonical.pack(self)

    @classmethod
    def decode(cls, body: bytes) -> Delivery:
        if body[:3] == DELIVERY_HEAD and len(body) > 24:
            data = body_at(body, 23)
            if data is not None and len(data) <= END_TO_END_BYTES_MAX:
                return _new(cls, (NodeId(body[3:23]), data))
        match _decode(body):
            case [bytes(sender), bytes(packet), *_] if (
                len(sender) == 20 and len(packet) <= END_TO_END_BYTES_MAX
            ):
                return cls(NodeId(sender), packet)
        raise InvalidMessage("not a delivery")


class Hint(NamedTuple):
    """From the relay, optional: ``[first 16 bytes of the packet's SHA-256, code]``."""

    digest: bytes
    code: int

    def encode(self) -> bytes:
        return canonical.pack(self)

    @classmethod
    def decode(cls, body: bytes) -> Hint:
        match _decode(body):
            case [bytes(digest), int(code), *_] if len(digest) == 16 and type(code) is int:
                return cls(digest, code)
        raise InvalidMessage("not a hint")


def digest_of(packet: bytes) -> bytes:
    """How a hint identifies a packet."""
    return hashlib.sha256(packet).digest()[:16]


def encode_lease(seconds: int) -> bytes:
    """``[seconds]``: asked for, or granted; 0 gives a lease back."""
    return canonical.encode((seconds,))


def decode_lease(body: bytes) -> int:
    match _decode(body):
        case [int(seconds), *_] if type(seconds) is int and 0 <= seconds < U32_LIMIT:
            return seconds
    raise InvalidMessage("not a lease")


def _decode(body: bytes) -> canonical.Value:
    try:
        return canonical.decode(body)
    except CanonicalError as error:
        raise InvalidMessage(f"relay body: {error}") from None

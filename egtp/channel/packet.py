"""Packets, which travel in the frames of a TCP connection or inside relay messages.

Every packet starts with a clear header: type, version 1, suite, zero, then the fields of its type,
big-endian. The header is authenticated together with the sealed part that follows it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from egtp.channel.noise import INITIATION_OVERHEAD, RESPONSE_OVERHEAD, TAG_BYTES
from egtp.errors import InvalidPacket
from egtp.values.comm_record import SUITE_AESGCM

__all__ = [
    "DATA_HEADER",
    "DATA_START",
    "END_TO_END_BYTES_MAX",
    "INITIATION_BYTES_MIN",
    "PACKET_BYTES_MAX",
    "VERSION",
    "Data",
    "Initiation",
    "Packet",
    "Response",
    "UnknownSession",
    "decode_packet",
    "is_initiation_for",
]

VERSION: Final = 1
PACKET_BYTES_MAX: Final = 65_535
END_TO_END_BYTES_MAX: Final = 65_000
"""The largest packet between two peers: a relay can always wrap it in another one."""
MAC_BYTES: Final = 16
NOTE_BYTES: Final = 16

INITIATION, RESPONSE, DATA, UNKNOWN_SESSION = 1, 2, 3, 4
INITIATION_BYTES_MIN: Final = 12 + INITIATION_OVERHEAD + MAC_BYTES

DATA_START: Final = bytes((DATA, VERSION, SUITE_AESGCM, 0))
DATA_HEADER: Final = struct.Struct(">4sQQ")
"""``DATA_START``, the receiver's session index, the packet's counter: 20 bytes."""
_NUMBERS: Final = struct.Struct(">4xQQ")
_ONE_INDEX: Final = struct.Struct(">BBBBQ")
_TWO_INDEXES: Final = struct.Struct(">BBBBQQ")
_new: Final = tuple.__new__


@dataclass(frozen=True, slots=True)
class Initiation:
    """``[sender index, noise message 1, mac1]``"""

    sender_index: int
    noise: bytes
    mac1: bytes

    @staticmethod
    def header_of(sender_index: int) -> bytes:
        return _ONE_INDEX.pack(INITIATION, VERSION, SUITE_AESGCM, 0, sender_index)

    @property
    def header(self) -> bytes:
        return self.header_of(self.sender_index)

    def encode(self) -> bytes:
        return self.header + self.noise + self.mac1

    @classmethod
    def with_mac(cls, sender_index: int, noise: bytes, responder_channel_key: bytes) -> Initiation:
        covered = cls.header_of(sender_index) + noise
        return cls(sender_index, noise, mac1(responder_channel_key, covered))

    def mac_is_right(self, responder_channel_key: bytes) -> bool:
        """Checked before any Diffie-Hellman, so that a stranger who does not even know this node's
        channel key costs it next to nothing."""
        expected = mac1(responder_channel_key, self.header + self.noise)
        return hmac.compare_digest(expected, self.mac1)


@dataclass(frozen=True, slots=True)
class Response:
    """``[receiver index, sender index, noise message 2]``"""

    receiver_index: int
    sender_index: int
    noise: bytes

    @staticmethod
    def header_of(receiver_index: int, sender_index: int) -> bytes:
        return _TWO_INDEXES.pack(RESPONSE, VERSION, SUITE_AESGCM, 0, receiver_index, sender_index)

    @property
    def header(self) -> bytes:
        return self.header_of(self.receiver_index, self.sender_index)

    def encode(self) -> bytes:
        return self.header + self.noise


class Data(NamedTuple):
    """``[receiver index, counter, ciphertext]``"""

    receiver_index: int
    counter: int
    header: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class UnknownSession:
    """``[receiver index, last 16 bytes of the packet that could not be opened]``"""

    receiver_index: int
    tail: bytes

    def encode(self) -> bytes:
        header = _ONE_INDEX.pack(UNKNOWN_SESSION, VERSION, SUITE_AESGCM, 0, self.receiver_index)
        return header + self.tail


Packet: TypeAlias = Initiation | Response | Data | UnknownSession


def decode_packet(data: bytes) -> Packet:
    """Raises :class:`InvalidPacket` for an unknown type, version or suite, or a wrong length."""
    if len(data) < 12:
        raise InvalidPacket("a packet is too short")
    if data[:4] == DATA_START and len(data) >= DATA_HEADER.size + TAG_BYTES:
        # Nearly all packets are data.
        receiver, counter = _NUMBERS.unpack_from(data)
        return _new(Data, (receiver, counter, data[:20], data[20:]))
    kind, version, suite, zero = data[:4]
    if version != VERSION or suite != SUITE_AESGCM or zero:
        raise InvalidPacket("unknown version or suite")
    if kind == INITIATION and len(data) >= INITIATION_BYTES_MIN:
        *_, sender = _ONE_INDEX.unpack_from(data)
        return Initiation(sender, data[12:-MAC_BYTES], data[-MAC_BYTES:])
    if kind == RESPONSE and len(data) >= 20 + RESPONSE_OVERHEAD:
        receiver, sender = _NUMBERS.unpack_from(data)
        return Response(receiver, sender, data[20:])
    if kind == UNKNOWN_SESSION and len(data) == 12 + NOTE_BYTES:
        *_, receiver = _ONE_INDEX.unpack_from(data)
        return UnknownSession(receiver, data[12:])
    raise InvalidPacket("unknown type, or a wrong length for it")


def is_initiation_for(responder_channel_key: bytes, data: bytes) -> bool:
    """Whether the packet would cost the owner of this channel key a Diffie-Hellman."""
    if data[:1] != bytes((INITIATION,)):
        return False
    try:
        packet = decode_packet(data)
    except InvalidPacket:
        return False
    return isinstance(packet, Initiation) and packet.mac_is_right(responder_channel_key)


def mac1(responder_channel_key: bytes, covered: bytes) -> bytes:
    """HMAC-SHA-256, cut to 16 bytes, under a key that anybody can compute from the record."""
    key = hashlib.sha256(b"EGTP1 mac1" + responder_channel_key).digest()
    return hmac.digest(key, covered, "sha256")[:MAC_BYTES]

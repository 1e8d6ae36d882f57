"""A BEP 44 mutable item: a signed, sequenced value under a public key and a salt.

See https://www.bittorrent.org/beps/bep_0044.html. An EGTP record is such an item whose value is a
bencoded byte string, so this module implements no more bencoding than that takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from egtp.errors import CanonicalError, InvalidRecord
from egtp.values import canonical
from egtp.values.identity import SALT, Identity, check_key, verify

__all__ = ["SEQUENCE_LIMIT", "SIGNATURE_BYTES", "VALUE_BYTES_MAX", "MutableItem", "signing_buffer"]

VALUE_BYTES_MAX: Final = 800
"""BEP 44 allows 995 for a byte string, but a DHT answer with a record and eight nodes must fit into
1,200 bytes."""
SIGNATURE_BYTES: Final = 64
ITEM_BYTES_MAX: Final = 920
"""The largest encoded item: value, key, signature and sequence, with their headers."""
SEQUENCE_LIMIT: Final = 2**48
"""Sequence numbers are positive and below this."""


def bencode(value: bytes) -> bytes:
    """The bencoding of a byte string."""
    return b"%d:%b" % (len(value), value)


def signing_buffer(sequence: int, bencoded_value: bytes, salt: bytes = b"") -> bytes:
    """The bytes that a BEP 44 signature covers. An empty salt is left out, as BEP 44 says."""
    prefix = b"4:salt" + bencode(salt) if salt else b""
    return b"%b3:seqi%de1:v%b" % (prefix, sequence, bencoded_value)


@dataclass(frozen=True, slots=True)
class MutableItem:
    """``(k, seq, v, sig)`` with the salt of EGTP. Make one with :meth:`sign`, :meth:`decode` or
    :meth:`verified`, so that only valid ones exist."""

    key: bytes
    sequence: int
    value: bytes
    signature: bytes

    @classmethod
    def sign(cls, identity: Identity, sequence: int, value: bytes) -> MutableItem:
        """Raises :class:`InvalidRecord` for a value or sequence outside the limits."""
        _check_limits(sequence, value)
        signature = identity.sign(signing_buffer(sequence, bencode(value), SALT))
        return cls(identity.key, sequence, value, signature)

    def encode(self) -> bytes:
        """Canonical ``[k, seq, v, sig]``, at most 920 bytes."""
        return canonical.pack((self.key, self.sequence, self.value, self.signature))

    @classmethod
    def decode(cls, data: bytes) -> MutableItem:
        """Parse and verify, with the cheap checks first. Raises :class:`InvalidRecord`."""
        return cls.verified(*cls.fields_of(data))

    @staticmethod
    def fields_of(data: bytes) -> tuple[bytes, int, bytes, bytes]:
        """Parse without verifying. Raises :class:`InvalidRecord`."""
        if len(data) > ITEM_BYTES_MAX:
            raise InvalidRecord(f"a record has at most {ITEM_BYTES_MAX} bytes")
        try:
            fields = canonical.decode(data)
        except CanonicalError as error:
            raise InvalidRecord(f"record: {error}") from None
        match fields:
            case [bytes(key), int(sequence), bytes(value), bytes(signature)] if (
                type(sequence) is int and len(signature) == SIGNATURE_BYTES
            ):
                return key, sequence, value, signature
        raise InvalidRecord("a record is [key, sequence, value, signature]")

    @classmethod
    def verified(cls, key: bytes, sequence: int, value: bytes, signature: bytes) -> MutableItem:
        """The item of these fields. Raises :class:`InvalidRecord` unless they are within the limits
        and the signature is valid."""
        _check_limits(sequence, value)
        check_key(key)
        if not verify(key, signature, signing_buffer(sequence, bencode(value), SALT)):
            raise InvalidRecord("the signature is wrong")
        return cls(key, sequence, value, signature)


def _check_limits(sequence: int, value: bytes) -> None:
    if type(sequence) is not int or not 1 <= sequence < SEQUENCE_LIMIT:
        raise InvalidRecord("a sequence is between 1 and 2**48 - 1")
    if len(value) > VALUE_BYTES_MAX:
        raise InvalidRecord(f"a record's value has at most {VALUE_BYTES_MAX} bytes")

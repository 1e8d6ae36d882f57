"""The Noise IK handshake, suite ``Noise_IK_25519_AESGCM_SHA256``, and nothing else.

Pure: no clock, no socket; the ephemeral key is an argument. This implements sections 5 and 7.5 of
the Noise specification, revision 34 (http://noiseprotocol.org/noise.html)::

    IK:
      <- s
      ...
      -> e, es, s, ss
      <- e, ee, se

EGTP binds the clear header of a packet to the handshake: it mixes the header into the hash before
the message (:meth:`Handshake.mix_header`). Without headers this is plain Noise IK.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from egtp.errors import HandshakeFailed
from egtp.values.static_key import StaticKey, agree

__all__ = ["INITIATION_OVERHEAD", "PROTOCOL_NAME", "RESPONSE_OVERHEAD", "Handshake", "nonce_of"]

PROTOCOL_NAME: Final = b"Noise_IK_25519_AESGCM_SHA256"
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
INITIATION_OVERHEAD: Final = KEY_BYTES + (KEY_BYTES + TAG_BYTES) + TAG_BYTES
RESPONSE_OVERHEAD: Final = KEY_BYTES + TAG_BYTES
_SHA256: Final = hashes.SHA256()


nonce_of: Final = struct.Struct(">4xQ").pack
"""The AES-GCM nonce of a counter: four zero bytes, then the counter, big-endian."""


class Handshake:
    """One side of one IK handshake. Call the methods in the order of the pattern.

    Every failure, including a key of low order, raises :class:`HandshakeFailed`; the object cannot
    be used any more after that.
    """

    __slots__ = (
        "_cipher",
        "_counter",
        "_ephemeral",
        "_remote_ephemeral",
        "_static",
        "chaining_key",
        "hash",
        "remote",
    )

    def __init__(self, prologue: bytes, static: StaticKey, responder_static: bytes) -> None:
        """``responder_static`` is the responder's public channel key, on both sides."""
        # At 28 bytes, the name is shorter than a hash, so it is padded, not hashed.
        self.hash = PROTOCOL_NAME.ljust(32, b"\0")
        self.chaining_key = self.hash
        self._static = static
        self._cipher: AESGCM | None = None
        self._counter = 0
        self._ephemeral: X25519PrivateKey | None = None
        self._remote_ephemeral: X25519PublicKey | None = None
        self.remote = b""
        """The initiator's static key, once the responder has read it."""
        self._mix_hash(prologue)
        self._mix_hash(responder_static)

    def copy(self) -> Self:
        """A copy of the state, for trying a message that may be forged."""
        other = object.__new__(type(self))
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def mix_header(self, header: bytes) -> None:
        """Bind the clear header of the next message."""
        self._mix_hash(header)

    # -> e, es, s, ss

    def write_initiation(
        self, ephemeral: X25519PrivateKey, responder_static: bytes, payload: bytes
    ) -> bytes:
        self._ephemeral = ephemeral
        public = ephemeral.public_key().public_bytes_raw()
        self._mix_hash(public)
        self._mix_key(agree(ephemeral, X25519PublicKey.from_public_bytes(responder_static)))
        static = self._encrypt_and_hash(self._static.public)
        self._mix_key(self._static.agree(responder_static))
        return public + static + self._encrypt_and_hash(payload)

    def read_initiation(self, message: bytes) -> bytes:
        """The payload. :attr:`remote` is the initiator's static key from then on."""
        if len(message) < INITIATION_OVERHEAD:
            raise HandshakeFailed("the initiation is too short")
        self._mix_hash(message[:32])
        self._remote_ephemeral = X25519PublicKey.from_public_bytes(message[:32])
        self._mix_key(agree(self._static.secret, self._remote_ephemeral))
        self.remote = self._decrypt_and_hash(message[32:80])
        self._mix_key(self._static.agree(self.remote))
        return self._decrypt_and_hash(message[80:])

    # <- e, ee, se

    def write_response(self, ephemeral: X25519PrivateKey, payload: bytes) -> bytes:
        assert self._remote_ephemeral is not None  # noqa: S101 - the initiation was read before
        public = ephemeral.public_key().public_bytes_raw()
        self._mix_hash(public)
        self._mix_key(agree(ephemeral, self._remote_ephemeral))
        self._mix_key(agree(ephemeral, X25519PublicKey.from_public_bytes(self.remote)))
        return public + self._encrypt_and_hash(payload)

    def read_response(self, message: bytes) -> bytes:
        if len(message) < RESPONSE_OVERHEAD or self._ephemeral is None:
            raise HandshakeFailed("the response is too short, or answers nothing")
        self._mix_hash(message[:32])
        remote_ephemeral = X25519PublicKey.from_public_bytes(message[:32])
        self._mix_key(agree(self._ephemeral, remote_ephemeral))
        self._mix_key(agree(self._static.secret, remote_ephemeral))
        return self._decrypt_and_hash(message[32:])

    def split(self) -> tuple[bytes, bytes]:
        """The two transport keys: initiator to responder, and responder to initiator."""
        return _hkdf(self.chaining_key, b"")

    # The symmetric state (section 5.2)

    def _mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def _mix_key(self, shared: bytes) -> None:
        self.chaining_key, key = _hkdf(self.chaining_key, shared)
        self._cipher = AESGCM(key)
        self._counter = 0

    def _encrypt_and_hash(self, plaintext: bytes) -> bytes:
        assert self._cipher is not None  # noqa: S101 - the pattern mixes a key first
        ciphertext = self._cipher.encrypt(nonce_of(self._counter), plaintext, self.hash)
        self._counter += 1
        self._mix_hash(ciphertext)
        return ciphertext

    def _decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        assert self._cipher is not None  # noqa: S101 - the pattern mixes a key first
        try:
            plaintext = self._cipher.decrypt(nonce_of(self._counter), ciphertext, self.hash)
        except InvalidTag:
            raise HandshakeFailed("the handshake does not authenticate") from None
        self._counter += 1
        self._mix_hash(ciphertext)
        return plaintext


def _hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Noise's HKDF is that of RFC 5869, with the chaining key as the salt and no info."""
    keys = HKDF(_SHA256, 2 * KEY_BYTES, chaining_key, None).derive(material)
    return keys[:KEY_BYTES], keys[KEY_BYTES:]

"""Who a node is: a long-term signing key, a channel key, and a 20-byte nodeId.

The *identity key* (Ed25519) signs records and buffers tagged with their purpose. The *channel key*
(X25519) serves the encrypted channel. The signed record binds the one to the other. A nodeId is the
SHA-1 of the identity key and a fixed string (R12). It is also the BEP 44 target of that key and
salt, so any DHT that knows BEP 44 can store the record. Claiming the nodeId of somebody else takes
a second preimage of SHA-1; a collision is not enough.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.errors import InvalidRecord, LocalProtocolError
from egtp.values.static_key import StaticKey

__all__ = ["KEY_BYTES", "NODE_ID_BYTES", "SALT", "Entropy", "Identity", "NodeId", "check_key"]

SALT: Final = b"EGTP nodeId 1"
"""Names the id scheme, not a protocol version: frozen for ever."""

NODE_ID_BYTES: Final = 20
KEY_BYTES: Final = 32

Entropy = Callable[[int], bytes]
"""Returns as many unpredictable bytes as asked for, like ``os.urandom``."""

SIGNATURE_BYTES: Final = 64

_SIGNABLE: Final = re.compile(rb"4:salt|EGTP1 [!-~]+\0")
_PURPOSE: Final = re.compile(r"[a-z0-9._-]{1,64}")

_FIELD_PRIME: Final = 2**255 - 19
# The y coordinates of the eight points of small order (two of order eight, up to the sign of x).
# Anybody can make a signature under such a key: the library accepts constant ones.
_SMALL_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
            "little",
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
            "little",
        ),
    }
)


class NodeId(bytes):
    """Twenty bytes that name a node for ever: the SHA-1 of its public key and a fixed string (R12).
    ``str()`` is lower-case base32, 32 characters.

    The nodeId of another node is called its *peerId*; the type is the same.
    """

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:
        """Raises :class:`LocalProtocolError` unless ``value`` is exactly 20 bytes."""
        given: object = value
        if not isinstance(given, bytes | bytearray | memoryview):
            raise LocalProtocolError(
                f"a nodeId must be {NODE_ID_BYTES} bytes, not {given!r:.80}; "
                "NodeId.parse() reads one from text"
            )
        if len(given) != NODE_ID_BYTES:
            raise LocalProtocolError(f"a nodeId must be {NODE_ID_BYTES} bytes, not {len(given)}")
        return super().__new__(cls, given)

    @classmethod
    def of_key(cls, key: bytes) -> Self:
        """The nodeId of an Ed25519 public key."""
        return cls(hashlib.sha1(key + SALT, usedforsecurity=False).digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a nodeId from text: 32 characters of base32, in either case.

        Raises :class:`LocalProtocolError`, which says what is wrong.
        """
        if len(text) != 32:
            raise LocalProtocolError(
                f"a peerId is 32 characters of base32 (a-z, 2-7); {text[:80]!r} has {len(text)}"
            )
        try:
            return cls(base64.b32decode(text, casefold=True))
        except (binascii.Error, ValueError):
            raise LocalProtocolError(
                f"a peerId is 32 characters of base32 (a-z, 2-7), not {text!r}"
            ) from None

    def has_signed(self, purpose: str, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` comes from this node's :meth:`Identity.sign_for` with the same
        purpose and data. False for whatever else a stranger may send. Takes about 0.1 ms."""
        key = signature[:KEY_BYTES]
        if len(signature) != KEY_BYTES + SIGNATURE_BYTES or NodeId.of_key(key) != self:
            return False
        try:
            check_key(key)
        except InvalidRecord:
            return False
        return verify(key, signature[KEY_BYTES:], _tagged(purpose, data))

    def __str__(self) -> str:
        return base64.b32encode(self).decode("ascii").lower()

    def __repr__(self) -> str:
        return f"NodeId({self!s})"


def check_key(key: bytes) -> None:
    """Raise :class:`InvalidRecord` for an Ed25519 public key under which a signature proves
    nothing: a wrong size, a non-canonical encoding, or a point of small order."""
    if len(key) != KEY_BYTES:
        raise InvalidRecord(f"an identity key is {KEY_BYTES} bytes")
    y = int.from_bytes(key, "little") & (2**255 - 1)
    if y >= _FIELD_PRIME:
        raise InvalidRecord("the identity key is not canonically encoded")
    if y in _SMALL_ORDER_Y:
        raise InvalidRecord("the identity key is a point of small order")


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is ``key``'s over ``message``. The key must have passed
    :func:`check_key`. About 95 microseconds."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _tagged(purpose: str, data: bytes) -> bytes:
    """What is signed for an application: nothing that EGTP itself signs begins like this."""
    if not _PURPOSE.fullmatch(purpose):
        raise LocalProtocolError(
            f"a purpose has 1 to 64 of the characters a-z 0-9 . _ -, unlike {purpose!r:.80}"
        )
    return b"EGTP1 app." + purpose.encode("ascii") + b"\0" + data


class Identity:
    """The private keys of a node: an Ed25519 key that signs its records, and an X25519 key for the
    encrypted channel. They cannot be printed, compared or pickled."""

    __slots__ = ("channel", "key", "node_id", "signing_key")

    def __init__(self, signing_key: Ed25519PrivateKey, channel_secret: X25519PrivateKey) -> None:
        self.signing_key: Final = signing_key
        """For storing the identity in its file; to sign, call :meth:`sign`."""
        self.key: Final = signing_key.public_key().public_bytes_raw()
        """The Ed25519 public key, 32 bytes."""
        self.channel: Final = StaticKey(channel_secret)
        """The X25519 key of the encrypted channel."""
        self.node_id: Final = NodeId.of_key(self.key)
        """The nodeId that follows from the public key."""

    @classmethod
    def generate(cls, entropy: Entropy) -> Self:
        """Make a new identity: ``Identity.generate(os.urandom)``, outside of simulations."""
        return cls(
            Ed25519PrivateKey.from_private_bytes(entropy(KEY_BYTES)),
            X25519PrivateKey.from_private_bytes(entropy(KEY_BYTES)),
        )

    @property
    def channel_key(self) -> bytes:
        """The X25519 public key, 32 bytes."""
        return self.channel.public

    def sign(self, buffer: bytes) -> bytes:
        """Sign a BEP 44 buffer or one that names its purpose. Returns 64 bytes.

        The identity key never signs anything else, so that no signature made for one purpose can
        serve another. Raises :class:`LocalProtocolError` for a buffer that starts with neither
        ``4:salt`` nor ``EGTP1 <purpose>`` and a zero byte.
        """
        if not _SIGNABLE.match(buffer):
            raise LocalProtocolError("the identity key signs records and tagged buffers only")
        return self.signing_key.sign(buffer)

    def sign_for(self, purpose: str, data: bytes) -> bytes:
        """Sign data of your application that others pass on. Returns 96 bytes, with which
        :meth:`NodeId.has_signed` tells anybody that this node has signed it.

        (What one peer tells another in a query needs no signature: ``query.peer_id`` is proven.)

        :param purpose: what it is, such as ``"notebook.entry"``: 1 to 64 of a-z 0-9 . _ -. A
            signature for one purpose is none for another.

        Raises :class:`LocalProtocolError` for another purpose.
        """
        return self.key + self.sign(_tagged(purpose, data))

    def __repr__(self) -> str:
        return f"Identity({self.node_id})"

    def __reduce__(self) -> str:
        raise TypeError("private keys cannot be pickled; keep them in an IdentityFile")

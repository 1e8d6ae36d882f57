"""A node's static X25519 key, and the secrets it shares with other static keys (pure)."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from egtp.errors import HandshakeFailed

__all__ = ["StaticKey", "agree"]

REMEMBERED_MAX: Final = 1024
"""Shared secrets that are remembered, about 200 bytes each."""


class StaticKey:
    """Two static keys agree on the same secret each time. So the secrets of recent peers are
    remembered, as in WireGuard: when a peer comes back, one of four key agreements is saved."""

    __slots__ = ("_agreed", "public", "secret")

    def __init__(self, secret: X25519PrivateKey) -> None:
        self.secret: Final = secret
        self.public: Final = secret.public_key().public_bytes_raw()
        """32 bytes."""
        self._agreed: dict[bytes, bytes] = {}

    def agree(self, static: bytes) -> bytes:
        """The secret shared with another static key: 32 bytes. Raises :class:`HandshakeFailed`."""
        agreed = self._agreed.pop(static, None)
        if agreed is None:
            agreed = agree(self.secret, X25519PublicKey.from_public_bytes(static))
        self._agreed[static] = agreed
        if len(self._agreed) > REMEMBERED_MAX:
            del self._agreed[next(iter(self._agreed))]
        return agreed


def agree(secret: X25519PrivateKey, public: X25519PublicKey) -> bytes:
    """X25519 (RFC 7748): about 40 microseconds. Raises :class:`HandshakeFailed`."""
    try:
        return secret.exchange(public)
    except ValueError:
        # The library refuses an all-zero result, which a point of low order gives.
        raise HandshakeFailed("a key of low order") from None

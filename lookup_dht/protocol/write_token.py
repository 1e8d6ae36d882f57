"""Write tokens: proof that the sender of a query receives datagrams at its source address. Pure.

A node gives a token with every answer to ``find_node`` and ``find_value``, and requires it in a
``store``. So a stored record never comes from a forged address, and counts against the right quota.
A token is bound to both address and key: a single token cannot fill a store, as it once could in
libtorrent.
"""

from __future__ import annotations

import hashlib
from typing import Final

from egtp.values.identity import Entropy

__all__ = ["TOKEN_BYTES", "TOKEN_ROTATION_S", "TokenMint"]

TOKEN_BYTES: Final = 8
"""Guessing one takes 2^63 datagrams, and gains one place in a quota."""
TOKEN_ROTATION_S: Final = 300.0
"""A token is valid for five to ten minutes (BEP 5): longer than any walk takes, too short to hoard
tokens."""


class TokenMint:
    """Makes and recognises tokens without storing any."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._secret = self._former = b""
        self._rotated_at: float | None = None

    def token(self, home: bytes, key: bytes, now: float) -> bytes:
        """The token for a node at this packed address and port that asks about ``key``."""
        self._rotate(now)
        return _token(self._secret, home, key)

    def knows(self, token: bytes, home: bytes, key: bytes, now: float) -> bool:
        """Whether ``token`` was made here, recently, for this address and key."""
        if len(token) != TOKEN_BYTES:
            return False
        self._rotate(now)
        return token == _token(self._secret, home, key) or (
            token == _token(self._former, home, key)
        )

    def _rotate(self, now: float) -> None:
        if self._rotated_at is not None and now < self._rotated_at + TOKEN_ROTATION_S:
            return
        overslept = self._rotated_at is None or now >= self._rotated_at + 2 * TOKEN_ROTATION_S
        self._former = self._entropy(32) if overslept else self._secret
        self._secret = self._entropy(32)
        self._rotated_at = now


def _token(secret: bytes, home: bytes, key: bytes) -> bytes:
    return hashlib.blake2s(home + key, digest_size=TOKEN_BYTES, key=secret).digest()

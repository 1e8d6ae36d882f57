"""What a node takes from the world: time and entropy, as arguments.

Protocol logic never reads a clock or a random generator itself. That is what lets a simulation
run the same code in virtual time from one seed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from egtp.identity import Entropy
from egtp.message import NONCE_BYTES

__all__ = ["Environment", "NonceSource"]


def _elapsed_with_suspend() -> float:
    # A laptop that slept for an hour must find its deadlines passed; CLOCK_MONOTONIC stands still.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Environment:
    """Time and entropy. The default is the machine's own."""

    elapsed: Callable[[], float] = (
        _elapsed_with_suspend if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
    )
    """Seconds since any fixed moment, never going back, counting time spent suspended."""
    unix_time: Callable[[], float] = time.time
    """Seconds since 1970. May be wrong and may jump: only expiry of records depends on it."""
    entropy: Entropy = os.urandom
    """Unpredictable bytes."""


class NonceSource:
    """Nonces of messages, unique for ever (R1), taken from entropy in larger pieces: asking the
    system for each costs more than all the rest of making a message."""

    __slots__ = ("_at", "_entropy", "_stock")

    STOCK_BYTES = 256 * NONCE_BYTES

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._stock = b""
        self._at = 0

    def __call__(self) -> bytes:
        at = self._at
        nonce = self._stock[at : at + NONCE_BYTES]
        if not nonce:
            self._stock, at = self._entropy(self.STOCK_BYTES), 0
            nonce = self._stock[:NONCE_BYTES]
        self._at = at + NONCE_BYTES
        return nonce

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

__all__ = ["Environment"]


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

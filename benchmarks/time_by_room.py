"""Where the time of a run goes, by room, under ``cProfile``, which slows Python code down more than
code written in C."""

from __future__ import annotations

import cProfile
import pstats
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["time_by_room"]

T = TypeVar("T")
ROOMS = ("lookup_dht", "egtp", "simulations", "benchmarks", "discovery")
CRYPTOGRAPHY = ("cryptography", "sha", "blake2", "hmac", "AESGCM")


def time_by_room(run: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What ``run`` returns, and the share of the time that each room took, the largest first."""
    profile = cProfile.Profile()
    value = profile.runcall(run)
    seconds: Counter[str] = Counter()
    for (file, _, name), (_, _, own_s, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        seconds[_room(file, name)] += own_s
    total = seconds.total() or 1.0
    return value, {room: own_s / total for room, own_s in seconds.most_common()}


def _room(file: str, name: str) -> str:
    if file == "~":
        if "gc.collect" in name:
            return "garbage"
        return "cryptography" if any(word in name for word in CRYPTOGRAPHY) else "built-in"
    folders = Path(file).parts
    rooms = [] if "site-packages" in folders else [one for one in folders if one in ROOMS]
    # The last one counts: the clone itself may be in a folder with such a name.
    return rooms[-1] if rooms else "libraries"

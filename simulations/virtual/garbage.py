"""Garbage is collected at fixed turns of the loop, and at no other moment while a story runs.

Left to itself, Python collects after so and so many allocations, those of the process before the
run included. What a program does as its garbage is found (a generator that is closed, a task whose
exception nobody took) would happen at another moment in each process.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

__all__ = ["YOUNG_TURNS", "collect_garbage", "no_other_collections"]

YOUNG_TURNS: Final = 5_000
"""Turns between two looks at what is new since the last one."""
ALL_TURNS: Final = 100 * YOUNG_TURNS
"""Turns between two looks at everything, which takes a second where ten million objects live."""
MACHINES: Final = 1_000
"""Where there are twice as many, that look takes twice as long, and is taken half as often."""


def collect_garbage(turns: int, machines: int) -> None:
    """Called each ``YOUNG_TURNS`` turns. ``machines`` is how many the world has."""
    everything = turns % (ALL_TURNS * max(1, machines // MACHINES)) == 0
    gc.collect(2 if everything else 1)


@contextlib.contextmanager
def no_other_collections() -> Iterator[None]:
    """Inside of it, Python collects nothing by itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

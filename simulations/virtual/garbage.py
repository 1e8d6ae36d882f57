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


def collect_garbage(turns: int) -> None:
    """Called each ``YOUNG_TURNS`` turns."""
    gc.collect(2 if turns % ALL_TURNS == 0 else 1)


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

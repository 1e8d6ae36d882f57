"""While a story runs, garbage is collected at fixed turns of the loop only.

By default, Python collects after a number of allocations, counting those before the run. So the
effects of a collection (a generator is closed, a task's unretrieved exception is reported) would
come at a different moment in each process.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

__all__ = ["YOUNG_TURNS", "collect_garbage", "no_other_collections"]

YOUNG_TURNS: Final = 5_000
"""Turns between two collections of the young generations."""
ALL_TURNS: Final = 100 * YOUNG_TURNS
"""Turns between two full collections, each of which takes a second with ten million objects."""
MACHINES: Final = 1_000
"""Twice as many make a full collection take twice as long, so it is done half as often."""


def collect_garbage(turns: int, machines: int) -> None:
    """Called every ``YOUNG_TURNS`` turns. ``machines`` is how many the world has."""
    everything = turns % (ALL_TURNS * max(1, machines // MACHINES)) == 0
    gc.collect(2 if everything else 1)


@contextlib.contextmanager
def no_other_collections() -> Iterator[None]:
    """Within this context, Python does not collect garbage by itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

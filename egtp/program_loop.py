"""Which event loop a program runs on: uvloop where it is installed.

Only programs choose; the library runs on whatever loop it is given.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable

__all__ = ["program_loop"]


def program_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop, for ``asyncio.Runner``."""
    try:
        make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            "uvloop"
        ).new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return make

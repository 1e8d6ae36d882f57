"""What a program runs on: uvloop where it is installed, and as many open files as it may have.

Only programs choose; the library runs on whatever loop it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable

__all__ = ["program_loop", "raise_open_files_max"]


def program_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop, for ``asyncio.Runner``."""
    try:
        make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            "uvloop"
        ).new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return make


def raise_open_files_max() -> None:
    """Let this process have as many open files as its user may: the usual limit of 1,024 is there
    for programs that cannot cope with more, and a connection is one."""
    # Not on Windows, where sockets are no files; and where the hard limit is none, or the system
    # means it less than it says, it stays as it is.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

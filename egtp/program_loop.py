"""What a program runs on: uvloop where it is installed, and as many open files as it may have; and
how it reads what it is told in seconds.

Only programs choose; the library runs on whatever loop it is given.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import math
from collections.abc import Callable

__all__ = ["duration_s", "interval_s", "program_loop", "raise_open_files_max"]


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


def interval_s(text: str) -> float:
    """The type of an option that says how often something is done: all the time is no answer."""
    seconds = duration_s(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds


def duration_s(text: str) -> float:
    """The type of an option that says how long something may take, or not at all."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0, nor 0")
    return seconds

"""Who waits for what: the error text of a run that cannot go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any, Final

from simulations.virtual.process import coroutine_of, process_of

__all__ = ["place", "who_waits"]

NAMED_MAX: Final = 12
"""Tasks listed: enough to see what is wrong, few enough to read."""


def who_waits(loop: asyncio.AbstractEventLoop) -> str:
    """Each unfinished task, with its machine and the line it waits at."""
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    lines = [_described(task) for task in tasks[:NAMED_MAX]]
    if len(tasks) > NAMED_MAX:
        lines.append(f"and {len(tasks) - NAMED_MAX} more")
    return "who waits:\n  " + "\n  ".join(lines or ["nobody"])


def place(frame: FrameType) -> str:
    """File, line and function of a frame."""
    code = frame.f_code
    path = Path(code.co_filename)
    return f"{Path(*path.parts[-2:])}:{frame.f_lineno} in {code.co_name}"


def _described(task: asyncio.Task[Any]) -> str:
    process = process_of(task)
    host = "" if process is None else f"{process.name}: "
    frames = []
    waiting: object = coroutine_of(task)
    while isinstance(waiting, CoroutineType) and waiting.cr_frame is not None:
        frames.append(waiting.cr_frame)
        waiting = waiting.cr_await
    # The innermost frame is somewhere in asyncio; the program's own is the one that tells.
    own = [frame for frame in frames if "asyncio" not in Path(frame.f_code.co_filename).parts]
    where = place((own or frames)[-1]) if frames else "not begun"
    return f"{host}{task.get_name()} at {where}"

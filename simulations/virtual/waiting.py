"""Who waits for what: the error text of a run that cannot go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any, Final

from simulations.virtual.process import Process, coroutine_of, current_process, process_of

__all__ = ["place", "who_waits", "whose_turn_it_is"]

NAMED_MAX: Final = 12
"""Tasks listed: enough to see what is wrong, few enough to read."""


def who_waits(loop: asyncio.AbstractEventLoop) -> str:
    """Each unfinished task, with its machine and the line it waits at."""
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    return _listed("who waits", [_described(task) for task in tasks])


def whose_turn_it_is(due: Iterable[asyncio.Handle]) -> str:
    """The tasks, with machine and line, and other callbacks that a loop is about to run."""
    return _listed("whose turn it is", [_described_callback(handle) for handle in due])


def place(frame: FrameType) -> str:
    """File, line and function of a frame."""
    code = frame.f_code
    path = Path(code.co_filename)
    return f"{Path(*path.parts[-2:])}:{frame.f_lineno} in {code.co_name}"


def _listed(what: str, lines: list[str]) -> str:
    shown = lines[:NAMED_MAX]
    if len(lines) > NAMED_MAX:
        shown.append(f"and {len(lines) - NAMED_MAX} more")
    return f"{what}:\n  " + "\n  ".join(shown or ["nobody"])


def _described_callback(handle: asyncio.Handle) -> str:
    callback = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    # A task's next step, or a timeout that ends what a task does.
    task = getattr(owner, "_task", owner)
    if isinstance(task, asyncio.Task):
        return _described(task)
    host = _host(current_process(handle._context))  # type: ignore[attr-defined]
    return f"{host}{getattr(callback, '__qualname__', callback)}"


def _described(task: asyncio.Task[Any]) -> str:
    frames = []
    waiting: object = coroutine_of(task)
    while isinstance(waiting, CoroutineType) and waiting.cr_frame is not None:
        frames.append(waiting.cr_frame)
        waiting = waiting.cr_await
    # The innermost frame is somewhere in asyncio; the program's own is the one that tells.
    own = [frame for frame in frames if "asyncio" not in Path(frame.f_code.co_filename).parts]
    where = place((own or frames)[-1]) if frames else "not begun"
    return f"{_host(process_of(task))}{task.get_name()} at {where}"


def _host(process: Process | None) -> str:
    """The machine, and whether it sleeps: then whoever waits for it waits in vain."""
    if process is None:
        return ""
    return f"{process.name}{' (asleep)' if process.machine.is_asleep else ''}: "

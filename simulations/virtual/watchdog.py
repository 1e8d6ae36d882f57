"""Catches what would break a simulation: the real clock, real entropy, and endless callbacks.

While a story runs, every source of real time or entropy is replaced, in the standard library and
wherever a module bound it to a name of its own. C code that reads them directly goes unnoticed, and
so does a generator created without a seed before the run: then two runs with the same seed diverge,
and their traces show where.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Final

from simulations.virtual.bound_names import bound_names, replaced
from simulations.virtual.dates import dates_are_pickled
from simulations.virtual.errors import Blocked
from simulations.virtual.process import Machine
from simulations.virtual.waiting import place

if TYPE_CHECKING:
    from simulations.virtual.loop import VirtualLoop

__all__ = ["unreal_calls_refused"]

BLOCKED_CPU_S: Final = 5.0
"""So much CPU time in one callback is a mistake on any machine."""


@contextlib.contextmanager
def unreal_calls_refused(
    loop: VirtualLoop, story: Machine, *, refuse: bool = True
) -> Iterator[None]:
    """Within this context, bypassing the simulation raises :class:`Unreal`, and an endless callback
    gets :class:`Blocked`. Code that runs on no machine counts as running on ``story``."""
    with contextlib.ExitStack() as stack:
        if refuse:
            for bound in bound_names():
                stack.callback(bound.put, bound.former)
                bound.put(bound.other)
            for one in replaced():
                stack.callback(setattr, one.holder, one.name, getattr(one.holder, one.name))
                setattr(one.holder, one.name, one.stand_in)
            stack.enter_context(dates_are_pickled())
            loop.story = story
            stack.callback(setattr, loop, "story", None)
        stack.enter_context(_watching(loop))
        yield


@contextlib.contextmanager
def _watching(loop: VirtualLoop) -> Iterator[None]:
    """Uses a timer of CPU time, so that a busy machine causes no false alarm."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return
    turns = -1

    def look(_: int, frame: FrameType | None) -> None:
        nonlocal turns
        if turns == loop.turns and asyncio._get_running_loop() is loop:
            where = "somewhere" if frame is None else place(frame)
            raise Blocked(f"{where}: a callback keeps the event loop for {BLOCKED_CPU_S:g} s")
        turns = loop.turns

    former = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, BLOCKED_CPU_S, BLOCKED_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)

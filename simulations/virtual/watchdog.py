"""What a simulation cannot see through: the real clock, real entropy, and callbacks without end.

While a story runs, whatever gives real time or entropy is replaced, in the standard library and
wherever a module bound it to a name of its own. Code in C that draws for itself is not noticed, nor
is a generator that was made without a seed before the run: then two runs with one seed part, and
their traces show where.
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
"""As much work as this in one callback is a mistake, on any machine."""


@contextlib.contextmanager
def unreal_calls_refused(
    loop: VirtualLoop, story: Machine, *, refuse: bool = True
) -> Iterator[None]:
    """Inside of it, whoever goes around the simulation gets :class:`Unreal`, and a callback that
    does not end gets :class:`Blocked`. What belongs to no machine belongs to ``story``."""
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
    """A timer of the processor's time, so that a busy machine is no reason for a wrong alarm."""
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

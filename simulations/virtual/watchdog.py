"""What a simulation cannot see through: the real clock, real entropy, and callbacks without end.

While a story runs, the functions of the standard library that give real time or entropy are
replaced by ones that name who called them. A program that bound one of them to a name of its own
before is not caught: then two runs with one seed part, and their traces show where.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from simulations.virtual.errors import Blocked, Unreal
from simulations.virtual.waiting import place

if TYPE_CHECKING:
    from simulations.virtual.loop import VirtualLoop

__all__ = ["unreal_calls_refused"]

BLOCKED_CPU_S: Final = 5.0
"""As much work as this in one callback is a mistake, on any machine."""
TRUSTED: Final = frozenset({
    "asyncio", "concurrent", "hypothesis", "importlib", "linecache", "logging", "pytest", "_pytest",
    "rich", "tempfile", "shutil", "threading", "unittest", "warnings",
})  # fmt: skip
"""Packages that may: what they read decides nothing in a simulation."""

_INSTEAD: Final = {
    "clock": "take the time as an argument, from host.unix_time or host.elapsed",
    "entropy": "take entropy as an argument, from host.entropy",
    "wait": "await asyncio.sleep",
}
_REFUSED: Final[tuple[tuple[Any, str, str], ...]] = (
    (time, "time", "clock"),
    (time, "time_ns", "clock"),
    (time, "monotonic", "clock"),
    (time, "monotonic_ns", "clock"),
    (time, "perf_counter", "clock"),
    (time, "clock_gettime", "clock"),
    (time, "clock_gettime_ns", "clock"),
    (time, "sleep", "wait"),
    (os, "urandom", "entropy"),
    (random, "random", "entropy"),
    (random, "randrange", "entropy"),
    (random, "randint", "entropy"),
    (random, "getrandbits", "entropy"),
    (random, "choice", "entropy"),
    (random, "shuffle", "entropy"),
    (random, "sample", "entropy"),
    (random, "uniform", "entropy"),
    (secrets, "token_bytes", "entropy"),
    (secrets, "token_hex", "entropy"),
    (secrets, "randbelow", "entropy"),
    (uuid, "uuid1", "entropy"),
    (uuid, "uuid4", "entropy"),
    (socket, "create_connection", "wait"),
)


@contextlib.contextmanager
def unreal_calls_refused(loop: VirtualLoop, *, refuse: bool = True) -> Iterator[None]:
    """Inside of it, whoever goes around the simulation gets :class:`Unreal`, and a callback that
    does not end gets :class:`Blocked`."""
    with contextlib.ExitStack() as stack:
        if refuse:
            for module, name, kind in _REFUSED:
                if hasattr(module, name):
                    real = getattr(module, name)
                    setattr(module, name, _refusing(real, f"{module.__name__}.{name}", kind, loop))
                    stack.callback(setattr, module, name, real)
        stack.enter_context(_watching(loop))
        yield


def _refusing(
    real: Callable[..., Any], name: str, kind: str, loop: VirtualLoop
) -> Callable[..., Any]:
    def refusing(*args: Any, **options: Any) -> Any:
        caller = sys._getframe(1)
        package = str(caller.f_globals.get("__name__", "")).partition(".")[0]
        if package in TRUSTED or asyncio._get_running_loop() is not loop:
            return real(*args, **options)
        raise Unreal(f"{place(caller)} calls {name}, which is not simulated: {_INSTEAD[kind]}")

    return refusing


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

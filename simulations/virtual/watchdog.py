"""What a simulation cannot see through: the real clock, real entropy, and callbacks without end.

While a story runs, the functions of the standard library that give real time or entropy are
replaced. Installed libraries get those of the machine that they run on; a program of one's own is
told where it should take them as arguments instead. Who bound such a function to a name of his own
before is not caught, nor is ``datetime.now``, which cannot be replaced: then two runs with one seed
part, and their traces show where.
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
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from simulations.virtual.errors import Blocked, Unreal
from simulations.virtual.process import Machine, current_process
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
_CLOCKS: Final[dict[str, Callable[[Machine], float]]] = {
    "time": lambda machine: machine.unix_time(),
    "time_ns": lambda machine: int(machine.unix_time() * 1e9),
    "monotonic": lambda machine: machine.elapsed(),
    "monotonic_ns": lambda machine: int(machine.elapsed() * 1e9),
    "perf_counter": lambda machine: machine.elapsed(),
    "perf_counter_ns": lambda machine: int(machine.elapsed() * 1e9),
}
_RANDOM: Final = (
    "random", "randrange", "randint", "getrandbits", "randbytes", "choice", "choices", "shuffle",
    "sample", "uniform", "gauss", "expovariate", "triangular", "betavariate", "gammavariate",
    "lognormvariate", "normalvariate", "paretovariate", "vonmisesvariate", "weibullvariate",
)  # fmt: skip


def _replaced() -> Iterator[tuple[Any, str, str, Callable[..., Any] | None]]:
    """Module, name, what kind of thing it is, and what a library gets in its place."""
    for name, read in _CLOCKS.items():
        yield time, name, "clock", read
    for name in _RANDOM:
        yield random, name, "entropy", partial(_drawn, name)
    yield time, "clock_gettime", "clock", lambda machine, _: machine.elapsed()
    yield os, "urandom", "entropy", lambda machine, count: machine.entropy(count)
    yield secrets, "token_bytes", "entropy", lambda machine, count=32: machine.entropy(count)
    yield secrets, "token_hex", "entropy", lambda machine, count=32: machine.entropy(count).hex()
    for name, drawn in (
        ("choice", "choice"),
        ("randbits", "getrandbits"),
        ("randbelow", "randrange"),
    ):
        yield secrets, name, "entropy", partial(_drawn, drawn)
    yield uuid, "uuid4", "entropy", lambda machine: uuid.UUID(bytes=machine.entropy(16), version=4)
    for module, name in ((secrets, "token_urlsafe"), (os, "getrandom"), (uuid, "uuid1")):
        yield module, name, "entropy", None
    yield time, "sleep", "wait", None
    yield socket, "create_connection", "wait", None


def _drawn(name: str, machine: Machine, *args: Any, **options: Any) -> Any:
    return getattr(machine.rng, name)(*args, **options)


@contextlib.contextmanager
def unreal_calls_refused(
    loop: VirtualLoop, story: Machine, *, refuse: bool = True
) -> Iterator[None]:
    """Inside of it, whoever goes around the simulation gets :class:`Unreal`, and a callback that
    does not end gets :class:`Blocked`. What belongs to no machine belongs to ``story``."""
    with contextlib.ExitStack() as stack:
        for module, name, kind, instead in _replaced() if refuse else ():
            if hasattr(module, name):
                real = getattr(module, name)
                stack.callback(setattr, module, name, real)
                what = (f"{module.__name__}.{name}", kind)
                setattr(module, name, _standing_in(real, instead, what, loop, story))
        stack.enter_context(_watching(loop))
        yield


def _standing_in(
    real: Callable[..., Any],
    instead: Callable[..., Any] | None,
    what: tuple[str, str],
    loop: VirtualLoop,
    story: Machine,
) -> Callable[..., Any]:
    name, kind = what

    def standing_in(*args: Any, **options: Any) -> Any:
        caller = sys._getframe(1)
        package = str(caller.f_globals.get("__name__", "")).partition(".")[0]
        if package in TRUSTED or asyncio._get_running_loop() is not loop:
            return real(*args, **options)
        if instead is not None and "site-packages" in caller.f_code.co_filename:
            # A library cannot be asked to take its time as an argument: it gets the machine's.
            process = current_process()
            return instead(story if process is None else process.machine, *args, **options)
        raise Unreal(f"{place(caller)} calls {name}, which is not simulated: {_INSTEAD[kind]}")

    return standing_in


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

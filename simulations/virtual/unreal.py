"""The sources of real time and real entropy, and their stand-ins while a story runs.

A stand-in acts only for callers on a simulated loop. An installed library gets the time or entropy
of the machine that it runs on; your own program gets an error that says what to take as an argument
instead. All other callers get the real thing.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final

from simulations.virtual.dates import DATES, dates_like
from simulations.virtual.errors import Unreal
from simulations.virtual.process import Machine, current_process
from simulations.virtual.waiting import place

__all__ = ["TRUSTED", "Replaced", "everything_replaced", "machine_to_ask"]

TRUSTED: Final = frozenset({
    "asyncio", "concurrent", "hypothesis", "importlib", "linecache", "logging", "pytest", "_pytest",
    "rich", "tempfile", "shutil", "threading", "unittest", "warnings",
})  # fmt: skip
"""Packages that may use the real sources: what they read does not affect a simulation."""

_INSTEAD: Final = {
    "clock": "take the time as an argument, from host.unix_time or host.elapsed",
    "entropy": "take entropy as an argument, from host.entropy",
    "wait": "await asyncio.sleep",
    "socket": "use those of asyncio: open_connection, start_server, create_datagram_endpoint",
    "process": "there is no other program on these machines",
    "thread": "await asyncio.to_thread, which calls the function at once",
}
_CLOCKS: Final[dict[str, Callable[[Machine], float]]] = {
    "time": lambda machine: machine.unix_time(),
    "time_ns": lambda machine: int(machine.unix_time() * 1e9),
    "monotonic": lambda machine: machine.elapsed(),
    "monotonic_ns": lambda machine: int(machine.elapsed() * 1e9),
    "perf_counter": lambda machine: machine.elapsed(),
    "perf_counter_ns": lambda machine: int(machine.elapsed() * 1e9),
}
_SEED: Final = random.Random.seed
_RANDOM: Final = (
    "random", "randrange", "randint", "getrandbits", "randbytes", "choice", "choices", "shuffle",
    "sample", "uniform", "gauss", "expovariate", "triangular", "betavariate", "gammavariate",
    "lognormvariate", "normalvariate", "paretovariate", "vonmisesvariate", "weibullvariate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replaced:
    """A function or class of the standard library that is replaced while a story runs."""

    holder: Any
    """A module or a class."""
    name: str
    real: Any
    stand_in: Any


def machine_to_ask(what: str, kind: str, *, can_answer: bool = True) -> Machine | None:
    """The machine whose clock or entropy the caller's caller gets; None if it may have the real
    one.

    Raises :class:`Unreal`, which names the place, if the caller is a program, not a library.
    """
    story = getattr(asyncio._get_running_loop(), "story", None)
    if story is None:
        return None
    caller = sys._getframe(2)
    # A pool and a timer start the threads of whoever uses them.
    trusted = TRUSTED - {"concurrent", "threading"} if kind == "thread" else TRUSTED
    while (package := _module(caller).partition(".")[0]) in sys.stdlib_module_names:
        if package in trusted or caller.f_back is None:
            return None
        what = f"{_module(caller)}.{caller.f_code.co_qualname}".removesuffix(".__init__")
        caller = caller.f_back
    if package in trusted:
        return None
    if can_answer and "site-packages" in caller.f_code.co_filename:
        # A library cannot be changed to take the time as an argument: it gets the machine's.
        process = current_process()
        return story if process is None else process.machine
    raise Unreal(f"{place(caller)} calls {what}, which is not simulated: {_INSTEAD[kind]}")


def everything_replaced() -> Iterator[Replaced]:
    """All replacements. ``secrets``, ``uuid4`` and the like end up in these functions."""
    for name, read in _CLOCKS.items():
        yield from _replaced(time, name, "clock", read)
    for name in ("clock_gettime", "clock_gettime_ns"):
        unit = 10**9 if name.endswith("ns") else 1
        yield from _replaced(time, name, "clock", partial(_elapsed, unit))
    for name, given in (("localtime", 1), ("gmtime", 1), ("ctime", 1), ("strftime", 2)):
        yield from _replaced(time, name, "clock", None, given)
    # Of two names of one function, the last is told to whoever has a third.
    for holder, name in ((random, "_urandom"), (os, "urandom")):
        yield from _replaced(holder, name, "entropy", lambda machine, count: machine.entropy(count))
    for name in _RANDOM:
        yield from _replaced(random, name, "entropy", partial(_drawn, name))
    yield from _replaced(random, "seed", "entropy", None)
    yield from _replaced(random.Random, "seed", "entropy", _seeded, 2)
    for module, name in ((os, "getrandom"), (uuid, "uuid1")):
        yield from _replaced(module, name, "entropy", None)
    yield from _replaced(time, "sleep", "wait", None)
    yield from _replaced(socket.socket, "__init__", "socket", None)
    yield from _replaced(socket, "create_connection", "socket", None)
    yield from _replaced(subprocess.Popen, "__init__", "process", None)
    yield from _replaced(threading.Thread, "start", "thread", None)
    for real in DATES:
        yield Replaced(datetime, real.__name__, real, dates_like(real, machine_to_ask))


def _replaced(
    holder: Any, name: str, kind: str, instead: Callable[..., Any] | None, given: int | None = None
) -> Iterator[Replaced]:
    """``instead`` computes what a library gets, from its machine and its arguments. A call with at
    least ``given`` arguments, that one not None, reads nothing real and is passed on."""
    if not hasattr(holder, name):
        return
    real = getattr(holder, name)
    is_class = isinstance(holder, type)
    what = f"{holder.__module__}.{holder.__name__}" if is_class else holder.__name__
    called = f"{what}.{name}".removesuffix(".__init__")

    @functools.wraps(real)
    def stand_in(*args: Any, **options: Any) -> Any:
        if given is not None and len(args) >= given and args[given - 1] is not None:
            return real(*args, **options)
        machine = machine_to_ask(called, kind, can_answer=instead is not None)
        if machine is None or instead is None:
            return real(*args, **options)
        return instead(machine, *args, **options)

    yield Replaced(holder, name, real, stand_in)


def _elapsed(unit: int, machine: Machine, _: int) -> float:
    return machine.elapsed() if unit == 1 else int(machine.elapsed() * unit)


def _drawn(name: str, machine: Machine, *args: Any, **options: Any) -> Any:
    return getattr(machine.rng, name)(*args, **options)


def _seeded(machine: Machine, generator: random.Random, *_: Any) -> None:
    """Seed a library's generator for which it gave no seed."""
    _SEED(generator, int.from_bytes(machine.entropy(32)))


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))

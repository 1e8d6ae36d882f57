"""What our programs have in common: their event loop, signals, option types and exit status.

Only programs choose a loop; the library runs on whatever loop it is given.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib
import logging
import math
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from egtp.errors import EgtpError, InvalidConfig, LocalProtocolError, in_words

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "USAGE",
    "bytes_per_s",
    "complain",
    "duration_s",
    "interval_s",
    "named",
    "on_question",
    "on_stop",
    "path",
    "program_loop",
    "run_program",
]

FAILED: Final = 1
"""The outcome is a failure."""
USAGE: Final = 2
"""A mistake of the user's, which fails again if it is repeated."""
INTERRUPTED: Final = 128 + signal.SIGINT
PASSING: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE))
"""What may be otherwise at another time, though nobody changes what the program was told."""
NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Of writing alone; and whoever writes a file of ours names it in an error of its own."""
FREE_FILES_MIN: Final = 24
"""A loop, a few sockets and the files of a state take up to 16. Who finds no room for one of them
does not always say so in words: uvloop, for one, can then not even be closed."""
QUESTION: Final = signal.SIGUSR1
"""Asks a server for its statistics."""


def run_program(name: str, work: Callable[[], Coroutine[Any, Any, object]], *, serves: bool) -> int:
    """Run ``work`` to its end and return the exit status: 0 for success, 1 for a failure, 2 for a
    mistake of the user's, 130 if it was interrupted. Errors are one line on stderr. For a server,
    being stopped by a signal is a success; see :func:`on_stop`."""
    _have_standard_streams()
    logging.basicConfig(format=f"{name}: %(message)s")  # As all else that it says.
    _raise_open_files_max()
    if not _may_open_files(FREE_FILES_MIN):
        complain(name, "too many open files; raise the limit (ulimit -n, LimitNOFILE)")
        return FAILED
    try:
        if serves:
            _take_no_notice()
            _at_first_stop(_interrupt)
        with asyncio.Runner(loop_factory=program_loop()) as runner:
            status = FAILED if runner.run(_until_stopped(work) if serves else work()) else 0
        sys.stdout.flush()
    except (InvalidConfig, LocalProtocolError) as error:
        complain(name, error)
        return FAILED if _may_pass(error) else USAGE
    except EgtpError as error:
        complain(name, error)
        return FAILED
    except OSError as error:
        # What this prints can be written no more, since its reader is gone, for instance; so
        # nothing is to be written when Python ends, either.
        where = "cannot write to stdout: " if error.errno in NO_ROOM else ""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            complain(name, f"{where}{in_words(error)}")
        return FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0 if serves else INTERRUPTED
    finally:
        if serves:
            _ignore_signals()
    return status


def _may_pass(error: BaseException) -> bool:
    """Whether it came of a full disk, for instance: then the settings may be as they should."""
    origin = error.__cause__ or error.__context__
    if isinstance(origin, sqlite3.Error):
        # Above the lowest byte is what it was busy with; not all errors come from SQLite itself.
        code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
        return code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
    if isinstance(origin, OSError) and origin.errno in PASSING:
        return True
    return origin is not None and _may_pass(origin)


def complain(name: str, error: object) -> None:
    """Print a line on stderr, if that can be written."""
    with contextlib.suppress(OSError):
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def on_stop(stop: Callable[[], object]) -> None:
    """Have the running loop call ``stop`` at the first signal that ends a server, instead of
    cancelling the server's work. Later signals are ignored."""
    loop = asyncio.get_running_loop()
    _at_first_stop(lambda: loop.call_soon_threadsafe(stop))


def on_question(tell: Callable[[], object]) -> None:
    """Have the running loop call ``tell`` when SIGUSR1 asks the server for its statistics."""
    loop = asyncio.get_running_loop()
    signal.signal(QUESTION, lambda *_: loop.call_soon_threadsafe(tell))


async def _until_stopped(work: Callable[[], Coroutine[Any, Any, object]]) -> object:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine that runs has a task)
    on_stop(task.cancel)
    try:
        return await work()
    finally:
        _take_no_notice()  # The loop, which would be told, is closed now.


def _at_first_stop(stop: Callable[[], object]) -> None:
    # Not by the loop's own handlers: it takes them away when it is closed, and then the process
    # would die of the signal.
    def stopping(*_: object) -> None:
        _take_no_notice()
        stop()

    for number in _stop_signals():
        signal.signal(number, stopping)


def _interrupt() -> None:
    """As ctrl-C does, from the first moment on."""
    raise KeyboardInterrupt


def _take_no_notice() -> None:
    for number in (*_stop_signals(), QUESTION):
        signal.signal(number, lambda *_: None)


def _ignore_signals() -> None:
    """To the end of the process: Python takes functions away before, and leaves this."""
    numbers = (*_stop_signals(), QUESTION)
    # Python complains of a signal that came but was not handled yet when it is ignored.
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _stop_signals() -> list[signal.Signals]:
    """Those that end a server. That of a terminal that is closed is not among them if whoever
    started the program has it ignored, as ``nohup`` does."""
    ending = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        ending.append(signal.SIGHUP)
    return ending


def _have_standard_streams() -> None:
    """Who closed one of the first three files of a program would have the loop's take its place,
    and what goes wrong be written there; and libuv aborts when it closes one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    # Python has none in their places.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - for the rest of the program
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def program_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop factory for ``asyncio.Runner``: uvloop where it is installed."""
    try:
        make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            "uvloop"
        ).new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return make


def _raise_open_files_max() -> None:
    """Let this process have as many open files as its user may: the usual limit of 1,024 is there
    for programs that cannot cope with more, and a connection is one."""
    # Not on Windows, where sockets are no files; and where the hard limit is none, or the system
    # means it less than it says, it stays as it is.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _may_open_files(count: int) -> bool:
    """Whether as many more can be open at a time."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.dup(0))
    except OSError:
        return False
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


def named(text: str) -> str:
    """The type of an option that must not be empty, as an unset shell variable is."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def path(text: str) -> Path:
    """The type of an option that names a file or a folder."""
    return Path(named(text))


def interval_s(text: str) -> float:
    """The type of an option that says how often something is done: seconds above 0."""
    return _above_0(text, "seconds")


def bytes_per_s(text: str) -> float:
    """The type of an option that limits a rate: bytes per second above 0."""
    return _above_0(text, "bytes per second")


def _above_0(text: str, of_what: str) -> float:
    with contextlib.suppress(argparse.ArgumentTypeError):
        if number := duration_s(text):
            return number
    raise argparse.ArgumentTypeError(f"must be a number of {of_what} above 0, not {text!r}")


def duration_s(text: str) -> float:
    """The type of an option that says how long something may take: seconds, 0 or more."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, not {text!r}")
    return seconds

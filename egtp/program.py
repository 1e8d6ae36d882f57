"""What our programs share: their event loop, signals and exit status.

Only programs choose a loop; the library runs on whatever loop it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import logging
import os
import select
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import IO, Any, Final

from egtp.errors import EgtpError, InvalidConfig, LocalProtocolError, in_words
from egtp.option_types import USAGE

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "complain",
    "getaddrinfo",
    "on_question",
    "on_stop",
    "program_loop",
    "run_program",
    "say",
]

FAILED: Final = 1
"""The outcome is a failure."""
INTERRUPTED: Final = 128 + signal.SIGINT
PASSING: Final = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
)
"""Errors that may pass without anybody changing what the program was told. An address is not there
yet when a machine has just booted."""
NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Errors of writing alone. One that reaches :func:`run_program` is about stdout: writing a file of
ours fails with an error that names the file."""
FREE_FILES_MIN: Final = 24
"""A loop, a few sockets and the state files take up to 16. When one of them cannot be opened, the
error is not always a clear one: uvloop, for instance, can then not even be closed."""
QUESTION: Final = signal.SIGUSR1
"""Asks a server for its statistics."""


def run_program(name: str, work: Callable[[], Coroutine[Any, Any, object]], *, serves: bool) -> int:
    """Run ``work`` to its end and return the exit status: 0 for success, 1 for a failure, 2 for a
    mistake of the user's, 130 if it was interrupted. An error is one line on stderr. For a server,
    being stopped by a signal is success; see :func:`on_stop`."""
    _open_standard_streams()
    printed = logging.StreamHandler()
    printed.addFilter(lambda _: _has_room(sys.stderr))
    # Like everything else that it prints.
    logging.basicConfig(format=f"{name}: %(message)s", handlers=[printed])
    _raise_open_files_max()
    if not _may_open_files(FREE_FILES_MIN):
        complain(name, "too many open files; raise the limit (ulimit -n, LimitNOFILE)")
        return FAILED
    try:
        if serves:
            _discard_signals()
            _at_first_stop(_interrupt)
        with asyncio.Runner(loop_factory=program_loop()) as runner:
            status = FAILED if runner.run(_until_stopped(work) if serves else work()) else 0
        sys.stdout.flush()
    except (InvalidConfig, LocalProtocolError) as error:
        complain(name, error)
        return FAILED if _is_transient(error) else USAGE
    except EgtpError as error:
        complain(name, error)
        return FAILED
    except OSError as error:
        # Stdout can no longer be written, for instance because its reader is gone; so Python must
        # not write to it at exit, either.
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


def _is_transient(error: BaseException) -> bool:
    """Whether the cause was a full disk, for instance: then the settings may be right."""
    origin = error.__cause__ or error.__context__
    if isinstance(origin, sqlite3.Error):
        # The higher bytes say what SQLite was doing; not all errors come from SQLite itself.
        code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
        return code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
    if isinstance(origin, OSError) and origin.errno in PASSING:
        return True
    return origin is not None and _is_transient(origin)


def complain(name: str, error: object) -> None:
    """Print a line on stderr, if it can be written."""
    with contextlib.suppress(OSError):
        say(f"{name}: {' '.join(str(error).split())}", sys.stderr)


def say(text: str, file: IO[str]) -> None:
    """Print ``text``, unless nobody reads what was printed before, so that a pipe or a terminal is
    full: a server must neither stand still until somebody does, nor be deaf to signals. Raises
    :class:`OSError` if it cannot be written."""
    if _has_room(file):
        print(text, file=file, flush=True)


def _has_room(file: IO[str]) -> bool:
    """Whether the next line (of up to 4 KiB, on Linux) can be written, or fails, without waiting.
    So it does where there is no descriptor."""
    with contextlib.suppress(OSError, ValueError):
        asked = select.poll()
        asked.register(file, select.POLLOUT)
        return bool(asked.poll(0))
    return True


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
        _discard_signals()  # The loop that would be told is about to close.


def _at_first_stop(stop: Callable[[], object]) -> None:
    # Not with the loop's own handlers: it removes them when it closes, and then the signal would
    # kill the process.
    def stopping(*_: object) -> None:
        _discard_signals()
        stop()

    for number in _stop_signals():
        signal.signal(number, stopping)


def _interrupt() -> None:
    """Do as Ctrl-C does, from the first moment on."""
    raise KeyboardInterrupt


def _discard_signals() -> None:
    for number in (*_stop_signals(), QUESTION):
        signal.signal(number, lambda *_: None)


def _ignore_signals() -> None:
    """Until the process ends: Python removes handlers that are functions earlier, but not this."""
    numbers = (*_stop_signals(), QUESTION)
    # Blocked first: Python complains of a pending signal that is then ignored.
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _stop_signals() -> list[signal.Signals]:
    """The signals that end a server. SIGHUP, sent when a terminal is closed, is not among them if
    whoever started the program had it ignored, as ``nohup`` does."""
    ending = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        ending.append(signal.SIGHUP)
    return ending


def _open_standard_streams() -> None:
    """Open the standard streams that are closed. Otherwise a file of the loop's would take the
    place of one, and errors would be written there; and libuv aborts when it closes one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    # Where a stream was closed, Python has None.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - for the rest of the program
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def program_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop factory for ``asyncio.Runner``: uvloop if it is installed."""
    try:
        make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            "uvloop"
        ).new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return make


async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
    """As the loop's own, but nobody waits for it when the program ends: neither asyncio's loop nor
    uvloop can be closed before a name server that is silent has been given up, after 10 s."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def take(found: list[Any] | Exception) -> None:
        if answer.done():
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: list[Any] | Exception
        try:
            found = socket.getaddrinfo(host, port, **options)
        except Exception as error:
            found = error
        with contextlib.suppress(RuntimeError):  # The loop may be closed by now.
            loop.call_soon_threadsafe(take, found)

    threading.Thread(target=ask, name=f"getaddrinfo {host}", daemon=True).start()
    return await answer


def _raise_open_files_max() -> None:
    """Let this process open as many files as its user may: the usual limit of 1,024 is there for
    programs that cannot cope with more, and every connection is a file."""
    # Not on Windows, where sockets are not files. The limit also stays as it is where there is no
    # hard limit, or the system does not grant the one that it reports.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _may_open_files(count: int) -> bool:
    """Whether ``count`` more files can be open at a time."""
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

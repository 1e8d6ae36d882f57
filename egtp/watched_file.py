"""A file that its user edits while the program runs.

It is polled on the event loop: one ``stat`` per interval needs no thread and no dependency, and
works the same on every system and file system. A change is read once the file has been stable for
one more interval. By then an editor that writes in place has finished, and a file that was removed
and rewritten is back. Also, timestamps are coarse: a file read right after a change could change
again unnoticed.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

from egtp.errors import InvalidConfig, WrongLoop
from egtp.values.settings import check_seconds

__all__ = ["WatchedFile"]

T = TypeVar("T")
_Stamp: TypeAlias = tuple[int, int, int, int]


class WatchedFile(Generic[T]):
    """Reads a file, and again after each edit."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        parse: Callable[[bytes, str], T],
        *,
        kind: str,
        empty_if: str,
        bytes_max: int,
        poll_interval_s: float,
        changed: Callable[[T], None],
        failed: Callable[[InvalidConfig], None],
    ) -> None:
        """
        :param parse: makes the content of bytes; it is also told the path, for its messages. Raises
            :class:`InvalidConfig`.
        :param kind: what sort of file to name, for messages...
        :param empty_if: ...and when it is to be empty.
        :param bytes_max: of a larger file, ``parse`` gets one byte more than that.
        :param poll_interval_s: seconds between two looks at the file.
        :param changed: called with the content after each edit, whether or not that changed it.
        :param failed: called once for each edit that cannot be used.

        Raises :class:`InvalidConfig` for an interval that is not positive and finite.
        """
        check_seconds(poll_interval_s=poll_interval_s)
        # Absolute, so that the program may change directory, and messages name the whole path.
        self._path: Final = Path(path).absolute()
        self._parse = parse
        self._kind = kind
        self._empty_if = empty_if
        self._bytes_max = bytes_max
        self._poll_interval_s = poll_interval_s
        self._changed = changed
        self._failed = failed
        self._timer: asyncio.TimerHandle | None = None
        self._stamp: _Stamp | None = None
        self._settled = False
        self.counters: Final = Counter[str]()
        """How often a change of the file could not be used: ``edit rejected``, ``file missing``."""

    @property
    def is_watched(self) -> bool:
        return self._timer is not None

    def start(self) -> T:
        """Return the content, and watch the file from now on.

        Raises :class:`InvalidConfig` if it is missing or invalid, and does not watch it then;
        :class:`WrongLoop` without a running loop.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise WrongLoop(
                f"{self._path} is watched on an event loop: use `async with`, or call start() there"
            ) from None
        # Not settled: the first poll reads the file again, in case it changes just after this.
        self._stamp, self._settled = self._take_stamp(), False
        content = self._read()
        self._arm()
        return content

    def close(self) -> None:
        """Watch it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._poll_interval_s, self.poll)

    def poll(self) -> None:
        """Look at the file."""
        # First, so that nothing below can end the polling, not even a callback that raises.
        self._arm()
        stamp = self._take_stamp()
        if stamp != self._stamp:
            self._stamp, self._settled = stamp, False
            return
        if self._settled:
            return
        self._settled = True
        try:
            content = self._read()
        except InvalidConfig as error:
            self.counters["file missing" if stamp is None else "edit rejected"] += 1
            self._failed(error)
            return
        self._changed(content)

    def _take_stamp(self) -> _Stamp | None:
        """A value that changes whenever the file does; None if the file cannot be seen.

        It includes ctime, for a file whose permissions were fixed, or that was replaced by a copy
        with an old timestamp.
        """
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _read(self) -> T:
        try:
            # Opening a named pipe would block the loop until somebody writes to it.
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise InvalidConfig(f"{self._path} is not a file; name {self._kind}")
            with self._path.open("rb") as file:
                data = file.read(self._bytes_max + 1)
        except FileNotFoundError:
            raise InvalidConfig(
                f"{self._path} does not exist; create it (empty if {self._empty_if})"
            ) from None
        except OSError as error:
            raise InvalidConfig(
                f"{self._path} cannot be read: {error.strerror}; fix that, or name another file"
            ) from None
        return self._parse(data, str(self._path))

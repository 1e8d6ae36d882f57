"""The DiscoveryMan: relay servers from a local file that the user edits (seed I.C, R10 and R11).

The file is polled on the event loop: one ``stat`` per interval needs no thread and no dependency,
and works the same on every system and file system. A change is read once the file has been stable
for one more interval. By then an editor that writes in place has finished, and a file that was
removed and rewritten is back. Also, timestamps are coarse: a file read right after a change could
change again unnoticed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self, TypeAlias

from discovery.audience import Audience
from discovery.relay_file import FILE_BYTES_MAX, parse_relay_file
from egtp.discovery_service import Introduce, Introduction
from egtp.errors import InvalidConfig
from egtp.values.settings import check_seconds

__all__ = ["DiscoveryMan"]

_Stamp: TypeAlias = tuple[int, int, int, int]


class DiscoveryMan:
    """Introduces the relay servers in the file at ``path``, and again after each edit that changes
    them (R11). An edit is noticed within two intervals.

    Use it with ``async with``, or call :meth:`start` and :meth:`close`. A listener that asks before
    the start is called soon after it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        poll_interval_s: float = 1.0,
        on_error: Callable[[InvalidConfig], None] | None = None,
    ) -> None:
        """
        :param path: a TOML file; see :func:`parse_relay_file`.
        :param poll_interval_s: seconds between two checks of the file.
        :param on_error: called on the event loop, once for each change of the file that cannot be
            used; the last good list stays in use. By default such an error is logged as a warning.

        Raises :class:`InvalidConfig` for an interval that is not positive and finite.
        """
        check_seconds(poll_interval_s=poll_interval_s)
        # Absolute, so that the program may change directory, and messages name the whole path.
        self._path: Final = Path(path).absolute()
        self._poll_interval_s: Final = poll_interval_s
        self._on_error: Final = on_error or _log_error
        self._audience = Audience()
        self._timer: asyncio.TimerHandle | None = None
        self._stamp: _Stamp | None = None
        self._settled = False
        self.counters: Final = Counter[str]()
        """How often a change of the file could not be used: ``edit rejected``, ``file missing``."""

    @property
    def introductions(self) -> tuple[Introduction, ...]:
        """The last good list; empty before the start and after closing."""
        return self._audience.introductions or ()

    def start(self) -> None:
        """Read the file now, and watch it from now on. Does nothing if already started.

        Raises :class:`InvalidConfig` if the file is missing or invalid, and does not watch it then;
        :class:`WrongLoop` without a running loop.
        """
        self._audience.on_loop()
        if self._timer is not None:
            return
        # Not settled: the first poll reads the file again, in case it changes just after this.
        self._stamp, self._settled = self._take_stamp(), False
        self._audience.tell(self._read())
        self._arm()

    def close(self) -> None:
        """Stop watching, and call no listener any more; calls already scheduled are cancelled."""
        if self._timer is not None:
            self._audience.on_loop()
            self._timer.cancel()
            self._timer = None
        self._audience.close()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def meet_relay_servers(self, introduce: Introduce) -> None:
        """See :class:`egtp.DiscoveryService`."""
        self._audience.admit(introduce)

    def forget(self, introduce: Introduce) -> None:
        """See :class:`egtp.DiscoveryService`."""
        self._audience.dismiss(introduce)

    def _arm(self) -> None:
        loop = self._audience.on_loop()
        self._timer = loop.call_later(self._poll_interval_s, self._poll)

    def _poll(self) -> None:
        # First, so that nothing below can end the polling, not even an ``on_error`` that raises.
        self._arm()
        stamp = self._take_stamp()
        if stamp != self._stamp:
            self._stamp, self._settled = stamp, False
            return
        if self._settled:
            return
        self._settled = True
        try:
            introductions = self._read()
        except InvalidConfig as error:
            self.counters["file missing" if stamp is None else "edit rejected"] += 1
            self._on_error(error)
            return
        if introductions != self._audience.introductions:
            self._audience.tell(introductions)

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

    def _read(self) -> tuple[Introduction, ...]:
        try:
            # Opening a named pipe would block the loop until somebody writes to it.
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise InvalidConfig(f"{self._path} is not a file; name a TOML file with relays")
            with self._path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            raise InvalidConfig(
                f"{self._path} does not exist; create it (empty if there are no relays)"
            ) from None
        except OSError as error:
            raise InvalidConfig(
                f"{self._path} cannot be read: {error.strerror}; fix that, or name another file"
            ) from None
        return parse_relay_file(data, str(self._path))


def _log_error(error: InvalidConfig) -> None:
    logging.getLogger(__name__).warning("%s; the relays known before stay in use", error)

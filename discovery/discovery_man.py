"""The DiscoveryMan: relay servers from a local file that the user edits (seed I.C, R10 and R11).

The file is polled on the event loop: one ``stat`` per interval, without a thread or a dependency,
and alike on every system and file system. A change is read once it has held still for one more
interval. By then an editor that writes in place has finished, and a file that was removed and
written anew is back. And since time stamps are coarse, a file that is read right after a change
could change again without looking changed.
"""

from __future__ import annotations

import asyncio
import logging
import math
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

__all__ = ["DiscoveryMan"]

_Stamp: TypeAlias = tuple[int, int, int, int]


class DiscoveryMan:
    """Introduces the relay servers in the file at ``path``, and does so again after each edit that
    changes them (R11). An edit is seen within two intervals.

    Use it with ``async with``, or call :meth:`start` and :meth:`close`. Whoever asks before the
    start is called soon after it.
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
        :param poll_interval_s: seconds between two looks at the file.
        :param on_error: called on the event loop, once for each change of the file that cannot be
            used; the last good list stays in use. Without it, such an error is logged as a warning.

        Raises :class:`InvalidConfig` for an interval that is not a positive time.
        """
        if not 0 < poll_interval_s < math.inf:
            raise InvalidConfig(
                f"poll_interval_s must be a positive number of seconds, not {poll_interval_s}"
            )
        # Absolute, so that the program may change its directory, and messages name the file.
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
        """The last good list; empty before the start and after the end."""
        return self._audience.introductions or ()

    def start(self) -> None:
        """Read the file now, and watch it from now on. Does nothing if it was started before.

        Raises :class:`InvalidConfig` if the file is missing or broken, and then watches nothing;
        :class:`WrongLoop` without a running loop.
        """
        self._audience.on_loop()
        if self._timer is not None:
            return
        # Not settled: the first poll reads it again, in case it was changed just after this.
        self._stamp, self._settled = self._take_stamp(), False
        self._audience.tell(self._read())
        self._arm()

    def close(self) -> None:
        """Stop watching, and call nobody any more, not even those with a call under way."""
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
        # First of all: whatever happens below, ``on_error`` included, must not end the polling.
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
        """What changes whenever the file does; None if there is no file to be seen.

        The time of the last status change is part of it for the sake of a file whose permissions
        were mended, and of one that was replaced by a copy with an old time stamp.
        """
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _read(self) -> tuple[Introduction, ...]:
        try:
            # To open a named pipe would block the loop until somebody writes into it.
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

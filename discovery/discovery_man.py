"""The DiscoveryMan: relay servers from a local file that the user edits (seed I.C, R10 and R11)."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from discovery.audience import Audience
from discovery.relay_file import FILE_BYTES_MAX, parse_relay_file
from egtp.discovery_service import Introduce, Introduction
from egtp.errors import InvalidConfig
from egtp.watched_file import WatchedFile

__all__ = ["DiscoveryMan"]


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
        self._audience = Audience()
        self._file = WatchedFile(
            path,
            parse_relay_file,
            kind="a TOML file with relays",
            empty_if="there are no relays",
            bytes_max=FILE_BYTES_MAX,
            poll_interval_s=poll_interval_s,
            changed=self._changed,
            failed=on_error or _log_error,
        )
        self.counters: Final[Counter[str]] = self._file.counters
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
        if not self._file.is_watched:
            self._audience.tell(self._file.start())

    def close(self) -> None:
        """Stop watching, and call no listener any more; calls already scheduled are cancelled."""
        if self._file.is_watched:
            self._audience.on_loop()
            self._file.close()
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

    def _changed(self, introductions: tuple[Introduction, ...]) -> None:
        if introductions != self._audience.introductions:
            self._audience.tell(introductions)


def _log_error(error: InvalidConfig) -> None:
    logging.getLogger(__name__).warning("%s; the relays known before stay in use", error)

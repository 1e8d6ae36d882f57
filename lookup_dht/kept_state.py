"""The files from which a DHT node resumes after a restart: for programs.

Records and highest sequences have a file of their own, written as they arrive
(:mod:`lookup_dht.records.record_file`). The id and the contacts are written once a minute, so a
killed node loses at most its newest contacts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from egtp.errors import InvalidConfig
from egtp.whole_file import remove_leftovers
from lookup_dht.service import DHTLookup
from lookup_dht.state.state_file import CorruptState, NodeState, read_state, set_aside, write_state

__all__ = ["KeptState"]

STATE_INTERVAL_S: Final = 60.0
LOOK_INTERVAL_S: Final = 5.0
"""How often a node that had no contacts yet is looked at: those that it has met are written soon,
since an app on a phone may be killed within a minute. A node that joins has met most of them after
this long."""


class KeptState:
    """The state of one DHT node, kept in the file at ``path`` and in the record file beside it.

    ::

        kept = KeptState("state/dht", print)
        lookup = DHTLookup(bootstrap=SEEDS, state=kept.read(), store=kept.records)
        async with lookup, kept.of(lookup):
            ...
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        complain: Callable[[str], None],
        *,
        ours: bool = False,
    ) -> None:
        """
        :param path: the state file; its folder must exist.
        :param complain: called with one line about each problem that does not end the program.
        :param ours: whether a file at ``path`` can only be a state file, however damaged. If
            False, a file that is not recognised is left alone: it may be something else.
        """
        self._path: Final = Path(path)
        self._complain = complain
        self._ours = ours
        self.records: Final = self._path.with_name(f"{self._path.name}.records")
        """The path of the record file: pass it as ``store`` of the :class:`DHTLookup`."""

    def read(self) -> NodeState | None:
        """The saved state; None for a new node. A corrupt file is set aside and reported to
        ``complain``.

        Raises :class:`InvalidConfig` if the file cannot be read.
        """
        try:
            return read_state(self._path, ours=self._ours)
        except CorruptState as error:
            aside = set_aside(self._path)
            self._complain(
                f"{self._path} is corrupt ({error}); kept as {aside}, starting as a new node"
            )
            return None

    @contextlib.asynccontextmanager
    async def of(self, lookup: DHTLookup) -> AsyncIterator[None]:
        """Save the state of ``lookup``, which must be running: at once, soon after it has met the
        first other node, every minute, and at the end.

        Raises :class:`InvalidConfig` if it cannot be written.
        """
        # Safe: only the process that has the record file open, and so locked, writes the state.
        remove_leftovers([self._path])
        # Before others learn the id, and to find out now whether the file can be written.
        write_state(self._path, lookup.state)
        keeping = asyncio.ensure_future(self._keep(lookup))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            # Last of all, after any write that was still under way.
            write_state(self._path, lookup.state)

    async def _keep(self, lookup: DHTLookup) -> None:
        has_met = False
        while True:
            await self._pause(lookup, has_met=has_met)
            has_met = lookup.contacts > 0
            writing = asyncio.ensure_future(self._write_aside(lookup.state))
            try:
                await asyncio.shield(writing)
            finally:
                await asyncio.wait([writing])

    async def _pause(self, lookup: DHTLookup, *, has_met: bool) -> None:
        """Wait for a minute or, if ``lookup`` has not met anybody yet, until it has."""
        looks = 1 if has_met else round(STATE_INTERVAL_S / LOOK_INTERVAL_S)
        for _ in range(looks):
            await asyncio.sleep(STATE_INTERVAL_S / looks)
            if lookup.contacts:
                return

    async def _write_aside(self, state: NodeState) -> None:
        """Write in another thread, which sees only the immutable ``state``: fsync may be slow."""
        try:
            await asyncio.to_thread(write_state, self._path, state)
        except InvalidConfig as error:
            self._try_again(error)
        except RuntimeError as error:  # No thread can be started, as at the limit of a container.
            self._try_again(f"cannot write the state file {self._path}: {error}")

    def _try_again(self, why: object) -> None:
        self._complain(f"{why}; trying again in {STATE_INTERVAL_S:.0f} s")

"""One search for the record of a peer, as those see it who wait for what it finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lookup_dht.walks.findings import Findings
from lookup_dht.wire.contact import Contact

__all__ = ["Search"]


class Search:
    """A walk for the record of one peer, while it goes on and after it has ended."""

    def __init__(self, peer_id: bytes, findings: Findings) -> None:
        self.peer_id: Final = peer_id
        self.findings: Final = findings
        self.over = False
        self.asked = 0
        self.heard = 0
        self.closest: list[Contact] = []
        """The neighbourhood, as far as it answered; empty until it is over."""
        self._error: BaseException | None = None
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        """Who waits, and what for."""

    async def until(self, enough: Callable[[], bool]) -> None:
        """Return when it is over, or what it has found is enough. Raises what the search ended
        with, if it did not end well; CancelledError if it was cancelled."""
        while not (self.over or enough()):
            if self._error is not None:
                raise self._error
            change = asyncio.get_running_loop().create_future()
            self._waiting[change] = enough
            try:
                await change
            finally:
                del self._waiting[change]

    def tell(self) -> None:
        """Something was found, or it has ended: wake up those for whom that is enough."""
        ended = self.over or self._error is not None
        for change, enough in self._waiting.items():
            if not change.done() and (ended or enough()):
                change.set_result(None)

    def ended(self, task: asyncio.Task[None]) -> None:
        """What carried it out has ended; a callback of that task."""
        self._error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.tell()

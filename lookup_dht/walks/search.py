"""One search for the record of a peer, as seen by the callers waiting for its findings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lookup_dht.walks.findings import Findings
from lookup_dht.wire.contact import Contact

__all__ = ["Search"]


class Search:
    """A walk for the record of one peer, both under way and ended."""

    def __init__(self, peer_id: bytes, findings: Findings, taken_before: int) -> None:
        self.peer_id: Final = peer_id
        self.findings: Final = findings
        self.taken_before: Final = taken_before
        """:attr:`Asker.taken` when it began."""
        self.over = False
        self.asked = 0
        self.heard = 0
        self.closest: list[Contact] = []
        """The nodes of the neighbourhood that answered; empty until the search is over."""
        self._error: BaseException | None = None
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        """Each waiter with its condition."""

    async def until(self, enough: Callable[[], bool]) -> None:
        """Return when the search is over, or ``enough()`` holds. Raises the exception that the
        search ended with, if any: CancelledError if it was cancelled."""
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
        """Something was found, or the search has ended: wake the waiters for whom that is
        enough."""
        ended = self.over or self._error is not None
        for change, enough in self._waiting.items():
            if not change.done() and (ended or enough()):
                change.set_result(None)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Done callback of the task that carried the search out."""
        self._error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.tell()

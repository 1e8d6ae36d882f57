"""Who may walk through the network now: a few at a time, and so many a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from lookup_dht.protocol.rate_limit import Pace
from lookup_dht.settings import Clock, DHTLimits

__all__ = ["Turns"]


class Turns:
    """Of one node. Who is cancelled gives way to the next."""

    def __init__(self, limits: DHTLimits, elapsed: Clock) -> None:
        self._places: Final = asyncio.Semaphore(limits.searches_at_once)
        self._pace: Final = Pace(limits.searches_per_s)
        self._elapsed: Final = elapsed

    @contextlib.asynccontextmanager
    async def turn(self, queries: int = 1) -> AsyncIterator[None]:
        """Wait for it, and have it until the end of the block. ``queries`` are what it takes of
        each node in a small network."""
        async with self._places:
            wait_s = self._pace.wait_s(self._elapsed(), queries)
            if wait_s:
                await asyncio.sleep(wait_s)
            yield

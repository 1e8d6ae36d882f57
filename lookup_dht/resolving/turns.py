"""Limits the walks of a node: how many at a time, and how many per second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from lookup_dht.protocol.rate_limit import Pace
from lookup_dht.settings import Clock, DHTLimits

__all__ = ["Turns"]


class Turns:
    """The turns of one node. A caller that is cancelled makes way for the next."""

    def __init__(self, limits: DHTLimits, elapsed: Clock) -> None:
        self._places: Final = asyncio.Semaphore(limits.searches_at_once)
        self._pace: Final = Pace(limits.searches_per_s)
        self._elapsed: Final = elapsed

    @contextlib.asynccontextmanager
    async def turn(self, queries: int = 1) -> AsyncIterator[None]:
        """Wait for a turn, and hold it for the block. ``queries`` is how many queries the walk
        costs each node of a small network."""
        async with self._places:
            wait_s = self._pace.wait_s(self._elapsed(), queries)
            if wait_s:
                try:
                    await asyncio.sleep(wait_s)
                except asyncio.CancelledError:
                    # Or those who come next would wait for each that was given up.
                    self._pace.give_back(queries)
                    raise
            yield

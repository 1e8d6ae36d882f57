"""A lookup service that remembers what it was given."""

from __future__ import annotations

import time
from collections.abc import Callable

from egtp import MemoryLookup, Published, PublishFailed, SignedCommRecord


class Watched(MemoryLookup):
    """Remembers what was published; fails as often as it is told to."""

    def __init__(self, failures: int = 0, unix_time: Callable[[], float] = time.time) -> None:
        super().__init__(unix_time)
        self.published: list[SignedCommRecord] = []
        self.failures = failures

    async def publish(self, record: SignedCommRecord) -> Published:
        if self.failures:
            self.failures -= 1
            raise PublishFailed("not now")
        published = await super().publish(record)
        self.published.append(record)
        return published

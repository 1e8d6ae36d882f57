"""At most one lookup of each peer at a time, shared by all searches for it (single flight).

A peer may be searched for twice at once: for any path, and for a direct one, such as a relay needs.
Both searches want the same records, so they share a lookup, which goes on while either wants more
and ends with the last of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Self

from egtp.bug_reports import BugReports
from egtp.errors import LookupFailed
from egtp.lookup import LookupService, ending, resolve_stream, tell_of_bug
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_record import SignedCommRecord
from egtp.values.identity import NodeId

__all__ = ["SharedLookup", "SharedLookups"]


class SharedLookup:
    """A stream of records, read no faster than somebody wants them. Use it as an async context
    manager: the lookup ends when its last user leaves."""

    def __init__(
        self,
        records: AsyncGenerator[SignedCommRecord, None],
        peer_id: NodeId,
        take: Callable[[SignedCommRecord], object],
        timeout_s: float,
        bugs: BugReports,
        ended: Callable[[], object],
    ) -> None:
        """:param ended: called when nobody wants it any more."""
        self.found = 0
        """How many records there have been."""
        self.cause = Cause(AttemptReason.NOT_FOUND)
        """Why there are no more."""
        self._wanted_by = 0
        self._ended = ended
        self._peer_id = peer_id
        self._take = take
        self._timeout_s = timeout_s
        self._bugs = bugs
        self._is_wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._read(records))
        self._task.add_done_callback(lambda _: self._changed.set())

    async def more(self, seen: int) -> bool:
        """Wait until more than ``seen`` records have been found. False if there are no more."""
        self._is_wanted.set()
        while self.found <= seen and not self._task.done():
            self._changed.clear()
            await self._changed.wait()
        return self.found > seen

    async def __aenter__(self) -> Self:
        self._wanted_by += 1
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._wanted_by -= 1
        if not self._wanted_by:
            self._ended()
            self._task.cancel()
            # A coroutine that is closed while it waits must not wait again.
            if kind is not GeneratorExit:
                await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, records: AsyncGenerator[SignedCommRecord, None]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s), ending(records):
                await self._is_wanted.wait()
                async for record in records:
                    if record.peer_id != self._peer_id:
                        self.cause = Cause(AttemptReason.LOOKUP_CONFUSED)
                        return
                    self._take(record)
                    self.found += 1
                    self._is_wanted.clear()
                    self._changed.set()
                    await self._is_wanted.wait()
        except TimeoutError:
            self.cause = Cause(AttemptReason.LOOKUP_SILENT)
        except LookupFailed as error:
            said, failure = str(error), error.reason.value
            self.cause = Cause(AttemptReason(failure), "" if said == failure else said)
        except Exception as error:
            # Whatever a service raises, the search goes on: this is one more failed attempt.
            self.cause = Cause(AttemptReason.LOOKUP_RAISED, str(error) or type(error).__name__)
            tell_of_bug(error, self._bugs)


class SharedLookups:
    """The lookups under way, at most one per peer."""

    def __init__(
        self,
        service: LookupService,
        take: Callable[[SignedCommRecord], object],
        timeout_s: float,
    ) -> None:
        """:param take: called with each record that is found.
        :param timeout_s: how long a lookup may take, including its waits until more is wanted.
        """
        self._service = service
        self._take = take
        self._timeout_s = timeout_s
        self._bugs = BugReports()
        self._under_way: dict[NodeId, SharedLookup] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def of(self, peer_id: NodeId, newer_than: int) -> SharedLookup:
        """The lookup of a peer that is under way, or a new one. Enter it at once."""
        lookup = self._under_way.get(peer_id)
        if lookup is None:
            records = resolve_stream(self._service, peer_id, newer_than=newer_than)
            forget = partial(self._under_way.pop, peer_id)
            lookup = SharedLookup(records, peer_id, self._take, self._timeout_s, self._bugs, forget)
            self._under_way[peer_id] = lookup
        return lookup

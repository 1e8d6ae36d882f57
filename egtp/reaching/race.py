"""A race of strategies: the next begins when one has failed, or the last begun had its stagger.

A newer contact may join during the race: strategies of the older one that have not begun are
dropped, attempts under way go on beside the new ones, and the first path wins. So a stale address
costs no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Any

from egtp.reaching.strategy_choice import Plan
from egtp.values.attempts import Attempt
from egtp.values.comm_strat import CommStrat
from egtp.values.contact import Contact

__all__ = ["Race"]


class Race:
    """The race for a path to one peer. It may be run again when there is something new to try.

    Invariant: no two attempts under way have both the same strategy and the same channel key.
    """

    def __init__(
        self,
        attempt: Callable[[CommStrat, Contact], Coroutine[Any, Any, Attempt | None]],
        plan: Callable[[Contact], Plan],
        stagger_s: float,
        found: asyncio.Future[None],
        dead_ends_after_s: float = inf,
    ) -> None:
        """
        :param attempt: tries a strategy; see :meth:`egtp.reaching.dialling.Dialler.attempt`.
        :param plan: which strategies of a contact to try, and in what order.
        :param found: done when there is a path, whoever opened it.
        :param dead_ends_after_s: how long all else is tried before ways that lately led nowhere.
        """
        self._attempt = attempt
        self._plan = plan
        self._stagger_s = stagger_s
        self._found = found
        self._dead_ends_after_s = dead_ends_after_s
        self._to_begin: list[CommStrat] = []
        self._dead_ends: tuple[CommStrat, ...] = ()
        """Those of them that may begin only when all else has failed, or takes long."""
        self._racing: dict[asyncio.Task[Attempt | None], tuple[CommStrat, bytes]] = {}
        self._may_begin = False
        """Whether the next strategy may begin."""
        self._patient_until_s = 0.0
        """When the stagger of the last one begun is over, on the loop's clock."""
        self._dead_ends_from_s = 0.0
        """When all else has taken long."""
        self._change: asyncio.Future[None] | None = None
        """Done when something has changed; None unless :meth:`run` waits for that."""
        self._faltered = asyncio.Event()
        self.contact: Contact | None = None
        """The contact that joined last."""
        self.contacts = 0
        """How many contacts have joined."""
        self.attempts: list[Attempt] = []
        """What was tried in vain or ruled out, in the order in which that became known."""

    def join(self, contact: Contact) -> None:
        """From now on begin the strategies of ``contact``, and no more of older ones."""
        if contact == self.contact:
            return
        self.contact = contact
        self.contacts += 1
        choice = self._plan(contact)
        self.attempts += [Attempt(one, why.reason, 0.0, why.detail) for one, why in choice.refused]
        racing = self._racing.values()
        ways: tuple[CommStrat, ...] = (*choice.tcp, *choice.relays, *choice.dead_ends)
        self._dead_ends = choice.dead_ends
        self._to_begin = [way for way in ways if (way, contact.channel_key) not in racing]
        self._may_begin = True
        self._faltered.clear()
        self._wake()

    async def faltered(self) -> None:
        """Return once the last contact to join has faltered: since then a stagger has passed, an
        attempt has failed, or nothing was left to try."""
        await self._faltered.wait()

    async def run(self, scout: Awaitable[None] | None = None) -> None:
        """Return when there is a path, or when everything has failed and ``scout`` has ended, which
        may have other contacts join. Whatever is still under way then is cancelled, ``scout``
        too."""
        scouts = [] if scout is None else [asyncio.ensure_future(scout)]
        for one in (self._found, *scouts):
            one.add_done_callback(self._wake)
        try:
            while not self._found.done():
                if self._to_begin and self._may_begin and not self._has_to_wait:
                    self._begin(self._to_begin.pop(0))
                elif not (self._to_begin or self._racing):
                    self._faltered.set()
                    if all(one.done() for one in scouts):
                        break
                await self._wait(self._next_s(has_scout=bool(scouts)))
                self._collect()
        finally:
            self._found.remove_done_callback(self._wake)
            tasks = [*scouts, *(task for task in self._racing if not task.done())]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _has_to_wait(self) -> bool:
        """Whether the next lately led nowhere, and something else is under way."""
        is_late = asyncio.get_running_loop().time() >= self._dead_ends_from_s
        return bool(self._racing) and self._to_begin[0] in self._dead_ends and not is_late

    def _next_s(self, *, has_scout: bool) -> float | None:
        """When to go on even if nothing happens: the end of a stagger matters to the next strategy
        and to a waiting scout."""
        if (self._to_begin and not self._may_begin) or (has_scout and not self._faltered.is_set()):
            return self._patient_until_s
        return self._dead_ends_from_s if self._to_begin else None

    def _begin(self, strategy: CommStrat) -> None:
        assert self.contact is not None  # noqa: S101 - the strategy is one of its own
        task = asyncio.ensure_future(self._attempt(strategy, self.contact))
        task.add_done_callback(self._wake)
        self._racing[task] = strategy, self.contact.channel_key
        self._may_begin = False
        now_s = asyncio.get_running_loop().time()
        self._patient_until_s = now_s + self._stagger_s
        self._dead_ends_from_s = now_s + self._dead_ends_after_s

    def _wake(self, _: asyncio.Future[Any] | None = None) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def _wait(self, until_s: float | None) -> None:
        """Wait until something changes, or until ``until_s``, when a stagger is over. Nothing is
        missed in between: tasks and futures tell in a turn of their own that they are done, and
        contacts join in one, or as the scout begins."""
        loop = asyncio.get_running_loop()
        self._change = loop.create_future()
        timer = None if until_s is None else loop.call_at(until_s, self._is_late)
        try:
            await self._change
        finally:
            self._change = None
            if timer is not None:
                timer.cancel()

    def _is_late(self) -> None:
        self._goes_on()
        self._wake()

    def _goes_on(self) -> None:
        self._may_begin = True
        self._faltered.set()

    def _collect(self) -> None:
        for task in [task for task in self._racing if task.done()]:
            del self._racing[task]
            failed = task.result()
            if failed is not None:
                self.attempts.append(failed)
                self._goes_on()

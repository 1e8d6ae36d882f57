"""Busy polling: while traffic is lively, the event loop polls for more instead of sleeping.

Waking up takes longer than receiving a query and answering it, and the processor's caches are cold
afterwards. See docs/decisions/0013-busy-polling-is-offered.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egtp.paths.turns import Turns

__all__ = ["BusyPoll", "PollingTurns"]


class BusyPoll:
    """Keeps the event loop turning for ``for_s`` after anything came or left, if traffic is lively.

    It is lively if the last arrival came within ``for_s`` of whatever came or left before it. A
    node that hears from others less often would only poll in vain before each sleep, so it sleeps
    at once. Linux's ``haltpoll`` and KVM's ``halt_poll_ns`` have the same rule: poll as long as
    that was worth it last time.
    """

    __slots__ = ("_call_soon", "_for_s", "_give_way", "_is_lively", "_is_on", "_last_s", "_now")

    def __init__(
        self,
        for_s: float,
        now: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        give_way: Callable[[], object],
    ) -> None:
        self._for_s: Final = for_s
        self._now = now
        self._call_soon = call_soon
        self._give_way = give_way
        self._last_s = float("-inf")
        """When something last came or left."""
        self._is_lively = False
        self._is_on = False
        """Whether the loop has a call to :meth:`_turn` scheduled."""

    def came(self) -> None:
        """Something was read."""
        now = self._now()
        self._is_lively = now - self._last_s <= self._for_s
        self._last_s = now
        self._look_out()

    def left(self) -> None:
        """Something was written, as far as is known here."""
        self._last_s = self._now()
        self._look_out()

    def _look_out(self) -> None:
        if self._is_lively and not self._is_on:
            self._is_on = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        """Between two of these calls the loop polls all sockets."""
        self._is_on = self._is_lively and self._now() - self._last_s < self._for_s
        if self._is_on:
            # The process that is to answer may need this very core.
            self._give_way()
            self._call_soon(self._turn)


class PollingTurns(Turns):
    """Turns that tell a :class:`BusyPoll` of traffic."""

    __slots__ = ("_poll",)

    def __init__(self, call_soon: Callable[[Callable[[], None]], object], poll: BusyPoll) -> None:
        super().__init__(call_soon)
        self._poll = poll

    def reading_ends(self) -> None:
        self._poll.came()
        super().reading_ends()

    def _end(self) -> None:
        super()._end()
        self._poll.left()

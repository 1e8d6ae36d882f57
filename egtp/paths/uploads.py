"""Uploads: what comes in chunks on all paths, and who makes way when there is no room (pure).

A peer that sends all of a large query but its end could hold memory here for as long as it likes.
So unfinished messages are looked at now and then; and when somebody else lacks room, the slowest
uploads make way, those of strangers only. To hold memory that others need thus takes as much
bandwidth as they have.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from egtp.limits.shares import Shares
from egtp.paths.reassembly import Reassembly
from egtp.values.identity import NodeId

__all__ = ["Uploads"]

LOOK_AGAIN_S: Final = 1.0
"""If letting go all of strangers' unfinished messages was not enough, something else holds the
room, and looking through thousands of paths again for each query would be in vain."""
SPARE_PART: Final = 8
"""When somebody has to make way, the strangers' room divided by this is freed, so that the search
need not be repeated at once."""


class Uploads:
    """Invariant: every path that keeps something unfinished is known here, so it is looked at
    however idle it is."""

    def __init__(self, room: Shares, strangers_max: int, counters: Counter[str]) -> None:
        self.room: Final = room
        self._spare = strangers_max // SPARE_PART
        self._counters = counters
        self._unfinished: dict[Reassembly, None] = {}
        self._not_again_before_s = float("-inf")

    def __len__(self) -> int:
        """How many paths keep something unfinished, or did when they were last looked at."""
        return len(self._unfinished)

    @property
    def is_short(self) -> bool:
        """Whether strangers have less room left than is freed when somebody makes way."""
        return self.room.left(stranger=True) < self._spare

    def goes_on(self, reassembly: Reassembly) -> None:
        """A chunk came that was not the last of its message."""
        self._unfinished[reassembly] = None

    def take(self, peer_id: NodeId, size: int, now_s: float, *, stranger: bool) -> bool:
        """Take room for ``size`` more bytes of a peer's; others make way if need be."""
        if self.room.take(peer_id, size, stranger=stranger):
            return True
        self.make_way(size, now_s, stranger=stranger)
        return self.room.take(peer_id, size, stranger=stranger)

    def make_way(self, size: int, now_s: float, *, stranger: bool) -> None:
        """There is no room for ``size`` more bytes: let go the slowest strangers, unless only the
        peer's own share is used up."""
        room = self.room
        if room.left(stranger=stranger) >= size or now_s < self._not_again_before_s:
            return
        spare = max(size, self._spare)
        slowest = sorted(
            (one for one in self._unfinished if one.is_strangers), key=lambda one: one.pace(now_s)
        )
        for one in slowest:
            if room.left(stranger=stranger) >= spare:
                return
            gone = one.let_go()
            self._counters["unfinished message dropped: slow, and others need the room"] += gone
        self._not_again_before_s = now_s + LOOK_AGAIN_S

    def look(self, now_s: float) -> None:
        """To be called now and then: let go what is too old, and what has stalled."""
        for one in list(self._unfinished):
            gone = one.look(now_s)
            if gone:
                self._counters["unfinished message dropped: too old, or nothing more came"] += gone
            if not one:
                del self._unfinished[one]

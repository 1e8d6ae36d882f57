"""Silence: whether a path on which somebody waits still leads anywhere (pure).

A machine that lost its power, its address or its NAT mapping says nothing, and TCP goes on trying
for a quarter of an hour. So a peer that has been silent for a quarter of the allowed time is asked
for a sign of life. If none comes soon, it is time for a second way beside this one; and the path is
given up if none comes in half of the time. Nobody is asked for the sake of paths that nobody waits
for.
"""

from __future__ import annotations

import enum

__all__ = ["Silence", "Verdict"]


class Verdict(enum.Enum):
    """What to do about a path now."""

    FINE = "fine"
    ASK = "ask"
    """Send a ping."""
    DOUBT = "doubt"
    """No answer has come, for longer than round trips take: try another way beside it. Said once
    for each question."""
    GIVE_UP = "give up"


class Silence:
    """Of one path. Invariant: a path is given up only if nothing came for half of the allowed time
    after it was asked, and for all of it since something came."""

    __slots__ = ("_asked_s", "is_doubted")

    def __init__(self) -> None:
        self._asked_s: float | None = None
        self.is_doubted = False
        """Whether an answer was overdue when the path was last looked at."""

    def doubts(self, heard_s: float) -> bool:
        """Whether an answer is overdue, and has not come since. ``heard_s`` is when something
        came."""
        return self.is_doubted and self._asked_s is not None and heard_s < self._asked_s

    @property
    def is_asked(self) -> bool:
        """Whether an answer is awaited: then the path is looked at whoever waits."""
        return self._asked_s is not None

    def look(self, now_s: float, heard_s: float, allowed_s: float) -> Verdict:
        """To be called now and then while somebody waits, and while the peer is asked. ``heard_s``
        is when something came."""
        if self._asked_s is not None and heard_s >= self._asked_s:
            self._asked_s, self.is_doubted = None, False
        if self._asked_s is None:
            if now_s - heard_s < allowed_s / 4:
                return Verdict.FINE
            self._asked_s = now_s
            return Verdict.ASK
        asked_for_s = now_s - self._asked_s
        if asked_for_s >= allowed_s / 2 and now_s - heard_s >= allowed_s:
            return Verdict.GIVE_UP
        if asked_for_s >= allowed_s / 8 and not self.is_doubted:
            self.is_doubted = True
            return Verdict.DOUBT
        return Verdict.FINE

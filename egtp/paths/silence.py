"""Silence: whether a path on which somebody waits still leads anywhere (pure).

A machine that has lost its power, its address or its NAT mapping says nothing, and TCP keeps trying
for a quarter of an hour. So a peer that has been silent for a quarter of the allowed time is asked
for a sign of life. If none comes within an eighth, it is time for another path beside this one. If
none comes within half, and the allowed time is over, the path is given up. Paths that nobody waits
for are left alone.
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
    """No answer has come for longer than a round trip takes: try another path beside this one.
    Given once per question."""
    GIVE_UP = "give up"


class Silence:
    """The silence of one path. Invariant: the path is given up only if nothing has come for half of
    the allowed time since the peer was asked, and for all of it since something last came."""

    __slots__ = ("_asked_s", "is_doubted")

    def __init__(self) -> None:
        self._asked_s: float | None = None
        self.is_doubted = False
        """Whether an answer was overdue when the path was last looked at."""

    def doubts(self, heard_s: float) -> bool:
        """Whether an answer was overdue at the last look, and has not come since. ``heard_s`` is
        when something last came."""
        return self.is_doubted and self._asked_s is not None and heard_s < self._asked_s

    @property
    def is_asked(self) -> bool:
        """Whether an answer is awaited: then the path is looked at even if nobody waits for it."""
        return self._asked_s is not None

    def look(
        self, now_s: float, heard_s: float, allowed_s: float, *, is_wanted: bool = True
    ) -> Verdict:
        """To be called now and then while somebody waits for the path, which makes it
        ``is_wanted``, or an answer is awaited. ``heard_s`` is when something last came."""
        if self._asked_s is not None and heard_s >= self._asked_s:
            self._asked_s, self.is_doubted = None, False
        if self._asked_s is None:
            # Asked on and on, a path that nobody waits for would never be idle.
            if not is_wanted or now_s - heard_s < allowed_s / 4:
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

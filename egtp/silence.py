"""Silence: whether a path on which somebody waits still leads anywhere (pure).

A machine that lost its power, its address or its NAT mapping says nothing, and TCP goes on trying
for a quarter of an hour. So a peer that has been silent for half of the allowed time is asked for a
sign of life, and given up if none comes in the other half. Nobody is asked for the sake of paths
that nobody waits for.
"""

from __future__ import annotations

import enum

__all__ = ["Silence", "Verdict"]


class Verdict(enum.Enum):
    """What to do about a path now."""

    FINE = "fine"
    ASK = "ask"
    """Send a ping."""
    GIVE_UP = "give up"


class Silence:
    """Of one path. Invariant: a path is given up only if nothing came for half of the allowed time
    after it was asked."""

    __slots__ = ("_asked_s",)

    def __init__(self) -> None:
        self._asked_s: float | None = None

    @property
    def is_asked(self) -> bool:
        """Whether an answer is awaited: then the path is looked at whoever waits."""
        return self._asked_s is not None

    def look(self, now_s: float, heard_s: float, allowed_s: float) -> Verdict:
        """To be called now and then while somebody waits, and while the peer is asked. ``heard_s``
        is when something came."""
        if self._asked_s is not None and heard_s >= self._asked_s:
            self._asked_s = None
        if self._asked_s is None:
            if now_s - heard_s < allowed_s / 2:
                return Verdict.FINE
            self._asked_s = now_s
            return Verdict.ASK
        return Verdict.GIVE_UP if now_s - self._asked_s >= allowed_s / 2 else Verdict.FINE

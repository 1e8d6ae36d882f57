"""Whether strangers can reach this node, found out and found out again. Pure.

Answers to its own queries prove nothing: a router lets them in because the node has asked. What
proves it is a query from a stranger, whom this node has not sent anything to for long enough that
every router has forgotten it. So a node asks one that it knows to have another one ping it.

A proof does not hold for ever: a laptop is carried behind a router. A node that no stranger has
asked anything for a while doubts it, asks to be pinged as it did in the beginning, and is a client
again if nobody manages. It counts its requests, not the time: one that is asleep, or knows no
strangers, learns nothing from silence.
"""

from __future__ import annotations

from collections.abc import Hashable

from lookup_dht.settings import DHTLimits

__all__ = ["CONTACTED_MAX", "Reachability"]

CONTACTED_MAX = 4096
"""Hosts remembered as sent to. Older ones would pass for strangers; routers forget them sooner."""


class Reachability:
    """For a node that may not know. ``now`` is in seconds and never runs backward."""

    def __init__(self, server: bool | None, limits: DHTLimits) -> None:
        """``server`` is what the user says, which needs no proof; None if he leaves it to be
        found out."""
        self.proven = bool(server)
        self.wanted = server is None
        """Whether it is to be found out."""
        self.open = self.wanted
        """Whether to ask for the proof now: there is none, or none of late."""
        self._limits = limits
        self._proven_at = 0.0
        self._requests = 0
        self._contacted: dict[Hashable, float] = {}
        """When a host was sent to last, in that order."""

    def sent_to(self, host: Hashable, now: float) -> None:
        if self.wanted:
            self._contacted.pop(host, None)
            self._contacted[host] = now
            if len(self._contacted) > CONTACTED_MAX:
                del self._contacted[next(iter(self._contacted))]

    def is_stranger(self, host: Hashable, now: float) -> bool:
        """Whether a query from ``host`` would be a proof."""
        sent_at = self._contacted.get(host)
        return sent_at is None or now - sent_at >= self._limits.stranger_after_s

    def heard_from(self, host: Hashable, now: float) -> bool:
        """A query came. True if it is the proof of what was not proven."""
        if not self.wanted or not self.is_stranger(host, now):
            return False
        found_out = not self.proven
        self.proven, self.open = True, False
        self._proven_at, self._requests = now, 0
        return found_out

    def time_passed(self, now: float) -> None:
        """A proof that is too old is doubted."""
        if self.wanted and now - self._proven_at >= self._limits.proof_holds_s:
            self.open = True

    def requested(self, strangers: bool) -> bool:
        """The proof was asked for, among contacts of whom some are ``strangers``, or none. True
        if that is once more than a proof can be doubted: it is void."""
        self._requests += strangers
        if not self.proven or self._requests <= self._limits.proof_requests_max:
            return False
        self.moved()
        return True

    def moved(self) -> None:
        """This node has another address, or might as well: of that one nothing is proven."""
        if self.wanted:
            self.proven, self.open, self._requests = False, True, 0

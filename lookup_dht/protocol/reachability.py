"""Whether strangers can reach this node, found out and found out again. Pure.

Answers to its own queries prove nothing: a router lets them in because the node has asked. What
proves it is a query from a stranger, whom this node has not sent anything to for long enough that
every router has forgotten it. So a node asks one that it knows to have another one ping it.

A proof does not hold for ever: a laptop is carried behind a router. A node that no stranger has
asked anything for a while doubts it, asks to be pinged as it did in the beginning, and is a client
again if nobody manages. It counts the proofs that its requests should have brought, not the time:
one that is asleep, or knows no strangers, learns nothing from silence.

The first nodes of a network have nobody who could prove anything: they serve because their users
promise that they can be reached. A promise is worth as much as a proof that is doubted as soon as
the node has joined: it holds until strangers could have proven it and none did.
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
        """``server`` is what the user says: True is a promise, False is the end of it, and None
        leaves it to be found out."""
        self.proven = self._promised = server is True
        """Whether to serve."""
        self.wanted = server is not False
        """Whether it is to be found out."""
        self.open = self.wanted and not self.proven
        """Whether to ask for the proof now: there is none, or none of late."""
        self._limits = limits
        self._proven_at = 0.0
        self._missed = 0.0
        self._contacted: dict[Hashable, float] = {}
        """When a host was sent to last."""

    def sent_to(self, host: Hashable, now: float) -> None:
        if self.wanted:
            contacted = self._contacted
            contacted[host] = now
            if len(contacted) > CONTACTED_MAX:
                # Half at once, so that no order has to be kept for each datagram.
                by_time = sorted(contacted.items(), key=lambda it: it[1])
                self._contacted = dict(by_time[CONTACTED_MAX // 2 :])

    def is_stranger(self, host: Hashable, now: float) -> bool:
        """Whether a query from ``host`` would be a proof."""
        sent_at = self._contacted.get(host)
        return sent_at is None or now - sent_at >= self._limits.stranger_after_s

    def heard_from(self, host: Hashable, now: float) -> bool:
        """A query came, and is answered if this node serves. True if it is the proof of what was
        not proven."""
        if not self.wanted:
            return False
        found_out = False
        if self.is_stranger(host, now):
            found_out = not self.proven
            self.proven, self.open = True, False
            self._proven_at, self._missed = now, 0.0
        if self.proven:  # A router that let the query in lets more of them in now.
            self.sent_to(host, now)
        return found_out

    def time_passed(self, now: float) -> None:
        """A proof that is too old is doubted."""
        if self.wanted and now - self._proven_at >= self._limits.proof_holds_s:
            self.open = True

    def requested(self, strangers: float) -> bool:
        """The proof was asked for, which brings it if whoever is chosen to ping this node is one of
        the ``strangers``, a share of all. True if that should have brought it too often by now: it
        is void."""
        self._missed += strangers
        if not self.proven or self._missed <= self._limits.proofs_missed_max:
            return False
        self.proven, self._missed = False, 0.0
        return True

    def moved(self) -> None:
        """This node has another address, or might as well: of that one nothing is proven."""
        if self.wanted:
            self.proven, self.open, self._missed = self._promised, not self._promised, 0.0

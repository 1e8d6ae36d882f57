"""Whether strangers can reach this node, and whether they still can. Pure.

Answers to the node's own queries prove nothing: a router lets them in because the node has asked.
Only a query from a *stranger* is proof: from a host to which this node has sent nothing for so long
that any router has forgotten the flow. So a node asks a contact to have another node ping it.

A proof does not hold for ever: a laptop may be moved behind a router. A node that no stranger has
queried for a while doubts its proof, asks to be pinged as it did at the start, and becomes a client
again if no ping arrives. It counts the proofs that its requests should have brought, rather than
time: to a node that was asleep, or knows no strangers, silence says nothing.

The first nodes of a network have nobody to prove anything: they serve because their users promise
that they can be reached. Such a promise is like a proof that is in doubt as soon as the node has
joined: it holds until strangers should have confirmed it and none did.
"""

from __future__ import annotations

from collections.abc import Hashable

from lookup_dht.settings import DHTLimits

__all__ = ["CONTACTED_MAX", "Reachability"]

CONTACTED_MAX = 4096
"""Hosts remembered as sent to. Beyond that, the oldest count as strangers: by then routers have
usually forgotten them too."""


class Reachability:
    """The reachability of one node. ``now`` is in seconds and never runs backward."""

    def __init__(self, server: bool | None, limits: DHTLimits) -> None:
        """``server`` is the user's setting: True is a promise, False is final, and None leaves it
        to be found out."""
        self.proven = self._promised = server is True
        """Whether to serve."""
        self.wanted = server is not False
        """Whether reachability is tracked at all."""
        self.open = self.wanted and not self.proven
        """Whether to ask for proof now: there is none, or no recent one."""
        self._limits = limits
        self._proven_at = 0.0
        self._missed = 0.0
        self._contacted: dict[Hashable, float] = {}
        """When each host was last sent to."""

    def sent_to(self, host: Hashable, now: float) -> None:
        if self.wanted:
            contacted = self._contacted
            contacted[host] = now
            if len(contacted) > CONTACTED_MAX:
                # Half at once, so that no datagram has to maintain an order.
                by_time = sorted(contacted.items(), key=lambda it: it[1])
                self._contacted = dict(by_time[CONTACTED_MAX // 2 :])

    def is_stranger(self, host: Hashable, now: float) -> bool:
        """Whether a query from ``host`` would be proof."""
        sent_at = self._contacted.get(host)
        return sent_at is None or now - sent_at >= self._limits.stranger_after_s

    def heard_from(self, host: Hashable, now: float) -> bool:
        """A query came from ``host``. True if it proves what was not proven before."""
        if not self.wanted:
            return False
        found_out = False
        if self.is_stranger(host, now):
            found_out = not self.proven
            self.proven, self.open = True, False
            self._proven_at, self._missed = now, 0.0
        if self.proven:  # It will be answered, which opens the router to more of its queries.
            self.sent_to(host, now)
        return found_out

    def time_passed(self, now: float) -> None:
        """Doubt a proof that is too old."""
        if self.wanted and now - self._proven_at >= self._limits.proof_holds_s:
            self.open = True

    def requested(self, strangers: float) -> bool:
        """Proof was requested. That succeeds if the node chosen to ping this one is a stranger;
        ``strangers`` is their share of all. True if so many requests should have succeeded by now
        that the proof is void."""
        self._missed += strangers
        if not self.proven or self._missed <= self._limits.proofs_missed_max:
            return False
        self.proven, self._missed = False, 0.0
        return True

    def moved(self) -> None:
        """This node has, or may have, another address, of which nothing is proven."""
        if self.wanted:
            self.proven, self.open, self._missed = self._promised, not self._promised, 0.0

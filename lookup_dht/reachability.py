"""Whether strangers can reach this node. Pure.

Answers to its own queries prove nothing: a router lets them in because the node has asked. What
proves it is a query from an address that this node has never sent anything to. So it asks one node
to have another one ping it.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["CONTACTED_MAX", "Reachability"]

CONTACTED_MAX = 4096
"""Hosts remembered as sent to. Older ones would pass for strangers; routers forget them sooner."""


class Reachability:
    """For a node that may not know. What is proven holds while the node stays where it is."""

    def __init__(self, server: bool | None) -> None:
        """``server`` is what the user says, None if he leaves it to be found out."""
        self.proven = bool(server)
        self._wanted = server is None
        self._contacted: dict[Hashable, None] = {}

    @property
    def open(self) -> bool:
        """Whether it is to be found out, and not proven yet."""
        return self._wanted and not self.proven

    def sent_to(self, host: Hashable) -> None:
        if self.open:
            self._contacted.pop(host, None)
            self._contacted[host] = None
            if len(self._contacted) > CONTACTED_MAX:
                del self._contacted[next(iter(self._contacted))]

    def heard_from(self, host: Hashable) -> bool:
        """A query came. True if that is the proof."""
        if not self.open or host in self._contacted:
            return False
        self.proven = True
        self._contacted.clear()
        return True

    def moved(self) -> None:
        """This node has another address: what was proven of the old one says nothing."""
        if self._wanted:
            self.proven = False

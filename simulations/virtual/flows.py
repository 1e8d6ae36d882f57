"""Flows: whom a machine exchanged datagrams with lately, as a stateful firewall remembers it."""

from __future__ import annotations

from typing import Final

from simulations.virtual.nat import Endpoint

__all__ = ["IDLE_S", "Flows"]

IDLE_S: Final = 120.0
"""How long a flow is remembered after its last datagram (nf_conntrack_udp_timeout_stream)."""


class Flows:
    """Noted whether or not a firewall is up: one that comes up knows those from before it."""

    def __init__(self) -> None:
        # By own port and peer, when it was last used. What was not used since the last turn is in
        # the older one of the two, and is forgotten at the next: nobody goes through all of them.
        self._young: dict[int, dict[Endpoint, float]] = {}
        self._old: dict[int, dict[Endpoint, float]] = {}
        self._turned_s = 0.0

    def sent(self, now_s: float, port: int, peer: Endpoint) -> None:
        """The machine sent somebody something from one of its ports."""
        if now_s - self._turned_s > IDLE_S:
            self._old, self._young = self._young, {}
            self._turned_s = now_s
        flows = self._young.get(port)
        if flows is None:
            flows = self._young[port] = {}
        flows[peer] = now_s

    def admits(self, now_s: float, port: int, peer: Endpoint) -> bool:
        """Whether something that comes from a peer belongs to a flow, and so keeps it alive."""
        for flows in (self._young, self._old):
            used_s = flows.get(port, {}).get(peer)
            if used_s is not None and now_s - used_s <= IDLE_S:
                self.sent(now_s, port, peer)
                return True
        return False

    def forget(self) -> None:
        """The machine starts again."""
        self._young, self._old = {}, {}

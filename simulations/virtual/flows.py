"""Flows: a machine's recent datagram peers, as a stateful firewall tracks them."""

from __future__ import annotations

from typing import Final

from simulations.virtual.nat import Endpoint

__all__ = ["IDLE_S", "Flows"]

IDLE_S: Final = 120.0
"""How long a flow is remembered after its last datagram (nf_conntrack_udp_timeout_stream)."""


class Flows:
    """Tracked even while no firewall is up: one that comes up knows the flows from before."""

    def __init__(self) -> None:
        # When each flow was last used, by own port and peer. Flows not used since the last turn are
        # in the older of the two dicts, which the next turn drops whole, without a scan.
        self._young: dict[int, dict[Endpoint, float]] = {}
        self._old: dict[int, dict[Endpoint, float]] = {}
        self._turned_s = 0.0

    def sent(self, now_s: float, port: int, peer: Endpoint) -> None:
        """The machine sent a datagram to ``peer`` from ``port``."""
        if now_s - self._turned_s > IDLE_S:
            self._old, self._young = self._young, {}
            self._turned_s = now_s
        flows = self._young.get(port)
        if flows is None:
            flows = self._young[port] = {}
        flows[peer] = now_s

    def admits(self, now_s: float, port: int, peer: Endpoint) -> bool:
        """Whether a datagram from ``peer`` belongs to a flow; if so, it keeps the flow alive."""
        for flows in (self._young, self._old):
            used_s = flows.get(port, {}).get(peer)
            if used_s is not None and now_s - used_s <= IDLE_S:
                self.sent(now_s, port, peer)
                return True
        return False

    def forget(self) -> None:
        """Forget all flows: the machine restarts."""
        self._young, self._old = {}, {}

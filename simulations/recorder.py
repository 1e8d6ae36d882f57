"""Recorder: records the events of a cluster in a timeline, for the page of the run."""

from __future__ import annotations

import re
from collections.abc import Callable

from egtp import NodeId, TCPStrat
from egtp.events import Event, PathLost, PathOpened
from simulations.board import told
from simulations.cluster import Cluster
from simulations.expectations import Expectation
from simulations.member import Member
from simulations.timeline import Timeline
from simulations.virtual import Host
from simulations.world import VirtualWorld

__all__ = ["Recorder"]


class Recorder:
    """Records one run of one scenario. Listens to the members, the checkers and the network."""

    def __init__(self, timeline: Timeline, elapsed: Callable[[], float]) -> None:
        self.timeline = timeline
        self._elapsed = elapsed
        self._began_s = elapsed()
        self._cluster: Cluster | None = None
        self._known: set[str] = set()
        self._open: dict[tuple[str, NodeId], dict[str, bool]] = {}
        self._ways: dict[tuple[str, str], str] = {}
        self._faults: dict[str, list[int | None]] = {}

    def attach(self, cluster: Cluster) -> None:
        """Record this cluster."""
        self._cluster = cluster
        cluster.checkers.witness = self
        if isinstance(cluster.world, VirtualWorld):
            cluster.world.network.watch(self._happened)

    # The story

    def narrate(self, text: str) -> None:
        self.timeline.sentence(self._now(), text)

    def tell(self, expectation: Expectation) -> None:
        self.timeline.expectation(
            self._now(), expectation.text, expectation.held, expectation.detail
        )

    # The members

    def watch(self, member: Member, event: Event) -> None:
        cluster = self._cluster
        if cluster is None:
            return
        now_s = self._now()
        if member.name not in self._known:
            self._meet(cluster, now_s)
        peer_id = getattr(event, "peer_id", None)
        peer = None if peer_id is None else cluster.name_of(peer_id)
        self.timeline.event(now_s, member.name, _kind(event), peer, told(event, cluster))
        if isinstance(event, PathOpened | PathLost):
            self._path(now_s, member.name, event)

    def way(self, node: str, peer: str) -> str:
        return self._ways.get((node, peer), "none")

    def left(self, node: str) -> None:
        now_s = self._now()
        self._forget_paths(now_s, node)
        self.timeline.state(node, now_s, "gone")

    def query(
        self, at_s: float, took_s: float, node: str, peer: str, way: str, outcome: str
    ) -> None:
        self.timeline.query(at_s - self._began_s, took_s, node, peer, way, outcome)

    def lookup(self, at_s: float, took_s: float, node: str, peer_id: NodeId, found: bool) -> None:
        if self._cluster is not None:
            peer = self._cluster.name_of(peer_id)
            self.timeline.lookup(at_s - self._began_s, took_s, node, peer, found=found)

    def _meet(self, cluster: Cluster, now_s: float) -> None:
        """Add lanes for new nodes, in the order of the plan rather than of their first events."""
        lanes = [
            (f"bootstrap-{number}", "bootstrap", str(lookup.address.host))
            for number, lookup in enumerate(cluster.bootstraps, 1)
        ]
        lanes += [(member.name, member.role.value, member.host) for member in cluster.members]
        for name, role, address in lanes:
            if name not in self._known:
                self._known.add(name)
                self.timeline.node(name, role)
                self.timeline.state(name, now_s, "up")
                self.timeline.address(name, now_s, address)

    def _path(self, now_s: float, node: str, event: PathOpened | PathLost) -> None:
        assert self._cluster is not None
        paths = self._open.setdefault((node, event.peer_id), {})
        if isinstance(event, PathOpened):
            paths[str(event.strategy)] = isinstance(event.strategy, TCPStrat)
        else:
            paths.pop(str(event.strategy), None)
        way = "none" if not paths else "direct" if any(paths.values()) else "relay"
        peer = self._cluster.name_of(event.peer_id)
        if self._ways.get((node, peer)) != way:
            self._ways[node, peer] = way
            self.timeline.path(now_s, node, peer, way)

    # The network

    def _happened(self, at_s: float, kind: str, text: str, hosts: tuple[Host, ...]) -> None:
        at_s -= self._began_s
        names = [host.name for host in hosts]
        if kind == "fault":
            number = self.timeline.fault(at_s, text, names)
            self._faults.setdefault(text, []).append(number)
        elif kind == "healed":
            numbers = self._faults.get(text)
            if numbers:
                self.timeline.fault_over(numbers.pop(0), at_s)
        for host in hosts:
            if kind in ("up", "down", "asleep"):
                self.timeline.state(host.name, at_s, kind)
                if kind == "down":
                    self._forget_paths(at_s, host.name)
            elif kind == "address":
                self.timeline.address(host.name, at_s, ", ".join(host.addresses))
            elif kind == "clock":
                self.timeline.event(at_s, host.name, "clock", None, text)

    def _forget_paths(self, at_s: float, node: str) -> None:
        for (name, peer), way in self._ways.items():
            if name == node and way != "none":
                self._ways[name, peer] = "none"
                self.timeline.path(at_s, name, peer, "none")
        for key in [key for key in self._open if key[0] == node]:
            del self._open[key]

    def _now(self) -> float:
        return self._elapsed() - self._began_s


def _kind(event: Event) -> str:
    """The name of an event as words, such as ``path opened``."""
    name = type(event).__name__
    words = re.sub("(?<=.)(?=[A-Z])", " ", name).lower()
    return "dial" if words == "dialling" else words

"""Network: the simulated world. Machines, the lines between them, and what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from simulations.virtual.errors import ImpossibleWorld
from simulations.virtual.faults import Fault
from simulations.virtual.host import Host
from simulations.virtual.lines import Lines, Map
from simulations.virtual.link import Link
from simulations.virtual.loop import VirtualLoop
from simulations.virtual.nat import Nat
from simulations.virtual.routing import Gateway, Net
from simulations.virtual.sockets import Sockets
from simulations.virtual.tap import Tap
from simulations.virtual.trace import Trace

__all__ = ["Network", "Watcher"]

Watcher: TypeAlias = Callable[[float, str, str, tuple[Host, ...]], None]
"""Told what happens to machines: when, of which kind it is (``up``, ``down``, ``asleep``,
``address``, ``clock``, ``fault``, ``healed``), what in words, and whom it is about."""

EPOCH_S: Final = 1_800_000_000.0
"""What wall clocks say at the start of a world: a moment of January 2027."""
INBOUND: Final = ("drop", "refuse")


class Network:
    """A world of its own: two of them share nothing, and the same seed gives the same world."""

    def __init__(
        self,
        seed: int = 0,
        *,
        link: Link | Map | None = None,
        trace: Trace | None = None,
        epoch_s: float = EPOCH_S,
    ) -> None:
        """``link`` is the line between any two machines of which nothing else is said, or a
        function that says it, of the names of the two."""
        self.seed: Final = seed
        self.epoch_s: Final = epoch_s
        self.trace: Final = trace or Trace()
        self.rng: Final = random.Random(f"{seed}/network")
        self.lines: Final = Lines(self.rng, link or Link())
        self.loop: Final = VirtualLoop(Sockets(self))
        self.internet: Final = Net()
        self.hosts: Final[dict[str, Host]] = {}
        self.names: Final[dict[str, str]] = {}
        """Host names that resolve, and the addresses they stand for."""
        self.story: Final = Host(self, "the story", (), self.internet)
        """Whose clocks and entropy are used by what runs on no machine. It has no address."""
        self.tap: Tap | None = None
        """Who sits on every line, if anybody."""
        self._watchers: list[Watcher] = []

    # What there is

    def host(
        self,
        name: str,
        *addresses: str,
        behind: Gateway | None = None,
        access: Link | None = None,
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
    ) -> Host:
        """A new machine. ``behind`` puts it into the network of a NAT; ``access`` is its own line,
        which counts for everybody it talks to. Its wall clock is ``clock_offset_s`` ahead, and all
        its clocks and timers are fast by a factor of ``clock_rate``.

        Raises :class:`ImpossibleWorld`."""
        if name in self.hosts:
            raise ImpossibleWorld(f"there is a {name} already")
        if not addresses:
            raise ImpossibleWorld(f"{name} needs an address")
        net = self.internet if behind is None else behind.inside
        host = self.hosts[name] = Host(
            self,
            name,
            addresses,
            net,
            clock_offset_s=clock_offset_s,
            clock_rate=clock_rate,
        )
        self.loop.machines = len(self.hosts)
        if clock_rate != 1.0:
            self.loop.clocks_differ()
        if access is not None:
            self.lines.set_access(name, access)
        return host

    def gateway(self, name: str, nat: Nat, *, behind: Gateway | None = None) -> Gateway:
        """A NAT device, in the Internet or behind another one."""
        return Gateway(name, nat, self.internet if behind is None else behind.inside)

    def connect(self, a: Host, b: Host, link: Link, *, one_way: bool = False) -> None:
        """A line of its own between two machines, from now on."""
        self.lines.set_pair(a.name, b.name, link)
        if not one_way:
            self.lines.set_pair(b.name, a.name, link)

    # What goes wrong

    def partition(
        self, some: Iterable[Host], others: Iterable[Host], *, one_way: bool = False
    ) -> Fault:
        """Nothing gets from ``some`` to ``others``, nor back unless it is ``one_way``."""
        some, others = self._own(some), self._own(others)
        both = {host.name for host in some} & {host.name for host in others}
        if both:
            raise ImpossibleWorld(f"{min(both)} cannot be on both sides of a partition")
        pairs = [(a.name, b.name) for a in some for b in others]
        if not one_way:
            pairs += [(b, a) for a, b in pairs]
        for pair in pairs:
            self.lines.cut(*pair)

        def mend() -> None:
            for pair in pairs:
                self.lines.mend(*pair)

        for host in some:
            host.probe_lines()
        between = f"{_names(some)} {'to' if one_way else 'and'} {_names(others)}"
        return self._fault(f"partition: {between}", mend, *some, *others)

    def degrade(self, host: Host, link: Link) -> Fault:
        """The machine's own line is ``link`` for everybody."""
        return self._fault(f"bad line: {host.name}", self.lines.degrade(host.name, link), host)

    def degrade_all(self, link: Link | Map) -> Fault:
        """Every line of which nothing else was said is ``link``."""
        return self._fault("bad lines", self.lines.degrade_all(link))

    def block_inbound(self, host: Host, how: str = "drop") -> Fault:
        """See :meth:`Host.block_inbound`."""
        if how not in INBOUND:
            raise ImpossibleWorld(f"inbound is blocked by {' or '.join(INBOUND)}, not {how!r}")
        return self._fault(f"firewall: {host.name} ({how})", host.firewalls.begin(how), host)

    # Who wants to know

    def watch(self, watcher: Watcher) -> None:
        """Be told of each fault, crash and change of address."""
        self._watchers.append(watcher)

    def note(self, text: str, *hosts: Host, kind: str = "fault") -> None:
        """Something happened that belongs into the trace."""
        self.trace.note(self.loop.now, f"{kind}: {text}")
        for watcher in self._watchers:
            watcher(self.loop.now, kind, text, hosts)

    def _own(self, hosts: Iterable[Host]) -> tuple[Host, ...]:
        """Raises :class:`ImpossibleWorld` for what is no machine of this network."""
        if isinstance(hosts, Host | str):
            raise ImpossibleWorld(f"a partition is between two lists of machines, not {hosts!r}")
        own = tuple(hosts)
        for host in own:
            if not isinstance(host, Host) or host.network is not self:
                raise ImpossibleWorld(f"{host!r} is no machine of this network")
        return own

    def _fault(self, text: str, heal: Callable[[], None], *hosts: Host) -> Fault:
        self.note(text, *hosts)

        def healed() -> None:
            heal()
            self.note(text, *hosts, kind="healed")

        return Fault(text, healed)


def _names(hosts: tuple[Host, ...]) -> str:
    names = [host.name for host in hosts]
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"

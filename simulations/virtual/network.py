"""Network: the simulated world, with its machines, the lines between them, and faults."""

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
"""Called with each event of machines: the time in seconds, the kind (``up``, ``down``, ``asleep``,
``address``, ``clock``, ``fault``, ``healed``), a description, and the machines."""

EPOCH_S: Final = 1_800_000_000.0
"""The wall clock at the start of a world: a moment in January 2027."""
INBOUND: Final = ("drop", "refuse")


class Network:
    """A simulated world. Two worlds share nothing, and the same seed gives the same world."""

    def __init__(
        self,
        seed: int = 0,
        *,
        link: Link | Map | None = None,
        trace: Trace | None = None,
        epoch_s: float = EPOCH_S,
    ) -> None:
        """
        :param seed: everything random follows from it.
        :param link: the line between any two machines unless another is set, or a function that
            returns it for the names of the two, and is called for each packet.
        :param trace: records what happens; by default one that keeps no lines.
        :param epoch_s: the wall clock at the start, in Unix seconds.
        """
        self.seed: Final = seed
        self.epoch_s: Final = epoch_s
        self.trace: Final = trace or Trace()
        self.rng: Final = random.Random(f"{seed}/network")
        self.lines: Final = Lines(self.rng, link or Link())
        self.loop: Final = VirtualLoop(Sockets(self))
        self.internet: Final = Net()
        self.hosts: Final[dict[str, Host]] = {}
        self.names: Final[dict[str, str]] = {}
        """Host names that resolve, with their addresses."""
        self.story: Final = Host(self, "the story", (), self.internet)
        """Provides clocks and entropy for code that runs on no machine. It has no address."""
        self.tap: Tap | None = None
        """An attacker on every line, if there is one."""
        self._watchers: list[Watcher] = []

    # Topology

    def host(
        self,
        name: str,
        *addresses: str,
        behind: Gateway | None = None,
        access: Link | None = None,
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
    ) -> Host:
        """Add a machine.

        :param name: a name of its own.
        :param addresses: one or more IP addresses.
        :param behind: the NAT device in whose network it is; None for the Internet.
        :param access: its own line, used towards all other machines.
        :param clock_offset_s: by how many seconds its wall clock is ahead.
        :param clock_rate: the factor by which all its clocks and timers are fast.

        Raises :class:`ImpossibleWorld`.
        """
        if name in self.hosts:
            raise ImpossibleWorld(f"there is already a machine named {name}")
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
        """Add a NAT device, on the Internet or behind another one."""
        return Gateway(name, nat, self.internet if behind is None else behind.inside)

    def connect(self, a: Host, b: Host, link: Link, *, one_way: bool = False) -> None:
        """Set the line between two machines from now on."""
        self.lines.set_pair(a.name, b.name, link)
        if not one_way:
            self.lines.set_pair(b.name, a.name, link)

    # Faults

    def partition(
        self, some: Iterable[Host], others: Iterable[Host], *, one_way: bool = False
    ) -> Fault:
        """Let nothing pass from ``some`` to ``others``, nor back unless ``one_way``. Raises
        :class:`ImpossibleWorld`."""
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
        """Replace the machine's own line by ``link`` as a whole, for everybody that it talks to. On
        a line that :meth:`connect` has set, it comes on top."""
        return self._fault(f"bad line: {host.name}", self.lines.degrade(host.name, link), host)

    def degrade_all(self, link: Link | Map) -> Fault:
        """Replace the default line by ``link``; lines set otherwise stay."""
        return self._fault("bad lines", self.lines.degrade_all(link))

    def block_inbound(self, host: Host, how: str = "drop") -> Fault:
        """See :meth:`Host.block_inbound`."""
        if how not in INBOUND:
            raise ImpossibleWorld(f"how must be {' or '.join(INBOUND)}, not {how!r}")
        return self._fault(f"firewall: {host.name} ({how})", host.firewalls.begin(how), host)

    # Observers

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher`` with each fault, crash and change of address: the time in seconds, the
        kind of event, a description, and a tuple of the machines."""
        self._watchers.append(watcher)

    def note(self, text: str, *hosts: Host, kind: str = "fault") -> None:
        """Add an event to the trace, and tell the watchers."""
        self.trace.note(self.loop.now, f"{kind}: {text}")
        for watcher in self._watchers:
            watcher(self.loop.now, kind, text, hosts)

    def _own(self, hosts: Iterable[Host]) -> tuple[Host, ...]:
        """``hosts`` as a tuple. Raises :class:`ImpossibleWorld` for anything but machines of this
        network."""
        if isinstance(hosts, Host | str):
            raise ImpossibleWorld(f"a partition is between two lists of machines, not {hosts!r}")
        own = tuple(hosts)
        for host in own:
            if not isinstance(host, Host) or host.network is not self:
                raise ImpossibleWorld(f"{host!r} is not a machine of this network")
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

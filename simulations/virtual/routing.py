"""Routing: which machine has an address, and how NAT devices translate a packet on its way."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from simulations.virtual.errors import ImpossibleWorld
from simulations.virtual.nat import Endpoint, Mapping, Nat

if TYPE_CHECKING:
    from simulations.virtual.host import Host

__all__ = [
    "WILDCARDS",
    "Gateway",
    "Net",
    "Route",
    "as_seen",
    "canonical_ip",
    "route",
    "wildcard_like",
]

WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104
"""Socket addresses that stand for all addresses of a machine."""


def as_seen(endpoint: Endpoint) -> tuple[Any, ...]:
    """The address tuple that a program sees: for IPv6 it has two more numbers."""
    return (*endpoint, 0, 0) if ":" in endpoint[0] else endpoint


def wildcard_like(address: str) -> str:
    """The wildcard of the same family as ``address``."""
    return WILDCARDS[":" in address]


def canonical_ip(text: str) -> str:
    """The canonical text of an IP address. Raises :class:`ImpossibleWorld` if it is none."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ImpossibleWorld(f"{text!r} is not an IP address") from None


class Net:
    """Machines that reach each other by address: the Internet, or a network behind a NAT."""

    def __init__(self, outside: Gateway | None = None) -> None:
        self.outside = outside
        """The device through which packets to other networks leave."""
        self.owners: dict[str, Host | Gateway] = {}

    def take(self, address: str, owner: Host | Gateway) -> str:
        """Assign an address, and return its canonical text. Raises :class:`ImpossibleWorld`."""
        address = canonical_ip(address)
        if address in self.owners:
            raise ImpossibleWorld(f"{address} already belongs to {self.owners[address].name}")
        self.owners[address] = owner
        return address

    def give_back(self, address: str) -> None:
        del self.owners[address]


class Gateway:
    """A NAT device, between the network inside and the one that it is in. Made by
    :meth:`Network.gateway`."""

    def __init__(self, name: str, nat: Nat, net: Net) -> None:
        self.name = name
        self.nat = nat
        self.net = net
        self.inside = Net(self)
        nat.change_address(net.take(nat.address, self))
        nat.register = self._register

    def change_address(self, address: str) -> None:
        """Give it another public address, as a provider does: all mappings are gone."""
        self.nat.change_address(address)

    def _register(self, address: str) -> str:
        taken = self.net.take(address, self)
        self.net.give_back(self.nat.address)
        return taken


@dataclass(slots=True)
class Route:
    """Where a packet ends up."""

    target: Host
    source: Endpoint
    """The source as the target sees it."""
    destination: Endpoint
    """The destination by the target's own address."""
    mappings: tuple[tuple[Nat, Mapping], ...] = ()
    """The mappings that translated it."""

    def is_live(self, now_s: float) -> bool:
        """Whether a connection made on this route still passes; if so, keeps its mappings alive."""
        for nat, mapping in self.mappings:
            if not nat.is_live(mapping, now_s):
                return False
            mapping.used_s = now_s
        return True


def route(
    now_s: float, protocol: str, host: Host, source: Endpoint, destination: Endpoint
) -> Route | None:
    """Follow a packet from ``host``; None if it reaches no machine."""
    net = host.net
    address = destination[0]
    owner = net.owners.get(address)
    if owner is None and host.owns(address):
        return Route(host, source, destination)
    mappings: list[tuple[Nat, Mapping]] = []
    while owner is None and net.outside is not None:
        gateway = net.outside
        mapping = gateway.nat.outbound(now_s, protocol, source, destination)
        mappings.append((gateway.nat, mapping))
        source = mapping.outside
        net = gateway.net
        owner = net.owners.get(address)
        if owner is gateway and not gateway.nat.hairpin:
            return None
    while isinstance(owner, Gateway):
        used = owner.nat.inbound(now_s, protocol, destination[1], source)
        if used is None:
            return None
        mappings.append((owner.nat, used))
        destination = used.inside
        owner = owner.inside.owners.get(destination[0])
    return None if owner is None else Route(owner, source, destination, tuple(mappings))

"""Nat: network address translation, as a pure machine (RFC 4787, RFC 5382).

Which mapping an outbound packet gets is one question, whose packets a mapping lets in another. The
four classical kinds of RFC 3489 are the four useful combinations of answers.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from simulations.virtual.errors import ImpossibleWorld

__all__ = ["Endpoint", "Mapping", "Nat", "NatKind"]

Endpoint: TypeAlias = tuple[str, int]
"""An IP address and a port."""

PORTS: Final = range(20_000, 65_536)
"""Assigned in turn."""
IDLE_S: Final = {"udp": 120.0, "tcp": 7_440.0}
"""The minimum by RFC 4787 REQ-5 and RFC 5382 REQ-5. Many devices forget sooner."""


class NatKind(enum.Enum):
    """Who can use a mapping."""

    FULL_CONE = "full cone"
    """Anybody, once it exists."""
    ADDRESS_RESTRICTED = "address-restricted"
    """Addresses that were sent something through it."""
    PORT_RESTRICTED = "port-restricted"
    """Addresses and ports that were sent something through it."""
    SYMMETRIC = "symmetric"
    """Only the address and port that it was made for: each destination has its own mapping."""


@dataclass(slots=True)
class Mapping:
    """A public port that stands for an endpoint inside."""

    protocol: str
    inside: Endpoint
    outside: Endpoint
    used_s: float
    remotes: dict[Endpoint, float] = field(default_factory=dict)
    """Whom something was sent to through it, and when last: forgotten as it is, but one by one."""
    own: Endpoint | None = None
    """The single destination that it is for, with a symmetric NAT."""


class Nat:
    """The translation table of one device."""

    def __init__(
        self,
        kind: NatKind,
        address: str,
        *,
        udp_idle_s: float = IDLE_S["udp"],
        tcp_idle_s: float = IDLE_S["tcp"],
        hairpin: bool = False,
    ) -> None:
        """
        :param address: the public address.
        :param udp_idle_s: seconds without a packet after which a UDP mapping is forgotten.
        :param tcp_idle_s: the same for TCP.
        :param hairpin: whether two machines inside reach each other by their public addresses.

        Raises :class:`ImpossibleWorld`.
        """
        if kind not in set(NatKind):
            known = ", ".join(f"NatKind.{known.name}" for known in NatKind)
            raise ImpossibleWorld(f"the kind of a NAT must be one of {known}, not {kind!r}")
        self.kind: Final = kind
        self.address = address
        self.hairpin = hairpin
        self.register: Callable[[str], str] | None = None
        """Makes a new address known to the network that the device is in, if it is in one, and
        returns its canonical text. May raise."""
        self._idle_s: Final = {"udp": udp_idle_s, "tcp": tcp_idle_s}
        for protocol, idle_s in self._idle_s.items():
            if not idle_s > 0:
                raise ImpossibleWorld(f"{protocol}_idle_s must be above 0, not {idle_s!r}")
        self._turn = 0
        self._by_inside: dict[tuple[str, Endpoint, Endpoint | None], Mapping] = {}
        self._by_port: dict[tuple[str, int], Mapping] = {}
        self._forwarded: dict[tuple[str, int], Mapping] = {}
        """Mappings that never expire, on ports not assigned to anybody else."""

    def forward(self, protocol: str, port: int, inside: Endpoint) -> None:
        """Forward a public port to a machine inside, as users configure in their routers. Raises
        :class:`ImpossibleWorld`."""
        if protocol not in self._idle_s:
            raise ImpossibleWorld(f"a NAT forwards udp or tcp, not {protocol!r}")
        self._remove(self._by_port.get((protocol, port)))
        outside = (self.address, port)
        self._forwarded[protocol, port] = Mapping(protocol, inside, outside, used_s=math.inf)

    def change_address(self, address: str) -> None:
        """Give the device another public address, as a provider does: all mappings are gone."""
        self.address = address if self.register is None else self.register(address)
        self.forget()
        former = list(self._forwarded.values())
        for mapping in former:
            self.forward(mapping.protocol, mapping.outside[1], mapping.inside)

    def forget(self) -> None:
        """Forget all mappings, as a device does on restart."""
        self._by_inside.clear()
        self._by_port.clear()

    def outbound(self, now_s: float, protocol: str, inside: Endpoint, remote: Endpoint) -> Mapping:
        """The mapping through which a packet from inside leaves."""
        for forwarded in self._forwarded.values():
            if (forwarded.protocol, forwarded.inside) == (protocol, inside):
                return forwarded
        own = remote if self.kind is NatKind.SYMMETRIC else None
        mapping = self._by_inside.get((protocol, inside, own))
        if mapping is None or not self.is_live(mapping, now_s):
            mapping = self._new_mapping(now_s, protocol, inside, own)
        mapping.used_s = now_s
        mapping.remotes[remote] = now_s
        return mapping

    def inbound(self, now_s: float, protocol: str, port: int, remote: Endpoint) -> Mapping | None:
        """The mapping that lets a packet to a public port in; None if it is dropped."""
        forwarded = self._forwarded.get((protocol, port))
        if forwarded is not None:
            return forwarded
        mapping = self._by_port.get((protocol, port))
        if mapping is None or not self.is_live(mapping, now_s):
            return None
        return mapping if self._admits(mapping, remote, now_s) else None

    def is_live(self, mapping: Mapping, now_s: float) -> bool:
        """Whether a mapping is still in the table and has not been idle for too long."""
        key = (mapping.protocol, mapping.outside[1])
        if self._forwarded.get(key) is mapping:
            return True
        is_there = self._by_port.get(key) is mapping
        return is_there and now_s - mapping.used_s <= self._idle_s[mapping.protocol]

    def _admits(self, mapping: Mapping, remote: Endpoint, now_s: float) -> bool:
        since_s = now_s - self._idle_s[mapping.protocol]
        remotes = mapping.remotes
        match self.kind:
            case NatKind.FULL_CONE:
                return True
            case NatKind.ADDRESS_RESTRICTED:
                return any(it[0] == remote[0] and at_s >= since_s for it, at_s in remotes.items())
            case _:
                return remotes.get(remote, -math.inf) >= since_s

    def _new_mapping(
        self, now_s: float, protocol: str, inside: Endpoint, own: Endpoint | None
    ) -> Mapping:
        self._remove(self._by_inside.get((protocol, inside, own)))
        port = self._free_port(now_s, protocol)
        self._remove(self._by_port.get((protocol, port)))
        mapping = Mapping(protocol, inside, (self.address, port), now_s, own=own)
        self._by_inside[protocol, inside, own] = mapping
        self._by_port[protocol, port] = mapping
        return mapping

    def _remove(self, mapping: Mapping | None) -> None:
        if mapping is not None:
            del self._by_inside[mapping.protocol, mapping.inside, mapping.own]
            del self._by_port[mapping.protocol, mapping.outside[1]]

    def _free_port(self, now_s: float, protocol: str) -> int:
        in_turn = (PORTS[(self._turn + n) % len(PORTS)] for n in range(len(PORTS)))
        ports = (port for port in in_turn if (protocol, port) not in self._forwarded)
        whose_turn = next(ports)
        for port in itertools.chain((whose_turn,), ports):
            holder = self._by_port.get((protocol, port))
            if holder is None or not self.is_live(holder, now_s):
                break
        else:
            # None is free: the port whose turn it is loses its mapping, as in cheap devices.
            port = whose_turn
        self._turn = PORTS.index(port) + 1
        return port

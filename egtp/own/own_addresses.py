"""Where this node can be reached, why it believes so, and which addresses go into its record.

Pure. There are three sources: what the user configured, what is listened on (for a wildcard, the
addresses of the machine's interfaces), and what others observe. Only the last is hearsay: an
observed address is announced once somebody was asked to dial it, and came.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from egtp.reaching.address_policy import DIAL_BACK_PORT_MIN, Interface, why_not_dial
from egtp.state_table import State, StateTable
from egtp.values.comm_strat import Address, in_turns

__all__ = [
    "ANNOUNCED_MAX",
    "OBSERVED_LIFE",
    "OwnAddress",
    "OwnAddresses",
    "OwnEvent",
    "OwnState",
    "is_gone",
    "parse_interfaces",
]

ANNOUNCED_MAX: Final = 5
"""Of the eight strategies that a record holds, three are left for relays."""


class OwnState(State):
    """Why an address is believed to be this node's."""

    CONFIGURED = "configured"
    LISTENED = "listened on"
    INTERFACE = "of an interface"
    LAN = "in the local network"
    OBSERVED = "observed, not confirmed yet"
    CONFIRMED = "observed and confirmed"
    FAILED = "observed, but not reachable"


class OwnEvent(State):
    """The result of asking somebody to dial an address."""

    CAME = "somebody dialled it, and came"
    DID_NOT_COME = "somebody dialled it, and did not come"
    NOBODY_LOOKED = "nobody could be asked"


OBSERVED_LIFE: Final = StateTable(
    OwnState.OBSERVED,
    [
        (OwnState.OBSERVED, OwnEvent.CAME, OwnState.CONFIRMED),
        (OwnState.OBSERVED, OwnEvent.DID_NOT_COME, OwnState.FAILED),
        (OwnState.CONFIRMED, OwnEvent.DID_NOT_COME, OwnState.FAILED),
        (OwnState.FAILED, OwnEvent.CAME, OwnState.CONFIRMED),
    ],
)
"""The states of an address that others observe. That nobody looked says nothing about it."""


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address of this node, and what is known of it. ``str()`` shows it in one line."""

    address: Address
    state: OwnState
    announced: bool
    """Whether it is in this node's record."""
    detail: str = ""
    """How many networks have observed it, or why it was found unreachable."""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.address} {self.state.value}{detail}"


@dataclass(slots=True)
class _Candidate:
    state: OwnState = OBSERVED_LIFE.start
    reason: str = ""
    failures: int = 0
    due_s: float = float("-inf")
    """When it is due for its next check."""

    def detail(self, votes: int) -> str:
        observed = f"by {votes} network{'' if votes == 1 else 's'}"
        return f"{observed}; {self.reason}" if self.reason else observed


class OwnAddresses:
    """Invariant: an observed address is announced exactly while it is confirmed, and there is one
    candidate for each port listened on and each family that has an elected address."""

    def __init__(
        self, *, private_addresses: bool, lan_addresses: bool, recheck_s: float, retry_s: float
    ) -> None:
        """
        :param recheck_s: how long until a confirmed address is checked again.
        :param retry_s: the same for a failed one; doubles each time, up to ``recheck_s`` if that is
            longer.
        """
        self._private_addresses = private_addresses
        self._lan_addresses = lan_addresses
        self._recheck_s = recheck_s
        self._retry_s = retry_s
        self._configured: tuple[Address, ...] | None = None
        self._listening: tuple[Address, ...] = ()
        self._elected: dict[int, bytes] = {}
        self._candidates: dict[Address, _Candidate] = {}
        self.interfaces: tuple[Interface, ...] = ()

    # What is learned

    def listen(
        self, listening: Iterable[Address], configured: Iterable[Address] | None = None
    ) -> None:
        """The node listens here now; ``configured``, if given, is announced instead."""
        self._listening = tuple(listening)
        self._configured = None if configured is None else tuple(configured)
        self._list_candidates()

    def has_interfaces(self, interfaces: tuple[Interface, ...]) -> None:
        """The machine has these addresses now."""
        self.interfaces = interfaces
        self._list_candidates()

    def elected(self, ip: bytes) -> None:
        """Others now see this node at ``ip``, and at no other address of its family."""
        self._elected[len(ip)] = ip
        self._list_candidates()

    def moved(self, size: int) -> None:
        """The machine is in another network: forget what others saw, in the family of addresses of
        ``size`` bytes."""
        self._elected.pop(size, None)
        self._list_candidates()

    def doubt(self, now_s: float) -> None:
        """Something has changed: what was confirmed is due for a check now."""
        for candidate in self._candidates.values():
            if candidate.state is OwnState.CONFIRMED:
                candidate.due_s = min(candidate.due_s, now_s)

    def confirmed(self, address: Address, now_s: float) -> None:
        """Somebody dialled ``address`` and reached this node."""
        candidate = self._candidates.get(address)
        if candidate is not None:
            state = OBSERVED_LIFE.after(candidate.state, OwnEvent.CAME)
            self._candidates[address] = _Candidate(state, due_s=now_s + self._recheck_s)

    def failed(self, address: Address, reason: str, now_s: float) -> None:
        """Somebody dialled ``address`` and did not reach this node."""
        self._put_off(address, reason, now_s, OwnEvent.DID_NOT_COME)

    def nobody_looked(self, address: Address, reason: str, now_s: float) -> None:
        """Nobody could be asked to dial ``address``, which says nothing about it."""
        self._put_off(address, reason, now_s, OwnEvent.NOBODY_LOOKED)

    def _put_off(self, address: Address, reason: str, now_s: float, event: OwnEvent) -> None:
        candidate = self._candidates.get(address)
        if candidate is None:
            return
        pause_s = min(self._retry_s * 2**candidate.failures, max(self._recheck_s, self._retry_s))
        candidate.failures = min(candidate.failures + 1, 30)
        candidate.due_s = now_s + pause_s
        candidate.reason = reason
        candidate.state = OBSERVED_LIFE.after(candidate.state, event)

    # What follows from it

    @property
    def announced(self) -> tuple[Address, ...]:
        """What goes into the record, best first."""
        return tuple(own.address for own in self.explain({}) if own.announced)

    def explain(self, votes: Mapping[bytes, int]) -> tuple[OwnAddress, ...]:
        """Every address, the announced ones first. ``votes`` says how many networks observe each
        IP address."""
        if self._configured is not None:
            return tuple(
                OwnAddress(a, OwnState.CONFIGURED, announced=True) for a in self._configured
            )
        own = [
            OwnAddress(a, OwnState.LISTENED, announced=True) for a in self._listening if any(a.ip)
        ]
        interfaces = [a for a in self._of_interfaces() if a not in self._listening]
        public = in_turns(a for a in interfaces if self._is_public(a))
        own += [OwnAddress(a, OwnState.INTERFACE, announced=True) for a in public]
        for announced in (True, False):
            own += [
                OwnAddress(address, one.state, announced, one.detail(votes.get(address.ip, 0)))
                for address, one in self._candidates.items()
                if (one.state is OwnState.CONFIRMED) == announced
            ]
            if announced and self._lan_addresses:
                near = in_turns(a for a in interfaces if a not in public)
                own += [OwnAddress(a, OwnState.LAN, announced=True) for a in near]
        return tuple(
            replace(one, announced=one.announced and number < ANNOUNCED_MAX)
            for number, one in enumerate(own)
        )

    def due(self, now_s: float) -> Address | None:
        """A candidate that is due for a check now."""
        return next((a for a, one in self._candidates.items() if one.due_s <= now_s), None)

    def next_due_s(self) -> float:
        """When the next candidate is due for a check; infinite if there is none."""
        return min((one.due_s for one in self._candidates.values()), default=float("inf"))

    def _of_interfaces(self) -> list[Address]:
        """Where a node that listens on a wildcard accepts connections, except addresses that could
        never be dialled from another machine."""
        return [
            Address(interface.ip.packed, wildcard.port)
            for wildcard in self._listening
            if not any(wildcard.ip)
            for interface in self.interfaces
            if len(interface.ip.packed) == len(wildcard.ip)
            and not interface.ip.is_loopback
            and why_not_dial(Address(interface.ip.packed, 1), private_addresses=True) is None
        ]

    def _list_candidates(self) -> None:
        """Make the list anew; a candidate that stays keeps what is known about it."""
        before, self._candidates = self._candidates, {}
        if self._configured is not None:
            return
        sure = set(self._of_interfaces()) | set(self._listening)
        for listened in self._listening:
            ip = self._elected.get(len(listened.ip))
            if ip is None or (any(listened.ip) and self._is_public(listened)):
                continue
            address = Address(ip, listened.port)
            if address not in sure and not self._is_temporary(ip):
                self._candidates[address] = before.get(address, _Candidate())
        for address, candidate in self._candidates.items():
            if address.port < DIAL_BACK_PORT_MIN:
                candidate.reason = f"a port below {DIAL_BACK_PORT_MIN} is not dialled back"
                candidate.due_s = float("inf")

    def _is_temporary(self, ip: bytes) -> bool:
        """Whether this is an IPv6 address in the network of an interface that shows another: the
        machine makes up a new one every day to dial from (RFC 8981), and nobody needs to know it.
        """
        there = ipaddress.ip_address(ip)
        return there.version == 6 and _is_in_network_of(there, self.interfaces)

    def _is_public(self, address: Address) -> bool:
        return why_not_dial(address, private_addresses=self._private_addresses) is None


def is_gone(host: str, before: Sequence[Interface], now: Sequence[Interface]) -> bool:
    """Whether a machine that had the addresses ``before`` and has those of ``now`` has lost the one
    that it used as ``host``. An IPv6 address is also lost with its network: the machine dials from
    addresses that it makes up there, and shows none of them (RFC 8981)."""
    there = ipaddress.ip_address(host.partition("%")[0])
    if any(there == one.ip for one in before):
        return not any(there == one.ip for one in now)
    had_network, has_network = (_is_in_network_of(there, those) for those in (before, now))
    return there.version == 6 and had_network and not has_network


def _is_in_network_of(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, interfaces: Iterable[Interface]
) -> bool:
    return any(ip in one.network for one in interfaces)


def parse_interfaces(texts: Sequence[str]) -> tuple[Interface, ...]:
    """Read addresses such as ``192.168.1.7/24``. Without a prefix length, /24 is assumed, or /64
    for IPv6, as in nearly every local network. Raises :class:`ValueError`."""
    return tuple(map(_parse_interface, texts))


@lru_cache(256)
def _parse_interface(text: str) -> Interface:
    # Cached, since a node asks for the same few addresses all the time.
    ip, _, length = text.partition("/")
    ip = ip.partition("%")[0]
    return ipaddress.ip_interface(f"{ip}/{length or (64 if ':' in ip else 24)}")

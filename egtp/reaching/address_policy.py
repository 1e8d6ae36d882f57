"""Which addresses this node is willing to dial at somebody else's word.

Without this policy, anybody who publishes a record or names an address could make the node connect
to services on its own machine, or into its private network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

from egtp.values.attempts import AttemptReason
from egtp.values.comm_strat import Address

__all__ = ["DIAL_BACK_PORT_MIN", "Interface", "why_not_dial"]

DIAL_BACK_PORT_MIN: Final = 1024
"""Lower ports are never dialled back: other kinds of services listen there."""

Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
"""An address of this machine, and the local network that it is in."""

_IN_USE: Final = ipaddress.IPv6Network("2000::/3")
_EVERYBODY: Final = ipaddress.IPv4Address("255.255.255.255")
_TRANSLATED: Final = ipaddress.IPv4Network("192.0.0.0/29")
"""The same few addresses on every machine whose network is IPv6 only and translates IPv4 (464XLAT,
DS-Lite; RFC 7335): whoever dials the one of another machine dials itself."""


def why_not_dial(
    address: Address, *, private_addresses: bool, interfaces: Iterable[Interface] = ()
) -> AttemptReason | None:
    """The reason not to dial ``address``, or None if it may be dialled.

    ``private_addresses`` lifts the ban on loopback and private ranges, for tests and labs. Even
    without it, a private address in the local network of one of ``interfaces`` may be dialled: two
    peers behind one NAT often have no other way to reach each other. Unspecified, multicast,
    link-local and broadcast addresses are never dialled, nor those that each machine has behind a
    translator.
    """
    ip = _innermost(ipaddress.ip_address(address.ip))
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return AttemptReason.NEVER_DIALLED
    if ip == _EVERYBODY or ip in _TRANSLATED:
        return AttemptReason.NEVER_DIALLED
    if not (private_addresses or _is_public(ip) or _is_near(address, interfaces)):
        return AttemptReason.PRIVATE_ADDRESS
    return None


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # ``is_global`` also accepts unallocated IPv6, and IPv4 embedded in an obsolete form.
    in_use = ip.version == 4 or ip in _IN_USE
    return ip.is_global and in_use


def _is_near(address: Address, interfaces: Iterable[Interface]) -> bool:
    # Compared in the form that would be dialled: IPv4 embedded in IPv6 is in no network of ours.
    ip = ipaddress.ip_address(address.ip)
    return not ip.is_loopback and any(
        ip in interface.network for interface in interfaces if not interface.ip.is_loopback
    )


def _innermost(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address inside a v4-mapped, 6to4 or NAT64 form, or the address itself."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip.sixtofour is not None:
            return ip.sixtofour
        if ip in ipaddress.IPv6Network("64:ff9b::/96"):
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip

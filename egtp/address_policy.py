"""Which addresses of strangers a node is willing to dial.

Whoever publishes a record, or tells an address, could otherwise make this node connect to the
machine's own services, or into its private network.
"""

from __future__ import annotations

import ipaddress

from egtp.comm_strat import Address

__all__ = ["why_not_dial"]


def why_not_dial(address: Address, *, private_addresses: bool) -> str | None:
    """The reason not to dial ``address``, or None if it may be dialled.

    ``private_addresses`` lifts the ban on loopback and private ranges, for tests and labs.
    Multicast, unspecified and link-local addresses are never dialled.
    """
    ip = _innermost(ipaddress.ip_address(address.ip))
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return "an address that cannot be dialled"
    if isinstance(ip, ipaddress.IPv4Address) and ip == ipaddress.IPv4Address("255.255.255.255"):
        return "an address that cannot be dialled"
    if not private_addresses and not _is_public(ip):
        return "a private address (set private_addresses to allow it)"
    return None


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # IPv6 that is nobody's, or holds an IPv4 address in a form of long ago, passes for global.
    in_use = ip.version == 4 or ip in ipaddress.IPv6Network("2000::/3")
    return ip.is_global and in_use


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

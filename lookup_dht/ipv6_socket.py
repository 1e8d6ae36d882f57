"""A UDP socket for IPv6 alone, so that a node on ``[::]`` leaves ``0.0.0.0`` to another.

On Linux and macOS a socket bound to ``::`` takes the IPv4 port too, unless IPV6_V6ONLY is set
before it is bound, and event loops do not set it. To this DHT, IPv4 and IPv6 are two networks with
a node each, and both nodes may listen on all addresses.
"""

from __future__ import annotations

import contextlib
import socket

from egtp.environment import PREFER_PUBLIC

__all__ = ["ipv6_only_socket", "send_from_lasting_address"]


def ipv6_only_socket(host: str, port: int) -> socket.socket:
    """A bound, non-blocking socket. Raises OSError."""
    opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setblocking(False)
        opened.bind((host, port))
    except BaseException:
        opened.close()
        raise
    return opened


def send_from_lasting_address(opened: socket.socket) -> None:
    """Have a socket on ``::`` send from the address that the machine keeps, not from one of the
    temporary ones that it may have besides (RFC 8981). Others ask a server at the former, and what
    answers from elsewhere is nobody to them."""
    with contextlib.suppress(OSError):
        opened.setsockopt(*PREFER_PUBLIC)

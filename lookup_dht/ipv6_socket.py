"""A UDP socket that takes IPv6 and nothing else, so that ``[::]`` leaves ``0.0.0.0`` to others.

Linux and macOS let a socket on ``::`` take the port of IPv4 too, unless it says otherwise before it
is bound; event loops bind it and do not ask. IPv4 and IPv6 are two networks to this DHT, with a
node each, and both are to listen everywhere.
"""

from __future__ import annotations

import socket

__all__ = ["ipv6_only_socket"]


def ipv6_only_socket(host: str, port: int) -> socket.socket:
    """Bound, and ready for an event loop. Raises OSError."""
    opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setblocking(False)
        opened.bind((host, port))
    except BaseException:
        opened.close()
        raise
    return opened

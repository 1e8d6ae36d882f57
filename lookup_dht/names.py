"""What the system says that a host name stands for."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from egtp.values.comm_strat import Address
from lookup_dht.settings import NameResolver
from lookup_dht.wire.contact import SocketAddress

__all__ = ["system_names"]


def system_names(listen: Address) -> NameResolver:
    """The addresses of names, of the family of the one listened on. Raises :class:`OSError` for a
    name that stands for none."""
    return partial(_resolve, socket.AF_INET if len(listen.ip) == 4 else socket.AF_INET6)


async def _resolve(family: socket.AddressFamily, name: str, port: int) -> list[SocketAddress]:
    found = await asyncio.get_running_loop().getaddrinfo(
        name, port, family=family, type=socket.SOCK_DGRAM
    )
    return [(str(address[0]), port) for *_, address in found]

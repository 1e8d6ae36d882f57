"""Host names, resolved by the system."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from egtp.errors import in_words
from egtp.values.comm_strat import Address
from lookup_dht.settings import NameResolver
from lookup_dht.wire.contact import SocketAddress

__all__ = ["system_names"]


def system_names(
    listen: Address,
    complain: Callable[[str], None] | None = None,
    getaddrinfo: Callable[..., Awaitable[list[Any]]] | None = None,
) -> NameResolver:
    """A resolver that asks the system for the addresses of a host name.

    :param listen: the address that the DHT node listens on; only addresses of its family (IPv4 or
        IPv6) are returned.
    :param complain: called with one line when a name does not resolve, and not again for that name
        until it has resolved.
    :param getaddrinfo: asks the system; by default the running loop's method of this name.

    The resolver raises :class:`OSError` for such a name.
    """
    family = socket.AF_INET if len(listen.ip) == 4 else socket.AF_INET6
    unknown: set[str] = set()

    async def resolve(name: str, port: int) -> list[SocketAddress]:
        try:
            found = await _resolve(family, name, port, getaddrinfo)
        except OSError as error:
            if complain is not None and name not in unknown:
                version = 4 if family == socket.AF_INET else 6
                complain(f"{name} does not resolve to an IPv{version} address: {in_words(error)}")
            unknown.add(name)
            raise
        unknown.discard(name)
        return found

    return resolve


async def _resolve(
    family: socket.AddressFamily,
    name: str,
    port: int,
    getaddrinfo: Callable[..., Awaitable[list[Any]]] | None,
) -> list[SocketAddress]:
    ask = getaddrinfo or asyncio.get_running_loop().getaddrinfo
    try:
        found = await ask(name, port, family=family, type=socket.SOCK_DGRAM)
    except UnicodeError:
        raise OSError("it is not a host name") from None
    # A hosts file that maps localhost to 127.0.0.1 and ::1 yields the former twice.
    return list(dict.fromkeys((str(address[0]), port) for *_, address in found))

"""Listening: the addresses on which a node accepts connections."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable

from egtp.errors import InvalidConfig, NodeClosed, in_words
from egtp.values.comm_strat import Address

__all__ = ["Listeners"]


class Listeners:
    """The listening sockets of a node; ``accept`` makes a protocol for each new connection."""

    def __init__(self, accept: Callable[[], asyncio.Protocol]) -> None:
        self._accept = accept
        self._servers: dict[Address, asyncio.Server] = {}
        self._closed = False

    async def listen(self, addresses: Iterable[Address]) -> list[Address]:
        """Listen on these addresses and no others; open connections stay open.

        Port 0 picks a free one. Returns the addresses that it actually listens on. Raises
        :class:`InvalidConfig` naming an address that cannot be used, and then listens as before;
        and :class:`NodeClosed` if it was closed meanwhile.
        """
        kept: dict[Address, asyncio.Server] = {}
        new: dict[Address, asyncio.Server] = {}
        loop = asyncio.get_running_loop()
        try:
            for address in dict.fromkeys(addresses):
                present = self._requested_as(address)
                if present is not None:
                    kept[present] = self._servers[present]
                    continue
                try:
                    # asyncio forgets a server that is cancelled as it begins to serve, and leaves
                    # it open: so that is done in a second step.
                    new[address] = server = await loop.create_server(
                        self._accept, address.host, address.port, start_serving=False
                    )
                    if not server.sockets:
                        raise OSError  # Loops silently skip an address that they get no socket for.
                    await server.start_serving()
                except OSError as error:
                    number = error.errno or _why_no_socket(address)
                    why = OSError(number, os.strerror(number))  # By its errno, a caller may retry.
                    raise InvalidConfig(f"cannot listen on {address}: {in_words(why)}") from why
                if self._closed:
                    raise NodeClosed
        except BaseException:
            for server in new.values():
                server.close()
            raise
        for address in self._servers.keys() - kept.keys():
            self._servers[address].close()
        self._servers = kept | new
        return self.addresses

    @property
    def addresses(self) -> list[Address]:
        """Where this node listens now."""
        return [address for server in self._servers.values() for address in _bound(server)]

    def close(self) -> None:
        self._closed = True
        for server in self._servers.values():
            server.close()
        self._servers = {}

    def _requested_as(self, address: Address) -> Address | None:
        """The address as it was once requested, perhaps with port 0; None if it is not listened
        on."""
        for requested, server in self._servers.items():
            if address == requested or address in _bound(server):
                return requested
        return None


def _bound(server: asyncio.Server) -> list[Address]:
    return [Address.of(*sock.getsockname()[:2]) for sock in server.sockets]


def _why_no_socket(address: Address) -> int:
    """The error number, where the loop did not report one."""
    try:
        with socket.socket(socket.AF_INET if len(address.ip) == 4 else socket.AF_INET6) as tried:
            tried.bind((address.host, 0))
    except OSError as error:
        return error.errno or errno.EAGAIN
    return errno.EAGAIN

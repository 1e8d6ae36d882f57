"""Listener and Server: accepting connections."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from simulations.virtual.errors import NotSimulated
from simulations.virtual.nat import Endpoint
from simulations.virtual.routing import as_seen

if TYPE_CHECKING:
    from simulations.virtual.host import Host

__all__ = ["Listener", "Server"]


class Listener:
    """One listening socket. It accepts connections in the context that it was opened in."""

    def __init__(self, host: Host, endpoint: Endpoint, factory: Callable[[], Any]) -> None:
        self.host: Final = host
        self.endpoint: Final = endpoint
        self.factory: Final = factory
        self.context: Final = contextvars.copy_context()
        self.takes_connections = True
        """False for a socket that is bound but not listening yet, which refuses connections."""
        host.listeners[endpoint] = self

    @property
    def is_open(self) -> bool:
        return self.host.listeners.get(self.endpoint) is self

    def getsockname(self) -> tuple[Any, ...]:
        return as_seen(self.endpoint)

    def close(self) -> None:
        if self.is_open:
            del self.host.listeners[self.endpoint]


class Server(asyncio.AbstractServer):
    """The result of ``create_server``."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listeners: list[Listener], *, serving: bool
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._serve(serving)
        self._closed: asyncio.Future[None] = loop.create_future()

    @property
    def sockets(self) -> tuple[Any, ...]:
        return () if self._closed.done() else tuple(self._listeners)

    def is_serving(self) -> bool:
        return not self._closed.done() and all(one.takes_connections for one in self._listeners)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        if not self._closed.done():
            self._closed.set_result(None)

    # Of servers from Python 3.13 on, but not of uvloop's.

    def close_clients(self) -> NoReturn:
        raise NotSimulated("Server.close_clients is not simulated: close the transports")

    def abort_clients(self) -> NoReturn:
        raise NotSimulated("Server.abort_clients is not simulated: abort the transports")

    async def start_serving(self) -> None:
        self._serve(True)

    def _serve(self, serving: bool) -> None:
        for listener in self._listeners:
            listener.takes_connections = serving

    async def serve_forever(self) -> None:
        self._serve(True)
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

"""TCPCommsHandler: all TCP connections of a node (seed III.B, R18).

Listens, opens, keeps and closes connections. It is called on the event loop now and then to clean
up: connections that prove nobody in time, and those that nobody has used for long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from egtp.comm_strat import Address, TCPStrat
from egtp.config import NodeConfig
from egtp.errors import InvalidConfig, NotSent
from egtp.events import Dialling, Observer
from egtp.tcp.connection import TCPConnection

__all__ = ["CommsOwner", "TCPCommsHandler"]


CLOSE_TIMEOUT_S: Final = 0.5
"""How long closing waits for the other sides to take what was written."""


class CommsOwner(Protocol):
    """What the handler asks and tells."""

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        """A packet came."""

    def writable(self, connection: TCPConnection) -> None:
        """A connection takes data again."""

    def closed(self, connection: TCPConnection, reason: str) -> None:
        """A connection has ended; called once for each."""

    def why_keep(self, connection: TCPConnection) -> str | None:
        """Why a connection must stay though nothing went over it lately; None if it need not."""

    def confirmed_on(self, connection: TCPConnection) -> float | None:
        """When the peer on the connection was last heard or talked to (elapsed seconds); None if
        no peer has proven itself on it."""


class TCPCommsHandler:
    """Owns the listening sockets and every :class:`TCPConnection`."""

    def __init__(
        self,
        owner: CommsOwner,
        config: NodeConfig,
        elapsed: Callable[[], float],
        counters: Counter[str],
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._owner = owner
        self._config = config
        self._elapsed = elapsed
        self._counters = counters
        self._servers: dict[Address, asyncio.Server] = {}
        self._unproven: set[int] = set()
        self._connections: dict[int, TCPConnection] = {}
        self._openings: dict[int, asyncio.Task[None]] = {}
        self._closing_until_s: dict[int, float] = {}
        """In order: all are given the same time."""
        self._next_number = 1
        self._closing = False
        self._all_gone = asyncio.Event()
        self.dial_from: str | None = None
        """The local IP address to dial from; None lets the system choose."""

    # Listening

    async def listen(self, addresses: Iterable[Address]) -> list[Address]:
        """Listen on these addresses and no others; connections that are open stay open.

        Port 0 takes a free one. Returns where it really listens. Raises :class:`InvalidConfig`
        naming the address that cannot be used, and then listens as before.
        """
        kept: dict[Address, asyncio.Server] = {}
        new: dict[Address, asyncio.Server] = {}
        loop = asyncio.get_running_loop()
        try:
            for address in addresses:
                present = self._requested_as(address)
                if present is not None:
                    kept[present] = self._servers[present]
                    continue
                try:
                    new[address] = await loop.create_server(
                        self._accept, address.host, address.port
                    )
                except OSError as error:
                    raise InvalidConfig(f"cannot listen on {address}: {_words(error)}") from None
        except BaseException:
            for server in new.values():
                server.close()
            raise
        for address in self._servers.keys() - kept.keys():
            self._servers[address].close()
        self._servers = kept | new
        return self.listening

    @property
    def listening(self) -> list[Address]:
        """Where this node listens now."""
        servers = self._servers.values()
        names = [sock.getsockname() for server in servers for sock in server.sockets]
        return [Address.of(*name[:2]) for name in names]

    def _requested_as(self, address: Address) -> Address | None:
        """How an address that is listened on was asked for: with port 0, perhaps."""
        for requested, server in self._servers.items():
            bound = [Address.of(*sock.getsockname()[:2]) for sock in server.sockets]
            if address == requested or address in bound:
                return requested
        return None

    def _accept(self) -> TCPConnection:
        return self._new_connection(None)

    # Connections

    def connection(self, number: int) -> TCPConnection | None:
        return self._connections.get(number)

    def __len__(self) -> int:
        return len(self._connections)

    def all(self) -> list[TCPConnection]:
        return list(self._connections.values())

    def open(self, strategy: TCPStrat) -> TCPConnection:
        """The connection that ``strategy`` means; a new one, still opening, for an address.

        Raises :class:`NotSent` if it is gone, or if there are too many.
        """
        if strategy.connection is not None:
            connection = self._connections.get(strategy.connection)
            if connection is None:
                raise NotSent("the connection is closed")
            return connection
        if len(self._connections) >= self._config.connections_max or self._closing:
            raise NotSent("too many connections (connections_max)")
        if self._observer is not None:
            self._observer(Dialling(strategy.address))
        connection = self._new_connection(strategy.address)
        task = asyncio.get_running_loop().create_task(self._open(connection, strategy.address))
        self._openings[connection.number] = task
        return connection

    async def _open(self, connection: TCPConnection, address: Address) -> None:
        timeout_s = self._config.dial_timeout_s
        local = None if self.dial_from is None else (self.dial_from, 0)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, address.host, address.port, local_addr=local
                )
        except TimeoutError:
            connection.fail(f"no answer within {timeout_s:g} s")
        except OSError as error:
            # asyncio words a failed bind or connect in a sentence of its own; keep the cause.
            cause = ConnectionRefusedError if error.errno == 111 else None
            connection.fail("connection refused" if cause else _words(error))
        finally:
            del self._openings[connection.number]

    def _new_connection(self, dialled: Address | None) -> TCPConnection:
        number = self._next_number
        self._next_number += 1
        connection = TCPConnection(
            number,
            self,
            dialled=dialled,
            held_bytes_max=self._config.connection_buffer_bytes_max,
            started_s=self._elapsed(),
        )
        self._connections[number] = connection
        return connection

    # What connections tell

    def opened(self, connection: TCPConnection) -> None:
        if connection.dialled is not None:
            return
        if len(self._connections) > self._config.connections_max:
            self._counters["connection refused: too many"] += 1
            connection.abort("too many connections")
        elif len(self._unproven) >= self._config.half_open_max:
            self._counters["connection refused: too many unproven"] += 1
            connection.abort("too many connections that prove nobody")
        else:
            self._unproven.add(connection.number)

    def proven(self, connection: TCPConnection) -> None:
        """A peer has proven itself on the connection."""
        self._unproven.discard(connection.number)
        connection.lift_limit()

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        self._owner.received(connection, packet)

    def writable(self, connection: TCPConnection) -> None:
        self._owner.writable(connection)

    def garbage(self, connection: TCPConnection, reason: str) -> None:  # noqa: ARG002
        self._counters[f"dropped: {reason}"] += 1

    def closing(self, connection: TCPConnection) -> None:
        self._closing_until_s[connection.number] = self._elapsed() + self._config.close_timeout_s

    def closed(self, connection: TCPConnection, reason: str) -> None:
        self._closing_until_s.pop(connection.number, None)
        if self._connections.pop(connection.number, None) is None:
            return
        if not self._connections:
            self._all_gone.set()
        self._unproven.discard(connection.number)
        opening = self._openings.get(connection.number)
        if opening is not None:
            opening.cancel()
        self._owner.closed(connection, reason)

    # Cleaning up

    def clean_up(self) -> None:
        """Close what has proven nobody in time, and what has been idle for too long."""
        now = self._elapsed()
        for number, until_s in list(self._closing_until_s.items()):
            if until_s > now:
                break
            self._counters["connection closed: what it held did not leave in time"] += 1
            self._connections[number].abort("not closed in time")
        for connection in list(self._connections.values()):
            used_s = self._owner.confirmed_on(connection)
            if used_s is None:
                if connection.is_open and now - connection.started_s > self._config.prove_timeout_s:
                    self._counters["connection closed: proved nobody in time"] += 1
                    connection.abort("no proof in time")
            elif (
                now - used_s > self._config.idle_timeout_s
                and self._owner.why_keep(connection) is None
            ):
                connection.drain("idle")

    def drop_all(self, reason: str) -> None:
        """Close every connection at once."""
        for connection in list(self._connections.values()):
            connection.abort(reason)

    async def close(self) -> None:
        """Stop listening, let what is written leave, and close; return when nothing is left."""
        self._closing = True
        for server in self._servers.values():
            server.close()
        self._servers = {}
        for connection in self.all():
            connection.close("this node is closed")
        if self._connections:
            self._all_gone.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._all_gone.wait()
        self.drop_all("this node is closed")
        openings = list(self._openings.values())
        for task in openings:
            task.cancel()
        await asyncio.gather(*openings, return_exceptions=True)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

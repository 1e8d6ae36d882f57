"""DatagramTransport: UDP as a program sees it through asyncio."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Final

from simulations.virtual.link import DATAGRAM_BYTES_MAX
from simulations.virtual.nat import Endpoint
from simulations.virtual.routing import WILDCARDS, Route, as_seen, route

if TYPE_CHECKING:
    from simulations.virtual.host import Host
    from simulations.virtual.network import Network

__all__ = ["DatagramTransport"]


class DatagramTransport(asyncio.DatagramTransport):
    """One bound socket. As on the Internet, its program does not learn of lost datagrams."""

    def __init__(
        self,
        network: Network,
        host: Host,
        local: Endpoint,
        remote: Endpoint | None,
        protocol: Any,
    ) -> None:
        peername = None if remote is None else as_seen(remote)
        super().__init__({"sockname": as_seen(local), "peername": peername})
        self._extra["socket"] = self  # type: ignore[attr-defined]
        self._network = network
        self._loop = network.loop
        self.host: Final = host
        self._local: Final = local
        self._remote: Final = remote
        self._protocol = protocol
        self._context = contextvars.copy_context()
        self._closing = False
        host.datagrams[local] = self

    # For protocols

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Always 0: every datagram goes out at once."""
        return 0

    def getsockname(self) -> tuple[Any, ...]:
        return as_seen(self._local)

    def setsockopt(self, *_: Any) -> None:
        """Ignored: there are no options."""

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is bytes-like, not {type(data).__name__}")
        if self._remote is not None and addr is not None and tuple(addr[:2]) != self._remote:
            raise ValueError(f"Invalid address: must be None or {self._remote}")
        target = self._remote if addr is None else addr if len(addr) == 2 else addr[:2]
        if target is None:
            raise ValueError("an unconnected socket needs an address to send to")
        if self._closing:
            return
        if len(data) > DATAGRAM_BYTES_MAX:
            self._protocol.error_received(OSError(90, "Message too long"))
            return
        tap = self._network.tap
        if tap is None or not tap.takes_datagram(self, bytes(data), target):
            self.put_on_line(bytes(data), target)

    def close(self) -> None:
        if not self._closing:
            self.vanish()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    # For the network

    def vanish(self) -> None:
        """Stop sending and receiving: the machine lost power, or the program closed the socket."""
        self._closing = True
        if self.host.datagrams.get(self._local) is self:
            del self.host.datagrams[self._local]

    def put_on_line(self, data: bytes, target: Endpoint) -> None:
        """Put a datagram on the line."""
        host, loop, network = self.host, self._loop, self._network
        source = self._local
        if source[0] in WILDCARDS:
            try:
                source = (host.address(target[0]), source[1])
            except OSError as error:
                self._protocol.error_received(error)
                return
        elif not host.owns(source[0]):
            self._protocol.error_received(OSError(22, "Invalid argument"))
            return
        network.trace.packet(loop.now, "udp", source, target, data)
        way = route(loop.now, "udp", host, source, target)
        host.flows.sent(loop.now, source[1], target)
        if way is None or not network.lines.is_open(host.name, way.target.name):
            return
        for at_s in network.lines.datagrams(host.name, way.target.name, len(data), loop.now):
            loop.happen(at_s, self._arrive, way, data)

    def _arrive(self, way: Route, data: bytes) -> None:
        host = way.target
        ip, port = way.destination
        if not host.is_up or host.is_asleep or not host.owns(ip):
            return
        if host.inbound is not None and self._is_stranger(way):
            if host.inbound == "refuse":
                self._refused(way)
            return
        socket = host.datagram_socket(ip, port)
        if socket is None:
            self._refused(way)
        elif socket._remote is None or socket._remote == way.source:
            socket._context.run(socket._received, data, way.source)

    def _is_stranger(self, way: Route) -> bool:
        """Whether the receiving machine's firewall takes this datagram for a stranger's."""
        host, port = way.target, way.destination[1]
        return host is not self.host and not host.flows.admits(self._loop.now, port, way.source)

    def _received(self, data: bytes, source: Endpoint) -> None:
        try:
            self._protocol.datagram_received(data, as_seen(source))
        except Exception as error:
            self._loop.call_exception_handler(
                {
                    "message": "Fatal error: a protocol's callback failed.",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )

    def _refused(self, way: Route) -> None:
        """Nobody listens there, and the other machine says so; only connected sockets see it."""
        if self._remote is None:
            return
        at_s = self._network.lines.segment(way.target.name, self.host.name, 0, self._loop.now)
        self._loop.happen(at_s, self._told_refused)

    def _told_refused(self) -> None:
        if not self._closing and self.host.is_up and not self.host.is_asleep:
            error = ConnectionRefusedError(111, "Connection refused")
            self._context.run(self._protocol.error_received, error)

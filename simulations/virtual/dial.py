"""Dial: the TCP handshake, SYN, SYN-ACK and ACK."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from simulations.virtual.nat import Endpoint
from simulations.virtual.routing import Route, route
from simulations.virtual.server import Listener
from simulations.virtual.stream import StreamTransport, connect_pair

if TYPE_CHECKING:
    from simulations.virtual.host import Host
    from simulations.virtual.network import Network

__all__ = ["Dial"]

SYN_RETRY_S: Final = 1.0
SYN_TRIES: Final = 7
"""Linux sends seven SYNs and doubles the wait each time: 127 seconds in all."""


class Dial:
    """One attempt to connect; ``done`` yields the connection, or the error."""

    def __init__(self, network: Network, host: Host, local: Endpoint, remote: Endpoint) -> None:
        self._network = network
        self._loop = network.loop
        self._host = host
        self._local = local
        self._remote = remote
        self._process = host.process
        self.done: asyncio.Future[StreamTransport] = network.loop.create_future()
        self._tries = 0
        self._ask_in(0.0)

    def give_up(self) -> None:
        if self.done.done() and not self.done.cancelled() and self.done.exception() is None:
            self.done.result().abort()
        self.done.cancel()

    def _ask_in(self, seconds: float) -> None:
        """By the dialling machine's clock: while it sleeps, its dial does not time out."""
        self._loop.call_later(seconds, self._ask, context=self._process.context)

    def _ask(self) -> None:
        if self.done.done():
            return
        self._tries += 1
        if self._tries > SYN_TRIES:
            self._fail(TimeoutError(110, "Connection timed out"))
            return
        loop, lines, host = self._loop, self._network.lines, self._host
        self._network.trace.packet(loop.now, "syn", self._local, self._remote)
        self._ask_in(SYN_RETRY_S * 2 ** (self._tries - 1))
        if not host.owns(self._local[0]):
            return
        way = route(loop.now, "tcp", host, self._local, self._remote)
        if way is not None and lines.is_open(host.name, way.target.name):
            at_s = lines.handshake(host.name, way.target.name, loop.now)
            if at_s is not None:
                loop.happen(at_s, self._asked, way)

    def _asked(self, way: Route) -> None:
        """At the target: the SYN arrives."""
        target = way.target
        if self.done.done() or not target.is_up or target.is_asleep:
            return
        inbound = None if target is self._host else target.inbound
        if not target.owns(way.destination[0]) or inbound == "drop":
            return
        listener = None if inbound else target.listener(*way.destination)
        if listener is not None and not listener.takes_connections:
            listener = None
        lines = self._network.lines
        if not lines.is_open(target.name, self._host.name):
            return
        at_s = lines.handshake(target.name, self._host.name, self._loop.now)
        if at_s is None:
            return
        if listener is None:
            error = ConnectionRefusedError(111, f"Connect call failed {self._remote}")
            self._loop.happen(at_s, self._fail, error)
        else:
            self._loop.happen(at_s, self._answered, way, listener)

    def _answered(self, way: Route, listener: Listener) -> None:
        """Back at the dialling machine: for it, the connection is established."""
        if self.done.done() or not self._process.runs or not self._host.owns(self._local[0]):
            return
        back = Route(self._host, way.destination, self._local, way.mappings)
        pair = connect_pair(self._network, way, back, self._host, self._local, self._remote)
        self._network.trace.packet(self._loop.now, "open", self._local, self._remote)
        self.done.set_result(pair[0])
        lines = self._network.lines
        at_s = lines.segment(self._host.name, way.target.name, 0, self._loop.now)
        pair[0].outflow.not_before(at_s)
        self._loop.happen(at_s, self._accept, pair[1], listener)

    def _accept(self, stream: StreamTransport, listener: Listener) -> None:
        """At the target: the final ACK arrives."""
        if not stream.host.is_up:
            stream.vanish()
        elif not listener.is_open:
            stream.refuse()
        elif stream.host.is_asleep:
            self._loop.call_soon(self._accepted, stream, listener, context=listener.context.copy())
        else:
            listener.context.copy().run(self._accepted, stream, listener)

    def _accepted(self, stream: StreamTransport, listener: Listener) -> None:
        try:
            protocol = listener.factory()
        except Exception as error:
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                }
            )
            stream.refuse()
            return
        stream.begin(protocol, None)

    def _fail(self, error: OSError) -> None:
        if not self.done.done() and self._process.runs:
            self.done.set_exception(error)

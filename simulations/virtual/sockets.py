"""Sockets: how an event loop connects, listens, and opens datagram sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.dial import Dial
from simulations.virtual.errors import NotSimulated
from simulations.virtual.nat import Endpoint
from simulations.virtual.process import Process, current_process
from simulations.virtual.routing import WILDCARDS, Gateway, wildcard_like
from simulations.virtual.server import Listener, Server
from simulations.virtual.stream import StreamTransport

if TYPE_CHECKING:
    from simulations.virtual.host import Host
    from simulations.virtual.network import Network

__all__ = ["Sockets"]


class Sockets:
    """The three calls of an event loop that open sockets, and name resolution."""

    def __init__(self, network: Network) -> None:
        self._network = network

    # Called by the event loop

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        local_addr: Any = None,
        family: int = 0,
        **options: Any,
    ) -> tuple[StreamTransport, Any]:
        _check(options)
        stream = await self._connect(self._endpoint(host, port, family=family), local_addr)
        loop = self._network.loop
        waiter = loop.create_future()
        try:
            protocol = protocol_factory()
            stream.begin(protocol, waiter)
            await waiter
        except BaseException:
            stream.abort()
            raise
        return stream, protocol

    async def create_server(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        family: int = 0,
        start_serving: bool = True,
        **options: Any,
    ) -> Server:
        _check(options)
        names: Sequence[Any] = [host] if isinstance(host, str) else host
        if not host:  # All addresses, of both families unless one is named.
            v4, v6 = WILDCARDS
            names = [v6] if family == socket.AF_INET6 else [v4] if family else [v4, v6]
        endpoints = [self._endpoint(name, port, family=family) for name in names]
        listeners: list[Listener] = []
        try:
            for ip, number in endpoints:
                machine = self._machine(ip)
                endpoint = (ip, number or machine.free_port(machine.listeners))
                _check_free(machine, endpoint, machine.listeners)
                listeners.append(Listener(machine, endpoint, protocol_factory))
        except OSError:
            for listener in listeners:
                listener.close()
            raise
        return Server(self._network.loop, listeners, serving=start_serving)

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], Any],
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        family: int = 0,
        **options: Any,
    ) -> tuple[DatagramTransport, Any]:
        _check(options)
        remote = (
            None
            if remote_addr is None
            else self._endpoint(remote_addr[0], remote_addr[1], family=family)
        )
        if local_addr is not None:
            local = self._endpoint(local_addr[0], local_addr[1], family=family)
        elif remote is not None:
            here = remote[0] if current_process() is None else wildcard_like(remote[0])
            local = (self._machine(here).address(remote[0]), 0)
        else:
            local = (wildcard_like("::" if family == socket.AF_INET6 else ""), 0)
        if remote is not None:
            _check_one_family(local, remote)
        machine = self._machine(local[0])
        if not local[1]:
            local = (local[0], machine.free_port(machine.datagrams))
        _check_free(machine, local, machine.datagrams)
        protocol = protocol_factory()
        transport = DatagramTransport(self._network, machine, local, remote, protocol)
        waiter = self._network.loop.create_future()

        def begin() -> None:
            try:
                protocol.connection_made(transport)
            finally:
                if not waiter.done():
                    waiter.set_result(None)

        self._network.loop.call_soon(begin)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    def getaddrinfo(self, host: Any, port: Any, family: int) -> list[tuple[Any, ...]]:
        """Resolve IP addresses, and the names that the network knows."""
        ip, number = self._endpoint(host, port, family=family)
        found = socket.AF_INET6 if ":" in ip else socket.AF_INET
        return [(found, socket.SOCK_STREAM, 0, "", (ip, number))]

    # Addresses

    def _machine(self, ip: str) -> Host:
        """The machine that a call applies to: the caller's; if the story itself calls, the one with
        this address. Raises :class:`OSError`."""
        process = current_process()
        if process is not None:
            _check_alive(process)
            machine = process.machine
            if ip not in WILDCARDS and not machine.owns(ip):  # type: ignore[attr-defined]
                raise OSError(99, f"Cannot assign requested address: {ip}")
            return machine  # type: ignore[return-value]
        owner = self._network.internet.owners.get(ip)
        if owner is None or isinstance(owner, Gateway):
            raise OSError(99, f"Cannot assign requested address: {ip}")
        return owner

    def _endpoint(self, host: Any, port: Any, *_: Any, family: int = 0) -> Endpoint:
        name = str(host)
        known = "127.0.0.1" if name == "localhost" else self._network.names.get(name, name)
        try:
            ip = str(ip_address(known))
        except ValueError:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
        if (family == socket.AF_INET and ":" in ip) or (family == socket.AF_INET6 and "." in ip):
            raise socket.gaierror(socket.EAI_ADDRFAMILY, "Address family not supported")
        number = int(port or 0)
        if not 0 <= number <= 65_535:
            raise OverflowError("port must be 0-65535.")
        return ip, number

    # Connecting

    async def _connect(self, remote: Endpoint, local_addr: Any) -> StreamTransport:
        process = current_process()
        if local_addr is not None:
            local = self._endpoint(*local_addr)
            _check_one_family(local, remote)
            machine = self._machine(local[0])
        elif process is not None:
            _check_alive(process)
            machine = process.machine  # type: ignore[assignment]
            local = (machine.address(remote[0]), 0)
        else:
            raise NotSimulated(
                "which machine is to connect? Name its address with local_addr=, or call from "
                "something that runs on it: host.run(...)"
            )
        if local[0] in WILDCARDS:
            local = (machine.address(remote[0]), local[1])
        if not local[1]:
            local = (local[0], machine.port_to_connect_from())
        else:
            _check_free(machine, local, machine.listeners)
            if any(
                (stream.local, stream.peername) == (local, remote)
                for stream in machine.streams.values()
            ):
                raise OSError(99, f"Cannot assign requested address: {local[0]}:{local[1]}")
        dial = Dial(self._network, machine, local, remote)
        try:
            return await dial.done
        except asyncio.CancelledError:
            dial.give_up()
            raise


def _check_alive(process: Process) -> None:
    if not process.alive:
        # Python still runs every ``finally`` of a dead program; it may open nothing more.
        raise OSError(100, "Network is down")


def _check(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if name in {"ssl", "sock", "server_hostname"} and value:
            raise NotSimulated(f"{name} is not simulated")


def _check_one_family(local: Endpoint, remote: Endpoint) -> None:
    if (":" in local[0]) != (":" in remote[0]):
        raise OSError(22, "Invalid argument: addresses of different families")


def _check_free(machine: Host, local: Endpoint, taken: dict[Endpoint, Any]) -> None:
    ip, port = local
    for other, number in taken:
        same_family = (":" in other) == (":" in ip)
        if port == number and (
            other == ip or (same_family and (other in WILDCARDS or ip in WILDCARDS))
        ):
            raise OSError(98, f"Address already in use: {ip}:{port} on {machine.name}")

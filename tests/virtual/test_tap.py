"""Somebody on the lines reads, holds, changes and repeats what passes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from simulations.virtual import Network, simulate


class Holding:
    """Takes all data, and lets it go twice when asked to."""

    def __init__(self) -> None:
        self.wrote_bytes = b""
        self.held: list[tuple[Any, Any]] = []

    def wrote(self, stream: Any, data: bytes) -> None:
        self.wrote_bytes += data

    def takes(self, stream: Any, piece: object) -> bool:
        if isinstance(piece, bytes):
            self.held.append((stream, piece))
            return True
        return False

    def takes_datagram(self, socket: Any, data: bytes, target: Any) -> bool:
        self.held.append((socket, (data, target)))
        return True


def test_what_a_tap_holds_arrives_when_it_is_put_on_the_line() -> None:
    async def story(network: Network) -> None:
        tap = network.tap = Holding()
        one, other = network.host("one", "5.0.0.1"), network.host("other", "6.0.0.1")
        received = bytearray()

        class Taking(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                received.extend(data)

        async def listen() -> None:
            await asyncio.get_running_loop().create_server(Taking, "6.0.0.1", 80)

        async def dial() -> None:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(asyncio.Protocol, "6.0.0.1", 80)
            transport.write(b"held")
            await asyncio.sleep(100)

        await other.run(listen())
        one.spawn(dial())
        await asyncio.sleep(10)
        assert (bytes(received), tap.wrote_bytes) == (b"", b"held")
        stream, piece = tap.held[0]
        for _ in range(2):
            stream.outflow.put_on_line(piece)
        await asyncio.sleep(1)
        assert bytes(received) == b"heldheld"
        stream.reset_by_the_line()
        assert (one.streams, other.streams) == ({}, {})

    simulate(story)


def test_a_tap_decides_on_datagrams_as_well() -> None:
    async def story(network: Network) -> None:
        tap = network.tap = Holding()
        one, other = network.host("one", "5.0.0.1"), network.host("other", "6.0.0.1")
        received: list[bytes] = []

        class Taking(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                received.append(data)

        async def bind(ip: str) -> Any:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(Taking, local_addr=(ip, 53))
            return transport

        await other.run(bind("6.0.0.1"))
        transport = await one.run(bind("5.0.0.1"))
        transport.sendto(b"held", ("6.0.0.1", 53))
        await asyncio.sleep(1)
        assert received == []
        socket, (data, target) = tap.held[0]
        assert (socket.host, target) == (one, ("6.0.0.1", 53))
        socket.put_on_line(data, target)
        await asyncio.sleep(1)
        assert received == [b"held"]

    simulate(story)


def test_what_a_dying_program_still_asks_for_does_not_happen() -> None:
    """A future that is cancelled with its task may ask the loop for something: of the dead, too."""
    happened: list[str] = []

    class Telling(asyncio.Future[None]):
        def cancel(self, msg: Any | None = None) -> bool:
            self.get_loop().call_soon(happened.append, "after death")
            return super().cancel(msg)

    async def waits() -> None:
        await Telling(loop=asyncio.get_running_loop())

    async def story(network: Network) -> None:
        host = network.host("one", "5.0.0.1")
        work: Coroutine[Any, Any, None] = waits()
        host.spawn(work)
        await asyncio.sleep(1)
        host.crash()
        await asyncio.sleep(1)

    simulate(story)
    assert happened == []

"""Whoever listens may stop, at any moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from simulations.virtual import Host, Link, Network, Unhandled, run_in

BOB = "198.51.100.1"
SYN, SYN_ACK, ACK = 0.5, 1.5, 2.5
"""In the middle of each flight, where a flight takes a second."""


@pytest.fixture
def network() -> Network:
    return Network(link=Link(latency=1))


async def serve(host: Host, sides: list[asyncio.Protocol]) -> asyncio.Server:
    def accept() -> asyncio.Protocol:
        sides.append(asyncio.Protocol())
        return sides[-1]

    loop = asyncio.get_running_loop()
    return await host.run(loop.create_server(accept, host.addresses[0], 80))


def test_after_it_stopped_listening_nobody_gets_in(programs: Any, network: Network) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        sides: list[asyncio.Protocol] = []
        server = await serve(bob, sides)
        dialling = asyncio.create_task(programs.ends(programs.connect(alice, BOB)))
        await asyncio.sleep(SYN)
        server.close()
        assert isinstance(await dialling, ConnectionRefusedError)
        assert not sides

    run_in(network, story(network))


@pytest.mark.parametrize("at_s", [SYN_ACK, ACK])
@pytest.mark.parametrize("is_followed", [False, True])
def test_a_connection_that_was_not_taken_before_that_is_reset(
    programs: Any, network: Network, at_s: float, is_followed: bool
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        sides: list[asyncio.Protocol] = []
        server = await serve(bob, sides)
        dialling = asyncio.create_task(programs.connect(alice, BOB))
        await asyncio.sleep(at_s)
        server.close()
        await server.wait_closed()
        if is_followed:
            # Somebody else listens at the same port, who was never asked.
            await serve(bob, sides)
        side = await dialling
        await asyncio.sleep(2.1)
        assert isinstance(side.lost_with, ConnectionResetError)
        assert not sides
        assert not alice.streams
        assert not bob.streams

    run_in(network, story(network))


def test_connections_that_are_there_stay_when_it_stops_listening(
    programs: Any, network: Network
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        side, other = await programs.connected(alice, bob)
        for listener in list(bob.listeners.values()):
            listener.close()
        side.write(b"hello")
        await asyncio.sleep(2)
        assert other.received == b"hello"

    run_in(network, story(network))


def test_who_cannot_be_made_a_protocol_for_is_reset(programs: Any, network: Network) -> None:
    def refuse() -> asyncio.Protocol:
        raise LookupError("no more")

    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        await bob.run(network.loop.create_server(refuse, BOB, 80))
        side = await programs.connect(alice, BOB)
        try:
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(5)
            assert isinstance(side.lost_with, ConnectionResetError)
            assert not bob.streams

    with pytest.raises(Unhandled, match="LookupError: no more"):
        run_in(network, story(network))


def test_a_server_of_a_program_that_crashed_takes_nobody(programs: Any, network: Network) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        bob.crash()
        bob.restart()
        result = await programs.ends(programs.connect(alice, BOB))
        assert isinstance(result, ConnectionRefusedError)
        assert not accepted

    run_in(network, story(network))


def test_connections_are_taken_in_the_program_that_listens(programs: Any, network: Network) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        noted: list[float] = []

        async def chat(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                noted.append(network.loop.now)
                await asyncio.sleep(1)
                writer.write(b".")

        await bob.run(asyncio.start_server(chat, BOB, 80))
        await programs.connect(alice, BOB)
        await asyncio.sleep(10.5)
        assert len(noted) == 10
        bob.kill()
        await asyncio.sleep(10)
        assert len(noted) == 10

    run_in(network, story(network))

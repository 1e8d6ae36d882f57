"""Datagrams come or do not come; who is told what about it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from simulations.virtual import Host, Network, Unhandled, simulate

ALICE, BOB, CAROL = "192.0.2.1", "198.51.100.1", "203.0.113.1"


async def towards(programs: Any, host: Host, address: str, port: int = 5000) -> Any:
    """A socket that is connected."""
    noting = type(await programs.bind(host, port=0))
    loop = asyncio.get_running_loop()
    endpoint = loop.create_datagram_endpoint(noting, remote_addr=(address, port))
    _, inbox = await host.run(endpoint)
    return inbox


def test_only_a_connected_socket_is_told_that_nobody_listens(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, _ = programs.two(network)
        free, tied = await programs.bind(alice), await towards(programs, alice, BOB)
        free.send(b"hello", BOB)
        tied.transport.sendto(b"hello")
        await asyncio.sleep(1)
        assert free.errors == []
        assert [type(error) for error in tied.errors] == [ConnectionRefusedError]

    simulate(story)


def test_a_connected_socket_hears_its_peer_only(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        peer, stranger = await programs.bound(bob, network.host("carol", CAROL))
        tied = await towards(programs, alice, BOB)
        port = tied.transport.get_extra_info("sockname")[1]
        for inbox in (peer, stranger):
            inbox.send(b"hello", ALICE, port)
        await asyncio.sleep(1)
        assert tied.senders == [(BOB, 5000)]

    simulate(story)


@pytest.mark.parametrize("how", ["crash", "kill", "close"])
def test_a_socket_that_is_no_more_neither_hears_nor_speaks(programs: Any, how: str) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        one, other = await programs.bound(alice, bob)
        other.send(b"under way", ALICE)
        one.send(b"the last word", BOB)
        await asyncio.sleep(0.001)
        if how == "close":
            one.transport.close()
        else:
            getattr(alice, how)()
        one.send(b"from the dead", BOB)
        await asyncio.sleep(1)
        assert one.received == []
        assert other.received == [b"the last word"]

    simulate(story)


def test_what_a_protocol_raises_fails_the_run_and_not_the_socket(programs: Any) -> None:
    class Clumsy(asyncio.DatagramProtocol):
        heard = 0

        def datagram_received(self, data: bytes, addr: Any) -> None:
            Clumsy.heard += 1
            raise LookupError(data)

    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        await bob.run(network.loop.create_datagram_endpoint(Clumsy, (BOB, 5000)))
        inbox = await programs.bind(alice)
        inbox.send(b"one", BOB)
        inbox.send(b"two", BOB)
        await asyncio.sleep(1)

    with pytest.raises(Unhandled, match="LookupError"):
        simulate(story)
    assert Clumsy.heard == 2


def test_what_is_too_large_for_any_datagram_is_told(programs: Any) -> None:
    async def story(network: Network) -> None:
        one, other = await programs.bound(*programs.two(network))
        one.send(bytes(65_507), BOB)
        one.send(bytes(65_508), BOB)
        await asyncio.sleep(1)
        assert [len(data) for data in other.received] == [65_507]
        assert [str(error) for error in one.errors] == ["[Errno 90] Message too long"]

    simulate(story)


def test_ten_thousand_sockets_leave_nothing_behind(programs: Any) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        other = await programs.bind(bob)
        for _ in range(10_000):
            inbox = await programs.bind(alice, port=0)
            inbox.send(b"hello", BOB)
            inbox.transport.close()
        await asyncio.sleep(1)
        assert len(other.received) == 10_000
        # Ports are given out in turn: none is used again before all were.
        assert len({port for _, port in other.senders}) == 10_000
        assert not alice.datagrams

    simulate(story)

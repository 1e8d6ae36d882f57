"""Endpoints of datagrams: how they come about, and what being connected means to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

SERVER, ALSO_SERVER, CLIENT = "127.0.0.1", "127.0.0.3", "127.0.0.2"
NOT_OURS = "192.0.2.1"

# Real loops leave the socket of an endpoint that did not come about to the garbage collector, which
# warns: uvloop if it cannot be bound, both if the factory raises.
leaves_garbage = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


# Being there


async def test_an_endpoint_is_made_and_knows_its_name(net: Any) -> None:
    one, two = await net.endpoint(), await net.endpoint()
    for endpoint in (one, two):
        assert endpoint.calls == ["made"]
        assert endpoint.sockname[0] == SERVER
        assert 0 < endpoint.sockname[1] < 65_536
        assert endpoint.peername is None
        assert endpoint.transport.get_extra_info("socket").getsockname() == endpoint.sockname
        assert not endpoint.transport.is_closing()
    assert one.sockname != two.sockname


@leaves_garbage
async def test_an_address_cannot_be_used_twice(net: Any) -> None:
    endpoint = await net.endpoint()
    with pytest.raises(OSError, match=r"in use|bind") as raised:
        await net.endpoint(local=endpoint.sockname)
    # uvloop has the number in the cause.
    assert (raised.value.errno or getattr(raised.value.__cause__, "errno", None)) == 98


@leaves_garbage
async def test_an_address_that_is_not_ours_cannot_be_used(net: Any) -> None:
    with pytest.raises(OSError, match=r"assign|bind") as raised:
        await net.endpoint(NOT_OURS)
    assert (raised.value.errno or getattr(raised.value.__cause__, "errno", None)) == 99


@leaves_garbage
async def test_the_two_addresses_must_be_of_one_family(net: Any, ipv6: str) -> None:
    server = await net.endpoint(SERVER)
    # ValueError on asyncio, OSError on uvloop.
    with pytest.raises((OSError, ValueError), match=r"address|remote_addr|family"):
        await net.endpoint(ipv6, remote=server.sockname)


async def test_a_port_is_free_again_when_its_endpoint_is_lost(net: Any) -> None:
    address = await net.closed_port()
    endpoint = await net.endpoint(local=address)
    assert endpoint.sockname == address


async def test_the_same_port_of_another_address_is_free(net: Any) -> None:
    one = await net.endpoint(SERVER)
    two = await net.endpoint(local=(ALSO_SERVER, one.sockname[1]))
    one.transport.sendto(b"to the other", two.sockname)
    await two.has(b"to the other")
    assert one.received == []


async def test_a_port_of_tcp_is_not_a_port_of_udp(net: Any) -> None:
    listening = await net.listen(CLIENT)
    endpoint = await net.endpoint(local=listening.address)
    assert endpoint.sockname == listening.address


@leaves_garbage
async def test_what_the_factory_raises_is_raised_by_opening(net: Any) -> None:
    address = await net.closed_port()

    def factory() -> asyncio.DatagramProtocol:
        raise ZeroDivisionError("no protocol")

    with pytest.raises(ZeroDivisionError, match="no protocol"):
        await asyncio.get_running_loop().create_datagram_endpoint(factory, local_addr=address)


@pytest.mark.parametrize("turns", [0, 1])
async def test_opening_that_is_cancelled_leaves_the_port_free(net: Any, turns: int) -> None:
    # Cancelled some turns later, after connection_made, uvloop keeps the port for good.
    address = await net.closed_port()
    opening: asyncio.Future[Any] = asyncio.ensure_future(net.endpoint(local=address))
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    if not opening.cancelled():
        opening.result().transport.close()
    await net.settled()
    endpoint = await net.endpoint(local=address)
    assert endpoint.sockname == address


async def test_what_connection_made_raises_is_told_and_opening_returns(
    net: Any, problems: list[dict[str, Any]]
) -> None:
    # Asyncio listens to such an endpoint, uvloop does not.
    def fail(_: Any) -> None:
        raise ZeroDivisionError("cannot do that")

    async with asyncio.timeout(5):
        endpoint = await net.endpoint(made=fail)
    server = await net.endpoint(CLIENT)
    endpoint.transport.sendto(b"still here", server.sockname)
    await server.has(b"still here")
    assert [type(context["exception"]) for context in problems] == [ZeroDivisionError]
    problems.clear()


# Connected


async def test_a_connected_endpoint_needs_no_address_to_send(net: Any) -> None:
    server = await net.endpoint(SERVER)
    client = await net.endpoint(CLIENT, remote=server.sockname)
    assert client.peername == server.sockname
    assert client.sockname[0] == CLIENT
    client.transport.sendto(b"one")
    client.transport.sendto(b"two", server.sockname)
    await server.has(b"one", b"two")
    assert {sender for _, sender in server.received} == {client.sockname}


async def test_a_connected_endpoint_sends_to_nobody_else(net: Any) -> None:
    server, other = await net.endpoint(SERVER), await net.endpoint(SERVER)
    client = await net.endpoint(CLIENT, remote=server.sockname)
    with pytest.raises(ValueError, match="Invalid address"):
        client.transport.sendto(b"to a stranger", other.sockname)
    client.transport.sendto(b"to a friend", server.sockname)
    await server.has(b"to a friend")
    assert other.received == []


async def test_a_connected_endpoint_hears_nobody_else(net: Any) -> None:
    server, other = await net.endpoint(SERVER), await net.endpoint(SERVER)
    client = await net.endpoint(CLIENT, remote=server.sockname)
    other.transport.sendto(b"from a stranger", client.sockname)
    await net.settled()
    server.transport.sendto(b"from a friend", client.sockname)
    await client.has(b"from a friend")
    assert other.calls == ["made"]

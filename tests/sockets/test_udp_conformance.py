"""Datagrams: who gets them, and what the end of an endpoint means."""

from __future__ import annotations

from typing import Any

import pytest

SERVER, CLIENT = "127.0.0.1", "127.0.0.2"
LARGEST = 65_507
"""Bytes in one datagram over IPv4."""


# Sending


async def test_a_datagram_arrives_with_the_address_of_its_sender(net: Any) -> None:
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    client.transport.sendto(b"hello", server.sockname)
    await server.has(b"hello")
    assert server.received == [(b"hello", client.sockname)]
    assert type(server.received[0][1]) is tuple


async def test_a_reply_goes_back_to_where_the_datagram_came_from(net: Any) -> None:
    server = await net.endpoint(
        SERVER, data=lambda end: end.transport.sendto(b"reply", end.received[-1][1])
    )
    client = await net.endpoint(CLIENT)
    client.transport.sendto(b"question", server.sockname)
    await client.has(b"reply")
    assert client.received == [(b"reply", server.sockname)]


async def test_datagrams_keep_their_order_and_their_borders(net: Any) -> None:
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    payloads = [b"%d" % number for number in range(100)]
    for payload in payloads:
        client.transport.sendto(payload, server.sockname)
    await server.has(*payloads)


async def test_datagrams_of_several_senders_do_not_mix(net: Any) -> None:
    server = await net.endpoint(SERVER)
    clients = [await net.endpoint(CLIENT) for _ in range(20)]
    for number, client in enumerate(clients):
        client.transport.sendto(b"from %d" % number, server.sockname)
    await server.until(lambda: len(server.received) == 20)
    expected = {(b"from %d" % number, client.sockname) for number, client in enumerate(clients)}
    assert set(server.received) == expected


@pytest.mark.parametrize("size", [1, 1_400, 9_000, LARGEST])
async def test_a_datagram_arrives_whole(net: Any, size: int) -> None:
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    payload = bytes(number % 251 for number in range(size))
    client.transport.sendto(payload, server.sockname)
    await server.has(payload)


@pytest.mark.parametrize("size", [LARGEST + 1, 70_000])
async def test_too_large_a_datagram_is_an_error_and_the_endpoint_goes_on(
    net: Any, size: int
) -> None:
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    client.transport.sendto(bytes(size), server.sockname)
    await client.until(lambda: client.errors)
    client.transport.sendto(b"small", server.sockname)
    await server.has(b"small")
    (error,) = client.errors
    assert isinstance(error, OSError)
    assert error.errno == 90


async def test_an_empty_datagram_harms_nobody(net: Any) -> None:
    # The transports of asyncio before Python 3.13, and of uvloop, do not send it.
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    client.transport.sendto(b"", server.sockname)
    client.transport.sendto(b"next", server.sockname)
    await server.until(lambda: b"next" in server.payloads)
    assert server.payloads in ([b"next"], [b"", b"next"])
    assert client.calls == ["made"]


async def test_bytes_bytearrays_and_views_may_be_sent(net: Any) -> None:
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    for payload in (b"a", bytearray(b"b"), memoryview(b"xcx")[1:2]):
        client.transport.sendto(payload, server.sockname)
    await server.has(b"a", b"b", b"c")


async def test_what_is_not_bytes_is_refused(net: Any) -> None:
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    with pytest.raises(TypeError):
        client.transport.sendto("text", server.sockname)
    client.transport.sendto(b"bytes", server.sockname)
    await server.has(b"bytes")


async def test_an_endpoint_may_send_to_itself(net: Any) -> None:
    endpoint = await net.endpoint()
    endpoint.transport.sendto(b"note to self", endpoint.sockname)
    await endpoint.has(b"note to self")
    assert endpoint.received == [(b"note to self", endpoint.sockname)]


async def test_an_endpoint_may_send_when_it_is_made(net: Any) -> None:
    server = await net.endpoint(SERVER)
    await net.endpoint(CLIENT, made=lambda end: end.transport.sendto(b"here", server.sockname))
    await server.has(b"here")


async def test_a_datagram_does_not_come_within_sendto(net: Any) -> None:
    endpoint = await net.endpoint()
    endpoint.transport.sendto(b"later", endpoint.sockname)
    assert endpoint.received == []
    await endpoint.has(b"later")


async def test_ipv6_is_the_same(net: Any, ipv6: str) -> None:
    server, client = await net.endpoint(ipv6), await net.endpoint(ipv6)
    assert server.sockname[0] == ipv6
    assert len(server.sockname) == 4
    client.transport.sendto(b"to the whole name", server.sockname)
    client.transport.sendto(b"to the first half", server.sockname[:2])
    await server.has(b"to the whole name", b"to the first half")
    assert {sender for _, sender in server.received} == {client.sockname}


# Nobody there


async def test_a_datagram_to_a_closed_port_is_lost_silently(net: Any) -> None:
    closed = await net.closed_port()
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    for _ in range(3):
        client.transport.sendto(b"anybody there?", closed)
        await net.settled()
    assert client.calls == ["made"]
    client.transport.sendto(b"somebody", server.sockname)
    await server.has(b"somebody")


async def test_a_connected_endpoint_is_told_that_the_port_is_closed(net: Any) -> None:
    client = await net.endpoint(CLIENT, remote=await net.closed_port())
    for number in (1, 2, 3):
        client.transport.sendto(b"anybody there?")
        await client.until(lambda number=number: len(client.errors) == number)
    assert all(isinstance(error, ConnectionRefusedError) for error in client.errors)
    assert {error.errno for error in client.errors} == {111}
    assert not client.transport.is_closing()


async def test_a_connected_endpoint_goes_on_when_the_port_is_open_at_last(net: Any) -> None:
    closed = await net.closed_port()
    client = await net.endpoint(CLIENT, remote=closed)
    client.transport.sendto(b"too early")
    await client.until(lambda: client.errors)
    server = await net.endpoint(local=closed)
    client.transport.sendto(b"in time")
    await server.has(b"in time")
    server.transport.sendto(b"welcome", client.sockname)
    await client.has(b"welcome")


# The end


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_the_loss_is_told_later_and_once(net: Any, how: str) -> None:
    endpoint = await net.endpoint()
    end = getattr(endpoint.transport, how)
    end()
    assert endpoint.calls == ["made"]
    assert endpoint.transport.is_closing()
    assert await endpoint.ended() is None
    end()
    endpoint.transport.close()
    await net.settled()
    assert endpoint.calls == ["made", "lost"]
    assert endpoint.transport.is_closing()


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_what_was_sent_before_the_end_arrives(net: Any, how: str) -> None:
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    client.transport.sendto(b"goodbye", server.sockname)
    getattr(client.transport, how)()
    await server.has(b"goodbye")


async def test_sending_while_closing_raises_nothing(net: Any) -> None:
    # Asyncio sends it, uvloop does not. Once lost, asyncio raises AttributeError.
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    client.transport.close()
    client.transport.sendto(b"one more thing", server.sockname)
    assert await client.ended() is None
    assert client.calls == ["made", "lost"]


async def test_nothing_arrives_after_closing(net: Any) -> None:
    server, client = await net.endpoint(SERVER), await net.endpoint(CLIENT)
    client.transport.sendto(b"on its way", server.sockname)
    server.transport.close()
    assert await server.ended() is None
    client.transport.sendto(b"too late", server.sockname)
    await net.settled()
    assert server.calls == ["made", "lost"]
    assert client.calls == ["made"]


async def test_nothing_arrives_after_closing_within_datagram_received(net: Any) -> None:
    server = await net.endpoint(SERVER, data=lambda end: end.transport.close())
    client = await net.endpoint(CLIENT)
    for _ in range(10):
        client.transport.sendto(b"x", server.sockname)
    await server.ended()
    await net.settled()
    assert server.calls == ["made", "data", "lost"]


async def test_what_datagram_received_raises_is_told_and_the_endpoint_goes_on(
    net: Any, problems: list[dict[str, Any]]
) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError("cannot take that")

    server, client = await net.endpoint(SERVER, data=fail), await net.endpoint(CLIENT)
    client.transport.sendto(b"one", server.sockname)
    await server.has(b"one")
    client.transport.sendto(b"two", server.sockname)
    await server.has(b"one", b"two")
    await net.settled()
    assert not server.transport.is_closing()
    assert [type(context["exception"]) for context in problems] == [ZeroDivisionError] * 2
    problems.clear()

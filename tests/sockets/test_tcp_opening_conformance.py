"""Connections: how they come about, what they are called, and how opening fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

SERVER, CLIENT = "127.0.0.1", "127.0.0.2"
NOT_OURS = "192.0.2.1"


async def test_both_ends_are_made_and_know_each_other(net: Any) -> None:
    near, far = await net.pair()
    assert near.calls == far.calls == ["made"]
    assert near.sockname == far.peername
    assert near.peername == far.sockname
    assert near.sockname[0] == CLIENT
    assert far.sockname[0] == SERVER


async def test_an_address_is_a_pair_of_text_and_number(net: Any) -> None:
    near, _ = await net.pair()
    for name in (near.sockname, near.peername):
        assert type(name) is tuple
        assert [type(part) for part in name] == [str, int]
        assert 0 < name[1] < 65_536


async def test_the_socket_of_a_transport_tells_its_name(net: Any) -> None:
    for side in await net.pair():
        sock = side.transport.get_extra_info("socket")
        assert sock.getsockname() == side.sockname


async def test_what_a_transport_does_not_know_is_none_or_the_default(net: Any) -> None:
    near, _ = await net.pair()
    assert near.transport.get_extra_info("shoe size") is None
    assert near.transport.get_extra_info("shoe size", 42) == 42
    assert near.transport.get_extra_info("sslcontext") is None


async def test_names_are_still_known_when_the_connection_is_lost(net: Any) -> None:
    near, far = await net.pair()
    before = near.sockname, near.peername
    near.transport.close()
    await near.ended()
    await far.ended()
    assert (near.sockname, near.peername) == before
    assert (far.peername, far.sockname) == before


async def test_the_client_is_made_before_opening_returns(net: Any) -> None:
    listening = await net.listen()
    side = await net.connect(listening.address)
    assert side.calls[0] == "made"
    assert side.transport.get_protocol() is side
    assert not side.transport.is_closing()


async def test_a_client_may_choose_its_port(net: Any) -> None:
    taken = await net.listen(CLIENT)
    taken.close()
    listening = await net.listen()
    side = await net.connect(listening.address, local=taken.address)
    assert side.sockname == taken.address
    far = await net.accepted(listening)
    assert far.peername == taken.address


async def test_one_port_cannot_be_connected_twice_to_the_same_place(net: Any) -> None:
    listening = await net.listen()
    side = await net.connect(listening.address)
    with pytest.raises(OSError, match=r"in use|assign") as raised:
        await net.connect(listening.address, local=side.sockname)
    # EADDRINUSE on asyncio, EADDRNOTAVAIL on uvloop, which binds with SO_REUSEADDR.
    assert raised.value.errno in {98, 99}


async def test_connections_of_one_client_are_separate(net: Any) -> None:
    listening = await net.listen()
    one, two = await net.connect(listening.address), await net.connect(listening.address)
    assert one.sockname != two.sockname
    far_one, far_two = await net.accepted(listening, 0), await net.accepted(listening, 1)
    assert (far_one.peername, far_two.peername) == (one.sockname, two.sockname)
    one.transport.write(b"one")
    two.transport.write(b"two")
    await far_one.has(b"one")
    await far_two.has(b"two")
    one.transport.close()
    await far_one.ended()
    two.transport.write(b", and more")
    await far_two.has(b"two, and more")


async def test_fifty_connections_at_once_are_answered_each(net: Any) -> None:
    listening = await net.listen(data=lambda side: side.transport.write(side.pieces[-1]))
    sides = await asyncio.gather(*(net.connect(listening.address) for _ in range(50)))
    assert len({side.sockname for side in sides}) == 50
    for number, side in enumerate(sides):
        side.transport.write(b"number %d" % number)
    for number, side in enumerate(sides):
        await side.has(b"number %d" % number)
    assert len(listening.accepted) == 50


async def test_a_machine_may_connect_to_itself(net: Any) -> None:
    near, far = await net.pair(near={"local": SERVER})
    assert near.sockname == far.peername
    assert near.sockname[0] == near.peername[0] == SERVER
    near.transport.write(b"note to self")
    await far.has(b"note to self")
    near.transport.close()
    assert await far.ended() is None


async def test_ipv6_is_the_same(net: Any, ipv6: str) -> None:
    listening = await net.listen(ipv6)
    near = await net.connect(listening.address, local=ipv6)
    far = await net.accepted(listening)
    assert near.sockname == far.peername
    assert near.peername == far.sockname
    assert near.peername == (ipv6, listening.address[1], 0, 0)
    near.transport.write(b"question")
    await far.has(b"question")
    far.transport.write(b"answer")
    await near.has(b"answer")


# Opening that fails


async def test_a_refused_port_is_told_at_once(net: Any) -> None:
    listening = await net.listen()
    listening.close()
    with pytest.raises(ConnectionRefusedError) as raised:
        await net.connect(listening.address)
    assert raised.value.errno == 111


async def test_a_client_cannot_use_an_address_that_is_not_its_own(net: Any) -> None:
    listening = await net.listen()
    with pytest.raises(OSError, match=r"\[Errno 99\]") as raised:
        await net.connect(listening.address, local=NOT_OURS)
    assert raised.value.errno == 99
    await net.settled()
    assert listening.accepted == []


async def test_a_client_cannot_use_a_port_that_is_listened_on(net: Any) -> None:
    listening = await net.listen()
    with pytest.raises(OSError, match=r"\[Errno 98\]") as raised:
        await net.connect(listening.address, local=listening.address)
    assert raised.value.errno == 98


async def test_the_two_addresses_must_be_of_one_family(net: Any, ipv6: str) -> None:
    listening = await net.listen()
    # Without errno on asyncio; whatever connect() or bind() said on uvloop.
    with pytest.raises(OSError, match=r"family|Invalid argument"):
        await net.connect(listening.address, local=ipv6)


# On asyncio the socket is closed when the exception is thrown away, which warns.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_what_the_clients_factory_raises_is_raised_by_opening(net: Any) -> None:
    # A server's factory that raises leaves the client alone on asyncio with a connection that
    # ends, on uvloop with one that does not, and with a server that accepts no more.
    listening = await net.listen()

    def factory() -> asyncio.Protocol:
        raise ZeroDivisionError("no protocol")

    with pytest.raises(ZeroDivisionError, match="no protocol"):
        await asyncio.get_running_loop().create_connection(
            factory, *listening.address, local_addr=(CLIENT, 0)
        )
    side = await net.connect(listening.address)
    assert side.calls == ["made"]


@pytest.mark.parametrize("turns", range(6))
async def test_opening_that_is_cancelled_leaves_nothing_behind(net: Any, turns: int) -> None:
    listening = await net.listen()
    opening: asyncio.Future[Any] = asyncio.ensure_future(net.connect(listening.address))
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    # It may be open already.
    await asyncio.wait([opening])
    if not opening.cancelled():
        opening.result().transport.close()
    # What the kernel had connected meanwhile is closed again. Whoever comes later is accepted
    # later, so all of it was accepted by now.
    last = await net.connect(listening.address)
    last.transport.write(b"last")
    for number in range(2):
        side = await net.accepted(listening, number)
        if side.peername == last.sockname:
            break
        assert await side.ended() is None
        assert side.received == b""
    await side.has(b"last")
    await net.settled()
    assert len(listening.accepted) == number + 1


async def test_opening_may_be_cancelled_within_connection_made(net: Any) -> None:
    # Asyncio then tells the client of the loss, uvloop does not.
    listening = await net.listen()
    openings: list[asyncio.Future[Any]] = []
    openings.append(
        asyncio.ensure_future(net.connect(listening.address, made=lambda _: openings[0].cancel()))
    )
    await asyncio.wait(openings)
    assert openings[0].cancelled()
    assert await (await net.accepted(listening)).ended() is None


async def test_opening_may_be_cancelled_when_the_server_has_accepted(net: Any) -> None:
    openings: list[asyncio.Future[Any]] = []
    listening = await net.listen(made=lambda _: openings[0].cancel())
    openings.append(asyncio.ensure_future(net.connect(listening.address)))
    await asyncio.wait(openings)
    # The client knows earlier on some loops.
    if not openings[0].cancelled():
        openings[0].result().transport.close()
    assert await (await net.accepted(listening)).ended() is None

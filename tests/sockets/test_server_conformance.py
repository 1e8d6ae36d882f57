"""Servers: where they listen, whom they let in, and what is left when they are closed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

SERVER, ALSO_SERVER = "127.0.0.1", "127.0.0.3"
NOT_OURS = "192.0.2.1"


async def test_port_0_is_a_free_port_that_the_server_tells(net: Any) -> None:
    one, two = await net.listen(), await net.listen()
    for listening in (one, two):
        assert listening.server.sockets[0].getsockname() == listening.address
        assert listening.address[0] == SERVER
        assert 0 < listening.address[1] < 65_536
    assert one.address != two.address


async def test_a_server_listens_on_the_port_it_was_given(net: Any) -> None:
    former = await net.listen(ALSO_SERVER)
    former.close()
    listening = await net.listen(*former.address)
    assert listening.address == former.address
    await net.connect(listening.address)


async def test_an_address_cannot_be_listened_on_twice(net: Any) -> None:
    listening = await net.listen()
    with pytest.raises(OSError, match="in use") as raised:
        await net.listen(*listening.address)
    assert raised.value.errno == 98
    assert "address already in use" in (raised.value.strerror or "").lower()
    # The first one does not mind.
    side = await net.connect(listening.address)
    assert (await net.accepted(listening)).peername == side.sockname


async def test_the_same_port_of_another_address_is_free(net: Any) -> None:
    one = await net.listen(SERVER)
    two = await net.listen(ALSO_SERVER, one.address[1])
    near = await net.connect(two.address)
    assert (await net.accepted(two)).peername == near.sockname
    assert one.accepted == []


async def test_a_server_cannot_listen_on_an_address_that_is_not_its_own(net: Any) -> None:
    # From Python 3.13 on asyncio's own loop logs the reason, and its error has no number.
    is_told = sys.version_info < (3, 13) or not isinstance(
        asyncio.get_running_loop(), asyncio.SelectorEventLoop
    )
    with pytest.raises(OSError, match="assign" if is_told else "could not bind") as raised:
        await net.listen(NOT_OURS)
    assert raised.value.errno == (99 if is_told else None)


async def test_a_server_serves_until_it_is_closed(net: Any) -> None:
    listening = await net.listen()
    assert listening.server.is_serving()
    listening.close()
    assert not listening.server.is_serving()
    assert list(listening.server.sockets) == []
    listening.close()


async def test_a_closed_server_leaves_open_connections_open(net: Any) -> None:
    listening = await net.listen()
    near = await net.connect(listening.address)
    far = await net.accepted(listening)
    listening.close()
    with pytest.raises(ConnectionRefusedError):
        await net.connect(listening.address)
    near.transport.write(b"still there?")
    await far.has(b"still there?")
    far.transport.write(b"yes")
    await near.has(b"yes")
    assert len(listening.accepted) == 1


async def test_the_port_is_free_at_once_when_the_server_is_closed(net: Any) -> None:
    # Even while one of its connections is still open, and one has just ended.
    former = await net.listen(ALSO_SERVER)
    near, gone = await net.connect(former.address), await net.connect(former.address)
    (await net.accepted(former, 1)).transport.close()
    await gone.ended()
    former.close()
    listening = await net.listen(*former.address)
    side = await net.connect(listening.address)
    assert (await net.accepted(listening)).peername == side.sockname
    near.transport.write(b"to the former one")
    await (await net.accepted(former)).has(b"to the former one")


async def test_waiting_for_a_server_to_close_ends_when_its_connections_are_gone(net: Any) -> None:
    # Python 3.11 does not wait for the connections, later versions do.
    listening = await net.listen()
    near = await net.connect(listening.address)
    far = await net.accepted(listening)
    listening.close()
    near.transport.close()
    await near.ended()
    await far.ended()
    async with asyncio.timeout(5):
        await listening.server.wait_closed()


async def test_a_server_that_does_not_serve_yet_refuses(net: Any) -> None:
    listening = await net.listen(options={"start_serving": False})
    assert not listening.server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await net.connect(listening.address)
    await listening.server.start_serving()
    assert listening.server.is_serving()
    await net.connect(listening.address)


async def connect_and_leave(net: Any, listening: Any) -> None:
    """From Python 3.12 on asyncio's own server waits for those who do not leave, when it ends."""
    near = await net.connect(listening.address)
    far = await net.accepted(listening)
    near.transport.close()
    await near.ended()
    await far.ended()


async def test_leaving_a_servers_block_closes_it(net: Any) -> None:
    listening = await net.listen()
    async with listening.server as entered:
        assert entered is listening.server
        await connect_and_leave(net, listening)
    assert not listening.server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await net.connect(listening.address)


async def test_serving_forever_ends_by_cancelling_and_closes(net: Any) -> None:
    # Closing the server ends it too on asyncio, by CancelledError, but not on uvloop.
    listening = await net.listen()
    forever = asyncio.ensure_future(listening.server.serve_forever())
    await connect_and_leave(net, listening)
    forever.cancel()
    await asyncio.gather(forever, return_exceptions=True)
    assert forever.cancelled()
    assert not listening.server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await net.connect(listening.address)


async def test_one_server_may_listen_on_several_addresses(net: Any) -> None:
    listening = await net.listen([SERVER, ALSO_SERVER])
    names = {sock.getsockname() for sock in listening.server.sockets}
    assert {host for host, _ in names} == {SERVER, ALSO_SERVER}
    sides = [await net.connect(name) for name in sorted(names)]
    for number, side in enumerate(sides):
        assert (await net.accepted(listening, number)).peername == side.sockname


async def test_who_dials_a_server_that_is_just_closing_is_not_left_hanging(net: Any) -> None:
    listening = await net.listen()
    opening: asyncio.Future[Any] = asyncio.ensure_future(net.connect(listening.address))
    await asyncio.sleep(0)
    listening.close()
    # Refused, reset, or accepted before.
    await asyncio.wait([opening])
    if opening.exception() is not None:
        assert isinstance(opening.exception(), ConnectionError)
    else:
        for side in listening.accepted:
            side.transport.close()
        assert isinstance(await opening.result().ended(), ConnectionError | None)


async def test_a_client_that_leaves_at_once_is_made_and_lost(net: Any) -> None:
    listening = await net.listen()
    await net.connect(listening.address, made=lambda side: side.transport.abort())
    far = await net.accepted(listening)
    await far.ended()
    assert far.received == b""


async def test_a_server_may_turn_a_connection_away(net: Any) -> None:
    listening = await net.listen(made=lambda side: side.transport.abort())
    near = await net.connect(listening.address)
    assert isinstance(await near.ended(), ConnectionError | None)
    far = await net.accepted(listening)
    assert await far.ended() is None
    assert far.calls == ["made", "lost"]


async def test_connections_are_accepted_in_the_order_in_which_they_were_opened(net: Any) -> None:
    listening = await net.listen()
    sides = [await net.connect(listening.address) for _ in range(10)]
    for number, side in enumerate(sides):
        assert (await net.accepted(listening, number)).peername == side.sockname

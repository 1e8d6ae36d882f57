"""A message without a reply arrives, in order, or fails fast."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from egtp import Identity, Incoming
from tests.node.at_hand import Eventually, Held, Start, check_nothing_is_kept_of_queries, fast_fail

MIB = 1024 * 1024


async def test_a_send_arrives_and_gets_no_reply(start: Start) -> None:
    node, other = await start(), await start(listen=())
    told: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()

    @node.handler("tell")
    async def tell(message: Incoming) -> bytes:
        told.set_result(message)
        return b"this goes nowhere"

    await other.send(node.node_id, "tell", b"news")
    async with asyncio.timeout(2):
        message = await told
    assert (message.body, message.wants_reply, message.peer_id) == (b"news", False, other.node_id)
    check_nothing_is_kept_of_queries(other)


async def test_a_send_to_oneself_arrives(start: Start) -> None:
    node = await start()
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @node.handler("tell")
    async def tell(message: Incoming) -> None:
        told.set_result(message.body)

    await node.send(node.node_id, "tell", b"news")
    async with asyncio.timeout(2):
        assert await told == b"news"


async def test_a_send_that_cannot_leave_fails_fast(
    start: Start, identity: Callable[[], Identity]
) -> None:
    node = await start()
    failure, took_s = await fast_fail(node.send(identity().node_id, "tell"))
    assert took_s < 0.2
    assert failure.attempts


async def test_a_send_of_5_mib_arrives(start: Start) -> None:
    node, other = await start(), await start(listen=())
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @node.handler("tell")
    async def tell(message: Incoming) -> None:
        told.set_result(len(message.body))

    await other.send(node.node_id, "tell", bytes(5 * MIB))
    async with asyncio.timeout(5):
        assert await told == 5 * MIB


async def test_many_sends_arrive_in_order(start: Start, eventually: Eventually) -> None:
    node, other = await start(), await start(listen=())
    told: list[bytes] = []

    @node.handler("tell")
    async def tell(message: Incoming) -> None:
        told.append(message.body)

    for number in range(200):
        await other.send(node.node_id, "tell", b"%d" % number)
    await eventually(lambda: len(told) == 200)
    assert told == [b"%d" % number for number in range(200)]


async def test_a_send_given_just_before_closing_still_arrives(
    start: Start, eventually: Eventually
) -> None:
    node = await start()
    told: list[int] = []

    @node.handler("tell")
    async def tell(message: Incoming) -> None:
        told.append(len(message.body))

    other = await start(listen=())
    await other.send(node.node_id, "tell", bytes(1000))
    await other.close()
    await eventually(lambda: told == [1000])


@pytest.mark.parametrize("size", [0, MIB])
async def test_a_query_to_itself_that_is_cancelled_before_its_turn_does_not_run(
    start: Start, size: int
) -> None:
    node, stuck = await start(), Held()
    node.handle("stuck", stuck)
    for _ in range(2):
        assert node.open_query(node.node_id, "stuck", bytes(size)).cancel()
    last = node.open_query(node.node_id, "stuck", bytes(size))
    await stuck.called.wait()
    assert len(stuck.bodies) == 1
    last.cancel()
    await stuck.cancelled.wait()

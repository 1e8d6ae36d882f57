"""A peer that asks and does not read costs this node a bounded amount of memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from egtp import Incoming, Node, NodeConfig
from egtp.channel.sealed import ItemType, item
from egtp.queries.outgoing import Outgoing
from egtp.values.message import Query
from tests.node.at_hand import Start

MIB = 1024 * 1024
LIMIT = 2 * MIB


async def deaf_peer(start: Start, node: Node) -> tuple[Any, Any]:
    """The paths of a connected peer that has stopped reading: its own, and the node's to it."""
    peer = await start(listen=())
    await peer.query(node.node_id, "echo")
    mine, theirs = peer._engine, node._engine
    assert mine is not None
    assert theirs is not None
    for connection in mine.comms.all():
        assert connection._transport is not None
        connection._transport.pause_reading()
    there, back = mine.book.find(node.node_id), theirs.book.find(peer.node_id)
    assert there is not None
    assert back is not None
    return there.best_path, back.best_path


async def echoing(start: Start, config: Callable[..., NodeConfig]) -> tuple[Node, list[int]]:
    node = await start(config=config(waiting_bytes_max=LIMIT))
    ran: list[int] = []

    @node.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    @node.handler("much")
    async def much(_: Incoming) -> bytes:
        ran.append(1)
        return bytes(MIB)

    return node, ran


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not predicate():
            await asyncio.sleep(0.005)


async def test_replies_that_nobody_reads_are_bounded_and_counted(
    start: Start, config: Callable[..., NodeConfig]
) -> None:
    node, ran = await echoing(start, config)
    path, back = await deaf_peer(start, node)
    for number in range(100, 140):
        query = Query(os.urandom(16), number, "much", 60_000, 2 * MIB, b"")
        path.queue(Outgoing(query.encode(), path._owner.now()))
    await until(lambda: len(ran) == 40)
    await until(lambda: node._engine is not None and len(node._engine.handlers) == 0)
    assert back.outbox.waiting_bytes <= LIMIT
    assert node.counters["reply dropped: too much waits for the peer"] > 0


async def test_pongs_that_nobody_reads_are_bounded_and_counted(
    start: Start, config: Callable[..., NodeConfig]
) -> None:
    node, _ = await echoing(start, config)
    path, back = await deaf_peer(start, node)
    for _ in range(1500):
        path.queue_control(item(ItemType.PING, bytes(8000)))
    await until(lambda: node.counters["pong dropped: too much waits for the peer"] > 0)
    assert back.outbox.waiting_bytes <= LIMIT

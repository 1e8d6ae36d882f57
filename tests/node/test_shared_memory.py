"""Memory that others take up here: bounded for all, and strangers leave room for the rest."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from egtp import HandlerFailed, Incoming, Node
from egtp.channel.sealed import CHUNK_BYTES_MAX, write_chunk
from egtp.queries.outgoing import Outgoing
from egtp.values.message import Query, ReplyCode
from tests.node.at_hand import Config, Eventually, Start, engine_of

KIB = 1024
MIB = 1024 * KIB
BODY = bytes(200 * KIB)


def path_to(node: Node, peer: Node) -> Any:
    return engine_of(node).book.find(peer.node_id).best_path


async def narrow(start: Start, config: Config, gate: asyncio.Event) -> Node:
    """A node with room for four of the large bodies, two of them of strangers."""
    settings = config(
        body_bytes_max=256 * KIB, reassembly_bytes_max=256 * KIB, queries_bytes_max=MIB
    )
    node = await start(config=settings)

    @node.handler("wait")
    async def wait(query: Incoming) -> bytes:
        await gate.wait()
        return query.body[:5]

    return node


async def test_handlers_that_wait_for_a_crowd_leave_room_to_those_who_are_known(
    start: Start, config: Config, eventually: Eventually
) -> None:
    gate = asyncio.Event()
    node = await narrow(start, config, gate)
    crowd = [await start(listen=()) for _ in range(4)]
    friend = await start()
    node.add_contact(friend.record)
    queries = [asyncio.ensure_future(one.query(node.node_id, "wait", BODY)) for one in crowd[:2]]
    await eventually(lambda: len(engine_of(node).handlers) == 2)
    for one in crowd[2:]:
        with pytest.raises(HandlerFailed) as caught:
            await one.query(node.node_id, "wait", BODY)
        assert caught.value.code == ReplyCode.BUSY
    assert node.counters["busy: no room for the queries of others"] == 2
    queries.append(asyncio.ensure_future(friend.query(node.node_id, "wait", BODY)))
    await eventually(lambda: len(engine_of(node).handlers) == 3)
    # One peer has a quarter, known or not.
    with pytest.raises(HandlerFailed) as caught:
        await friend.query(node.node_id, "wait", BODY)
    assert caught.value.code == ReplyCode.BUSY
    gate.set()
    assert await asyncio.gather(*queries) == [bytes(5)] * 3
    assert engine_of(node).answering.room.taken == 0
    assert await crowd[3].query(node.node_id, "wait", BODY) == bytes(5)


async def test_unfinished_bodies_of_a_crowd_are_bounded_and_given_back_when_it_goes(
    start: Start, config: Config, eventually: Eventually
) -> None:
    gate = asyncio.Event()
    gate.set()
    node = await narrow(start, config, gate)
    crowd = [await start(listen=()) for _ in range(4)]
    for number, one in enumerate(crowd):
        await one.query(node.node_id, "wait")
        path = path_to(one, node)
        # All but the end of a large body comes, and then nothing more.
        query = Query(os.urandom(16), 7, "wait", 60_000, 1000, bytes(240 * KIB)).encode()
        whole = bytes(4) + query
        for at in range(0, len(whole) - CHUNK_BYTES_MAX, CHUNK_BYTES_MAX):
            piece = whole[at : at + CHUNK_BYTES_MAX]
            path.queue_control(write_chunk(1, len(whole), at, piece))
        heard = path_to(node, one)
        await eventually(lambda heard=heard: heard._reassembly is not None)
        await eventually(lambda heard=heard: heard._reassembly.held_bytes > 220 * KIB)
        assert engine_of(node).answering.room.taken <= MIB // 2, number
    kept = [engine_of(node).answering.room.of(one.node_id) for one in crowd]
    assert sorted(kept)[:2] == [0, 0], "what did not fit is not kept"
    for one in crowd:
        await one.close()
    await eventually(lambda: engine_of(node).answering.room.taken == 0)


async def test_what_waits_for_all_who_do_not_read_is_bounded(
    start: Start, config: Config, eventually: Eventually
) -> None:
    node = await start(config=config(unread_bytes_max=4 * MIB))

    @node.handler("much")
    async def much(_: Incoming) -> bytes:
        return bytes(MIB)

    deaf, backs = [await start(listen=()) for _ in range(4)], []
    for one in deaf:
        await one.query(node.node_id, "much")
        for connection in engine_of(one).comms.all():
            connection.pause_reading()
        backs.append(path_to(node, one))
        path = path_to(one, node)
        for number in range(100, 110):
            query = Query(os.urandom(16), number, "much", 60_000, 2 * MIB, b"")
            path.queue(Outgoing(query.encode(), engine_of(one).now()))
    reasons = (
        "reply dropped: too much waits for all who do not read",
        "dropped: its reader is too slow, and others need the room",
    )
    await eventually(lambda: sum(node.counters[reason] for reason in reasons) >= 10)
    assert sum(back.outbox.waiting_bytes for back in backs) <= 2 * MIB
    reader = await start(listen=())
    assert len(await reader.query(node.node_id, "much")) == MIB
    for one in deaf:  # so that closing need not wait for them
        for connection in engine_of(one).comms.all():
            connection.resume_reading()

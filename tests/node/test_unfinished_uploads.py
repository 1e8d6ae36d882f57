"""Large queries whose end never comes, and what is answered for nobody: they hold memory of a node
for so long, and no longer. In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egtp import HandlerFailed, Node, NodeConfig
from egtp.channel.sealed import CHUNK_BYTES_MAX, ItemType, item, write_chunk
from egtp.paths.reassembly import PAUSE_MAX_S
from egtp.values.message import Query, ReplyCode
from tests.lab import Lab, in_lab
from tests.node.at_hand import engine_of

KIB = 1024
SMALL = NodeConfig(
    body_bytes_max=256 * KIB, reassembly_bytes_max=512 * KIB, queries_bytes_max=1024 * KIB
)
"""Two large bodies of strangers fill what strangers may have."""


async def begin_upload(lab: Lab, one: Node, node: Node, lifetime_ms: int) -> Any:
    """All but the end of a large query. Returns the path."""
    await lab.query(one, node.node_id)

    async def send() -> Any:
        path = engine_of(one).book.find(node.node_id).best_path
        query = Query(bytes(16), 900, "echo", lifetime_ms, 1000, bytes(250 * KIB))
        whole = bytes(4) + query.encode()
        for at in range(0, len(whole) - CHUNK_BYTES_MAX, CHUNK_BYTES_MAX):
            piece = whole[at : at + CHUNK_BYTES_MAX]
            path.queue_control(write_chunk(1, len(whole), at, piece))
        return path

    path = await lab.hosts[one].run(send())
    await asyncio.sleep(0.5)
    return path


@pytest.mark.parametrize(("lifetime_s", "held_s"), [(3, 3), (600, PAUSE_MAX_S)])
def test_what_a_crowd_never_finishes_keeps_nobody_out_for_longer_than_it_lives(
    lifetime_s: int, held_s: float
) -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node(config=SMALL)
        paths = {}
        for _ in range(2):
            one = await lab.asker(node)
            paths[one] = await begin_upload(lab, one, node, lifetime_s * 1000)
        honest = await lab.asker(node)
        assert engine_of(node).answering.room.taken > 460 * KIB
        until_s = lab.now_s + held_s + 3
        while lab.now_s < until_s:
            for one, path in paths.items():

                async def live(path: Any = path) -> None:
                    path.queue_control(item(ItemType.PING, b"k"))

                await lab.hosts[one].run(live())
            await asyncio.sleep(0.5)
        assert engine_of(node).answering.room.taken == 0
        reason = "unfinished message dropped: too old, or nothing more came"
        assert node.counters[reason] == 2
        assert len(await lab.query(honest, node.node_id, body=bytes(250 * KIB))) == 250 * KIB

    in_lab(Lab, story)


def test_a_small_query_has_the_slowest_upload_of_a_stranger_make_way() -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node(config=SMALL)
        for _ in range(2):
            await begin_upload(lab, await lab.asker(node), node, 600_000)
        assert engine_of(node).answering.room.taken > 460 * KIB
        honest = await lab.asker(node)
        assert len(await lab.query(honest, node.node_id, body=bytes(60_000))) == 60_000
        reason = "unfinished message dropped: slow, and others need the room"
        assert node.counters[reason] == 1

    in_lab(Lab, story)


def test_what_made_way_and_goes_on_is_refused_as_busy() -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node(config=SMALL)
        slow = await lab.asker(node, config=NodeConfig(send_bytes_per_s=20_000))
        query = asyncio.ensure_future(
            lab.query(slow, node.node_id, body=bytes(200 * KIB), hard_timeout_s=60)
        )
        await asyncio.sleep(5)
        for _ in range(2):
            await begin_upload(lab, await lab.asker(node), node, 600_000)
        with pytest.raises(HandlerFailed) as caught:
            await query
        assert caught.value.code == ReplyCode.BUSY
        assert lab.now_s < 30

    in_lab(Lab, story)


def test_what_strangers_asked_and_left_keeps_nobody_out() -> None:
    """They ask what is answered in weeks, and are cut off: no packet says that they are gone."""

    async def story(lab: Lab) -> None:
        node = await lab.node(config=SMALL)
        for _ in range(2):
            one = await lab.asker(node)
            body, weeks_s = bytes(250 * KIB), 4_000_000.0
            await lab.open_query(one, node.node_id, "wait", body, hard_timeout_s=weeks_s)
            await asyncio.sleep(1)
            lab.hosts.pop(one).crash()
        honest = await lab.asker(node)
        assert len(engine_of(node).handlers) == 2
        with pytest.raises(HandlerFailed) as caught:
            await lab.query(honest, node.node_id, body=bytes(250 * KIB))
        assert caught.value.code == ReplyCode.BUSY
        await asyncio.sleep(node.config.idle_timeout_s + 30)
        assert len(engine_of(node).comms) <= 1, "of who is cut off there is no connection"
        assert len(await lab.query(honest, node.node_id, body=bytes(250 * KIB))) == 250 * KIB
        gone = "handler cancelled: its asker is gone, and others need the room"
        assert node.counters[gone] >= 1

    in_lab(Lab, story)

"""Early data: a round trip less, and not a promise less."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egtp import FastFail, HardTimeout, Incoming, Node
from tests.node.at_hand import Eventually, Held, Start, engine_of
from tests.node.failing import World, play


async def known_to_each_other(start: Start) -> tuple[Node, Node]:
    """A node that counts, and one that knows its record but has no connection to it."""
    node, other = await start(), await start(listen=())
    calls: list[bytes] = []

    async def count(query: Incoming) -> bytes:
        calls.append(query.body)
        return b"%d" % len(calls)

    node.handle("count", count)
    node.handle("late", count, early=False)
    other.add_contact(node.record)
    return node, other


@pytest.mark.parametrize("kind", ["count", "late"])
async def test_a_query_that_travels_with_the_dial_runs_once(start: Start, kind: str) -> None:
    node, other = await known_to_each_other(start)
    assert await other.query(node.node_id, kind, b"x", early=True) == b"1"
    accepted = "accepted" if kind == "count" else "challenged"
    assert node.counters[f"early data {accepted}"] == 1
    assert await other.query(node.node_id, kind, b"y", early=True) == b"2"


async def test_without_being_asked_for_nothing_travels_with_a_dial(start: Start) -> None:
    node, other = await known_to_each_other(start)
    assert await other.query(node.node_id, "count") == b"1"
    assert not any("early data" in name for name in node.counters)


async def test_many_queries_of_one_moment_travel_with_one_dial(start: Start) -> None:
    node, other = await known_to_each_other(start)
    asked = (other.query(node.node_id, "count", b"%d" % n, early=True) for n in range(20))
    assert sorted(map(int, await asyncio.gather(*asked))) == list(range(1, 21))
    assert node.counters["early data accepted"] == 1


async def test_a_large_reply_to_early_data_waits_for_the_proof_and_arrives(start: Start) -> None:
    node, other = await known_to_each_other(start)

    async def much(query: Incoming) -> bytes:
        return bytes(1_000_000)

    node.handle("much", much)
    assert await other.query(node.node_id, "much", early=True) == bytes(1_000_000)


async def test_a_refused_port_still_fails_fast(start: Start) -> None:
    node, other = await known_to_each_other(start)
    await node.close()
    with pytest.raises(FastFail):
        await other.query(node.node_id, "count", early=True)


async def test_whoever_takes_the_first_packet_ends_the_fast_fail(start: Start) -> None:
    node, other = await known_to_each_other(start)
    port = int(node.listening[0].rpartition(":")[2])
    await node.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.close()

    stranger = await asyncio.start_server(take, "127.0.0.1", port)
    async with stranger:
        with pytest.raises(HardTimeout) as timeout:
            await other.query(node.node_id, "count", early=True, hard_timeout_s=0.3)
        assert timeout.value.may_have_run


async def test_a_query_whose_connection_is_lost_travels_with_the_next_dial(
    start: Start, eventually: Eventually, problems: list[dict[str, Any]]
) -> None:
    node, other, slow = await start(), await start(listen=()), Held(b"done")
    node.handle("slow", slow)
    query = other.open_query(node.node_id, "slow")
    await slow.called.wait()
    engine = engine_of(node)
    engine.comms.drop_all("a test")
    await eventually(lambda: node.counters["query not run: working"] == 1)
    slow.go.set()
    assert await query == b"done"
    assert len(slow.bodies) == 1
    assert node.counters["early data accepted"] == 1


def test_those_who_wait_beside_a_query_that_runs_out_of_time_are_answered() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        with world.network.partition([world.hosts[relay]], [world.hosts[peer]]):
            early = asyncio.ensure_future(
                world.query(asker, peer.node_id, early=True, hard_timeout_s=0.5)
            )
            other = asyncio.ensure_future(world.query(asker, peer.node_id, early=False))
            await asyncio.sleep(1.3)
        assert isinstance(early.exception(), HardTimeout)
        assert await other == b"x"

    play(story)

"""Closing in peace: what was accepted is answered, and nobody comes while the node goes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import (
    FastFail,
    HandlerFailed,
    Identity,
    Incoming,
    Introduction,
    InvalidConfig,
    Node,
    NodeClosed,
    NodeConfig,
    ReplyCode,
)
from egtp.events import Event, PathOpened
from tests.lab import Lab, in_lab
from tests.node.at_hand import Config, Eventually, Held, Start, engine_of


async def test_what_was_accepted_is_answered_before_the_node_closes(start: Start) -> None:
    node, other, slow = await start(), await start(listen=()), Held(bytes(1_000_000))
    node.handle("slow", slow)
    query = other.open_query(node.node_id, "slow")
    await slow.called.wait()
    closing = asyncio.ensure_future(node.close(drain_s=5))
    await asyncio.sleep(0.05)
    assert not closing.done()
    slow.go.set()
    assert await query == bytes(1_000_000)
    began = time.monotonic()
    await closing
    assert time.monotonic() - began < 2


async def test_a_peer_that_goes_away_is_connected_until_it_has_closed(
    start: Start, eventually: Eventually
) -> None:
    """Somebody who blocks it must know: it may say that it goes, stay, and ask on."""
    node, peer, held = await start(listen=()), await start(), Held()
    peer.handle("slow", held)
    asked = node.open_query(peer.node_id, "slow")
    await held.called.wait()
    closing = asyncio.ensure_future(peer.close(drain_s=5))
    await eventually(lambda: other_knows(node, peer))
    assert node.connected == (peer.node_id,)
    held.go.set()
    assert await asked == b""
    await closing
    await eventually(lambda: not node.connected)


async def test_a_peer_that_goes_away_is_not_asked_any_more(
    start: Start, eventually: Eventually
) -> None:
    node, other, slow = await start(), await start(listen=()), Held(b"done")
    node.handle("slow", slow)
    query = other.open_query(node.node_id, "slow")
    await slow.called.wait()
    closing = asyncio.ensure_future(node.close(drain_s=5))
    await eventually(lambda: not other.why(node.node_id).paths or other_knows(other, node))
    refusals = [other.open_query(node.node_id, "slow") for _ in range(2)]
    for refused in refusals:
        with pytest.raises(FastFail, match="is closing; it asked to be left alone for") as failed:
            await refused
        assert failed.value.retry_after_s is not None
        assert 0 < failed.value.retry_after_s <= 5
    assert refusals[0].exception() is not refusals[1].exception()
    slow.go.set()
    assert await query == b"done"
    await closing


@pytest.mark.parametrize("relayed", [False, True])
async def test_a_peer_that_is_back_is_asked_at_once_however_long_it_wanted_to_be_left_alone(
    start: Start, eventually: Eventually, relayed: bool
) -> None:
    me, way = Identity.generate(os.urandom), {}
    if relayed:
        relay = await start(relay_server=True)
        introduction = Introduction(relay.node_id, relay.record)
        way = {"listen": (), "discovery": StaticDiscovery([introduction])}

    async def come() -> Node:
        node = await start(me, **way)
        node.handle("greet", greet)
        await eventually(lambda: node.relays or not relayed)
        await node.published()
        return node

    node, other = await come(), await start(listen=())
    assert await other.query(node.node_id, "greet") == b"hello"
    await node.close(drain_s=60)
    await come()
    await eventually(lambda: not other.why(node.node_id).paths)
    assert await other.query(node.node_id, "greet") == b"hello"


async def greet(_: Incoming) -> bytes:
    return b"hello"


def other_knows(other: Node, node: Node) -> bool:
    away_until_s: float = engine_of(other).book.get(node.node_id).away_until_s
    return away_until_s > 0


async def test_whoever_does_not_listen_is_answered_busy(start: Start) -> None:
    node, other, slow = await start(), await start(listen=()), Held(b"done")
    node.handle("slow", slow)
    first = other.open_query(node.node_id, "slow")
    second = other.open_query(node.node_id, "slow")
    await asyncio.sleep(0.05)
    engine = engine_of(node)
    engine.answering.refuses_new = True
    with pytest.raises(HandlerFailed) as failed:
        await other.query(node.node_id, "slow")
    assert failed.value.code == ReplyCode.BUSY
    slow.go.set()
    assert await first == await second == b"done"


async def test_a_draining_that_is_cancelled_comes_to_its_end_all_the_same(
    start: Start, eventually: Eventually
) -> None:
    node, other, slow = await start(), await start(listen=()), Held(b"done")
    node.handle("slow", slow)
    query = other.open_query(node.node_id, "slow")
    await slow.called.wait()
    closing = asyncio.ensure_future(node.close(drain_s=60))
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    slow.go.set()
    assert await query == b"done"
    await eventually(lambda: not engine_of(node).comms.all())
    with pytest.raises(NodeClosed):
        await node.query(other.node_id, "slow")


async def test_who_closes_at_once_does_not_wait_for_who_drains(start: Start) -> None:
    node, other, stuck = await start(), await start(listen=()), Held()
    node.handle("stuck", stuck)
    query = other.open_query(node.node_id, "stuck")
    await stuck.called.wait()
    draining = asyncio.ensure_future(node.close(drain_s=60))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        await node.close()
        await draining
    query.cancel()


@pytest.mark.parametrize("drain_s", [-1, float("nan"), float("inf"), "5", None, True])
async def test_a_time_to_drain_that_cannot_be_meant_is_told_and_nothing_is_closed(
    start: Start, drain_s: Any
) -> None:
    node = await start()
    with pytest.raises(InvalidConfig, match="drain_s must be a number of seconds, 0 or more"):
        await node.close(drain_s=drain_s)
    assert node.listening


async def test_a_handler_that_drains_its_node_does_not_wait_for_itself(start: Start) -> None:
    node, other = await start(), await start(listen=())
    closed = asyncio.Event()

    async def end(query: Incoming) -> bytes:
        await node.close(drain_s=60)
        closed.set()
        return b""

    node.handle("end", end)
    query = other.open_query(node.node_id, "end")
    async with asyncio.timeout(2):
        await closed.wait()
    query.cancel()


async def test_draining_ends_in_time_whatever_is_under_way(start: Start) -> None:
    node, other, stuck = await start(), await start(listen=()), Held()
    node.handle("stuck", stuck)
    query = other.open_query(node.node_id, "stuck", hard_timeout_s=1)
    await stuck.called.wait()
    began = time.monotonic()
    await node.close(drain_s=0.3)
    assert 0.25 < time.monotonic() - began < 2
    query.cancel()


async def test_a_session_is_replaced_by_the_side_that_dialled_and_loses_nothing(
    start: Start, config: Config, eventually: Eventually
) -> None:
    node, other = await start(), await start(listen=(), config=config(rekey_s=0.2))
    calls = 0

    async def count(query: Incoming) -> bytes:
        nonlocal calls
        calls += 1
        return query.body

    node.handle("count", count)
    await other.query(node.node_id, "count")
    engine = engine_of(other)
    peer = engine.book.get(node.node_id)
    first = peer.direct
    asked = 1
    while peer.direct is first:
        body = b"%d" % asked
        assert await other.query(node.node_id, "count", body) == body
        asked += 1
        await asyncio.sleep(0.01)
    assert await other.query(node.node_id, "count", b"after") == b"after"
    assert calls == asked + 1


def test_a_session_is_replaced_whenever_it_is_old() -> None:
    async def story(lab: Lab) -> None:
        opened = 0

        def observe(event: Event) -> None:
            nonlocal opened
            opened += isinstance(event, PathOpened)

        node = await lab.node()
        asker = await lab.asker(node, config=NodeConfig(rekey_s=100), observer=observe)
        for _ in range(42):
            await lab.query(asker, node.node_id)
            await asyncio.sleep(10)
        assert opened == 5

    in_lab(Lab, story)


def test_a_query_that_is_still_coming_in_is_refused_when_it_is_whole() -> None:
    """Its asker would wait for its whole timeout otherwise, and hear that it may have run."""

    async def story(lab: Lab) -> None:
        node = await lab.node()
        asker = await lab.asker(node, config=NodeConfig(send_bytes_per_s=100_000.0))
        began_s = lab.now_s
        query = asyncio.ensure_future(lab.query(asker, node.node_id, body=bytes(400_000)))
        await asyncio.sleep(1)
        closing = lab.hosts[node].spawn(node.close(drain_s=20))
        with pytest.raises(HandlerFailed) as failed:
            await query
        assert failed.value.code == ReplyCode.BUSY
        assert not failed.value.may_have_run
        assert lab.now_s - began_s < 6
        await closing
        assert lab.now_s - began_s < 8

    in_lab(Lab, story)


@pytest.mark.parametrize("given", [False, True], ids=["while it searches", "once it has asked"])
def test_who_is_reached_through_a_relay_still_gets_its_answers_while_it_drains(given: bool) -> None:
    """They come through the relay, which it has asked for nothing new."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        answerer, asker = await lab.hidden(relay), await lab.hidden(relay)

        @answerer.handler("later")
        async def later(query: Incoming) -> bytes:
            await asyncio.sleep(1)
            return query.body

        query = asyncio.ensure_future(lab.query(asker, answerer.node_id, "later", b"x"))
        await asyncio.sleep(0.5 if given else 0)
        closing = lab.hosts[asker].spawn(asker.close(drain_s=20))
        assert await query == b"x"
        began_s = lab.now_s
        await closing
        assert lab.now_s - began_s < 1

    in_lab(Lab, story)


def test_a_large_reply_through_a_relay_arrives_though_its_sender_drains() -> None:
    """The asker says all the while through the relay how much it has got."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        answerer, asker = await lab.hidden(relay), await lab.hidden(relay)

        @answerer.handler("large")
        async def large(_: Incoming) -> bytes:
            return bytes(4_000_000)

        query = asyncio.ensure_future(lab.query(asker, answerer.node_id, "large"))
        await asyncio.sleep(0.15)
        assert not query.done()
        await lab.hosts[answerer].run(answerer.close(drain_s=20))
        assert await query == bytes(4_000_000)

    in_lab(Lab, story)


def test_a_message_that_still_waits_for_a_path_leaves_before_its_node_is_closed() -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node()
        asker = await lab.asker(node)
        told: list[bytes] = []

        @node.handler("tell")
        async def tell(message: Incoming) -> None:
            told.append(message.body)

        sending = lab.hosts[asker].spawn(asker.send(node.node_id, "tell", b"goodbye"))
        await asyncio.sleep(0)
        began_s = lab.now_s
        await lab.hosts[asker].run(asker.close(drain_s=20))
        await sending
        assert lab.now_s - began_s < 1
        assert told == [b"goodbye"]

    in_lab(Lab, story)

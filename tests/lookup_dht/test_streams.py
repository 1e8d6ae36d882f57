"""A lookup as a stream: the first record at once, then newer ones only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp.errors import LookupFailed, LookupFailure, NodeClosed
from egtp.lookup import LookupChain, MemoryLookup, StreamingLookup, resolve_stream
from egtp.values.identity import Identity
from lookup_dht import DHTLimits
from tests.lookup_dht.at_hand import Network, Sign, Start


async def sequences(lookup: StreamingLookup, identity: Identity, newer_than: int = 0) -> list[int]:
    stream = lookup.resolve_stream(identity.node_id, newer_than=newer_than)
    return [record.sequence async for record in stream]


async def test_sequences_only_increase_and_end_with_the_newest(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(18)
    for number, node in enumerate(nodes[1:]):
        record = sign(identity, 5 + number % 4)
        node._node.storage.put(identity.node_id, record.encode())
    found = await sequences(nodes[0], identity)
    assert found == sorted(set(found))
    assert found[-1] == 8
    assert await sequences(nodes[1], identity, newer_than=7) == [8]
    with pytest.raises(LookupFailed) as failed:
        await sequences(nodes[2], identity, newer_than=8)
    assert failed.value.reason is LookupFailure.SUPERSEDED


async def test_the_first_record_comes_before_the_slow_have_answered(
    start: Start, open_raw: Callable[..., Awaitable[Any]], identity: Identity, sign: Sign
) -> None:
    holder, slow = await start(), await open_raw()
    slow.answer = slow.as_server
    record = sign(identity, 5)
    holder._node.storage.put(identity.node_id, record.encode())
    limits = DHTLimits(soft_timeout_min_s=60, soft_timeout_s=60, reply_timeout_max_s=60,
                       reply_timeout_min_s=60)  # fmt: skip
    node = await start(holder, f"{slow.address[0]}:{slow.address[1]}", limits=limits)
    slow.answer = None
    async with (
        asyncio.timeout(5),
        contextlib.aclosing(node.resolve_stream(identity.node_id)) as stream,
    ):
        assert await anext(stream) == record
        assert len(node._resolver._searches) == 1
        # From now on, even if this process is killed before the search is over.
        assert node._resolver._floor[identity.node_id] == 5
    assert len(node._resolver._searches) == 0
    while node._calls:
        await asyncio.wait(node._calls)
    assert len(node._node.protocol.asker.queries) == 0


async def test_a_stream_that_is_open_ends_when_the_node_is_closed(
    start: Start, open_raw: Callable[..., Awaitable[Any]], identity: Identity
) -> None:
    slow = await open_raw()
    slow.answer = slow.as_server
    node = await start(f"{slow.address[0]}:{slow.address[1]}")
    slow.answer = None
    waiting = asyncio.create_task(sequences(node, identity))
    async with asyncio.timeout(5):
        await slow.received.get()
        await node.close()
        with pytest.raises(NodeClosed):
            await waiting


async def test_a_call_that_its_caller_cancels_is_cancelled_though_the_node_is_closing(
    start: Start, open_raw: Callable[..., Awaitable[Any]], identity: Identity
) -> None:
    """A timeout around it would otherwise end in NodeClosed."""
    slow = await open_raw()
    slow.answer = slow.as_server
    node = await start(f"{slow.address[0]}:{slow.address[1]}")
    slow.answer = None
    calls = [
        asyncio.create_task(call)
        for call in (node.resolve(identity.node_id), sequences(node, identity))
    ]
    await slow.received.get()
    closing = asyncio.create_task(node.close())
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await closing
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)


async def test_a_stream_does_not_begin_to_search_after_the_node_was_closed(
    network: Network, identity: Identity, sign: Sign
) -> None:
    """What it knew by heart was read at leisure, and the node is gone meanwhile."""
    nodes = await network(3)
    record = sign(identity, 5)
    await nodes[1].publish(record)
    tasks = asyncio.all_tasks()
    async with contextlib.aclosing(nodes[1].resolve_stream(identity.node_id)) as stream:
        assert await anext(stream) == record
        await nodes[1].close()
        with pytest.raises(NodeClosed):
            await anext(stream)
    assert asyncio.all_tasks() <= tasks


async def test_what_a_stream_told_is_not_gone_below(
    start: Start, identity: Identity, sign: Sign
) -> None:
    server = await start()
    client = await start(server, server=False)
    server._node.storage.put(identity.node_id, sign(identity, 6).encode())
    assert await sequences(client, identity) == [6]
    assert client._resolver._floor[identity.node_id] == 6
    server._node.storage._drop([identity.node_id])
    server._node.storage._floor._highest.clear()
    server._node.storage.put(identity.node_id, sign(identity, 5).encode())
    assert await sequences(client, identity) == [6]  # from a moment ago
    client._resolver._answers.forget(identity.node_id)
    with pytest.raises(LookupFailed):
        await sequences(client, identity)


async def test_a_search_is_shared_by_streams_and_others(
    network: Network, identity: Identity, sign: Sign
) -> None:
    nodes = await network(5)
    await nodes[0].publish(sign(identity, 5))
    before = nodes[1].counters["sent_find_value"]
    one, two, three = await asyncio.gather(
        sequences(nodes[1], identity),
        nodes[1].resolve(identity.node_id),
        nodes[1].resolve(identity.node_id, fresh=True),
    )
    assert (one, two.sequence, three.sequence) == ([5], 5, 5)
    assert nodes[1].counters["sent_find_value"] - before == 4


async def test_chains_and_tables_stream_too(start: Start, identity: Identity, sign: Sign) -> None:
    table, newer = MemoryLookup(), MemoryLookup()
    node = await start()
    chain = LookupChain(table, node, newer)
    streaming: StreamingLookup = chain
    with pytest.raises(LookupFailed):
        await sequences(streaming, identity)
    await table.publish(sign(identity, 5))
    await newer.publish(sign(identity, 7))
    assert await sequences(chain, identity) == [5, 7]
    assert await sequences(chain, identity, newer_than=5) == [7]
    assert (await chain.resolve(identity.node_id)).sequence == 5
    assert (await chain.resolve(identity.node_id, fresh=True)).sequence == 7


async def test_a_service_that_does_not_stream_is_a_stream_of_one(
    identity: Identity, sign: Sign
) -> None:
    table = MemoryLookup()
    await table.publish(sign(identity, 5))

    class Plain:
        resolve = table.resolve
        publish = table.publish

    found = [it.sequence async for it in resolve_stream(Plain(), identity.node_id)]
    assert found == [5]
    fresh = await LookupChain(Plain()).resolve(identity.node_id, fresh=True)
    assert fresh.sequence == 5


async def test_an_absent_peer_is_asked_for_once_in_a_moment(
    network: Network, identity: Identity, sign: Sign
) -> None:
    now = [1000.0]
    nodes = await network(4, elapsed=lambda: now[0])
    for _ in range(3):
        with pytest.raises(LookupFailed):
            await nodes[1].resolve(identity.node_id)
    assert nodes[1].counters["sent_find_value"] == 3
    assert nodes[1].counters["absent_from_cache"] == 2
    now[0] += 2
    await nodes[0].publish(sign(identity, 5))
    assert (await nodes[1].resolve(identity.node_id)).sequence == 5
    asked = nodes[1].counters["sent_find_value"]
    assert (await nodes[1].resolve(identity.node_id)).sequence == 5
    assert nodes[1].counters["sent_find_value"] == asked
    now[0] += 61
    await nodes[1].resolve(identity.node_id)
    assert nodes[1].counters["sent_find_value"] > asked


async def test_a_stream_of_an_absent_peer_asks_nobody_again_in_a_moment(
    network: Network, identity: Identity
) -> None:
    nodes = await network(4, elapsed=lambda: 1000.0)
    for _ in range(3):
        with pytest.raises(LookupFailed) as failed:
            await sequences(nodes[1], identity)
        assert failed.value.reason is LookupFailure.NOT_FOUND
    assert nodes[1].counters["sent_find_value"] == 3
    assert nodes[1].counters["absent_from_cache"] == 2


async def test_an_absent_record_is_not_waited_for(network: Network, identity: Identity) -> None:
    """When all that were asked have answered, it is over: not a soft timeout later."""
    nodes = await network(25, limits=DHTLimits(soft_timeout_s=30, soft_timeout_min_s=30))
    async with asyncio.timeout(5):
        with pytest.raises(LookupFailed):
            await nodes[7].resolve(identity.node_id)


async def test_published_says_of_how_many_networks_the_holders_are(
    start: Start, identity: Identity, sign: Sign
) -> None:
    seed = await start(listen="127.0.5.1:0")
    for third in (5, 6, 7):
        await start(seed, listen=f"127.0.{third}.2:0")
    published = await seed.publish(sign(identity, 5))
    assert (published.stored, published.networks) == (3, 3)

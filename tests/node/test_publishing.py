"""The lookup service's copy of a node's record is kept true."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from egtp import (
    CommRecord,
    Identity,
    MemoryLookup,
    Node,
    NodeId,
    Published,
    PublishFailed,
    SignedCommRecord,
)
from egtp.events import Event, RecordPublished
from tests.node.at_hand import Eventually, MakeIdentity, Problems, Start, engine_of
from tests.node.watched_lookup import Watched


def record_of(identity: Identity, sequence: int) -> SignedCommRecord:
    content = CommRecord(int(time.time()) + 3600, bytes(8), ((1, identity.channel_key),))
    return SignedCommRecord.sign(identity, sequence, content)


async def published(node: Node, limit_s: float = 4) -> Published:
    async with asyncio.timeout(limit_s):
        return await node.published()


async def test_a_record_is_published_on_start_and_on_every_change(start: Start) -> None:
    watched, events = Watched(), list[Event]()
    node = await start(lookup=watched, observer=events.append)
    assert await published(node) == Published(stored=1, asked=1)
    assert watched.published == [node.record]
    for host in ("127.0.0.2", "127.0.0.3"):
        await node.listen(f"{host}:0")
        await published(node)
        assert watched.published[-1] == node.record
        assert node.record.tcp[0].address.host == host
    sequences = [record.sequence for record in watched.published]
    assert sequences == sorted(set(sequences))
    told = [event.record for event in events if isinstance(event, RecordPublished)]
    assert told == watched.published


async def test_nothing_is_published_again_when_nothing_changed(start: Start) -> None:
    watched = Watched()
    node = await start(lookup=watched)
    await published(node)
    await node.listen(node.listening)
    await published(node)
    assert len(watched.published) == 1


async def test_many_changes_in_a_row_end_with_the_last_one_published(start: Start) -> None:
    watched = Watched()
    node = await start(lookup=watched)
    for number in range(2, 12):
        await node.listen(f"127.0.0.{number}:0")
    await published(node)
    assert watched.published[-1] == node.record
    assert node.record.tcp[0].address.host == "127.0.0.11"


async def test_a_change_while_a_publish_is_under_way_is_published_after_it(start: Start) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(Watched):
        async def publish(self, record: SignedCommRecord) -> Published:
            entered.set()
            await release.wait()
            return await super().publish(record)

    slow = Slow()
    node = await start(lookup=slow)
    await entered.wait()
    first = node.record
    await node.listen("127.0.0.2:0")
    waiting = asyncio.ensure_future(node.published())
    release.set()
    async with asyncio.timeout(2):
        await waiting
    assert slow.published == [first, node.record]


async def test_a_first_lookup_that_raises_something_unexpected_does_not_stop_publishing(
    start: Start, problems: Problems
) -> None:
    class Broken(Watched):
        async def resolve(self, *args: Any, **options: Any) -> SignedCommRecord:
            raise OSError("the database is gone")

    broken = Broken()
    node = await start(lookup=broken)
    await published(node)
    problems.clear()


async def test_a_higher_sequence_that_is_found_is_gone_above(
    start: Start, identity: MakeIdentity
) -> None:
    who, watched = identity(), Watched()
    await watched.publish(record_of(who, 2**40))
    node = await start(who, lookup=watched)
    await published(node)
    assert node.record.sequence == 2**40 + 1
    assert await watched.resolve(who.node_id) == node.record


async def test_a_newer_record_is_gone_above_though_the_service_knows_the_older_by_heart(
    start: Start, identity: MakeIdentity
) -> None:
    """As a DHT node does, for a minute after it was given one to store."""

    class Remembering(Watched):
        async def resolve(
            self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
        ) -> SignedCommRecord:
            if self.published and not fresh:
                return self.published[-1]
            return await super().resolve(peer_id, newer_than=newer_than)

        async def resolve_stream(
            self, peer_id: NodeId, *, newer_than: int = 0
        ) -> AsyncGenerator[SignedCommRecord, None]:
            yield await self.resolve(peer_id, newer_than=newer_than)

    who, lookup = identity(), Remembering()
    node = await start(who, lookup=lookup)
    await published(node)
    await MemoryLookup.publish(lookup, record_of(who, 2**40))
    await node.listen("127.0.0.2:0")
    await published(node)
    assert node.record.sequence > 2**40
    assert node.counters["publish failed"] == 1


async def test_an_own_record_that_somebody_else_signed_is_gone_above_and_published(
    start: Start, identity: MakeIdentity
) -> None:
    who, watched = identity(), Watched()
    node = await start(who, lookup=watched)
    await published(node)
    node.add_contact(record_of(who, 2**40))
    assert node.counters["this identity runs elsewhere"] == 1
    assert node.record.sequence > 2**40
    await published(node)
    assert watched.published[-1] == node.record


async def test_without_a_lookup_service_published_says_so(start: Start) -> None:
    node = await start(lookup=None)
    with pytest.raises(PublishFailed):
        await node.published()


async def test_closing_ends_the_wait_for_a_publish(start: Start) -> None:
    node = await start(lookup=Watched(failures=10**6))
    waiting = asyncio.ensure_future(node.published())
    await asyncio.sleep(0)
    await node.close()
    with pytest.raises(PublishFailed):
        await waiting


async def test_an_identity_that_runs_twice_warns_both(start: Start, lookup: MemoryLookup) -> None:
    who = Identity.generate(os.urandom)
    first = await start(who)
    second = await start(who)
    assert second.record.sequence > first.record.sequence
    first.add_contact(second.record)
    assert first.counters["this identity runs elsewhere"] == 1


async def test_a_mistake_that_ends_the_work_in_the_background_is_told(
    start: Start, problems: Problems, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody awaits it, and without it nobody finds the node for long."""
    node = await start()
    engine = engine_of(node)

    def mistaken(*_: object) -> float:
        raise KeyError("a mistake")

    monkeypatch.setattr(engine.publisher, "_half_life_s", mistaken)
    engine.publisher.look_again()
    monkeypatch.setattr(engine.addresses._own, "due", mistaken)
    engine.addresses._wake.set()
    await eventually(lambda: len(problems) == 2)
    assert sorted(problem["message"] for problem in problems) == [
        "own addresses are no longer watched",
        "the record is no longer published",
    ]
    problems.clear()

"""Lookup services: a table that never goes backward, and several services as one (R7)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import cast

import pytest

from egtp.errors import InvalidConfig, LookupFailed, LookupFailure, NodeClosed, PublishFailed
from egtp.lookup import (
    LookupChain,
    LookupRace,
    LookupService,
    MemoryLookup,
    Published,
    ending,
)
from egtp.values.comm_record import CommRecord, SignedCommRecord, supersedes
from egtp.values.identity import Identity, NodeId

FAR_FUTURE_UNIX_S = 2**40


def made(
    identity: Identity, sequence: int, mark: int = 0, expiry_unix_s: int = FAR_FUTURE_UNIX_S
) -> SignedCommRecord:
    content = CommRecord(expiry_unix_s, bytes([mark]) * 8, ((1, identity.channel_key),))
    return SignedCommRecord.sign(identity, sequence, content)


@dataclass
class Recorded:
    """A lookup service with a fixed answer, which remembers what it was asked."""

    answer: SignedCommRecord | LookupFailure | None = None
    published: Published | str = field(default_factory=lambda: Published(1, 1))
    asked: list[tuple[NodeId, int]] = field(default_factory=list)
    records: list[SignedCommRecord] = field(default_factory=list)

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        self.asked.append((peer_id, newer_than))
        if isinstance(self.answer, SignedCommRecord):
            return self.answer
        raise LookupFailed(self.answer or LookupFailure.NOT_FOUND)

    async def publish(self, record: SignedCommRecord) -> Published:
        self.records.append(record)
        if isinstance(self.published, str):
            raise PublishFailed(self.published)
        return self.published


async def test_what_is_published_is_found(alice: Identity, bob: Identity) -> None:
    lookup = MemoryLookup()
    mine, his = made(alice, 1), made(bob, 1)
    assert await lookup.publish(mine) == Published(stored=1, asked=1)
    assert await lookup.publish(his) == Published(stored=1, asked=1)
    assert await lookup.resolve(alice.node_id) == mine
    assert await lookup.resolve(bob.node_id) == his


async def test_an_unknown_peer_is_not_found(alice: Identity, bob: Identity) -> None:
    lookup = MemoryLookup()
    await lookup.publish(made(alice, 1))
    with pytest.raises(LookupFailed) as caught:
        await lookup.resolve(bob.node_id)
    assert caught.value.reason is LookupFailure.NOT_FOUND


async def test_a_record_that_is_not_newer_is_superseded(alice: Identity) -> None:
    lookup = MemoryLookup()
    record = made(alice, 5)
    await lookup.publish(record)
    assert await lookup.resolve(alice.node_id, newer_than=4) == record
    for newer_than in (5, 6, 2**48):
        with pytest.raises(LookupFailed) as caught:
            await lookup.resolve(alice.node_id, newer_than=newer_than)
        assert caught.value.reason is LookupFailure.SUPERSEDED


async def test_a_table_never_goes_backward_whatever_the_order(alice: Identity) -> None:
    records = [made(alice, 1), made(alice, 2, 1), made(alice, 2, 2), made(alice, 3)]
    for order in itertools.permutations(records):
        lookup = MemoryLookup()
        newest: SignedCommRecord | None = None
        for record in order:
            if supersedes(record, newest):
                newest = record
                await lookup.publish(record)
            else:
                with pytest.raises(PublishFailed):
                    await lookup.publish(record)
            assert await lookup.resolve(alice.node_id) == newest
        assert newest == records[3]


async def test_publishing_the_same_record_again_is_no_failure(alice: Identity) -> None:
    lookup = MemoryLookup()
    record = made(alice, 5)
    await lookup.publish(record)
    same = SignedCommRecord.decode(record.encode())
    assert await lookup.publish(same) == Published(stored=1, asked=1)
    assert await lookup.resolve(alice.node_id) == record


async def test_two_tables_share_nothing(alice: Identity) -> None:
    one, other = MemoryLookup(), MemoryLookup()
    await one.publish(made(alice, 1))
    with pytest.raises(LookupFailed):
        await other.resolve(alice.node_id)


async def test_an_expired_record_is_not_resolved(alice: Identity) -> None:
    """Expiry governs storing, serving and resolving; this one ended in 1970."""
    lookup = MemoryLookup()
    with contextlib.suppress(PublishFailed):
        await lookup.publish(made(alice, 1, expiry_unix_s=1))
    with pytest.raises(LookupFailed):
        await lookup.resolve(alice.node_id)


async def test_a_chain_asks_in_order_and_stops_at_the_first_record(alice: Identity) -> None:
    first = Recorded(LookupFailure.NO_RESPONSES)
    second, third = Recorded(made(alice, 3)), Recorded(made(alice, 9))
    chain = LookupChain(first, second, third)
    assert await chain.resolve(alice.node_id, newer_than=2) == second.answer
    assert first.asked == second.asked == [(alice.node_id, 2)]
    assert third.asked == []


async def test_a_chain_goes_on_when_a_service_knows_only_older_records(alice: Identity) -> None:
    old, new = MemoryLookup(), MemoryLookup()
    await old.publish(made(alice, 3))
    await new.publish(made(alice, 4))
    chain = LookupChain(old, new)
    assert (await chain.resolve(alice.node_id)).sequence == 3
    assert (await chain.resolve(alice.node_id, newer_than=3)).sequence == 4
    with pytest.raises(LookupFailed) as caught:
        await chain.resolve(alice.node_id, newer_than=4)
    assert caught.value.reason is LookupFailure.SUPERSEDED


async def test_a_chain_fails_with_the_reason_that_says_most(alice: Identity) -> None:
    services = [Recorded(LookupFailure.NO_RESPONSES), Recorded(LookupFailure.INVALID)]
    with pytest.raises(LookupFailed) as caught:
        await LookupChain(*services).resolve(alice.node_id)
    assert caught.value.reason is LookupFailure.INVALID
    assert [len(service.asked) for service in services] == [1, 1]


@pytest.mark.parametrize("kind", [LookupChain, LookupRace])
@pytest.mark.parametrize(
    "unasked", [LookupFailure.NO_NODES, LookupFailure.NO_NETWORK, LookupFailure.NO_RESPONSES]
)
async def test_that_there_is_no_record_says_more_than_that_another_service_cannot_be_asked(
    kind: type[LookupChain], unasked: LookupFailure, alice: Identity
) -> None:
    """As a DHT over a version of IP that leads nowhere, which may fail first or last."""
    services = [Recorded(LookupFailure.NOT_FOUND), Recorded(unasked)]
    for one in (kind(*services), kind(*reversed(services))):
        for search in (
            one.resolve(alice.node_id),
            one.resolve(alice.node_id, fresh=True),
            anext(one.resolve_stream(alice.node_id)),
        ):
            with pytest.raises(LookupFailed) as caught:
                await search
            assert caught.value.reason is LookupFailure.NOT_FOUND


async def test_a_chain_of_nothing_fails_both_ways(alice: Identity) -> None:
    with pytest.raises(LookupFailed) as caught:
        await LookupChain().resolve(alice.node_id)
    assert caught.value.reason is LookupFailure.NO_NODES
    with pytest.raises(PublishFailed):
        await LookupChain().publish(made(alice, 1))


async def test_a_chain_publishes_to_all_and_adds_up(alice: Identity) -> None:
    services = [
        Recorded(published=Published(3, 20)),
        Recorded(published="no node stored it"),
        Recorded(published=Published(2, 5)),
    ]
    record = made(alice, 1)
    published = await LookupChain(*services).publish(record)
    assert published.stored == 5
    assert published.asked >= 25
    assert published.failed == 1
    assert [service.records for service in services] == [[record]] * 3


async def test_a_chain_that_stored_nothing_says_why(alice: Identity) -> None:
    services = [Recorded(published="the table is full"), Recorded(published="no node answered")]
    with pytest.raises(PublishFailed) as caught:
        await LookupChain(*services).publish(made(alice, 1))
    assert "the table is full" in str(caught.value)
    assert "no node answered" in str(caught.value)
    assert [len(service.records) for service in services] == [1, 1]


async def test_a_chain_is_a_service_and_can_be_chained(alice: Identity) -> None:
    table = MemoryLookup()
    chain: LookupService = LookupChain(LookupChain(), LookupChain(table))
    record = made(alice, 1)
    published = await chain.publish(record)
    assert published == Published(1, 1)
    assert published.failed == 1
    assert await chain.resolve(alice.node_id) == record


async def test_cancelling_a_chain_cancels_the_service_and_asks_no_other(alice: Identity) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    class Endless(Recorded):
        async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return await super().resolve(peer_id, newer_than=newer_than)

    last = Recorded(made(alice, 1))
    task = asyncio.create_task(LookupChain(Endless(), last).resolve(alice.node_id))
    async with asyncio.timeout(5):
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert stopped.is_set()
    assert last.asked == []


class Slow(Recorded):
    """Answers when it is told to."""

    def __init__(self, answer: SignedCommRecord | LookupFailure) -> None:
        super().__init__(answer)
        self.may_answer = asyncio.Event()
        self.ended = False

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        try:
            await self.may_answer.wait()
            return await super().resolve(peer_id, newer_than=newer_than)
        finally:
            self.ended = True


async def test_in_a_race_nobody_waits_for_the_slow_one(alice: Identity) -> None:
    slow, quick = Slow(made(alice, 9)), Recorded(made(alice, 3))
    assert await LookupRace(slow, quick).resolve(alice.node_id) == quick.answer
    assert slow.ended


async def test_in_a_race_a_failure_waits_for_the_others(alice: Identity) -> None:
    slow, failing = Slow(made(alice, 9)), Recorded(LookupFailure.NO_RESPONSES)
    search = asyncio.ensure_future(LookupRace(failing, slow).resolve(alice.node_id))
    await asyncio.sleep(0)
    slow.may_answer.set()
    assert await search == slow.answer


async def test_a_race_that_nobody_wins_fails_with_a_reason(alice: Identity) -> None:
    services = [Recorded(LookupFailure.NO_RESPONSES), Recorded(LookupFailure.INVALID)]
    with pytest.raises(LookupFailed) as caught:
        await LookupRace(*services).resolve(alice.node_id)
    assert caught.value.reason is LookupFailure.INVALID
    with pytest.raises(LookupFailed) as caught:
        await LookupRace().resolve(alice.node_id)
    assert caught.value.reason is LookupFailure.NO_NODES


async def test_a_fresh_race_waits_for_all_and_the_newest_wins(alice: Identity) -> None:
    slow, quick = Slow(made(alice, 9)), Recorded(made(alice, 3))
    search = asyncio.ensure_future(LookupRace(slow, quick).resolve(alice.node_id, fresh=True))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not search.done()
    slow.may_answer.set()
    assert await search == slow.answer


async def test_cancelling_a_race_ends_every_search(alice: Identity) -> None:
    services = [Slow(made(alice, 1)), Slow(made(alice, 2))]
    search = asyncio.ensure_future(LookupRace(*services).resolve(alice.node_id))
    for _ in range(5):
        await asyncio.sleep(0)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    assert all(service.ended for service in services)


async def test_a_stream_of_a_race_tells_the_first_at_once_and_then_only_newer_ones(
    alice: Identity,
) -> None:
    slow, older, quick = Slow(made(alice, 9)), Slow(made(alice, 2)), Recorded(made(alice, 3))
    async with contextlib.aclosing(
        LookupRace(slow, older, quick).resolve_stream(alice.node_id, newer_than=1)
    ) as stream:
        assert (await anext(stream)).sequence == 3
        older.may_answer.set()
        following = asyncio.ensure_future(anext(stream))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not following.done(), "an older one is not told"
        slow.may_answer.set()
        assert (await following).sequence == 9
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert quick.asked == [(alice.node_id, 1)]


class Watching(Recorded):
    """Tells its answer, and goes on looking."""

    async def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        yield await self.resolve(peer_id, newer_than=newer_than)
        await asyncio.Event().wait()


async def test_a_stream_of_a_race_tells_what_was_found_while_all_still_look(
    alice: Identity,
) -> None:
    stream = LookupRace(*[Watching(made(alice, 1))] * 2).resolve_stream(alice.node_id)
    async with asyncio.timeout(60), contextlib.aclosing(stream):
        assert await anext(stream) == made(alice, 1)


async def test_a_service_that_has_failed_in_part_or_stored_nothing_is_one_that_failed(
    alice: Identity,
) -> None:
    for other in (Published(2, 3, failed=1), Published(0, 3)):
        published = await LookupChain(Recorded(), Recorded(published=other)).publish(made(alice, 1))
        assert published.failed == 1


async def test_leaving_a_stream_of_a_race_ends_every_search(alice: Identity) -> None:
    slow, quick = Slow(made(alice, 9)), Recorded(made(alice, 3))
    stream = LookupRace(slow, quick).resolve_stream(alice.node_id)
    async with contextlib.aclosing(stream):
        await anext(stream)
        assert not slow.ended
    assert slow.ended


async def test_a_stream_of_a_race_fails_only_if_all_do(alice: Identity) -> None:
    failing, good = Recorded(LookupFailure.NO_RESPONSES), Recorded(made(alice, 3))
    told = [record async for record in LookupRace(failing, good).resolve_stream(alice.node_id)]
    assert told == [good.answer]
    for services, reason in (
        ([failing, failing], LookupFailure.NO_RESPONSES),
        ([], LookupFailure.NO_NODES),
    ):
        with pytest.raises(LookupFailed) as caught:
            await anext(LookupRace(*services).resolve_stream(alice.node_id))
        assert caught.value.reason is reason


class Broken(Recorded):
    """Raises what no lookup service should."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        raise self.error

    async def publish(self, record: SignedCommRecord) -> Published:
        raise self.error


class Hanging(Recorded):
    async def publish(self, record: SignedCommRecord) -> Published:
        await asyncio.Event().wait()
        return await super().publish(record)


@pytest.fixture
async def told() -> list[BaseException]:
    """What the event loop was told of."""
    errors: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: errors.append(context["exception"])
    )
    return errors


@pytest.mark.parametrize("kind", [LookupChain, LookupRace])
async def test_a_service_that_raises_keeps_nobody_from_the_record_of_another(
    alice: Identity, kind: type[LookupChain], told: list[BaseException]
) -> None:
    bug, good = OSError("the database is gone"), Recorded(made(alice, 3))
    for broken in (Broken(bug), Broken(NodeClosed("the service is closed"))):
        assert await kind(broken, good).resolve(alice.node_id) == good.answer
    assert told == [bug], "a bug is told of, what a service may well raise is not"
    with pytest.raises(LookupFailed, match="OSError: the database is gone"):
        await kind(Broken(bug)).resolve(alice.node_id)


@pytest.mark.parametrize("kind", [LookupChain, LookupRace])
async def test_a_stream_goes_on_after_a_service_that_raises(
    alice: Identity, kind: type[LookupChain], told: list[BaseException]
) -> None:
    bug, good = OSError("the database is gone"), Recorded(made(alice, 3))
    for services in (Broken(bug), good), (good, Broken(bug)):
        stream = kind(*services).resolve_stream(alice.node_id)
        assert [record async for record in stream] == [good.answer]
    assert told == [bug, bug]
    with pytest.raises(LookupFailed, match="OSError: the database is gone"):
        await anext(kind(Broken(bug)).resolve_stream(alice.node_id))


@pytest.mark.parametrize("kind", [LookupChain, LookupRace])
@pytest.mark.parametrize(
    "bad",
    [Hanging(), Broken(OSError("the database is gone")), Broken(NodeClosed("it is closed"))],
    ids=["hangs", "has a bug", "is closed"],
)
@pytest.mark.usefixtures("told")
async def test_a_service_that_stores_nothing_keeps_no_record_from_the_others(
    alice: Identity, kind: type[LookupChain], bad: Recorded
) -> None:
    good, record = Recorded(), made(alice, 1)
    published = await kind(bad, good, publish_timeout_s=0.01).publish(record)
    assert published == Published(1, 1)
    assert good.records == [record]


@pytest.mark.usefixtures("told")
async def test_all_are_published_to_at_once_and_what_became_of_each_is_said(
    alice: Identity,
) -> None:
    both_asked = asyncio.Barrier(2)

    class Waits(Recorded):
        async def publish(self, record: SignedCommRecord) -> Published:
            await both_asked.wait()
            return await super().publish(record)

    full = "the table is full"
    services = [Waits(published=full), Waits(published=full), Hanging(), Broken(OSError("gone"))]
    with pytest.raises(PublishFailed) as caught:
        await LookupChain(*services, publish_timeout_s=0.5).publish(made(alice, 1))
    assert str(caught.value) == f"{full}; {full}; Hanging did not answer in time; OSError: gone"


def test_who_is_dropped_while_a_stream_is_awaited_ends_quietly(alice: Identity) -> None:
    """As at the end of a process: nobody runs the loop any more, and nothing can be awaited."""
    ended = []

    async def waits() -> None:
        stream = LookupRace(Slow(made(alice, 1))).resolve_stream(alice.node_id)
        try:
            async with ending(stream) as records:
                async for _ in records:
                    pass
        except Exception as error:
            ended.append(error)

    async def drop() -> None:
        dropped = waits()
        dropped.send(None)
        dropped.close()

    asyncio.run(drop())
    assert ended == []


class CancelsItself(Recorded):
    """Awaits what somebody else has cancelled."""

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        raise asyncio.CancelledError

    async def publish(self, record: SignedCommRecord) -> Published:
        raise asyncio.CancelledError


class Forgets(Recorded):
    """Has no ``return``."""

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        return cast("SignedCommRecord", None)

    async def publish(self, record: SignedCommRecord) -> Published:
        return cast("Published", None)


@pytest.mark.parametrize("kind", [LookupChain, LookupRace])
@pytest.mark.parametrize("broken", [CancelsItself(), Forgets()], ids=["cancels", "forgets"])
async def test_a_service_that_cancels_itself_or_answers_nothing_is_one_that_failed(
    alice: Identity, kind: type[LookupChain], broken: Recorded, told: list[BaseException]
) -> None:
    good = Recorded(made(alice, 3))
    both = kind(broken, good)
    assert await both.resolve(alice.node_id) == good.answer
    assert [record async for record in both.resolve_stream(alice.node_id)] == [good.answer]
    assert await both.publish(made(alice, 4)) == Published(1, 1)
    # What resolve() and resolve_stream() fail with is the same, and told once.
    assert 0 < len(told) == len(set(map(str, told))) <= 2


def test_several_services_are_services_with_time_to_answer() -> None:
    for service in (None, "abc", MemoryLookup):
        with pytest.raises(InvalidConfig, match="each service must be"):
            LookupChain(service)  # type: ignore[arg-type]
    for timeout_s in (0, -1, float("nan"), float("inf"), "x", None):
        with pytest.raises(
            InvalidConfig, match="publish_timeout_s must be a number of seconds above 0"
        ):
            LookupRace(publish_timeout_s=timeout_s)  # type: ignore[arg-type]

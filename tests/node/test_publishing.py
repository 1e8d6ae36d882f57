"""The lookup service's copy of a node's record is kept true."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from egtp import (
    CommRecord,
    Environment,
    Identity,
    LookupFailed,
    LookupFailure,
    MemoryLookup,
    Node,
    NodeConfig,
    Published,
    PublishFailed,
    SignedCommRecord,
)
from egtp.events import Event, RecordNotPublished, RecordPublished
from egtp.identity_file import IdentityFile

Start = Callable[..., Awaitable[Node]]
Config = Callable[..., NodeConfig]
Eventually = Callable[..., Awaitable[None]]
MakeIdentity = Callable[[], Identity]
Problems = list[dict[str, Any]]


def record_of(identity: Identity, sequence: int) -> SignedCommRecord:
    content = CommRecord(int(time.time()) + 3600, bytes(8), ((1, identity.channel_key),))
    return SignedCommRecord.sign(identity, sequence, content)


class Watched(MemoryLookup):
    """Remembers what was published; fails as often as it is told to."""

    def __init__(self, failures: int = 0, error: type[Exception] = PublishFailed) -> None:
        super().__init__()
        self.published: list[SignedCommRecord] = []
        self.failures = failures
        self.error = error
        self.attempts = 0

    async def publish(self, record: SignedCommRecord) -> Published:
        self.attempts += 1
        if self.failures:
            self.failures -= 1
            raise self.error("not now")
        published = await super().publish(record)
        self.published.append(record)
        return published


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


async def test_a_publish_that_fails_is_tried_again(start: Start) -> None:
    watched = Watched(failures=1)
    node = await start(lookup=watched)
    await published(node)
    assert (watched.attempts, node.counters["publish failed"]) == (2, 1)


async def test_a_publish_that_raises_something_unexpected_is_tried_again(
    start: Start, problems: Problems
) -> None:
    watched = Watched(failures=1, error=OSError)
    node = await start(lookup=watched)
    await published(node)
    assert watched.published == [node.record]
    problems.clear()


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


async def test_a_publish_that_hangs_is_given_up_and_tried_again(
    start: Start, config: Config
) -> None:
    class Hanging(Watched):
        async def publish(self, record: SignedCommRecord) -> Published:
            if not self.attempts:
                self.attempts += 1
                await asyncio.Event().wait()
            return await super().publish(record)

    node = await start(lookup=Hanging(), config=config(lookup_timeout_s=0.1))
    await published(node)


async def test_a_higher_sequence_that_is_found_is_gone_above(
    start: Start, identity: MakeIdentity
) -> None:
    who, watched = identity(), Watched()
    await watched.publish(record_of(who, 2**40))
    node = await start(who, lookup=watched)
    await published(node)
    assert node.record.sequence == 2**40 + 1
    assert await watched.resolve(who.node_id) == node.record


async def test_a_higher_sequence_that_is_found_only_later_is_gone_above(
    start: Start, identity: MakeIdentity
) -> None:
    """The lookup service could not be asked when the node started."""
    who = identity()

    class LateToAnswer(Watched):
        asked = 0

        async def resolve(self, peer_id: Any, *, newer_than: int = 0) -> SignedCommRecord:
            self.asked += 1
            if self.asked == 1:
                raise LookupFailed(LookupFailure.NO_RESPONSES)
            return await super().resolve(peer_id, newer_than=newer_than)

    late = LateToAnswer()
    await late.publish(record_of(who, 2**40))
    node = await start(who, lookup=late)
    await published(node)
    assert (await late.resolve(who.node_id)).encode() == node.record.encode()


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


async def test_the_record_is_renewed_before_it_ends(
    start: Start, config: Config, eventually: Eventually
) -> None:
    watched = Watched()
    # Expiry counts whole seconds, so the first record lasts for 3 to 4 of them.
    node = await start(lookup=watched, config=config(record_lifetime_s=4))
    await published(node)
    first = watched.published[0]

    def longer() -> list[SignedCommRecord]:
        return [r for r in watched.published if r.expiry_unix_s > first.expiry_unix_s]

    await eventually(longer, 5)
    assert not first.expired(time.time()), "renewed too late"
    assert longer()[0].sequence > first.sequence
    assert node.record == watched.published[-1]


async def test_the_record_is_renewed_while_publishing_fails(
    start: Start, config: Config, eventually: Eventually
) -> None:
    """Once the lookup service is back it must be given a record that is still good."""
    watched = Watched(failures=2)
    node = await start(lookup=watched, config=config(record_lifetime_s=2))
    await eventually(lambda: watched.published, 6)
    assert not watched.published[-1].expired(time.time())
    assert watched.published[-1] == node.record


async def test_a_record_signed_while_the_clock_was_ahead_is_signed_again_when_it_is_right(
    start: Start, eventually: Eventually
) -> None:
    """As every node of the DHT, this service refuses what ends too late."""
    ahead_s = 30 * 86_400.0

    class Strict(Watched):
        async def publish(self, record: SignedCommRecord) -> Published:
            if record.expiry_unix_s > time.time() + 86_400:
                self.attempts += 1
                raise PublishFailed("it ends too late")
            return await super().publish(record)

    strict = Strict()
    node = await start(
        lookup=strict, environment=Environment(unix_time=lambda: time.time() + ahead_s)
    )
    await eventually(lambda: strict.attempts)
    ahead_s = 0.0
    await published(node)
    assert node.record.expiry_unix_s <= time.time() + node.config.record_lifetime_s


async def test_a_node_without_a_lookup_service_renews_its_record_too(
    start: Start, config: Config, eventually: Eventually
) -> None:
    """It shows the record in handshakes; one that has expired is not believed."""
    node = await start(lookup=None, config=config(record_lifetime_s=1))
    first = node.record
    await eventually(lambda: node.record.expiry_unix_s > first.expiry_unix_s, 3)


async def test_a_peer_is_known_by_the_handshake_after_its_first_record_would_have_ended(
    start: Start, config: Config
) -> None:
    """A relay without a lookup service, two hours after its start, for instance."""
    shift_s = 0.0
    environment = Environment(unix_time=lambda: time.time() + shift_s)
    node = await start(lookup=None, environment=environment, listen=())
    server = await start(lookup=None, environment=environment)

    @server.handler("greet")
    async def greet(query: Any) -> bytes:
        return b"hello"

    shift_s = 2.5 * 3600
    node.add_contact(server.record)
    assert await node.query(server.node_id, "greet") == b"hello"
    known = server._engine.book.find(node.node_id)  # type: ignore[union-attr]
    assert known is not None
    assert known.record is not None


async def test_whoever_is_connected_is_given_a_record_that_was_renewed(
    start: Start, eventually: Eventually
) -> None:
    shift_s = 0.0
    environment = Environment(unix_time=lambda: time.time() + shift_s)
    node, server = await start(environment=environment), await start(environment=environment)

    @server.handler("greet")
    async def greet(query: Any) -> bytes:
        return b"hello"

    await node.query(server.node_id, "greet")
    first = server.record.sequence
    shift_s = 0.7 * server.config.record_lifetime_s
    server._engine.publisher.look_again()  # type: ignore[union-attr]
    await eventually(lambda: server.record.sequence > first)
    await eventually(lambda: node.why(server.node_id).record == server.record)


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


async def test_a_cancelled_wait_for_a_publish_disturbs_no_other(start: Start) -> None:
    watched = Watched(failures=1)
    node = await start(lookup=watched)
    first, second = (asyncio.ensure_future(node.published()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(4):
        assert (await second).stored == 1


async def test_an_identity_that_runs_twice_warns_both(start: Start, lookup: MemoryLookup) -> None:
    who = Identity.generate(os.urandom)
    first = await start(who)
    second = await start(who)
    assert second.record.sequence > first.record.sequence
    first.add_contact(second.record)
    assert first.counters["this identity runs elsewhere"] == 1


class Disk:
    """An identity file on a disk that is full while it is told so."""

    def __init__(self, folder: Path) -> None:
        self.file = IdentityFile.open(folder / "identity")
        self._folder, self._aside = folder, folder.with_name("aside")

    def is_full(self) -> None:
        # Root may write wherever there is a folder.
        self._folder.rename(self._aside)

    def has_room(self) -> None:
        self._aside.rename(self._folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "folder"
    folder.mkdir()
    disk = Disk(folder)
    yield disk
    disk.file.close()


NOT_SIGNED = "own record not signed: its sequence could not be stored"


async def test_a_record_that_could_not_be_renewed_is_renewed_once_there_is_room(
    start: Start, config: Config, eventually: Eventually, disk: Disk
) -> None:
    watched = Watched()
    node = await start(disk.file, lookup=watched, config=config(record_lifetime_s=2))
    await published(node)
    before = node.record
    disk.is_full()
    await eventually(lambda: node.counters[NOT_SIGNED])
    assert node.record is before
    disk.has_room()
    await eventually(lambda: watched.published[-1].sequence > before.sequence)
    assert node.record == watched.published[-1]
    assert node.record.sequence == disk.file.load_sequence()


async def test_a_change_that_could_not_be_signed_is_published_once_there_is_room(
    start: Start, disk: Disk
) -> None:
    watched = Watched()
    node = await start(disk.file, lookup=watched)
    await published(node)
    before = node.record
    disk.is_full()
    await node.listen("127.0.0.2:0")
    await node.listen("127.0.0.3:0")
    assert node.record is before
    assert node.counters[NOT_SIGNED] == 1, "each attempt costs a full disk a write"
    waiting = asyncio.ensure_future(node.published())
    disk.has_room()
    async with asyncio.timeout(4):
        await waiting
    assert [s.address.host for s in watched.published[-1].tcp] == ["127.0.0.3"]


async def test_who_runs_a_node_is_told_once_that_its_record_cannot_be_signed(
    start: Start, eventually: Eventually, disk: Disk
) -> None:
    events: list[Event] = []
    node = await start(disk.file, lookup=Watched(), observer=events.append)
    await published(node)
    before = node.record
    disk.is_full()
    await node.listen("127.0.0.2:0")
    await eventually(lambda: node.counters[NOT_SIGNED] == 2)
    (told,) = [event for event in events if isinstance(event, RecordNotPublished)]
    assert (told.record, told.again_s) == (before, 0.5)
    assert told.reason.startswith("its sequence cannot be stored (cannot use ")
    stored = events.count(RecordPublished(before, Published(1, 1)))
    node._engine.publisher.look_again()  # type: ignore[union-attr]
    await eventually(lambda: events.count(RecordPublished(before, Published(1, 1))) > stored)
    assert node.statistics()["record_not_published"] == told.reason, "the one before is published"
    disk.has_room()
    async with asyncio.timeout(4):
        await node.published()
    assert node.statistics()["record_not_published"] is None


async def test_a_record_that_cannot_be_signed_is_logged_once_each_time(
    start: Start, eventually: Eventually, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start(disk.file, lookup=None)
    for host in ("127.0.0.2", "127.0.0.3"):
        tries = node.counters[NOT_SIGNED]
        disk.is_full()
        await node.listen(f"{host}:0")
        await eventually(lambda tries=tries: node.counters[NOT_SIGNED] == tries + 2)
        disk.has_room()
        await eventually(lambda: node.statistics()["record_not_published"] is None)
    logged = [record.message for record in caplog.records if record.name == "egtp"]
    assert ["its sequence cannot be stored" in message for message in logged] == [True, True]


async def test_queries_go_both_ways_while_an_expired_record_cannot_be_signed_again(
    start: Start, disk: Disk
) -> None:
    """A machine wakes up on the morning after, with its disk full."""
    shift_s = 0.0
    environment = Environment(unix_time=lambda: time.time() + shift_s)
    node = await start(disk.file, lookup=None, environment=environment)
    others = [await start(lookup=None) for _ in range(2)]

    async def greet(query: Any) -> bytes:
        return b"hello"

    for one in (node, *others):
        one.handle("greet", greet)
    disk.is_full()
    shift_s = 3 * 3600.0
    node.add_contact(others[0].link)
    assert await node.query(others[0].node_id, "greet") == b"hello"
    others[1].add_contact(node.link)
    assert await others[1].query(node.node_id, "greet") == b"hello"
    assert node.counters[NOT_SIGNED] == 1
    disk.has_room()


async def test_a_node_that_closes_while_its_record_cannot_be_signed_leaves_no_timer(
    start: Start, disk: Disk
) -> None:
    node = await start(disk.file)
    disk.is_full()
    await node.listen("127.0.0.2:0")
    await node.close()
    disk.has_room()
    signing = node._engine.publisher._signing  # type: ignore[union-attr]
    assert signing is not None
    assert signing.cancelled()

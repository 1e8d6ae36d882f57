"""A node whose disk is full cannot store the sequence of its next record, and so signs none.

In virtual time; the disk is a real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from egtp import Node, Published
from egtp.events import Event, RecordNotPublished, RecordPublished
from egtp.identity_file import IdentityFile
from egtp.own.publishing import RETRY_MAX_S
from tests.lab import Lab, in_lab
from tests.node.at_hand import Eventually, engine_of
from tests.node.watched_lookup import Watched

NOT_SIGNED: Final = "own record not signed: its sequence could not be stored"


class World(Lab):
    async def published(self, node: Node) -> Published:
        async with asyncio.timeout(4):
            return await self.hosts[node].run(node.published())

    async def moves(self, node: Node, port: int) -> None:
        """It is reached otherwise from now on, which a new record must say."""
        host = self.hosts[node]
        await host.run(node.listen(f"{host.addresses[0]}:{port}"))


def play(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    in_lab(World, story)


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


def test_a_record_that_could_not_be_renewed_is_renewed_once_there_is_room(disk: Disk) -> None:
    async def story(world: World) -> None:
        watched = Watched(unix_time=world.network.story.unix_time)
        node = await world.node(identity=disk.file, lookup=watched)
        await world.published(node)
        before = node.record
        disk.is_full()
        await asyncio.sleep(1.5 * 3600)
        assert node.counters[NOT_SIGNED] > 1
        assert node.record is before
        disk.has_room()
        await asyncio.sleep(RETRY_MAX_S + 1)
        assert watched.published[-1].sequence > before.sequence
        assert node.record == watched.published[-1]
        assert node.record.sequence == disk.file.load_sequence()

    play(story)


def test_a_change_that_could_not_be_signed_is_published_once_there_is_room(disk: Disk) -> None:
    async def story(world: World) -> None:
        watched = Watched(unix_time=world.network.story.unix_time)
        node = await world.node(identity=disk.file, lookup=watched)
        await world.published(node)
        before = node.record
        disk.is_full()
        await world.moves(node, 4001)
        await world.moves(node, 4002)
        assert node.record is before
        assert node.counters[NOT_SIGNED] == 1, "each attempt costs a full disk a write"
        waiting = asyncio.ensure_future(world.published(node))
        disk.has_room()
        await waiting
        assert [s.address.port for s in watched.published[-1].tcp] == [4002]

    play(story)


def test_who_runs_a_node_is_told_once_that_its_record_cannot_be_signed(
    eventually: Eventually, disk: Disk
) -> None:
    async def story(world: World) -> None:
        events: list[Event] = []
        watched = Watched(unix_time=world.network.story.unix_time)
        node = await world.node(identity=disk.file, lookup=watched, observer=events.append)
        await world.published(node)
        before = node.record
        disk.is_full()
        await world.moves(node, 4001)
        await eventually(lambda: node.counters[NOT_SIGNED] == 2)
        (told,) = [event for event in events if isinstance(event, RecordNotPublished)]
        assert (told.record, told.again_s) == (before, 0.5)
        assert told.reason.startswith("its sequence cannot be stored (cannot use ")
        stored = events.count(RecordPublished(before, Published(1, 1)))
        engine_of(node).publisher.look_again()
        await eventually(lambda: events.count(RecordPublished(before, Published(1, 1))) > stored)
        assert node.statistics()["record_not_published"] == told.reason, (
            "the one before is published"
        )
        disk.has_room()
        await world.published(node)
        assert node.statistics()["record_not_published"] is None

    play(story)


def test_a_record_that_cannot_be_signed_is_logged_once_each_time(
    eventually: Eventually, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(world: World) -> None:
        node = await world.node(identity=disk.file, lookup=None)
        for port in (4001, 4002):
            tries = node.counters[NOT_SIGNED]
            disk.is_full()
            await world.moves(node, port)
            await eventually(lambda tries=tries: node.counters[NOT_SIGNED] == tries + 2)
            disk.has_room()
            await eventually(lambda: node.statistics()["record_not_published"] is None)

    play(story)
    logged = [record.message for record in caplog.records if record.name == "egtp"]
    assert ["its sequence cannot be stored" in message for message in logged] == [True, True]


def test_a_full_disk_is_tried_ever_more_rarely_and_the_next_one_soon_again(disk: Disk) -> None:
    async def story(world: World) -> None:
        node = await world.node(identity=disk.file, lookup=None)
        tries = []
        for port, for_s in ((4001, 600), (4002, 1)):
            before = node.counters[NOT_SIGNED]
            disk.is_full()
            await world.moves(node, port)
            await asyncio.sleep(for_s)
            tries.append(node.counters[NOT_SIGNED] - before)
            disk.has_room()
            await asyncio.sleep(RETRY_MAX_S + 1)
        assert tries == [16, 2]  # At once, after 0.5 s, 1 s, 2 s, ..., and then each minute.

    play(story)


def test_queries_go_both_ways_while_an_expired_record_cannot_be_signed_again(disk: Disk) -> None:
    """A machine wakes up on the morning after, with its disk full."""

    async def story(world: World) -> None:
        node = await world.node(identity=disk.file, lookup=None)
        others = [await world.node(lookup=None) for _ in range(2)]
        disk.is_full()
        world.hosts[node].sleep()
        await asyncio.sleep(3 * 3600)
        world.hosts[node].wake()
        assert node.record.expired(world.network.story.unix_time())
        node.add_contact(others[0].link)
        assert await world.query(node, others[0].node_id) == b"x"
        others[1].add_contact(node.link)
        assert await world.query(others[1], node.node_id) == b"x"
        assert node.counters[NOT_SIGNED] == 1
        disk.has_room()

    play(story)


def test_a_node_that_closes_while_its_record_cannot_be_signed_leaves_no_timer(disk: Disk) -> None:
    async def story(world: World) -> None:
        node = await world.node(identity=disk.file)
        disk.is_full()
        await world.moves(node, 4001)
        await world.close(node)
        disk.has_room()
        signing = engine_of(node).publisher._signing
        assert signing is not None
        assert signing.cancelled()

    play(story)

"""A record is signed again long before it ends. In virtual time, with the times that nodes use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tests.lab import Lab, in_lab
from tests.node.at_hand import engine_of
from tests.node.watched_lookup import Watched

HOUR_S: Final = 3600.0


class World(Lab):
    def unix_time(self) -> float:
        return self.network.story.unix_time()


def play(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    in_lab(World, story)


def test_the_published_record_never_ends() -> None:
    async def story(world: World) -> None:
        watched = Watched(unix_time=world.unix_time)
        node = await world.node(lookup=watched)
        await world.hosts[node].run(node.published())
        for _ in range(5 * 60):
            assert not watched.published[-1].expired(world.unix_time())
            await asyncio.sleep(60)
        sequences = [record.sequence for record in watched.published]
        assert sequences == sorted(sequences)
        assert 4 < len(set(sequences)) < 10
        assert node.record == watched.published[-1]

    play(story)


def test_the_record_is_renewed_while_publishing_fails() -> None:
    """Once the lookup service is back it must be given a record that is still good."""

    async def story(world: World) -> None:
        watched = Watched(failures=200, unix_time=world.unix_time)
        node = await world.node(lookup=watched)
        first = node.record
        async with asyncio.timeout(4 * HOUR_S):
            while not watched.published:
                await asyncio.sleep(30)
        assert first.expired(world.unix_time())
        assert not watched.published[0].expired(world.unix_time())
        assert watched.published[0] == node.record

    play(story)


def test_a_node_without_a_lookup_service_renews_its_record_too() -> None:
    """It shows the record in handshakes; one that has expired is not believed."""

    async def story(world: World) -> None:
        node = await world.node(lookup=None)
        for _ in range(5 * 60):
            assert not node.record.expired(world.unix_time())
            await asyncio.sleep(60)

    play(story)


def test_a_peer_is_known_by_the_handshake_after_its_first_record_would_have_ended() -> None:
    """A relay without a lookup service, two hours after its start, for instance."""

    async def story(world: World) -> None:
        node = await world.node(lookup=None, listens=False)
        server = await world.node(lookup=None)
        await asyncio.sleep(2.5 * HOUR_S)
        node.add_contact(server.record)
        assert await world.query(node, server.node_id) == b"x"
        known = engine_of(server).book.find(node.node_id)
        assert known is not None
        assert known.record == node.record

    play(story)


def test_whoever_is_connected_is_given_a_record_that_was_renewed() -> None:
    async def story(world: World) -> None:
        node, server = await world.node(listens=False), await world.node()
        await world.query(node, server.node_id)
        first = server.record
        while not first.expired(world.unix_time()):
            await asyncio.sleep(60)
            # A connection that is used now and then is kept.
            await world.query(node, server.node_id)
            assert node.why(server.node_id).record == server.record
        assert server.record.sequence > first.sequence

    play(story)

"""Paths through relays need no connection of their own. They are bounded all the same: idle ones
go, of one peer there are a few, of strangers no more than their share; and who is wanted stays.

In virtual time: a crowd behind one relay, and a listener that is reached through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

from egtp import FastFail, HardTimeout, Node, NodeConfig
from tests.lab import LATENCY_S, Lab, in_lab
from tests.node.at_hand import engine_of

IDLE_S: Final = 120.0
LONGEST_S: Final = IDLE_S * 5 / 4 + 2
"""Looked at four times in a timeout, with a clean-up each second."""


class World(Lab):
    """A relay, and a listener that is reached through it."""

    async def begin(self, config: NodeConfig) -> None:
        self.relay = await self.node(relay_server=True, config=NodeConfig(accepts_per_ip_per_s=1e3))
        self.listener = await self.hidden(self.relay, config=config)

    @property
    def engine(self) -> Any:
        return engine_of(self.listener)

    @property
    def sessions(self) -> int:
        """Through relays, as the listener has them."""
        assert self.engine.channels.unconfirmed == 0
        paths = [path for path in self.engine.channels.sessions.by_index.values() if path.relayed]
        assert len(paths) == len(self.engine.routes._relayed)
        return len(paths)

    async def crowd(self, size: int) -> list[Node]:
        """So many strangers, who have asked something each."""
        crowd = []
        for _ in range(size):
            crowd.append(await self.asker(self.listener))
            await self.query(crowd[-1], self.listener.node_id)
        return crowd

    def path(self, node: Node, peer: Node) -> Any:
        engine = engine_of(node)
        found = engine.book.find(peer.node_id)
        return None if found is None else found.relayed

    async def on(self, node: Node, do: Callable[[], object]) -> None:
        """Do it on the node's machine."""

        async def done() -> None:
            do()

        await self.hosts[node].run(done())

    async def want(self, node: Node) -> None:
        await self.on(self.listener, lambda: self.listener.add_contact(node.record))

    async def again(self, node: Node) -> None:
        """One more session of the node with the listener, over the same relay."""
        engine = engine_of(node)
        peer = engine.book.find(self.listener.node_id)
        await self.hosts[node].run(engine.reacher.renew(peer, peer.relayed))
        await asyncio.sleep(10 * LATENCY_S)


def play(story: Callable[[World], Coroutine[Any, Any, None]], **config: Any) -> None:
    async def whole(world: World) -> None:
        await world.begin(NodeConfig(**config))
        await story(world)

    in_lab(World, whole)


# Idle ones go


@pytest.mark.parametrize("is_wanted", [False, True])
def test_a_relayed_path_that_nobody_uses_is_closed_at_both_ends(is_wanted: bool) -> None:
    async def story(world: World) -> None:
        (asker,) = await world.crowd(1)
        if is_wanted:
            await world.want(asker)
        await asyncio.sleep(IDLE_S - 1)
        assert world.sessions == 1
        await asyncio.sleep(LONGEST_S - IDLE_S + 1)
        assert world.sessions == 0
        assert world.path(world.listener, asker) is None
        assert world.path(asker, world.listener) is None

    play(story)


def test_a_relayed_path_that_is_used_now_and_then_stays() -> None:
    async def story(world: World) -> None:
        (asker,) = await world.crowd(1)
        path = world.path(asker, world.listener)
        for _ in range(10):
            await asyncio.sleep(IDLE_S * 3 / 4)
            await world.query(asker, world.listener.node_id)
        assert world.path(asker, world.listener) is path

    play(story)


def test_whoever_asks_after_a_long_time_gets_a_new_session_and_the_answer() -> None:
    async def story(world: World) -> None:
        (asker,) = await world.crowd(1)
        for _ in range(3):
            await asyncio.sleep(10 * IDLE_S)
            assert world.sessions == 0
            assert await world.query(asker, world.listener.node_id, body=b"again") == b"again"

    play(story)


def test_two_that_are_both_reached_through_the_relay_find_each_other_again_either_way() -> None:
    async def story(world: World) -> None:
        other = await world.hidden(world.relay)
        assert await world.query(other, world.listener.node_id) == b"x"
        for asker, asked in ((world.listener, other), (other, world.listener)):
            await asyncio.sleep(10 * IDLE_S)
            assert world.sessions == 0
            assert await world.query(asker, asked.node_id, body=b"again") == b"again"

    play(story)


def test_whoever_did_not_hear_that_its_path_is_idle_finds_back_by_itself() -> None:
    """The goodbye may be lost. The next packet is then of an unknown session; its sender makes a
    new one, and gives the query again."""

    async def story(world: World) -> None:
        (asker,) = await world.crowd(1)
        there = world.path(world.listener, asker)
        await world.on(world.listener, lambda: world.engine.routes.lose(there, "without a word"))
        assert world.path(asker, world.listener) is not None
        began_s = world.now_s
        assert await world.query(asker, world.listener.node_id, body=b"again") == b"again"
        assert world.now_s - began_s < 1
        assert world.listener.counters["data packet of an unknown session"] == 1

    play(story)


def test_a_path_on_which_a_reply_is_awaited_stays_however_long_it_takes() -> None:
    async def story(world: World) -> None:
        asker = await world.asker(world.listener)
        query = asyncio.ensure_future(
            world.query(asker, world.listener.node_id, "wait", hard_timeout_s=10 * IDLE_S)
        )
        await world.called.wait()
        ends = [world.path(asker, world.listener), world.path(world.listener, asker)]
        await asyncio.sleep(9 * IDLE_S)
        assert [world.path(asker, world.listener), world.path(world.listener, asker)] == ends
        assert not query.done()
        with pytest.raises(HardTimeout):
            await query

    play(story)


# A few of one peer


def test_one_peer_has_a_few_relayed_paths_and_the_newest_of_them() -> None:
    async def story(world: World) -> None:
        (asker,) = await world.crowd(1)
        for _ in range(12):
            await world.again(asker)
            for path in world.engine.channels.sessions.by_index.values():
                path.used_s = world.engine.now()  # as if it went on with all of them
            assert world.sessions <= world.listener.config.peer_connections_max
        assert world.sessions == world.listener.config.peer_connections_max
        assert world.listener.counters["relayed path closed: its peer has newer ones"] == 9
        assert await world.query(asker, world.listener.node_id, body=b"still") == b"still"

    play(story)


def test_what_is_under_way_on_a_path_of_which_there_are_too_many_is_answered() -> None:
    async def story(world: World) -> None:
        asker = await world.asker(world.listener)
        asked, go_on = [], asyncio.Event()

        @world.listener.handler("slow")
        async def slow(query: Any) -> bytes:
            asked.append(query.body)
            await go_on.wait()
            return bytes(query.body)

        query = asyncio.ensure_future(world.query(asker, world.listener.node_id, "slow", b"once"))
        while not asked:
            await asyncio.sleep(LATENCY_S)
        for _ in range(8):
            await world.again(asker)
        go_on.set()
        assert await query == b"once"
        assert asked == [b"once"]

    play(story)


# So many of strangers


def test_of_strangers_there_are_no_more_than_their_share_and_the_longest_idle_makes_way() -> None:
    async def story(world: World) -> None:
        crowd = await world.crowd(4)
        await asyncio.sleep(2)
        for asker in crowd[1:]:
            await world.query(asker, world.listener.node_id)
        await asyncio.sleep(2)
        (newcomer,) = await world.crowd(1)
        assert world.sessions == 4
        assert world.path(world.listener, crowd[0]) is None
        assert world.path(world.listener, newcomer) is not None
        closed = "relayed path closed: another stranger needs the place"
        assert world.listener.counters[closed] == 1
        assert await world.query(crowd[0], world.listener.node_id, body=b"back") == b"back"

    play(story, connections_max=16)


def test_a_stranger_is_refused_while_all_of_their_places_are_in_use_and_is_let_in_later() -> None:
    async def story(world: World) -> None:
        crowd = [await world.asker(world.listener) for _ in range(4)]
        waiting = [
            asyncio.ensure_future(
                world.query(asker, world.listener.node_id, "wait", hard_timeout_s=20)
            )
            for asker in crowd
        ]
        await asyncio.sleep(3)
        newcomer = await world.asker(world.listener)
        with pytest.raises((HardTimeout, FastFail)):
            await world.query(newcomer, world.listener.node_id, hard_timeout_s=5)
        assert world.listener.counters["relayed path refused: too many strangers"] >= 1
        assert world.engine.book.find(newcomer.node_id) is None
        assert world.sessions == 4
        wanted = await world.asker(world.listener)
        await world.want(wanted)
        reply = world.query(wanted, world.listener.node_id, body=b"wanted", hard_timeout_s=5)
        assert await reply == b"wanted"
        again = world.query(newcomer, world.listener.node_id, body=b"late", hard_timeout_s=60)
        assert await again == b"late"
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, HardTimeout)

    play(story, connections_max=16)


def test_strangers_who_stay_make_nobody_forgotten_whom_somebody_here_has_to_do_with() -> None:
    """They have all of their places among the peers by connections; a relayed path is no way to
    more."""

    async def story(world: World) -> None:
        contacts = [await world.asker() for _ in range(5)]
        for contact in contacts:
            await world.want(contact)
        host = world.hosts[world.listener]
        await host.run(world.listener.listen(f"{host.addresses[0]}:4000"))
        for _ in range(6):
            stranger = await world.asker()
            stranger.add_contact(world.listener.record)
            await world.query(stranger, world.listener.node_id)
        assert len(world.engine.book) == 12
        for _ in range(4):
            newcomer = await world.asker(world.listener)
            with pytest.raises((HardTimeout, FastFail)):
                await world.query(newcomer, world.listener.node_id, hard_timeout_s=3)
        assert world.sessions == 0
        assert world.listener.counters["relayed path refused: too many strangers"] >= 4
        assert len(world.engine.book) == 12
        for contact in contacts:
            assert world.engine.book.find(contact.node_id) is not None

    play(story, peers_max=12)


def test_who_is_wanted_takes_no_place_of_strangers() -> None:
    async def story(world: World) -> None:
        wanted = [await world.asker(world.listener) for _ in range(2)]
        for asker in wanted:
            await world.want(asker)
            await world.query(asker, world.listener.node_id)
        for asker in await world.crowd(2):
            await world.want(asker)
            wanted.append(asker)
        await asyncio.sleep(2)
        await world.crowd(6)
        assert world.sessions == 8
        for asker in wanted:
            assert world.path(world.listener, asker) is not None

    play(story, connections_max=16)

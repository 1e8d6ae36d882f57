"""A node blocks peers and lets them in again, at any moment: who is blocked stays away.

In virtual time. Some peers are reached through a relay, some move, and all ask on and on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import Any, Final

import pytest

from egtp import EgtpError, Incoming, Node, NodeConfig, NodeId
from tests.lab import Lab, in_lab

STEPS: Final = 120
HARD_S: Final = 8.0


class World(Lab):
    """A node, its peers, and whom it has blocked."""

    async def begin(self, random: Random) -> None:
        self.random = random
        self.blocked: dict[NodeId, float] = {}
        """Since when each is."""
        self.still_there: dict[NodeId, float] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self.asked: dict[Node, list[asyncio.Task[Any]]] = {}
        """What the node asks each peer."""
        relay = await self.node(relay_server=True)
        config = NodeConfig(hard_timeout_s=HARD_S, rekey_s=5, idle_timeout_s=3)
        options = {"config": config, "admit": lambda peer_id: peer_id not in self.blocked}
        self.blocker = await random.choice([self.node, lambda **it: self.hidden(relay, **it)])(
            **options
        )
        self.blocker.handle("slow", self.slow)
        for _ in range(2):
            self.asked[await self.node()] = []
            self.asked[await self.hidden(relay)] = []

    async def slow(self, query: Incoming) -> bytes:
        self.is_there(query.peer_id)
        await asyncio.sleep(3 * self.random.random())
        return query.body

    def is_there(self, peer_id: NodeId) -> None:
        """What was accepted before the peer was blocked has some time to leave."""
        until_s = self.blocked.get(peer_id, self.now_s) + self.blocker.config.close_timeout_s + 0.5
        if self.now_s > until_s:
            self.still_there[peer_id] = self.now_s

    def begin_to(self, work: Any) -> asyncio.Task[Any]:
        async def done() -> None:
            with suppress(EgtpError):
                await work

        task = asyncio.ensure_future(done())
        self.tasks.append(task)
        return task

    def do_something(self) -> None:
        random, peer = self.random, self.random.choice(list(self.asked))
        match random.randrange(10):
            case 0 | 1 | 2 | 3:
                body, early = bytes(random.choice([1, 30_000])), random.choice([None, True])
                there = self.blocker.node_id
                self.begin_to(self.query(peer, there, "slow", body, early=early))
            case 4 | 5 if peer.node_id not in self.blocked:
                self.asked[peer].append(self.begin_to(self.query(self.blocker, peer.node_id)))
            case 6 | 7 if peer.node_id not in self.blocked:
                for asked in self.asked[peer]:
                    asked.cancel()
                self.blocked[peer.node_id] = self.now_s
                disconnecting = self.blocker.disconnect(peer.node_id)
                self.begin_to(self.hosts[self.blocker].run(disconnecting))
            case 8:
                self.blocked.pop(peer.node_id, None)
            case 9 if self.records[peer].tcp:
                address = self.hosts[peer].addresses[0]
                moved = peer.listen(f"{address}:{random.randrange(5000, 6000)}")
                self.begin_to(self.hosts[peer].run(moved))


@pytest.mark.parametrize("seed", range(8))
def test_who_is_blocked_stays_away_until_it_is_let_in_again_or_asked(seed: int) -> None:
    async def story(world: World) -> None:
        await world.begin(Random(seed))

        async def connected() -> tuple[NodeId, ...]:
            return world.blocker.connected

        for _ in range(STEPS):
            world.do_something()
            await asyncio.sleep(world.random.choice([0, 0.005, 0.02, 0.3, 2]))
            for peer_id in await world.hosts[world.blocker].run(connected()):
                world.is_there(peer_id)
        assert not world.still_there
        assert world.blocker.counters["dropped: the peer is not admitted"]
        for task in world.tasks:
            task.cancel()
        await asyncio.gather(*world.tasks, return_exceptions=True)

    in_lab(World, story)

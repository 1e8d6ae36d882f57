"""Somebody asks a peer all the while, which moves, sleeps, and is killed and started again, as are
the relays: soon after the last of it the peer is reached. In virtual time, over the real DHT."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import pytest

from egtp import FastFail, HardTimeout, OutcomeUnknown
from simulations import Cluster, ClusterPlan, Member
from simulations.virtual import Link, LogNormal, Session
from simulations.world import VirtualWorld

ASKS_EVERY_S: Final = 0.25
HARD_TIMEOUT_S: Final = 20.0
SOON_S: Final = 2.5
"""Some round trips to relays, the DHT and the peer, and what is looked at once a second."""


class Road:
    """What happens to the peer that is asked, and how late its replies are."""

    def __init__(self, cluster: Cluster, asked: str, seed: int) -> None:
        members = {member.name: member for member in cluster.members}
        self.asker, self.asked = members["alice"], members[asked]
        self.relays: Final = [members["relay-1"], members["relay-2"]]
        self.random: Final = random.Random(seed)
        self.loop: Final = asyncio.get_running_loop()
        self.settled_s = 0.0
        """When the last thing had happened."""
        self.lateness: Final[list[float]] = []
        self.failures: Final[list[Exception]] = []

    async def keep_asking(self) -> None:
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    group.create_task(self.ask())
                    await asyncio.sleep(ASKS_EVERY_S)
            except asyncio.CancelledError:
                pass  # no more; those that are open come to their ends

    async def ask(self) -> None:
        asked_s = self.loop.time()
        try:
            await self.asker.ask(self.asked, b"x", HARD_TIMEOUT_S)
        except (FastFail, OutcomeUnknown):
            pass  # nobody was there, or one that was killed had it
        except HardTimeout as error:
            self.failures.append(error)
        else:
            self.lateness.append(self.loop.time() - max(asked_s, self.settled_s))

    async def moves(self) -> None:
        for _ in range(self.random.randint(1, 2)):
            await self.asked.move()
            self.settled_s = self.loop.time()
            await asyncio.sleep(self.random.choice([0.3, 1, 2]))

    async def sleeps_and_wakes_elsewhere(self) -> None:
        self.asked.machine.host.sleep()
        await asyncio.sleep(3)
        self.asked.machine.host.wake()
        await self.asked.move()

    async def is_killed(self) -> None:
        if self.random.random() < 0.5:
            self.asked.cut_power()
        else:
            await self.asked.crash()
        await self.starts_again(self.asked, self.random.choice([0.5, 2, 5]))

    async def loses_a_relay(self) -> None:
        relay = self.random.choice(self.relays)
        await relay.crash()
        await self.starts_again(relay, 1)

    async def starts_again(self, member: Member, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await member.restart(clock_offset_s=0.0)

    async def happens(self) -> None:
        asking = asyncio.ensure_future(self.keep_asking())
        await asyncio.sleep(5)
        kinds = [
            self.moves, self.moves, self.is_killed, self.loses_a_relay,
            self.sleeps_and_wakes_elsewhere,
        ]  # fmt: skip
        for _ in range(4):
            self.settled_s = float("inf")
            await self.random.choice(kinds)()
            self.settled_s = self.loop.time()
            await asyncio.sleep(self.random.choice([1, 4, 12]))
        asking.cancel()
        await asking


@pytest.mark.parametrize("asked", ["bob", "hidden-1"])
@pytest.mark.parametrize("seed", [13, 19, 24, 37, 47, 48, 49, 57])
def test_a_peer_is_reached_soon_after_whatever_happened_to_it(asked: str, seed: int) -> None:
    world = VirtualWorld(seed, link=Link(latency=LogNormal(0.02, 0.2)))
    plan = ClusterPlan(nodes=8, relays=2, unreachable=2, bootstraps=1, seed=seed)

    async def story() -> Road:
        async with Cluster(plan, world) as cluster:
            road = Road(cluster, asked, seed)
            await road.happens()
            return road

    with Session(world.network) as session:
        road = session.run(story(), limit_s=2000)
    assert not road.failures
    assert max(road.lateness) < SOON_S

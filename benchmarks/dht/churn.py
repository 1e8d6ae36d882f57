"""Churn: two days in a network whose nodes live for an hour or so."""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.dht.members import Client, Member, Ours
from benchmarks.dht.operations import verdict
from benchmarks.dht.records import LIFETIME_S, Owner
from benchmarks.dht.tables import Table, percentile
from benchmarks.dht.world import SEEDS, World, random_address
from egtp.values.comm_record import SignedCommRecord

__all__ = ["Churn", "churn"]

HALF_LIFE_S = 3600.0
AWAY_S = 60.0
"""Until a machine that lost its power is a new node, at another address, knowing nothing."""
PUBLISH_EVERY_S = LIFETIME_S / 2
"""Give or take a quarter, as the engine does."""
EXPIRING_S = 30.0
"""Records that end within this are not asked for: either answer would be right."""
LOOK_EVERY_S = 600.0
"""How often all stores are searched for what has expired."""


def churn(options: argparse.Namespace) -> Iterator[Table]:
    """Resolves that succeed while all but the seeds come and go, and what is held too long."""
    for seed in options.seeds:
        began = time.process_time()
        with World([Ours] * options.nodes + [Client] * options.records, seed) as world:
            world.boot(options.settle)
            story = Churn(world, options.hours, options.resolves)
            world.run(story.play())
            row = {"system": Ours.label, **story.figures()}
        row["CPU s"] = time.process_time() - began
        yield Table(
            f"Churn: {options.nodes:,} nodes, half-life {HALF_LIFE_S / 3600:g} h, "
            f"{options.hours:g} virtual hours, seed {seed}",
            [row],
            (
                f"all but {SEEDS} seeds lose their power at random moments, and come back "
                f"{AWAY_S:g} s later at another address with nothing",
                f"{options.records} owners behind NATs publish a new version every "
                f"{PUBLISH_EVERY_S / 3600:g} h; the first tenth of them stops halfway",
                "outdated: a valid record, but older than what had been published before the "
                "resolve began",
            ),
        )


class Churn:
    """The story, and what comes of it."""

    def __init__(self, world: World[Any], hours: float, resolves: int) -> None:
        self.world = world
        self._rng = random.Random(f"{world.seed}/churn")  # noqa: S311
        self._ends_s = world.network.loop.now + 3600 * hours
        self._halfway_s = world.network.loop.now + 1800 * hours
        self._resolve_every_s = 3600 * hours / resolves
        servers = [member for member in world.members if not isinstance(member, Client)]
        self._mortal = servers[SEEDS:]
        owners = [member for member in world.members if isinstance(member, Client)]
        self._owners = [(member, Owner(self._rng)) for member in owners]
        self._retiring = max(1, len(owners) // 10)
        self._published: dict[int, SignedCommRecord] = {}
        """What each owner published last, unless it failed."""
        self._joined = {id(member): member for member in servers}
        self.deaths = 0
        self.verdicts: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.held = self.held_expired = self.got_expired = 0
        self.publishes = self.publishes_failed = 0

    async def play(self) -> None:
        tasks = [asyncio.ensure_future(self._live(member)) for member in self._mortal]
        tasks += [asyncio.ensure_future(self._publish(it)) for it in range(len(self._owners))]
        tasks.append(asyncio.ensure_future(self._look()))
        await asyncio.sleep(60)  # for the first publishing
        resolving = []
        while self.world.network.loop.now < self._ends_s:
            resolving.append(asyncio.ensure_future(self._resolve()))
            resolving = [task for task in resolving if not task.done()]
            await asyncio.sleep(self._resolve_every_s)
        await asyncio.gather(*resolving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def figures(self) -> dict[str, Any]:
        total = self.verdicts.total()
        found = self.verdicts["latest"] + self.verdicts["stale"]
        return {
            "deaths": self.deaths,
            "publishes": f"{self.publishes - self.publishes_failed}/{self.publishes}",
            "resolves": total,
            "succeeded": f"{100 * found / total:.3f} %" if total else None,
            "outdated": self.verdicts["stale"],
            "not found": self.verdicts["none"],
            "resolve p50 s": percentile(self.seconds, 0.5),
            "resolve p95 s": percentile(self.seconds, 0.95),
            "records looked at": self.held,
            "of these expired": self.held_expired,
            "expired ones resolved": self.got_expired,
        }

    async def _live(self, member: Member) -> None:
        """One machine, and the nodes on it one after another."""
        world = self.world
        while True:
            await asyncio.sleep(self._rng.expovariate(math.log(2) / HALF_LIFE_S))
            self._joined.pop(id(member), None)
            member.host.crash()
            self.deaths += 1
            await asyncio.sleep(self._rng.expovariate(1 / AWAY_S))
            member.host.change_ip(random_address(self._rng, world.network))
            member.host.restart(keep_disk=False)
            member = Ours(member.host, self.world.seeds)
            await member.host.run(member.join())
            self._joined[id(member)] = member

    async def _publish(self, number: int) -> None:
        member, owner = self._owners[number]
        await asyncio.sleep(30 * self._rng.random())
        unix_time = self.world.network.story.unix_time
        sequence = 0
        while not (number < self._retiring and self.world.network.loop.now > self._halfway_s):
            sequence += 1
            record = owner.record(sequence, unix_time())
            self.publishes += 1
            if await member.host.run(member.put(record)):
                self._published[number] = record
            else:
                self.publishes_failed += 1
            await asyncio.sleep(PUBLISH_EVERY_S * self._rng.uniform(0.75, 1.25))

    async def _resolve(self) -> None:
        """Somebody who has joined asks for somebody. Who dies over it is not counted."""
        asker = self._rng.choice(list(self._joined.values()))
        number = self._rng.randrange(len(self._owners))
        _, owner = self._owners[number]
        published = self._published.get(number)
        unix_time = self.world.network.story.unix_time
        if published is None or abs(published.expiry_unix_s - unix_time()) < EXPIRING_S:
            return
        expired = published.expired(unix_time())
        began = self.world.network.loop.now
        work = asker.host.spawn(asker.get(owner.peer_id, fresh=True))
        await asyncio.wait((work,))
        if work.cancelled() or id(asker) not in self._joined:
            return
        got = work.result()
        if expired:
            self.got_expired += got is not None
            return
        self.seconds.append(self.world.network.loop.now - began)
        self.verdicts[verdict(owner, got, published.sequence, at_least=True)] += 1

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = self.world.network.story.unix_time()
            for member in self._joined.values():
                for _, data in member.held():
                    self.held += 1
                    self.held_expired += SignedCommRecord.decode(data).expired(now)

"""Idle: what a network does after records were put into it, and nobody asks for anything."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.dht.branches import in_branches
from benchmarks.dht.conditions import owners_among
from benchmarks.dht.members import Member, Ours
from benchmarks.dht.records import LIFETIME_S
from benchmarks.dht.tables import Table
from benchmarks.dht.unmodified import StormFree, Unmodified
from benchmarks.dht.world import World

__all__ = ["idle"]

PUT_EVERY_S = 0.5
SETTLE_S = 30.0
"""After the last put: what a put leaves to do in the background has ended by then."""
LOOK_EVERY_S = 0.05
"""A storm grows by a fifth in that time."""


def idle(options: argparse.Namespace) -> Iterator[Table]:
    """STOREs, datagrams and CPU of a network that was given records and then left alone."""
    for seed in options.seeds:
        kinds: tuple[type[Member], ...] = (Ours, StormFree, Unmodified)
        rows = in_branches(
            {kind.label: partial(_row_of, kind, seed, options) for kind in kinds},
            options.jobs,
        )
        yield Table(
            f"Idle for {options.minutes:g} minutes after {options.records} puts: "
            f"{options.nodes:,} nodes, seed {seed}",
            list(rows.values()),
            (
                f"a system that sends more than {options.budget:,} datagrams is stopped there",
                "CPU of a simulated network, which is a part of it, included",
            ),
        )


def _row_of(kind: type[Member], seed: int, options: argparse.Namespace) -> dict[str, Any]:
    world = World([kind] * options.nodes, seed).begin()
    world.boot(options.settle)
    return world.run(_put_and_wait(world, kind.label, options))


async def _put_and_wait(
    world: World[Any], label: str, options: argparse.Namespace
) -> dict[str, Any]:
    traffic, loop = world.traffic, world.network.loop
    put = 0

    async def put_all() -> None:
        nonlocal put
        for member, owner in owners_among(world, options.records):
            record = owner.record(1, world.network.story.unix_time(), 2 * LIFETIME_S)
            put += bool(await member.host.run(member.put(record)))
            await asyncio.sleep(PUT_EVERY_S)
        await asyncio.sleep(SETTLE_S)

    quiet = await _within(world, put_all(), options.budget)
    stores_put, datagrams_put, began = traffic.stores, traffic.datagrams, loop.now
    began_cpu = time.process_time()
    budget = options.budget if quiet else options.budget // 20
    quiet &= await _within(world, asyncio.sleep(60 * options.minutes), budget)
    hours = (loop.now - began) / 3600
    node_hours = hours * options.nodes
    stores = traffic.stores - stores_put
    return {
        "system": label,
        "puts": f"{put}/{options.records}",
        "STOREs a put": stores_put / max(1, put),
        "idle virtual s": 3600 * hours,
        "STOREs when idle": stores,
        "STOREs a virtual s": stores / (3600 * hours),
        "datagrams a node-hour": (traffic.datagrams - datagrams_put) / node_hours,
        "CPU ms a node-hour": 1000 * (time.process_time() - began_cpu) / node_hours,
        "ended": "by itself" if quiet else "stopped: over the budget",
    }


async def _within(world: World[Any], work: Any, budget: int) -> bool:
    """Whether the work ended before the network had sent that many datagrams."""
    task = asyncio.ensure_future(work)
    limit = world.traffic.datagrams + budget
    while not task.done():
        if world.traffic.datagrams > limit:
            task.cancel()
            return False
        await asyncio.wait((task,), timeout=LOOK_EVERY_S)
    task.result()
    return True

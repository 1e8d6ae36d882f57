"""Conditions: how puts and gets do when packets are lost and nodes are dead."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from benchmarks.dht.branches import in_branches
from benchmarks.dht.members import Member, Ours
from benchmarks.dht.operations import get_all, put_all, verdicts
from benchmarks.dht.records import Owner
from benchmarks.dht.tables import Table
from benchmarks.dht.unmodified import StormFree
from benchmarks.dht.world import World

__all__ = ["CONDITIONS", "Condition", "conditions", "owners_among", "under"]

FIRST = 1
SECOND = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """What is wrong with the network."""

    name: str
    loss: float = 0.0
    dead: float = 0.0
    """The share of nodes that lose their power at once, just before the first operation."""


CONDITIONS = (
    Condition("clean"),
    Condition("2 % loss", loss=0.02),
    Condition("5 % loss", loss=0.05),
    Condition("10 % dead", dead=0.1),
    Condition("30 % dead", dead=0.3),
    Condition("2 % loss, 20 % dead", loss=0.02, dead=0.2),
)

Owners = list[tuple[Member, Owner]]


def conditions(options: argparse.Namespace) -> Iterator[Table]:
    """One table for each seed."""
    for seed in options.seeds:
        by_system = in_branches(
            {kind.label: partial(_rows_of, kind, seed, options) for kind in (Ours, StormFree)},
            options.jobs,
        )
        rows = list(chain.from_iterable(by_system.values()))
        rows.sort(key=lambda row: [it.name for it in CONDITIONS].index(row["condition"]))
        yield Table(
            f"Loss and dead nodes: {options.nodes:,} nodes, {options.records} records, seed {seed}",
            rows,
            (
                "put: the second version of a record; get: from a node that never asked before; "
                "virtual seconds",
                "get ends when enough nodes agree, fresh when the whole neighbourhood was asked",
            ),
        )


def _rows_of(
    member_type: type[Member], seed: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    world = World([member_type] * options.nodes, seed).begin()
    world.boot(options.settle)
    owners = owners_among(world, options.records)
    world.run(put_all(world, owners, FIRST))
    results = in_branches(
        {it.name: partial(_figures_under, world, owners, it) for it in CONDITIONS}
    )
    boot = {"boot datagrams": world.boot_datagrams / options.nodes}
    return [
        {"condition": name, "system": member_type.label, **result, **boot}
        for name, result in results.items()
    ]


def _figures_under(world: World[Any], owners: Owners, condition: Condition) -> dict[str, Any]:
    return world.run(under(world, owners, condition))


async def under(world: World[Any], owners: Owners, condition: Condition) -> dict[str, Any]:
    rng = random.Random(f"{world.seed}/{condition.name}")  # noqa: S311
    owning = {id(member) for member, _ in owners}
    others = [member for member in world.members if id(member) not in owning]
    rng.shuffle(others)
    dead = others[: round(condition.dead * len(world.members))]
    for member in dead:
        member.host.crash()
    getters = others[len(dead) :]
    if condition.loss:
        world.network.degrade_all(world.plane.with_loss(condition.loss))
    count = len(owners)
    put = await put_all(world, owners, SECOND)
    got = await get_all(world, owners, getters[:count], fresh=False)
    figures: dict[str, Any] = {
        "puts": f"{sum(stored > 0 for stored in put.values)}/{count}",
        "latest": f"{verdicts(owners, got.values, SECOND)['latest']}/{count}",
        **put.figures("put"),
        **got.figures("get"),
    }
    if isinstance(owners[0][0], Ours):
        newest = await get_all(world, owners, getters[count : 2 * count], fresh=True)
        figures["fresh latest"] = f"{verdicts(owners, newest.values, SECOND)['latest']}/{count}"
        figures |= newest.figures("fresh")
    return figures


def owners_among(world: World[Any], count: int) -> Owners:
    """``count`` members of the world that publish a record each."""
    rng = random.Random(f"{world.seed}/owners")  # noqa: S311
    return [(member, Owner(rng)) for member in rng.sample(world.members, count)]

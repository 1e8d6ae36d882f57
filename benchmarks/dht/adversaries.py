"""Adversaries: a share of the nodes is one party, and answers as it likes."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

from benchmarks.dht.branches import in_branches
from benchmarks.dht.conditions import Owners
from benchmarks.dht.hostile import FORGE, OMIT, REPLAY, SIDES, Collusion, Side
from benchmarks.dht.members import Member, Ours
from benchmarks.dht.operations import get_all, put_all, verdicts
from benchmarks.dht.records import Owner
from benchmarks.dht.tables import Table
from benchmarks.dht.world import SEEDS, World

__all__ = ["adversaries"]

OLD = 1
LATEST = 2


def adversaries(options: argparse.Namespace) -> Iterator[Table]:
    """Colluding nodes that know only each other, and forge, hold back or replay records."""
    for seed in options.seeds:
        branches = in_branches(
            {
                f"{percent} {side[0].label}": partial(_rows_of, side, percent / 100, seed, options)
                for percent in options.percent
                for side in SIDES
            },
            options.jobs,
        )
        rows = list(chain.from_iterable(branches.values()))
        rows.sort(key=lambda row: (row["colluding"], row["manner"]))
        yield Table(
            f"Colluding nodes: {options.nodes:,} nodes, {options.records} records, seed {seed}",
            rows,
            (
                "colluders are in all tables, tell of nobody but each other, and say that they "
                "stored what they did not",
                "put and get of the second version, while the colluders have the first",
            ),
        )


def _rows_of(
    side: Side, share: float, seed: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    honest, hostile = side
    rng = random.Random(f"{seed}/adversaries")  # noqa: S311
    collusion = Collusion()
    bad = set(rng.sample(range(SEEDS, options.nodes), round(share * options.nodes)))
    makers: list[Any] = [
        partial(hostile, collusion) if number in bad else honest for number in range(options.nodes)
    ]
    world = World[Member](makers, seed).begin()
    world.boot(options.settle)
    good = [member for member in world.members if not isinstance(member, hostile)]
    rng.shuffle(good)
    owners: Owners = [(member, Owner(rng)) for member in good[: options.records]]
    world.run(put_all(world, owners, OLD))
    for _, owner in owners:
        old = owner.record(OLD, world.network.story.unix_time())
        collusion.old[bytes(owner.peer_id)] = old.encode()
    getters = good[options.records :]
    results = in_branches(
        {
            manner: partial(_facing, world, owners, getters, collusion, manner)
            for manner in (FORGE, OMIT, REPLAY)
        }
    )
    return [
        {"colluding": f"{share:.0%}", "manner": manner, "system": honest.label, **result}
        for manner, result in results.items()
    ]


def _facing(
    world: World[Member], owners: Owners, getters: list[Member], collusion: Collusion, manner: str
) -> dict[str, Any]:
    collusion.manner = manner
    count = len(owners)
    figures: dict[str, Any] = {}
    put = world.run(put_all(world, owners, LATEST))
    askings = [("get", False, getters[:count])]
    if isinstance(owners[0][0], Ours):
        askings.append(("fresh", True, getters[count : 2 * count]))
    for name, fresh, asking in askings:
        got = world.run(get_all(world, owners, asking, fresh=fresh))
        counted = verdicts(owners, got.values, LATEST)
        figures |= {f"{name} latest": f"{counted['latest']}/{count}"}
        figures |= {f"{name} {kind}": counted[kind] for kind in ("stale", "forged", "none")}
        figures |= {key: value for key, value in got.figures(name).items() if "p95" not in key}
    return figures | {"put p50 s": put.figures("put")["put p50 s"]}

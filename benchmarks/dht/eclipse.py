"""Eclipse: sybils around single keys, closer to them than any honest node."""

from __future__ import annotations

import argparse
import asyncio
import heapq
import random
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

from benchmarks.dht.branches import in_branches
from benchmarks.dht.conditions import Owners, owners_among
from benchmarks.dht.hostile import REPLAY, SIDES, Colluder, Collusion, Side, TheirColluder
from benchmarks.dht.members import PORT, Member
from benchmarks.dht.operations import get_all, put_all, verdicts
from benchmarks.dht.sybils import places_near
from benchmarks.dht.tables import Table
from benchmarks.dht.world import JOINS_PER_S, World
from egtp.values.comm_record import SignedCommRecord

__all__ = ["eclipse"]

SYBILS = 25
"""For each key."""
NETWORKS = (0, 2, SYBILS)
"""In how many /24s they are."""
OLD = 1
LATEST = 2
CLOSEST = 20


def eclipse(options: argparse.Namespace) -> Iterator[Table]:
    """Records whose keys are surrounded by nodes that replay what they were before."""
    for seed in options.seeds:
        branches = in_branches(
            {side[0].label: partial(_rows_of, side, seed, options) for side in SIDES},
            options.jobs,
        )
        rows = list(chain.from_iterable(branches.values()))
        rows.sort(key=lambda row: row["sybils in /24s"])
        yield Table(
            f"Eclipse: {SYBILS} sybils for each of {options.records} keys among "
            f"{options.nodes:,} honest nodes, seed {seed}",
            rows,
            (
                "the sybils' ids fit their addresses (BEP 42) and share 32 bits with the key; "
                "they replay the first version and claim to store the second",
                f"replication: the share of the {CLOSEST} closest honest nodes that hold the "
                "second version",
            ),
        )


def _rows_of(side: Side, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    honest, hostile = side
    world = World([honest] * options.nodes, seed).begin()
    world.boot(options.settle)
    owners = owners_among(world, options.records)
    world.run(put_all(world, owners, OLD))
    results = in_branches(
        {
            str(networks): partial(_beset, world, owners, hostile, networks, options.settle)
            for networks in NETWORKS
        }
    )
    return [
        {"sybils in /24s": int(networks), "system": honest.label, **result}
        for networks, result in results.items()
    ]


def _beset(
    world: World[Member],
    owners: Owners,
    hostile: type[Colluder | TheirColluder],
    networks: int,
    settle_s: float,
) -> dict[str, Any]:
    count = len(owners)
    honest = list(world.members)
    if networks:
        world.run(_surround(world, owners, hostile, networks))
        world.run(asyncio.sleep(settle_s))
    put = world.run(put_all(world, owners, LATEST))
    owning = {id(member) for member, _ in owners}
    getters = [member for member in honest if id(member) not in owning]
    asking = random.Random(f"{world.seed}/getters").sample(getters, count)  # noqa: S311
    got = world.run(get_all(world, owners, asking, fresh=True))
    return {
        "latest": f"{verdicts(owners, got.values, LATEST)['latest']}/{count}",
        "replication": _replication(honest, owners),
        "put p50 s": put.figures("put")["put p50 s"],
        "get p50 s": got.figures("get")["get p50 s"],
        "put datagrams": put.figures("put")["put datagrams"],
        "get datagrams": got.figures("get")["get datagrams"],
    }


async def _surround(
    world: World[Member],
    owners: Owners,
    hostile: type[Colluder | TheirColluder],
    networks: int,
) -> None:
    rng = random.Random(f"{world.seed}/sybils")  # noqa: S311
    joining = []
    for _, owner in owners:
        key = bytes(owner.peer_id)
        # Each key's sybils are a party of their own: the others' would not help them.
        collusion = Collusion(REPLAY)
        collusion.old[key] = owner.record(OLD, world.network.story.unix_time()).encode()
        places = places_near(key, rng)
        rented = [next(places) for _ in range(networks)]
        for number in range(SYBILS):
            place, port = rented[number % networks], PORT + number // networks
            sybil = hostile(
                collusion,
                world.machine(place.address),
                world.seeds,
                port,
                place.node_id(key, rng),
            )
            joining.append(sybil.host.spawn(sybil.join()))
            await asyncio.sleep(1 / JOINS_PER_S)
    await asyncio.gather(*joining)


def _replication(honest: list[Member], owners: Owners) -> float:
    """How many of the honest nodes closest to a key hold the latest version, on average."""
    shares = []
    held = {id(member): dict(member.held()) for member in honest}
    for _, owner in owners:
        target = int.from_bytes(bytes(owner.peer_id), "big")
        closest = heapq.nsmallest(
            CLOSEST, honest, key=lambda it: int.from_bytes(it.node_id, "big") ^ target
        )
        holding = [held[id(member)].get(bytes(owner.peer_id)) for member in closest]
        latest = [it for it in holding if it and SignedCommRecord.decode(it).sequence == LATEST]
        shares.append(len(latest) / CLOSEST)
    return sum(shares) / len(shares)

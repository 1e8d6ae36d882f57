"""Digests: the same seed must give the same run, packet by packet."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.dht.conditions import Condition, owners_among, under
from benchmarks.dht.members import Ours
from benchmarks.dht.operations import put_all
from benchmarks.dht.tables import Table
from benchmarks.dht.world import World
from simulations.virtual import Trace

__all__ = ["digest_of", "digests"]

CONDITION = Condition("3 % loss, 10 % dead", loss=0.03, dead=0.1)


def digests(options: argparse.Namespace) -> Iterator[Table]:
    """Each seed twice, in processes of their own that hash strings differently."""
    if options.one is not None:
        print(*digest_of(options.one, options.nodes, options.records, options.settle))
        sys.exit()
    rows = []
    for seed in options.seeds:
        runs = [_elsewhere(seed, hash_seed, options) for hash_seed in (1, 2)]
        (digest, packets), (other, _) = runs
        rows.append(
            {
                "seed": seed,
                "packets": int(packets),
                "digest": digest,
                "again": other,
                "equal": "yes" if runs[0] == runs[1] else "NO",
            }
        )
    yield Table(
        f"Same seed, same run: {options.nodes:,} nodes join, {options.records} records are put "
        f"and got under {CONDITION.name}",
        rows,
        ("each run in a process with another PYTHONHASHSEED",),
    )


def digest_of(seed: int, nodes: int, records: int, settle_s: float) -> tuple[str, int]:
    """Of every packet of a run; and how many these were."""
    with World([Ours] * nodes, seed, trace=Trace()) as world:
        world.boot(settle_s)
        owners = owners_among(world, records)
        world.run(put_all(world, owners, 1))
        world.run(under(world, owners, CONDITION))
        return world.network.trace.digest, world.network.trace.entries


def _elsewhere(seed: int, hash_seed: int, options: argparse.Namespace) -> tuple[str, str]:
    command = [
        sys.executable, "-m", "benchmarks.dht", "digests", "--one", str(seed),
        "--nodes", str(options.nodes), "--records", str(options.records),
        "--settle", str(options.settle),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    run = subprocess.run(  # noqa: S603
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    digest, packets = run.stdout.split()[-2:]
    return digest, packets

"""How large a network fits into the bottle: wall time and memory against the number of nodes.

``python benchmarks/simulated_scale.py [--nodes N,N,...] [--kind full|dht] [--json F] [--svg F]``

``full``: engine and DHT node each, encrypted, in virtual time; all join, all publish, then each
resolves and queries another one that it has never heard of. ``dht``: DHT nodes alone; all join,
records are stored, then each node looks one up. Each size runs in a process of its own, since
memory that Python once had does not go back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from egtp import Environment, Identity, Incoming, Node, NodeConfig, SignedCommRecord
from egtp.comm_record import CommRecord
from egtp.comm_strat import Address, TCPStrat
from lookup_dht import DHTLookup
from simulations.virtual import Host, Link, LogNormal, Network, run_in

BATCH = 50
"""Nodes that join at the same moment."""
SEEDS = 3
LIMIT_S = 3600.0
"""Of virtual time."""


class Member:
    def __init__(self, network: Network, number: int, seeds: Sequence[str], kind: str) -> None:
        address = f"11.{number // 62_500}.{number // 250 % 250}.{number % 250 + 1}"
        self.host: Host = network.host(f"node-{number}", address)
        host = self.host
        environment = Environment(host.elapsed, host.unix_time, host.entropy)
        self.identity = Identity.generate(host.entropy)
        self.lookup = DHTLookup(
            f"{address}:9000",
            seeds,
            unix_time=host.unix_time,
            elapsed=host.elapsed,
            entropy=host.entropy,
        )
        self.node: Node | None = None
        if kind == "full":
            self.node = Node(
                self.identity,
                listen=f"{address}:4000",
                lookup=self.lookup,
                config=NodeConfig(relays_wanted=0),
                environment=environment,
            )
            self.node.handle("echo", _echo)
        self.address = address

    async def join(self) -> None:
        await self.lookup.start()

    async def publish(self) -> None:
        if self.node is None:
            await self.lookup.publish(self.record())
        else:
            await self.node.start()
            await self.node.published()

    def record(self) -> SignedCommRecord:
        """For a DHT node alone: what a node would have published."""
        content = CommRecord(
            int(self.host.unix_time()) + 7200,
            b"bottled!",
            ((1, self.identity.channel_key),),
            (TCPStrat(Address.parse(f"{self.address}:4000")),),
        )
        return SignedCommRecord.sign(self.identity, 1, content)

    async def ask(self, other: Member) -> None:
        if self.node is not None:
            assert await self.node.query(other.identity.node_id, "echo", b"hello") == b"hello"
        else:
            await self.lookup.resolve(other.identity.node_id)


async def _echo(query: Incoming) -> bytes:
    return query.body


async def in_batches(work: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    for start in range(0, len(work), BATCH):
        await asyncio.gather(*(make() for make in work[start : start + BATCH]))


def measure(kind: str, nodes: int) -> dict[str, float]:
    network = Network(1, link=Link(latency=LogNormal(0.03, 0.3)))
    began = time.perf_counter()
    figures: dict[str, float] = {"nodes": nodes}

    async def story() -> None:
        members: list[Member] = []
        for number in range(nodes):
            seeds = [f"{m.address}:9000" for m in members[:SEEDS]]
            members.append(Member(network, number, seeds, kind))
            if number < SEEDS:
                await members[number].host.run(members[number].join())
        await in_batches([lambda m=m: m.host.run(m.join()) for m in members[SEEDS:]])  # type: ignore[misc]
        # A record is stored by the nodes closest to it at the moment: published while the network
        # grows sixfold in a minute, it would be found again only when it is published next.
        known = members if kind == "full" else members[: max(50, nodes // 10)]
        await in_batches([lambda m=m: m.host.run(m.publish()) for m in known])  # type: ignore[misc]
        figures["join_wall_s"] = time.perf_counter() - began
        figures["join_virtual_s"] = network.loop.now
        sent = _sent(members)
        asked = time.perf_counter()
        rng = random.Random(1)  # noqa: S311
        pairs = [(m, rng.choice([o for o in rng.sample(known, 2) if o is not m])) for m in members]
        await in_batches([lambda a=a, b=b: a.host.run(a.ask(b)) for a, b in pairs])  # type: ignore[misc]
        figures["ask_wall_s"] = time.perf_counter() - asked
        figures["messages_per_lookup"] = (_sent(members) - sent) / nodes
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures["memory_mib"] = peak_kib / 1024

    run_in(network, story(), limit_s=LIMIT_S, unreal=False)
    figures["wall_s"] = time.perf_counter() - began
    return figures


def _sent(members: Sequence[Member]) -> int:
    counters = (member.lookup.counters for member in members)
    return sum(count for c in counters for name, count in c.items() if name.startswith("sent_find"))


def svg(kind: str, rows: Sequence[dict[str, float]]) -> str:
    """Wall time and memory against the number of nodes, both axes logarithmic."""
    width, height, margin = 640, 400, 60
    nodes = [row["nodes"] for row in rows]
    values = [row[name] for row in rows for name in ("wall_s", "memory_mib")]
    low_x, high_x = math.log10(min(nodes)), math.log10(max(nodes)) or 1
    low_y, high_y = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def at(x: float, y: float) -> str:
        across = (math.log10(x) - low_x) / ((high_x - low_x) or 1)
        up = (math.log10(y) - low_y) / ((high_y - low_y) or 1)
        place = (
            margin + across * (width - 2 * margin),
            height - margin - up * (height - 2 * margin),
        )
        return f"{place[0]:.1f},{place[1]:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{margin}" y="24" font-size="15">{kind} nodes in one process</text>',
    ]
    for power in range(low_y, high_y + 1):
        x, y = at(min(nodes), 10**power).split(",")
        parts.append(f'<path d="M{x},{y}H{width - margin}" stroke="#ddd"/>')
        parts.append(f'<text x="{margin - 8}" y="{y}" text-anchor="end">{10.0**power:g}</text>')
    for count in nodes:
        x, y = at(count, 10.0**low_y).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18}" text-anchor="middle">{count:,.0f}</text>')
    for name, colour, label in (
        ("wall_s", "#0072b2", "wall time, s"),
        ("memory_mib", "#d55e00", "peak memory, MiB"),
    ):
        points = [at(row["nodes"], row[name]) for row in rows]
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
            'stroke-width="2"/>'
        )
        x, y = points[-1].split(",")
        parts.append(
            f'<text x="{float(x) - 6}" y="{float(y) - 8}" text-anchor="end" '
            f'fill="{colour}">{label}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", default="100,300,1000")
    parser.add_argument("--kind", choices=["full", "dht"], default="full")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.kind, options.one)))
        return
    rows = []
    print(f"{options.kind} nodes, {platform.python_version()}")
    print("   nodes  joined s  asked s  virtual s  messages/lookup  peak MiB  MiB/node")
    for nodes in map(int, options.nodes.split(",")):
        command = [sys.executable, __file__, "--kind", options.kind, "--one", str(nodes)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603
        rows.append(row)
        print(
            f"{nodes:8,}{row['join_wall_s']:10.1f}{row['ask_wall_s']:9.1f}"
            f"{row['join_virtual_s']:11.1f}{row['messages_per_lookup']:17.1f}"
            f"{row['memory_mib']:10.0f}{row['memory_mib'] / nodes:10.3f}",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.svg is not None:
        options.svg.write_text(svg(options.kind, rows))


if __name__ == "__main__":
    main()

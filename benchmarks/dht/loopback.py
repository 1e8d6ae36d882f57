"""Loopback: real nodes with real sockets, several systems side by side in one run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.dht.loopback_systems import SYSTEMS
from benchmarks.dht.tables import Table, percentile

__all__ = ["loopback"]

HYPERDHT = "hyperdht"
OWN_NETWORK = ("unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "worker")
"""A network namespace: its UDP counters are those of one system alone."""


def loopback(options: argparse.Namespace) -> Iterator[Table]:
    """Publish and resolve on loopback beside the DHTs that are installed."""
    names = options.systems or [*SYSTEMS, HYPERDHT]
    workers: dict[str, Worker] = {}
    missing: list[str] = []
    try:
        for name in names:
            worker = Worker(name)
            if "missing" in worker.hello:
                missing.append(f"{name} is not measured: {worker.hello['missing']}")
                worker.close()
                continue
            workers[name] = worker
            worker.boot = worker.ask("boot", nodes=options.nodes)
        for worker in workers.values():
            worker.idle = worker.ask("idle", seconds=options.idle)
        for number in range(options.rounds):
            for worker in workers.values():
                first = number * options.operations
                worker.measure(first, options.operations)
        rows = [worker.row(options.nodes) for worker in workers.values()]
    finally:
        for worker in workers.values():
            worker.close()
    yield Table(
        f"Loopback: {options.nodes:,} nodes in one process, {options.rounds} rounds of "
        f"{options.operations} operations, all systems in turn",
        rows,
        (
            "first: until the first value is there; newest: until the system says that it has "
            "looked everywhere; kademlia has the first only",
            "CPU and datagrams of the whole network, all nodes, less what it does when idle",
            "walk: look for the 20 nodes closest to a random place; the leanest round",
            "values of 400 bytes; ours, libtorrent and hyperdht sign and verify them (Ed25519)",
            *missing,
        ),
    )


class Worker:
    """A process with a network of one system in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boot: dict[str, float] = {}
        self.idle: dict[str, float] = {}
        self._phases: dict[str, list[dict[str, Any]]] = {"publish": [], "resolve": []}
        self._walks: list[dict[str, Any]] = []
        here = Path(__file__).parent
        command = (
            ["node", str(here / "loopback_hyperdht.cjs")]
            if name == HYPERDHT
            else [sys.executable, "-m", "benchmarks.dht.loopback_worker", name]
        )
        alone = subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False)  # noqa: S603
        self._counts = alone.returncode == 0
        prefix = OWN_NETWORK if self._counts else ()
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [*prefix, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except FileNotFoundError as error:
            self.hello: dict[str, Any] = {"missing": f"no {error.filename}"}
            return
        self.hello = self._answer()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def measure(self, first: int, count: int) -> None:
        for command, phases in self._phases.items():
            phases.append(self.ask(command, first=first, count=count))
        if self.name != HYPERDHT:
            self._walks.append(self.ask("walk", first=first, count=count))

    def row(self, nodes: int) -> dict[str, Any]:
        row: dict[str, Any] = {"system": f"{self.name} {self.hello['version']}"}
        for command, kinds in (("publish", ("done",)), ("resolve", ("first", "newest"))):
            phases = self._phases[command]
            for kind in kinds:
                name = command if kind == "done" else f"{command} {kind}"
                ms = [1000 * s for phase in phases for s in phase[kind] if s is not None]
                row[f"{name} p50 ms"] = percentile(ms, 0.5)
                row[f"{name} p99 ms"] = percentile(ms, 0.99)
            asked = sum(phase["asked"] for phase in phases)
            succeeded = sum(phase["succeeded"] for phase in phases)
            row[f"{command}{'d' if command.endswith('e') else 'ed'}"] = f"{succeeded}/{asked}"
            row[f"{command} datagrams"] = self._net(phases, "datagrams") / asked
            row[f"{command} CPU ms"] = 1000 * self._net(phases, "cpu_s") / asked
        every = [phase for phases in self._phases.values() for phase in phases]
        datagrams, cpu_s = self._net(every, "datagrams"), self._net(every, "cpu_s")
        row["CPU µs a datagram"] = 1e6 * cpu_s / datagrams if datagrams > 0 else None
        row |= self._walk_figures()
        row["boot s"] = self.boot["wall_s"]
        row["boot CPU ms a node"] = 1000 * self.boot["cpu_s"] / nodes
        row["KiB a node"] = self.boot["rss_kib"] / nodes
        row["idle CPU %"] = 100 * self.idle["cpu_s"] / self.idle["wall_s"]
        if not self._counts:
            row = {name: value for name, value in row.items() if "datagram" not in name}
        return row

    def _walk_figures(self) -> dict[str, Any]:
        """Of those that can walk and nothing else: equal work. The leanest round counts, since what
        else this machine does only ever adds to the time."""
        walks = [phase for phase in self._walks if phase["succeeded"] == phase["asked"]]
        if not walks:
            return {}
        asked = sum(phase["asked"] for phase in walks)
        return {
            "walk datagrams": sum(phase["datagrams"] for phase in walks) / asked,
            "walk CPU ms": min(1000 * phase["cpu_s"] / phase["asked"] for phase in walks),
            "walk CPU µs a datagram": min(
                1e6 * phase["cpu_s"] / max(1, phase["datagrams"]) for phase in walks
            ),
        }

    def _net(self, phases: list[dict[str, Any]], name: str) -> float:
        spent = sum(phase[name] for phase in phases)
        wall_s = sum(phase["wall_s"] for phase in phases)
        return float(spent - self.idle[name] * wall_s / self.idle["wall_s"])

    def close(self) -> None:
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; at {time.ctime()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

"""The same benchmark with more and more nodes, each size in a process of its own.

Python does not give back memory that it once had, and a smaller run must not pay for a larger one.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.line_chart import Line, line_chart
from benchmarks.time_by_room import time_by_room
from simulations.virtual import Network, run_in

__all__ = ["Figures", "Stopwatch", "sizes"]

Figures: TypeAlias = dict[str, float]
Story: TypeAlias = "Callable[[Network, int, Stopwatch], Coroutine[Any, Any, None]]"
HEADER = "   nodes  joined s   asked s     CPU s virtual s  messages/lookup  answered  peak MiB"


class Stopwatch:
    """How long the parts of one run took, in real and in virtual time."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._began_s = time.perf_counter()
        self.figures: Figures = {}

    def lap(self, name: str) -> None:
        now_s = time.perf_counter()
        self.figures[f"{name}_wall_s"] = now_s - self._began_s
        self.figures[f"{name}_virtual_s"] = self._network.loop.now
        self._began_s = now_s


def sizes(
    what: str,
    default: str,
    story: Story,
    network: Callable[[], Network],
    *,
    limit_s: float,
) -> None:
    """The whole program. ``story`` laps "join" and "ask" on the stopwatch, and adds to its figures
    "messages_per_lookup" and the share that was "answered"; ``limit_s`` is virtual time."""
    parser = argparse.ArgumentParser(description=f"How many {what} nodes fit into the bottle.")
    parser.add_argument("--nodes", default=default, metavar="N,N,...")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="FILE.svg and FILE-messages.svg")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        if options.profile:
            figures, shares = time_by_room(lambda: _measure(options.one, story, network(), limit_s))
            figures |= {f"share {room}": share for room, share in shares.items()}
        else:
            figures = _measure(options.one, story, network(), limit_s)
        print(json.dumps(figures))
        return
    rows: list[Figures] = []
    print(f"{what} nodes, {platform.python_implementation()} {platform.python_version()}\n{HEADER}")
    for nodes in map(int, options.nodes.split(",")):
        command = [sys.executable, sys.argv[0], "--one", str(nodes)]
        command += ["--profile"] if options.profile else []
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603
        rows.append(row)
        print(
            f"{nodes:8,}{row['join_wall_s']:10.1f}{row['ask_wall_s']:10.1f}{row['cpu_s']:10.1f}"
            f"{row['ask_virtual_s']:10.1f}{row['messages_per_lookup']:17.1f}"
            f"{row['answered']:10.1%}{row['memory_mib']:10.0f}",
            flush=True,
        )
        rooms = [f"{k.removeprefix('share ')} {v:.0%}" for k, v in row.items() if "share" in k]
        if rooms:
            print(f"{'':8}{', '.join(rooms)}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.svg is not None:
        _draw(what, rows, options.svg)


def _measure(
    nodes: int,
    story: Story,
    network: Network,
    limit_s: float,
) -> Figures:
    gc.freeze()
    watch = Stopwatch(network)
    # Reading the real clock must not raise: the stopwatch does.
    run_in(network, story(network, nodes, watch), limit_s=limit_s, unreal=False)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "nodes": nodes,
        **watch.figures,
        "cpu_s": time.process_time(),
        "memory_mib": peak_kib / 1024,
        "packets": network.trace.entries,
    }


def _draw(what: str, rows: Sequence[Figures], file: Path) -> None:
    def line(name: str, read: Callable[[Figures], float]) -> Line:
        return Line(name, [(row["nodes"], read(row)) for row in rows])

    file.write_text(
        line_chart(
            f"{what} nodes in one process",
            "nodes",
            [
                line("wall time, s", lambda row: row["join_wall_s"] + row["ask_wall_s"]),
                line("peak memory, MiB", lambda row: row["memory_mib"]),
            ],
            logarithmic_y=True,
        )
    )
    file.with_name(f"{file.stem}-messages.svg").write_text(
        line_chart(
            f"{what} nodes: messages that a lookup takes",
            "nodes, logarithmic",
            [line("messages a lookup", lambda row: row["messages_per_lookup"])],
            logarithmic_y=False,
        )
    )

"""How cost grows: with known peers, connections, queries in flight, the size of a body, and the
records that a DHT node stores.

``python -m benchmarks.growth [--only NAME] [--json FILE] [--plots DIR] [--into PAGE]``

It measures processor time of both sides per query, and memory per item: wall time would say more
about the machine than about the code. Each point has processes of its own. If the total grows no
faster than n log n, the cost per item grows no faster than log n; "x smallest" shows by how much.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.__main__ import allow_files
from benchmarks.contest import CONTESTANTS, Work
from benchmarks.line_chart import Line, line_chart
from benchmarks.machine import describe, pss_bytes
from benchmarks.pair import Pair, cpu_us
from benchmarks.report import put_into

__all__ = ["GROWTHS", "Growth", "Point", "table"]

EGTP = CONTESTANTS[0]
WIDE = replace(EGTP, form="wide")
SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Point:
    """The cost at one size. ``bytes_each`` is 0 where memory was not measured."""

    size: int
    cpu_us: float
    """Of both sides per query; of the store per record."""
    bytes_each: float = 0.0


@dataclass(frozen=True, slots=True)
class Growth:
    name: str
    across: str
    sizes: tuple[int, ...]
    measure: Callable[[int, float], Point]


def _query(at_once: int, seconds: float, size: int = 100) -> dict[str, Any]:
    return Work("", at_once=at_once, bytes=size).order(0.3 + at_once / 20_000, seconds)


def known_peers(size: int, seconds: float) -> Point:
    """64 queries in flight to one peer, from a node that knows ``size`` others."""
    with Pair(EGTP, known=size) as pair:
        before = pss_bytes(pair.client.process.pid)
        # The first work creates the node, with all that it knows.
        facts = pair.measure(_query(64, seconds))
        grown = pss_bytes(pair.client.process.pid) - before
        return Point(size, cpu_us(facts), grown / size)


def connections(size: int, seconds: float) -> Point:
    """64 queries in flight from one peer, to a node that has ``size`` other connections."""
    with Pair(EGTP) as pair:
        _, bytes_each = pair.hold(size, SETTLE_S)
        pair.client = pair.another_client(EGTP)
        facts = pair.measure(_query(64, seconds))
        return Point(size, cpu_us(facts), bytes_each)


def in_flight(size: int, seconds: float) -> Point:
    """``size`` queries in flight at a time."""
    with Pair(WIDE) as pair:
        pair.measure(_query(1, 0.1))
        before = pss_bytes(pair.client.process.pid)
        facts = pair.measure(_query(size, seconds) | {"weigh": True})
        return Point(size, cpu_us(facts), max(0.0, facts["client_pss"] - before) / size)


def body_size(size: int, seconds: float) -> Point:
    """Four echoes of ``size`` bytes in flight."""
    with Pair(EGTP) as pair:
        facts = pair.measure(_query(4, max(seconds, size / 8e6), size))
        return Point(size, cpu_us(facts))


def stored_records(size: int, _: float) -> Point:
    """A store of ``size`` records takes one more, and gives it away ten times."""
    command = [sys.executable, "-m", "benchmarks.stored_records", str(size)]
    done = subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return Point(size, **json.loads(done.stdout))


GROWTHS = (
    Growth("known_peers", "known peers", (10, 100, 1000, 10_000), known_peers),
    Growth("connections", "connections held", (10, 100, 1000, 5000), connections),
    Growth("in_flight", "queries in flight", (1, 10, 100, 1000, 10_000, 100_000), in_flight),
    Growth("body_size", "bytes of a body", tuple(16**n for n in range(7)), body_size),
    Growth("stored_records", "records stored", (1000, 10_000, 100_000, 1_000_000), stored_records),
)


def table(points: dict[str, Sequence[Point]]) -> str:
    """Markdown: each size's cost, and its ratio to the cost of the smallest size."""
    lines = ["| | size | CPU us | x smallest | bytes each |", "|---|--:|--:|--:|--:|"]
    for growth in GROWTHS:
        for point in points.get(growth.name, ()):
            first = points[growth.name][0]
            weight = f"{point.bytes_each:,.0f}" if point.bytes_each else "-"
            lines.append(
                f"| {growth.across} | {point.size:,} | {point.cpu_us:,.1f} "
                f"| {point.cpu_us / first.cpu_us:,.2f} | {weight} |"
            )
    return "\n".join(lines)


def draw(growth: Growth, points: Sequence[Point], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    line = Line("CPU us a query or record", [(one.size, one.cpu_us) for one in points])
    title = f"Cost against {growth.across}"
    picture = line_chart(title, growth.across, [line], logarithmic_y=True)
    (folder / f"growth_{growth.name}.svg").write_text(picture, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", choices=[growth.name for growth in GROWTHS])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each window")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="leave larger sizes out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plots", type=Path, metavar="DIR")
    parser.add_argument("--into", type=Path, metavar="PAGE")
    options = parser.parse_args()
    allow_files()
    points: dict[str, Sequence[Point]] = {}
    for growth in GROWTHS:
        if options.only not in (None, growth.name):
            continue
        sizes = [size for size in growth.sizes if size <= options.most]
        points[growth.name] = [growth.measure(size, options.seconds) for size in sizes]
        print(table({growth.name: points[growth.name]}), flush=True)
        if options.plots:
            draw(growth, points[growth.name], options.plots)
    if options.into:
        page = put_into(options.into.read_text(encoding="utf-8"), {"growth": table(points)})
        options.into.write_text(page, encoding="utf-8")
    if options.json:
        rows = {name: [asdict(point) for point in some] for name, some in points.items()}
        facts = {"machine": describe(), "points": rows}
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""``python -m benchmarks``: EGTP and its peers under one harness. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from benchmarks.contest import CONTESTANTS, SUITES
from benchmarks.harness import Harness, Options
from benchmarks.machine import describe
from benchmarks.pictures import write_pictures
from benchmarks.report import report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--suite", action="append", choices=[*SUITES, "all"], help="several times for several"
    )
    parser.add_argument(
        "--peers", default="", metavar="A,B", help="parts of names, of " + ", ".join(_names())
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each window")
    parser.add_argument("--held", type=int, help="connections in the suite idle")
    parser.add_argument("--tries", type=int, default=3, help="for a window that others disturb")
    parser.add_argument("--json", metavar="FILE", help="write every row")
    parser.add_argument("--plots", metavar="DIR", help="draw the medians")
    options = parser.parse_args()
    suites = options.suite or ["query"]
    harness = Harness(
        Options(
            tuple(SUITES if "all" in suites else suites),
            tuple(part for part in options.peers.split(",") if part),
            rounds=options.rounds,
            seconds=options.seconds,
            held=options.held,
            tries=options.tries,
        )
    )
    allow_files()
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    try:
        harness.run()
    finally:
        results = {
            "began": began,
            "machine": describe(),
            "rounds": options.rounds,
            "seconds": options.seconds,
            "rows": harness.rows,
            "absent": harness.absent,
        }
        if options.json:
            Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print("\n".join(report(results).values()))
    if options.plots:
        write_pictures(results, Path(options.plots))


def _names() -> list[str]:
    return [one.name for one in CONTESTANTS]


def allow_files() -> None:
    """Raise the limit on open files: each of thousands of connections is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()

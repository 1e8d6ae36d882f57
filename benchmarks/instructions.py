"""The guard against slow-downs: how many instructions a query costs, counted by callgrind.

``python -m benchmarks.instructions`` compares the count with the one in ``instructions.json``, and
fails if a query has become more expensive; ``--record`` writes the present count there instead.
Commit that together with the change that caused it.

The work runs twice, with fewer and with more queries. The difference is queries alone: imports,
keys and handshakes are the same in both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

__all__ = ["RECORDED", "TOLERANCE", "count", "stand", "verdict"]

RECORDED = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.05
"""Runs of one commit differ by a thousandth; changes of the code below this count as noise."""
FEW, MANY = 500, 2500
LIMIT_S = 600.0


def stand() -> dict[str, str]:
    """What else the count depends on: counts are compared only if these are the same."""
    packages = ("cryptography", "msgpack")
    return {"python": platform.python_version(), "machine": platform.machine()} | {
        name: version(name) for name in packages
    }


def _instructions(queries: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(  # noqa: S603
            [  # noqa: S607
                "valgrind",
                "--tool=callgrind",
                f"--callgrind-out-file={folder}/out",
                sys.executable,
                "-m",
                "benchmarks.instructions_workload",
                str(queries),
            ],
            env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
    found = re.search(r"Collected : (\d+)", run.stderr)
    assert found is not None
    return int(found.group(1))


def count() -> int:
    """The instructions of one query: of both sides together, and of the bottle between them.

    Takes two runs side by side, about 15 s of processor time each. Raises ``CalledProcessError``.
    """
    with ThreadPoolExecutor(2) as both:
        few, many = both.map(_instructions, (FEW, MANY))
    return (many - few) // (MANY - FEW)


def verdict(counted: int, recorded: int) -> str | None:
    """What is wrong with ``counted``; None if it is not more than was recorded."""
    change = counted / recorded - 1
    if change <= TOLERANCE:
        return None
    return (
        f"a query costs {counted:,} instructions, {change:+.1%} over the {recorded:,} on record; "
        "if it is worth that: python -m benchmarks.instructions --record"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--record", action="store_true", help="write the count down")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed")
    counted = count()
    print(f"{counted:,} instructions a query")
    if options.record:
        facts = stand() | {"instructions_per_query": counted}
        RECORDED.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    if {name: recorded[name] for name in stand()} != stand():
        sys.exit(f"recorded on {recorded}, but this is {stand()}: not comparable")
    wrong = verdict(counted, recorded["instructions_per_query"])
    if wrong:
        sys.exit(wrong)


if __name__ == "__main__":
    main()

"""The commands. Each prints its tables as Markdown; ``--json`` writes them for programs too."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.dht.adversaries import adversaries
from benchmarks.dht.amplification import amplification
from benchmarks.dht.churn import churn
from benchmarks.dht.conditions import conditions
from benchmarks.dht.digests import digests
from benchmarks.dht.eclipse import eclipse
from benchmarks.dht.idle import idle
from benchmarks.dht.loopback import loopback
from benchmarks.dht.tables import Table, machine, write_json
from benchmarks.dht.world import SETTLE_S

Command = Callable[[argparse.Namespace], Iterator[Table]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    command: Command = options.command
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n", flush=True)
    tables = []
    for table in command(options):
        tables.append(table)
        print(table.markdown(), flush=True)
    if options.json:
        shown = {name: value for name, value in vars(options).items() if name != "command"}
        write_json(options.json, tables, shown)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dht", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        command: Command, help_text: str, *, nodes: int, records: int = 0, settle: float = SETTLE_S
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(command.__name__, help=help_text, description=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--json", metavar="FILE", type=Path)
        sub.add_argument("--nodes", type=int, default=nodes, help="default %(default)s")
        sub.add_argument("--seeds", type=_numbers, default=[1], help="N,N,...; default 1")
        if records:
            sub.add_argument("--records", type=int, default=records, help="default %(default)s")
            sub.add_argument(
                "--settle",
                type=float,
                default=settle,
                help="virtual seconds between the last join and the first put (%(default)s)",
            )
            sub.add_argument("--jobs", type=int, default=1, help="processes at a time")
        return sub

    add(conditions, "loss and dead nodes", nodes=1000, records=80)
    bad = add(adversaries, "a share of the nodes colludes", nodes=1000, records=80)
    bad.add_argument("--percent", type=_numbers, default=[10, 20, 30], help="N,N,... of the nodes")
    add(eclipse, "sybils around single keys", nodes=1000, records=20)
    quiet = add(idle, "a network left alone after puts", nodes=1000, records=200)
    quiet.add_argument("--minutes", type=float, default=60.0)
    quiet.add_argument("--budget", type=int, default=1_000_000, help="datagrams; see the notes")
    long = add(churn, "two days of nodes that come and go", nodes=200, records=40)
    long.add_argument("--hours", type=float, default=48.0)
    long.add_argument("--resolves", type=int, default=10_000)
    real = add(loopback, "real nodes on loopback, beside other DHTs", nodes=200)
    real.add_argument("--rounds", type=int, default=5)
    real.add_argument("--operations", type=int, default=20, help="puts and gets in each round")
    real.add_argument("--idle", type=float, default=5.0, help="seconds to measure at rest")
    real.add_argument(
        "--systems", type=lambda text: text.split(","), help="NAME,NAME,... of them only"
    )
    loud = add(amplification, "bytes to an unproven address for bytes from there", nodes=40)
    loud.add_argument("--times", type=int, default=5)
    same = add(digests, "same seed, same packets", nodes=100, records=10, settle=60)
    same.set_defaults(seeds=[1, 2])
    same.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    raise SystemExit(main())

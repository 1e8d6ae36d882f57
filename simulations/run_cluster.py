"""Run a real cluster on this machine's loopback, and check what it shows.

Exit status: 0 if every expectation held, 1 if one did not, 2 for options that cannot work.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from egtp import InvalidConfig
from simulations.cluster import Cluster, ClusterPlan
from simulations.expectations import Expectation, Expectations
from simulations.scenarios import SCENARIOS, Figures


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(2, f"run_cluster: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    plan = ClusterPlan()
    parser = _Parser(prog="run_cluster", description=__doc__, allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=plan.nodes, help="default: %(default)s")
    parser.add_argument("--relays", type=int, default=plan.relays, help="default: %(default)s")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS),
        help="run this one; may be given several times; default: all",
    )
    parser.add_argument("--seed", type=int, default=plan.seed, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser


async def run(
    plan: ClusterPlan, names: list[str], console: Console
) -> tuple[Expectations, dict[str, object]]:
    """Run the scenarios, each in a cluster of its own, since each leaves some of it broken."""
    began = time.perf_counter()

    def narrate(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - began:6.2f} s[/]  {text}", highlight=False)

    def tell(expectation: Expectation) -> None:
        mark = "[green]held  [/]" if expectation.held else "[bold red]FAILED[/]"
        narrate(f"{mark} {expectation.text}  [dim]{expectation.detail}[/]")

    expectations = Expectations(tell)
    figures: dict[str, Figures] = {}
    for name in names:
        scenario = SCENARIOS[name]
        console.print(f"\n[bold]{name}[/]: {scenario.summary}", highlight=False)
        async with Cluster(plan, narrate) as cluster:
            joined_s = cluster.joined_s
            narrate(f"{len(cluster.members)} nodes joined in {joined_s:.2f} s")
            try:
                figures[name] = await scenario.run(cluster, expectations)
            except Exception as error:
                expectations.that(
                    name, "it runs to its end", False, f"{type(error).__name__}: {error}"
                )
                figures[name] = {}
            figures[name]["joined_s"] = joined_s
    report: dict[str, object] = {
        "options": {
            "nodes": plan.nodes,
            "relays": plan.relays,
            "seed": plan.seed,
            "scenarios": names,
        },
        "figures": figures,
        "expectations": [
            {"scenario": e.scenario, "text": e.text, "held": e.held, "detail": e.detail}
            for e in expectations.all
        ],
        "held": not expectations.failed,
    }
    _print_table(console, plan, expectations, figures)
    return expectations, report


def _print_table(
    console: Console, plan: ClusterPlan, expectations: Expectations, figures: dict[str, Figures]
) -> None:
    table = Table(
        title=f"{plan.nodes} nodes, {plan.relays} relays, {plan.unreachable} that accept nothing, "
        f"{plan.bootstraps} bootstrap nodes",
        title_justify="left",
    )
    table.add_column("scenario", no_wrap=True)
    table.add_column("expectations", justify="right")
    table.add_column("figures")
    table.add_column("")
    for name, measured in figures.items():
        mine = [e for e in expectations.all if e.scenario == name]
        held = sum(e.held for e in mine)
        words = ", ".join(f"{key} {value:,.1f}" for key, value in measured.items())
        verdict = "[green]held[/]" if held == len(mine) else "[bold red]FAILED[/]"
        table.add_row(name, f"{held} of {len(mine)}", words, verdict)
    console.print()
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        plan = ClusterPlan(nodes=options.nodes, relays=options.relays, seed=options.seed)
        if options.json is not None:
            # Now, and not after the run: a file that cannot be written is a wrong option.
            options.json.touch()
    except (InvalidConfig, OSError) as error:
        print(f"run_cluster: {error}", file=sys.stderr)
        return 2
    names = options.scenario or list(SCENARIOS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        expectations, report = runner.run(run(plan, names, Console()))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    for expectation in expectations.failed:
        print(f"FAILED: {expectation.scenario}: {expectation.text} ({expectation.detail})")
    if expectations.failed:
        repeat = ["python", "simulations/run_cluster.py", *(arguments or sys.argv[1:])]
        print(f"to repeat it: {shlex.join(repeat)}")
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where there is one. Only programs choose the loop; the library takes any."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            "uvloop"
        ).new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main())

"""Run a real cluster of EGTP nodes on this machine's loopback, and check what it shows.

Each scenario gets a cluster of its own. Exit status: 0 if every expectation held, 1 if one did
not, 2 for options that cannot work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from egtp import InvalidConfig
from egtp.program_loop import program_loop
from simulations.cluster import Cluster
from simulations.plan import ClusterPlan
from simulations.play import Outcome, play
from simulations.scenario import Scenario
from simulations.scenarios import SCENARIOS
from simulations.world import LoopbackWorld

try:
    from rich.console import Console

    from simulations.report import Report
except ModuleNotFoundError as missing:
    # The libraries do without it, so it comes with an extra.
    raise SystemExit(
        f"run_cluster: {missing}; install it with: pip install 'egtp[simulations]'"
    ) from None

__all__ = ["main", "repeat", "run", "verdict"]

HELD, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
ALL: Final = "all"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(USAGE, f"run_cluster: {message}; see --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status. Errors are one line on stderr."""
    options = _parser().parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:16}{scenario.summary}")
        return HELD
    try:
        plan = ClusterPlan(nodes=options.nodes, relays=options.relays, seed=options.seed)
        if options.json is not None:
            _check_writable(options.json)
        scenarios = _chosen(options.scenario or [ALL])
        console = Console(highlight=False)
        with asyncio.Runner(loop_factory=program_loop()) as runner:
            outcomes = runner.run(run(plan, scenarios, console))
    except InvalidConfig as error:
        print(f"run_cluster: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("run_cluster: interrupted", file=sys.stderr)
        return INTERRUPTED
    if options.json is not None:
        options.json.write_text(json.dumps(_report(plan, outcomes), indent=2) + "\n")
    return verdict(plan, outcomes)


def _parser() -> argparse.ArgumentParser:
    plan = ClusterPlan()
    parser = _Parser(prog="run_cluster", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--nodes", type=int, default=plan.nodes, metavar="N", help="all nodes; default: %(default)s"
    )
    parser.add_argument(
        "--relays",
        type=int,
        default=plan.relays,
        metavar="R",
        help="how many of them serve as relays; default: %(default)s",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[*SCENARIOS, ALL],
        metavar="NAME",
        help=f"{', '.join(SCENARIOS)} or {ALL}; may be given several times; default: {ALL}",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=plan.seed,
        metavar="S",
        help="keys and all that is random come from it; default: %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--list", action="store_true", help="name the scenarios, and run none")
    return parser


def _chosen(names: Sequence[str]) -> list[Scenario]:
    """Each once, in the order in which they are told."""
    return [scenario for name, scenario in SCENARIOS.items() if name in names or ALL in names]


def _check_writable(file: Path) -> None:
    """Before the run and not after it: a file that cannot be written is a wrong option."""
    try:
        with file.open("a"):
            pass
    except OSError as error:
        raise InvalidConfig(f"--json {file} cannot be written: {error.strerror}") from None


async def run(
    plan: ClusterPlan, scenarios: Sequence[Scenario], console: Console
) -> Sequence[Outcome]:
    """Play the scenarios, each in a cluster of its own, since each leaves some of it broken."""
    outcomes = []
    report = Report(console, LoopbackWorld(plan.seed).elapsed)
    console.print(str(plan))
    for scenario in scenarios:
        cluster = Cluster(plan, narrate=report.narrate, watch=report.watch)
        async with report.showing(scenario, cluster):
            outcomes.append(await play(scenario, cluster, narrate=report.narrate, tell=report.tell))
    report.finish(plan, outcomes)
    return outcomes


def _report(plan: ClusterPlan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What ``--json`` writes."""
    return {
        "held": all(outcome.held for outcome in outcomes),
        "options": {
            "nodes": plan.nodes,
            "relays": plan.relays,
            "seed": plan.seed,
            "scenarios": [outcome.scenario.name for outcome in outcomes],
        },
        "cluster": {
            "bootstraps": plan.bootstraps,
            "relays": plan.relays,
            "reachable": plan.reachable,
            "unreachable": plan.unreachable,
        },
        "figures": {
            outcome.scenario.name: {
                "joined_s": outcome.joined_s,
                "took_s": outcome.took_s,
                "record_stored_min_nodes": min(outcome.stored, default=0),
                "record_stored_max_nodes": max(outcome.stored, default=0),
                **outcome.figures,
            }
            for outcome in outcomes
        },
        "expectations": [
            {"scenario": outcome.scenario.name, "text": e.text, "held": e.held, "detail": e.detail}
            for outcome in outcomes
            for e in outcome.expectations
        ],
    }


def verdict(plan: ClusterPlan, outcomes: Sequence[Outcome]) -> int:
    """Name what did not hold, and how to see it again. Returns the exit status."""
    for outcome in outcomes:
        name = outcome.scenario.name
        for e in outcome.failed:
            detail = e.detail.replace("\n", "; ")
            print(f"run_cluster: FAILED: {name}: {e.text} ({detail})", file=sys.stderr)
        if not outcome.held:
            print(f"run_cluster: to repeat it: {repeat(plan, name)}", file=sys.stderr)
    return HELD if all(outcome.held for outcome in outcomes) else FAILED


def repeat(plan: ClusterPlan, scenario: str) -> str:
    """The command line that plays a scenario again, with the same keys."""
    options = {"--scenario": scenario, "--nodes": plan.nodes, "--relays": plan.relays}
    # With "=", a negative seed is not taken for an option.
    words = [f"{option}={value}" for option, value in {**options, "--seed": plan.seed}.items()]
    return shlex.join(["python", "simulations/run_cluster.py", *words])


if __name__ == "__main__":
    sys.exit(main())

"""Run a cluster of EGTP nodes and check how it behaves: on this machine's loopback with real
sockets, or in a virtual world in virtual time, where everything follows from the seed.

Each scenario gets a cluster of its own. Exit status: 0 if every expectation held, 1 if one did
not, 2 for options that cannot work.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from egtp import InvalidConfig
from egtp.option_types import USAGE, OptionParser
from simulations.conditions import LOOPBACK, VIRTUAL, VIRTUAL_NODES_MAX, Conditions
from simulations.page import page
from simulations.plan import NODES_MAX, ClusterPlan
from simulations.scenario import Scenario
from simulations.scenarios import SCENARIOS

try:
    from rich.console import Console
    from rich.progress import track

    from simulations.figures_file import figures_of, figures_of_swarm
    from simulations.report import Report
    from simulations.runs import Played, play_one
    from simulations.swarm import SwarmRun, swarm
except ModuleNotFoundError as missing:
    # The libraries do not need it, so it is an extra.
    raise SystemExit(
        f"run_cluster: {missing}; install it with: pip install 'egtp[simulations]'"
    ) from None

__all__ = ["main", "repeat", "run", "verdict"]

HELD, FAILED, INTERRUPTED = 0, 1, 130
ALL: Final = "all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` and return the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS.values():
            where = "  (virtual world only)" if scenario.virtual_only else ""
            print(f"{scenario.name:16}{scenario.summary}{where}")
        return HELD
    try:
        console = Console(highlight=False)
        if options.swarm is not None:
            return _swarm(options, console)
        return _run(options, console)
    except InvalidConfig as error:
        print(f"run_cluster: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("run_cluster: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    plan = ClusterPlan()
    parser = OptionParser(prog="run_cluster", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--world",
        choices=[LOOPBACK, VIRTUAL],
        help=f"where the nodes run; default: {LOOPBACK}",
    )
    parser.add_argument(
        "--nodes", type=int, metavar="N", help=f"number of nodes; default: {plan.nodes}"
    )
    parser.add_argument(
        "--relays",
        type=int,
        metavar="R",
        help=f"how many of them are relays; default: {plan.relays}",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[*SCENARIOS, ALL],
        metavar="NAME",
        help=f"{', '.join(SCENARIOS)} or {ALL} (all of this world); may be given several "
        f"times; default: {ALL}",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=plan.seed,
        metavar="S",
        help="seed of the keys and of everything random; default: %(default)s",
    )
    parser.add_argument(
        "--drawn",
        action="store_true",
        help="let the seed choose nodes, relays, lines and NATs too, in a virtual world",
    )
    parser.add_argument(
        "--swarm",
        type=int,
        metavar="N",
        help="run the scenarios with N seeds from --seed on, each --drawn, on all processors",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a web page of the run to FILE"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write every packet of a virtual world to FILE, one per line",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and exit")
    return parser


def _conditions(options: argparse.Namespace) -> Conditions:
    if options.drawn:
        for option in ("world", "nodes", "relays"):
            if getattr(options, option) not in (None, VIRTUAL):
                raise InvalidConfig(f"--drawn and --{option} cannot be combined: leave one out")
        return Conditions.draw(options.seed)
    world = options.world or LOOPBACK
    default = ClusterPlan()
    plan = ClusterPlan(
        nodes=default.nodes if options.nodes is None else options.nodes,
        relays=default.relays if options.relays is None else options.relays,
        seed=options.seed,
        nodes_max=VIRTUAL_NODES_MAX if world == VIRTUAL else NODES_MAX,
    )
    return Conditions(plan=plan, world=world)


def _chosen(names: Sequence[str], world: str) -> list[Scenario]:
    """The scenarios chosen, each once, in their fixed order."""
    possible = [s for s in SCENARIOS.values() if world == VIRTUAL or not s.virtual_only]
    for name in names:
        if name != ALL and SCENARIOS[name] not in possible:
            raise InvalidConfig(f"{name} needs --world {VIRTUAL}")
    return [s for s in possible if s.name in names or ALL in names]


def _check_writable(options: argparse.Namespace) -> None:
    """Check the output files before a long run rather than after it. A file that cannot be written
    is a wrong option, and so is one that two options name."""
    named: dict[Path, str] = {}
    files: dict[str, Path] = {}
    for option in ("json", "html", "trace"):
        file: Path | None = getattr(options, option)
        if file is None:
            continue
        files[option] = file
        other = named.setdefault(file.resolve(), option)
        if other != option and not file.is_char_device():  # Both may go to /dev/null.
            raise InvalidConfig(f"--{other} and --{option} name the same file: {file}")
    for option, file in files.items():
        try:
            with file.open("a"):
                pass
        except OSError as error:
            raise InvalidConfig(f"--{option} {file} cannot be written: {error.strerror}") from None


# One run


def _run(options: argparse.Namespace, console: Console) -> int:
    conditions = _conditions(options)
    scenarios = _chosen(options.scenario or [ALL], conditions.world)
    if options.trace is not None and conditions.world != VIRTUAL:
        raise InvalidConfig(
            f"--trace needs --world {VIRTUAL}: nobody sees every packet of a real one"
        )
    _check_writable(options)
    runs = run(conditions, scenarios, console, keep_trace=options.trace is not None)
    if options.json is not None:
        _write_json(options.json, figures_of(conditions, runs))
    if options.html is not None:
        options.html.write_text(page([run.timeline.as_dict() for run in runs]), encoding="utf-8")
    if options.trace is not None:
        options.trace.write_text("".join(f"{line}\n" for run in runs for line in run.trace))
    return verdict(conditions, runs)


def run(
    conditions: Conditions,
    scenarios: Sequence[Scenario],
    console: Console,
    *,
    keep_trace: bool = False,
) -> list[Played]:
    """Play the scenarios, each in a cluster of its own, since each leaves its cluster damaged."""
    report = Report(console)
    console.print(str(conditions.plan))
    runs = [
        play_one(conditions, one, report, repeat(conditions, one.name), keep_trace=keep_trace)
        for one in scenarios
    ]
    report.finish(conditions.plan, [run.outcome for run in runs], [run.digest for run in runs])
    return runs


def verdict(conditions: Conditions, runs: Sequence[Played]) -> int:
    """Print which expectations failed, and how to repeat it. Returns the exit status."""
    for run in runs:
        name = run.outcome.scenario.name
        for e in run.outcome.failed:
            detail = e.detail.replace("\n", "; ")
            print(f"run_cluster: FAILED: {name}: {e.text} ({detail})", file=sys.stderr)
        if not run.outcome.held:
            print(f"run_cluster: to repeat it: {repeat(conditions, name)}", file=sys.stderr)
    return HELD if all(run.outcome.held for run in runs) else FAILED


def repeat(conditions: Conditions, scenario: str) -> str:
    """The command line that plays a scenario again, with the same keys."""
    plan = conditions.plan
    # With "=", a negative seed is not taken for an option.
    words = [f"--scenario={scenario}", f"--seed={plan.seed}"]
    if conditions.drawn:
        words.append("--drawn")
    else:
        words += [f"--world={conditions.world}", f"--nodes={plan.nodes}", f"--relays={plan.relays}"]
    return shlex.join(["python", "simulations/run_cluster.py", *words])


# Many runs


def _swarm(options: argparse.Namespace, console: Console) -> int:
    if options.swarm < 1:
        raise InvalidConfig(f"--swarm must be 1 seed or more, not {options.swarm}")
    for option in ("world", "nodes", "relays", "html", "trace"):
        if getattr(options, option) not in (None, VIRTUAL):
            raise InvalidConfig(f"--swarm and --{option} cannot be combined: leave one out")
    scenarios = [scenario.name for scenario in _chosen(options.scenario or [ALL], VIRTUAL)]
    _check_writable(options)
    seeds = range(options.seed, options.seed + options.swarm)
    total = len(scenarios) * len(seeds)
    runs: list[SwarmRun] = []
    for ended in track(
        swarm(scenarios, seeds), "swarm", total=total, console=console, transient=True
    ):
        runs.append(ended)
        if not ended.held:
            _tell_failed(ended)
    if options.json is not None:
        _write_json(options.json, figures_of_swarm(scenarios, runs))
    failed = sum(not ended.held for ended in runs)
    hours = sum(ended.virtual_s for ended in runs) / 3600
    console.print(
        f"{total} runs of {len(scenarios)} scenarios, {hours:.1f} virtual hours: "
        + (f"[bold red]{failed} failed[/]" if failed else "[bold green]all held[/]")
    )
    return FAILED if failed else HELD


def _tell_failed(ended: SwarmRun) -> None:
    for text in ended.failed:
        line = text.replace("\n", "; ")
        print(f"run_cluster: FAILED: {ended.scenario}, seed {ended.seed}: {line}", file=sys.stderr)
    command = repeat(Conditions.draw(ended.seed), ended.scenario)
    print(f"run_cluster: to repeat it: {command}", file=sys.stderr)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())

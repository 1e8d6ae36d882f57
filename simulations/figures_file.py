"""The content of the ``--json`` file: figures of a run, its options, and its digest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from simulations.conditions import Conditions
from simulations.runs import Played
from simulations.swarm import SwarmRun

__all__ = ["figures_of", "figures_of_swarm"]


def figures_of(conditions: Conditions, runs: Sequence[Played]) -> dict[str, Any]:
    """The figures of one run of some scenarios."""
    plan = conditions.plan
    return {
        "held": all(run.outcome.held for run in runs),
        "options": {
            "world": conditions.world,
            "nodes": plan.nodes,
            "relays": plan.relays,
            "seed": plan.seed,
            "drawn": conditions.drawn,
            "scenarios": [run.outcome.scenario.name for run in runs],
        },
        "cluster": {
            "bootstraps": plan.bootstraps,
            "relays": plan.relays,
            "reachable": plan.reachable,
            "unreachable": plan.unreachable,
        },
        "trace_digest": {run.outcome.scenario.name: run.digest for run in runs},
        "figures": {
            run.outcome.scenario.name: {
                "joined_s": run.outcome.joined_s,
                "took_s": run.outcome.took_s,
                "wall_s": run.wall_s,
                "record_stored_min_nodes": min(run.outcome.stored, default=0),
                "record_stored_max_nodes": max(run.outcome.stored, default=0),
                # JSON has no infinity, which a time has that never came.
                **{
                    name: value if math.isfinite(value) else None
                    for name, value in run.outcome.figures.items()
                },
            }
            for run in runs
        },
        "expectations": [
            {
                "scenario": run.outcome.scenario.name,
                "text": e.text,
                "held": e.held,
                "detail": e.detail,
            }
            for run in runs
            for e in run.outcome.expectations
        ],
    }


def figures_of_swarm(scenarios: Sequence[str], runs: Sequence[SwarmRun]) -> dict[str, Any]:
    """The figures of a swarm."""
    ordered = sorted(runs, key=lambda run: (run.seed, run.scenario))
    return {
        "held": all(run.held for run in runs),
        "options": {"scenarios": list(scenarios), "seeds": sorted({run.seed for run in runs})},
        "virtual_s": sum(run.virtual_s for run in runs),
        "runs": [
            {
                "scenario": run.scenario,
                "seed": run.seed,
                "held": run.held,
                "failed": list(run.failed),
                "trace_digest": run.digest,
            }
            for run in ordered
        ],
    }

"""Swarm: many runs, each under its own conditions, on all processors.

Run number N is drawn from seed N, so the same numbers on the same commit give the same verdict, and
each failure can be repeated alone.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from simulations.conditions import Conditions
from simulations.runs import play_one
from simulations.scenarios import SCENARIOS

__all__ = ["SwarmRun", "swarm"]


@dataclass(frozen=True, slots=True)
class SwarmRun:
    """The result of one run of a swarm."""

    scenario: str
    seed: int
    held: bool
    failed: tuple[str, ...]
    """The expectations that failed, with what was observed."""
    digest: str
    virtual_s: float


def swarm(scenarios: Sequence[str], seeds: Sequence[int]) -> Generator[SwarmRun, None, None]:
    """Play each scenario with each seed. Yields runs as they end."""
    # A fresh interpreter for each worker: no state of this one can affect a run.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        runs = [pool.submit(_one, name, seed) for seed in seeds for name in scenarios]
        try:
            for run in as_completed(runs):
                yield run.result()
        finally:
            # Otherwise an interrupt would have to wait until all of them were played.
            pool.shutdown(cancel_futures=True)


def _one(name: str, seed: int) -> SwarmRun:
    played = play_one(Conditions.draw(seed), SCENARIOS[name], None, "")
    outcome = played.outcome
    failed = tuple(f"{e.text}: {e.detail}" for e in outcome.failed)
    digest = played.digest or ""
    return SwarmRun(name, seed, outcome.held, failed, digest, outcome.took_s)

"""Many schedules, on all processors."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

from simulations.mallory.schedule import draw, play
from simulations.mallory.small_world import Conditions

__all__ = ["Verdict", "play_many", "play_some"]

BATCH: Final = 20
"""Schedules given to a process at a time."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one schedule."""

    seed: int
    failures: tuple[str, ...]
    outcomes: dict[str, int]
    ran: int
    checks: int


def play_many(seeds: Sequence[int], steps: int) -> Iterator[Verdict]:
    """Play a schedule per seed, on all processors. Yields verdicts in the order of the seeds."""
    # A fresh interpreter for each worker: no state of this one can affect a run.
    context = multiprocessing.get_context("spawn")
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=gc.freeze) as pool:
        for verdicts in pool.map(play_some, batches, [steps] * len(batches)):
            yield from verdicts


def play_some(seeds: Sequence[int], steps: int) -> list[Verdict]:
    return [_one(seed, steps) for seed in seeds]


def _one(seed: int, steps: int) -> Verdict:
    try:
        played = play(Conditions.draw(seed), draw(seed, steps), seed)
    except Exception as error:
        # An error that stops a world is a finding too, and must not stop the others.
        return Verdict(seed, (f"{type(error).__name__}: {error}",), {}, 0, 0)
    failures = tuple(map(str, played.violations))
    return Verdict(seed, failures, played.outcomes, played.ran, played.checks)

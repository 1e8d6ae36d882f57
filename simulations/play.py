"""Play: run one scenario in one cluster, and judge the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from simulations.cluster import Cluster
from simulations.expectations import Expectation, Expectations, Stopped
from simulations.scenario import Figures, Narrate, Scenario

__all__ = ["Outcome", "play"]

LEFTOVER_GRACE_S: Final = 1.0
"""For callbacks that are already due when a cluster has closed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a scenario."""

    scenario: Scenario
    expectations: tuple[Expectation, ...]
    figures: Figures
    """Empty if the story broke off."""
    joined_s: float
    """How long the cluster took to start completely."""
    stored: tuple[int, ...]
    """How many nodes of the DHT stored each record."""
    took_s: float

    @property
    def failed(self) -> tuple[Expectation, ...]:
        return tuple(e for e in self.expectations if not e.held)

    @property
    def held(self) -> bool:
        """Whether all expectations held; False if there are none."""
        return bool(self.expectations) and not self.failed


async def play(
    scenario: Scenario,
    cluster: Cluster,
    *,
    narrate: Narrate = lambda _: None,
    tell: Callable[[Expectation], None] = lambda _: None,
) -> Outcome:
    """Start ``cluster``, run ``scenario`` in it, close it, and check that nothing is left.

    A story that breaks off counts as a failed expectation. Raises :class:`InvalidConfig` if this
    machine cannot run such a cluster.
    """
    expect = Expectations(tell, cluster.words)
    figures: Figures = {}
    stored: tuple[int, ...] = ()
    began_s = cluster.world.elapsed()
    loop = asyncio.get_running_loop()
    former_handler = loop.get_exception_handler()
    problems: list[str] = []
    loop.set_exception_handler(lambda _, context: problems.append(_described(context)))
    others = asyncio.all_tasks()
    try:
        try:
            async with cluster:
                stored = tuple(cluster.stored)
                narrate(f"everything is up after {cluster.joined_s:.2f} s")
                figures = await _tell(scenario, cluster, expect, narrate)
        except Stopped as error:
            expect.that(error.text, False, error.detail)
        left = asyncio.all_tasks() - others
        if left:
            _, left = await asyncio.wait(left, timeout=LEFTOVER_GRACE_S)
        expect.that("nothing is left when the cluster is closed", not left, f"{len(left)} tasks")
        wrong = cluster.checkers.violations
        expect.that(
            "no rule was ever broken",
            not wrong,
            "\n".join(map(str, wrong)) or f"{cluster.checkers.asked} queries watched",
        )
        expect.that("nothing failed unseen", not problems, "\n".join(problems) or "0 errors")
    finally:
        loop.set_exception_handler(former_handler)
    return Outcome(
        scenario,
        tuple(expect.all),
        figures,
        cluster.joined_s,
        stored,
        cluster.world.elapsed() - began_s,
    )


async def _tell(
    scenario: Scenario, cluster: Cluster, expect: Expectations, narrate: Narrate
) -> Figures:
    try:
        return await scenario.run(cluster, expect, narrate)
    except Stopped:
        raise
    except Exception as error:
        # Any error is the outcome of this scenario alone: the next one still gets its turn.
        raise Stopped("the story comes to its end", f"{type(error).__name__}: {error}") from error


def _described(context: dict[str, Any]) -> str:
    error = context.get("exception")
    message = str(context.get("message", "an error"))
    return message if error is None else f"{message}: {type(error).__name__}: {error}"

"""Runs: a scenario played in a world of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

from egtp.events import Event
from egtp.program import program_loop
from simulations.cluster import Cluster
from simulations.conditions import Conditions
from simulations.expectations import Expectation
from simulations.member import Member
from simulations.play import Outcome, play
from simulations.recorder import Recorder
from simulations.report import Report
from simulations.scenario import Scenario
from simulations.timeline import Timeline
from simulations.virtual import SimulationError, Trace, run_in
from simulations.world import VirtualWorld

__all__ = ["Played", "play_one"]

LIMIT_S: Final = 48 * 3600.0
"""A limit of virtual time that no scenario comes near."""


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario that was played, with its records."""

    outcome: Outcome
    timeline: Timeline
    digest: str | None
    """The digest of everything that happened on a virtual network; None for a real one."""
    trace: tuple[str, ...]
    wall_s: float


def play_one(
    conditions: Conditions,
    scenario: Scenario,
    report: Report | None,
    command: str,
    *,
    keep_trace: bool = False,
) -> Played:
    """Play one scenario, reporting to ``report`` if given. ``command`` is the command line that
    repeats it. Raises :class:`InvalidConfig` if there can be no such world."""
    trace = Trace(keep=keep_trace)
    world = conditions.make_world(trace)
    timeline = Timeline(
        scenario.name,
        summary=scenario.summary,
        seed=conditions.plan.seed,
        world=conditions.world,
        command=command,
        options={"cluster": str(conditions.plan)},
    )
    recorder = Recorder(timeline, world.elapsed)
    watchers: list[Recorder | Report] = [recorder] if report is None else [recorder, report]

    def narrate(text: str) -> None:
        for one in watchers:
            one.narrate(text)

    def tell(expectation: Expectation) -> None:
        for one in watchers:
            one.tell(expectation)

    def watch(member: Member, event: Event) -> None:
        for one in watchers:
            one.watch(member, event)

    cluster = Cluster(conditions.plan, world, narrate=narrate, watch=watch)
    recorder.attach(cluster)

    async def story() -> Outcome:
        async with nullcontext() if report is None else report.showing(scenario, cluster):
            return await play(scenario, cluster, narrate=narrate, tell=tell)

    began_s = time.perf_counter()
    digest = None
    if isinstance(world, VirtualWorld):
        try:
            outcome = run_in(world.network, story(), limit_s=LIMIT_S).value
        except SimulationError as error:
            outcome = _broken_off(scenario, cluster, error, tell)
        digest = trace.digest
    else:
        with asyncio.Runner(loop_factory=program_loop()) as runner:
            outcome = runner.run(story())
    for name, value in outcome.figures.items():
        timeline.figure(name, value)
    timeline.end(outcome.took_s, digest)
    wall_s = time.perf_counter() - began_s
    return Played(outcome, timeline, digest, tuple(trace.lines or ()), wall_s)


def _broken_off(
    scenario: Scenario,
    cluster: Cluster,
    error: SimulationError,
    tell: Callable[[Expectation], None],
) -> Outcome:
    """The outcome if the world itself ended before the story did."""
    expectation = Expectation(
        "the world goes on until the story is told", False, f"{type(error).__name__}: {error}"
    )
    tell(expectation)
    took_s = cluster.world.elapsed()
    return Outcome(scenario, (expectation,), {}, cluster.joined_s, (), took_s)

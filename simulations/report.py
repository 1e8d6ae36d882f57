"""The printed report of a run: the story as it happens, and tables at the end.

On a terminal, a live board is shown below the story; elsewhere the output is plain lines, one event
each. Rich could refresh from a thread of its own; here everything happens on the event loop, like
the nodes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from egtp.events import Event
from simulations.board import Board
from simulations.cluster import Cluster
from simulations.expectations import Expectation
from simulations.member import Member
from simulations.plan import ClusterPlan
from simulations.play import Outcome
from simulations.scenario import Scenario

__all__ = ["Report"]

REDRAW_S: Final = 0.1
HELD, FAILED = "[green]held[/]", "[bold red]FAILED[/]"


class Report:
    """Reports a run to ``console``."""

    def __init__(
        self, console: Console, real_time: Callable[[], float] = time.perf_counter
    ) -> None:
        self._console = console
        self._real_time = real_time
        self._real_began_s = real_time()
        self._elapsed = real_time
        """The clock of the world whose story is being told."""
        self._began_s = self._real_began_s
        self._board = Board()
        self._live: Live | None = None
        self._drawn_s = 0.0

    # During the run

    @asynccontextmanager
    async def showing(self, scenario: Scenario, cluster: Cluster) -> AsyncIterator[None]:
        """Report the story of ``scenario`` within this context."""
        self._elapsed = cluster.world.elapsed
        self._began_s = self._elapsed()
        self._console.print(f"\n[bold]{scenario.name}[/]: {escape(scenario.summary)}")
        if not self._console.is_terminal:
            yield
            return
        self._board.show(cluster)
        with Live(self._board, console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def narrate(self, text: str) -> None:
        self._line("", escape(text))

    def tell(self, expectation: Expectation) -> None:
        mark = HELD if expectation.held else FAILED
        detail = expectation.detail.replace("\n", "; ")
        self._line(mark, f"{escape(expectation.text)}  [dim]{escape(detail)}[/]")

    def watch(self, member: Member, event: Event) -> None:
        self._board.note(member, event)
        self._draw()

    def _draw(self) -> None:
        """Redraw after a change, at most once per interval of real time: a virtual second may take
        a thousandth of a real one, or a thousand."""
        now_s = self._real_time()
        if self._live is not None and now_s - self._drawn_s >= REDRAW_S:
            self._drawn_s = now_s
            self._live.refresh()

    def _line(self, mark: str, text: str) -> None:
        took_s = self._elapsed() - self._began_s
        if not self._console.is_terminal:
            # Unwrapped, since programs may read these lines.
            padded = mark or " " * 4
            self._console.print(f"{took_s:6.2f} s  {padded}  {text}", soft_wrap=True)
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=8, justify="right", style="dim", no_wrap=True)
        grid.add_column(width=6, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(f"{took_s:.2f} s", mark, text)
        self._console.print(grid)

    # At the end

    def finish(
        self, plan: ClusterPlan, outcomes: Sequence[Outcome], digests: Sequence[str | None]
    ) -> None:
        """Print the tables and the verdict. Runs in virtual time have digests."""
        tables = [*map(_expectations, outcomes), _figures(outcomes), _summary(plan, outcomes)]
        for table in tables:
            self._console.print()
            self._console.print(table)
        count = sum(len(outcome.expectations) for outcome in outcomes)
        failed = sum(len(outcome.failed) for outcome in outcomes)
        took_s = self._real_time() - self._real_began_s
        for outcome, digest in zip(outcomes, digests, strict=True):
            if digest is not None:
                self._console.print(f"trace of {outcome.scenario.name}: {digest}")
        self._console.print(
            f"\n[bold red]{failed} of {count} expectations did not hold[/], in {took_s:.1f} s."
            if failed
            else f"\n[bold green]All {count} expectations held[/], in {took_s:.1f} s."
        )


def _table(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", title_style="bold", expand=True)


def _expectations(outcome: Outcome) -> Table:
    scenario = outcome.scenario
    table = _table(f"{scenario.name}: {scenario.summary}")
    table.add_column("expectation", ratio=4)
    table.add_column("", no_wrap=True, width=6)
    table.add_column("what was seen", ratio=4, overflow="fold")
    for e in outcome.expectations:
        table.add_row(escape(e.text), HELD if e.held else FAILED, escape(e.detail))
    return table


def _figures(outcomes: Sequence[Outcome]) -> Table:
    table = _table("Figures")
    table.add_column("scenario", no_wrap=True)
    table.add_column("figure", ratio=1)
    table.add_column("value", justify="right", no_wrap=True)
    for outcome in outcomes:
        name = outcome.scenario.name
        for figure, value in outcome.figures.items():
            what, _, unit = figure.rpartition("_")
            shown = f"{value:,.1f}" if unit == "ms" else f"{value:,.0f}"
            table.add_row(name, what.replace("_", " "), f"{shown} {unit}")
            name = ""
        table.add_section()
    return table


def _summary(plan: ClusterPlan, outcomes: Sequence[Outcome]) -> Table:
    table = _table(f"Clusters, each of {plan}")
    table.add_column("scenario", no_wrap=True, ratio=1)
    table.add_column("up after", justify="right", no_wrap=True, min_width=8)
    table.add_column("record stored by", justify="right", no_wrap=True, min_width=12)
    table.add_column("took", justify="right", no_wrap=True, min_width=7)
    table.add_column("held", justify="right", no_wrap=True, min_width=8)
    table.add_column("", no_wrap=True, width=6)
    for outcome in outcomes:
        stored = outcome.stored
        count = len(outcome.expectations)
        table.add_row(
            outcome.scenario.name,
            f"{outcome.joined_s:.2f} s" if stored else "never",
            f"{min(stored)}-{max(stored)} nodes" if stored else "",
            f"{outcome.took_s:.2f} s",
            f"{count - len(outcome.failed)} of {count}",
            HELD if outcome.held else FAILED,
        )
    return table

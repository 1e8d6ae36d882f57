"""The harness: rounds in which every contestant has its turn, in a different order each time.

The suite's reference runs right beside each contestant, so a ratio compares two windows that are
seconds apart. A window in which others used the machine is measured again a few times, and marked
as disturbed if that does not help.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.certificates import make_certificates
from benchmarks.contest import CONTESTANTS, SUITES, Contestant, Suite, Work
from benchmarks.pair import QUIET_CORES, Absent, Pair

__all__ = ["Harness", "Options", "Row"]

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    suites: tuple[str, ...]
    peers: tuple[str, ...]
    """Parts of the names of the contestants to run; empty for all."""
    rounds: int = 5
    seconds: float = 0.8
    warm_up_s: float = 0.3
    held: int | None = None
    """How many connections to hold; None for each contestant's own number."""
    settle_s: float = 2.0
    """How long memory may settle before it is measured."""
    idle_s: float = 5.0
    tries: int = 3
    seed: int = 1


class Harness:
    """Runs suites and keeps the rows. ``absent`` says who did not run, and why."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.rows: list[Row] = []
        self.absent: dict[str, str] = {}
        self._random = random.Random(options.seed)  # noqa: S311 - the order of measurements
        self._certificates = ""

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            make_certificates(Path(folder))
            self._certificates = folder
            self._run()

    def _run(self) -> None:
        for name in self.options.suites:
            suite = SUITES[name]
            taking_part = [one for one in self._invited() if name in one.suites]
            rounds = 1 if name == "idle" else self.options.rounds
            for number in range(rounds):
                for contestant in self._random.sample(taking_part, len(taking_part)):
                    for row in self._turn(name, suite, contestant):
                        row |= {"round": number}
                        self.rows.append(row)
                        print(_line(row), file=sys.stderr, flush=True)

    def _invited(self) -> Sequence[Contestant]:
        parts = [part.lower() for part in self.options.peers]
        return [
            one
            for one in CONTESTANTS
            if not parts or any(part in one.name.lower() for part in parts)
        ]

    def _turn(self, name: str, suite: Suite, contestant: Contestant) -> Iterator[Row]:
        head = {"suite": name, "contestant": contestant.name, "version": contestant.version}
        if f"{contestant.name}, {name}" in self.absent:
            return
        try:
            reference = self._reference(suite)
            with self._pair(contestant, name) as pair:
                for work in suite.works:
                    facts = (
                        self._hold(pair, contestant)
                        if work.kind == "hold"
                        else self._window(pair, work)
                    )
                    yield head | {"work": work.name} | facts | {"reference": reference}
        except Absent as error:
            self.absent[f"{contestant.name}, {name}"] = str(error)
            print(f"{contestant.name}, {name}: {error}", file=sys.stderr, flush=True)

    def _pair(self, contestant: Contestant, suite: str) -> Pair:
        return Pair(contestant, self._certificates, relayed=suite == "relay")

    def _reference(self, suite: Suite) -> dict[str, Row]:
        if not suite.reference:
            return {}
        contestant = next(one for one in CONTESTANTS if one.name == suite.reference)
        with Pair(contestant, self._certificates) as pair:
            return {work.name: self._window(pair, work) for work in suite.reference_works}

    def _window(self, pair: Pair, work: Work) -> Row:
        facts: Row = {}
        for attempt in range(self.options.tries):
            order = work.order(self.options.warm_up_s, self.options.seconds)
            facts = pair.measure(order) | {"tries": attempt + 1}
            facts["disturbed"] = facts["others"] > QUIET_CORES
            if not facts["disturbed"]:
                break
        if facts.get("done"):
            for key in ("client_cpu_s", "server_cpu_s", "relay_cpu_s"):
                if key in facts:
                    facts[f"{key}_per_100k"] = facts[key] / facts["done"] * 1e5
        return facts

    def _hold(self, pair: Pair, contestant: Contestant) -> Row:
        """The server's memory per connection held, and its processor time while all are idle."""
        held, bytes_each = pair.hold(self.options.held or contestant.held, self.options.settle_s)
        return {
            "held": held,
            "kib_each": bytes_each / 1024,
            "idle_cpu_share": pair.server_cpu_share(self.options.idle_s),
            "disturbed": False,
        }


def _line(row: Row) -> str:
    """A row, for people who watch the run."""
    facts = [
        f"{key} {row[key]:,.1f}"
        for key in ("per_s", "p50_us", "kib_each", "others")
        if isinstance(row.get(key), float)
    ]
    mark = " (disturbed)" if row.get("disturbed") else ""
    return f"{row['suite']:9} {row['contestant']:24} {row['work']:28} {' '.join(facts)}{mark}"

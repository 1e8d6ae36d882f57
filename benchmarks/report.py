"""Tables, in Markdown, of what the harness measured.

``python -m benchmarks.report FILE... [--into PAGE]`` prints them, or puts them between
the marks ``<!-- table NAME -->`` and ``<!-- end -->`` of a page.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from benchmarks.contest import BULK, CONTESTANTS, HOLD, LARGE, NEW, ONE, THOUSAND, R, Work

__all__ = ["OURS", "Rows", "Spread", "Table", "put_into", "report", "spread", "together"]

Results: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]
OURS, COMPILED = "EGTP", "EGTP, compiled"
POLLING = ", busy polling"
"""The ending of either name if it polls."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, with the lowest and the highest value."""

    median: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.low:{form}}-{self.high:{form}})"


def spread(values: Iterable[float]) -> Spread | None:
    """None for no values."""
    kept = sorted(values)
    return Spread(statistics.median(kept), kept[0], kept[-1]) if kept else None


def together(runs: Sequence[Results]) -> Results:
    """Merge several runs on one machine; all but rows and absences is taken from the first."""
    whole = runs[0] | {"rows": [], "absent": {}}
    for run in runs:
        whole["rows"] += run["rows"]
        whole["absent"] |= run["absent"]
    return whole


class Rows:
    """The rows of one run, and the figures that follow from them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def of(self, suite: str, name: str, work: Work) -> list[Row]:
        return [
            row
            for row in self._rows
            if row["suite"] == suite and row["contestant"] == name and row["work"] == work.name
        ]

    def names(self, suite: str) -> list[str]:
        seen = {row["contestant"] for row in self._rows if row["suite"] == suite}
        return [one.name for one in CONTESTANTS if one.name in seen]

    def figure(self, suite: str, name: str, work: Work, key: str) -> float | None:
        """The median of a figure."""
        values = spread(row[key] for row in self.of(suite, name, work) if key in row)
        return None if values is None else values.median

    def ratio(
        self, suite: str, name: str, work: Work, key: str = "per_s", over: Work | None = None
    ) -> Spread | None:
        """Each row's figure over that of the reference right beside it."""
        beside = (over or work).name
        return spread(
            row[key] / row["reference"][beside][key]
            for row in self.of(suite, name, work)
            if key in row and row["reference"].get(beside, {}).get(key)
        )

    def disturbed(self, suite: str) -> int:
        return sum(
            row["disturbed"] or any(one["disturbed"] for one in row["reference"].values())
            for row in self._rows
            if row["suite"] == suite
        )

    def count(self, suite: str) -> int:
        return sum(row["suite"] == suite for row in self._rows)


@dataclass(frozen=True, slots=True)
class Table:
    heads: tuple[str, ...]
    lines: Sequence[tuple[str, ...]]
    words: bool = False
    """Whether the columns after the first hold words, aligned left, and not figures, right."""

    def __str__(self) -> str:
        rule = ["---", *["---" if self.words else "--:"] * (len(self.heads) - 1)]
        return "\n".join("| " + " | ".join(line) + " |" for line in (self.heads, rule, *self.lines))


def report(results: Results) -> dict[str, str]:
    """The tables of the suites that were run, by name, with how many windows were disturbed."""
    rows = Rows(results["rows"])
    tables: dict[str, str] = {"machine": _machine(results)}
    if rows.count("query"):
        tables["goals"] = str(_goals(rows))
    for suite, make in _TABLES.items():
        if rows.count(suite):
            note = (
                f"{rows.disturbed(suite)} of {rows.count(suite)} windows were disturbed by others."
            )
            # How much memory connections take does not depend on who else was busy.
            tables[suite] = str(make(rows)) if suite == "idle" else f"{make(rows)}\n\n{note}"
    tables["lacks"] = str(_lacks(results))
    tables["absent"] = _absent(results)
    return tables


def _machine(results: Results) -> str:
    machine = results["machine"]
    return (
        f"{results['began']}: {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, CPython {machine['python']}; "
        f"{results['rounds']} rounds of {results['seconds']:g} s windows."
    )


def _lacks(results: Results) -> Table:
    versions = {row["contestant"]: row.get("version", "") for row in results["rows"]}
    lines = [
        (one.name, one.package, versions.get(one.name, ""), one.lacks)
        for one in CONTESTANTS
        if not one.name.startswith(OURS)
    ]
    return Table(("contestant", "package", "version", "does not do"), lines, words=True)


def _absent(results: Results) -> str:
    absent = results["absent"]
    if not absent:
        return "All contestants ran."
    return "\n".join(["Not run:", "", *(f"* {who}: {why}" for who, why in absent.items())])


def _number(value: float | Spread | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _by(key: Callable[[str], float | Spread | None], names: list[str]) -> list[str]:
    """``names``, the best first."""

    def order(name: str) -> float:
        value = key(name)
        return -(value.median if isinstance(value, Spread) else value or 0.0)

    return sorted(names, key=order)


def _query(rows: Rows) -> Table:
    lines = []
    for name in _by(lambda n: rows.ratio("query", n, R), rows.names("query")):
        cpu = [
            rows.figure("query", name, THOUSAND, f"{side}_cpu_s_per_100k")
            for side in ("client", "server")
        ]
        lines.append(
            (
                name,
                _number(rows.figure("query", name, ONE, "p50_us"), ",.0f"),
                _number(rows.ratio("query", name, ONE, "p50_us"), ".2f"),
                _number(rows.figure("query", name, R, "per_s"), ",.0f"),
                _number(rows.ratio("query", name, R), ".2f"),
                _number(rows.figure("query", name, THOUSAND, "per_s"), ",.0f"),
                _number(rows.ratio("query", name, THOUSAND, over=R), ".2f"),
                " + ".join(_number(one, ".2f") for one in cpu),
            )
        )
    heads = (
        "contestant",
        "p50 us",
        "x bare",
        "64 in flight /s",
        "R",
        "1,000 in flight /s",
        "R",
        "CPU s/100k",
    )
    return Table(heads, lines)


def _bulk(rows: Rows) -> Table:
    lines = [
        (
            name,
            _number((rows.figure("bulk", name, BULK, "per_s") or 0) * BULK.bytes / 1e6, ",.0f"),
            _number(rows.ratio("bulk", name, BULK), ".2f"),
        )
        for name in _by(lambda n: rows.ratio("bulk", n, BULK), rows.names("bulk"))
    ]
    return Table(("contestant", "MB/s", "x bare"), lines)


def _sessions(rows: Rows) -> Table:
    lines = []
    for name in _by(lambda n: rows.ratio("sessions", n, NEW), rows.names("sessions")):
        cpu = [
            (rows.figure("sessions", name, NEW, f"{side}_cpu_s_per_100k") or 0) / 100
            for side in ("client", "server")
        ]
        lines.append(
            (
                name,
                _number(rows.figure("sessions", name, NEW, "per_s"), ",.0f"),
                _number(rows.ratio("sessions", name, NEW), ".2f"),
                " + ".join(f"{one:.2f}" for one in cpu),
            )
        )
    return Table(("contestant", "sessions/s", "x mutual TLS", "CPU ms each"), lines)


def _idle(rows: Rows) -> Table:
    lines = [
        (
            name,
            _number(rows.figure("idle", name, HOLD, "held"), ",.0f"),
            _number(rows.figure("idle", name, HOLD, "kib_each"), ".1f"),
            _number(rows.figure("idle", name, HOLD, "idle_cpu_share"), ".2%"),
        )
        for name in _by(
            lambda n: -(rows.figure("idle", n, HOLD, "kib_each") or 0), rows.names("idle")
        )
    ]
    return Table(("contestant", "held", "KiB each, server", "idle CPU, of a core"), lines)


def _mixed(rows: Rows) -> Table:
    lines = [
        (
            name,
            *(
                _number(rows.figure("mixed", name, LARGE, key), ",.0f")
                for key in ("alone_p50_us", "p50_us", "p99_us", "large_mb_per_s")
            ),
            _number(_over_idle(rows, name), ".1f"),
        )
        for name in rows.names("mixed")
    ]
    heads = ("contestant", "p50 us alone", "p50 us beside", "p99 us beside", "large MB/s")
    return Table((*heads, "p99 beside / p50 alone"), lines)


def _over_idle(rows: Rows, name: str) -> Spread | None:
    return spread(row["p99_us"] / row["alone_p50_us"] for row in rows.of("mixed", name, LARGE))


def _relay(rows: Rows) -> Table:
    lines = [
        (
            name,
            _number(rows.figure("relay", name, ONE, "p50_us"), ",.0f"),
            _number(rows.ratio("relay", name, ONE, "p50_us"), ".2f"),
            _number(rows.ratio("relay", name, R), ".2f"),
            _number(rows.ratio("relay", name, THOUSAND, over=R), ".2f"),
            _number(rows.figure("relay", name, THOUSAND, "relay_cpu_s_per_100k"), ".2f"),
        )
        for name in _by(lambda n: rows.ratio("relay", n, THOUSAND, over=R), rows.names("relay"))
    ]
    heads = ("contestant", "p50 us", "x bare, direct", "64 in flight, R", "1,000 in flight, R")
    return Table((*heads, "relay's CPU s/100k"), lines)


def _deadline(rows: Rows) -> Table:
    lines = [
        (
            work.name,
            _number(rows.figure("deadline", OURS, work, "per_s"), ",.0f"),
            _number(rows.ratio("deadline", OURS, work), ".3f"),
        )
        for work in (R, THOUSAND)
    ]
    return Table(("a deadline on every query", "/s", "x without any"), lines)


_TABLES: dict[str, Callable[[Rows], Table]] = {
    "query": _query,
    "bulk": _bulk,
    "sessions": _sessions,
    "idle": _idle,
    "mixed": _mixed,
    "relay": _relay,
    "deadline": _deadline,
}


class _Goal(NamedTuple):
    """A goal, and how to find what one of our contestants has reached."""

    work: str
    goal: float
    is_most: bool
    """Whether the goal is an upper limit, not a lower one."""
    form: str
    reached: Callable[[str], float | Spread | None]

    def columns(self, who: str) -> tuple[str, str]:
        value = self.reached(who)
        if value is None:
            return "-", "not measured"
        middle = value.median if isinstance(value, Spread) else value
        is_met = middle <= self.goal if self.is_most else middle >= self.goal
        return f"{value:{self.form}}", "yes" if is_met else "no"


def _goals(rows: Rows) -> Table:
    """Each goal, what was reached, and whether that meets it."""

    def cpu(who: str) -> float | None:
        sides = [
            rows.figure("query", who, THOUSAND, f"{side}_cpu_s_per_100k")
            for side in ("client", "server")
        ]
        return None if None in sides else sum(one or 0 for one in sides)

    def slowdown(who: str) -> float | None:
        ratio = rows.ratio("deadline", who, THOUSAND)
        return None if ratio is None else 1 - ratio.median

    def ratio(
        suite: str, work: Work, over: Work | None = None, key: str = "per_s"
    ) -> Callable[[str], Spread | None]:
        return lambda who: rows.ratio(suite, who, work, key, over=over)

    def polling(suite: str) -> Callable[[str], Spread | None]:
        return lambda who: rows.ratio(suite, who + POLLING, ONE, "p50_us")

    def figure(suite: str, work: Work, key: str) -> Callable[[str], float | None]:
        return lambda who: rows.figure(suite, who, work, key)

    goals = (
        _Goal("1. 64 in flight, R", 0.9, False, ".2f", ratio("query", R)),
        _Goal("2. 1,000 in flight, R", 1.3, False, ".2f", ratio("query", THOUSAND, R)),
        _Goal("3. CPU s per 100k, both sides", 0.7, True, ".2f", cpu),
        _Goal("4. one at a time, p50 x bare", 1.3, True, ".2f", ratio("query", ONE, key="p50_us")),
        _Goal("4. the same, busy polling", 1.3, True, ".2f", polling("query")),
        _Goal("5. sessions, x mutual TLS", 2.5, False, ".2f", ratio("sessions", NEW)),
        _Goal("6. KiB of an idle connection", 12, True, ".1f", figure("idle", HOLD, "kib_each")),
        _Goal("7. 64 KiB, MB/s x bare", 0.35, False, ".2f", ratio("bulk", BULK)),
        _Goal(
            "8. beside 16 MiB, p99 / p50 alone", 5, True, ".1f", lambda who: _over_idle(rows, who)
        ),
        _Goal("9. cost of deadlines", 0.05, True, ".1%", slowdown),
        _Goal("10. relayed, 1,000 in flight, R", 0.4, False, ".2f", ratio("relay", THOUSAND, R)),
        _Goal("10. relayed, p50 x bare", 3, True, ".2f", ratio("relay", ONE, key="p50_us")),
        _Goal("10. the same, busy polling", 3, True, ".2f", polling("relay")),
        _Goal(
            "10. relay's CPU s per 100k",
            0.35,
            True,
            ".2f",
            figure("relay", THOUSAND, "relay_cpu_s_per_100k"),
        ),
    )
    lines = [
        (
            goal.work,
            f"{'<=' if goal.is_most else '>='} {goal.goal:g}",
            *goal.columns(OURS),
            *goal.columns(COMPILED),
        )
        for goal in goals
    ]
    return Table(("work", "goal", "EGTP", "met", "compiled", "met"), lines)


def put_into(page: str, tables: dict[str, str]) -> str:
    """``page`` with each table put between its marks; marks without a table stay as they are."""

    def replaced(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in tables:
            return match.group(0)
        return f"<!-- table {name} -->\n{tables[name]}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", replaced, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "files", type=Path, nargs="+", help="what `python -m benchmarks --json` wrote, put together"
    )
    parser.add_argument("--into", type=Path, metavar="PAGE")
    options = parser.parse_args()
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in options.files]
    tables = report(together(runs))
    if options.into:
        page = put_into(options.into.read_text(encoding="utf-8"), tables)
        options.into.write_text(page, encoding="utf-8")
    else:
        print("\n\n".join(f"### {name}\n\n{table}" for name, table in tables.items()))


if __name__ == "__main__":
    main()

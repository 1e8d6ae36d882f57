"""The tables and pictures of a run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import bar_chart
from benchmarks.contest import BULK, HOLD, LARGE, NEW, ONE, SUITES, THOUSAND, R
from benchmarks.growth import GROWTHS, Point, draw, table
from benchmarks.instructions import TOLERANCE, verdict
from benchmarks.load import percentile_us
from benchmarks.pictures import PICTURES, write_pictures
from benchmarks.report import put_into, report, spread

NAMES = ("EGTP", "bare echo", "picows wss")
WORKS = {"query": (ONE, R, THOUSAND), "bulk": (BULK,), "sessions": (NEW,), "idle": (HOLD,)}
WORKS |= {"mixed": (LARGE,), "relay": (ONE, R, THOUSAND), "deadline": (R, THOUSAND)}


def _row(suite: str, name: str, work: str, per_s: float) -> dict[str, Any]:
    reference = {
        one.name: {"per_s": 100.0, "p50_us": 10.0, "disturbed": False}
        for one in SUITES[suite].reference_works
    }
    return {
        "suite": suite, "contestant": name, "work": work, "per_s": per_s, "p50_us": 12.0,
        "p99_us": 40.0, "alone_p50_us": 10.0, "large_mb_per_s": 900.0, "kib_each": 8.0,
        "held": 5000, "idle_cpu_share": 0.0, "client_cpu_s_per_100k": 0.3,
        "server_cpu_s_per_100k": 0.2, "relay_cpu_s_per_100k": 0.1, "disturbed": False,
        "reference": reference,
    }  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    """Three rounds of everything: EGTP at 1.5 of the reference, picows at 0.5."""
    rows = [
        _row(suite, name, work.name, {"EGTP": 150.0, "picows wss": 50.0}.get(name, 100.0) + number)
        for suite, works in WORKS.items()
        for name in NAMES
        for work in works
        for number in (-1, 0, 1)
    ]
    machine = {"cpu": "Z80", "cores": 2, "memory_gib": 1, "kernel": "6", "python": "3.11"}
    return {
        "began": "2026-01-01", "machine": machine, "rounds": 3, "seconds": 0.8, "rows": rows,
        "absent": {"iroh, one stream, query": "No module named 'iroh'"},
    }  # fmt: skip


def test_a_spread_has_a_median_and_its_ends() -> None:
    assert spread([]) is None
    assert f"{spread([3.0, 1.0, 2.0]):.1f}" == "2.0 (1.0-3.0)"


def test_the_tables_name_everybody_with_the_best_first(results: dict[str, Any]) -> None:
    query = report(results)["query"]
    order = [query.index(name) for name in ("| EGTP |", "| bare echo |", "| picows wss |")]
    assert order == sorted(order)
    assert "1.50 (1.49-1.51)" in query


def test_a_ratio_is_to_the_window_beside_and_not_to_an_average(results: dict[str, Any]) -> None:
    for number, row in enumerate(results["rows"]):
        row["per_s"] *= 1 + number % 3
        for one in row["reference"].values():
            one["per_s"] *= 1 + number % 3
    assert "1.50 (1.49-1.51)" in report(results)["query"]


def test_the_goals_say_whether_they_are_met(results: dict[str, Any]) -> None:
    goals = report(results)["goals"]
    assert "| 1. 64 in flight, R | >= 0.9 | 1.50 (1.49-1.51) | yes | - | not measured |" in goals
    for row in results["rows"]:
        row["per_s"] /= 2
    goals = report(results)["goals"]
    assert "| 1. 64 in flight, R | >= 0.9 | 0.75 (0.74-0.76) | no | - | not measured |" in goals
    for row in results["rows"]:
        row["contestant"] = row["contestant"].replace("EGTP", "EGTP, compiled")
    goals = report(results)["goals"]
    assert "| 1. 64 in flight, R | >= 0.9 | - | not measured | 0.75 (0.74-0.76) | no |" in goals


def test_busy_polling_has_goals_of_its_own_and_does_not_meet_those_without(
    results: dict[str, Any],
) -> None:
    for row in results["rows"]:
        row["contestant"] = row["contestant"].replace("EGTP", "EGTP, busy polling")
    goals = report(results)["goals"]
    assert "| 4. one at a time, p50 x bare | <= 1.3 | - | not measured |" in goals
    assert "| 4. the same, busy polling | <= 1.3 | 1.20 (1.20-1.20) | yes |" in goals
    assert "| 10. the same, busy polling | <= 3 | 1.20 (1.20-1.20) | yes |" in goals


def test_what_was_not_run_is_said(results: dict[str, Any]) -> None:
    results["rows"] = [row for row in results["rows"] if row["suite"] == "query"]
    tables = report(results)
    assert "not measured" in tables["goals"]
    assert "iroh, one stream, query: No module named 'iroh'" in tables["absent"]


def test_tables_go_between_their_marks_and_nowhere_else() -> None:
    page = "a\n<!-- table one -->\nold\n<!-- end -->\nb\n<!-- table two -->\nkept\n<!-- end -->\n"
    put = put_into(page, {"one": "new"})
    assert put == page.replace("old", "new")
    assert put_into(put, {"one": "new"}) == put


def test_every_picture_is_xml(results: dict[str, Any], tmp_path: Path) -> None:
    written = write_pictures(results, tmp_path)
    assert [path.stem for path in written] == list(PICTURES)
    for path in written:
        ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - we have just written it


def test_names_are_escaped_in_pictures() -> None:
    ET.fromstring(bar_chart("<&>", [("a<b", 0.0)], ours="x", mark=1.0))  # noqa: S314


def test_growth_is_told_against_the_smallest_size(tmp_path: Path) -> None:
    points = [Point(10, 5.0), Point(100, 10.0, 2048.0)]
    assert "| known peers | 100 | 10.0 | 2.00 | 2,048 |" in table({"known_peers": points})
    draw(GROWTHS[0], points, tmp_path)
    picture = (tmp_path / "growth_known_peers.svg").read_text(encoding="utf-8")
    ET.fromstring(picture)  # noqa: S314


def test_a_stored_record_is_measured_in_a_process_of_its_own() -> None:
    (growth,) = (one for one in GROWTHS if one.name == "stored_records")
    point = growth.measure(100, 0.0)
    assert point.size == 100
    assert point.cpu_us > 0


def test_percentiles_are_microseconds() -> None:
    assert percentile_us([n / 1e6 for n in range(101)], 0.99) == pytest.approx(99)


def test_a_dearer_query_is_noticed_and_a_cheaper_one_is_welcome() -> None:
    assert verdict(90, 100) is None
    assert verdict(100 + int(99 * TOLERANCE), 100) is None
    assert "+6.0%" in (verdict(106, 100) or "")

"""The record of a run: everything is kept, up to limits, and what is not is counted."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.timeline import Timeline, TimelineLimits


def table(run: Timeline, kind: str) -> list[dict[str, Any]]:
    """The rows of a table, by the names of its columns."""
    shown = run.as_dict()[kind]
    assert isinstance(shown, dict)
    return [dict(zip(shown["columns"], row, strict=True)) for row in shown["rows"]]


def test_everything_that_is_told_is_in_the_record() -> None:
    run = Timeline(
        "churn",
        summary="they come and go",
        seed=7,
        command="python run.py --seed=7",
        options={"nodes": 2, "loss": 0.5, "nat": None},
    )
    run.node("alice", "peer")
    run.state("alice", 0.25, "up")
    run.address("alice", 0.25, "10.0.0.1:4000")
    run.event(0.5, "alice", "path opened", "bob", "direct")
    run.event(0.75, "alice", "dial")
    run.path(0.5, "alice", "bob", "direct")
    run.fault_over(run.fault(1.0, "rain", ["bob"]), 2.0)
    run.sentence(1.0, "it rains")
    run.expectation(1.5, "everybody gets wet", False, "bob did not")
    run.query(1.0, 0.125, "alice", "bob", "direct", "reply")
    run.lookup(0.25, 0.5, "alice", "bob", found=True)
    run.figure("wet_nodes", 1)
    run.end(3.0, "abc")

    shown = run.as_dict()
    assert {name: shown[name] for name in ("title", "summary", "seed", "world", "command")} == {
        "title": "churn",
        "summary": "they come and go",
        "seed": 7,
        "world": "virtual",
        "command": "python run.py --seed=7",
    }
    assert shown["options"] == {"nodes": 2, "loss": 0.5, "nat": None}
    assert (shown["began_s"], shown["ended_s"], shown["trace_digest"]) == (0.0, 3.0, "abc")
    assert shown["figures"] == {"wet_nodes": 1}
    assert (shown["left_out"], shown["left_out_from_s"]) == ({}, None)
    assert table(run, "nodes") == [{"name": "alice", "role": "peer"}]
    assert table(run, "states") == [{"node": "alice", "at_s": 0.25, "state": "up"}]
    assert table(run, "addresses")[0]["address"] == "10.0.0.1:4000"
    opened, dial = table(run, "events")
    assert opened == {
        "at_s": 0.5,
        "node": "alice",
        "kind": "path opened",
        "peer": "bob",
        "text": "direct",
    }
    assert (dial["peer"], dial["text"]) == (None, "")
    assert table(run, "paths") == [{"at_s": 0.5, "node": "alice", "peer": "bob", "way": "direct"}]
    assert table(run, "faults") == [{"from_s": 1.0, "to_s": 2.0, "text": "rain", "nodes": ["bob"]}]
    assert table(run, "story") == [{"at_s": 1.0, "text": "it rains"}]
    assert table(run, "expectations")[0]["held"] is False
    assert table(run, "queries")[0]["took_s"] == 0.125
    assert table(run, "lookups")[0]["found"] is True


def test_the_record_is_json_and_comes_back_the_same() -> None:
    run = Timeline("a \u2028 title </script>", options={"a": 1})
    run.event(0.1, "nobody\ud800", "dial", None, "\x00")
    run.fault(0.0, "all is lost")
    shown = run.as_dict()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_times_are_as_fine_as_a_microsecond_and_no_finer() -> None:
    run = Timeline("fine")
    run.sentence(0.1 + 0.2, "three tenths")
    run.sentence(1.0000004, "one")
    assert [row["at_s"] for row in table(run, "story")] == [0.3, 1.0]


def test_a_figure_that_was_never_reached_is_told_as_none() -> None:
    run = Timeline("slow")
    run.figure("never_ms", math.inf)
    run.figure("nothing_ms", math.nan)
    assert run.as_dict()["figures"] == {"never_ms": None, "nothing_ms": None}


def test_a_fault_ends_when_it_is_said_to_be_over() -> None:
    run = Timeline("weather")
    rain = run.fault(1.0, "rain", ["alice"])
    run.fault(2.0, "snow")
    run.fault_over(rain, 4.5)
    assert [(row["text"], row["to_s"]) for row in table(run, "faults")] == [
        ("rain", 4.5),
        ("snow", None),
    ]


def test_a_run_without_an_end_ends_with_the_last_that_happened() -> None:
    run = Timeline("cut off")
    run.sentence(1.0, "it begins")
    run.query(2.0, 5.0, "alice", "bob", "none", "hard timeout")
    run.event(3.0, "alice", "dial")
    assert run.as_dict()["ended_s"] == 7.0


def test_a_storm_of_events_leaves_room_for_what_it_broke() -> None:
    run = Timeline("storm", limits=TimelineLimits(events_max=10))
    for number in range(25):
        run.event(float(number), "alice", "dial")
    run.expectation(25.0, "nobody notices", False)
    assert len(table(run, "events")) == 10
    assert len(table(run, "expectations")) == 1
    assert run.left_out == {"events": 15}
    assert run.as_dict()["left_out_from_s"] == 10.0


def test_a_fault_beyond_the_limit_can_be_over_all_the_same() -> None:
    run = Timeline("weather", limits=TimelineLimits(faults_max=1))
    run.fault(1.0, "rain")
    snow = run.fault(2.0, "snow")
    assert snow is None
    run.fault_over(snow, 3.0)
    assert [(row["text"], row["to_s"]) for row in table(run, "faults")] == [("rain", None)]


def test_a_figure_beyond_the_limit_is_counted_and_one_that_is_there_may_change() -> None:
    run = Timeline("figures", limits=TimelineLimits(figures_max=1))
    run.figure("a_ms", 1)
    run.figure("a_ms", 2)
    run.figure("b_ms", 3)
    assert run.figures == {"a_ms": 2}
    assert run.left_out == {"figures": 1}


def test_a_long_text_is_cut() -> None:
    run = Timeline("words", limits=TimelineLimits(text_chars_max=5))
    run.expectation(0.0, "12345", True, "123456")
    (row,) = table(run, "expectations")
    assert (row["text"], row["detail"]) == ("12345", "1234…")


def test_all_limits_together_are_what_a_page_can_show() -> None:
    limits = TimelineLimits()
    names = [field.name for field in fields(limits) if field.name != "text_chars_max"]
    assert sum(getattr(limits, name) for name in names) == 200_000


@pytest.mark.parametrize("limit", [0, 3])
@given(times=st.lists(st.floats(0, 1e6), max_size=8))
def test_whatever_is_not_kept_is_counted(limit: int, times: list[float]) -> None:
    run = Timeline("count", limits=TimelineLimits(paths_max=limit))
    for at_s in times:
        run.path(at_s, "alice", "bob", "direct")
    kept = len(table(run, "paths"))
    assert kept == min(limit, len(times))
    assert kept + run.left_out["paths"] == len(times)
    assert run.left_out_from_s == min(times[limit:], default=None)

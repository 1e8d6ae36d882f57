"""The harness with real processes, for a fraction of a second each."""

from __future__ import annotations

import importlib.util
from collections import Counter

import pytest

from benchmarks.contest import CONTESTANTS, SUITES
from benchmarks.harness import Harness, Options
from benchmarks.pair import COMPILED

BRIEF = {
    "rounds": 1, "seconds": 0.05, "warm_up_s": 0.02, "tries": 1, "settle_s": 0.05, "idle_s": 0.1,
    "held": 20,
}  # fmt: skip


@pytest.mark.parametrize("suite", SUITES)
def test_egtp_does_the_work_of_every_suite(suite: str) -> None:
    harness = Harness(Options((suite,), ("egtp",), **BRIEF))  # type: ignore[arg-type]
    harness.run()
    ours = [one for one in CONTESTANTS if one.name.startswith("EGTP") and suite in one.suites]
    taking_part = [one for one in ours if not one.compiled or (COMPILED / "egtp").exists()]
    assert len(harness.absent) == len(ours) - len(taking_part)
    assert all("not compiled here" in reason for reason in harness.absent.values())
    works = Counter(row["work"] for row in harness.rows)
    assert works == {work.name: len(taking_part) for work in SUITES[suite].works}
    for row in harness.rows:
        assert row.get("per_s", 0.0) + row.get("held", 0.0) > 0
        assert set(row["reference"]) == {work.name for work in SUITES[suite].reference_works}


def test_the_bare_relay_copies_bytes() -> None:
    harness = Harness(Options(("relay",), ("bare",), **BRIEF))  # type: ignore[arg-type]
    harness.run()
    assert harness.absent == {}
    assert all(row["relay_cpu_s"] >= 0 for row in harness.rows)


@pytest.mark.skipif(importlib.util.find_spec("picows") is not None, reason="picows is installed")
def test_a_peer_that_is_not_installed_is_named_with_the_reason() -> None:
    harness = Harness(Options(("bulk",), ("picows",), **BRIEF))  # type: ignore[arg-type]
    harness.run()
    assert harness.rows == []
    assert harness.absent == {
        "picows wss, bulk": "ModuleNotFoundError: No module named 'picows'",
    }

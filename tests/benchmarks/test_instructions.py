"""A query costs no more instructions than is on record: the guard itself, in CI."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from benchmarks.instructions import RECORDED, count, stand, verdict
from benchmarks.instructions_workload import ask_many


def test_every_query_of_the_workload_is_answered() -> None:
    assert ask_many(200) == 200


@pytest.mark.skipif(not os.environ.get("CI"), reason="takes half a minute: CI, or make guard")
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_a_query_costs_no_more_instructions_than_is_on_record() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    if {name: recorded[name] for name in stand()} != stand():
        pytest.skip(f"recorded on another stand: {recorded}")
    assert verdict(count(), recorded["instructions_per_query"]) is None

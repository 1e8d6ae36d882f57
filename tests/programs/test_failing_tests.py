"""That a test fails is told, whatever it has left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

FAILING = """
import ast
import gc


class LeavesSomethingToSay:
    def __init__(self):
        self.myself = self

    def __del__(self):
        LeavesSomethingToSay()
        deeper(20)


def deeper(levels):
    if levels:
        return deeper(levels - 1)
    ast.parse("as_the.traceback + module.does")


def test_that_fails():
    LeavesSomethingToSay()
    gc.set_threshold(50, 5, 5)
    assert gc is None
"""


def test_a_failure_is_told_though_garbage_is_about_whose_finalizers_parse(tmp_path: Path) -> None:
    path = tmp_path / "test_one.py"
    # A long file is long enough in parsing for garbage to be collected meanwhile.
    path.write_text(FAILING + "assert [] == []\n" * 500)
    done = subprocess.run(  # noqa: S603
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            "/dev/null",
            "-p",
            "tests.conftest",
            path.name,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "assert gc is None" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout

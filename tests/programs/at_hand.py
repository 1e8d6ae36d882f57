"""What tests of programs share."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANGS_S = 60.0
"""What takes so long hangs. Each process starts an interpreter, some at a time, on any machine."""
Start = Callable[..., subprocess.Popen[str]]
"""The fixture ``start``: begins a program that is killed at the end of the test."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANGS_S)
    assert (process.returncode, errors) == (0, "")

"""The commands of the DHT's figures, with few nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

Rows = list[dict[str, Any]]


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[..., Rows]:
    """Run a command as anyone would, and read the rows of its only table."""

    def rows_of(command: str, **options: object) -> Rows:
        figures = tmp_path / f"{command}.json"
        arguments = [f"--{name}={value}" for name, value in options.items()]
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "benchmarks.dht", command, f"--json={figures}", *arguments],
            cwd=ROOT, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        (table,) = json.loads(figures.read_text())["tables"]
        rows: Rows = table["rows"]
        return rows

    return rows_of

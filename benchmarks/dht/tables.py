"""Tables: what a command measured, for people as Markdown and for programs as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import processor

__all__ = ["Table", "machine", "percentile", "write_json"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with the same columns; numbers are written as :func:`_text` says."""

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default=())

    def markdown(self) -> str:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [
            " | ".join(columns),
            " | ".join("---" for _ in columns),
            *(" | ".join(_text(row.get(name)) for name in columns) for row in self.rows),
        ]
        body = "\n".join(f"| {line} |" for line in lines)
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"### {self.title}\n\n{body}\n" + (f"{notes}\n" if notes else "")


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank one; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    git = ("git", "rev-parse", "--short", "HEAD")
    commit = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603
    return {
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit.stdout.strip(),
    }


def write_json(path: Path, tables: Sequence[Table], options: Mapping[str, Any]) -> None:
    figures = {
        "machine": machine(),
        "options": {name: str(value) for name, value in options.items()},
        "tables": [asdict(table) for table in tables],
    }
    path.write_text(json.dumps(figures, indent=2, default=str) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    """Three significant digits are what one run can tell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{min(digits, 4)}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)

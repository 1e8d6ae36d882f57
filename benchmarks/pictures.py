"""The pictures of a run: how much of the reference each contestant reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.bars import bar_chart
from benchmarks.contest import BULK, NEW, THOUSAND, R, Work
from benchmarks.report import OURS, Rows

__all__ = ["write_pictures"]

PICTURES: dict[str, tuple[str, str, Work, Work]] = {
    "query_64": ("100 B, 64 in flight, over a bare echo", "query", R, R),
    "query_1000": ("100 B, 1,000 in flight, over a bare echo with 64", "query", THOUSAND, R),
    "bulk": ("64 KiB, over a bare echo", "bulk", BULK, BULK),
    "sessions": ("New sessions a second, over mutual TLS 1.3 on uvloop", "sessions", NEW, NEW),
}


def write_pictures(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the pictures of the suites that were run. Returns the SVG files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(results["rows"])
    written = []
    for name, (title, suite, work, over) in PICTURES.items():
        ratios = ((one, rows.ratio(suite, one, work, over=over)) for one in rows.names(suite))
        bars = [(one, ratio.median) for one, ratio in ratios if ratio is not None]
        if bars:
            written.append(folder / f"{name}.svg")
            written[-1].write_text(bar_chart(title, bars, ours=OURS, mark=1.0), encoding="utf-8")
    return written

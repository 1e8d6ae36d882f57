"""The benchmarks of how many nodes fit into the bottle, with few of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("program", ["simulated_scale.py", "simulated_dht.py"])
def test_all_nodes_of_a_small_world_join_and_find_another(program: str, tmp_path: Path) -> None:
    file, picture = tmp_path / "figures.json", tmp_path / "sizes.svg"
    command = [sys.executable, str(BENCHMARKS / program), "--nodes", "10,30", "--profile"]
    command += ["--json", str(file), "--svg", str(picture)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    rows = json.loads(file.read_text())
    assert [row["nodes"] for row in rows] == [10, 30]
    for row in rows:
        assert row["answered"] == 1.0
        assert row["messages_per_lookup"] > 0
        shares = {name: share for name, share in row.items() if name.startswith("share ")}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares["share lookup_dht"] > 0.1
    assert "lookup_dht" in done.stdout
    assert picture.exists()
    assert picture.with_name("sizes-messages.svg").exists()

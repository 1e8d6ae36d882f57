"""The cluster program, as a user runs it, and proof that its checks can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from egtp import InvalidConfig
from simulations import Cluster, ClusterPlan, Expectations
from simulations.scenarios import SCENARIOS

PROGRAM = Path(__file__).parents[2] / "simulations" / "run_cluster.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)  # noqa: S603


def test_every_expectation_of_the_default_run_holds(tmp_path: Path) -> None:
    done = run("--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["held"] is True
    assert report["options"]["nodes"] >= 12
    assert {e["scenario"] for e in report["expectations"]} == set(SCENARIOS)
    assert report["figures"]["relay-fallback"]["relayed_bytes"] > 40_000


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nodes", "3"),
        ("--nodes", "many"),
        ("--relays", "1"),
        ("--relays", "40"),
        ("--scenario", "earthquake"),
        ("--json", "/no/such/folder/file"),
        ("--unheard-of",),
    ],
)
def test_an_impossible_option_is_one_clear_line_and_status_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr + done.stdout


def test_a_plan_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="relays"):
        ClusterPlan(nodes=12, relays=9)


async def test_a_relay_that_counts_nothing_fails_the_scenario() -> None:
    """The relays' counters are held at zero: the scenario must not believe that bytes crossed."""
    expectations = Expectations(lambda _: None)
    async with Cluster(ClusterPlan(nodes=12)) as cluster:
        for relay in cluster.relays:
            server = relay.node.relay_server
            assert server is not None
            server.counters = _NoCounter()
        await SCENARIOS["relay-fallback"].run(cluster, expectations)
    assert [e.text for e in expectations.failed] == ["whose counters say so"]


class _NoCounter(Counter[str]):
    def __missing__(self, key: str) -> int:
        return 0

    def __setitem__(self, key: str, value: int) -> None:
        return

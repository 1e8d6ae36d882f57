"""The cluster program, as a user runs it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from simulations import Cluster, ClusterPlan, Expectations, Scenario, play, run_cluster
from simulations.board import Board
from simulations.conditions import Conditions
from simulations.scenarios import SCENARIOS
from simulations.swarm import SwarmRun, swarm

PROGRAM = Path(run_cluster.__file__)
EVERYWHERE = [scenario.name for scenario in SCENARIOS.values() if not scenario.virtual_only]
"""Those that are played on a real machine as well."""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)  # noqa: S603


def test_every_expectation_of_the_default_run_holds(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = run(PROGRAM, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    report = json.loads(file.read_text())
    assert report["held"] is True
    assert report["options"]["nodes"] >= 12
    assert report["options"]["relays"] == 3
    assert report["options"]["scenarios"] == EVERYWHERE
    assert report["cluster"]["bootstraps"] >= 2
    assert report["cluster"]["unreachable"] >= 2
    expectations = report["expectations"]
    assert {e["scenario"] for e in expectations} == set(EVERYWHERE)
    assert all(e["held"] is True for e in expectations)
    figures = report["figures"]
    assert figures["relay-fallback"]["relayed_bytes"] > 100_000
    assert figures["ip-change"]["old_address_after_new_record_is_known_dials"] == 0
    assert figures["fast-fail"]["tried_strategies"] == 4
    assert set(report["trace_digest"].values()) == {None}
    for name in EVERYWHERE:
        assert f"{name}: " in done.stdout
        assert figures[name]["joined_s"] > 0
    # Each claim is told twice: as it is made, in a line of its own, and in the table.
    for e in expectations:
        assert re.search(rf"^ *[\d.]+ s  held  {re.escape(e['text'])}", done.stdout, re.MULTILINE)
    assert f"All {len(expectations)} expectations held" in done.stdout
    assert "\x1b" not in done.stdout


def test_it_runs_as_a_module_and_with_other_options(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--nodes=12", "--relays=2", "--seed=-5", "--scenario=fast-fail"]
    done = run("-m", "simulations.run_cluster", *options, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert report["options"] == {
        "world": "loopback",
        "drawn": False,
        "nodes": 12,
        "relays": 2,
        "seed": -5,
        "scenarios": ["fast-fail"],
    }
    assert set(report["figures"]) == {"fast-fail"}


def test_the_scenarios_can_be_listed() -> None:
    done = run(PROGRAM, "--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(SCENARIOS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--nodes", "3"), "3 nodes are too few"),
        (("--nodes", "many"), "invalid int value: 'many'"),
        (("--nodes", "1000"), "nodes must be at most 100"),
        (("--relays", "1"), "relays must be at least 2"),
        (("--relays", "40"), "too few"),
        (("--scenario", "earthquake"), "invalid choice: 'earthquake'"),
        (("--json", "/no/such/folder/file"), "cannot be written: No such file"),
        (("--json", "/"), "cannot be written: Is a directory"),
        (("--html", "/no/such/folder/file"), "cannot be written: No such file"),
        (("--json", "one", "--html", "./one"), "--json and --html name the same file"),
        (("--world", "flat"), "invalid choice: 'flat'"),
        (("--world", "virtual", "--nodes", "20001"), "nodes must be at most 20000"),
        (("--scenario", "churn"), "churn needs --world virtual"),
        (("--trace", "/dev/null"), "--trace needs --world virtual"),
        (("--drawn", "--nodes", "20"), "--drawn and --nodes cannot be combined"),
        (("--drawn", "--world", "loopback"), "--drawn and --world cannot be combined"),
        (("--swarm", "0"), "--swarm must be 1 seed or more, not 0"),
        (("--swarm", "2", "--html", "/dev/null"), "--swarm and --html cannot be combined"),
        (("--unheard-of",), "unrecognized arguments: --unheard-of"),
    ],
)
def test_an_impossible_option_is_one_clear_line_and_status_2(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = run_cluster.main(arguments)
    except SystemExit as end:
        status = end.code
    told = capsys.readouterr()
    assert (status, told.out) == (2, "")
    assert len(told.err.splitlines()) == 1
    assert told.err.startswith("run_cluster: ")
    assert says in told.err


def test_a_virtual_run_is_the_same_each_time_and_can_be_looked_at(tmp_path: Path) -> None:
    seen = []
    for number, hash_seed in enumerate(("0", "1")):
        files = {name: tmp_path / f"{number}.{name}" for name in ("json", "html", "trace")}
        options = [word for name, file in files.items() for word in (f"--{name}", str(file))]
        command = [sys.executable, str(PROGRAM), "--world=virtual", "--scenario=ip-change"]
        done = subprocess.run(  # noqa: S603
            [*command, *options],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads(files["json"].read_text())
        assert report["options"]["world"] == "virtual"
        digest = report["trace_digest"]["ip-change"]
        assert f"trace of ip-change: {digest}" in done.stdout
        assert digest in files["html"].read_text()
        seen.append((digest, files["trace"].read_text()))
    assert seen[0] == seen[1]
    assert len(seen[0][1].splitlines()) > 1000


def test_a_swarm_gives_the_same_verdict_each_time(tmp_path: Path) -> None:
    reports = []
    for number in range(2):
        file = tmp_path / f"{number}.json"
        done = run(PROGRAM, "--swarm=3", "--scenario=fast-fail", "--json", file)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "3 runs of 1 scenarios" in done.stdout
        reports.append(json.loads(file.read_text()))
    assert reports[0] == reports[1]
    assert len({run["trace_digest"] for run in reports[0]["runs"]}) == 3


def test_a_swarm_that_is_interrupted_plays_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    may_end = threading.Event()

    class Pool(ThreadPoolExecutor):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(1)

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            may_end.set()
            super().shutdown(wait=wait)

    def one(name: str, seed: int) -> SwarmRun:
        begun.append(seed)
        assert seed == 0 or may_end.wait(60)
        return SwarmRun(name, seed, True, (), "", 0.0)

    monkeypatch.setattr("simulations.swarm.ProcessPoolExecutor", Pool)
    monkeypatch.setattr("simulations.swarm._one", one)
    with contextlib.closing(swarm(["churn"], range(20))) as runs:
        assert next(runs).seed == 0
    assert len(begun) <= 2


def test_a_file_is_touched_only_when_all_options_are_well(tmp_path: Path) -> None:
    for arguments in (("--nodes=3",), ("--scenario=churn",), ("--swarm=0",)):
        done = run(PROGRAM, *arguments, "--json", tmp_path / "report")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_it_in_one_line() -> None:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-u", str(PROGRAM)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        while "relays, and a file" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr == "run_cluster: interrupted\n"


def test_what_did_not_hold_is_named_with_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def story(cluster: Cluster, expect: Expectations, narrate: object) -> dict[str, float]:
        expect.that("pigs fly", False, "none\nseen")
        return {"until_they_fly_ms": float("inf")}

    scenarios = {"pigs": Scenario("pigs", "a story", story)}
    monkeypatch.setattr(run_cluster, "SCENARIOS", scenarios)
    file = tmp_path / "figures.json"
    options = ["--nodes=11", "--seed=-3", f"--json={file}"]
    assert run_cluster.main(options) == 1
    told = capsys.readouterr()
    assert "1 of 4 expectations did not hold" in told.out
    first, second = told.err.splitlines()
    assert first == "run_cluster: FAILED: pigs: pigs fly (none; seen)"
    command = shlex.split(second.partition(": to repeat it: ")[2])
    assert command[:2] == ["python", "simulations/run_cluster.py"]
    report = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert report["held"] is False
    assert report["figures"]["pigs"]["until_they_fly_ms"] is None
    # The command is one that the program takes, and means the same run.
    assert run_cluster.main([*command[2:], f"--json={tmp_path / 'again.json'}"]) == 1
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["options"] == json.loads(file.read_text())["options"]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_the_board_is_drawn_and_nothing_is_too_wide(width: int) -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=40, highlight=False
    )
    conditions = Conditions(plan=ClusterPlan(nodes=11))
    run_cluster.run(conditions, [SCENARIOS["fast-fail"]], console)
    assert isinstance(console.file, io.StringIO)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    lines = text.replace("\r", "\n").splitlines()
    assert max(map(cell_len, lines)) <= width
    assert "last event" in text
    assert re.search(r"relay-1 +relay +127\.10\.3\.1 +\d peers", text)
    assert re.search(r"bob +peer +127\.\S+ +gone", text)
    assert "All 12 expectations held" in text


async def test_a_low_terminal_shows_as_many_rows_as_fit(plan: ClusterPlan) -> None:
    board = Board()
    cluster = Cluster(plan, watch=board.note)
    board.show(cluster)
    shown: list[str] = []

    async def story(cluster: Cluster, expect: Expectations, narrate: object) -> dict[str, float]:
        for height in (16, 60):
            console = Console(file=io.StringIO(), width=100, height=height)
            with console.capture() as captured:
                console.print(board)
            shown.append(captured.get())
        return {}

    await play(Scenario("low", "", story), cluster)
    low, high = shown
    assert "and 3 more" in low
    assert "hidden-2" not in low
    assert "hidden-2" in high
    assert "more" not in high

"""The examples of docs/simulation.md, as they are printed there, one after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"


def example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return "\n".join(blocks)


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603


def test_the_example_runs_as_printed_and_is_the_same_each_time() -> None:
    first, second = run(example()), run(example())
    assert first.returncode == 0, first.stderr
    # The first line ends with the digest; before that, it tells the wall time.
    lines = [done.stdout.splitlines() for done in (first, second)]
    told = [[line.partition(", ")[2] or line for line in each] for each in lines]
    assert told[0] == told[1]
    assert told[0][2:] == ["True ()"]


def test_its_test_passes_in_pytest(tmp_path: Path) -> None:
    story, test, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "test_notes.py").write_text(story + test, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_notes.py"]
    done = subprocess.run(  # noqa: S603
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_addresses_that_it_proposes_are_public_and_each_in_a_network_of_its_own() -> None:
    (rule,) = re.findall(r'`f"(\{11 .*?)"`', PAGE.read_text(encoding="utf-8"))
    made = [ip_address(eval(f'f"{rule}"', {"i": i})) for i in range(20_000)]  # noqa: S307
    assert all(address.is_global for address in made)
    assert len({int(address) >> 8 for address in made}) == 20_000


def test_the_example_finds_what_it_is_there_to_find() -> None:
    gives_up = example().replace("await asyncio.sleep(5)", "return")
    assert gives_up != example()
    done = run(gives_up)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr

"""The pages of docs/ name tests, settings, options, counters, sections and modules that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Final

import pytest

from egtp import Friends, Node, NodeConfig, RelayLimits
from egtp.queries.answer_limits import AnswerLimits
from egtp.values.attempts import AttemptReason
from lookup_dht import DHTLookup
from lookup_dht.settings import DHTLimits
from tests.docs.names_of_tests import ROOT, names_of_all

DOCS: Final = ROOT / "docs"
TEXTS: Final = {
    name: (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for name in ("threat-model", "operations")
}
EVERY_PAGE: Final = (*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md")))
PROGRAMS: Final = (
    ("lookup_dht",),
    ("egtp", "relay"),
    ("egtp", "echo"),
    ("egtp", "ask"),
)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
SETTING: Final = re.compile(r"`([a-z]+(?:_[a-z]+)*_(?:s|max|share|per_s|per_minute|addresses))`")
COUNTERS: Final = "## What to watch"
TROUBLES: Final = "## Troubles, and what `node.why` says"

pages = pytest.mark.parametrize("page", TEXTS)


def spans(text: str) -> list[str]:
    """What stands between backticks, and the lines of code blocks."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return lines + [" ".join(span.split()) for span in inline]


@cache
def options_of(program: tuple[str, ...]) -> frozenset[str]:
    """The command line options that ``--help`` tells of."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", *program, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )
    return frozenset(re.findall(r"--[a-z][a-z-]+", done.stdout))


def options_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def sources() -> str:
    files = (file for folder in ("egtp", "lookup_dht") for file in (ROOT / folder).rglob("*.py"))
    return "".join(file.read_text(encoding="utf-8") for file in files)


@pages
def test_each_test_named_exists(page: str) -> None:
    assert set(re.findall(r"\btest_\w+", TEXTS[page])) <= names_of_all()


@pages
def test_each_setting_named_exists(page: str) -> None:
    limits = (NodeConfig, AnswerLimits, RelayLimits, DHTLimits)
    exist = {field.name for kind in limits for field in fields(kind)}
    exist |= {
        name
        for call in (Node.handle, Friends.__init__, DHTLookup.__init__)
        for name in signature(call).parameters
    }
    named = set(SETTING.findall(TEXTS[page]))
    assert named
    assert named <= exist


@pages
def test_each_option_named_exists(page: str) -> None:
    every = frozenset[str]().union(*map(options_of, PROGRAMS))
    for span in spans(TEXTS[page]):
        commands = [p for p in PROGRAMS if f"python -m {' '.join(p)}" in span]
        if commands:
            assert set(options_in(span)) <= options_of(commands[0]), span
        elif span.startswith("--"):
            assert set(options_in(span)) <= every, span


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.stem)
def test_each_section_linked_to_exists(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_each_counter_to_watch_is_counted_somewhere() -> None:
    section = TEXTS["operations"].partition(f"\n{COUNTERS}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(named) > len(rows) > 5
    for name in named:
        what, _, reason = name.partition(": ")
        # Reasons are put into the names of some counters as they are counted.
        put_together = f'"{what}: {{' in sources() and (reason in sources())
        assert f'"{name}"' in sources() or put_together, name


def test_each_reason_among_the_troubles_is_given_somewhere() -> None:
    section = TEXTS["operations"].partition(f"\n{TROUBLES}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")][1:]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(named) >= len(rows) > 5
    assert {name.partition(": ")[2] for name in named} <= {one.value for one in AttemptReason}


def test_each_limit_of_a_relay_is_in_the_threat_model() -> None:
    named = set(re.findall(r"`(\w+)`", TEXTS["threat-model"]))
    assert {field.name for field in fields(RelayLimits)} <= named
    assert {field.name for field in fields(AnswerLimits)} <= named


def test_the_architecture_names_each_module_in_its_room_and_no_other() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:] for line in page.splitlines() if line.startswith("| ")]
    named = {
        (re.sub(r"\W", "", room), module)
        for room, _, modules, _ in rows[1:]
        for module in re.findall(r"`(\w+)`", modules)
    }
    package = ROOT / "egtp"
    files = [file for file in package.rglob("*.py") if file.name != "__init__.py"]
    assert named == {
        (str(file.parent.relative_to(package)).strip("."), file.stem) for file in files
    }


@pytest.mark.parametrize(
    ("house", "begins"),
    [("egtp", "inside egtp:"), ("lookup_dht", "rooms of its own, in this order:")],
)
def test_the_architecture_names_the_layers_that_are_held(house: str, begins: str) -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    picture = page.partition(begins)[2].strip("\n`").partition("```")[0]
    named = [set(re.findall(r"\w+", layer)) for layer in picture.split("→")]
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = tables["tool"]["importlinter"]["contracts"]
    held = next(c["layers"] for c in contracts if c.get("containers") == [house])
    drawn = set().union(*named)
    assert named == [layer & drawn for one in held if (layer := set(one.split(" | "))) & drawn]


def test_the_page_of_the_dht_names_modules_that_exist() -> None:
    page = (DOCS / "dht.md").read_text(encoding="utf-8")
    picture = page.partition("## Architecture")[2].split("```")[1]
    named = [line.split()[-1] for line in picture.strip().splitlines()]
    assert len(named) > 15
    assert all((ROOT / "lookup_dht" / f"{name}.py").is_file() for name in named)

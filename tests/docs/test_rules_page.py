"""docs/rules.md has all rules, each with its place in the code, and tests that say its number."""

from __future__ import annotations

import re

from tests.docs.names_of_tests import ROOT, names_of_all

ROW = re.compile(r"^\| R(\d+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "rules.md").read_text())


def test_all_24_rules_are_there_in_order() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 25))


def test_each_rule_names_tests_that_exist_and_say_its_number() -> None:
    exist = names_of_all()
    for number, _, tests in ROWS:
        named = re.findall(r"`(\w+)`", tests)
        assert named, number
        assert set(named) <= exist, number
        assert all(name.startswith(f"test_r{number}_") for name in named), number


def test_each_rule_lives_somewhere() -> None:
    for number, places, _ in ROWS:
        named = re.findall(r"`([\w/]+)`", places)
        assert named, number
        for name in named:
            places_there = [ROOT / "egtp" / f"{name}.py", ROOT / name / "__init__.py"]
            assert any(path.exists() for path in places_there), name

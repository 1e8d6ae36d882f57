"""docs/outcomes.md names every reason of a fast fail and of an attempt, and tests that exist."""

from __future__ import annotations

import re

from egtp import AttemptReason, FastFailReason, LookupFailure
from tests.docs.names_of_tests import ROOT, names_in, names_of_all

PAGE = (ROOT / "docs" / "outcomes.md").read_text()
CAUSES, NEVER = "## Every cause of a fast fail", "## What never is a fast fail"
TESTS_OF_THE_TABLES = [
    ROOT / "tests" / "node" / f"{name}.py"
    for name in (
        "test_fast_fail_causes",
        "test_fast_fail_by_strategy",
        "test_what_never_fails_fast",
    )
]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = PAGE.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]


def test_each_row_names_tests_and_all_of_them_exist() -> None:
    exist = names_of_all()
    for row in [*rows(CAUSES), *rows(NEVER)]:
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert named, row
        assert set(named) <= exist, row


def test_each_test_of_the_tables_has_its_row() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    for path in TESTS_OF_THE_TABLES:
        assert names_in(path) <= named


def test_each_reason_in_the_code_has_a_row_and_is_given_somewhere() -> None:
    assert {row[0].strip("`") for row in rows(CAUSES)} == set(FastFailReason.__members__)
    assert {row[1].strip("`") for row in rows(CAUSES)} - {""} == set(AttemptReason.__members__)
    code = "".join(path.read_text() for path in (ROOT / "egtp").rglob("*.py"))
    of_lookups = {AttemptReason(failure.value).name for failure in LookupFailure}
    for name in FastFailReason.__members__:
        assert f"FastFailReason.{name}" in code
    for name in AttemptReason.__members__.keys() - of_lookups:
        assert f"AttemptReason.{name}" in code


def test_each_row_of_an_attempt_says_what_the_attempt_says() -> None:
    for reason, attempt, _, said, *_ in rows(CAUSES):
        assert bool(attempt) <= (reason == "`NO_WAY`")
        if attempt:
            assert said.startswith(AttemptReason[attempt.strip("`")].value), attempt

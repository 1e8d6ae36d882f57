"""Claims: collected, told, and never lost."""

from __future__ import annotations

import asyncio

import pytest

from simulations import Expectation, Expectations, Outcome, Scenario, Stopped
from simulations.expectations import within


def test_each_claim_is_told_at_once_and_kept() -> None:
    told: list[Expectation] = []
    expect = Expectations(told.append)
    assert expect.that("water is wet", True, "drops")
    assert not expect.that("pigs fly", False, 0)
    assert told == expect.all
    assert expect.all == [
        Expectation("water is wet", True, "drops"),
        Expectation("pigs fly", False, "0"),
    ]


def test_what_was_seen_is_put_into_words() -> None:
    expect = Expectations(words=lambda thing: str(thing).upper())
    expect.that("it is loud", True, "yes")
    assert expect.all[0].detail == "YES"


@pytest.mark.parametrize(("claims", "held"), [((), False), ((True,), True), ((True, False), False)])
def test_an_outcome_held_if_something_was_claimed_and_all_of_it_held(
    claims: tuple[bool, ...], held: bool
) -> None:
    async def nothing(*_: object) -> dict[str, float]:
        return {}

    expectations = tuple(Expectation("claim", claim) for claim in claims)
    outcome = Outcome(Scenario("story", "", nothing), expectations, {}, 0.0, (), 0.0)
    assert outcome.held is held


async def test_what_happens_in_time_is_returned() -> None:
    async def soon() -> int:
        return 7

    assert await within(1.0, "it happens", soon()) == 7


async def test_what_does_not_happen_stops_the_story_and_is_named() -> None:
    with pytest.raises(Stopped, match=r"the rain stops: not within 0\.01 s") as caught:
        await within(0.01, "the rain stops", asyncio.Event().wait())
    assert caught.value.text == "the rain stops"

"""Drawn schedules: a thousand short ones, each in a world of its own, always the same ones.

``python -m simulations.mallory`` plays as many others as there is time for.
"""

from __future__ import annotations

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from simulations.mallory.__main__ import main
from simulations.mallory.many import play_some
from simulations.mallory.schedule import NUMBER_MAX, VERBS, Step, draw, play
from simulations.mallory.small_world import Conditions

# A machine that loses its power has begun some handlers, and never will go on with them.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'Party._handle:RuntimeWarning")

STEPS = 14
PER_TEST = 100
TESTS = 10

numbers = st.integers(0, NUMBER_MAX)
steps = st.builds(Step, st.sampled_from(sorted(VERBS)), numbers, numbers, numbers)


@pytest.mark.parametrize("part", range(TESTS))
def test_mallory_never_wins(part: int) -> None:
    verdicts = play_some(range(part * PER_TEST, (part + 1) * PER_TEST), STEPS)
    assert {verdict.seed: verdict.failures for verdict in verdicts if verdict.failures} == {}
    # Not because nothing happened.
    assert sum(verdict.ran for verdict in verdicts) > PER_TEST
    outcomes = {outcome for verdict in verdicts for outcome in verdict.outcomes}
    assert outcomes >= {"reply", "FastFail", "HardTimeout", "HandlerFailed"}


@pytest.mark.parametrize("option", ["--schedules=0", "--steps=0", "--steps=-3"])
def test_there_is_no_victory_over_an_attacker_who_does_nothing(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([option])
    assert "is not at least 1" in capsys.readouterr().err


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), schedule=st.lists(steps, max_size=STEPS))
def test_no_schedule_lets_mallory_win(seed: int, schedule: list[Step]) -> None:
    conditions = Conditions.draw(seed)
    note(str(conditions))
    assert play(conditions, schedule, seed).violations == ()


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    runs = [play(Conditions.draw(seed), draw(seed), seed) for _ in range(2)]
    assert runs[0] == runs[1]

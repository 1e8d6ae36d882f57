"""Faults: healed once, in any order."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual.faults import Fault, Faults


def test_a_fault_is_healed_once() -> None:
    healed: list[str] = []
    fault = Fault("something", lambda: healed.append("healed"))
    states = [fault.is_healed]
    for _ in range(2):
        fault.heal()
        states.append(fault.is_healed)
    assert states == [False, True, True]
    assert healed == ["healed"]


def test_a_block_heals_its_fault_however_it_is_left() -> None:
    healed: list[str] = []
    with pytest.raises(ZeroDivisionError), Fault("something", lambda: healed.append("one")):
        raise ZeroDivisionError
    with Fault("something", lambda: healed.append("two")) as fault:
        fault.heal()
    assert healed == ["one", "two"]


@given(st.lists(st.integers(0, 5)), st.randoms(use_true_random=False))
def test_of_faults_that_overlap_the_last_one_counts_that_is_left(
    values: list[int], rng: Random
) -> None:
    faults: Faults[int] = Faults()
    left = [(value, faults.begin(value)) for value in values]
    while left:
        assert faults.last == left[-1][0]
        _, heal = left.pop(rng.randrange(len(left)))
        heal()
    assert faults.last is None

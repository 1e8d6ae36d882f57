"""What happens again and again is told now and then, and counted meanwhile."""

from __future__ import annotations

from egtp.limits.repetitions import AGAIN_S, REMEMBERED_MAX, Repetitions


def test_the_same_is_told_once_and_then_with_how_often_it_happened() -> None:
    repetitions = Repetitions()
    assert [repetitions.times("a", second) for second in range(60)] == [1] + [0] * 59
    assert repetitions.times("a", AGAIN_S) == 60
    assert repetitions.times("a", AGAIN_S + 1) == 0
    assert repetitions.times("a", 2 * AGAIN_S) == 2


def test_what_happens_seldom_is_told_each_time() -> None:
    repetitions = Repetitions()
    assert [repetitions.times("a", count * AGAIN_S) for count in range(5)] == [1] * 5


def test_one_thing_does_not_hide_another() -> None:
    repetitions = Repetitions()
    assert [repetitions.times(what, 1.0) for what in "abab"] == [1, 1, 0, 0]


def test_of_too_many_those_are_forgotten_that_were_told_longest_ago() -> None:
    repetitions = Repetitions()
    for what in range(REMEMBERED_MAX):
        repetitions.times(what, 1.0)
    assert repetitions.times(0, 1.0 + AGAIN_S) == 1
    repetitions.times("one more", 1.0 + AGAIN_S)
    assert repetitions.times(0, 1.0 + AGAIN_S) == 0
    assert repetitions.times(2, 1.0) == 0
    assert repetitions.times(1, 1.0) == 1


def test_a_few_are_remembered() -> None:
    repetitions = Repetitions()
    for what in range(2 * REMEMBERED_MAX):
        assert repetitions.times(what, 1.0) == 1
    assert repetitions.times(0, 1.0) == 1
    assert repetitions.times(2 * REMEMBERED_MAX - 1, 1.0) == 0

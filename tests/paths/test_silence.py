"""Noticing that nobody is there any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egtp.paths.silence import Silence, Verdict


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    silence = Silence()
    assert silence.look(101.9, 100.0, 8.0) is Verdict.FINE
    assert silence.look(102.0, 100.0, 8.0) is Verdict.ASK
    assert silence.look(102.9, 100.0, 8.0) is Verdict.FINE
    assert silence.look(103.0, 100.0, 8.0) is Verdict.DOUBT
    assert silence.look(104.0, 100.0, 8.0) is Verdict.FINE
    assert silence.is_doubted
    assert silence.look(107.9, 100.0, 8.0) is Verdict.FINE
    assert silence.look(108.0, 100.0, 8.0) is Verdict.GIVE_UP


def test_a_peer_that_answers_is_not_given_up() -> None:
    silence = Silence()
    assert silence.look(102.0, 100.0, 8.0) is Verdict.ASK
    assert silence.look(103.0, 100.0, 8.0) is Verdict.DOUBT
    assert silence.look(104.0, 102.1, 8.0) is Verdict.FINE
    assert not silence.is_doubted
    assert silence.look(104.1, 102.1, 8.0) is Verdict.ASK
    assert silence.look(105.1, 102.1, 8.0) is Verdict.DOUBT


def test_who_has_just_answered_is_not_doubted_until_he_is_looked_at() -> None:
    silence = Silence()
    assert silence.look(102.0, 100.0, 8.0) is Verdict.ASK
    assert silence.look(103.0, 100.0, 8.0) is Verdict.DOUBT
    assert silence.doubts(100.0)
    assert not silence.doubts(103.1)


def test_after_an_hour_asleep_the_peer_is_asked_first_and_has_half_of_the_time() -> None:
    silence = Silence()
    assert silence.look(3_700.0, 100.0, 8.0) is Verdict.ASK
    assert silence.look(3_703.9, 100.0, 8.0) is Verdict.DOUBT
    assert silence.look(3_704.0, 100.0, 8.0) is Verdict.GIVE_UP


def test_a_peer_that_was_asked_is_looked_at_until_it_answers_or_is_given_up() -> None:
    silence = Silence()
    asked = [silence.is_asked]
    for now_s, heard_s in ((102.0, 100.0), (103.0, 102.5)):
        silence.look(now_s, heard_s, 8.0)
        asked.append(silence.is_asked)
    assert asked == [False, True, False]


@given(st.lists(st.tuples(st.floats(0.1, 5.0), st.booleans(), st.booleans()), max_size=60))
def test_nobody_is_given_up_who_was_not_asked_in_vain_for_half_of_the_time(
    looks: list[tuple[float, bool, bool]],
) -> None:
    silence = Silence()
    now = heard = 0.0
    asked: float | None = None
    doubted = False
    for step, something_came, somebody_waits in looks:
        now += step
        if something_came:
            heard, asked, doubted = now, None, False
        if not somebody_waits and not silence.is_asked:
            continue
        match silence.look(now, heard, 6.0, is_wanted=somebody_waits):
            case Verdict.ASK:
                assert somebody_waits
                assert asked is None
                assert now - heard >= 1.5
                asked = now
            case Verdict.DOUBT:
                assert asked is not None
                assert now - asked >= 0.75
                assert not doubted
                doubted = True
            case Verdict.GIVE_UP:
                assert asked is not None
                assert now - asked >= 3.0
                assert now - heard >= 6.0
                return
            case Verdict.FINE:
                waits = asked is not None and (doubted or now - asked < 0.75)
                assert now - heard < 1.5 or waits
                assert now - heard < 6.0 or (asked is not None and now - asked < 3.0)
        assert silence.is_doubted == doubted

"""Who is forgotten, and when: nothing that was forgotten runs again."""

from __future__ import annotations

import pytest

from egtp.errors import InvalidConfig
from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import FLOORS_MAX, MARGIN_S, NEVER, Answers, Verdict
from egtp.queries.asker import Asker
from tests.queries.responder import LIMITS, Responder, peer_number


def a_crowd_asks_and_goes(answers: Answers, number: int) -> None:
    for one in range(number):
        asker = answers.session_began(peer_number(one), bytes(8), 1, 0.0, stranger=True)
        assert asker is not None
        assert answers.ask(asker, 0, bytes(32), 3600.0, 0.0)[0] is Verdict.RUN
        answers.session_ended(asker)


def comes(answers: Answers, number: int, now_s: float) -> Asker:
    asker = answers.session_began(peer_number(number), bytes(8), 1, now_s, stranger=True)
    assert asker is not None
    return asker


def test_strangers_who_ask_and_go_keep_no_stranger_out() -> None:
    limits = AnswerLimits(askers_max=64)
    answers = Answers(limits)
    a_crowd_asks_and_goes(answers, limits.strangers_max)
    honest = comes(answers, 99, 5.0)
    assert answers.ask(honest, 7, bytes(32), 10.0, 6.0)[0] is Verdict.DOUBTFUL
    assert answers.clears(honest, 7, 5.9, 6.0)
    assert answers.ask(honest, 7, bytes(32), 10.0, 6.0)[0] is Verdict.RUN
    assert answers.ask(honest, 8, bytes(32), 10.0, 6.0)[0] is Verdict.RUN, "it is younger"
    assert answers.ask(honest, 6, bytes(32), 10.0, 6.0)[0] is Verdict.DOUBTFUL
    assert not answers.clears(honest, 6, 4.0, 6.0)


def test_strangers_who_are_gone_keep_nobody_out_when_others_have_filled_what_they_left() -> None:
    answers = Answers(AnswerLimits(askers_max=16))
    a_crowd_asks_and_goes(answers, 10)
    for number in range(100, 106):
        assert answers.session_began(peer_number(number), bytes(8), 1, 0.0) is not None
    assert answers.session_began(peer_number(200), bytes(8), 1, 5.0) is not None
    assert len(answers) == 7


def test_how_long_this_node_has_been_there_does_not_make_anybody_older() -> None:
    answers = Answers(LIMITS)
    began_s = 10_000_000.0
    asker = comes(answers, 0, began_s)
    assert answers.ask(asker, 0, bytes(32), 100.0, began_s)[0] is Verdict.RUN
    answers.session_ended(asker)
    assert answers.forget_strangers(began_s + 1) == 1
    again = comes(answers, 0, began_s + 2)
    assert answers.ask(again, 1, bytes(32), 100.0, began_s + 2)[0] is Verdict.DOUBTFUL
    assert answers.clears(again, 1, began_s + 1.5, began_s + 2)


def test_they_are_forgotten_while_there_is_still_room_so_that_nobodys_first_query_is_doubted() -> (
    None
):
    limits = AnswerLimits(askers_max=64)
    answers = Answers(limits)
    a_crowd_asks_and_goes(answers, limits.strangers_many)
    answers.look(1.0, 1)
    assert len(answers) == 0
    honest = comes(answers, 99, 5.0)
    assert answers.ask(honest, 0, bytes(32), 10.0, 5.0)[0] is Verdict.DOUBTFUL
    assert answers.clears(honest, 0, 4.5, 5.0)


def test_what_a_stranger_asks_again_who_was_forgotten_by_force_does_not_run_again() -> None:
    answers = Answers(LIMITS)
    asker = comes(answers, 0, 0.0)
    assert answers.ask(asker, 0, bytes(32), 100.0, 0.0)[0] is Verdict.RUN
    answers.session_ended(asker)
    assert answers.forget_strangers(10.0) == 1
    again = comes(answers, 0, 20.0)
    assert again is not asker
    assert answers.ask(again, 0, bytes(32), 75.0, 25.0)[0] is Verdict.DOUBTFUL
    # It was born before 10.0, however far the two clocks differ in their speed.
    assert not answers.clears(again, 0, 10.0 + 0.001 * 10, 25.0)
    assert answers.ask(again, 0, bytes(32), 75.0, 25.0)[0] is Verdict.DOUBTFUL


def test_the_longer_ago_it_was_the_further_the_two_clocks_may_have_drifted_apart() -> None:
    answers = Answers(LIMITS)
    asker = comes(answers, 0, 0.0)
    assert answers.ask(asker, 0, bytes(32), 100.0, 0.0)[0] is Verdict.RUN
    answers.session_ended(asker)
    assert answers.forget_strangers(10.0) == 1
    again = comes(answers, 0, 90.0)
    assert not answers.clears(again, 0, 10.0 + 0.002 * 80, 90.0)
    assert answers.clears(again, 0, 10.0 + 0.002 * 80 + 0.2, 90.0)


def test_only_strangers_are_forgotten_by_force_who_are_gone_and_for_whom_nothing_runs() -> None:
    answers = Answers(AnswerLimits())
    here, busy, gone = (comes(answers, number, 0.0) for number in range(3))
    known = answers.session_began(peer_number(3), bytes(8), 1, 0.0)
    assert known is not None
    for asker in (here, busy, gone, known):
        answers.ask(asker, 0, bytes(32), 100.0, 0.0)
    busy.running += 1
    for asker in (busy, gone, known):
        answers.session_ended(asker)
    assert answers.forget_strangers(1.0) == 1
    assert answers.entries == 3
    assert answers.ask(here, 1, bytes(32), 100.0, 1.0)[0] is Verdict.RUN
    for number, asker in ((1, busy), (3, known)):
        assert answers.session_began(peer_number(number), bytes(8), 1, 2.0) is asker
        assert answers.ask(asker, 0, bytes(32), 100.0, 2.0)[0] is Verdict.WORKING
    assert comes(answers, 2, 2.0) is not gone


def test_no_early_data_is_accepted_until_what_was_forgotten_by_force_is_too_old_to_run() -> None:
    answers = Answers(LIMITS)
    asker = comes(answers, 0, 0.0)
    answers.ask(asker, 0, bytes(32), 100.0, 0.0)
    answers.session_ended(asker)
    answers.forget_strangers(10.0)
    # By the slower of the two clocks, a lifetime of 100 s and the margin end later than at 120.
    for now_s, sequence in ((11.0, 1), (100.0, 2), (120.1, 3)):
        answers.signed_anew(sequence)
        answers.look(now_s, sequence + 1)
        assert answers.early_floor == NEVER
    asker = comes(answers, 1, 120.1)
    assert answers.ask(asker, 0, bytes(32), 100.0, 120.1)[0] is Verdict.DOUBTFUL
    answers.look(121.0, 5)
    assert answers.early_floor == 6, "above all that could be known when it was not accepted"
    asker = comes(answers, 2, 121.0)
    assert answers.ask(asker, 0, bytes(32), 100.0, 121.0)[0] is Verdict.RUN


def test_of_peers_who_were_forgotten_nothing_is_left() -> None:
    """An identity costs nothing, so even a little of each would grow without end."""
    answers = Answers(AnswerLimits(askers_max=64))
    a_crowd_asks_and_goes(answers, 50)
    assert answers.forget_strangers(1.0) == 50
    assert (answers._askers, answers._of_peer, answers._restless) == ({}, {}, {})
    assert (answers.entries, answers.bytes, answers._strangers) == (0, 0, 0)


def settled_and_gone(responder: Responder) -> None:
    responder.answer(0)
    responder.answers.settle(responder.asker, 1)
    responder.leaves()


def test_who_never_asked_is_forgotten_at_once_but_not_while_something_runs_for_him() -> None:
    responder = Responder()
    responder.asker.running += 1
    responder.leaves()
    assert len(responder.answers) == 1
    responder.comes_back()
    assert responder.asker.running == 1, "who comes back has his limit anew"
    responder.asker.running -= 1
    responder.leaves()
    assert len(responder.answers) == 0


def test_that_a_number_is_settled_is_remembered_after_the_last_session() -> None:
    responder = Responder()
    settled_and_gone(responder)
    responder.comes_back()
    assert responder.ask(0) is Verdict.SETTLED
    responder = Responder()
    responder.answer(0)
    responder.answers.settle_except(responder.asker, 1, frozenset())
    responder.leaves()
    responder.comes_back()
    assert responder.ask(0) is Verdict.SETTLED


@pytest.mark.parametrize("how", ["a new record", "no room"])
def test_who_is_forgotten_cannot_come_again_by_early_data_of_that_time(how: str) -> None:
    responder = Responder()
    settled_and_gone(responder)
    answers = responder.answers
    answers.look(10.0 + MARGIN_S, 7)
    if how == "no room":
        assert answers.make_room(7) == 1
        assert answers.early_floor == 8, "he knows of 7 at most"
    else:
        answers.signed_anew(7)
        assert len(answers) == 1, "he may know of 7"
        assert answers.early_floor == 7
        answers.signed_anew(8)
        assert answers.early_floor == 8
    assert len(answers) == answers.entries == answers.bytes == 0


def test_nobody_is_forgotten_before_his_last_query_is_past_its_lifetime() -> None:
    responder = Responder()
    responder.answer(0)
    assert responder.ask(1, left_s=50.0, now_s=5.0) is Verdict.RUN
    assert responder.ask(2, left_s=1.0, now_s=6.0) is Verdict.RUN, "that of the first ends last"
    responder.leaves()
    answers = responder.answers
    answers.look(55.0 + MARGIN_S - 0.01, 1)
    answers.signed_anew(1)
    answers.signed_anew(2)
    assert len(answers) == 1
    answers.look(55.0 + MARGIN_S, 3)
    answers.signed_anew(3)
    answers.signed_anew(4)
    assert len(answers) == 0


def test_nobody_is_remembered_for_as_long_as_he_likes() -> None:
    responder = Responder()
    assert responder.ask(0, left_s=2**32 / 1000) is Verdict.RUN
    responder.leaves()
    responder.answers.look(LIMITS.lifetime_s_max + MARGIN_S, 1)
    assert responder.answers.make_room(1) == 1


@pytest.mark.parametrize("what", ["a session", "a handler", "a query"])
def test_who_has_something_going_on_again_is_not_idle_any_more(what: str) -> None:
    responder = Responder()
    settled_and_gone(responder)
    answers = responder.answers
    answers.look(1000.0, 1)
    assert [asker.idle_since for asker in answers._askers.values()] == [1]
    responder.comes_back()
    if what == "a handler":
        responder.asker.running += 1
    elif what == "a query":
        assert responder.ask(1, now_s=1000.0) is Verdict.RUN
    if what != "a session":
        responder.leaves()
    answers.look(1000.0, 2)
    assert [asker.idle_since for asker in answers._askers.values()] == [None]
    answers.signed_anew(2)
    answers.signed_anew(3)
    assert answers.make_room(4) == 0
    assert len(answers) == 1


def test_who_has_a_session_is_not_idle_however_long_ago_he_asked() -> None:
    responder = Responder()
    responder.answer(0)
    answers = responder.answers
    answers.look(1000.0, 1)
    assert responder.asker.idle_since is None
    answers.signed_anew(2)
    assert answers.make_room(2) == 0
    assert responder.ask(0, now_s=1000.0) is Verdict.GONE


def test_who_comes_back_is_not_forgotten_before_anybody_has_looked_again() -> None:
    responder = Responder()
    settled_and_gone(responder)
    responder.answers.look(1000.0, 1)
    responder.comes_back()
    responder.answers.signed_anew(1)
    responder.answers.signed_anew(2)
    assert len(responder.answers) == 1
    assert responder.ask(0) is Verdict.SETTLED


def test_who_is_at_rest_is_not_looked_at_however_many_there_are() -> None:
    """A look is taken each second, and there may be twenty thousand of them."""
    here, idle = Responder(), Responder()
    here.answer(0)
    settled_and_gone(idle)
    for one in (here, idle):
        assert len(one.answers._restless) == 1
        one.answers.look(1000.0, 1)
        assert (len(one.answers), len(one.answers._restless)) == (1, 0)


def test_bodies_that_nobody_may_ask_for_are_let_go() -> None:
    responder = Responder()
    responder.answer(0, 50)
    responder.answers.look(9.0 + MARGIN_S, 1)
    assert responder.answers.bytes == 50
    responder.answers.look(10.0 + MARGIN_S, 1)
    assert responder.answers.bytes == responder.asker.bytes == 0
    assert responder.ask(0, now_s=25.0) is Verdict.GONE


def test_a_floor_never_sinks() -> None:
    answers = Answers(LIMITS)
    answers.signed_anew(9)
    answers.signed_anew(5)
    assert answers.early_floor == 9


@pytest.mark.parametrize(
    "limits",
    [
        {"askers_max": 0},
        {"window": 0},
        {"entries_max": 0},
        {"bytes_max": 0},
        {"lifetime_s_max": 0.5},
    ],
)
def test_limits_are_at_least_one(limits: dict[str, int]) -> None:
    with pytest.raises(InvalidConfig):
        AnswerLimits(**limits)


def lives_once(answers: Answers, life: int, now_s: float, sequence: int = 1) -> Asker | None:
    """A life of a program that asks one query, half a minute long, and ends."""
    asker = answers.session_began(peer_number(7), life.to_bytes(8, "big"), sequence, now_s)
    if asker is not None:
        assert answers.ask(asker, 0, bytes(32), 30.0, now_s)[0] is Verdict.RUN
        answers.session_ended(asker)
    return asker


def test_a_program_that_is_started_again_and_again_always_finds_room_for_its_next_life() -> None:
    answers = Answers(AnswerLimits(askers_max=64))
    for life in range(200):
        assert lives_once(answers, life, 60.0 * life) is not None
        answers.look(60.0 * life + 50, 1)
        assert len(answers) <= AnswerLimits(askers_max=64).peer_askers_max
    assert answers.early_floor_of(peer_number(7)) == 2, "what it asked before does not run again"
    assert answers.early_floor == answers.early_floor_of(peer_number(8)) == 0, "nobody else pays"
    answers.signed_anew(1)
    assert answers.early_floor_of(peer_number(7)) == 2, "who knows the new record is believed"
    answers.signed_anew(2)
    assert not answers._floors


def test_lives_that_may_still_be_asked_for_are_not_forgotten_for_the_next_one() -> None:
    answers = Answers(AnswerLimits(askers_max=64))
    lives = [lives_once(answers, life, 0.0) for life in range(20)]
    assert lives.index(None) == AnswerLimits(askers_max=64).peer_askers_max
    assert answers.early_floor_of(peer_number(7)) == 0


def test_peers_with_floors_of_their_own_are_bounded_and_then_all_have_the_same() -> None:
    answers = Answers()
    for number in range(FLOORS_MAX + 1):
        peer_id = peer_number(number)
        asker = answers.session_began(peer_id, bytes(8), 5, 0.0)
        assert asker is not None
        answers.ask(asker, 0, bytes(32), 30.0, 0.0)
        answers.session_ended(asker)
    answers.look(50.0, 5)
    for number in range(FLOORS_MAX):
        assert answers.make_room_of(peer_number(number)) == 1
    assert answers.early_floor == 0
    assert answers.make_room_of(peer_number(FLOORS_MAX)) == 1
    assert answers.early_floor == answers.early_floor_of(peer_number(0)) == 6
    assert not answers._floors

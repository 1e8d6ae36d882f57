"""Whom there is room for, and who makes room for whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import MARGIN_S, Answers, Verdict
from egtp.queries.asker import Asker
from egtp.queries.outgoing import Outgoing
from egtp.values.identity import NodeId
from tests.queries.responder import LIMITS, PEERS, Responder, peer_number


def test_a_peer_for_whom_there_is_no_room_is_told_so_and_takes_nobodys_place() -> None:
    answers = Answers(LIMITS)
    for peer_id in PEERS[:3]:
        assert answers.has_room_for(peer_id, b"incarnat")
        assert answers.session_began(peer_id, b"incarnat", 1, 0.0) is not None
    assert not answers.has_room_for(PEERS[3], b"incarnat")
    assert answers.session_began(PEERS[3], b"incarnat", 1, 0.0) is None
    assert not answers.has_room_for(PEERS[0], b"another-")
    assert answers.has_room_for(PEERS[0], b"incarnat")
    assert answers.early_floor == 0
    assert len(answers) == 3


def test_a_peer_that_says_it_was_started_anew_again_and_again_leaves_room_for_others() -> None:
    answers = Answers(AnswerLimits(askers_max=1600))
    cheat, other = NodeId(b"c" * 20), NodeId(b"o" * 20)
    for number in range(1600):
        asker = answers.session_began(cheat, number.to_bytes(8, "big"), 1, 0.0)
        assert (asker is not None) == (number < 25)
        if asker is not None:
            answers.ask(asker, 0, b"%032d" % number, 3600, 0.0)
            answers.session_ended(asker)
    assert not answers.has_room_for(cheat, b"afresh..")
    assert answers.has_room_for(other, b"incarnat")
    assert answers.session_began(other, b"incarnat", 1, 0.0) is not None
    # What is forgotten gives its room back.
    answers.look(10_000.0, 1)
    answers.signed_anew(2)
    assert answers.has_room_for(cheat, b"afresh..")


def test_a_peer_for_whom_there_is_no_room_gets_that_of_those_who_are_idle() -> None:
    answers = Answers(LIMITS)
    for peer_id in PEERS[:3]:
        memory = answers.session_began(peer_id, b"incarnat", 7, 0.0)
        assert memory is not None
        answers.settle(memory, 1)
        if peer_id != PEERS[0]:
            answers.session_ended(memory)
    answers.look(1.0, 7)
    assert answers.session_began(PEERS[3], b"incarnat", 7, 0.0) is not None
    assert len(answers) == 2
    assert answers.early_floor == 8


def test_when_there_is_no_room_for_another_query_it_is_refused_and_none_forgotten() -> None:
    answers = Answers(LIMITS)
    askers = [answers.session_began(peer_id, b"incarnat", 1, 0.0) for peer_id in PEERS[:3]]
    verdicts = [
        answers.ask(asker, number, b"%d" % number, 10.0, 0.0)[0]
        for asker in askers
        if asker is not None
        for number in range(5)
    ]
    assert verdicts == [Verdict.RUN] * 12 + [Verdict.BUSY] * 3
    assert askers[0] is not None
    assert answers.ask(askers[0], 0, b"0", 10.0, 0.0)[0] is Verdict.WORKING


def test_the_oldest_bodies_make_room_and_that_their_queries_ran_is_not_forgotten() -> None:
    responder = Responder()
    size = LIMITS.asker_bytes_max // 2
    for number in range(4):
        responder.answer(number, size)
    gone, here = Verdict.GONE, Verdict.AGAIN
    assert [responder.ask(number) for number in range(4)] == [gone, gone, here, here]
    assert responder.answers.bytes == 2 * size
    # One that has no room at all is not kept, and takes nothing along.
    responder.answer(4, LIMITS.asker_bytes_max + 1)
    assert [responder.ask(number) for number in range(5)] == [gone, gone, here, here, gone]
    responder.answer(5, 1)
    assert responder.ask(5) is here


def test_bodies_are_kept_until_there_is_no_room_and_then_an_eighth_of_it_is_made() -> None:
    responder = Responder(AnswerLimits(window=20, bytes_max=1600))
    for number in range(10):
        responder.answer(number, 10)
    assert responder.answers.bytes == 100
    responder.answer(10, 1)
    assert responder.answers.bytes == 81
    answers = Answers(AnswerLimits(bytes_max=1600))
    for number in range(16):
        asker = answers.session_began(peer_number(number), b"incarnat", 1, 0.0)
        assert asker is not None
        _, answer = answers.ask(asker, 0, b"0", 10.0, 0.0)
        assert answer is not None
        answers.answered(asker, answer, Outgoing(bytes(100), 0.0))
        assert answers.bytes == 100 * (number + 1)


def test_bodies_go_of_whom_most_is_kept_and_not_of_who_is_answered_next() -> None:
    answers = Answers(AnswerLimits(askers_max=300, bytes_max=1600))
    asked = []
    for number, size in enumerate([100] * 15 + [60, 60]):
        asker = answers.session_began(NodeId(number.to_bytes(20, "big")), b"incarnat", 1, 0.0)
        assert asker is not None
        _, answer = answers.ask(asker, 0, b"0", 10.0, 0.0)
        assert answer is not None
        answers.answered(asker, answer, Outgoing(bytes(size), 0.0))
        asked.append(asker)
    kept = [answers.ask(asker, 0, b"0", 10.0, 0.0)[0] for asker in asked]
    assert kept == [Verdict.GONE] * 3 + [Verdict.AGAIN] * 14
    assert answers.bytes == 12 * 100 + 120


def test_what_was_refused_for_want_of_room_does_not_run_when_there_is_some() -> None:
    responder = Responder()
    for number in range(LIMITS.window):
        responder.answer(number)
    late, refused = LIMITS.window, LIMITS.window + 1
    assert responder.ask(refused) is Verdict.BUSY
    responder.answers.settle(responder.asker, LIMITS.window)
    assert responder.ask(refused) is Verdict.BUSY
    # The one before it has not come yet. It is refused too, which is true, and takes no memory.
    assert responder.ask(late) is Verdict.BUSY
    assert responder.ask(refused + 1) is Verdict.RUN
    assert responder.ask(refused) is Verdict.BUSY


def test_who_was_only_refused_is_remembered_for_as_long_as_a_copy_may_come() -> None:
    answers = Answers(LIMITS)
    others = [answers.session_began(peer_id, b"incarnat", 1, 0.0) for peer_id in PEERS[:2]]
    for asker in others:
        assert asker is not None
        for number in range(LIMITS.window):
            answers.ask(asker, number, b"%d" % number, 10.0, 0.0)
    refused = answers.session_began(PEERS[2], b"incarnat", 1, 0.0)
    assert refused is not None
    assert answers.ask(refused, 0, b"0", 10.0, 0.0)[0] is Verdict.BUSY
    answers.session_ended(refused)
    for asker in others:
        assert asker is not None
        answers.settle(asker, LIMITS.window)
    assert answers.session_began(PEERS[2], b"incarnat", 1, 0.0) is refused
    assert answers.ask(refused, 0, b"0", 10.0, 5.0)[0] is Verdict.BUSY


def test_no_crowd_of_strangers_takes_the_room_of_those_whom_somebody_knows() -> None:
    limits = AnswerLimits(askers_max=16)
    answers = Answers(limits)

    def begins(number: int, *, stranger: bool) -> Asker | None:
        peer_id = NodeId(number.to_bytes(20, "big"))
        there = answers.has_room_for(peer_id, b"incarnat", stranger=stranger)
        asker = answers.session_began(peer_id, b"incarnat", 1, 0.0, stranger=stranger)
        assert there == (asker is not None)
        return asker

    crowd = [begins(number, stranger=True) for number in range(100)]
    assert sum(asker is not None for asker in crowd) == limits.strangers_max == 14
    known = [begins(number, stranger=False) for number in range(100, 200)]
    assert sum(asker is not None for asker in known) == 2
    # One of the crowd turns out to be known: his place is another stranger's, if there is one.
    assert begins(0, stranger=False) is crowd[0]
    assert begins(300, stranger=True) is None
    one = known[0]
    assert one is not None
    answers.session_ended(one)
    assert begins(301, stranger=True) is not None
    assert begins(302, stranger=True) is None
    for asker in crowd[1:14]:
        assert asker is not None
        answers.session_ended(asker)
    assert all(begins(number, stranger=True) is not None for number in range(400, 413))


def test_a_peer_of_many_incarnations_fills_a_quarter_of_the_entries_and_no_more() -> None:
    limits = AnswerLimits(askers_max=4000, window=10, entries_max=400)
    answers = Answers(limits)
    askers = [
        answers.session_began(PEERS[0], number.to_bytes(8, "big"), 1, 0.0) for number in range(40)
    ]
    verdicts = []
    for asker in askers:
        assert asker is not None
        for number in range(10):
            verdict, _ = answers.ask(asker, number, bytes(32), 1.0, 0.0)
            verdicts.append(verdict)
    assert verdicts == [Verdict.RUN] * 100 + [Verdict.BUSY] * 300
    other = answers.session_began(PEERS[1], bytes(8), 1, 0.0)
    assert other is not None
    assert answers.ask(other, 0, bytes(32), 1.0, 0.0)[0] is Verdict.RUN
    # What is settled is room for more, though not of what was refused.
    assert askers[0] is not None
    answers.settle(askers[0], 10)
    assert answers.ask(askers[0], 10, bytes(32), 1.0, 0.0)[0] is Verdict.RUN
    assert askers[39] is not None
    assert answers.ask(askers[39], 5, bytes(32), 1.0, 0.0)[0] is Verdict.BUSY


def test_a_crowd_of_strangers_leaves_entries_to_those_who_are_known() -> None:
    limits = AnswerLimits(askers_max=4000, window=10, entries_max=80)
    answers = Answers(limits)
    ran = 0
    for one in range(60):
        asker = answers.session_began(peer_number(one), bytes(8), 1, 0.0, stranger=True)
        assert asker is not None
        ran += sum(
            answers.ask(asker, number, bytes(32), 1.0, 0.0)[0] is Verdict.RUN
            for number in range(10)
        )
    assert ran == answers.entries == limits.strangers_entries_max == 70
    known = answers.session_began(peer_number(99), bytes(8), 1, 0.0)
    assert known is not None
    assert answers.ask(known, 0, bytes(32), 1.0, 0.0)[0] is Verdict.RUN


def hogs(answers: Answers, number: int, window: int, *, stranger: bool) -> list[Asker]:
    """So many peers, each with as many queries as it may have, of which it settles none."""
    askers = []
    for one in range(number):
        asker = answers.session_began(peer_number(one), bytes(8), 1, 0.0, stranger=stranger)
        assert asker is not None
        for query in range(window):
            answers.ask(asker, query, bytes(32), 1.0, 0.0)
        askers.append(asker)
    return askers


def test_strangers_who_never_settle_leave_a_few_entries_to_every_stranger_after_them() -> None:
    limits = AnswerLimits(askers_max=64, window=64, entries_max=1024)
    answers = Answers(limits)
    hogs(answers, limits.strangers_max - 1, limits.window, stranger=True)
    honest = answers.session_began(peer_number(99), bytes(8), 1, 0.0, stranger=True)
    assert honest is not None
    verdicts = [answers.ask(honest, number, bytes(32), 1.0, 0.0)[0] for number in range(9)]
    assert verdicts == [Verdict.RUN] * limits.strangers_few + [Verdict.BUSY]
    # One after the other is any number of them.
    for number in range(9, 100):
        answers.settle(honest, number)
        assert answers.ask(honest, number, bytes(32), 1.0, 0.0)[0] is Verdict.RUN
    known = answers.session_began(peer_number(100), bytes(8), 1, 0.0)
    assert known is not None
    verdicts = [answers.ask(known, number, bytes(32), 1.0, 0.0)[0] for number in range(64)]
    assert verdicts == [Verdict.RUN] * 64


def test_a_stranger_of_many_incarnations_has_a_few_entries_once_and_not_for_each() -> None:
    limits = AnswerLimits(askers_max=64, window=64, entries_max=1024)
    answers = Answers(limits)
    hogs(answers, 20, limits.window, stranger=True)
    ran = 0
    for incarnation in range(10):
        one = answers.session_began(
            peer_number(99), bytes([incarnation]) * 8, 1, 0.0, stranger=True
        )
        assert one is not None
        ran += answers.ask(one, 0, bytes(32), 1.0, 0.0)[0] is Verdict.RUN
    assert ran == limits.strangers_few == 8


@given(st.integers(8, 100_000), st.integers(1, 5000), st.integers(8, 1_000_000))
def test_a_few_entries_of_every_stranger_there_may_be_find_room_beside_the_first_half(
    askers_max: int, window: int, entries_max: int
) -> None:
    limits = AnswerLimits(askers_max=askers_max, window=window, entries_max=entries_max)
    few = limits.strangers_few * limits.strangers_max
    enough = limits.strangers_crowded >= limits.strangers_max
    assert not enough or limits.strangers_crowded + few <= limits.strangers_entries_max


def test_queries_that_find_no_room_get_that_of_those_who_are_idle() -> None:
    limits = AnswerLimits(askers_max=64, window=6, entries_max=12)
    answers = Answers(limits)
    for asker in hogs(answers, 2, 6, stranger=False):
        answers.session_ended(asker)
    one = answers.session_began(peer_number(9), bytes(8), 7, 0.0)
    assert one is not None
    assert answers.ask(one, 0, bytes(32), 1.0, 5.0)[0] is Verdict.BUSY
    assert answers.early_floor == 0
    answers.look(1.0 + MARGIN_S, 7)
    assert answers.ask(one, 1, bytes(32), 1.0, 1.0 + MARGIN_S)[0] is Verdict.RUN
    assert (len(answers), answers.entries, answers.early_floor) == (1, 1, 8)
    assert answers.ask(one, 0, bytes(32), 1.0, 1.0 + MARGIN_S)[0] is Verdict.BUSY


def test_who_is_forgotten_in_vain_makes_no_room_that_is_not_there() -> None:
    limits = AnswerLimits(askers_max=64, window=6, entries_max=12)
    answers = Answers(limits)
    idle = answers.session_began(peer_number(8), bytes(8), 1, 0.0)
    assert idle is not None
    answers.settle(idle, 1)
    answers.session_ended(idle)
    answers.look(0.0, 1)
    hogs(answers, 2, 6, stranger=False)
    one = answers.session_began(peer_number(9), bytes(8), 1, 0.0)
    assert one is not None
    assert answers.ask(one, 0, bytes(32), 1.0, 5.0)[0] is Verdict.BUSY
    assert (len(answers), answers.entries) == (3, limits.entries_max)


def test_strangers_get_more_than_a_few_entries_once_the_idle_can_make_way() -> None:
    limits = AnswerLimits(askers_max=64, window=64, entries_max=1024)
    answers = Answers(limits)
    for asker in hogs(answers, 20, limits.window, stranger=True):
        answers.session_ended(asker)
    answers.look(1.0 + MARGIN_S, 1)
    one = answers.session_began(peer_number(99), bytes(8), 1, 0.0, stranger=True)
    assert one is not None
    verdicts = [answers.ask(one, number, bytes(32), 1.0, 20.0)[0] for number in range(64)]
    assert verdicts == [Verdict.RUN] * 64


def test_nobody_is_forgotten_for_a_peer_that_has_used_up_its_own_share() -> None:
    limits = AnswerLimits(askers_max=64, window=10, entries_max=100)
    answers = Answers(limits)
    for asker in hogs(answers, 3, 10, stranger=False):
        answers.session_ended(asker)
    answers.look(1.0 + MARGIN_S, 1)
    for incarnation in range(4):
        one = answers.session_began(peer_number(99), bytes([incarnation]) * 8, 1, 0.0)
        assert one is not None
        verdicts = [answers.ask(one, number, bytes(32), 1.0, 20.0)[0] for number in range(10)]
    assert verdicts[-1] is Verdict.BUSY
    assert (len(answers), answers.early_floor) == (7, 0)


class CountsLooks(Answers):
    looks = 0

    def make_room(self, sequence: int) -> int:
        self.looks += 1
        return super().make_room(sequence)


@pytest.mark.reaches_in
def test_a_crowd_that_finds_no_room_does_not_have_all_looked_through_each_time() -> None:
    answers = CountsLooks(AnswerLimits(askers_max=64, window=200, entries_max=12))
    for asker in hogs(answers, 3, 12, stranger=False):
        for number in range(12, 100):
            assert answers.ask(asker, number, bytes(32), 1.0, 0.5)[0] is Verdict.BUSY
    assert answers.looks == 1
    answers.ask(asker, 100, bytes(32), 1.0, 1.0)
    assert answers.looks == 2


@pytest.mark.reaches_in
def test_a_crowd_that_finds_no_place_does_not_have_all_looked_through_each_time() -> None:
    answers = CountsLooks(AnswerLimits(askers_max=64))
    for number in range(64):
        assert answers.session_began(peer_number(number), bytes(8), 1, 0.0) is not None
    for number in range(100, 200):
        assert answers.session_began(peer_number(number), bytes(8), 1, 5.5) is None
    assert answers.looks == 1
    answers.session_began(peer_number(100), bytes(8), 1, 6.5)
    assert answers.looks == 2


def test_a_stranger_who_is_known_now_leaves_one_place_to_others_however_often_he_comes() -> None:
    limits = AnswerLimits(askers_max=64)
    answers = Answers(limits)
    for number in (*range(limits.strangers_max), *range(limits.strangers_max)):
        assert answers.session_began(peer_number(number), bytes(8), 1, 0.0, stranger=True)
    assert answers.session_began(peer_number(100), bytes(8), 1, 0.0, stranger=True) is None
    for _ in range(3):
        assert answers.session_began(peer_number(0), bytes(8), 1, 0.0) is not None
    # Who was known once keeps the place of one who is.
    assert answers.session_began(peer_number(0), bytes(8), 1, 0.0, stranger=True) is not None
    assert answers.session_began(peer_number(100), bytes(8), 1, 5.0, stranger=True) is not None
    assert answers.session_began(peer_number(101), bytes(8), 1, 10.0, stranger=True) is None


def test_exceptions_that_free_more_than_they_take_need_no_room() -> None:
    limits = AnswerLimits(askers_max=64, window=64, entries_max=1024)
    answers = Answers(limits)
    first = hogs(answers, 20, limits.window, stranger=True)[0]
    assert len(first.answers) == 64
    answers.settle_except(first, 64, frozenset(range(30)))
    assert (first.upto, len(first.answers), len(first.exceptions)) == (64, 30, 30)
    # But they are entries like others, of which there are few.
    answers.settle_except(first, 200, frozenset(range(64, 72)))
    assert (first.upto, len(first.exceptions)) == (200, 8)
    answers.settle_except(first, 300, frozenset(range(200, 240)))
    assert (first.upto, len(first.exceptions)) == (200, 8)


def test_for_the_exceptions_of_who_is_known_there_is_room_beside_a_crowd_of_strangers() -> None:
    limits = AnswerLimits(askers_max=64, window=64, entries_max=1024)
    answers = Answers(limits)
    hogs(answers, limits.strangers_max, limits.window, stranger=True)
    known = answers.session_began(peer_number(99), bytes(8), 1, 0.0)
    assert known is not None
    answers.settle_except(known, 100, frozenset((1, 2, 3)))
    assert (known.upto, len(known.exceptions)) == (100, 3)


def test_exceptions_for_which_there_is_no_room_are_not_taken_note_of() -> None:
    responder = Responder()
    exceptions = frozenset(range(LIMITS.entries_max + 1))
    responder.answers.settle_except(responder.asker, 100, exceptions)
    assert (responder.asker.upto, responder.answers.entries) == (0, 0)
    responder.answers.settle_except(responder.asker, 100, frozenset({1, 2, 3}))
    assert (responder.asker.upto, responder.answers.entries) == (100, 3)
    responder.answers.settle(responder.asker, 100)
    assert responder.answers.entries == 0

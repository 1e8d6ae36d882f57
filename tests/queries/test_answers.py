"""What is remembered of single queries, and what their copies are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import Verdict
from egtp.queries.asker import Answer, AnswerState
from egtp.queries.outgoing import Outgoing
from tests.queries.responder import LIMITS, Responder

U64 = st.integers(0, 2**64 - 1)
NUMBERS = st.one_of(st.integers(0, 20), U64, st.sampled_from([2**64 - 1, 2**63, 4096]))


def test_a_query_runs_once_and_its_copies_are_told_what_became_of_it() -> None:
    responder = Responder()
    verdict, answer = responder.arrived(0)
    assert verdict is Verdict.RUN
    assert answer is not None
    assert responder.arrived(0) == (Verdict.WORKING, answer)
    reply = Outgoing(b"reply", 0.0)
    responder.answers.answered(responder.asker, answer, reply)
    assert responder.arrived(0) == (Verdict.AGAIN, answer)
    assert answer.reply is reply
    responder.answers.settle(responder.asker, 1)
    assert responder.arrived(0) == (Verdict.SETTLED, None)
    assert responder.answers.bytes == responder.answers.entries == 0
    assert answer.reply is None, "whoever keeps the query keeps no reply"


def test_what_was_cancelled_has_run() -> None:
    responder = Responder()
    _, answer = responder.arrived(0)
    assert answer is not None
    responder.answers.ended(answer)
    assert responder.arrived(0) == (Verdict.GONE, answer)


def test_what_is_idempotent_is_forgotten_when_it_has_its_answer_and_not_before() -> None:
    responder = Responder()
    _, answer = responder.arrived(0)
    assert answer is not None
    assert responder.ask(0) is Verdict.WORKING
    responder.answers.forget(responder.asker, answer)
    assert responder.answers.entries == 0
    assert responder.ask(0) is Verdict.RUN
    # The end of the first is told once more: it is not that of the second.
    responder.answers.forget(responder.asker, answer)
    assert responder.ask(0) is Verdict.WORKING


def test_of_two_queries_of_one_number_only_the_first_is_one() -> None:
    responder = Responder()
    responder.answer(0)
    forged = responder.answers.ask(responder.asker, 0, b"another", 10.0, 0.0)
    assert forged == (Verdict.SETTLED, None)
    assert responder.ask(0) is Verdict.AGAIN


def test_a_handler_that_ends_after_its_number_was_settled_leaves_nothing() -> None:
    responder = Responder()
    _, answer = responder.arrived(0)
    assert answer is not None
    responder.answers.settle(responder.asker, 1)
    responder.answers.answered(responder.asker, answer, Outgoing(b"reply", 0.0))
    assert responder.answers.bytes == responder.answers.entries == 0
    assert answer.reply is None


def test_numbers_far_ahead_are_refused_for_good_and_later_ones_run_once_there_is_room() -> None:
    responder = Responder()
    assert responder.ask(LIMITS.window - 1) is Verdict.RUN
    assert responder.ask(LIMITS.window) is Verdict.BUSY
    responder.answers.settle(responder.asker, 2)
    assert responder.ask(LIMITS.window) is Verdict.BUSY
    assert responder.ask(LIMITS.window - 1) is Verdict.WORKING
    assert responder.ask(LIMITS.window + 1) is Verdict.RUN
    responder.answers.settle_except(responder.asker, 10, frozenset((LIMITS.window + 1,)))
    assert responder.ask(10 + LIMITS.window - 1) is Verdict.RUN
    assert responder.ask(10 + LIMITS.window) is Verdict.BUSY


def test_exceptions_are_open_and_everything_else_below_is_settled() -> None:
    responder = Responder()
    for number in range(5):
        responder.answer(number)
    responder.answers.settle_except(responder.asker, 5, frozenset((1, 3)))
    assert sorted(responder.asker.answers) == [1, 3]
    assert [responder.ask(n) for n in range(4)] == [Verdict.SETTLED, Verdict.AGAIN] * 2
    # Packets overtake each other: what was said before says nothing new.
    responder.answers.settle_except(responder.asker, 4, frozenset((0, 1, 2, 3)))
    assert responder.ask(0) is Verdict.SETTLED
    assert responder.ask(4) is Verdict.SETTLED
    responder.answers.settle(responder.asker, 3)
    assert responder.ask(1) is Verdict.SETTLED
    assert responder.ask(3) is Verdict.AGAIN


def test_an_exception_that_has_not_come_yet_runs_when_it_comes() -> None:
    responder = Responder()
    responder.answers.settle_except(responder.asker, 5, frozenset((1, 3)))
    responder.answers.settle(responder.asker, 2)
    assert responder.ask(3) is Verdict.RUN
    assert responder.ask(2) is Verdict.SETTLED


def test_what_was_settled_once_stays_so_whatever_is_said_later() -> None:
    """Only somebody who lies says otherwise; but nothing runs twice for him either."""
    responder = Responder()
    responder.answer(0)
    responder.answers.settle_except(responder.asker, 1, frozenset())
    responder.answers.settle_except(responder.asker, 9, frozenset((0, 4)))
    assert responder.ask(0) is Verdict.SETTLED
    assert responder.ask(4) is Verdict.RUN


class Walked(dict[int, Answer]):
    """Counts how often all of it is looked at."""

    walks = 0

    def __iter__(self) -> Iterator[int]:
        self.walks += 1
        return super().__iter__()


def test_a_mark_that_rises_by_one_costs_nothing_for_all_that_is_remembered_above_it() -> None:
    responder = Responder(AnswerLimits())
    for number in range(2000, 4000):
        responder.ask(number)
    answers, asker = responder.answers, responder.asker
    asker.answers = walked = Walked(asker.answers)
    for upto in range(1, 2010):
        answers.settle_except(asker, upto, frozenset((upto - 1,)))
    assert walked.walks == 0
    assert min(walked) == 2008, "the last exception"
    answers.settle_except(asker, 2**63, frozenset({3999}))
    assert walked.walks == 2, "whatever the jump, no more than what is there"
    assert (list(walked), answers.entries) == ([3999], 2)


@pytest.mark.parametrize("exceptions", [0, 500])
def test_a_mark_far_below_all_that_is_remembered_costs_nothing_for_it(exceptions: int) -> None:
    """Each packet names a mark, and a packet can say nothing else: five thousand of them, which are
    read at once, looked at four thousand queries each, and held up the node for 0.3 s."""
    responder, upto = Responder(AnswerLimits()), 10_000_000
    answers, asker = responder.answers, responder.asker
    answers.settle_except(asker, upto, frozenset(range(upto - exceptions, upto)))
    for number in range(upto - exceptions, upto + 4000):
        assert responder.ask(number) is Verdict.RUN
    asker.answers = walked = Walked(asker.answers)
    for settled in range(5000, upto, 5000):
        answers.settle(asker, settled)
    for settled in range(upto - exceptions, upto + 10):
        answers.settle(asker, settled)
    assert walked.walks == 0
    assert (min(walked), answers.entries) == (upto + 9, 3991)


@given(
    st.lists(st.integers(0, 30), max_size=12, unique=True),
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 40), st.frozensets(st.integers(0, 40))),
        max_size=8,
    ),
)
def test_however_it_is_looked_for_all_that_is_finished_goes_and_nothing_else(
    asked: list[int], marks: list[tuple[bool, int, frozenset[int]]]
) -> None:
    responder = Responder(AnswerLimits())
    answers, asker = responder.answers, responder.asker
    for number in asked:
        responder.ask(number)
    for alone, mark, exceptions in marks:
        if alone:
            answers.settle(asker, mark)
        else:
            answers.settle_except(asker, mark, exceptions)
        assert list(asker.answers) == [n for n in asked if not asker.is_settled(n)]
        assert answers.entries == len(asker.answers) + len(asker.exceptions)


@given(st.lists(st.tuples(st.sampled_from("aserf"), NUMBERS, NUMBERS), max_size=40))
def test_no_number_whatever_makes_it_hold_more_than_it_may(
    steps: list[tuple[str, int, int]],
) -> None:
    """From somebody who says anything. Jumps of the marks cost no more than what is remembered."""
    responder = Responder()
    answers, asker = responder.answers, responder.asker
    ran: set[int] = set()
    for what, one, other in steps:
        if what == "a":
            verdict, _ = responder.arrived(one)
            assert verdict is not Verdict.RUN or one not in ran
            ran |= {one} if verdict is Verdict.RUN else set()
        elif what == "s":
            answers.settle(asker, one)
        elif what == "e":
            answers.settle_except(asker, one, frozenset((other, one, one - 1)))
        elif asker.answers:
            answer = list(asker.answers.values())[one % len(asker.answers)]
            if what == "r" and answer.state is AnswerState.RUNNING:
                answers.answered(asker, answer, Outgoing(bytes(other % 90), 0.0))
            elif what == "f":
                answers.ended(answer)
        assert len(asker.answers) <= LIMITS.window + 3
        assert answers.entries == len(asker.answers) + len(asker.exceptions) <= LIMITS.entries_max
        assert answers.bytes == asker.bytes <= LIMITS.asker_bytes_max

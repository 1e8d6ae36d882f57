"""At most once: whatever copies of a query come, in whatever order, however late, it runs once.

The model is a plain set of everything that ever ran, and a heap of every copy that was ever sealed,
from which anything may be delivered at any time: Mallory has them all. What she cannot do is what
the session keys keep her from: a copy that was sealed in a session opens while that session lives,
and an early one is looked at only if it names a sequence that is not below the floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from egtp.errors import InvalidConfig
from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import MARGIN_S, NEVER, Answers, Verdict
from egtp.queries.asker import Answer, AnswerState, Asker
from egtp.queries.outgoing import Outgoing
from egtp.values.identity import NodeId

PEERS = [NodeId(bytes(19) + bytes((number,))) for number in range(4)]
LIMITS = AnswerLimits(askers_max=3, window=6, entries_max=12, lifetime_s_max=100, bytes_max=1600)
STRANGERS = PEERS[2:]
WHO = st.sampled_from([0, 0, 0, 1, 2, 3])
"""One of them much more often than the others, so that much happens to it."""
U64 = st.integers(0, 2**64 - 1)
NUMBERS = st.one_of(st.integers(0, 20), U64, st.sampled_from([2**64 - 1, 2**63, 4096]))


@dataclass(eq=False)
class Session:
    """What an honest asker seals in it opens as long as it lives at the other end."""

    asker: Asking
    memory: Asker | None
    """None if there was no room for the asker."""
    began_s: float


@dataclass(eq=False)
class Query:
    number: int
    reference: bytes
    born_s: float
    lifetime_s: float
    finished: bool = False


@dataclass(eq=False)
class Copy:
    """A sealed query, beside what the packet says of the numbers that are settled."""

    query: Query
    asker: Asking
    age_s: float
    settled: int
    settled_except: tuple[int, frozenset[int]] | None
    session: Session | None
    """None for early data."""
    sequence: int
    """Of the record that early data names."""


@dataclass(eq=False)
class Asking:
    """An honest asker, in one incarnation."""

    peer_id: NodeId
    incarnation: bytes
    queries: list[Query] = field(default_factory=list)
    sequence: int = 1
    """Of the newest record of the other side that it knows."""

    @property
    def is_stranger(self) -> bool:
        return self.peer_id in STRANGERS

    @property
    def open(self) -> list[Query]:
        return [query for query in self.queries if not query.finished]

    @property
    def settled(self) -> int:
        return min((query.number for query in self.open), default=len(self.queries))

    def settled_except(self, exceptions_max: int = 3) -> tuple[int, frozenset[int]]:
        numbers = sorted(query.number for query in self.open)
        more = len(numbers) > exceptions_max
        upto = numbers[exceptions_max] if more else len(self.queries)
        return upto, frozenset(number for number in numbers if number < upto)


class AtMostOnceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.answers = Answers(LIMITS)
        self.askers = [Asking(peer_id, b"incarnat") for peer_id in PEERS]
        self.sessions: list[Session] = []
        self.copies: list[Copy] = []
        self.running: list[tuple[Asker, Answer | None]] = []
        """Handlers: of queries, and of sends, of which nothing is remembered."""
        self.ran: set[tuple[NodeId, bytes, int]] = set()
        self.may_run_again: set[tuple[NodeId, bytes, int]] = set()
        self.refused: set[tuple[NodeId, bytes, int]] = set()
        self.now_s = 0.0
        self.sequence = 1

    # The askers

    @rule(
        asker=WHO,
        early=st.booleans(),
        told=st.booleans(),
        lifetime_s=st.sampled_from([0.0, 5.0, 30.0, 100.0, 10_000.0]),
        comes=st.booleans(),
    )
    def an_asker_asks(
        self, asker: int, lifetime_s: float, *, early: bool, told: bool, comes: bool
    ) -> None:
        one = self.askers[asker]
        number = len(one.queries)
        reference = b"%d/%d " % (asker, number)
        one.queries.append(Query(number, reference, self.now_s, lifetime_s))
        self._seal(one, one.queries[-1], early=early, told=told)
        if comes and self.copies:
            self._deliver(self.copies[-1], 1.0, lives=not early)

    @precondition(lambda self: any(asker.open for asker in self.askers))
    @rule(data=st.data(), early=st.booleans(), comes=st.booleans())
    def it_is_given_again(self, data: st.DataObject, *, early: bool, comes: bool) -> None:
        """In its newest session, or with a dial."""
        asker = data.draw(st.sampled_from([asker for asker in self.askers if asker.open]))
        self._seal(asker, data.draw(st.sampled_from(asker.open)), early=early, told=True)
        if comes and self.copies:
            self._deliver(self.copies[-1], 1.0, lives=not early)

    def _seal(self, asker: Asking, query: Query, *, early: bool, told: bool) -> None:
        age_s = self.now_s - query.born_s
        if age_s > query.lifetime_s:
            return
        session = None
        if not early:
            session = next((one for one in self.sessions[::-1] if one.asker is asker), None)
            session = session or self._begin(asker)
        exceptions = asker.settled_except() if told and not early else None
        self.copies.append(
            Copy(query, asker, age_s, asker.settled, exceptions, session, asker.sequence)
        )

    @precondition(lambda self: any(asker.open for asker in self.askers))
    @rule(data=st.data())
    def it_finishes_a_query(self, data: st.DataObject) -> None:
        """It has its reply, or it has given up: nothing of it is sealed any more."""
        asker = data.draw(st.sampled_from([asker for asker in self.askers if asker.open]))
        data.draw(st.sampled_from(asker.open)).finished = True

    @rule(asker=WHO)
    def it_learns_the_newest_record(self, asker: int) -> None:
        self.askers[asker].sequence = self.sequence

    # Sessions

    @rule(asker=WHO)
    def a_session_begins(self, asker: int) -> None:
        self._begin(self.askers[asker])

    def _begin(self, asker: Asking) -> Session:
        memory = self.answers.session_began(
            asker.peer_id,
            asker.incarnation,
            self.sequence,
            self.now_s,
            stranger=asker.is_stranger,
        )
        session = Session(asker, memory, self.now_s)
        self.sessions.append(session)
        return session

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def a_session_ends(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        self.sessions.remove(session)
        if session.memory is not None:
            self.answers.session_ended(session.memory)

    # Mallory

    @precondition(lambda self: self.copies)
    @rule(data=st.data(), seen=st.floats(0, 1), lives=st.booleans())
    def she_delivers_any_copy(self, data: st.DataObject, seen: float, *, lives: bool) -> None:
        """Part of how long it was under way is seen, never more; of early data nothing is."""
        self._deliver(data.draw(st.sampled_from(self.copies)), seen, lives=lives)

    def _deliver(self, copy: Copy, seen: float, *, lives: bool) -> None:
        if copy.session is None:
            asker = copy.asker
            if copy.sequence < max(1, self.answers.early_floor):
                return
            if not self.answers.has_room_for(
                asker.peer_id, asker.incarnation, stranger=asker.is_stranger
            ):
                return
            session, age_s = self._begin(asker), copy.age_s
        else:
            session = copy.session
            if session not in self.sessions or session.memory is None:
                return
            under_way_s = self.now_s - copy.query.born_s - copy.age_s
            age_s = copy.age_s + seen * under_way_s
        memory = session.memory
        assert memory is not None
        if copy.settled:
            self.answers.settle(memory, copy.settled)
        if copy.settled_except is not None:
            self.answers.settle_except(memory, *copy.settled_except)
        born_s = -inf
        if copy.session is not None:
            # What is known of a packet, or of one that came in parts.
            born_s = copy.query.born_s if seen < 0.7 else session.began_s - age_s
        self._take(copy, memory, age_s, born_s)
        if copy.session is None and not lives:
            self.sessions.remove(session)
            self.answers.session_ended(memory)

    def _take(self, copy: Copy, memory: Asker, age_s: float, born_s: float) -> None:
        left_s = copy.query.lifetime_s - age_s
        if left_s < 0 or age_s > LIMITS.lifetime_s_max:
            return
        query, known = copy.query, len(memory.answers)
        asked = memory, query.number, query.reference, left_s, self.now_s
        verdict, answer = self.answers.ask(*asked)
        if verdict is Verdict.DOUBTFUL and self.answers.clears(
            memory, query.number, born_s, self.now_s
        ):
            verdict, answer = self.answers.ask(*asked)
            assert verdict is not Verdict.DOUBTFUL
        assert len(memory.answers) == known + (verdict is Verdict.RUN)
        key = (copy.asker.peer_id, copy.asker.incarnation, query.number)
        match verdict:
            case Verdict.RUN:
                assert key not in self.ran or key in self.may_run_again, "twice"
                assert key not in self.refused, "its asker was told that it has not run"
                note(f"runs: {key}")
                self.ran.add(key)
                assert answer is not None
                memory.running += 1
                self.running.append((memory, answer))
            case Verdict.WORKING:
                assert (memory, answer) in self.running
            case Verdict.AGAIN:
                assert answer is not None
                assert answer.reply is not None
                assert bytes(answer.reply.message).startswith(query.reference)
            case Verdict.GONE:
                assert key in self.ran
            case Verdict.SETTLED:
                # Nothing that its asker still waits for is taken for finished.
                assert query.finished
                assert memory.is_settled(query.number)
            case Verdict.BUSY:
                assert key not in self.ran or key in self.may_run_again
                note(f"refused: {key}")
                self.refused.add(key)
            case Verdict.DOUBTFUL:
                # By whatever rule: a session that begins may take the place of somebody.
                assert self.answers._forgot_s > -inf, "nobody was forgotten by force"

    @precondition(lambda self: any(session.memory for session in self.sessions))
    @rule(data=st.data())
    def a_send_comes(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from([one for one in self.sessions if one.memory]))
        assert session.memory is not None
        session.memory.running += 1
        self.running.append((session.memory, None))

    # The one who answers

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        size=st.integers(0, 200),
        how=st.sampled_from(["answered", "cancelled", "idempotent"]),
    )
    def a_handler_ends(self, data: st.DataObject, size: int, how: str) -> None:
        memory, answer = data.draw(st.sampled_from(self.running))
        self.running.remove((memory, answer))
        memory.running -= 1
        if answer is None:
            return
        if how == "cancelled":
            self.answers.ended(answer)
        elif how == "idempotent":
            self.may_run_again.add((memory.peer_id, memory.incarnation, answer.number))
            self.answers.forget(memory, answer)
        else:
            reply = Outgoing(answer.reference + bytes(size), self.now_s)
            self.answers.answered(memory, answer, reply)

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 40.0, 120.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def it_looks(self) -> None:
        self.answers.look(self.now_s, self.sequence)

    @rule(times=st.sampled_from([1, 1, 2, 3]))
    def it_signs_its_record_anew(self, times: int) -> None:
        for _ in range(times):
            before, self.sequence = self.sequence, self.sequence + 1
            self.answers.signed_anew(before)

    @rule()
    def it_makes_room(self) -> None:
        before = len(self.answers)
        assert self.answers.make_room(self.sequence) == before - len(self.answers)

    @rule()
    def it_forgets_strangers(self) -> None:
        self.answers.forget_strangers(self.now_s)

    @rule(
        seconds=st.sampled_from([0.0, 4.0, 20.0, 120.0]),
        ends=st.booleans(),
        signs=st.booleans(),
        force=st.booleans(),
    )
    def it_is_quiet_for_a_while(
        self, seconds: float, *, ends: bool, signs: bool, force: bool
    ) -> None:
        """What makes it forget somebody, which by chance rarely comes together."""
        for session in self.sessions:
            if session.memory is not None:
                self.answers.session_ended(session.memory)
        self.sessions.clear()
        while self.running and ends:
            memory, answer = self.running.pop()
            memory.running -= 1
            if answer is not None:
                self.answers.ended(answer)
        self.now_s += seconds
        if force:
            self.answers.forget_strangers(self.now_s)
        self.answers.look(self.now_s, self.sequence)
        if signs:
            self.it_signs_its_record_anew(2)
        else:
            self.answers.make_room(self.sequence)

    @rule(
        asker=st.sampled_from([2, 3]),
        seconds=st.sampled_from([0.0, 4.0, 20.0]),
        early=st.booleans(),
        seen=st.floats(0, 1),
    )
    def a_stranger_is_forgotten_and_asks_again(
        self, asker: int, seconds: float, seen: float, *, early: bool
    ) -> None:
        """The same query, and another one."""
        one = self.askers[asker]
        self.an_asker_asks(asker, 100.0, early=early, told=False, comes=True)
        query = one.queries[-1]
        self.it_is_quiet_for_a_while(seconds, ends=True, signs=False, force=True)
        self._seal(one, query, early=early, told=False)
        self._deliver(self.copies[-1], seen, lives=True)
        self.an_asker_asks(asker, 100.0, early=False, told=False, comes=True)

    # What is true at any moment

    @invariant()
    def the_sums_are_right_and_the_limits_hold(self) -> None:
        askers = self.answers._askers.values()
        assert self.answers.entries == sum(
            len(asker.answers) + len(asker.exceptions) for asker in askers
        )
        assert self.answers.bytes == sum(asker.bytes for asker in askers)
        for asker in askers:
            kept = [one.reply.message for one in asker.answers.values() if one.reply is not None]
            assert asker.bytes == sum(map(len, kept)) <= LIMITS.asker_bytes_max
            assert asker.sessions == sum(session.memory is asker for session in self.sessions)
            assert not any(asker.is_settled(number) for number in asker.answers)
        assert len(self.answers) <= LIMITS.askers_max
        assert self.answers.entries <= LIMITS.entries_max
        assert self.answers.bytes <= LIMITS.bytes_max

    @invariant()
    def whoever_time_alone_may_change_is_looked_at(self) -> None:
        for asker in self.answers._askers.values():
            gone = not asker.sessions and asker.idle_since is None
            assert asker in self.answers._restless or not (asker.bytes or gone)
        assert set(self.answers._restless) <= set(self.answers._askers.values())

    @invariant()
    def who_has_a_session_or_a_handler_is_remembered(self) -> None:
        known = list(map(id, self.answers._askers.values()))
        for session in self.sessions:
            assert session.memory is None or id(session.memory) in known
        for memory, _ in self.running:
            assert id(memory) in known


def test_whatever_copies_come_in_whatever_order_nothing_runs_twice() -> None:
    profile = settings()
    run_state_machine_as_test(
        AtMostOnceMachine,
        settings=settings(
            max_examples=4 * profile.max_examples,
            stateful_step_count=2 * profile.stateful_step_count,
        ),
    )


# One by one


class Responder:
    """Answers, and one asker of it with a session."""

    def __init__(self, limits: AnswerLimits = LIMITS) -> None:
        self.answers = Answers(limits)
        self.comes_back()

    def comes_back(self) -> None:
        memory = self.answers.session_began(PEERS[0], b"incarnat", 1, 0.0)
        assert memory is not None
        self.asker = memory

    def leaves(self) -> None:
        self.answers.session_ended(self.asker)

    def ask(self, number: int, left_s: float = 10.0, now_s: float = 0.0) -> Verdict:
        return self.arrived(number, left_s, now_s)[0]

    def arrived(
        self, number: int, left_s: float = 10.0, now_s: float = 0.0
    ) -> tuple[Verdict, Answer | None]:
        return self.answers.ask(self.asker, number, b"%d" % number, left_s, now_s)

    def answer(self, number: int, size: int = 1) -> Answer:
        verdict, answer = self.arrived(number)
        assert verdict is Verdict.RUN
        assert answer is not None
        self.answers.answered(self.asker, answer, Outgoing(bytes(size), 0.0))
        return answer


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


# Limits


def peer_number(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


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


def test_exceptions_for_which_there_is_no_room_are_not_taken_note_of() -> None:
    responder = Responder()
    exceptions = frozenset(range(LIMITS.entries_max + 1))
    responder.answers.settle_except(responder.asker, 100, exceptions)
    assert (responder.asker.upto, responder.answers.entries) == (0, 0)
    responder.answers.settle_except(responder.asker, 100, frozenset({1, 2, 3}))
    assert (responder.asker.upto, responder.answers.entries) == (100, 3)
    responder.answers.settle(responder.asker, 100)
    assert responder.answers.entries == 0


# Forgetting


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
    for now_s, sequence in ((11.0, 1), (100.0, 2), (119.0, 3)):
        answers.signed_anew(sequence)
        answers.look(now_s, sequence + 1)
        assert answers.early_floor == NEVER
    asker = comes(answers, 1, 119.0)
    assert answers.ask(asker, 0, bytes(32), 100.0, 119.0)[0] is Verdict.DOUBTFUL
    answers.look(121.0, 5)
    assert answers.early_floor == 6, "above all that could be known when it was not accepted"
    asker = comes(answers, 2, 121.0)
    assert answers.ask(asker, 0, bytes(32), 100.0, 121.0)[0] is Verdict.RUN


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

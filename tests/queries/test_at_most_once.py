"""At most once: whatever copies of a query come, in whatever order, however late, it runs once.

The model is a plain set of everything that ever ran, and a heap of every copy that was ever sealed,
from which anything may be delivered at any time: Mallory has them all. What she cannot do is what
the session keys keep her from: a copy that was sealed in a session opens while that session lives,
and an early one is looked at only if it names a sequence that is not below the floor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from egtp.queries.answers import Answers, Verdict
from egtp.queries.asker import Answer, Asker
from egtp.queries.outgoing import Outgoing
from egtp.values.identity import NodeId
from tests.queries.responder import LIMITS, PEERS

STRANGERS = PEERS[2:]
WHO = st.sampled_from([0, 0, 0, 1, 2, 3])
"""One of them much more often than the others, so that much happens to it."""


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
            if copy.sequence < max(1, self.answers.early_floor_of(asker.peer_id)):
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

    @rule(asker=WHO)
    def it_makes_room_for_another_life_of_a_peer(self, asker: int) -> None:
        before = len(self.answers)
        peer_id = self.askers[asker].peer_id
        assert self.answers.make_room_of(peer_id) == before - len(self.answers)

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

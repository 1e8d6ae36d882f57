"""What others asked this node and what it answered: why no handler runs twice for one query.

Pure. A query carries a number, one higher for each query from its asker to this node. Every packet
of the asker names a mark below which all numbers are *settled*: finished, and never sent again. So
all there is to remember of an asker is the mark and, for each query above it, that its handler is
running or what the answer was. Nothing here trusts anybody else's clock.

An asker is a peer in one of its incarnations. **Invariant** (at most once): for each query of an
asker, :meth:`Answers.ask` returns ``RUN`` at most once, whatever copies of it arrive, in whatever
order, however late. It holds because

* an entry stays until its number is settled; from then on, any copy is below the mark, and dropped;
* an asker is forgotten only when none of its sessions is alive, all its queries are past their
  lifetimes, *and* early data, which is sealed without a session, is refused from then on if it is
  from before: it names the sequence of this node's record that its sender knew, and is accepted
  only if that is at least :meth:`Answers.early_floor_of` the peer, which rises when an asker is
  forgotten: for everybody, or for its peer alone;
* for want of room, a stranger without a session or a running handler may be forgotten earlier. From
  then on, a query of an asker that was not remembered runs only if it was certainly born later, and
  no early data is accepted until everything born before is past the largest lifetime.

Packets of a session that is over open nowhere, and an asker never seals a query again after its
lifetime. So nothing that arrives after an asker was forgotten is a copy of what it asked before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.asker import (
    ANSWER_LIFE,
    FORGOTTEN,
    Answer,
    AnswerEvent,
    AnswerState,
    Asker,
)
from egtp.queries.outgoing import Outgoing
from egtp.values.identity import NodeId

__all__ = ["Answers", "Verdict"]

MARGIN_S: Final = 10.0
"""How much younger than it is a query may seem: by its wait until the session was confirmed (5 s at
most), and by the difference in speed between the two clocks."""

ROOM_KEPT: Final = 7 / 8
"""The share of the bodies that stays when there are too many."""

LOOK_AGAIN_S: Final = 1.0
"""How often to search all askers for room. They become idle no more often than this, so searching
thousands for each query that finds no room would be in vain."""

SPEEDS_APART: Final = 0.002
"""The fraction by which two elapsed clocks may differ in speed: twice what is assumed."""

FLOORS_MAX: Final = 1024
"""Peers with a floor of their own."""

APART_S: Final = 0.1
"""Many times what is lost by writing ages in milliseconds."""

NEVER: Final = 2**64
"""Higher than any sequence and any query number."""


class Verdict(enum.Enum):
    """What to do with a query that has arrived."""

    RUN = "run"
    """It is new: run its handler, once."""
    WORKING = "working"
    """Its handler is running: say so."""
    AGAIN = "again"
    """It was answered: give the same answer again."""
    GONE = "gone"
    """It ran, but its answer is no longer kept: say so."""
    SETTLED = "settled"
    """Its asker has said that it is finished: do nothing."""
    BUSY = "busy"
    """There is no room to remember it: refuse it. It will not run later either."""
    DOUBTFUL = "doubtful"
    """It may be among those forgotten for want of room: say that it may have run, unless
    :meth:`Answers.clears` it."""


RUN, BUSY, DOUBTFUL = Verdict.RUN, Verdict.BUSY, Verdict.DOUBTFUL
"""For hot code: looking them up in the enumeration takes longer."""


_REPLIED: Final = ANSWER_LIFE.on(AnswerEvent.REPLY)
_FINISHED: Final = ANSWER_LIFE.on(AnswerEvent.FINISHED)
_OF_A_COPY: Final = {
    AnswerState.RUNNING: Verdict.WORKING,
    AnswerState.KEPT: Verdict.AGAIN,
    AnswerState.RAN: Verdict.GONE,
}
"""The verdict on a further copy of a query, by the state of its entry."""


class Answers:
    """All askers. Invariants, in addition to the one above: :attr:`entries` counts the queries and
    exceptions remembered, and :attr:`bytes` the bytes of the answers kept, of all askers together
    and within their limits; what was refused for want of room never runs."""

    def __init__(self, limits: AnswerLimits | None = None) -> None:
        self._limits = limits = limits or AnswerLimits()
        self._window = limits.window
        self._crowded = min(limits.peer_entries_max, limits.strangers_crowded)
        """With fewer entries than this, anybody may add one."""
        self._lifetime_s_max = limits.lifetime_s_max
        self._bytes_max, self._asker_bytes_max = limits.bytes_max, limits.asker_bytes_max
        self._askers: dict[tuple[NodeId, bytes], Asker] = {}
        self._of_peer: dict[NodeId, list[Asker]] = {}
        self._restless: dict[Asker, None] = {}
        """Askers that have answers kept, or no session left and have not been found idle yet. For
        the others, and there may be thousands, nothing becomes due by time alone."""
        self._strangers = 0
        self._idle_sequence = 0
        """All idle askers were found idle while this node's record had this sequence or a lower
        one."""
        self._full_until_s = self._taken_until_s = float("-inf")
        """Until the first there is no room for entries, and until the second none for askers, nor
        any to be made."""
        self._forgot_s = float("-inf")
        """When strangers were last forgotten by force."""
        self._early_again_s = float("inf")
        """When everything born before that is past the largest lifetime."""
        self.entries = 0
        self.bytes = 0
        self.early_floor = 0
        """Early data is accepted if its sender knew a record of at least this sequence."""
        self._floors: dict[NodeId, int] = {}
        """The floors of peers with more askers than one may have, above :attr:`early_floor`."""

    def __len__(self) -> int:
        return len(self._askers)

    def early_floor_of(self, peer_id: NodeId) -> int:
        """The same for early data of this peer."""
        return max(self.early_floor, self._floors.get(peer_id, 0))

    # Sessions

    def has_room_for(self, peer_id: NodeId, incarnation: bytes, *, stranger: bool = False) -> bool:
        """Whether an asker is remembered, or could be."""
        return (peer_id, incarnation) in self._askers or not (
            self._is_full(stranger) or self._has_many_askers(peer_id)
        )

    def _has_many_askers(self, peer_id: NodeId) -> bool:
        return len(self._of_peer.get(peer_id, ())) >= self._limits.peer_askers_max

    def _is_full(self, stranger: bool) -> bool:
        limits = self._limits
        return len(self._askers) >= limits.askers_max or (
            stranger and self._strangers >= limits.strangers_max
        )

    def session_began(
        self,
        peer_id: NodeId,
        incarnation: bytes,
        sequence: int,
        now_s: float,
        *,
        stranger: bool = False,
    ) -> Asker | None:
        """A session with an asker was made, confirmed or not; ``sequence`` is that of this node's
        record. None if there is no room for another asker: its queries are then refused."""
        asker = self._askers.get((peer_id, incarnation))
        if asker is None:
            if self._has_many_askers(peer_id) and not self.make_room_of(peer_id):
                return None
            if self._is_full(stranger):
                self._free_places(sequence, now_s, self._limits.strangers_max)
                if self._is_full(stranger):
                    return None
            asker = self._askers[peer_id, incarnation] = Asker(peer_id, incarnation)
            if self.early_floor == NEVER:
                # It may be among the forgotten: even that is not remembered.
                asker.doubtful_below = NEVER
            self._of_peer.setdefault(peer_id, []).append(asker)
            asker.stranger = stranger
            self._strangers += stranger
        elif asker.stranger and not stranger:
            asker.stranger = False
            self._strangers -= 1
        asker.sessions += 1
        asker.idle_since = None
        return asker

    def session_ended(self, asker: Asker) -> None:
        asker.sessions -= 1
        marks = asker.floor or asker.upto or asker.refused_below
        remembered = asker.answers or asker.running or marks
        if not (asker.sessions or remembered):
            # It never asked anything, and nothing runs for it.
            self._remove(asker)
        elif not asker.sessions:
            self._restless[asker] = None

    # Queries

    def ask(
        self, asker: Asker, number: int, reference: bytes, left_s: float, now_s: float
    ) -> tuple[Verdict, Answer | None]:
        """The verdict on a copy of a query that arrived, and the entry that this is about;
        ``left_s`` is what is left of the query's lifetime."""
        answer = asker.answers.get(number)
        if answer is not None:
            if answer.reference != reference:
                # Two queries with the same number: no honest asker sends those.
                return Verdict.SETTLED, None
            return _OF_A_COPY[answer.state], answer
        floor = asker.floor
        if number < floor or (number < asker.upto and number not in asker.exceptions):
            return Verdict.SETTLED, None
        if number < asker.doubtful_below:
            return DOUBTFUL, None
        # A copy older than the largest lifetime is refused, whatever its query says.
        if left_s > self._lifetime_s_max:
            left_s = self._lifetime_s_max
        until_s = now_s + left_s + MARGIN_S
        if until_s > asker.until_s:
            asker.until_s = until_s
        above = max(floor, asker.upto)
        if (
            number < asker.refused_below
            or number >= above + self._window
            or (self.entries >= self._crowded and not self._finds_room(asker, now_s))
        ):
            asker.refused_below = max(asker.refused_below, number + 1)
            return BUSY, None
        answer = asker.answers[number] = Answer(number, reference)
        self.entries += 1
        return RUN, answer

    def clears(self, asker: Asker, number: int, born_s: float, now_s: float) -> bool:
        """Whether a doubtful query, born at ``born_s`` or later according to its asker, is younger
        than everything that was forgotten. If so, those with higher numbers are as well."""
        since_s = now_s - self._forgot_s
        if born_s - self._forgot_s <= APART_S + SPEEDS_APART * since_s:
            return False
        asker.doubtful_below = min(asker.doubtful_below, number)
        return True

    def _finds_room(self, asker: Asker, now_s: float) -> bool:
        """Whether an asker may have another entry, after forgetting the idle ones if necessary."""
        if self._has_room(asker, 1):
            return True
        limits = self._limits
        most = limits.strangers_crowded if asker.stranger else limits.entries_max
        if self.entries < most or now_s < self._full_until_s:
            # It has used up its own share, or all askers were searched a moment ago.
            return False
        self._full_until_s = now_s + LOOK_AGAIN_S
        return self.make_room(self._idle_sequence) > 0 and self._has_room(asker, 1)

    def _has_room(self, asker: Asker, more: int) -> bool:
        """Whether an asker may have so many more entries."""
        limits = self._limits
        entries, most = self.entries + more, limits.peer_entries_max
        if asker.stranger and entries > limits.strangers_crowded:
            most = limits.strangers_few
        if entries > (limits.strangers_entries_max if asker.stranger else limits.entries_max):
            return False
        own = sum(len(one.answers) + len(one.exceptions) for one in self._of_peer[asker.peer_id])
        return own + more <= most

    def answered(self, asker: Asker, answer: Answer, reply: Outgoing) -> None:
        """Keep a handler's reply, until its query is settled or past its lifetime, or room runs
        out."""
        if answer.state is FORGOTTEN:
            return
        size = len(reply.message)
        if size > self._asker_bytes_max:
            self.ended(answer)
            return
        answer.state = _REPLIED[answer.state]
        answer.reply = reply
        if not asker.bytes:
            self._restless[asker] = None
        asker.bytes += size
        self.bytes += size
        if asker.bytes > self._asker_bytes_max:
            self._free_oldest(asker)
        if self.bytes > self._bytes_max:
            self._free_those_of_the_largest()

    def ended(self, answer: Answer) -> None:
        """A handler has ended without an answer to keep, cancelled by its asker for example."""
        answer.state = ANSWER_LIFE.after(answer.state, AnswerEvent.NO_REPLY)

    def forget(self, asker: Asker, answer: Answer) -> None:
        """Forget a query that may run again, since its kind is idempotent."""
        if answer.state is not FORGOTTEN:
            self._drop(asker, answer.number, AnswerEvent.HARMLESS)

    def settle(self, asker: Asker, settled: int) -> None:
        """The asker has finished all numbers below ``settled``."""
        floor = asker.floor
        if settled <= floor:
            return
        asker.floor = settled
        answers, upto = asker.answers, asker.upto
        start = max(upto, floor)
        if settled - start <= len(answers):
            numbers: Iterable[int] = range(start, settled)
        else:
            # However far an asker jumps, look only at what is remembered.
            numbers = [number for number in answers if number < settled]
        if floor < upto:
            # Below that, only exceptions are remembered: so however many small steps an asker takes
            # there, none costs a look at all that it has above.
            numbers = (*numbers, *asker.exceptions_passed(settled))
        dropped = freed = 0
        for number in numbers:
            answer = answers.pop(number, None)
            if answer is not None:
                dropped += 1
                answer.state = _FINISHED[answer.state]
                if answer.reply is not None:
                    freed += len(answer.reply.message)
                    answer.reply = None
        if asker.exceptions and settled >= asker.upto:
            dropped += len(asker.exceptions)
            asker.exceptions = frozenset()
        self.entries -= dropped
        asker.bytes -= freed
        self.bytes -= freed

    def settle_except(self, asker: Asker, upto: int, exceptions: frozenset[int]) -> None:
        """The asker has finished all numbers below ``upto`` except for these. What is finished
        stays finished, whatever the asker says later. Without room for the exceptions, nothing
        changes."""
        above = max(asker.upto, asker.floor)
        if upto <= above:
            return
        exceptions = frozenset(n for n in exceptions if n < upto and not asker.is_settled(n))
        answers, ended = asker.answers, asker.exceptions - exceptions
        numbers: Iterable[int] = answers
        if upto - above + len(ended) < len(answers):
            # Nothing is remembered of what was finished before: however small the steps in which an
            # asker proceeds, look only at what is new.
            numbers = [*range(above, upto), *[n for n in ended if n < above]]
        finished = [n for n in numbers if n < upto and n in answers and n not in exceptions]
        told = len(exceptions) - len(asker.exceptions)
        more = told - len(finished)
        if more > 0 and self.entries + more > self._crowded and not self._has_room(asker, more):
            return
        self.entries += told
        asker.upto, asker.exceptions = upto, exceptions
        asker.open_below = sorted(exceptions, reverse=True)
        for number in finished:
            self._drop(asker, number, AnswerEvent.FINISHED)

    def _drop(self, asker: Asker, number: int, event: AnswerEvent) -> None:
        self.entries -= 1
        answer = asker.answers.pop(number)
        self._free(asker, answer)
        answer.state = ANSWER_LIFE.after(answer.state, event)

    def _free(self, asker: Asker, answer: Answer) -> None:
        if answer.reply is not None:
            size = len(answer.reply.message)
            asker.bytes -= size
            self.bytes -= size
            answer.reply = None
            answer.state = ANSWER_LIFE.after(answer.state, AnswerEvent.LET_GO)

    def _free_oldest(self, asker: Asker) -> None:
        """Drop the bodies of the asker's oldest answers, and some more than necessary: so they are
        searched once for many answers, not for each."""
        for answer in asker.answers.values():
            if asker.bytes <= self._asker_bytes_max * ROOM_KEPT:
                return
            self._free(asker, answer)

    def _free_those_of_the_largest(self) -> None:
        """Drop bodies of the askers that have the most, not of whichever is answered next."""
        for asker in sorted(self._askers.values(), key=lambda asker: -asker.bytes):
            for answer in asker.answers.values():
                if self.bytes <= self._bytes_max * ROOM_KEPT:
                    return
                self._free(asker, answer)

    # Forgetting

    def look(self, now_s: float, sequence: int) -> None:
        """Call this now and then, with the sequence of this node's record. Askers without a
        session, a running handler or a query within its lifetime are idle from now on."""
        self._idle_sequence = sequence
        if now_s >= self._early_again_s:
            # What comes from somebody who knows a later record than this one is young enough.
            self.early_floor, self._early_again_s = sequence + 1, float("inf")
        for asker in list(self._restless):
            if asker.until_s <= now_s and asker.bytes:
                # Nobody can want these any more; that the queries ran is not forgotten.
                for answer in asker.answers.values():
                    self._free(asker, answer)
            if not (asker.sessions or asker.running or asker.until_s > now_s):
                asker.idle_since = sequence
            if (asker.sessions and not asker.bytes) or asker.idle_since is not None:
                del self._restless[asker]
        if self._strangers >= self._limits.strangers_many:
            self._free_places(sequence, now_s, self._limits.strangers_many)

    def signed_anew(self, before: int) -> None:
        """This node's record of sequence ``before`` has been replaced. From now on, peers that know
        only records older than that one are challenged, and askers that became idle under those are
        forgotten."""
        self._forget_below(before)

    def make_room(self, sequence: int) -> int:
        """Make room for an asker or a query: forget all idle askers, at the price of refusing early
        data until this node's record is signed anew. Returns how many were forgotten."""
        before = len(self._askers)
        if any(asker.idle_since is not None for asker in self._askers.values()):
            self._forget_below(sequence + 1)
        return before - len(self._askers)

    def make_room_of(self, peer_id: NodeId) -> int:
        """Make room for another asker of a peer: forget its idle ones, such as the former lives of
        a program that is started again and again, at the price of refusing early data of this peer
        until this node's record is signed anew. Returns how many were forgotten."""
        idle = [it for it in self._of_peer.get(peer_id, ()) if it.idle_since is not None]
        for asker in idle:
            self._remove(asker)
        if idle:
            self._floors[peer_id] = floor = self._idle_sequence + 1
            if len(self._floors) > FLOORS_MAX:
                self._forget_below(floor)
        return len(idle)

    def _free_places(self, sequence: int, now_s: float, strangers_most: int) -> None:
        """Free places for askers: those of the idle and, if these are too few, those of strangers
        that are gone."""
        if now_s < self._taken_until_s:
            return
        self.make_room(sequence)
        if self._are_too_many(strangers_most):
            self.forget_strangers(now_s)
        if self._are_too_many(strangers_most):
            self._taken_until_s = now_s + LOOK_AGAIN_S

    def _are_too_many(self, strangers_most: int) -> bool:
        return self._strangers >= strangers_most or len(self._askers) >= self._limits.askers_max

    def forget_strangers(self, now_s: float) -> int:
        """Forget the strangers that are gone, though their queries may come again. The price:
        queries that are not certainly younger do not run, and early data is refused until it can
        contain nothing older. Returns how many were forgotten."""
        gone = [
            asker
            for asker in self._askers.values()
            if asker.stranger and not (asker.sessions or asker.running)
        ]
        if gone:
            lifetime_s = self._lifetime_s_max * (1 + SPEEDS_APART) + MARGIN_S
            self._forgot_s, self._early_again_s = now_s, now_s + lifetime_s
            self.early_floor = NEVER
        for asker in gone:
            self._remove(asker)
        return len(gone)

    def _forget_below(self, sequence: int) -> None:
        self.early_floor = floor = max(self.early_floor, sequence)
        self._floors = {peer_id: its for peer_id, its in self._floors.items() if its > floor}
        idle = [
            key
            for key, asker in self._askers.items()
            if asker.idle_since is not None and asker.idle_since < floor
        ]
        for key in idle:
            self._remove(self._askers[key])

    def _remove(self, asker: Asker) -> None:
        del self._askers[asker.peer_id, asker.incarnation]
        self._restless.pop(asker, None)
        of_peer = self._of_peer[asker.peer_id]
        of_peer.remove(asker)
        if not of_peer:
            del self._of_peer[asker.peer_id]
        self._strangers -= asker.stranger
        self.entries -= len(asker.answers) + len(asker.exceptions)
        self.bytes -= asker.bytes

"""A model checker for at most once: every interleaving of a small world of two peers, the packets
between them, and a few queries (``python -m simulations.replay_model``).

The network keeps every packet for ever, and delivers any of them at any moment, any number of
times: this covers loss, delay, duplication, reordering and replay. Besides, sessions are lost at
either end, time passes (so that lifetimes end), the responder signs its record anew, runs short of
memory, and restarts. All of this happens in every order, within a bound for each kind of event. The
engine's own machines run (``ExchangeTable``, ``Answers``, ``early``, ``UnconfirmedSessions``, the
replay window), not a copy of them; this module only moves packets.

Checked in every state: no query has run twice, and no route was learned without confirmation.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Final, TypeAlias

from egtp.channel.handshake import InitiationPayload, PeerLimits
from egtp.channel.session import SlidingWindow
from egtp.paths.unconfirmed import UnconfirmedSessions
from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import Answers, Verdict
from egtp.queries.asker import Asker
from egtp.queries.early import pack_early, read_early
from egtp.queries.exchange import Exchange, ExchangeTable
from egtp.queries.outgoing import Outgoing
from egtp.values.contact import Contact
from egtp.values.identity import NodeId
from egtp.values.message import Query, Reply, decode_message, reference_of

__all__ = ["Bounds", "Explored", "explore"]

ASKER, RESPONDER = NodeId(b"a" * 20), NodeId(b"r" * 20)
LIFETIME_S: Final = 20.0
JUMP_S: Final = 40.0
"""Longer than the lifetime of a query plus its margin."""
MOMENT_S: Final = 4.0
ANSWER_LIMITS: Final = AnswerLimits(lifetime_s_max=LIFETIME_S)
LIMITS: Final = PeerLimits(1000, 1000, 16, 1000)
Action: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How often each event may happen."""

    queries: int = 2
    dials: int = 2
    sessions: int = 3
    """Sessions that initiations, including replayed ones, create at the responder."""
    losses: int = 2
    """Losses of a session, at either end."""
    jumps: int = 1
    signatures: int = 2
    restarts: int = 1
    moments: int = 0
    """Passages of a short time, less than the lifetime of a query."""
    forced: int = 0
    """Times that strangers are forgotten early."""
    crowded: int = 0
    """Times that the asker has had too many lives to remember all of them."""
    clock_ahead_s: float = 0.0
    """How far the asker's wall clock is ahead."""


@dataclass(slots=True)
class Session:
    """A session on the responder's side."""

    asker: Asker
    began_s: float
    window: SlidingWindow = field(default_factory=lambda: SlidingWindow(64))


@dataclass(slots=True)
class State:
    """The whole world at one moment. Packets are only ever added."""

    bounds: Bounds
    now_s: float = 1000.0
    # Plain dicts: a Counter takes several times as long to thaw.
    used: dict[str, int] = field(default_factory=dict)
    packets: list[tuple[Any, ...]] = field(default_factory=list)
    runs: dict[bytes, int] = field(default_factory=dict)
    # The asker
    table: ExchangeTable[int] = field(default_factory=lambda: ExchangeTable(Counter()))
    known_sequence: int = 1
    known_incarnation: int = 0
    dialling: int | None = None
    live: tuple[int, int, float] | None = None
    """Its session: number, the responder's incarnation, and when that incarnation started."""
    live_since_s: float = 0.0
    """When that session began on this side."""
    sent: int = 0
    """Packets sealed in that session."""
    # The responder
    incarnation: int = 0
    started_s: float = 0.0
    sequence: int = 1
    answers: Answers = field(default_factory=lambda: Answers(ANSWER_LIMITS))
    unconfirmed: UnconfirmedSessions[int] = field(default_factory=UnconfirmedSessions)
    sessions: dict[int, Session] = field(default_factory=dict)
    confirmed: set[int] = field(default_factory=set)
    """Sessions that the asker has confirmed."""
    route: int | None = None
    """The session through which the responder would ask the asker something."""
    made: int = 0
    """Sessions so far."""

    # Actions

    def actions(self) -> Iterator[Action]:
        """All actions that are possible next."""
        left = self._left
        for number, packet in enumerate(self.packets):
            if self._changes_something(number, packet):
                yield "deliver", number
        if left("lose", self.bounds.losses):
            if self.live is not None:
                yield "asker loses", 0
            for session in self.sessions:
                yield "responder loses", session
        might = {
            "ask": left("ask", self.bounds.queries),
            "dial": left("dial", self.bounds.dials) and self.live is None,
            "time passes": left("time passes", self.bounds.jumps),
            "moment passes": left("moment passes", self.bounds.moments),
            "forgets by force": left("forgets by force", self.bounds.forced)
            and len(self.answers) > 0,
            "has too many lives": left("has too many lives", self.bounds.crowded)
            and len(self.answers) > 0,
            "sign": left("sign", self.bounds.signatures),
            "learn": (self.known_sequence, self.known_incarnation)
            != (self.sequence, self.incarnation),
            "short of memory": left("short of memory", 1) and len(self.answers) > 0,
            "restart": left("restart", self.bounds.restarts),
        }
        yield from ((name, 0) for name, may in might.items() if may)

    def _left(self, name: str, at_most: int) -> bool:
        return self.used.get(name, 0) < at_most

    def _changes_something(self, number: int, packet: tuple[Any, ...]) -> bool:
        """False for a packet that its receiver would certainly drop."""
        kind, to = packet[:2]
        if kind == "initiation":
            known = self.unconfirmed.find(b"initiation %d" % number)
            return known is None and self.made < self.bounds.sessions
        if kind == "response":
            return bool(to == self.dialling)
        if kind == "reply":
            return self.live is not None and bool(to == self.live[0])
        session = self.sessions.get(to)
        return session is not None and session.window.fits(packet[2])

    def act(self, action: Action) -> None:
        name, number = action
        if name == "deliver":
            packet = self.packets[number]
            getattr(self, f"_take_{packet[0]}")(number, *packet[1:])
            return
        used = "lose" if "loses" in name else name
        self.used[used] = self.used.get(used, 0) + 1
        getattr(self, "_" + name.replace(" ", "_"))(number)

    # The asker

    def _ask(self, _: int) -> None:
        serial = self.used["ask"]
        exchange = self.table.open(
            RESPONDER,
            "pay",
            b"%d" % serial,
            bytes([serial]) * 16,
            100,
            LIFETIME_S,
            None,
            self.now_s,
            serial,
            early=True,
        )
        if self.live is not None:
            self._give(exchange)

    def _give(self, exchange: Exchange[int]) -> None:
        assert self.live is not None
        _, incarnation, started_s = self.live
        if not exchange.may_be_given_to(bytes([incarnation]) * 8, started_s):
            self.table.close(exchange)
            return
        exchange.given, exchange.handed_to = True, bytes([incarnation]) * 8
        self._seal((bytes(exchange.message),))

    def _seal(self, messages: tuple[bytes, ...]) -> None:
        assert self.live is not None
        settled = self.table.settled(RESPONDER)
        born = [self._age_ms(message) for message in messages]
        time_s, items = self.now_s - self.live_since_s, tuple(zip(born, messages, strict=True))
        self._add("data", self.live[0], self.sent, time_s, settled, items)
        self.sent += 1

    def _age_ms(self, message: bytes) -> int:
        exchange = self.table.find(RESPONDER, reference_of(message))
        return 0 if exchange is None else int((self.now_s - exchange.born_s) * 1000)

    def _dial(self, _: int) -> None:
        incarnation = bytes([self.known_incarnation]) * 8
        contact = Contact(RESPONDER, b"", b"", self.known_sequence, (), (), incarnation=incarnation)
        settled = self.table.settled(RESPONDER)
        early = pack_early(contact, self.table.all(), settled, self.now_s)
        if early is not None:
            early.given()
        self.dialling = self.used["dial"]
        time_ms = int((self.now_s + self.bounds.clock_ahead_s) * 1000)
        plaintext = b"" if early is None else early.plaintext
        self._add("initiation", self.dialling, plaintext, incarnation, self.known_sequence, time_ms)

    def _take_response(
        self, _: int, dial: int, session: int, accepted: bool, incarnation: int, started_s: float
    ) -> None:
        if dial != self.dialling:
            return
        self.dialling, self.live, self.sent = None, (session, incarnation, started_s), 0
        self.live_since_s = self.now_s
        self._seal(())
        for exchange in self.table.all():
            if not (accepted and exchange.given):
                self._give(exchange)

    def _take_reply(self, _: int, session: int, data: bytes) -> None:
        if self.live is not None and session == self.live[0]:
            reply = decode_message(data)
            assert isinstance(reply, Reply)
            self.table.match(RESPONDER, reply)

    def _asker_loses(self, _: int) -> None:
        self.live = None

    def _learn(self, _: int) -> None:
        self.known_sequence, self.known_incarnation = self.sequence, self.incarnation

    # The responder

    def _take_initiation(
        self, number: int, dial: int, early: bytes, named: bytes, sequence: int, time_ms: int
    ) -> None:
        data = b"initiation %d" % number
        if self.unconfirmed.find(data) is not None:
            return  # The response would be the same, and that packet exists already.
        incarnation = bytes([self.incarnation]) * 8
        payload = InitiationPayload(b"", time_ms, sequence, named, b"a" * 8, LIMITS, early)
        sealed = None
        if early:
            unix_ms = int(self.now_s * 1000)
            floor = self.answers.early_floor_of(ASKER)
            sealed = read_early(payload, incarnation, floor, unix_ms, lambda _: True)
        asker = self.answers.session_began(
            ASKER, b"a" * 8, self.sequence, self.now_s, stranger=True
        )
        assert asker is not None
        # Its keys come from a fresh secret, so no packet of another session opens in it.
        self.made += 1
        session = self.made
        self.sessions[session] = Session(asker, self.now_s)
        self.unconfirmed.displace(ASKER, relayed=True)
        self.unconfirmed.add(session, ASKER, data, b"", self.now_s, relayed=True)
        self._add("response", dial, session, sealed is not None, self.incarnation, self.started_s)
        if sealed is not None:
            items = [(age, data) for _, age, data in sealed.items]
            self._open(session, -inf, sealed.settled, items)

    def _take_data(
        self,
        _: int,
        number: int,
        counter: int,
        time_s: float,
        settled: int,
        items: tuple[tuple[int, bytes], ...],
    ) -> None:
        session = self.sessions.get(number)
        if session is None or not session.window.fits(counter):
            return
        session.window.take(counter)
        self.confirmed.add(number)
        if self.unconfirmed.remove(number):
            self.route = number
        self._open(number, session.began_s + time_s, settled, list(items))

    def _open(
        self, number: int, sealed_s: float, settled: int, items: list[tuple[int, bytes]]
    ) -> None:
        """``sealed_s`` is the earliest time at which the packet can have been sealed, by its own
        account: how long a packet was under way is never known."""
        asker = self.sessions[number].asker
        self.answers.settle(asker, settled)
        for age_ms, data in items:
            query = decode_message(data)
            assert isinstance(query, Query)
            left_ms = query.lifetime_ms - age_ms
            if left_ms < 0:
                continue
            reference = reference_of(data)
            asked = asker, query.number, reference, left_ms / 1000, self.now_s
            verdict, answer = self.answers.ask(*asked)
            if verdict is Verdict.DOUBTFUL:
                born_s = sealed_s - age_ms / 1000
                if self.answers.clears(asker, query.number, born_s, self.now_s):
                    verdict, answer = self.answers.ask(*asked)
            reply = Reply(b"n" * 16, reference, 0, b"done").encode()
            if verdict is Verdict.RUN and answer is not None:
                self.runs[reference] = self.runs.get(reference, 0) + 1
                self.answers.answered(asker, answer, Outgoing(reply, self.now_s))
            if verdict in (Verdict.RUN, Verdict.AGAIN):
                self._add("reply", number, reply)

    def _responder_loses(self, number: int) -> None:
        if self.route == number:
            self.route = None
        session = self.sessions.pop(number)
        self.unconfirmed.remove(number)
        self.answers.session_ended(session.asker)

    def _sign(self, _: int) -> None:
        before, self.sequence = self.sequence, self.sequence + 1
        self.answers.signed_anew(before)

    def _short_of_memory(self, _: int) -> None:
        # The lower of the two floors that make_room may be called with.
        self.answers.make_room(self.answers._idle_sequence)

    def _has_too_many_lives(self, _: int) -> None:
        self.answers.make_room_of(ASKER)

    def _forgets_by_force(self, _: int) -> None:
        self.answers.forget_strangers(self.now_s)

    def _restart(self, _: int) -> None:
        self.incarnation += 1
        self.started_s = self.now_s
        self.sequence += 1
        self.answers = Answers(ANSWER_LIMITS)
        self.unconfirmed = UnconfirmedSessions()
        self.sessions = {}
        self.route = None

    # Both

    def _time_passes(self, _: int) -> None:
        self._passes(JUMP_S)

    def _moment_passes(self, _: int) -> None:
        self._passes(MOMENT_S)

    def _passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.table.expire(self.now_s)
        for session in self.unconfirmed.expire(self.now_s):
            self.answers.session_ended(self.sessions.pop(session).asker)
        self.answers.look(self.now_s, self.sequence)

    def _add(self, *packet: Any) -> None:
        # An existing packet may be delivered again anyway, so a copy adds nothing.
        if packet not in self.packets:
            self.packets.append(packet)

    # Invariants

    @property
    def wrong(self) -> str:
        """The broken invariant of this state; empty if all hold."""
        if max(self.runs.values(), default=0) > 1:
            return "a query has run twice"
        if self.route is not None and self.route not in self.confirmed:
            return "a route was learned from a session that nobody has confirmed"
        return ""

    # Equality

    def signature(self) -> tuple[Any, ...]:
        """Equal for states with the same possible futures."""
        exchanges = tuple((e.number, e.given, e.handed_to, e.born_s) for e in self.table.all())
        askers = tuple(
            (
                key[1],
                asker.floor,
                asker.sessions,
                asker.idle_since,
                asker.doubtful_below,
                asker.until_s,
                tuple((n, a.state.value) for n, a in sorted(asker.answers.items())),
            )
            for key, asker in self.answers._askers.items()
        )
        sessions = tuple(
            (n, s.began_s, s.window._seen, s.window._highest) for n, s in self.sessions.items()
        )
        return (
            self.now_s,
            tuple(sorted(self.used.items())),
            frozenset(p for p in self.packets),
            tuple(sorted(self.runs.items())),
            exchanges,
            self.table.settled(RESPONDER),
            self.known_sequence,
            self.known_incarnation,
            self.dialling,
            self.live,
            self.live_since_s,
            self.sent,
            self.incarnation,
            self.made,
            self.route,
            self.sequence,
            askers,
            self.answers.early_floor,
            self.answers.early_floor_of(ASKER),
            self.answers._idle_sequence,
            self.answers._forgot_s,
            tuple(e.initiation for e in self.unconfirmed._by_initiation.values()),
            sessions,
        )


@dataclass(frozen=True, slots=True)
class Explored:
    """The result of an exploration."""

    states: int
    depth: int
    complete: bool
    """Whether every state within the bounds was seen."""
    wrong: str = ""
    counterexample: tuple[Action, ...] = ()
    """The actions that break an invariant; empty if none were found to."""


def explore(bounds: Bounds, *, states_max: int = 1_000_000, world: type[State] = State) -> Explored:
    """Explore all states within the bounds, breadth first, so that a counterexample is a shortest
    one. ``world`` may be a deliberately broken one, to see that its fault is found."""
    first = world(bounds)
    seen = {hash(first.signature())}
    # A state, frozen, with what may happen next and what has happened so far.
    queue: deque[tuple[bytes, list[Action], tuple[Action, ...]]] = deque()
    queue.append((pickle.dumps(first), list(first.actions()), ()))
    depth = 0
    while queue:
        frozen, actions, story = queue.popleft()
        for action in actions:
            state: State = pickle.loads(frozen)  # noqa: S301 - our own, of a moment ago
            state.act(action)
            if state.wrong:
                return Explored(len(seen), len(story) + 1, False, state.wrong, (*story, action))
            signature = hash(state.signature())
            if signature in seen:
                continue
            if len(seen) >= states_max:
                return Explored(len(seen), depth, False)
            seen.add(signature)
            depth = max(depth, len(story) + 1)
            queue.append((pickle.dumps(state), list(state.actions()), (*story, action)))
    return Explored(len(seen), depth, True)


def main() -> None:
    """Explore, and print how many states there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    for bound in fields(Bounds):
        name = "--" + bound.name.replace("_", "-")
        parser.add_argument(name, type=type(bound.default), default=bound.default)
    parser.add_argument("--states-max", type=int, default=1_000_000)
    options = vars(parser.parse_args())
    states_max = options.pop("states_max")
    began_s = time.perf_counter()
    explored = explore(Bounds(**options), states_max=states_max)
    took_s = time.perf_counter() - began_s
    print(f"{explored.states:,} states, {explored.depth} steps deep, in {took_s:.0f} s")
    if explored.counterexample:
        print(f"{explored.wrong}: " + ", ".join(f"{a} {n}" for a, n in explored.counterexample))
    elif not explored.complete:
        print("not all of them were seen (--states-max)")
    sys.exit(bool(explored.counterexample))


if __name__ == "__main__":
    main()

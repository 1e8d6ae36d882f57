"""Judge: the invariants that Mallory must never break, checked after everything she does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from egtp import (
    FastFail,
    HandlerFailed,
    HardTimeout,
    Incoming,
    Node,
    NodeClosed,
    NodeId,
    OutcomeUnknown,
)
from egtp.engine.engine import Engine
from egtp.paths.path import Path
from egtp.paths.unconfirmed import PER_PEER_MAX, SESSIONS_MAX, WAIT_S
from egtp.values.message import ReplyCode
from simulations.checkers import Violation
from simulations.mallory.xray import MARK, XRay

__all__ = ["Judge", "Question", "Suspect"]

UNCONFIRMED_S_MAX: Final = WAIT_S + 2.0
"""With a margin, as a node checks for sessions that were never confirmed once a second."""
STALE_UPTIME_S: Final = 3.5
"""How old the uptime in a response may be when it is used: as long as a dial waits for one."""
PATHS_MAX: Final = 64
"""Sessions of one node in a small world; superseded ones drain within seconds."""
NOT_RUN: Final = (ReplyCode.NO_SUCH_KIND, ReplyCode.BUSY)
"""Answers that claim that no handler was called."""


class Suspect(Protocol):
    """A node under observation."""

    @property
    def name(self) -> str: ...

    @property
    def node(self) -> Node: ...

    @property
    def node_id(self) -> NodeId: ...

    @property
    def knows(self) -> set[NodeId]:
        """The peers that this node has asked, was introduced to, or has a confirmed path to."""

    @property
    def started_s(self) -> list[float]:
        """When each of its incarnations started."""

    @property
    def is_up(self) -> bool: ...


@dataclass(slots=True)
class Question:
    """A query or send, and what came of it."""

    mark: bytes
    asker: str
    target: Suspect
    asked_s: float
    until_s: float
    may_repeat: bool
    """Whether its caller declared that running twice does no harm."""
    given_s: float | None = None
    """When the first copy was given to a socket."""
    ran: list[tuple[float, int]] = field(default_factory=list)
    """When its handler was called, and in which incarnation of the target."""
    outcome: str = ""
    """Empty while it is open."""
    not_given: str = ""
    """The outcome that claimed that no copy ever left, if any."""
    not_run: str = ""
    """The outcome that claimed that it never ran, if any."""


class Judge:
    """Unless :attr:`violations` is empty, Mallory has won."""

    def __init__(self, xray: XRay) -> None:
        self.violations: Final[list[Violation]] = []
        self.questions: Final[dict[bytes, Question]] = {}
        self.checks = 0
        self._xray = xray
        self._told: set[tuple[str, str]] = set()

    def violated(self, at_s: float, rule: str, detail: str) -> None:
        if (rule, detail) not in self._told:
            self._told.add((rule, detail))
            self.violations.append(Violation(at_s, rule, detail))

    # Queries

    def asked(self, question: Question) -> None:
        self.questions[question.mark] = question

    def saw(self, at_s: float, packet: bytes) -> None:
        """A packet was given to a socket."""
        for mark in self._xray.marks(packet):
            question = self.questions.get(mark)
            if question is None:
                continue
            if question.given_s is None:
                question.given_s = at_s
            if question.not_given:
                self._given_all_the_same(at_s, question)

    def handled(self, at_s: float, party: Suspect, query: Incoming, *, repeats: bool) -> bytes:
        """A handler was called. Returns the mark of its query."""
        found = MARK.match(query.body)
        question = self.questions.get(found[0]) if found is not None else None
        if question is None:
            self.violated(at_s, "a handler is called for what was asked", party.name)
            return b""
        question.ran.append((at_s, len(party.started_s)))
        if question.target is not party:
            detail = f"{_name(question)} was meant for {question.target.name}, not {party.name}"
            self.violated(at_s, "a query reaches only the peer it is for", detail)
        if len(question.ran) > 1 and not (question.may_repeat or repeats):
            detail = f"{_name(question)} ran at {_times(question)}"
            self.violated(at_s, "no handler runs twice for one query", detail)
        if question.asked_s > at_s:
            self.violated(at_s, "nothing runs before it was asked", _name(question))
        if question.not_run:
            self._ran_all_the_same(at_s, question)
        return question.mark

    def ended(self, at_s: float, question: Question, error: BaseException | None) -> None:
        """A query ended with ``error``; None if it got a reply."""
        question.outcome = "reply" if error is None else type(error).__name__
        match error:
            case None if not question.ran:
                self.violated(at_s, "a reply comes from a handler that ran", _name(question))
            case FastFail():
                self._never_ran(at_s, question, "a fast fail")
            case HardTimeout() | NodeClosed() if not error.may_have_run:
                self._never_ran(at_s, question, f"{question.outcome} with may_have_run=False")
            case HandlerFailed() if error.code in NOT_RUN:
                question.not_run = f"answered {error.code}"
                if question.ran and not question.may_repeat:
                    self._ran_all_the_same(at_s, question)
            case OutcomeUnknown():
                self._unknown(at_s, question)
            case HardTimeout() | NodeClosed() | HandlerFailed() | asyncio.CancelledError():
                pass
            case BaseException():
                self.violated(at_s, "every outcome is one of seven", f"{_name(question)}: {error}")

    def _never_ran(self, at_s: float, question: Question, outcome: str) -> None:
        question.not_given = question.not_run = outcome
        if question.given_s is not None:
            self._given_all_the_same(at_s, question)
        if question.ran:
            self._ran_all_the_same(at_s, question)

    def _given_all_the_same(self, at_s: float, question: Question) -> None:
        detail = f"{_name(question)}: {question.not_given}, and yet a copy was given to a socket"
        self.violated(at_s, "what is said not to have left never leaves", detail)

    def _ran_all_the_same(self, at_s: float, question: Question) -> None:
        detail = f"{_name(question)}: {question.not_run}, and yet it ran at {_times(question)}"
        self.violated(at_s, "what is said not to have run never runs", detail)

    def _unknown(self, at_s: float, question: Question) -> None:
        since_s = question.asked_s - STALE_UPTIME_S
        if not any(start_s >= since_s for start_s in question.target.started_s[1:]):
            detail = f"{_name(question)}: {question.target.name} was not restarted"
            self.violated(at_s, "an outcome is unknown only if the peer was restarted", detail)

    # Nodes

    def check(self, at_s: float, parties: Iterable[Suspect]) -> None:
        """Check all invariants of all parties."""
        self.checks += 1
        for question in self.questions.values():
            if not question.outcome and at_s > question.until_s:
                self.violated(at_s, "every query ends by its hard timeout", _name(question))
        for party in parties:
            if party.is_up:
                for rule, detail in self._faults(party):
                    self.violated(at_s, rule, f"{party.name}: {detail}")

    def _faults(self, party: Suspect) -> Iterator[tuple[str, str]]:
        engine = party.node._engine
        if engine is None or engine.is_closed:
            return
        yield from self._routes(party, engine)
        yield from self._unconfirmed(party, engine)
        answers, limits = engine.answering.answers, engine.config.answers
        askers = answers._askers.values()
        if answers.entries != sum(len(asker.answers) for asker in askers):
            yield "what is remembered is counted", f"{answers.entries} entries"
        if answers.bytes != sum(asker.bytes for asker in askers):
            yield "what is remembered is counted", f"{answers.bytes} bytes"
        for what, size, limit in (
            ("exchanges", len(engine.exchanges), engine.config.exchanges_max),
            ("askers", len(answers), limits.askers_max),
            ("answers", answers.entries, limits.entries_max),
            ("bytes of answers", answers.bytes, limits.bytes_max),
            ("unconfirmed sessions", engine.channels.unconfirmed, SESSIONS_MAX),
            ("peers", len(engine.book), engine.config.peers_max),
            ("sessions", len(engine.channels.sessions.by_index), PATHS_MAX),
        ):
            if size > limit:
                yield "every table is within its bound", f"{size} {what}"

    def _routes(self, party: Suspect, engine: Engine) -> Iterator[tuple[str, str]]:
        for peer in engine.book.all():
            for path in peer.paths:
                if not path.confirmed:
                    yield "no route is learned without confirmation", f"{path}"
                elif self._other_side(path) != (path.peer_id, party.node_id):
                    yield "a path leads to the peer that it says", f"{path}"

    def _other_side(self, path: Path) -> tuple[NodeId, NodeId] | None:
        """Who created the session at the other end, and with whom."""
        return self._xray.sessions.get((path.session.remote_index, path.session.index))

    def _unconfirmed(self, party: Suspect, engine: Engine) -> Iterator[tuple[str, str]]:
        now, channels = engine.now(), engine.channels
        waiting = channels.sessions.unconfirmed
        if any(count > PER_PEER_MAX for count in waiting._per_peer.values()):
            yield "every table is within its bound", "unconfirmed sessions of one peer"
        for path in channels.sessions.by_index.values():
            if not path.confirmed and now - path.session.started_s > UNCONFIRMED_S_MAX:
                yield "an unconfirmed session leaves nothing behind", f"session with {path}"
        for peer in engine.book.all():
            if peer.peer_id in party.knows:
                continue
            if peer.record is not None or peer.waiting or peer.search is not None:
                yield "an unconfirmed session leaves nothing behind", f"peer {peer.peer_id}"


def _name(question: Question) -> str:
    mark = question.mark.decode("ascii", "replace")
    return f"{mark} of {question.asker} to {question.target.name}"


def _times(question: Question) -> str:
    return ", ".join(f"{at_s:.3f} s (incarnation {number})" for at_s, number in question.ran)

"""What is remembered of one asker, and of each of its queries (pure)."""

from __future__ import annotations

from typing import Final

from egtp.queries.outgoing import Outgoing
from egtp.state_table import State, StateTable
from egtp.values.identity import NodeId

__all__ = ["ANSWER_LIFE", "FORGOTTEN", "RUNNING", "Answer", "AnswerEvent", "AnswerState", "Asker"]


class AnswerState(State):
    RUNNING = "its handler runs"
    KEPT = "its answer is kept"
    RAN = "it ran"
    FORGOTTEN = "forgotten"


class AnswerEvent(State):
    REPLY = "a reply"
    NO_REPLY = "no reply, or one too large to keep"
    LET_GO = "no room for the answer, or past its lifetime"
    FINISHED = "its asker has finished with it"
    HARMLESS = "a reply, of an idempotent kind"


ANSWER_LIFE: Final = StateTable(
    AnswerState.RUNNING,
    [
        (AnswerState.RUNNING, AnswerEvent.REPLY, AnswerState.KEPT),
        (AnswerState.RUNNING, AnswerEvent.NO_REPLY, AnswerState.RAN),
        (AnswerState.KEPT, AnswerEvent.LET_GO, AnswerState.RAN),
        (AnswerState.RUNNING, AnswerEvent.HARMLESS, AnswerState.FORGOTTEN),
        (AnswerState.RUNNING, AnswerEvent.FINISHED, AnswerState.FORGOTTEN),
        (AnswerState.KEPT, AnswerEvent.FINISHED, AnswerState.FORGOTTEN),
        (AnswerState.RAN, AnswerEvent.FINISHED, AnswerState.FORGOTTEN),
    ],
)
"""The life of one query above its asker's mark."""

RUNNING, FORGOTTEN = AnswerState.RUNNING, AnswerState.FORGOTTEN


class Answer:
    """A query above its asker's mark, and its reply while that is kept."""

    __slots__ = ("number", "reference", "reply", "state")

    def __init__(self, number: int, reference: bytes) -> None:
        self.number = number
        self.reference = reference
        self.state = RUNNING
        self.reply: Outgoing | None = None


class Asker:
    """Everything that is remembered of one incarnation of a peer."""

    __slots__ = (
        "answers",
        "bytes",
        "doubtful_below",
        "exceptions",
        "floor",
        "idle_since",
        "incarnation",
        "open_below",
        "peer_id",
        "refused_below",
        "running",
        "sessions",
        "stranger",
        "until_s",
        "upto",
    )

    def __init__(self, peer_id: NodeId, incarnation: bytes) -> None:
        self.peer_id: Final = peer_id
        self.incarnation: Final = incarnation
        self.floor = 0
        """The settled mark."""
        self.upto = 0
        """All numbers below this one are settled as well, except for the exceptions."""
        self.exceptions: frozenset[int] = frozenset()
        self.open_below: list[int] = []
        """Those of the exceptions that the settled mark has not passed, the lowest last."""
        self.refused_below = 0
        """Some number below this one was refused for want of room, and its asker told that it has
        not run. So none below this one runs unless it is remembered."""
        self.doubtful_below = 0
        """Numbers below this one that are not remembered may have been forgotten by force."""
        self.answers: dict[int, Answer] = {}
        self.bytes = 0
        self.sessions = 0
        self.stranger = False
        """Whether the peer was a stranger whenever one of its sessions began."""
        self.running = 0
        """Handlers that run for it now, including those of sends."""
        self.until_s = float("-inf")
        """When the last of its queries is past its lifetime, with a margin."""
        self.idle_since: int | None = None
        """The sequence of this node's record when it was found idle; None while it is not idle."""

    def exceptions_passed(self, settled: int) -> list[int]:
        """The exceptions that the settled mark passes. Each is returned once."""
        passed = []
        while self.open_below and self.open_below[-1] < settled:
            passed.append(self.open_below.pop())
        return passed

    def is_settled(self, number: int) -> bool:
        return number < self.floor or (number < self.upto and number not in self.exceptions)

"""One who answers, with small limits, and who asks it."""

from __future__ import annotations

from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import Answers, Verdict
from egtp.queries.asker import Answer
from egtp.queries.outgoing import Outgoing
from egtp.values.identity import NodeId

PEERS = [NodeId(bytes(19) + bytes((number,))) for number in range(4)]
LIMITS = AnswerLimits(askers_max=3, window=6, entries_max=12, lifetime_s_max=100, bytes_max=1600)


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


def peer_number(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))

"""Queries during faults: the outcome of each, and whether it came in time.

While faults last, no reply is promised. What is promised is the truth, in time: each query ends in
one of the typed outcomes, no later than its hard timeout.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from simulations.checkers import ENDED, REPLY, TYPED, outcome_of
from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import HARD_TIMEOUT_S, Member

__all__ = ["Answer", "Asking", "Choose", "shown", "together"]

LATE_S: Final = 0.1
"""How late after the hard timeout an outcome may come: deadlines are checked in ticks."""
SHOWN_MAX: Final = 5

Choose: TypeAlias = Callable[[random.Random], tuple[Member, Member]]
"""Draws the next pair of asker and asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one query."""

    asker: Member
    asked: Member
    outcome: str
    began_s: float
    took_s: float
    """Not counting the time that the asker's machine was asleep."""
    detail: str = ""
    is_typed: bool = True
    may_have_run: bool = False

    @property
    def is_reply(self) -> bool:
        return self.outcome == REPLY

    @property
    def ended_s(self) -> float:
        return self.began_s + self.took_s

    def __str__(self) -> str:
        text = f"{self.asker.name} asked {self.asked.name} at {self.began_s:.3f} s: {self.outcome}"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{text} after {self.took_s * 1000:.0f} ms{detail}"


class Asking:
    """The queries of one story."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        """Randomness comes from the cluster's entropy source ``name``."""
        self.answers: Final[list[Answer]] = []
        self.rng: Final = random.Random(cluster.world.entropy(name)(16))
        self._elapsed = cluster.world.elapsed

    @property
    def mark(self) -> int:
        """The current position in the log: later answers have this number or a higher one."""
        return len(self.answers)

    async def ask(self, asker: Member, asked: Member, body: bytes = b"hello") -> Answer:
        """Ask one query. Any ending is recorded as an answer."""
        began_s, slept_s = self._elapsed(), asker.machine.host.asleep_s
        outcome, detail, is_typed, may_have_run = REPLY, "", True, True
        try:
            reply = await asker.ask(asked, body)
            if reply != body:
                outcome, is_typed = "wrong reply", False
        except Exception as error:
            kind, outcome = type(error), outcome_of(error)
            # The outcomes of an ended asker are legitimate only if the asker has ended.
            is_typed = kind in TYPED or (kind in ENDED and asker.gone)
            detail = str(error)
            may_have_run = bool(getattr(error, "may_have_run", False))
        took_s = self._elapsed() - began_s - (asker.machine.host.asleep_s - slept_s)
        answer = Answer(asker, asked, outcome, began_s, took_s, detail, is_typed, may_have_run)
        self.answers.append(answer)
        return answer

    @asynccontextmanager
    async def going_on(
        self, choose: Choose, *, at_a_time: int, pause_s: float, bodies: Iterable[int] = (64,)
    ) -> AsyncIterator[None]:
        """Members keep asking each other within this context, ``at_a_time`` at once. On exit, every
        query has ended."""
        over = asyncio.Event()
        sizes = tuple(bodies)

        async def converse(rng: random.Random) -> None:
            while not over.is_set():
                asker, asked = choose(rng)
                if not asker.gone:
                    await self.ask(asker, asked, rng.randbytes(rng.choice(sizes)))
                await asyncio.sleep(rng.uniform(0.5, 1.5) * pause_s)

        async with together() as begin:
            for _ in range(at_a_time):
                begin(converse(random.Random(self.rng.getrandbits(64))))
            try:
                yield
            finally:
                over.set()

    def claim_outcomes(self, expect: Expectations, since: int = 0) -> None:
        """Claim that askers were told the truth, in time."""
        answers = self.answers[since:]
        counted = self.counted(since)
        wrong = [answer for answer in answers if not answer.is_typed]
        expect.that(
            "each query ends in one of the promised outcomes",
            bool(answers) and not wrong,
            shown(wrong) or ", ".join(f"{count} {name}" for name, count in counted.items()),
        )
        limit_s = HARD_TIMEOUT_S + LATE_S
        late = [answer for answer in answers if answer.took_s > limit_s]
        slowest_s = max((answer.took_s for answer in answers), default=0.0)
        expect.that(
            "no later than its hard timeout",
            not late,
            shown(late) or f"the slowest of {len(answers)} after {slowest_s:.2f} s",
        )

    def counted(self, since: int = 0) -> dict[str, int]:
        """The number of answers by outcome, in a fixed order."""
        counts = Counter(answer.outcome for answer in self.answers[since:])
        return dict(sorted(counts.items()))

    def figures(self, since: int = 0) -> dict[str, float]:
        """The outcomes as figures, such as ``during_faults_fast_fail_queries``."""
        counts = self.counted(since)
        names = [REPLY, *TYPED.values(), *ENDED.values()]
        return {
            f"during_faults_{name.replace(' ', '_')}_queries": counts[name]
            for name in names
            if name in counts
        }


@asynccontextmanager
async def together() -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]]:
    """A task group that raises its first error directly, not wrapped in an exception group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group.create_task
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def shown(answers: Sequence[Answer]) -> str:
    """The first few answers, one per line; empty if there are none."""
    lines = [str(answer) for answer in answers[:SHOWN_MAX]]
    if len(answers) > SHOWN_MAX:
        lines.append(f"and {len(answers) - SHOWN_MAX} more")
    return "\n".join(lines)

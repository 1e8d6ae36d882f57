"""Liveness: once all faults are over, everybody reaches everybody again.

The story first repairs whatever it broke. Then the network has a stated time to recover. After
that, every query must be answered, even one that meets a connection that died unnoticed: it is sent
again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Final

from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member
from simulations.scenario import Figures, Narrate
from simulations.scenarios.asking import Answer, Asking, shown, together

__all__ = ["everybody_reaches_everybody"]

REPLY_BOUND_S: Final = 5.0
"""Three times as long as a lookup and a dial over a bad line take."""


async def everybody_reaches_everybody(
    cluster: Cluster,
    expect: Expectations,
    narrate: Narrate,
    asking: Asking,
    *,
    settle_s: float,
    members: Iterable[Member] | None = None,
) -> Figures:
    """Claim that everybody does, ``settle_s`` after the last fault is over."""
    alive = [m for m in (cluster.members if members is None else members) if not m.gone]
    narrate(
        f"all faults are over; {len(alive)} members have {settle_s:g} s to find each other again"
    )
    await asyncio.sleep(settle_s)

    narrate("everybody asks everybody")
    answers = await _everybody_asks(asking, alive)
    unanswered = [answer for answer in answers if not answer.is_reply]
    expect.that(
        "everybody reaches everybody again",
        bool(answers) and not unanswered,
        shown(unanswered) or f"{len(answers)} pairs of {len(alive)} members",
    )
    # Replies only: the claim above covers unanswered queries, however soon they failed.
    slowest_s = max((answer.took_s for answer in answers if answer.is_reply), default=0.0)
    expect.that(
        f"within {REPLY_BOUND_S:g} s",
        slowest_s < REPLY_BOUND_S,
        f"the slowest reply after {slowest_s * 1000:.0f} ms",
    )
    return {
        "afterwards_members": len(alive),
        "afterwards_pairs": len(answers),
        "afterwards_answered_pairs": len(answers) - len(unanswered),
        "afterwards_slowest_reply_ms": slowest_s * 1000,
    }


async def _everybody_asks(asking: Asking, members: list[Member]) -> list[Answer]:
    async with together() as begin:
        tasks = [begin(asking.ask(a, b)) for a, b in itertools.permutations(members, 2)]
    return [task.result() for task in tasks]

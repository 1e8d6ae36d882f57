"""Liveness: when nothing is wrong any more, everybody reaches everybody again.

What a story broke is mended first. Then there is a stated time in which the network may find
together. A connection that died unseen can still swallow one query, which then ends in a hard
timeout that says so: nothing is sent twice. So there are two rounds, and the second is the one in
which each query must be answered.
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
"""As long as a lookup and a dial over a bad line, and twice as long again."""


async def everybody_reaches_everybody(
    cluster: Cluster,
    expect: Expectations,
    narrate: Narrate,
    asking: Asking,
    *,
    settle_s: float,
    members: Iterable[Member] | None = None,
) -> Figures:
    """Claim it, ``settle_s`` after the last fault is over."""
    alive = [m for m in (cluster.members if members is None else members) if not m.gone]
    narrate(f"nothing is wrong any more; {len(alive)} members have {settle_s:g} s to find together")
    await asyncio.sleep(settle_s)

    narrate("everybody asks everybody, twice")
    first = await _round(asking, alive)
    lost = [answer for answer in first if not answer.is_reply]
    untrue = [a for a in lost if a.outcome != "hard timeout" or not a.may_have_run]
    expect.that(
        "the first question is answered, or lost on a connection that had died",
        not untrue,
        shown(untrue) or f"{len(first) - len(lost)} of {len(first)} were answered",
    )
    second = await _round(asking, alive)
    unanswered = [answer for answer in second if not answer.is_reply]
    expect.that(
        "everybody reaches everybody again",
        bool(second) and not unanswered,
        shown(unanswered) or f"{len(second)} pairs of {len(alive)} members",
    )
    slowest_s = max((answer.took_s for answer in second), default=0.0)
    expect.that(
        f"within {REPLY_BOUND_S:g} s",
        slowest_s < REPLY_BOUND_S,
        f"the slowest reply after {slowest_s * 1000:.0f} ms",
    )
    return {
        "afterwards_members": len(alive),
        "afterwards_pairs": len(second),
        "afterwards_first_round_lost_queries": len(lost),
        "afterwards_answered_pairs": len(second) - len(unanswered),
        "afterwards_slowest_reply_ms": slowest_s * 1000,
    }


async def _round(asking: Asking, members: list[Member]) -> list[Answer]:
    async with together() as begin:
        tasks = [begin(asking.ask(a, b)) for a, b in itertools.permutations(members, 2)]
    return [task.result() for task in tasks]

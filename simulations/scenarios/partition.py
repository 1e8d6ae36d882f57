"""The network splits into two halves; later, one half hears the other but is not heard by it.

Each half keeps working by itself: members that can still reach each other do. When the cut is
healed, everybody reaches everybody, without any restart.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Final

from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate
from simulations.scenarios.asking import Answer, Asking, shown, together
from simulations.scenarios.liveness import everybody_reaches_everybody

__all__ = ["partition"]

TWO_WAY_S: Final = 60.0
ONE_WAY_S: Final = 40.0
HALF_SETTLES_S: Final = 45.0
"""How long hidden peers may take to notice that a relay is on the other side, and to publish it."""
BETWEEN_S: Final = 20.0
SETTLE_S: Final = 75.0
"""Time for the relays on the other side to be asked again, which happens at least every minute."""


async def partition(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Two halves, each with a relay and a bootstrap node if there are two."""
    now = cluster.world.elapsed
    asking = Asking(cluster, "partition")
    left, right = _halves(cluster, asking.rng)
    network = cluster.network
    bootstraps = [network.hosts[f"bootstrap-{n}"] for n in range(1, cluster.plan.bootstraps + 1)]
    lefts = [member.machine.host for member in left] + bootstraps[::2]
    rights = [member.machine.host for member in right] + bootstraps[1::2]

    def choose(rng: random.Random) -> tuple[Member, Member]:
        asker, asked = rng.sample(cluster.members, 2)
        return asker, asked

    def across(since: int, began_s: float) -> list[Answer]:
        """The ended queries between the halves that began at ``began_s`` or later."""
        answers = (answer for answer in asking.answers[since:] if answer.began_s >= began_s)
        return [a for a in answers if (a.asker in left) != (a.asked in left)]

    async with asking.going_on(choose, at_a_time=5, pause_s=1.0):
        await asyncio.sleep(2.0)
        narrate(f"{len(left)} members are cut off from the other {len(right)}")
        mark, cut_s = asking.mark, now()
        with network.partition(lefts, rights):
            await asyncio.sleep(HALF_SETTLES_S)
            await _goes_on(asking, expect, "one half", left)
            await _goes_on(asking, expect, "the other half", right)
            await asyncio.sleep(TWO_WAY_S - HALF_SETTLES_S)
            _nobody_gets_across(expect, "no query gets across", across(mark, cut_s))
        narrate("the cut is healed for a moment")
        await asyncio.sleep(BETWEEN_S)
        narrate("one half is no longer heard, though it hears the other")
        mark, cut_s = asking.mark, now()
        with network.partition(lefts, rights, one_way=True):
            await asyncio.sleep(ONE_WAY_S)
            _nobody_gets_across(
                expect, "nor while only one half hears the other", across(mark, cut_s)
            )
        narrate("that is healed, too")
    asking.claim_outcomes(expect)
    return {
        **asking.figures(),
        **await everybody_reaches_everybody(cluster, expect, narrate, asking, settle_s=SETTLE_S),
    }


def _nobody_gets_across(expect: Expectations, text: str, answers: list[Answer]) -> None:
    replies = [answer for answer in answers if answer.is_reply]
    expect.that(text, bool(answers) and not replies, shown(replies) or f"{len(answers)} tried")


async def _goes_on(asking: Asking, expect: Expectations, name: str, half: list[Member]) -> None:
    """Claim that every pair reaches each other, at the second try: the first query may be lost in a
    relay that is gone."""
    lost: list[Answer] = []
    for _ in range(2):
        async with together() as begin:
            tasks = [begin(asking.ask(a, b)) for a, b in itertools.permutations(half, 2)]
        lost = [answer for answer in (task.result() for task in tasks) if not answer.is_reply]
    expect.that(
        f"{name} works on its own",
        not lost,
        shown(lost) or f"{len(tasks)} pairs of {len(half)} members",
    )


def _halves(cluster: Cluster, rng: random.Random) -> tuple[list[Member], list[Member]]:
    """Split the members into halves, with some of each role in both."""
    left: list[Member] = []
    right: list[Member] = []
    for role in Role:
        members = cluster.those(role)
        rng.shuffle(members)
        left += members[::2]
        right += members[1::2]
    return left, right

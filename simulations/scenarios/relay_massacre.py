"""All relays of a hidden peer die, one after the other; then one comes back.

Some relays are killed, and their system closes their connections; others lose power, and fall
silent. As long as one lives, a hidden peer is reached through it; when none does, askers are told
the truth; and when one is back, everything works as before.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Final

from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate
from simulations.scenarios.asking import Answer, Asking, shown
from simulations.scenarios.liveness import everybody_reaches_everybody

__all__ = ["relay_massacre"]

BODY_BYTES: Final = 1_000
PAUSE_S: Final = 1.5
FAILOVER_BOUND_S: Final = 35.0
"""From a relay's death until every query gets through again: its clients notice when they renew
their leases, or when it has been silent for too long, and publish that it is gone."""
NONE_LEFT_S: Final = 25.0
BACK_BOUND_S: Final = 75.0
"""From a relay's return: its clients ask it again within a minute, and publish."""
SETTLE_S: Final = 40.0


async def relay_massacre(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Two hidden peers keep asking each other. Now and then a stranger asks one of them, each only
    once: the answer brings a direct connection, after which no relay is needed."""
    asking = Asking(cluster, "relay-massacre")
    hidden, other = cluster.those(Role.UNREACHABLE)[:2]
    strangers = iter(cluster.those(Role.REACHABLE))
    relays = cluster.those(Role.RELAY)
    asking.rng.shuffle(relays)

    def choose(rng: random.Random) -> tuple[Member, Member]:
        return (hidden, other) if rng.random() < 0.5 else (other, hidden)

    await _is_relayed(cluster, expect, asking, hidden, other)
    began = asking.mark
    failovers_s: list[float] = []
    async with asking.going_on(choose, at_a_time=2, pause_s=PAUSE_S, bodies=(BODY_BYTES,)):
        for left in range(len(relays) - 1, -1, -1):
            died_s, mark = cluster.world.elapsed(), asking.mark
            await _dies(cluster, narrate, relays[left], suddenly=asking.rng.random() < 0.5)
            await asyncio.sleep(FAILOVER_BOUND_S)
            if left:
                failovers_s.append(_until_steady_s(asking.answers[mark:], died_s))
                expect.that(
                    f"with {left} of {len(relays)} relays left, all queries get through again",
                    failovers_s[-1] < FAILOVER_BOUND_S,
                    f"from {failovers_s[-1]:.1f} s after the death on",
                )
                await _stranger_asks(expect, asking, next(strangers, None), hidden)
        await _none_is_left(cluster, expect, asking, next(strangers, None), hidden)

        back = asking.rng.choice(relays)
        narrate(f"{back.name} comes back")
        back_s, mark = cluster.world.elapsed(), asking.mark
        await back.restart()
        await asyncio.sleep(BACK_BOUND_S)
        return_s = _until_steady_s(asking.answers[mark:], back_s)
        expect.that(
            "with one relay back, all queries get through again",
            return_s < BACK_BOUND_S,
            f"from {return_s:.1f} s after its return on",
        )
        await _stranger_asks(expect, asking, next(strangers, None), hidden)
    asking.claim_outcomes(expect, began)
    figures = asking.figures(began)
    narrate("the other relays come back")
    for relay in relays:
        if relay.gone:
            await relay.restart()
    return {
        "relay_death_to_steady_replies_max_ms": max(failovers_s) * 1000,
        "relay_return_to_steady_replies_ms": return_s * 1000,
        **figures,
        **await everybody_reaches_everybody(cluster, expect, narrate, asking, settle_s=SETTLE_S),
    }


async def _is_relayed(
    cluster: Cluster, expect: Expectations, asking: Asking, hidden: Member, other: Member
) -> None:
    answer = await asking.ask(other, hidden)
    path = other.path_to(hidden)
    expect.that(
        "two hidden peers reach each other through a relay",
        answer.is_reply and cluster.relay_of(path) is not None,
        path,
    )


async def _dies(cluster: Cluster, narrate: Narrate, relay: Member, *, suddenly: bool) -> None:
    if suddenly:
        narrate(f"{relay.name} loses its power")
        relay.cut_power()
    else:
        narrate(f"{relay.name} is killed")
        await cluster.crash(relay)


async def _stranger_asks(
    expect: Expectations, asking: Asking, stranger: Member | None, hidden: Member
) -> None:
    if stranger is not None:
        answer = await asking.ask(stranger, hidden)
        expect.that(f"{stranger.name}, a stranger, gets through as well", answer.is_reply, answer)


async def _none_is_left(
    cluster: Cluster,
    expect: Expectations,
    asking: Asking,
    stranger: Member | None,
    hidden: Member,
) -> None:
    """Claim that nobody is reached; those who talk have noticed by now."""
    since_s, mark = cluster.world.elapsed(), asking.mark
    await asyncio.sleep(NONE_LEFT_S)
    if stranger is not None:
        await asking.ask(stranger, hidden)
    answers = [answer for answer in asking.answers[mark:] if answer.began_s >= since_s]
    reached = [answer for answer in answers if answer.is_reply]
    expect.that(
        "with no relay left, nobody is reached", bool(answers) and not reached, shown(reached)
    )
    untrue = [answer for answer in answers if answer.may_have_run]
    expect.that(
        "and every asker is told that nothing left its machine",
        not untrue,
        shown(untrue) or f"{len(answers)} queries",
    )


def _until_steady_s(answers: Iterable[Answer], since_s: float) -> float:
    """How long after ``since_s`` the last unanswered query ended; infinite unless a later query was
    answered."""
    later = sorted((a for a in answers if a.began_s >= since_s), key=lambda a: a.began_s)
    if not later or not later[-1].is_reply:
        return float("inf")
    return max((a.ended_s - since_s for a in later if not a.is_reply), default=0.0)

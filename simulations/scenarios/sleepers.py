"""Laptops fall asleep for minutes to an hour, in the middle of anything, and wake up.

A sleeping machine sends nothing, and its timers stand still; when it wakes, its leases have expired
and its connections are dead, which it does not know. Impatient members ask again every second,
which measures how soon a woken machine can be reached, and can reach others.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate
from simulations.scenarios.asking import Asking, together
from simulations.scenarios.liveness import everybody_reaches_everybody

__all__ = ["sleepers"]

NAPS_S: Final = (40.0, 70.0, 150.0, 600.0, 3600.0)
"""Shorter than a lease, longer, longer than an idle connection lives, a lecture, a lunch."""
AWAKE_S: Final = 60.0
AGAIN_S: Final = 1.0
AWAKE_BOUND_S: Final = 12.0
"""From waking up to an answered query, in both directions."""
SETTLE_S: Final = 40.0


async def sleepers(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """A reachable laptop and a hidden one; alice and a hidden peer stay awake."""
    asking = Asking(cluster, "sleepers")
    rng = asking.rng
    reachable = cluster.those(Role.REACHABLE)
    hidden = cluster.those(Role.UNREACHABLE)
    laptops = [reachable[-1], hidden[-1]]
    others = [reachable[0], hidden[0]]
    slowest_s = {"to": 0.0, "from": 0.0}
    for nap_s in NAPS_S:
        narrate(
            f"{' and '.join(m.name for m in laptops)} fall asleep for {nap_s:g} s, in mid-query"
        )
        async with together() as begin:
            for laptop in laptops:
                for other in others:
                    await asking.ask(other, laptop)
                    begin(asking.ask(other, laptop))
                    begin(asking.ask(laptop, other))
            await asyncio.sleep(rng.uniform(0.0, 0.05))
            for laptop in laptops:
                laptop.machine.host.sleep()
            await asyncio.sleep(nap_s / 2)
            for laptop in laptops:
                for other in others:
                    begin(asking.ask(other, laptop))
            await asyncio.sleep(nap_s / 2)
            for laptop in laptops:
                laptop.machine.host.wake()
            tasks = []
            for laptop in laptops:
                for other in others:
                    tasks.append(("to", begin(_until_answered_s(cluster, asking, other, laptop))))
                    tasks.append(("from", begin(_until_answered_s(cluster, asking, laptop, other))))
        for way, task in tasks:
            slowest_s[way] = max(slowest_s[way], task.result())
        await asyncio.sleep(AWAKE_S)
    expect.that(
        "a laptop that has woken up is reached within seconds",
        slowest_s["to"] < AWAKE_BOUND_S,
        f"after {slowest_s['to']:.1f} s at most, in {len(NAPS_S)} naps",
    )
    expect.that(
        "and reaches others",
        slowest_s["from"] < AWAKE_BOUND_S,
        f"after {slowest_s['from']:.1f} s at most",
    )
    asking.claim_outcomes(expect)
    return {
        "wake_to_reached_max_ms": slowest_s["to"] * 1000,
        "wake_to_reaching_max_ms": slowest_s["from"] * 1000,
        **asking.figures(),
        **await everybody_reaches_everybody(cluster, expect, narrate, asking, settle_s=SETTLE_S),
    }


async def _until_answered_s(
    cluster: Cluster, asking: Asking, asker: Member, asked: Member
) -> float:
    """How long an impatient asker takes to get an answer, asking again every second."""
    began_s = cluster.world.elapsed()
    answered = asyncio.Event()
    answered_s: list[float] = []

    async def once() -> None:
        if (await asking.ask(asker, asked)).is_reply and not answered.is_set():
            answered.set()
            answered_s.append(cluster.world.elapsed() - began_s)

    async with together() as begin:
        while not answered.is_set() and cluster.world.elapsed() < began_s + 60:
            begin(once())
            try:
                async with asyncio.timeout(AGAIN_S):
                    await answered.wait()
            except TimeoutError:
                pass
    return answered_s[0] if answered_s else math.inf

"""Everybody asks one peer at once, again and again, while two others talk.

The crowd's queries are answered, or refused at once as too many; the two others do not notice.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate
from simulations.scenarios.asking import Answer, Asking, shown, together
from simulations.scenarios.liveness import everybody_reaches_everybody

__all__ = ["flash_crowd"]

ROUNDS: Final = 5
AT_ONCE: Final = 40
"""Queries per member and round."""
PAUSE_S: Final = 2.0
BYSTANDERS_BOUND_S: Final = 1.0
SETTLE_S: Final = 5.0


async def flash_crowd(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Alice is famous for a minute. Bob and carol talk."""
    asking = Asking(cluster, "flash-crowd")
    alice, bob, carol = cluster.those(Role.REACHABLE)[:3]
    crowd = [m for m in cluster.members if m not in (alice, bob, carol)]
    # Get the handshake over with, so that the bystanders' figures show the crowd's effect alone.
    await asking.ask(bob, carol)
    began = asking.mark
    narrate(f"{len(crowd)} members ask alice {AT_ONCE} things at once, {ROUNDS} times")
    over = asyncio.Event()
    beside: list[Answer] = []

    async def talk(asker: Member, asked: Member) -> None:
        while not over.is_set():
            beside.append(await asking.ask(asker, asked))
            await asyncio.sleep(0.1)

    crowded: list[Answer] = []
    async with together() as begin:
        begin(talk(bob, carol))
        for _ in range(ROUNDS):
            tasks = [begin(asking.ask(m, alice)) for m in crowd for _ in range(AT_ONCE)]
            crowded += [await task for task in tasks]
            await asyncio.sleep(PAUSE_S)
        over.set()

    asking.claim_outcomes(expect, began)
    refused = [a for a in crowded if not a.is_reply and a.outcome != "handler failed"]
    expect.that(
        "everybody gets a reply, or is told that it is too much",
        not refused,
        shown(refused) or f"{sum(a.is_reply for a in crowded)} replies of {len(crowded)}",
    )
    expect.that("most are answered", sum(a.is_reply for a in crowded) > 0.9 * len(crowded))
    lost = [answer for answer in beside if not answer.is_reply]
    expect.that(
        "nobody else loses a query", not lost, shown(lost) or f"{len(beside)} queries beside it"
    )
    slowest_s = max(answer.took_s for answer in beside)
    expect.that(
        f"or waits longer than {BYSTANDERS_BOUND_S:g} s for a reply",
        slowest_s < BYSTANDERS_BOUND_S,
        f"{slowest_s * 1000:.0f} ms at most",
    )
    held = len(alice.node._engine.exchanges) if alice.node._engine is not None else 0
    figures = {
        "crowd_members": float(len(crowd)),
        "crowd_queries": float(len(crowded)),
        "crowd_slowest_reply_ms": max(a.took_s for a in crowded) * 1000,
        "bystanders_slowest_reply_ms": slowest_s * 1000,
        "alice_open_afterwards_exchanges": float(held),
    }
    return {
        **figures,
        **await everybody_reaches_everybody(cluster, expect, narrate, asking, settle_s=SETTLE_S),
    }

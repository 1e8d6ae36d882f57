"""Nodes come and go all the time, in every possible way, while others talk.

Nodes that stay must not notice, which is claimed of the pairs in which both stay. A node that goes
may take the queries on their way to it along.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from typing import Final

from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate
from simulations.scenarios.asking import Asking, shown, together
from simulations.scenarios.liveness import everybody_reaches_everybody

__all__ = ["churn"]

LASTS_S: Final = 45.0
EVENT_EVERY_S: Final = 2.5
"""Average time between two events, each of which is somebody coming or going."""
AWAY_S: Final = (2.0, 20.0)
"""How long a member that restarts is away."""
RELAY_AWAY_S: Final = (1.0, 4.0)
"""The same for a relay; shorter, since newcomers want a lease at every relay."""
SETTLE_S: Final = 45.0
"""Time to notice the death of every relay, and to ask for every lease again."""
NEWCOMERS_MAX: Final = 6
STAYING_SHARE: Final = 0.3
"""The least share of queries between two members that stay."""

JOIN, LEAVE, CRASH, POWER_CUT, LOST_DISK = "join", "leave", "crash", "power cut", "lost disk"
WAYS: Final = (JOIN, LEAVE, CRASH, POWER_CUT, LOST_DISK)


async def churn(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Half of the peers stay; the others, and newcomers, come and go."""
    asking = Asking(cluster, "churn")
    peers = cluster.those(Role.REACHABLE)
    stays = peers[: (len(peers) + 1) // 2]
    comings = _Comings(cluster, narrate, asking.rng, stays)

    def choose(rng: random.Random) -> tuple[Member, Member]:
        if rng.random() < STAYING_SHARE:
            asker, asked = rng.sample(stays, 2)
            return asker, asked
        asker = rng.choice(comings.here)
        return asker, rng.choice([member for member in cluster.members if member is not asker])

    narrate(f"{', '.join(member.name for member in stays)} stay; the others come and go")
    async with asking.going_on(choose, at_a_time=4, pause_s=1.0, bodies=(10, 100, 40_000)):
        await comings.go_on()
    expect.that(
        "nodes came and went in every possible way",
        all(comings.happened[way] for way in WAYS),
        ", ".join(f"{comings.happened[way]} times {way}" for way in WAYS),
    )
    asking.claim_outcomes(expect)
    between = [a for a in asking.answers if a.asker in stays and a.asked in stays]
    lost = [answer for answer in between if not answer.is_reply]
    expect.that(
        "those who stay always reach each other",
        bool(between) and not lost,
        shown(lost) or f"{len(between)} queries",
    )
    return {
        **{f"churn_{way.replace(' ', '_')}_events": comings.happened[way] for way in WAYS},
        **asking.figures(),
        **await everybody_reaches_everybody(cluster, expect, narrate, asking, settle_s=SETTLE_S),
    }


class _Comings:
    """Makes members come and go."""

    def __init__(
        self, cluster: Cluster, narrate: Narrate, rng: random.Random, stays: Iterable[Member]
    ) -> None:
        self.here: Final = list(cluster.members)
        """The members that are running."""
        self.happened: Final[Counter[str]] = Counter()
        self._cluster = cluster
        self._narrate = narrate
        self._rng = rng
        self._stays = frozenset(stays)
        self._relay_is_away = False
        self._newcomers = 0

    async def go_on(self) -> None:
        """Make members come and go. Returns once all that should come back are back."""
        elapsed = self._cluster.world.elapsed
        until_s = elapsed() + LASTS_S
        # Every way gets one turn first, so that none is missed by chance.
        turns = list(WAYS)
        async with together() as begin:
            while elapsed() < until_s:
                begin(self._happen(turns.pop() if turns else self._rng.choice(list(WAYS))))
                await asyncio.sleep(self._rng.expovariate(1 / EVENT_EVERY_S))

    async def _happen(self, way: str) -> None:
        if way == JOIN:
            await self._come()
            return
        may_go = [member for member in self.here if self._may(member, way)]
        if not may_go:
            return
        goer = self._rng.choice(may_go)
        self._narrate(f"{goer.name} goes: {way}")
        self.here.remove(goer)
        if way == LEAVE:
            await self._cluster.leave(goer)
            self.happened[way] += goer.gone
            return
        is_relay = goer.role is Role.RELAY
        self._relay_is_away = self._relay_is_away or is_relay
        if way == CRASH:
            await self._cluster.crash(goer)
        else:
            goer.cut_power()
        self.happened[way] += goer.gone
        await asyncio.sleep(self._rng.uniform(*(RELAY_AWAY_S if is_relay else AWAY_S)))
        await goer.restart(keep_disk=way != LOST_DISK)
        self._narrate(f"{goer.name} is back")
        self.here.append(goer)
        self._relay_is_away = self._relay_is_away and not is_relay

    async def _come(self) -> None:
        if self._newcomers == NEWCOMERS_MAX:
            return
        self._newcomers += 1
        newcomer = await self._cluster.join(f"newcomer-{self._newcomers}")
        self._narrate(f"{newcomer.name} is there")
        self.here.append(newcomer)
        self.happened[JOIN] += 1

    def _may(self, member: Member, way: str) -> bool:
        """Whether a member may go that way: relays keep their names, and go one at a time."""
        if member in self._stays:
            return False
        if member.role is Role.RELAY:
            return way in (CRASH, POWER_CUT) and not self._relay_is_away
        return way != LEAVE or member.role is Role.REACHABLE

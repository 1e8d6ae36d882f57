"""Half of the peers change address, one after the other, while everybody talks.

Some learn from their machine that they have moved. Those behind a NAT do not: their provider gave
the router another address, and all they notice is silence.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Final

from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate
from simulations.scenarios.asking import Asking
from simulations.scenarios.ip_change import dialled_knowing_better
from simulations.scenarios.liveness import everybody_reaches_everybody

__all__ = ["rolling_ip"]

MOVE_EVERY_S: Final = 4.0
SETTLE_S: Final = 40.0
"""A node behind a NAT notices when it renews its leases, and asks again after some seconds."""


async def rolling_ip(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Every second peer moves, relays and hidden peers among them."""
    asking = Asking(cluster, "rolling-ip")
    movers = cluster.members[::2]
    asking.rng.shuffle(movers)

    def choose(rng: random.Random) -> tuple[Member, Member]:
        asker, asked = rng.sample(cluster.members, 2)
        return asker, asked

    narrate(f"{len(movers)} of {len(cluster.members)} members are going to move")
    moves: list[_Move] = []
    async with asking.going_on(choose, at_a_time=5, pause_s=0.8, bodies=(10, 1_000, 40_000)):
        for mover in movers:
            await asyncio.sleep(asking.rng.uniform(0.5, 1.5) * MOVE_EVERY_S)
            if mover.role is Role.UNREACHABLE:
                narrate(f"the router of {mover.name} gets another address")
                mover.machine.gain_address()
                continue
            (old,) = mover.node.listening
            await cluster.move(mover)
            (new,) = mover.node.listening
            # Take the sequence only now: it may have signed more than one record while it moved.
            moves.append(_Move(mover, old, new, mover.node.record.sequence))
            narrate(f"{mover.name} moved from {old} to {new}")
        await asyncio.sleep(MOVE_EVERY_S)
    asking.claim_outcomes(expect)
    expect.that(
        "a peer that is told of its move says so in its record",
        bool(moves) and all(move.new in _addresses(move.member) for move in moves),
        f"{len(moves)} records",
    )
    expect.that(
        "and no longer names the old address",
        not any(move.old in _addresses(move.member) for move in moves),
        ", ".join(f"{move.member.name} left {move.old}" for move in moves),
    )
    figures = {
        **asking.figures(),
        **await everybody_reaches_everybody(cluster, expect, narrate, asking, settle_s=SETTLE_S),
    }
    offences = [
        f"{member.name} dialled {move.member.name} at {address}"
        for move in moves
        for member in cluster.members
        for address in dialled_knowing_better(member, move.member, move.sequence, move.old)
    ]
    expect.that(
        "nobody dials an address that it knows to be old",
        not offences,
        "\n".join(offences) or f"{len(moves)} old addresses in {len(cluster.members)} logs",
    )
    return {
        "moved_members": len(movers),
        "old_address_after_new_record_is_known_dials": len(offences),
        **figures,
    }


@dataclass(frozen=True, slots=True)
class _Move:
    """The move of a member that was told of it."""

    member: Member
    old: str
    new: str
    sequence: int
    """The sequence of the first record that says so, or of a later one."""


def _addresses(member: Member) -> list[str]:
    return [str(strategy.address) for strategy in member.node.record.tcp]

"""Old records circulate: nobody accepts one after a newer one, and the newest wins in the end.

One peer moves while half of the network cannot hear of it; another restarts with its clock set
back, as a machine without a real-time clock does; a third is away until its record has expired.
"""

from __future__ import annotations

import asyncio
from typing import Final

from egtp import LookupFailed
from simulations.cluster import Cluster
from simulations.expectations import Expectations, within
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate
from simulations.scenarios.asking import Asking
from simulations.scenarios.ip_change import dialled_knowing_better
from simulations.scenarios.liveness import everybody_reaches_everybody

__all__ = ["stale_records"]

CUT_S: Final = 60.0
YEAR_S: Final = 365 * 24 * 3600.0
EXPIRED_S: Final = 2 * 3600.0 + 60.0
CLOCK_WRONG_S: Final = 30.0
PUBLISHED_BOUND_S: Final = 90.0
"""A node whose record nobody stored tries again after at most a minute."""
FOUND_S: Final = 60.0
"""By then a network that was cut is whole again, and lookups return the newest record."""
SETTLE_S: Final = 40.0


async def stale_records(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Bob moves, carol's clock goes wrong, and dave is away for a long time."""
    asking = Asking(cluster, "stale-records")
    now = cluster.world.elapsed
    alice, bob, carol = cluster.those(Role.REACHABLE)[:3]
    dave = cluster.those(Role.REACHABLE)[-1]
    for other in (bob, carol, dave):
        await asking.ask(alice, other)

    narrate("bob moves while half of the network, alice too, is cut off from him")
    (old,) = bob.node.listening
    before = bob.node.record.sequence
    half = [member for member in cluster.members if member is not bob][::2]
    if alice not in half:
        half.append(alice)
    hosts = [member.machine.host for member in half]
    rest = [m.machine.host for m in cluster.members if m not in half]
    with cluster.network.partition(hosts, rest):
        await cluster.move(bob)
        await asyncio.sleep(CUT_S)
        await asking.ask(alice, bob)
    moved_s = now()
    answer = await asking.ask(alice, bob)
    while not answer.is_reply and now() < moved_s + FOUND_S:
        await asyncio.sleep(1)
        answer = await asking.ask(alice, bob)
    expect.that(
        "alice finds bob where he is now", answer.is_reply, f"{now() - moved_s:.1f} s after it"
    )
    sequence = _known(alice, bob)
    expect.that("and knows his newest record", sequence > before, f"{sequence} after {before}")

    published_ms = await _clock_back(cluster, expect, narrate, carol)
    await _away_for_long(cluster, expect, narrate, alice, dave)

    asking.claim_outcomes(expect)
    figures = {
        "clock_set_right_to_record_published_ms": published_ms,
        **asking.figures(),
    }
    live = await everybody_reaches_everybody(cluster, expect, narrate, asking, settle_s=SETTLE_S)
    finders = (alice, cluster.those(Role.UNREACHABLE)[0])
    seen = [(m, o, await _found(m, o)) for m in finders for o in cluster.members if m is not o]
    old_ones = [f"{m.name} finds {o.name}'s {k}" for m, o, k in seen if k < o.node.record.sequence]
    expect.that(
        "the DHT gives everybody's newest record",
        not old_ones,
        "\n".join(old_ones[:5]) or f"{len(seen)} lookups",
    )
    offenders = [
        member.name
        for member in cluster.members
        if dialled_knowing_better(member, bob, before + 1, old)
    ]
    expect.that(
        "and nobody dials an address that it knows to be old", not offenders, ", ".join(offenders)
    )
    return {**figures, **live}


async def _clock_back(
    cluster: Cluster, expect: Expectations, narrate: Narrate, carol: Member
) -> float:
    """With her clock a year behind, carol signs records that have already expired, and nobody
    stores them. Returns how long after the clock is set right a record is stored, in ms."""
    narrate("carol's machine restarts with its clock a year behind")
    newest = carol.node.record.sequence
    await carol.restart(clock_offset_s=-YEAR_S)
    sequence = carol.node.record.sequence
    expect.that("her records are still numbered upward", sequence > newest, f"after {newest}")
    await asyncio.sleep(CLOCK_WRONG_S)
    narrate("somebody sets the clock right")
    carol.machine.host.step_clock(YEAR_S)
    began_s = cluster.world.elapsed()
    text = "carol's record is stored in the DHT again"
    await within(PUBLISHED_BOUND_S, text, carol.node.published())
    return (cluster.world.elapsed() - began_s) * 1000


async def _away_for_long(
    cluster: Cluster, expect: Expectations, narrate: Narrate, alice: Member, dave: Member
) -> None:
    narrate(f"dave is away for {EXPIRED_S / 3600:.1f} h: his record expires")
    dave.cut_power()
    await asyncio.sleep(EXPIRED_S)
    found = await _found(alice, dave)
    expect.that("nobody finds an expired record", not found, str(found or "not found"))
    await dave.restart()
    await cluster.published(dave)
    # The one that is stored: during the lookup, a relay may cause him to sign another.
    newest = dave.node.record.sequence
    found = await _found(alice, dave)
    latest = dave.node.record.sequence
    text = f"{found} of {newest} to {latest}"
    expect.that("his new one is found", newest <= found <= latest, text)


def _known(member: Member, other: Member) -> int:
    """The sequence of the newest record that a member has of another; 0 if none."""
    record = member.node.why(other.node_id).record
    return 0 if record is None else record.sequence


async def _found(member: Member, other: Member) -> int:
    """The sequence of the newest record that a lookup returns; 0 if none."""
    try:
        return (await member.machine.run(member.lookup.resolve(other.node_id, fresh=True))).sequence
    except LookupFailed:
        return 0

"""A peer is gone. The caller learns soon, from local knowledge alone, that it is, and why.

A fast fail says more than "no answer": no copy of the query was given to anybody, so the caller may
safely do anything, even try again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Final

from egtp import FastFail, NodeId, TCPStrat
from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate

__all__ = ["fast_fail"]

BODY_BYTES: Final = 20_000
FAIL_BOUND_S: Final = 3.0
REFUSED_GOAL_S: Final = 0.05
REFUSED_BOUND_S: Final = 1.0
"""The goal is for an idle machine, which this one may not be."""


async def fast_fail(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Alice talks to bob, and bob leaves. Then alice asks for a peer that never existed."""
    now = cluster.world.elapsed
    entropy = cluster.world.entropy("fast-fail")
    body = entropy(BODY_BYTES)
    relays = cluster.those(Role.RELAY)
    alice, bob = cluster.those(Role.REACHABLE)[:2]

    expect.that("alice and bob talk", await alice.ask(bob, body) == body, alice.path_to(bob))
    strategies = bob.node.record.strategies

    narrate("bob leaves")
    his = [relay for relay in relays if relay.node_id in bob.node.relays]
    marks = {member: member.mark for member in (alice, *his)}
    await cluster.leave(bob)
    for member, mark in marks.items():
        await member.lost(bob, mark)

    narrate("alice asks him all the same")
    passed_on = _passed_on(relays)
    began_s = now()
    failure = await _failure(alice.ask(bob, body))
    gone_s = now() - began_s
    passed_on = _passed_on(relays) - passed_on
    expect.that("her query fails fast", failure is not None, failure and failure.summary)
    expect.that(f"within {FAIL_BOUND_S:g} s", gone_s < FAIL_BOUND_S, f"{gone_s * 1000:.0f} ms")
    attempts = () if failure is None else failure.attempts
    tried = Counter(a.strategy for a in attempts if a.strategy is not None)
    expect.that(
        "every strategy of bob's last record was tried",
        tried == Counter(strategies) and len(strategies) > 1,
        f"{len(tried)} of {len(strategies)}, each once",
    )
    expect.that(
        "with one reason each, and the lookup's",
        any(a.strategy is None for a in attempts) and all(a.reason for a in attempts),
        "\n".join(map(str, attempts)),
    )
    dials = [attempt for attempt in attempts if isinstance(attempt.strategy, TCPStrat)]
    refused_s = max((attempt.duration_s for attempt in dials), default=float("inf"))
    expect.that(
        "the closed port is refused at once",
        refused_s < REFUSED_BOUND_S and all("refused" in attempt.reason for attempt in dials),
        f"{refused_s * 1000:.1f} ms (goal {REFUSED_GOAL_S * 1000:g}, "
        f"bound here {REFUSED_BOUND_S * 1000:g})",
    )
    expect.that(
        "no part of it was given to anybody",
        failure is not None and not failure.may_have_run and not passed_on,
        f"{passed_on} packets passed on or held by relays",
    )

    narrate("alice asks for a peerId that nobody ever had")
    unknown = NodeId(entropy(20))
    began_s = now()
    failure = await _failure(alice.machine.run(alice.node.query(unknown, "echo", body)))
    unknown_s = now() - began_s
    attempts = () if failure is None else failure.attempts
    expect.that(
        "that fails fast as well",
        failure is not None and unknown_s < FAIL_BOUND_S,
        f"{unknown_s * 1000:.0f} ms",
    )
    expect.that(
        "from the lookup alone",
        [attempt.strategy for attempt in attempts] == [None],
        "\n".join(map(str, attempts)),
    )
    return {
        "gone_peer_fast_fail_ms": gone_s * 1000,
        "closed_port_refused_ms": refused_s * 1000,
        "unknown_peer_fast_fail_ms": unknown_s * 1000,
        "tried_strategies": len(tried),
    }


def _passed_on(relays: list[Member]) -> int:
    """How many packets the relays have accepted, passed on or held."""
    servers = [relay.node.relay_server for relay in relays]
    names = ("relayed packets", "held packets")
    return sum(server.counters[name] for server in servers if server for name in names)


async def _failure(query: Awaitable[bytes]) -> FastFail | None:
    try:
        await query
    except FastFail as error:
        return error
    return None

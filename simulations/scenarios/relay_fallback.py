"""A peer's direct path goes away, and queries go on through a relay; then the relay dies.

An answer does not prove which way a query went. So the relays' own counters are checked: every body
must have crossed the relay in use, there and back.
"""

from __future__ import annotations

from typing import Final

from egtp import RelayStrat
from egtp.events import Event, RecordPublished
from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate

__all__ = ["relay_fallback"]

BODY_BYTES: Final = 20_000
QUERIES: Final = 3
FALLBACK_BOUND_S: Final = 5.0
FAILOVER_BOUND_S: Final = 5.0


async def relay_fallback(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Alice talks to bob, who then accepts no connections any more."""
    now = cluster.world.elapsed
    body = cluster.world.entropy("relay-fallback")(BODY_BYTES)
    relays = cluster.those(Role.RELAY)
    alice, bob = cluster.those(Role.REACHABLE)[:2]

    crossed = _crossed(relays)
    replies = [await alice.ask(bob, body) for _ in range(QUERIES)]
    path = alice.path_to(bob)
    expect.that("alice and bob talk", replies == [body] * QUERIES, f"{QUERIES} queries")
    expect.that("directly", path.startswith("tcp "), path)
    grown = _grown(relays, crossed)
    # A handshake may: on slow lines, relays join the race before a direct connection is open.
    expect.that("and no body crosses a relay", sum(grown.values()) < len(body), _shown(grown))

    narrate("bob no longer accepts connections, and his open ones are cut")
    alices, bobs = alice.mark, bob.mark
    began_s = now()
    await cluster.hide(bob)
    await alice.lost(bob, alices)
    await bob.saw("bob publishes that relays are the only way to him", _says_relays_only, bobs)

    crossed = _crossed(relays)
    replies = [await alice.ask(bob, body)]
    fallback_s = now() - began_s
    replies += [await alice.ask(bob, body) for _ in range(QUERIES - 1)]
    expect.that(
        "the queries go on",
        replies == [body] * QUERIES and fallback_s < FALLBACK_BOUND_S,
        f"reply {fallback_s * 1000:.0f} ms after the cut",
    )
    path = alice.path_to(bob)
    relay = cluster.relay_of(path)
    expect.that("through a relay", relay is not None, path)
    grown = _grown(relays, crossed)
    relayed_bytes = 0 if relay is None else grown[relay]
    bodies_bytes = 2 * QUERIES * len(body)
    expect.that(
        "the relay's own counters say so",
        relayed_bytes >= bodies_bytes,
        f"{relayed_bytes:,} bytes, at least {bodies_bytes:,} expected",
    )

    hidden, other = cluster.those(Role.UNREACHABLE)[:2]
    narrate(f"{hidden.name} and {other.name}, who accept no connections either, talk")
    crossed = _crossed(relays)
    reply = await hidden.ask(other, body)
    expect.that("two peers that accept nothing talk", reply == body, hidden.path_to(other))
    grown = _grown(relays, crossed)
    expect.that("through relays as well", sum(grown.values()) >= 2 * len(body), _shown(grown))

    failover_s = 0.0
    if relay is not None:
        failover_s = await _relay_dies(cluster, expect, narrate, relay, body)
    return {
        "cut_to_next_reply_ms": fallback_s * 1000,
        "crash_to_next_reply_ms": failover_s * 1000,
        "relayed_bytes": relayed_bytes,
        "relay_overhead_bytes": relayed_bytes - bodies_bytes,
    }


async def _relay_dies(
    cluster: Cluster, expect: Expectations, narrate: Narrate, relay: Member, body: bytes
) -> float:
    """The relay in use dies suddenly. Returns how long it took until the next reply."""
    now = cluster.world.elapsed
    alice, bob = cluster.those(Role.REACHABLE)[:2]
    others = [other for other in cluster.those(Role.RELAY) if other is not relay]
    narrate(f"{relay.name} crashes")
    alices = alice.mark
    crossed = _crossed(others)
    began_s = now()
    await cluster.crash(relay)
    await alice.lost(relay, alices)
    reply = await alice.ask(bob, body)
    failover_s = now() - began_s
    expect.that(
        "the relay dies, and the queries go on",
        reply == body and failover_s < FAILOVER_BOUND_S,
        f"reply {failover_s * 1000:.0f} ms after the crash",
    )
    path = alice.path_to(bob)
    expect.that("through another relay", cluster.relay_of(path) in others, path)
    grown = _grown(others, crossed)
    expect.that("whose counters say so, too", sum(grown.values()) >= 2 * len(body), _shown(grown))
    return failover_s


def _crossed(relays: list[Member]) -> dict[Member, int]:
    return {relay: relay.relayed_bytes for relay in relays}


def _grown(relays: list[Member], before: dict[Member, int]) -> dict[Member, int]:
    return {relay: relay.relayed_bytes - before[relay] for relay in relays}


def _shown(grown: dict[Member, int]) -> str:
    used = [f"{relay.name} {count:,} bytes" for relay, count in grown.items() if count]
    return ", ".join(used) or "0 bytes"


def _says_relays_only(event: Event) -> bool:
    return (
        isinstance(event, RecordPublished)
        and bool(event.record.strategies)
        and all(isinstance(strategy, RelayStrat) for strategy in event.record.strategies)
    )

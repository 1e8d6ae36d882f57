"""A peer moves to another address in mid-conversation.

Yesterday's address may be somebody else's today. So this checks not only that the conversation goes
on, but also that nobody with the new record ever dials the old address again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egtp import TCPStrat
from egtp.events import Dialling, Event, PathOpened, RecordLearned
from simulations.cluster import Cluster
from simulations.expectations import Expectations
from simulations.member import Member, Role
from simulations.scenario import Figures, Narrate

__all__ = ["dialled_knowing_better", "ip_change"]

REPLY_BOUND_S: Final = 5.0


async def ip_change(cluster: Cluster, expect: Expectations, narrate: Narrate) -> Figures:
    """Alice talks to bob, and bob moves. Carol has never heard of bob."""
    now = cluster.world.elapsed
    alice, bob, carol = cluster.those(Role.REACHABLE)[:3]

    replies = [await alice.ask(bob, word) for word in (b"one", b"two", b"three")]
    expect.that("alice and bob talk", replies == [b"one", b"two", b"three"], "3 queries")
    (old,) = bob.node.listening
    path = alice.path_to(bob)
    expect.that("directly", path == f"tcp {old} (open)", path)
    before = bob.node.record.sequence

    narrate(f"bob moves away from {old}, and all his connections are cut")
    marks = {member: member.mark for member in cluster.members}
    began_s = now()
    await cluster.move(bob)
    (new,) = bob.node.listening
    narrate(f"bob is at {new} now, signs a new record and publishes it")
    stored = await cluster.published(bob)
    published_s = now() - began_s
    is_new = bob.node.record.sequence > before
    expect.that(
        "bob's new record is in the DHT", is_new and stored > 0, f"stored by {stored} nodes"
    )

    narrate("alice, who knows only the old record, asks the next question")
    asked_s = now()
    reply = await alice.ask(bob, b"four")
    reply_s, moved_s = now() - asked_s, now() - began_s
    expect.that(
        "her next query finds bob",
        reply == b"four" and moved_s < REPLY_BOUND_S,
        f"reply {moved_s * 1000:.0f} ms after the move",
    )
    learned = alice.learned(bob, before + 1)
    expect.that("through a new signed record", learned is not None, _news(alice, learned, before))
    await alice.saw("alice talks to bob directly again", _opened(bob, new), marks[alice])
    replies = [await alice.ask(bob, word) for word in (b"five", b"six")]
    path = alice.path_to(bob)
    expect.that("the conversation goes on", replies == [b"five", b"six"], "2 queries")
    expect.that("directly, at the new address", path.startswith(f"tcp {new}"), path)

    narrate("carol, who knows nothing about bob, asks him as well")
    sent = carol.lookup_datagrams
    asked_s = now()
    reply = await carol.ask(bob, b"hello")
    stranger_s = now() - asked_s
    expect.that("a stranger finds bob", reply == b"hello", f"{stranger_s * 1000:.0f} ms")
    news = _news(carol, carol.learned(bob, before + 1), before)
    expect.that("by a lookup in the DHT", news.endswith("by lookup"), news)
    dialled = [address for address in carol.dialled(marks[carol]) if address in (old, new)]
    expect.that("and dials the new address only", set(dialled) == {new}, ", ".join(dialled))

    offences = {
        member.name: len(dialled_knowing_better(member, bob, before + 1, old))
        for member in cluster.members
    }
    offenders = [name for name, count in offences.items() if count]
    expect.that(
        "nobody with the new record dials the old address",
        not offenders,
        f"but {', '.join(offenders)} did" if offenders else f"in {len(offences)} logs",
    )
    in_vain = [e for e in alice.events[marks[alice] : learned] if isinstance(e, Dialling)]
    return {
        "move_to_record_published_ms": published_s * 1000,
        "move_to_next_reply_ms": moved_s * 1000,
        "next_query_ms": reply_s * 1000,
        "stranger_query_ms": stranger_s * 1000,
        "stranger_lookup_datagrams": carol.lookup_datagrams - sent,
        "new_record_stored_by_nodes": stored,
        "old_address_before_new_record_is_known_dials": sum(str(e.address) == old for e in in_vain),
        "old_address_after_new_record_is_known_dials": sum(offences.values()),
    }


def dialled_knowing_better(member: Member, other: Member, sequence: int, old: str) -> list[str]:
    """The dials of ``member`` to ``old`` although it held a record of ``other`` with this sequence
    or a higher one. Dials before that are legitimate: they show it that the address is dead."""
    learned = member.learned(other, sequence)
    return [] if learned is None else [a for a in member.dialled(learned) if a == old]


def _opened(other: Member, address: str) -> Callable[[Event], bool]:
    def wanted(event: Event) -> bool:
        return (
            isinstance(event, PathOpened)
            and event.peer_id == other.node_id
            and isinstance(event.strategy, TCPStrat)
            and str(event.strategy.address) == address
        )

    return wanted


def _news(member: Member, learned: int | None, before: int) -> str:
    """Which record was learned, and from where."""
    event = None if learned is None else member.events[learned]
    if not isinstance(event, RecordLearned):
        return f"nothing newer than {before}"
    return f"number {event.record.sequence} after {before}, by {event.source}"

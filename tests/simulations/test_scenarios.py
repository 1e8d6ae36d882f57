"""Every story, told once by real nodes, and proof that each of its checks can fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from egtp.events import Dialling, Event, RecordLearned
from simulations import Cluster, ClusterPlan, Expectations, Member, Outcome, Role, Scenario, play
from simulations.scenarios import SCENARIOS
from simulations.virtual import run_in
from simulations.world import VirtualWorld


def failed(outcome: Outcome) -> list[str]:
    return [e.text for e in outcome.failed]


@pytest.mark.parametrize("name", [s.name for s in SCENARIOS.values() if not s.virtual_only])
async def test_every_expectation_holds(name: str, plan: ClusterPlan) -> None:
    outcome = await play(SCENARIOS[name], Cluster(plan))
    assert failed(outcome) == []
    assert len(outcome.expectations) >= 10
    assert outcome.figures
    assert all(value >= 0 for value in outcome.figures.values())
    assert min(outcome.stored) > 0


# A peer that does not do what the story says


def played(plan: ClusterPlan, name: str, kind: Callable[..., Cluster]) -> Outcome:
    """What came of a story in a cluster that spoils it: in virtual time, so that nobody waits for
    what is not to come."""
    world = VirtualWorld(plan.seed)
    return run_in(world.network, play(SCENARIOS[name], kind(plan, world))).value


class NobodyMoves(Cluster):
    async def move(self, member: Member) -> None:
        """The machine keeps its address."""


def test_a_peer_that_does_not_move_fails_the_ip_change(plan: ClusterPlan) -> None:
    outcome = played(plan, "ip-change", NobodyMoves)
    assert "bob's new record is in the DHT" in failed(outcome)
    assert "alice talks to bob directly again" in failed(outcome)


class MovesWithoutSayingSo(Cluster):
    async def move(self, member: Member) -> None:
        """Bob is cut off and comes back where he was."""
        await member.node.move(member.node.listening, dial_from=member.host)


def test_a_peer_without_a_new_record_fails_the_ip_change(plan: ClusterPlan) -> None:
    outcome = played(plan, "ip-change", MovesWithoutSayingSo)
    assert "bob's new record is in the DHT" in failed(outcome)
    # Where he is found is an old address, known from an old record.
    assert "through a new signed record" in failed(outcome)


def test_a_dial_of_the_old_address_fails_the_ip_change(plan: ClusterPlan) -> None:
    first: dict[Member, RecordLearned] = {}

    def watch(member: Member, event: Event) -> None:
        if isinstance(event, RecordLearned) and cluster.words(event.record.peer_id) == "bob":
            old = first.setdefault(member, event)
            if old is not event:
                member.events.append(Dialling(old.record.tcp[0].address))

    world = VirtualWorld(plan.seed)
    cluster = Cluster(plan, world, watch=watch)
    outcome = run_in(world.network, play(SCENARIOS["ip-change"], cluster)).value
    assert failed(outcome) == ["nobody with the new record dials the old address"]
    assert "alice" in outcome.failed[0].detail
    assert outcome.figures["old_address_after_new_record_is_known_dials"] > 0


class NobodyHides(Cluster):
    async def hide(self, member: Member) -> None:
        """The member accepts connections as before, though those it had are cut."""
        await member.node.move(member.node.listening, dial_from=member.host)


def test_a_peer_that_stays_reachable_fails_the_relay_fallback(plan: ClusterPlan) -> None:
    outcome = played(plan, "relay-fallback", NobodyHides)
    assert failed(outcome) == ["bob publishes that relays are the only way to him"]


class NoCounter(Counter[str]):
    """Stays at zero."""

    def __setitem__(self, key: str, value: int) -> None:
        return


class CountsNothing(Cluster):
    async def __aenter__(self) -> Any:
        await super().__aenter__()
        for relay in self.those(Role.RELAY):
            assert relay.node.relay_server is not None
            relay.node.relay_server.counters = NoCounter()
        return self


def test_relays_that_count_nothing_fail_the_relay_fallback(plan: ClusterPlan) -> None:
    outcome = played(plan, "relay-fallback", CountsNothing)
    assert failed(outcome) == [
        "the relay's own counters say so",
        "through relays as well",
        "whose counters say so, too",
    ]


class NobodyDies(Cluster):
    async def crash(self, member: Member) -> None:
        """The member goes on."""


def test_a_relay_that_lives_on_fails_the_relay_fallback(plan: ClusterPlan) -> None:
    outcome = played(plan, "relay-fallback", NobodyDies)
    assert failed(outcome) == ["alice notices that the way to relay-1 is gone"]


class ComesBack(Cluster):
    async def leave(self, member: Member) -> None:
        """The member's connections are cut, and that is all."""
        await member.node.move(member.node.listening, dial_from=member.host)


def test_a_peer_that_is_still_there_fails_the_fast_fail(plan: ClusterPlan) -> None:
    outcome = played(plan, "fast-fail", ComesBack)
    assert failed(outcome) == [
        "her query fails fast",
        "every strategy of bob's last record was tried",
        "with one reason each, and the lookup's",
        "the closed port is refused at once",
        "no part of it was given to anybody",
    ]


# What play itself checks


async def test_a_story_that_breaks_off_is_an_expectation_that_did_not_hold(
    plan: ClusterPlan,
) -> None:
    async def story(cluster: Cluster, expect: Expectations, narrate: object) -> dict[str, float]:
        raise ZeroDivisionError("of all things")

    outcome = await play(Scenario("broken", "", story), Cluster(plan))
    assert failed(outcome) == ["the story comes to its end"]
    assert outcome.failed[0].detail == "ZeroDivisionError: of all things"


async def test_a_task_that_is_left_is_told(plan: ClusterPlan) -> None:
    left: list[asyncio.Task[Any]] = []

    async def story(cluster: Cluster, expect: Expectations, narrate: object) -> dict[str, float]:
        left.append(asyncio.create_task(asyncio.Event().wait()))
        return {}

    outcome = await play(Scenario("untidy", "", story), Cluster(plan))
    left[0].cancel()
    assert failed(outcome) == ["nothing is left when the cluster is closed"]


async def test_an_error_that_nobody_saw_is_told(plan: ClusterPlan) -> None:
    async def story(cluster: Cluster, expect: Expectations, narrate: object) -> dict[str, float]:
        asyncio.get_running_loop().call_soon(int, "nothing")
        await asyncio.sleep(0)
        return {}

    outcome = await play(Scenario("unseen", "", story), Cluster(plan))
    assert failed(outcome) == ["nothing failed unseen"]
    assert "ValueError" in outcome.failed[0].detail

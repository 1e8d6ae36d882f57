"""The stories that take a simulated network: each holds, and each of its claims can fail.

What is sabotaged is the cluster, never the story: somebody who is told to move stays, a relay that
is to die lives on, a cut that is to be mended is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from egtp import IdentityFile
from egtp.engine.engine import Engine
from egtp.events import Dialling, Event, RecordLearned
from egtp.paths.silence import Silence, Verdict
from simulations import Cluster, ClusterPlan, Member, Outcome, Role, play
from simulations.scenarios import SCENARIOS
from simulations.virtual import Fault, run_in
from simulations.world import VirtualWorld

SEEDS = {
    "churn": (1, 2),
    "rolling-ip": (1, 2),
    "relay-massacre": (1, 4),
    "partition": (1, 2),
    "sleepers": (1,),
    "stale-records": (1,),
    "flash-crowd": (1, 2),
}
LIVENESS = "everybody reaches everybody again"


def tell(
    name: str, kind: Callable[..., Cluster] = Cluster, seed: int = 1, **options: Any
) -> tuple[Outcome, str]:
    """Play a scenario in a small cluster; what came of it, and the digest of all that happened."""
    world = VirtualWorld(seed)
    plan = ClusterPlan(nodes=11, relays=2, unreachable=2, bootstraps=2, seed=seed)
    run = run_in(world.network, play(SCENARIOS[name], kind(plan, world, **options)))
    return run.value, run.digest


@cache
def as_it_should_be(name: str, seed: int) -> tuple[Outcome, str]:
    """Played once, however many tests look at it."""
    return tell(name, seed=seed)


def failed(name: str, kind: Callable[..., Cluster]) -> set[str]:
    """What does not hold in a cluster of that kind."""
    return {expectation.text for expectation in tell(name, kind)[0].failed}


def story_of(name: str) -> ModuleType:
    """The module, whose name in its package is that of its function."""
    return import_module(f"simulations.scenarios.{name}")


@pytest.mark.parametrize(
    ("name", "seed"), [(n, seed) for n, seeds in SEEDS.items() for seed in seeds]
)
def test_every_expectation_holds(name: str, seed: int) -> None:
    outcome, _ = as_it_should_be(name, seed)
    assert [f"{e.text}: {e.detail}" for e in outcome.failed] == []
    assert len(outcome.expectations) >= 8
    assert outcome.figures
    assert all(0 <= value < float("inf") for value in outcome.figures.values())
    assert SCENARIOS[name].virtual_only
    # What came of queries while something was wrong, without those that are asked afterwards.
    (told,) = (e.detail for e in outcome.expectations if e.text.startswith("each query ends in"))
    counted = {
        f"during_faults_{words.replace(' ', '_')}_queries": int(count)
        for count, words in (part.split(" ", 1) for part in told.split(", "))
    }
    during = {name: n for name, n in outcome.figures.items() if name.startswith("during_faults")}
    assert during in (counted, {})


@pytest.mark.parametrize("name", ["churn", "rolling-ip", "partition", "flash-crowd"])
def test_a_story_happens_the_same_way_each_time(name: str) -> None:
    (once, digest), (again, same) = as_it_should_be(name, 1), tell(name, seed=1)
    assert same == digest
    assert again.figures == once.figures


class Other(Cluster):
    """Whose members can be made to do something else than they are told."""

    def _make(self, *args: Any, **options: Any) -> Member:
        member = super()._make(*args, **options)
        self.change(member)
        return member

    def change(self, member: Member) -> None:
        """What is otherwise about each of them."""


# What is claimed of every story: outcomes, and what is so when all is mended


class AskersGiveUp(Other):
    def change(self, member: Member) -> None:
        ask = member.ask

        async def asks(other: Member, body: bytes) -> bytes:
            return await asyncio.wait_for(ask(other, body), 0.2)

        member.ask = asks  # type: ignore[assignment, method-assign]


def test_an_outcome_that_is_not_promised_is_told() -> None:
    assert "each query ends in one of the promised outcomes" in failed("rolling-ip", AskersGiveUp)


class AskersWhoAreSlowAtFirst(Other):
    def change(self, member: Member) -> None:
        ask, slow = member.ask, [True] * 2

        async def asks(other: Member, body: bytes) -> bytes:
            if slow and slow.pop():
                await asyncio.sleep(11.0)
            return await ask(other, body)

        member.ask = asks  # type: ignore[assignment, method-assign]


def test_an_outcome_that_comes_too_late_is_told() -> None:
    # Some ask for the first time when all is mended.
    late = {"no later than its hard timeout", "within 5 s"}
    assert failed("rolling-ip", AskersWhoAreSlowAtFirst) == late


class SlowAskers(Other):
    def change(self, member: Member) -> None:
        ask = member.ask

        async def asks(other: Member, body: bytes) -> bytes:
            await asyncio.sleep(6.0)
            return await ask(other, body)

        member.ask = asks  # type: ignore[assignment, method-assign]


def test_replies_that_come_late_after_all_is_mended_are_told() -> None:
    assert "within 5 s" in failed("rolling-ip", SlowAskers)


class SomebodyWrongAnswers(Other):
    def change(self, member: Member) -> None:
        if member.role is Role.RELAY:
            ask = member.ask

            async def asks(other: Member, body: bytes) -> bytes:
                return await ask(other, body) + b"!"

            member.ask = asks  # type: ignore[assignment, method-assign]


def test_a_reply_that_is_not_what_was_asked_for_is_told() -> None:
    assert failed("rolling-ip", SomebodyWrongAnswers) == {
        "each query ends in one of the promised outcomes",
        LIVENESS,
    }


# Churn


class NobodyLeaves(Cluster):
    async def leave(self, member: Member) -> None:
        """The member stays."""


def test_nobody_who_leaves_fails_the_churn() -> None:
    assert failed("churn", NobodyLeaves) == {"nodes came and went in every possible way"}


class TakesOthersAlong(Cluster):
    async def leave(self, member: Member) -> None:
        """With the first who leaves, somebody who should stay is cut off, and stays so."""
        await super().leave(member)
        alice = self.those(Role.REACHABLE)[0].machine.host
        others = [host for host in self.network.hosts.values() if host is not alice]
        self.network.partition([alice], others)


def test_somebody_who_notices_the_others_coming_and_going_fails_the_churn() -> None:
    assert failed("churn", TakesOthersAlong) == {"those who stay always reach each other", LIVENESS}


# Rolling IP


class NobodyMoves(Cluster):
    async def move(self, member: Member) -> None:
        """The machine keeps its address."""


def test_peers_that_do_not_move_fail_the_rolling_ip() -> None:
    # The address that it knows to be old is the one that it still has.
    assert failed("rolling-ip", NobodyMoves) == {
        "and no longer names the old address",
        "nobody dials an address that it knows to be old",
    }


class MovesWithoutSayingSo(Cluster):
    async def move(self, member: Member) -> None:
        """Its record names no address any more."""
        await super().move(member)
        engine = member.node._engine
        assert engine is not None
        # It does not notice by itself, either.
        await engine.addresses.close()
        engine.announce(())


def test_peers_that_do_not_say_where_they_are_fail_the_rolling_ip() -> None:
    assert "a peer that is told of its move says so in its record" in failed(
        "rolling-ip", MovesWithoutSayingSo
    )


def test_a_dial_of_an_old_address_fails_the_rolling_ip() -> None:
    first: dict[tuple[Member, bytes], RecordLearned] = {}

    def watch(member: Member, event: Event) -> None:
        if isinstance(event, RecordLearned) and event.record.tcp:
            old = first.setdefault((member, bytes(event.record.peer_id)), event)
            if old.record.tcp != event.record.tcp:
                member.events.append(Dialling(old.record.tcp[0].address))

    outcome, _ = tell("rolling-ip", watch=watch)
    assert [e.text for e in outcome.failed] == ["nobody dials an address that it knows to be old"]
    assert outcome.figures["old_address_after_new_record_is_known_dials"] > 0


# Relay massacre


class NobodyComesBack(Other):
    def change(self, member: Member) -> None:
        async def restart(**_: Any) -> None:
            """It stays as it is."""

        member.restart = restart  # type: ignore[method-assign]


class RelaysLiveOn(NobodyComesBack):
    def change(self, member: Member) -> None:
        super().change(member)
        member.cut_power = lambda: None  # type: ignore[method-assign]

    async def crash(self, member: Member) -> None:
        """The member goes on."""


def test_relays_that_live_on_fail_the_massacre() -> None:
    assert {
        "with no relay left, nobody is reached",
        "and every asker is told that nothing left its machine",
    } <= failed("relay-massacre", RelaysLiveOn)


class AllDieAtOnce(Other):
    def change(self, member: Member) -> None:
        cut_power = member.cut_power

        def cut_power_of_all() -> None:
            for relay in self.those(Role.RELAY):
                if not relay.gone:
                    (cut_power if relay is member else type(relay).cut_power.__get__(relay))()

        member.cut_power = cut_power_of_all  # type: ignore[method-assign]

    async def crash(self, member: Member) -> None:
        member.cut_power()


def test_relays_that_all_die_at_once_fail_the_massacre() -> None:
    assert "with 1 of 2 relays left, all queries get through again" in failed(
        "relay-massacre", AllDieAtOnce
    )


def test_relays_that_do_not_come_back_fail_the_massacre() -> None:
    names = failed("relay-massacre", NobodyComesBack)
    assert {"with one relay back, all queries get through again", LIVENESS} <= names
    assert any("a stranger, gets through as well" in name for name in names)


class NoPathIsRelayed(Cluster):
    def relay_of(self, path: str) -> Member | None:
        return None


def test_hidden_peers_that_need_no_relay_fail_the_massacre() -> None:
    assert failed("relay-massacre", NoPathIsRelayed) == {
        "two hidden peers reach each other through a relay"
    }


# Partition


class Cuts(Cluster):
    """Whose network is cut otherwise than the story says."""

    async def __aenter__(self) -> Any:
        network = self.network
        partition = network.partition
        network.partition = lambda *a, **o: self.cut(partition, *a, **o)  # type: ignore[method-assign]
        return await super().__aenter__()

    def cut(self, partition: Callable[..., Fault], some: Any, others: Any, **options: Any) -> Fault:
        return partition(some, others, **options)


class NothingIsCut(Cuts):
    def cut(self, partition: Callable[..., Fault], some: Any, others: Any, **options: Any) -> Fault:
        return partition([], [])


def test_a_cut_that_is_none_fails_the_partition() -> None:
    assert failed("partition", NothingIsCut) == {
        "no query gets across",
        "nor while only one half hears the other",
    }


class EachIsAlone(Cuts):
    def cut(self, partition: Callable[..., Fault], some: Any, others: Any, **options: Any) -> Fault:
        return partition(some[:1], [*some[1:], *others], **options)


def test_a_half_that_is_cut_itself_fails_the_partition() -> None:
    assert "one half works on its own" in failed("partition", EachIsAlone)


class NothingIsMended(Cuts):
    def cut(self, partition: Callable[..., Fault], some: Any, others: Any, **options: Any) -> Fault:
        partition(some, others, **options)
        return partition([], [])


def test_a_cut_that_is_not_mended_fails_the_partition() -> None:
    assert LIVENESS in failed("partition", NothingIsMended)


# Sleepers, stale records, a crowd


def test_a_node_that_does_not_notice_that_it_slept_fails_the_sleepers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Engine, "_notice_sleep", lambda *_: None)
    monkeypatch.setattr(Silence, "look", lambda *_: Verdict.FINE)
    monkeypatch.setattr(story_of("sleepers"), "NAPS_S", (150.0,))
    assert "a laptop that has woken up is reached within seconds" in failed("sleepers", Cluster)


def test_a_node_that_forgets_its_numbers_fails_the_stale_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(IdentityFile, "load_sequence", lambda _: 0)
    # What comes after that takes hours.
    monkeypatch.setattr(story_of("stale_records"), "EXPIRED_S", 1.0)
    assert "her records are still numbered upward" in failed("stale-records", Cluster)


def test_bystanders_that_have_to_wait_fail_the_flash_crowd() -> None:
    assert "or waits longer than 1 s for a reply" in failed("flash-crowd", SlowAskers)


class AliceIsAway(Cluster):
    async def _start(self) -> None:
        await super()._start()
        await self.leave(self.those(Role.REACHABLE)[0])


def test_a_crowd_that_is_not_answered_fails_the_flash_crowd() -> None:
    broken = failed("flash-crowd", AliceIsAway)
    assert {"everybody gets a reply, or is told that it is too much", "most are answered"} <= broken

"""A race of strategies: who begins when, and what becomes of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from egtp import CommRecord, SignedCommRecord
from egtp.events import Dialling, Event
from egtp.reaching.race import Race
from egtp.reaching.strategy_choice import Plan
from egtp.values.attempts import Attempt, AttemptReason, Cause
from egtp.values.comm_strat import Address, CommStrat, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import NodeId
from simulations.virtual import Network, simulate
from tests.lab import LATENCY_S, Lab, in_lab

STAGGER_S = 0.25
DEAD_ENDS_AFTER_S = 3.0


def tcp(number: int) -> TCPStrat:
    return TCPStrat(Address(bytes([5, 0, 0, number]), 4000))


def contact(sequence: int, *numbers: int, key: bytes = bytes(32)) -> Contact:
    return Contact(NodeId(bytes(20)), bytes(32), key, sequence, tuple(map(tcp, numbers)), ())


class Track:
    """Attempts take as long as the test says, fail, and are logged. Of numbers from 8 on, little is
    hoped; 0 is refused."""

    def __init__(self, lasts_s: dict[int, float]) -> None:
        self.lasts_s = lasts_s
        self.begun: list[tuple[float, int, int]] = []
        """When, which strategy, and of the record of which sequence."""
        self.given_up: list[int] = []
        self.found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.race = Race(self.attempt, self.plan, STAGGER_S, self.found, DEAD_ENDS_AFTER_S)

    def plan(self, contact: Contact) -> Plan:
        refused = tuple(
            (one, Cause(AttemptReason.FAILED_BEFORE)) for one in contact.tcp if one == tcp(0)
        )
        dead_ends = tuple(one for one in contact.tcp if one.address.ip[3] >= 8)
        ways = tuple(one for one in contact.tcp if one != tcp(0) and one not in dead_ends)
        return Plan(ways, (), refused, dead_ends)

    async def attempt(self, strategy: CommStrat, contact: Contact) -> Attempt | None:
        assert isinstance(strategy, TCPStrat)
        number = strategy.address.ip[3]
        loop = asyncio.get_running_loop()
        self.begun.append((round(loop.time() - self.began_s, 3), number, contact.sequence))
        try:
            await asyncio.sleep(self.lasts_s.get(number, 10))
        except asyncio.CancelledError:
            self.given_up.append(number)
            raise
        return Attempt(strategy, AttemptReason.REFUSED, 0.0)

    async def run(self, scout: Coroutine[Any, Any, None] | None = None) -> float:
        loop = asyncio.get_running_loop()
        self.began_s = loop.time()
        await self.race.run(scout)
        return loop.time() - self.began_s

    @property
    def failed(self) -> list[int]:
        return [
            one.strategy.address.ip[3]
            for one in self.race.attempts
            if isinstance(one.strategy, TCPStrat)
        ]


def play(story: Callable[[Network], Coroutine[Any, Any, None]]) -> None:
    simulate(story, seed=1)


def test_each_begins_when_the_one_before_it_has_failed_or_had_its_stagger() -> None:
    async def story(_: Network) -> None:
        track = Track({1: 0.1, 2: 1.0, 3: 0.2})
        track.race.join(contact(1, 1, 2, 3))
        took_s = await track.run()
        assert [(when, one) for when, one, _ in track.begun] == [(0, 1), (0.1, 2), (0.35, 3)]
        assert track.failed == [1, 3, 2]
        assert took_s == pytest.approx(1.1)

    play(story)


def test_a_newer_contact_begins_at_once_and_what_was_next_of_the_older_one_is_dropped() -> None:
    async def story(_: Network) -> None:
        track = Track({1: 1.0, 4: 1.0})

        async def scout() -> None:
            await asyncio.sleep(0.1)
            track.race.join(contact(2, 4))

        track.race.join(contact(1, 1, 2, 3))
        await track.run(scout())
        assert track.begun == [(0, 1, 1), (0.1, 4, 2)]
        assert track.failed == [1, 4]

    play(story)


def test_what_is_under_way_is_not_tried_again_unless_the_key_is_another_one() -> None:
    async def story(_: Network) -> None:
        track = Track({1: 0.5, 2: 0.5})

        async def scout() -> None:
            await asyncio.sleep(0.1)
            track.race.join(contact(2, 1, 2))
            await asyncio.sleep(0.1)
            track.race.join(contact(3, 1, key=bytes([1]) * 32))

        track.race.join(contact(1, 1))
        await track.run(scout())
        assert track.begun == [(0, 1, 1), (0.1, 2, 2), (0.2, 1, 3)]

    play(story)


def test_the_same_contact_does_not_join_twice() -> None:
    async def story(_: Network) -> None:
        track = Track({1: 0.1})
        track.race.join(contact(1, 0, 1))
        await track.run()
        track.race.join(contact(1, 0, 1))
        assert await track.run() == 0
        assert len(track.begun) == 1
        assert track.failed == [0, 1], "what was passed over is listed, once"

    play(story)


def test_a_path_ends_it_at_once_and_the_rest_is_given_up() -> None:
    async def story(_: Network) -> None:
        track = Track({})

        async def scout() -> None:
            await asyncio.sleep(100)

        track.race.join(contact(1, 1, 2))
        asyncio.get_running_loop().call_later(0.3, track.found.set_result, None)
        assert await track.run(scout()) == pytest.approx(0.3)
        assert (track.given_up, track.failed) == ([1, 2], [])
        assert len(asyncio.all_tasks()) == 1

    play(story)


def test_without_anything_to_try_it_lasts_as_long_as_its_scout() -> None:
    async def story(_: Network) -> None:
        track = Track({})

        async def scout() -> None:
            await track.race.faltered()
            await asyncio.sleep(2)

        assert await track.run(scout()) == pytest.approx(2)
        assert await track.run() == 0

    play(story)


@pytest.mark.parametrize(("numbers", "after_s"), [((0,), 0.0), ((1,), 0.1), ((2,), STAGGER_S)])
def test_a_contact_falters_when_it_is_passed_over_has_failed_or_had_its_stagger(
    numbers: tuple[int, ...], after_s: float
) -> None:
    async def story(_: Network) -> None:
        track = Track({1: 0.1, 2: 1.0})
        faltered_s = -1.0

        async def scout() -> None:
            nonlocal faltered_s
            track.race.join(contact(1, *numbers))
            await track.race.faltered()
            faltered_s = asyncio.get_running_loop().time() - track.began_s

        await track.run(scout())
        assert faltered_s == pytest.approx(after_s)

    play(story)


@pytest.mark.parametrize(
    ("lasts_s", "begun"),
    [
        pytest.param({1: 1.0, 2: 0.1}, [(0, 1), (0.25, 2), (1.0, 8)], id="all else has failed"),
        pytest.param({1: 0.1, 2: 9.0}, [(0, 1), (0.1, 2), (3.1, 8)], id="another takes long"),
        pytest.param({1: 9.0, 2: 0.1}, [(0, 1), (0.25, 2), (3.25, 8)], id="the first takes long"),
    ],
)
def test_of_which_little_is_hoped_begins_when_all_else_has_failed_or_takes_long(
    lasts_s: dict[int, float], begun: list[tuple[float, int]]
) -> None:
    async def story(_: Network) -> None:
        track = Track({8: 0.5, **lasts_s})
        track.race.join(contact(1, 1, 2, 8))
        await track.run()
        assert [(when, one) for when, one, _ in track.begun] == begun

    play(story)


def test_while_of_the_next_little_is_hoped_a_scout_learns_that_the_others_falter() -> None:
    async def story(_: Network) -> None:
        track = Track({1: 9.0, 8: 9.0})
        faltered_s = -1.0

        async def scout() -> None:
            nonlocal faltered_s
            await track.race.faltered()
            faltered_s = asyncio.get_running_loop().time() - track.began_s

        track.race.join(contact(1, 1, 8))
        await track.run(scout())
        assert faltered_s == pytest.approx(STAGGER_S)
        assert [(when, one) for when, one, _ in track.begun] == [(0, 1), (3.0, 8)]

    play(story)


def test_cancelling_it_leaves_nothing() -> None:
    async def story(_: Network) -> None:
        track = Track({})
        track.race.join(contact(1, 1))
        task = asyncio.ensure_future(track.run(asyncio.sleep(100)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        assert track.given_up == [1]
        assert len(asyncio.all_tasks()) == 1

    play(story)


@pytest.mark.parametrize("dead", ["IPv6", "IPv4"])
def test_a_family_that_leads_nowhere_costs_a_stagger_and_no_timeout(dead: str) -> None:
    """IPv6 goes first; who has both, and can be reached by one of them, is reached by that one."""
    both = ("5.9.0.1", "2a00:1450::9"), ("5.8.0.1", "2a00:1450::8")

    async def story(lab: Lab) -> None:
        here, there = (lab.network.host(f"both {n}", *pair) for n, pair in enumerate(both))
        gone = lab.network.host("gone", "5.7.0.1", "2a00:1450::7")
        peer = await lab.node(on=there)
        listening = [f"{there.addresses[0]}:4000", f"[{there.addresses[1]}]:4000"]
        await there.run(peer.listen(listening))
        four, six = (TCPStrat(Address.parse(text)) for text in listening)
        silent = "[2a00:1450::7]:4000" if dead == "IPv6" else "5.7.0.1:4000"
        nowhere = TCPStrat(Address.parse(silent))
        strategies = (four, nowhere) if dead == "IPv6" else (nowhere, six)
        content = CommRecord(
            int(lab.network.story.unix_time()) + 600,
            bytes(8),
            ((1, peer.identity.channel_key),),
            strategies,
        )
        gone.crash()
        asker = await lab.asker(on=here)
        asker.add_contact(SignedCommRecord.sign(peer.identity, 2**40, content))
        began_s = lab.now_s
        assert await lab.query(asker, peer.node_id) == b"x"
        wait_s = asker.config.stagger_s if dead == "IPv6" else 0.0
        assert lab.now_s - began_s == pytest.approx(wait_s + 6 * LATENCY_S, abs=0.01)

    in_lab(Lab, story)


def test_a_relay_that_many_peers_are_behind_is_dialled_once_for_all_who_are_asked() -> None:
    async def story(lab: Lab) -> None:
        events: list[Event] = []
        relay = await lab.node(relay_server=True)
        peers = [await lab.hidden(relay) for _ in range(4)]
        asker = await lab.asker(*peers, observer=events.append)
        asked = (lab.query(asker, peer.node_id) for peer in peers)
        assert await asyncio.gather(*asked) == [b"x"] * 4
        assert [type(event) for event in events].count(Dialling) == 1

    in_lab(Lab, story)

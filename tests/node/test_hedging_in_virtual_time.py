"""When a hedge asks whom, to the millisecond: nodes on a simulated network, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from egtp import (
    Environment,
    HardTimeout,
    HedgeFailed,
    Identity,
    Incoming,
    MemoryLookup,
    Node,
    hedge,
)
from simulations.virtual import Fixed, Host, Link, Network, run_in

LATENCY_S: Final = 0.02
SOFT_S: Final = 1.0
HARD_S: Final = 3.5
NEVER_S: Final = 1000.0
TICK_S: Final = 0.05


class World:
    """An asker, and holders of a block that take their time; all are connected to already."""

    def __init__(self, network: Network) -> None:
        self._network: Final = network
        self._lookup: Final = MemoryLookup(network.story.unix_time)
        self._began_s = 0.0
        self.asked_s: Final[dict[int, float]] = {}
        """When each holder was asked, by its number."""
        self.given_up_s: Final[dict[int, float]] = {}
        """When each learned that nobody waits for it any more."""
        self.took_s = 0.0
        self.left_open: list[int] = []
        """Exchanges with each holder when the hedge had ended."""
        self.winner: int | None = None
        self.failed: HedgeFailed | None = None

    @property
    def _since_s(self) -> float:
        return round(self._network.loop.now - self._began_s, 3)

    async def _start(self, number: int, takes_s: float) -> tuple[Host, Node]:
        host = self._network.host(f"host {number}", f"5.{number}.0.1")
        node = Node(
            Identity.generate(host.entropy),
            listen=f"5.{number}.0.1:4000",
            lookup=self._lookup,
            environment=Environment(host.elapsed, host.unix_time, host.entropy),
        )

        @node.handler("block")
        async def block(query: Incoming) -> bytes:
            self.asked_s[number] = self._since_s
            try:
                await asyncio.sleep(takes_s)
            except asyncio.CancelledError:
                self.given_up_s[number] = self._since_s
                raise
            return b"block"

        @node.handler("hello")
        async def hello(query: Incoming) -> bytes:
            return b"hello"

        await host.run(node.start())
        await host.run(node.published())
        return host, node

    async def hedge(self, *take_s: float) -> None:
        host, asker = await self._start(0, 0)
        holders = [await self._start(number, takes) for number, takes in enumerate(take_s, 1)]
        peer_ids = [node.node_id for _, node in holders]

        async def ask() -> None:
            for peer_id in peer_ids:
                await asker.query(peer_id, "hello")
            self._began_s = self._network.loop.now
            try:
                reply = await hedge(
                    asker, peer_ids, "block", soft_timeout_s=SOFT_S, hard_timeout_s=HARD_S
                )
                self.winner = peer_ids.index(reply.peer_id) + 1
            except HedgeFailed as failed:
                self.failed = failed
            self.took_s = self._since_s
            self.left_open = [asker.why(peer_id).open_queries for peer_id in peer_ids]

        await host.run(ask())
        await asyncio.sleep(1)
        for its_host, node in ((host, asker), *holders):
            await its_host.run(node.close())


def play(*take_s: float) -> World:
    """Hedge among holders who take so long each."""
    network = Network(1, link=Link(latency=Fixed(LATENCY_S)))
    world = World(network)
    run_in(network, world.hedge(*take_s))
    assert world.left_open == [0] * len(take_s)
    return world


def near(*at_s: float) -> object:
    """To some milliseconds: timeouts pass on a coarse tick."""
    return pytest.approx(at_s if len(at_s) > 1 else at_s[0], abs=TICK_S)


def test_r6_each_is_asked_when_the_one_before_is_past_its_soft_timeout() -> None:
    world = play(NEVER_S, NEVER_S, 0.3, 0)
    assert tuple(world.asked_s.values()) == near(LATENCY_S, 1 + LATENCY_S, 2 + LATENCY_S)
    assert world.winner == 3
    assert world.took_s == near(2.3 + 2 * LATENCY_S)


def test_r6_losers_are_told_at_once_that_nobody_waits_for_them() -> None:
    world = play(NEVER_S, NEVER_S, 0.3)
    told_s = world.took_s + LATENCY_S
    assert tuple(world.given_up_s.values()) == near(told_s, told_s)


def test_r6_the_first_one_answers_late_and_wins_before_its_replacement() -> None:
    world = play(1.5, 0.6)
    assert world.winner == 1
    assert world.took_s == near(1.5 + 2 * LATENCY_S)
    assert list(world.given_up_s) == [2]


def test_one_that_answers_before_its_soft_timeout_is_the_only_one_asked() -> None:
    world = play(0.9, 0)
    assert (world.winner, list(world.asked_s)) == (1, [1])


def test_the_hard_timeout_is_of_all_of_it_however_many_were_asked() -> None:
    world = play(*[NEVER_S] * 6)
    assert world.failed is not None
    assert world.took_s == near(HARD_S)
    assert {type(error) for _, error in world.failed.outcomes} == {HardTimeout}
    assert len(world.failed.outcomes) == len(world.asked_s) == 4
    assert len(world.failed.not_asked) == 2
    assert tuple(world.asked_s.values()) == near(*(n + LATENCY_S for n in range(4)))


@pytest.mark.parametrize("holders", [1, 2])
def test_without_another_peer_the_last_one_is_waited_for_to_the_end(holders: int) -> None:
    world = play(*[NEVER_S] * (holders - 1), 2)
    assert world.winner == holders
    assert world.took_s == near(holders - 1 + 2 + 2 * LATENCY_S)

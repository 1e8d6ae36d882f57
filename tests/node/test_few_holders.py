"""A record that hardly anybody holds is published again soon."""

from __future__ import annotations

import asyncio

import pytest

from egtp import Environment, Friends, Identity, LookupFailed, Node, NodeId
from egtp.errors import LookupFailure
from egtp.lookup import Published
from egtp.values.comm_record import SignedCommRecord
from simulations.virtual import Network, simulate


class Holders:
    """A lookup service that is told how many nodes there are to store a record."""

    def __init__(self, *stored: int, asked: int) -> None:
        self.stored = list(stored)
        self.asked = asked
        self.published = 0

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        raise LookupFailed(LookupFailure.NOT_FOUND)

    async def publish(self, record: SignedCommRecord) -> Published:
        self.published += 1
        stored = self.stored.pop(0) if len(self.stored) > 1 else self.stored[0]
        return Published(stored, self.asked)


@pytest.mark.parametrize(
    ("stored", "asked", "times"),
    [
        ((1, 4), 4, 2),
        ((2, 2, 8), 8, 3),
        ((1,), 1, 4),  # Perhaps there is nobody else: after 1, 3 and 7 minutes.
        ((3,), 8, 1),
    ],
)
def test_it_is_published_until_enough_hold_it(
    stored: tuple[int, ...], asked: int, times: int
) -> None:
    async def story(network: Network) -> int:
        host = network.host("host", "5.0.0.1")
        holders = Holders(*stored, asked=asked)
        node = Node(
            Identity.generate(host.entropy),
            listen="5.0.0.1:4000",
            lookup=holders,
            environment=Environment(host.elapsed, host.unix_time, host.entropy),
        )
        await host.run(node.start())
        await asyncio.sleep(600)
        return holders.published

    assert simulate(story).value == times


def test_friends_who_are_told_nothing_are_not_missed_among_the_holders() -> None:
    """They are only asked, or only have their records kept here."""

    async def story(network: Network) -> tuple[int, Published]:
        host = network.host("host", "5.0.0.1")
        holders = Holders(8, asked=8)
        node = Node(
            Identity.generate(host.entropy),
            listen="5.0.0.1:4000",
            lookup=holders,
            friends=Friends(),
            environment=Environment(host.elapsed, host.unix_time, host.entropy),
        )
        await host.run(node.start())
        await asyncio.sleep(600)
        return holders.published, await node.published()

    times, published = simulate(story).value
    assert (times, published.failed) == (1, 0)

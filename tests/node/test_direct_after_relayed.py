"""A relay may be faster with the first handshake: the direct way is looked for all the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from discovery import StaticDiscovery
from egtp import (
    Address,
    Introduction,
    LookupFailed,
    LookupFailure,
    MemoryLookup,
    NodeId,
    SignedCommRecord,
    TCPStrat,
)
from egtp.events import Dialling, Event
from tests.lab import LATENCY_S, Lab, in_lab


class World(Lab):
    async def begin(self) -> None:
        """Somebody who asks, and a peer that has an address and a relay."""
        self.dialled: list[str] = []
        relay = await self.node(relay_server=True)
        known = StaticDiscovery([Introduction(relay.node_id, relay.record)])
        self.peer = await self.node(discovery=known)
        await asyncio.sleep(2)
        assert self.peer.record.tcp
        assert self.peer.record.relays
        self.records[self.peer] = self.peer.record
        self.caller = await self.asker(self.peer, observer=self.observe)

    def observe(self, event: Event) -> None:
        if isinstance(event, Dialling):
            self.dialled.append(str(event.address))

    @property
    def paths(self) -> tuple[str, ...]:
        return self.caller.why(self.peer.node_id).paths


def test_a_direct_way_that_was_slower_than_a_relay_is_used_as_soon_as_it_is_there() -> None:
    """Found by ``run_cluster --scenario=ip-change --seed=1040 --drawn``, whose line loses the first
    packet. On a long line a relay nearby is always the first."""

    async def story(world: World) -> None:
        await world.begin()
        with world.hosts[world.peer].block_inbound("drop"):
            assert await world.query(world.caller, world.peer.node_id) == b"x"
            assert world.paths[0].startswith("relay ")
        await asyncio.sleep(2)
        assert await world.query(world.caller, world.peer.node_id) == b"x"
        assert world.paths[0] == f"tcp {world.peer.listening[0]} (open)"

    in_lab(World, story)


def test_an_address_at_which_nobody_answered_at_first_is_dialled_again_ten_minutes_later() -> None:
    """It led nowhere: after its handshake, the peer was busy for a while. For as long as it is
    asked again and again, the path through its relay stays, so nothing else looks for another."""

    async def story(world: World) -> None:
        await world.begin()
        query = asyncio.ensure_future(world.query(world.caller, world.peer.node_id))
        while not world.paths:
            await asyncio.sleep(LATENCY_S / 10)
        assert world.paths[0].startswith("tcp ")
        one, other = world.hosts[world.caller], world.hosts[world.peer]
        line = world.network.partition([one], [other])
        await asyncio.sleep(5)
        line.heal()
        assert await query == b"x"
        for minute in range(12):
            assert world.paths[0].startswith("relay " if minute < 10 else "tcp ")
            await asyncio.sleep(60)
            assert await world.query(world.caller, world.peer.node_id) == b"x"

    in_lab(World, story)


class Counted(MemoryLookup):
    """Counts how often it is asked."""

    asked = 0

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        self.asked += 1
        raise LookupFailed(LookupFailure.NOT_FOUND)


def test_nobody_is_looked_up_for_addresses_that_may_not_be_dialled() -> None:
    """As those that most peers have in a network of their own, behind a NAT."""

    async def story(lab: Lab) -> None:
        hidden = await lab.hidden(await lab.node(relay_server=True))
        content = hidden.record.content
        assert content is not None
        at_home = TCPStrat(Address.parse("192.168.9.9:4000"))
        strategies = (at_home, *content.strategies)
        named = replace(content, strategies=strategies)
        record = SignedCommRecord.sign(hidden.identity, hidden.record.sequence + 1, named)
        lookup = Counted()
        caller = await lab.asker(lookup=lookup)
        caller.add_contact(record)
        lookup.asked = 0
        assert await lab.query(caller, hidden.node_id) == b"x"
        await asyncio.sleep(30)
        assert lookup.asked == 0

    in_lab(Lab, story)


def test_an_address_that_does_not_answer_is_tried_once_more_and_then_left_alone() -> None:
    async def story(world: World) -> None:
        await world.begin()
        with world.hosts[world.peer].block_inbound("drop"):
            for _ in range(60):
                assert await world.query(world.caller, world.peer.node_id) == b"x"
                await asyncio.sleep(1)
        assert world.dialled.count(world.peer.listening[0]) == 2
        assert world.paths[0].startswith("relay ")

    in_lab(World, story)

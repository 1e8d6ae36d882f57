"""A machine that is in another network, or in one again, tries anew what failed before. In virtual
time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import (
    Environment,
    FastFail,
    Identity,
    Incoming,
    Introduction,
    MemoryLookup,
    Node,
    NodeConfig,
    PublishFailed,
    SignedCommRecord,
)
from egtp.events import Event, RecordNotPublished, RecordPublished
from egtp.lookup import Published
from egtp.values.attempts import AttemptReason
from simulations.virtual import Host, Nat, NatKind
from tests.lab import LATENCY_S, Lab, in_lab

NOTICED_S = 2 * NodeConfig().address_poll_s
HOME = "5.200.0.1"
"""The laptop's address, which nobody else has."""


async def echo(query: Incoming) -> bytes:
    return query.body


class Laptop:
    """A machine whose addresses its node looks at. Unless it is told to listen, it only dials."""

    def __init__(self, lab: Lab, *, behind: Nat | None = None, **options: Any) -> None:
        gateway = None if behind is None else lab.network.gateway("router", behind)
        self.host: Host = lab.network.host("laptop", HOME, behind=gateway)
        self.sees = [HOME]
        world = Environment(
            self.host.elapsed,
            self.host.unix_time,
            self.host.entropy,
            local_addresses=lambda: self.sees,
        )
        identity = Identity.generate(self.host.entropy)
        options = {"lookup": lab.lookup} | options
        self.node = Node(identity, environment=world, **options)
        self.node.handle("echo", echo)
        lab.hosts[self.node] = self.host

    async def is_refused(self, lab: Lab, server: Node) -> AttemptReason:
        with pytest.raises(FastFail) as failed:
            await lab.query(self.node, server.node_id)
        return failed.value.attempts[0].reason


async def refused_for_long(lab: Lab, laptop: Laptop, server: Node) -> None:
    """Until an address is left alone for as long as any is."""
    with lab.hosts[server].block_inbound("refuse"):
        ends_s = lab.now_s + 60
        reason = None
        while lab.now_s < ends_s or reason is not AttemptReason.REFUSED:
            reason = await laptop.is_refused(lab, server)
            await asyncio.sleep(0.2)
    assert await laptop.is_refused(lab, server) is AttemptReason.FAILED_BEFORE


@pytest.mark.parametrize("sees", [[HOME], ["5.200.0.2"]], ids=["in one again", "in another"])
def test_an_address_that_failed_is_dialled_when_the_machine_is_in_a_network(
    sees: list[str],
) -> None:
    async def story(lab: Lab) -> None:
        server, laptop = await lab.node(), Laptop(lab)
        await laptop.host.run(laptop.node.start())
        laptop.sees = [] if sees == [HOME] else [HOME]
        await refused_for_long(lab, laptop, server)
        laptop.sees = sees
        await asyncio.sleep(NOTICED_S)
        assert await lab.query(laptop.node, server.node_id) == b"x"

    in_lab(Lab, story)


def test_an_address_that_failed_is_dialled_when_the_node_has_moved() -> None:
    async def story(lab: Lab) -> None:
        server, laptop = await lab.node(), Laptop(lab)
        await laptop.host.run(laptop.node.start())
        await refused_for_long(lab, laptop, server)
        await laptop.host.run(laptop.node.move(()))
        assert await lab.query(laptop.node, server.node_id) == b"x"

    in_lab(Lab, story)


def test_an_address_that_has_worked_since_it_failed_is_left_alone_no_longer_than_at_first() -> None:
    async def story(lab: Lab) -> None:
        server, laptop = await lab.node(), Laptop(lab)
        await laptop.host.run(laptop.node.start())
        await refused_for_long(lab, laptop, server)
        await asyncio.sleep(10)
        assert await lab.query(laptop.node, server.node_id) == b"x"
        await laptop.host.run(laptop.node.disconnect(server.node_id))
        with lab.hosts[server].block_inbound("refuse"):
            assert await laptop.is_refused(lab, server) is AttemptReason.REFUSED
            assert await laptop.is_refused(lab, server) is AttemptReason.FAILED_BEFORE
            await asyncio.sleep(0.6)
            assert await laptop.is_refused(lab, server) is AttemptReason.REFUSED

    in_lab(Lab, story)


@pytest.mark.parametrize("through_a_relay", [False, True], ids=["direct", "relayed"])
def test_a_dial_that_a_move_cuts_off_begins_again(*, through_a_relay: bool) -> None:
    """It is no fault of the address."""

    async def story(lab: Lab) -> None:
        server, laptop = await lab.node(relay_server=True), Laptop(lab)
        if through_a_relay:
            server = await lab.hidden(server)
        await laptop.host.run(laptop.node.start())
        query = await lab.open_query(laptop.node, server.node_id, "echo", b"x")
        for _ in range(3):
            await asyncio.sleep(LATENCY_S)
            assert not query.done()
            await laptop.host.run(laptop.node.move(()))
        assert await query == b"x"

    in_lab(Lab, story)


class Remote(MemoryLookup):
    """One that can be used from some time on."""

    works_from_s = 0.0

    async def publish(self, record: SignedCommRecord) -> Published:
        if asyncio.get_running_loop().time() < self.works_from_s:
            raise PublishFailed("this machine can send nothing to any node of the network")
        return await super().publish(record)


def test_who_runs_the_node_is_told_at_once_that_the_machine_has_no_network_and_has_one_again() -> (
    None
):
    async def story(lab: Lab) -> None:
        events: list[Event] = []
        lookup = Remote(lab.network.story.unix_time)
        laptop = Laptop(lab, lookup=lookup, listen=f"{HOME}:4000", observer=events.append)
        await laptop.host.run(laptop.node.start())
        await asyncio.sleep(20)
        for sees, works_from_s, told in (
            ([], float("inf"), RecordNotPublished),
            ([HOME], 0.0, RecordPublished),
        ):
            events.clear()
            laptop.sees, lookup.works_from_s = list(sees), works_from_s
            await asyncio.sleep(NOTICED_S)
            assert told in map(type, events)

    in_lab(Lab, story)


@pytest.mark.parametrize("late_s", [0.0, 3.0], ids=["at once", "after the address"])
def test_a_record_that_could_not_be_stored_is_when_the_machine_is_in_a_network_again(
    late_s: float,
) -> None:
    """Even if the address is there a little before the network can be used."""

    async def story(lab: Lab) -> None:
        lookup = Remote(lab.network.story.unix_time)
        laptop = Laptop(lab, lookup=lookup, listen=f"{HOME}:4000")
        laptop.sees, lookup.works_from_s = [], float("inf")
        await laptop.host.run(laptop.node.start())
        await asyncio.sleep(200)
        laptop.sees, lookup.works_from_s = [HOME], lab.now_s + late_s
        async with asyncio.timeout(NOTICED_S + 2 * late_s):
            await laptop.host.run(laptop.node.reachable())

    in_lab(Lab, story)


def test_when_a_query_shows_that_the_line_is_up_again_the_record_and_relays_do_not_wait() -> None:
    """Nothing on this machine shows it, and their pauses have grown to a minute."""

    async def story(lab: Lab) -> None:
        relay, server = await lab.node(relay_server=True), await lab.node()
        lookup = Remote(lab.network.story.unix_time)
        discovery = StaticDiscovery([Introduction(relay.node_id, relay.record)])
        laptop = Laptop(lab, lookup=lookup, discovery=discovery)
        await laptop.host.run(laptop.node.start())
        await laptop.host.run(laptop.node.reachable())
        laptop.node.add_contact(server.record)
        with lab.network.partition([laptop.host], [lab.hosts[relay], lab.hosts[server]]):
            lookup.works_from_s = float("inf")
            await asyncio.sleep(250)
        lookup.works_from_s = 0.0
        assert await lab.query(laptop.node, server.node_id) == b"x"
        async with asyncio.timeout(1):
            await laptop.host.run(laptop.node.reachable())

    in_lab(Lab, story)


def test_a_relay_that_could_not_be_reached_is_asked_when_the_machine_is_in_another_network() -> (
    None
):
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        introductions = [Introduction(relay.node_id, relay.record)]
        laptop = Laptop(lab, discovery=StaticDiscovery(introductions))
        with lab.hosts[relay].block_inbound("refuse"):
            await laptop.host.run(laptop.node.start())
            await asyncio.sleep(200)
        laptop.sees = ["5.200.0.2"]
        await asyncio.sleep(NOTICED_S)
        assert laptop.node.relays == (relay.node_id,)

    in_lab(Lab, story)


def test_leases_that_a_machine_loses_by_moving_again_and_again_are_no_fault_of_its_relays() -> None:
    """As when its default route goes to and fro between two networks."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        introductions = [Introduction(relay.node_id, relay.record)]
        laptop = Laptop(lab, discovery=StaticDiscovery(introductions))
        await laptop.host.run(laptop.node.start())
        await asyncio.sleep(1)
        for _ in range(10):
            for sees in ("5.200.0.2", HOME):
                laptop.sees = [sees]
                await asyncio.sleep(NOTICED_S)
                assert laptop.node.relays == (relay.node_id,)
        assert laptop.node.counters["relay lease failed: hung up at once"] == 0
        assert laptop.node.counters["connection closed: its local address is gone"] == 10

    in_lab(Lab, story)


def test_a_lease_is_renewed_at_once_when_the_machine_has_an_address_again() -> None:
    """The address may be the same, and the network another: then nothing else tells."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        introductions = [Introduction(relay.node_id, relay.record)]
        nat = Nat(NatKind.PORT_RESTRICTED, "5.201.0.1")
        laptop = Laptop(lab, behind=nat, discovery=StaticDiscovery(introductions))
        await laptop.host.run(laptop.node.start())
        await laptop.host.run(laptop.node.reachable())
        asker = await lab.node(listens=False)
        await asyncio.sleep(10)
        laptop.sees = []
        await asyncio.sleep(NOTICED_S)
        nat.change_address("5.202.0.1")
        laptop.sees = [HOME]
        await asyncio.sleep(NOTICED_S + 4)
        async with asyncio.timeout(1):
            assert await lab.query(asker, laptop.node.node_id) == b"x"

    in_lab(Lab, story)


def test_an_open_query_is_given_again_soon_when_the_machine_is_in_a_network_again() -> None:
    async def story(lab: Lab) -> None:
        server, laptop = await lab.node(), Laptop(lab)
        await laptop.host.run(laptop.node.start())
        await lab.query(laptop.node, server.node_id)
        laptop.sees = []
        with lab.network.partition([laptop.host], [lab.hosts[server]]):
            query = await lab.open_query(laptop.node, server.node_id, "echo", hard_timeout_s=900)
            await asyncio.sleep(300)
        healed_s = lab.now_s
        laptop.sees = [HOME]
        await query
        assert lab.now_s - healed_s < NOTICED_S + 2

    in_lab(Lab, story)

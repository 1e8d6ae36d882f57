"""What only a real machine has: both families on one port, its names, and two event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from egtp.errors import InvalidConfig, LookupFailed, LookupFailure, PublishFailed
from egtp.values.identity import Identity, NodeId
from lookup_dht import DHTLookup
from lookup_dht.state.state_file import NodeState
from lookup_dht.wire.contact import Contact
from tests.lookup_dht.at_hand import Sign, Start
from tests.lookup_dht.conftest import PATIENT


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_both_loops_publish_resolve_rebind_and_leave_nothing(
    new_loop: Callable[[], asyncio.AbstractEventLoop], identity: Identity, sign: Sign
) -> None:
    errors: list[dict[str, Any]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, it: errors.append(it))
        async with (
            DHTLookup("127.0.5.1:0", private_addresses=True) as seed,
            DHTLookup("127.0.5.2:0", [seed.address], private_addresses=True) as one,
            DHTLookup("127.0.5.3:0", [str(seed.address)], private_addresses=True) as two,
        ):
            await one.publish(sign(identity, 1))
            await one.rebind("127.0.5.4:0")
            await one.publish(sign(identity, 2))
            assert (await two.resolve(identity.node_id)).sequence == 2
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
    assert errors == []


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_without_a_network_a_lookup_fails_at_once(
    new_loop: Callable[[], asyncio.AbstractEventLoop], identity: Identity, sign: Sign
) -> None:
    async def scenario() -> None:
        # The system sends nothing from a loopback address to any other machine.
        known = NodeState(bytes(20), "main", (Contact(bytes(20), bytes((8, 8, 8, 8)), 9100),))
        lookup = DHTLookup(
            "127.0.0.1:0", private_addresses=True, limits=PATIENT, server=False, state=known
        )
        async with asyncio.timeout(PATIENT.reply_timeout_min_s / 2), lookup:
            with pytest.raises(LookupFailed) as failed:
                await lookup.resolve(identity.node_id)
            assert failed.value.reason is LookupFailure.NO_NETWORK
            with pytest.raises(PublishFailed, match="this machine can send nothing"):
                await lookup.publish(sign(identity, 1))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


async def test_a_contact_that_only_this_machine_cannot_reach_loses_its_place() -> None:
    async with (
        DHTLookup("127.0.5.1:0", private_addresses=True) as seed,
        DHTLookup("127.0.5.2:0", [seed.address], private_addresses=True) as node,
    ):
        # As after leaving a private network: the system knows no way to this address.
        beyond = Contact(bytes(20), bytes((8, 8, 8, 8)), 9100)
        node._node.protocol.router.add_contact(beyond)
        assert node.contacts == 2
        for _ in range(2):
            with pytest.raises(LookupFailed):
                await node.resolve(NodeId(beyond.id), fresh=True)
        assert [it.id for it in node._node.protocol.router] == [seed.node_id]


async def test_a_name_that_stands_for_a_private_address_is_refused_with_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with DHTLookup(private_addresses=True) as one:
        name = f"localhost:{one.address.port}"
        async with DHTLookup("0.0.0.0:0", name) as two:
            await two._node.bootstrap()
            assert two.counters["seed_address_refused"] == 2
            assert two.contacts == 0
    (line,) = [it.getMessage() for it in caplog.records]
    assert line.startswith(f"{name} resolves to 127.0.0.1, which cannot be the address")
    assert "allow private addresses" in line


async def test_a_port_of_ipv6_that_is_taken_is_complained_of_and_left_alone(start: Start) -> None:
    taken = await start(listen="[::]:0", private_addresses=True)
    with pytest.raises(InvalidConfig, match="in use"):
        await start(listen=f"[::]:{taken.address.port}")
    beside = await start(listen=f"0.0.0.0:{taken.address.port}")
    assert beside.address.port == taken.address.port


async def test_nodes_on_ipv6_find_each_other(start: Start, identity: Identity, sign: Sign) -> None:
    seed = await start(listen="[::1]:0")
    nodes = [await start(seed, listen="[::1]:0") for _ in range(4)]
    record = sign(identity, 5)
    assert (await nodes[0].publish(record)).stored == 4
    assert await nodes[3].resolve(identity.node_id) == record

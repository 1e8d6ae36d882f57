"""What only a real machine has: both families on one port, its names, and two event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from egtp.errors import InvalidConfig
from egtp.values.identity import Identity
from lookup_dht import DHTLookup
from tests.lookup_dht.at_hand import Sign, Start


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

"""A node finds out its own address on real sockets: all of 127.0.0.0/8 is one machine, and each of
its /16 counts as a network of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from egtp import Environment, Node, local_addresses
from egtp.own.own_addresses import OwnState
from tests.node.at_hand import Config, Eventually, Start

SEEN = "127.20.0.1"


async def observers(start: Start) -> list[Node]:
    nodes = [await start(listen=f"127.{number}.0.1:0") for number in (10, 11)]

    async def echo(query: Any) -> bytes:
        body: bytes = query.body
        return body

    for node in nodes:
        node.handle("echo", echo)
    return nodes


def addresses(node: Node) -> list[str]:
    return [str(strategy.address) for strategy in node.record.tcp]


async def test_an_address_that_others_see_is_dialled_back_and_announced(
    start: Start, eventually: Eventually
) -> None:
    seers = await observers(start)
    node = await start(listen="0.0.0.0:0", dial_from=SEEN, environment=Environment())
    assert addresses(node) == []
    for seer in seers:
        await node.query(seer.node_id, "echo")
    await eventually(lambda: addresses(node))
    port = node.listening[0].rpartition(":")[2]
    assert addresses(node) == [f"{SEEN}:{port}"]
    (own,) = node.own_addresses
    assert own.state is OwnState.CONFIRMED
    # Whoever was told nothing finds it, and gets there.
    stranger = await start(listen=())
    node.handle("echo", lambda query: asyncio.sleep(0, query.body))
    assert await stranger.query(node.node_id, "echo", b"hello") == b"hello"


async def test_a_machine_whose_addresses_change_announces_them(
    start: Start, config: Config, eventually: Eventually
) -> None:
    has = ["192.0.2.1"]
    environment = Environment(local_addresses=lambda: has)
    node = await start(
        listen="0.0.0.0:0", environment=environment, config=config(address_poll_s=0.02)
    )
    port = node.listening[0].rpartition(":")[2]
    assert addresses(node) == [f"192.0.2.1:{port}"]
    has = ["192.0.2.2/24", "198.51.100.1"]
    await eventually(lambda: addresses(node) == [f"192.0.2.2:{port}", f"198.51.100.1:{port}"])


def test_this_machine_names_its_addresses_each_of_a_family_once() -> None:
    found = local_addresses()
    assert len({":" in address for address in found}) == len(found)
    assert not {"0.0.0.0", "::"} & set(found)  # noqa: S104 - an address to send from

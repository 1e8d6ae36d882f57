"""Somebody on the way flips bits, cuts the stream into pieces, or is slow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egtp import (
    Address,
    CommRecord,
    FastFail,
    HardTimeout,
    Node,
    SignedCommRecord,
    TCPStrat,
)
from tests.node.at_hand import MakeProxy, Start, dropped


@pytest.fixture
async def between(attacked: Node, proxy: MakeProxy) -> Any:
    """The way to the attacked node."""
    return await proxy(attacked.listening[0])


@pytest.fixture
async def client(start: Start, attacked: Node, between: Any) -> Node:
    """Knows the attacked node by that way only."""
    content = attacked.record.content
    assert content is not None
    there = (TCPStrat(Address.parse(between.address)),)
    moved = CommRecord(content.expiry_unix_s, content.incarnation, content.channels, there)
    client = await start(listen=(), lookup=None)
    client.add_contact(
        SignedCommRecord.sign(attacked.identity, attacked.record.sequence + 1, moved)
    )
    return client


def flipped(data: bytes, index: int) -> bytes:
    changed = bytearray(data)
    changed[index] ^= 0x10
    return bytes(changed)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_flipped_bit_ends_the_connection_and_delivers_nothing_wrong(
    attacked: Node, bystander: Node, client: Node, between: Any, direction: str
) -> None:
    flips_left = 0

    def flip(data: bytes) -> list[bytes]:
        nonlocal flips_left
        if not flips_left:
            return [data]
        # Once: the connection that is dialled after this one is well again.
        flips_left -= 1
        return [flipped(data, len(data) // 2)]

    setattr(between, f"change_{direction}", flip)
    assert await client.query(attacked.node_id, "greet", b"good") == b"hello good"
    flips_left = 1
    # The connection is given up; the query goes by another one, and runs once.
    assert await client.query(attacked.node_id, "greet", b"bad") == b"hello bad"
    assert client.counters["query sent again: its path is gone"] == 1
    assert dropped(attacked if direction == "up" else client) == 1
    assert await client.query(attacked.node_id, "greet", b"again") == b"hello again"


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("index", [4, 8, 30, -1])
async def test_a_flipped_bit_in_the_handshake_fails_fast(
    attacked: Node, bystander: Node, client: Node, between: Any, direction: str, index: int
) -> None:
    setattr(between, f"change_{direction}", lambda data: [flipped(data, index)])
    with pytest.raises(FastFail) as failed:
        await client.query(attacked.node_id, "greet")
    assert len(failed.value.attempts) == 1
    assert failed.value.attempts[0].duration_s < 1


async def test_bytes_that_come_one_by_one_are_read_all_the_same(
    attacked: Node, bystander: Node, client: Node, between: Any
) -> None:
    between.change_up = between.change_down = lambda data: [
        data[index : index + 1] for index in range(len(data))
    ]
    body = b"x" * 500
    assert await client.query(attacked.node_id, "greet", body) == b"hello " + body


async def test_a_slow_network_loses_nothing(
    attacked: Node, bystander: Node, client: Node, between: Any
) -> None:
    between.pace_s = 0.02
    bodies = [bytes((number,)) * 3000 for number in range(20)]
    queries = (client.query(attacked.node_id, "greet", body) for body in bodies)
    assert await asyncio.gather(*queries) == [b"hello " + body for body in bodies]


async def test_a_network_that_goes_silent_ends_in_a_hard_timeout(
    attacked: Node, bystander: Node, client: Node, between: Any
) -> None:
    await client.query(attacked.node_id, "greet")
    between.frozen = True
    with pytest.raises(HardTimeout) as timeout:
        await client.query(attacked.node_id, "greet", hard_timeout_s=0.2)
    assert timeout.value.may_have_run

"""Throttling on sockets: what is throttled is held and then sent, and nothing is lost (R16)."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from egtp.channel.frames import frame
from egtp.errors import NotSent
from egtp.tcp.throttling import Rates, Throttling

MIB = 1024 * 1024


@pytest.fixture
async def throttling() -> Any:
    made = Throttling(asyncio.get_running_loop().time, Rates())
    yield made
    made.close()


def packets_of(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(rng.choice((1, 100, 2000, 20_000))) for _ in range(count)]


def sizes_read(throttling: Any) -> list[int]:
    """How much is read at a time, from now on."""
    sizes: list[int] = []
    received = throttling.received

    def note(connection: Any, size: int) -> None:
        sizes.append(size)
        received(connection, size)

    throttling.received = note
    return sizes


async def test_everything_that_was_throttled_arrives_in_order(net: Any, throttling: Any) -> None:
    near, far = await net.pair(held_bytes_max=16 * MIB)
    throttling.limit_all(Rates(send=2e6), [near.connection])
    packets, written = packets_of(1, 60), []
    for number, packet in enumerate(packets):
        near.connection.send(packet, lambda number=number: written.append(number))
    assert 0 < len(written) < len(packets)
    assert not near.connection.takes_more
    await far.has(packets)
    assert written == list(range(len(packets)))
    await near.until(lambda: "writable" in near.calls)
    assert near.connection.takes_more


async def test_a_throttled_connection_holds_no_more_than_it_may(net: Any, throttling: Any) -> None:
    near, far = await net.pair(held_bytes_max=10_000)
    throttling.limit_all(Rates(send=1000.0), [near.connection])
    with pytest.raises(NotSent, match="full"):
        for _ in range(100):
            near.connection.send(bytes(1000))
    throttling.limit_all(Rates(), [near.connection])
    await far.until(lambda: len(far.packets) == 10)


async def test_lifting_the_limit_lets_everything_go_at_once(net: Any, throttling: Any) -> None:
    near, far = await net.pair()
    throttling.limit_all(Rates(send=1.0, receive=1.0), [near.connection])
    packets = packets_of(2, 20)
    for packet in packets:
        near.connection.send(packet)
    throttling.limit_all(Rates(), [near.connection])
    assert near.connection.throttle is None
    assert near.connection.takes_more
    assert near.calls == ["opened", "writable"]
    await far.has(packets)


async def test_whoever_writes_when_told_is_never_refused_and_gets_all_through(
    net: Any, throttling: Any
) -> None:
    near, far = await net.pair(held_bytes_max=20_004)
    throttling.limit_all(Rates(send=4e6), [near.connection])
    packets = packets_of(3, 100)
    waiting = list(reversed(packets))

    def write_on(_: Any = None) -> None:
        while waiting and near.connection.takes_more:
            near.connection.send(waiting.pop())

    near.writable = write_on
    write_on()
    await far.has(packets)


async def test_receiving_is_throttled_by_not_reading(net: Any, throttling: Any) -> None:
    near, raw = await net.raw_pair()
    throttling.limit_all(Rates(receive=4e6), [near.connection])
    packets = packets_of(4, 300)
    paused: list[bool] = []

    def note(_: Any, packet: bytes) -> None:
        paused.append(not near.transport.is_reading())
        near.packets.append(packet)
        near.note("received")

    near.received = note
    raw.transport.write(b"".join(map(frame, packets)))
    await near.has(packets)
    assert any(paused)


async def test_several_connections_share_a_limit_and_all_get_through(
    net: Any, throttling: Any
) -> None:
    pairs = [await net.pair(held_bytes_max=16 * MIB) for _ in range(5)]
    throttling.limit_all(Rates(send=5e6), [near.connection for near, _ in pairs])
    packets = [packets_of(seed, 30) for seed in range(5)]
    for (near, _), mine in zip(pairs, packets, strict=True):
        for packet in mine:
            near.connection.send(packet)
    for (_, far), mine in zip(pairs, packets, strict=True):
        await far.has(mine)


async def test_closing_sends_what_was_throttled_first(net: Any, throttling: Any) -> None:
    near, far = await net.pair(held_bytes_max=16 * MIB)
    throttling.limit_all(Rates(send=2e6), [near.connection])
    packets = packets_of(5, 60)
    for packet in packets:
        near.connection.send(packet)
    near.connection.close("enough")
    await far.ended()
    assert far.packets == packets
    assert await near.ended() == "enough"


async def test_a_connection_that_ends_while_it_waits_is_not_given_a_turn(
    net: Any, throttling: Any
) -> None:
    near, its_end = await net.pair()
    other, far = await net.pair()
    throttling.limit_all(Rates(send=1e5, receive=1e5), [near.connection, other.connection])
    for connection in (near.connection, other.connection, its_end.connection):
        for _ in range(5):
            connection.send(bytes(5000))
    await near.until(lambda: near.connection in throttling.held_back)
    assert near.connection in throttling._sending.waiting
    near.on_closed = lambda: throttling.remove(near.connection)
    near.connection.abort("gone")
    assert near.connection not in throttling._sending.waiting
    assert near.connection not in throttling.held_back
    await far.has([bytes(5000)] * 5)


async def test_a_turn_that_was_not_used_is_forgotten_with_the_limit(
    net: Any, throttling: Any
) -> None:
    """Else the closed connection would be kept in memory, since no turn comes after it."""
    near, _ = await net.pair()
    throttling.limit_all(Rates(send=1000.0), [near.connection])
    near.connection.send(bytes(500))
    assert near.connection in throttling._sending.waiting
    throttling.limit_all(Rates(), [near.connection])
    assert near.connection not in throttling._sending.waiting
    assert near.connection not in throttling._sending._granted


async def test_a_mistake_in_what_a_turn_leads_to_leaves_the_others_their_turns(
    net: Any, throttling: Any, problems: list[dict[str, Any]]
) -> None:
    near, far = await net.pair()
    throttling.limit_all(Rates(send=5e5), [near.connection])
    writable = near.writable

    def mistaken(connection: Any) -> None:
        near.writable = writable
        near.note("mistaken")
        raise RuntimeError("once")

    near.writable = mistaken
    near.connection.send(bytes(20_000))
    near.connection.send(bytes(20_000))
    await near.until(lambda: problems)
    for _ in range(5):
        near.connection.send(bytes(20_000))
    await far.has([bytes(20_000)] * 7)
    assert [str(problem["exception"]) for problem in problems] == ["once"]
    problems.clear()


async def test_no_timer_is_left_when_nobody_waits(net: Any, throttling: Any) -> None:
    near, far = await net.pair()
    throttling.limit_all(Rates(send=1e6), [near.connection])
    for _ in range(10):
        near.connection.send(bytes(20_000))
    assert throttling._timer.is_armed
    await far.has([bytes(20_000)] * 10)
    await near.until(lambda: near.connection.takes_more)
    assert not throttling._timer.is_armed


async def test_a_throttled_connection_reads_in_small_pieces_and_as_before_afterwards(
    net: Any, throttling: Any
) -> None:
    near, raw = await net.raw_pair()
    stream = b"".join(map(frame, packets_of(6, 200)))
    sizes = sizes_read(throttling)
    throttling.limit_all(Rates(receive=1e6), [near.connection])
    raw.transport.write(stream)
    await near.until(lambda: near.connection.bytes_in > 100_000)
    assert max(sizes) <= 50_000
    throttling.limit_all(Rates(), [near.connection])
    assert near.transport.get_protocol() is near.connection
    assert near.transport.is_reading()
    await near.has(packets_of(6, 200))


async def test_a_connection_that_is_throttled_from_the_beginning_reads_small_pieces(
    net: Any, throttling: Any
) -> None:
    accepted, near = net.connection(dialled=None), net.connection(dialled=None)
    throttling.limit_all(Rates(receive=200_000.0), [accepted.connection])
    sizes = sizes_read(throttling)
    address = await net.listen(lambda: accepted.connection)
    await net.connect(near, address)
    for _ in range(10):
        near.connection.send(bytes(10_000))
    await accepted.has([bytes(10_000)] * 10)
    assert max(sizes) <= 10_000
    near.connection.close("enough")
    assert await accepted.ended() == "closed by the other side"

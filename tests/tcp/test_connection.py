"""TCPConnection: packets go through whole, in order, at the pace of who reads them (seed III.C)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from itertools import product
from typing import Any

import pytest

from egtp.channel.frames import UNCONFIRMED_FRAME_BYTES_MAX, frame
from egtp.environment import process_id
from egtp.errors import NotSent
from egtp.tcp.connection import TCPConnection
from egtp.tcp.connection_life import CONNECTION_LIFE, ConnectionEvent, ConnectionState
from egtp.values.comm_strat import Address
from simulations.virtual.loop import VirtualLoop

MIB = 1024 * 1024
NOWHERE = Address.parse("127.0.0.1:1")


def packets_of(seed: int, count: int, largest: int = 65_535) -> list[bytes]:
    """Mostly small ones, some as large as can be."""
    rng = random.Random(seed)
    sizes = [rng.choice((1, 4, 150, 1448, 4096, 16_384, largest)) for _ in range(count)]
    return [rng.randbytes(min(size, largest)) for size in sizes]


async def test_packets_of_all_sizes_arrive_whole_and_in_order_both_ways(net: Any) -> None:
    near, far = await net.pair(held_bytes_max=64 * MIB)
    there, back = packets_of(1, 200), packets_of(2, 20)
    for packet in there:
        near.connection.send(packet)
    for packet in back:
        far.connection.send(packet)
    await far.has(there)
    await near.has(back)
    assert near.connection.bytes_out == far.connection.bytes_in == sum(4 + len(p) for p in there)


@pytest.mark.parametrize("seed", range(3))
async def test_a_stream_cut_anywhere_gives_the_same_packets(net: Any, seed: int) -> None:
    near, raw = await net.raw_pair()
    rng, packets = random.Random(seed), packets_of(seed, 20)
    stream, at = b"".join(map(frame, packets)), 0
    while at < len(stream):
        size = rng.choice((1, 3, 4, 100, 5000, 70_000))
        raw.transport.write(stream[at : at + size])
        at += size
        if rng.random() < 0.2:
            await asyncio.sleep(0)
    await near.has(packets)


async def test_a_packet_is_written_at_once_if_the_socket_takes_it(net: Any) -> None:
    near, far = await net.pair()
    assert near.connection.takes_more
    order: list[int] = []
    near.connection.send(b"first", lambda: order.append(near.connection.bytes_out))
    assert order == [0], "told before anything was given to the socket, within the call"
    assert near.connection.bytes_out == 9
    await far.has([b"first"])


async def test_a_forked_process_writes_nothing_to_a_connection_of_its_parent(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = await net.pair()
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: 1)
        process_id.cache_clear()
        near.connection.send(b"of the child")
    process_id.cache_clear()
    near.connection.send(b"of the parent")
    await far.has([b"of the parent"])


async def test_what_is_sent_while_opening_is_held_and_then_written_in_order(net: Any) -> None:
    accepted = net.connection(dialled=None)
    address = await net.listen(lambda: accepted.connection)
    near = net.connection(dialled=address)
    told: list[int] = []
    for number in range(3):
        near.connection.send(bytes([number]), lambda number=number: told.append(number))
    assert not near.connection.takes_more
    assert told == []
    await net.connect(near, address)
    near.connection.send(b"\x03", lambda: told.append(3))
    assert told == [0, 1, 2, 3]
    await accepted.has([b"\x00", b"\x01", b"\x02", b"\x03"])


async def test_what_was_held_by_a_dial_that_failed_was_never_written(net: Any) -> None:
    near = net.connection(dialled=NOWHERE)
    told: list[str] = []
    near.connection.send(b"one", lambda: told.append("one"))
    near.connection.send(b"two")
    near.connection.abort("connection refused")
    assert near.reason == "connection refused"
    assert told == []
    with pytest.raises(NotSent, match="connection refused"):
        near.connection.send(b"three")


async def test_a_slow_reader_holds_the_writer_back_and_loses_nothing(net: Any) -> None:
    near, far = await net.pair(held_bytes_max=MIB)
    far.transport.pause_reading()
    sent: list[bytes] = []
    written: list[int] = []

    def send(size: int) -> None:
        packet = bytes([len(sent) % 256]) * size
        near.connection.send(packet, lambda at=packet[0]: written.append(at))
        sent.append(packet)

    while near.connection.takes_more:
        send(60_000)
    in_socket = len(sent)
    assert written == list(range(in_socket)), "what was not written yet is not said to be"
    with pytest.raises(NotSent, match="full"):
        while True:
            send(60_000)
    assert MIB - 60_004 <= sum(4 + len(p) for p in sent[in_socket:]) <= MIB
    assert written == list(range(in_socket))
    assert near.transport.get_write_buffer_size() < 64 * 1024 + 60_004
    assert "writable" not in near.calls
    far.transport.resume_reading()
    await far.has(sent)
    await near.until(lambda: "writable" in near.calls)
    assert written == list(range(len(sent)))
    assert near.connection.takes_more


async def test_what_was_held_and_has_left_is_room_again(net: Any) -> None:
    near, far = await net.pair(held_bytes_max=MIB)
    sent: list[bytes] = []
    for number in range(3):
        packet = bytes([number]) * 60_000
        far.transport.pause_reading()
        near.calls.clear()
        held = 0
        with pytest.raises(NotSent, match="full"):
            while True:
                is_held = not near.connection.takes_more
                near.connection.send(packet)
                sent.append(packet)
                held += is_held
        assert held == MIB // 60_004
        far.transport.resume_reading()
        await far.has(sent)
        await near.until(lambda: "writable" in near.calls)


async def test_whoever_honours_takes_more_never_has_a_packet_refused(net: Any) -> None:
    near, far = await net.pair(held_bytes_max=1)
    packets = packets_of(3, 400)
    waiting = list(reversed(packets))
    while waiting:
        while waiting and near.connection.takes_more:
            near.connection.send(waiting.pop())
        if waiting:
            near.calls.clear()
            await near.until(lambda: "writable" in near.calls)
    await far.has(packets)


async def test_closing_lets_everything_accepted_leave_first(net: Any) -> None:
    near, far = await net.pair(held_bytes_max=16 * MIB)
    far.transport.pause_reading()
    packets = [bytes([number % 256]) * 65_000 for number in range(150)]
    for packet in packets:
        near.connection.send(packet)
    assert not near.connection.takes_more, "some of it is held"
    near.connection.close("enough")
    assert near.connection.is_closing
    assert not near.connection.is_closed
    with pytest.raises(NotSent, match="enough"):
        near.connection.send(b"too late")
    far.transport.resume_reading()
    await far.until(lambda: len(far.packets) == len(packets))
    assert far.packets == packets
    assert await near.ended() == "enough"
    assert await far.ended() == "closed by the other side"


@pytest.mark.parametrize("call", ["close", "drain"])
async def test_closing_loses_nothing_though_the_other_side_sends_all_the_while(
    net: Any, call: str
) -> None:
    # With data unread, closing at once would reset the connection, and what is on its way is lost.
    near, far = await net.pair(held_bytes_max=64 * MIB)
    far_sent = [bytes([number % 256]) * 65_000 for number in range(100)]
    for packet in far_sent[:50]:
        far.connection.send(packet) if far.connection.takes_more else None
    packets = [bytes([number % 256]) * 65_000 for number in range(150)]
    for packet in packets:
        near.connection.send(packet)
    getattr(near.connection, call)("enough")
    for packet in far_sent[50:]:
        far.connection.send(packet) if far.connection.takes_more else None
    await far.ended()
    assert far.packets == packets
    assert await near.ended() == "enough"


async def test_draining_gives_what_was_sent_before_the_other_side_knew(net: Any) -> None:
    near, far = await net.pair()
    near.connection.drain("idle")
    far.connection.send(b"crossing")
    await near.ended()
    assert near.packets == [b"crossing"]


async def test_closing_drops_what_comes(net: Any) -> None:
    near, far = await net.pair()
    near.connection.close("enough")
    far.connection.send(b"crossing")
    await near.ended()
    assert near.packets == []


async def test_a_connection_closed_while_it_gives_packets_gives_no_more(net: Any) -> None:
    near, raw = await net.raw_pair()
    received: list[bytes] = []

    def received_one(connection: TCPConnection, packet: bytes) -> None:
        received.append(packet)
        connection.close("one is enough")

    near.received = received_one
    raw.transport.write(frame(b"one") + frame(b"two"))
    await near.ended()
    assert received == [b"one"]


async def test_the_end_of_the_other_side_ends_the_connection_and_what_is_held_is_not_written(
    net: Any,
) -> None:
    near, raw = await net.raw_pair(held_bytes_max=16 * MIB)
    raw.transport.pause_reading()
    written: list[int] = []
    count = 0
    while near.connection.takes_more:
        near.connection.send(bytes(65_000), lambda number=count: written.append(number))
        count += 1
    near.connection.send(b"held", lambda: written.append(-1))
    raw.transport.write(frame(b"last words"))
    raw.transport.write_eof()
    await near.until(lambda: "closing" in near.calls)
    assert near.packets == [b"last words"]
    with pytest.raises(NotSent, match="closed by the other side"):
        near.connection.send(b"too late")
    raw.transport.resume_reading()
    assert await near.ended() == "closed by the other side"
    assert written == list(range(count))


async def test_a_stream_that_ends_within_a_frame_is_counted(net: Any) -> None:
    near, raw = await net.raw_pair()
    raw.transport.write(frame(b"whole") + frame(b"cut off")[:6])
    raw.transport.write_eof()
    await near.ended()
    assert near.packets == [b"whole"]
    assert near.calls == ["opened", "garbage", "closing", "closed"]


async def test_a_reset_is_told_once_with_its_reason(net: Any) -> None:
    near, raw = await net.raw_pair()
    near.connection.send(b"never read")
    raw.transport.pause_reading()
    await asyncio.sleep(0.01)
    raw.transport.abort()
    assert await near.ended() in {"connection reset by peer", "closed by the other side"}
    assert near.calls.count("closed") == 1


@pytest.mark.parametrize("how", ["close", "drain"])
async def test_what_was_reset_and_has_not_been_told_yet_is_closed_all_the_same(
    net: Any, how: str
) -> None:
    if isinstance(asyncio.get_running_loop(), VirtualLoop):
        pytest.skip("its sockets tell at once")
    accepted = net.connection(dialled=None)
    address = await net.listen(lambda: accepted.connection)
    with socket.create_connection((address.host, address.port)) as other:
        await accepted.until(lambda: accepted.connection.is_open)
        accepted.connection.pause_reading()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    getattr(accepted.connection, how)("no more")
    accepted.connection.resume_reading()
    assert await accepted.ended() == "no more"


async def test_a_reset_just_as_the_socket_takes_more_again_is_told_once_and_fills_no_log(
    net: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads a little and then resets has the writer write into nothing: asyncio logs each
    such write, and calls back twice if what is called within its own write ends the connection."""
    if isinstance(asyncio.get_running_loop(), VirtualLoop):
        pytest.skip("its sockets tell at once")
    accepted, wrong = net.connection(dialled=None), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    address = await net.listen(lambda: accepted.connection)
    connection, sent = accepted.connection, 0
    with socket.create_connection((address.host, address.port)) as other:
        await accepted.until(lambda: connection.is_open)
        while connection.takes_more:
            connection.send(bytes(65_535))

        def reset_and_write() -> None:
            nonlocal sent
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            other.close()
            while connection.takes_more and sent < 100:
                connection.send(bytes(1000))
                sent += 1

        accepted.on_writable = reset_and_write
        other.setblocking(False)
        while "writable" not in accepted.calls:
            with contextlib.suppress(BlockingIOError):
                other.recv(MIB)
            await asyncio.sleep(0)
    await accepted.ended()
    await asyncio.sleep(0)
    assert sent == 1, "the first write says that nobody is there any more"
    assert (wrong, caplog.records) == ([], [])


async def test_aborting_ends_at_once(net: Any) -> None:
    near, far = await net.pair()
    near.connection.abort("no more")
    assert near.reason == "no more"
    with pytest.raises(NotSent, match="no more"):
        near.connection.send(b"too late")
    near.connection.close("again")
    near.connection.abort("again")
    await far.ended()
    assert near.calls == ["opened", "closed"]


async def test_a_frame_that_is_not_allowed_ends_the_connection(net: Any) -> None:
    near, raw = await net.raw_pair()
    raw.transport.write(frame(b"good") + bytes(4) + frame(b"never looked at"))
    assert await near.ended() == "a frame of a length that is not allowed"
    assert near.packets == [b"good"]
    assert near.calls == ["opened", "garbage", "closed"]


async def test_until_the_limit_is_lifted_only_small_frames_are_taken(net: Any) -> None:
    accepted = TCPConnection(
        99, watcher := net.connection(dialled=None), dialled=None, held_bytes_max=1, started_s=0.0
    )
    watcher.connection = accepted
    address = await net.listen(lambda: accepted)
    near = net.connection(dialled=address)
    await net.connect(near, address)
    near.connection.send(bytes(UNCONFIRMED_FRAME_BYTES_MAX))
    near.connection.send(bytes(UNCONFIRMED_FRAME_BYTES_MAX + 1))
    assert await watcher.ended() == "a frame of a length that is not allowed"
    assert watcher.packets == [bytes(UNCONFIRMED_FRAME_BYTES_MAX)]


async def test_small_packets_are_sent_at_once(net: Any) -> None:
    """Nagle's algorithm is off (TCP_NODELAY), on both ends; both real event loops see to it."""
    for side in await net.pair():
        sock = side.transport.get_extra_info("socket")
        if hasattr(sock, "getsockopt"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.reaches_in
async def test_a_connection_has_no_dict_and_holds_nothing_while_idle(net: Any) -> None:
    near, far = await net.pair()
    near.connection.send(b"something")
    await far.has([b"something"])
    for side in (near, far):
        assert not hasattr(side.connection, "__dict__")
        assert side.connection._held is None
        assert side.connection.half_frame_bytes == 0


@pytest.mark.parametrize(("state", "event"), list(product(ConnectionState, ConnectionEvent)))
async def test_a_connection_goes_by_its_table(
    net: Any, state: ConnectionState, event: ConnectionEvent
) -> None:
    if state is ConnectionState.OPENING:
        address = await net.listen(asyncio.Protocol)
        near = net.connection(dialled=address)
    else:
        near, _ = await net.pair()
    connection = near.connection
    if state is ConnectionState.CLOSING:
        connection.drain("it is to close")
    elif state is ConnectionState.CLOSED:
        connection.abort("it is to be closed")
    assert connection.state is state
    if event is ConnectionEvent.CLOSE:
        connection.close("closed")
    elif event is ConnectionEvent.THEY_END:
        connection.eof_received()
    elif event is ConnectionEvent.LOST:
        connection.connection_lost(None)
    elif state is ConnectionState.OPENING:
        await net.connect(near, address)
    assert connection.state is CONNECTION_LIFE.after(state, event)

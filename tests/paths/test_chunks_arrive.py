"""The outbox, and the putting together again of what it cut into chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.sealed import (
    ItemType,
    parse_age,
    parse_chunk,
    parse_sealed,
    write_chunk,
    write_sealed,
)
from egtp.paths.outbox import Outbox
from egtp.paths.reassembly import Reassembly, RoomForChunks
from egtp.queries.large_message import Arrived
from egtp.queries.outgoing import Outgoing

MIB = 1024 * 1024


@given(st.lists(st.integers(1, 70_000), max_size=120))
def test_every_message_arrives_whole_whatever_its_size(
    ample_room: RoomForChunks, sizes: list[int]
) -> None:
    outbox = Outbox(2 * MIB)
    pushed = [Outgoing(n.to_bytes(2, "big") * size, 0.0) for n, size in enumerate(sizes)]
    for outgoing in pushed:
        outbox.push(outgoing)
    reassembly = Reassembly(2 * MIB + 256, MIB, ample_room)
    arrived: list[bytes] = []
    begun: list[Outgoing] = []
    while outbox:
        batch = outbox.next_batch(1.0)
        begun += batch.begun
        plaintext = write_sealed(0, 0, batch.parts)
        assert len(plaintext) < 65_000 - 36
        for kind, age_ms, data in parse_sealed(plaintext).items:
            if kind == ItemType.CHUNK:
                whole = reassembly.feed(parse_chunk(data), 0.0)
                if whole is None:
                    continue
                assert not isinstance(whole, Arrived)
                age_ms, data = parse_age(whole)  # noqa: PLW2901 - of the message put together
            assert age_ms == 1000
            arrived.append(data)
    expected = [number.to_bytes(2, "big") * size for number, size in enumerate(sizes)]
    assert sorted(arrived) == sorted(expected)
    assert set(begun) == set(pushed)
    assert len(begun) == len(pushed)
    assert outbox.waiting_bytes == reassembly.held_bytes == 0


def test_a_small_message_waits_for_one_batch_of_a_large_one_at_most() -> None:
    outbox, small = Outbox(32 * MIB), Outgoing(b"small", 0.0)
    outbox.push(Outgoing(bytes(16 * MIB), 0.0))
    outbox.next_batch(0.0)
    outbox.push(small)
    assert outbox.next_batch(0.0).begun == [small]


def test_a_promise_of_much_costs_nothing(ample_room: RoomForChunks) -> None:
    reassembly = Reassembly(1000, 10 * MIB, ample_room)
    chunk = parse_chunk(
        parse_sealed(write_sealed(0, 0, [write_chunk(1, 9 * MIB, 0, b"x")])).items[0][2]
    )
    assert reassembly.feed(chunk, 0.0) is None
    assert reassembly.held_bytes == 1

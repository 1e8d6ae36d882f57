"""The outbox, and the putting together again of what it cut into chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egtp.outbox import Outbox, Waiting
from egtp.reassembly import Reassembly
from egtp.sealed import ItemType, parse_age, parse_chunk, parse_sealed, write_chunk, write_sealed

MIB = 1024 * 1024


@given(st.lists(st.integers(1, 70_000), max_size=120))
def test_every_message_arrives_whole_whatever_its_size(sizes: list[int]) -> None:
    outbox: Outbox[int] = Outbox(2 * MIB)
    for number, size in enumerate(sizes):
        outbox.push(Waiting(number.to_bytes(2, "big") * size, 0.0, number))
    reassembly = Reassembly(2 * MIB + 256, MIB)
    arrived, begun = [], []
    while outbox:
        batch = outbox.next_batch(1.0)
        begun += batch.begun
        plaintext = write_sealed(0, 0, batch.items)
        assert len(plaintext) < 65_000 - 36
        for kind, data in parse_sealed(plaintext).items:
            whole = data if kind == ItemType.MESSAGE else reassembly.feed(parse_chunk(data))
            if whole is not None:
                age_ms, message = parse_age(whole)
                assert age_ms == 1000
                arrived.append(message)
    expected = [number.to_bytes(2, "big") * size for number, size in enumerate(sizes)]
    assert sorted(arrived) == sorted(expected)
    assert sorted(begun) == list(range(len(sizes)))
    assert outbox.waiting_bytes == reassembly.held_bytes == 0


def test_a_small_message_waits_for_one_batch_of_a_large_one_at_most() -> None:
    outbox: Outbox[str] = Outbox(32 * MIB)
    outbox.push(Waiting(bytes(16 * MIB), 0.0, "large"))
    outbox.next_batch(0.0)
    outbox.push(Waiting(b"small", 0.0, "small"))
    assert outbox.next_batch(0.0).begun == ["small"]


def test_a_promise_of_much_costs_nothing() -> None:
    reassembly = Reassembly(1000, 10 * MIB)
    chunk = parse_chunk(
        parse_sealed(write_sealed(0, 0, [write_chunk(1, 9 * MIB, 0, b"x")])).items[0][1]
    )
    assert reassembly.feed(chunk) is None
    assert reassembly.held_bytes == 1

"""What is inside a sealed packet: exact bytes, round trips, what is skipped and what is refused."""

from __future__ import annotations

import hashlib
import tracemalloc
from itertools import compress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.sealed import (
    CHUNK_BYTES_MAX,
    Chunk,
    ItemType,
    item,
    parse_age,
    parse_chunk,
    parse_goaway,
    parse_sealed,
    parse_settled_except,
    write_chunk,
    write_goaway,
    write_message,
    write_sealed,
    write_settled_except,
)
from egtp.errors import InvalidPacket
from egtp.values.comm_record import SignedCommRecord
from egtp.values.message import decode_message

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
BYTES = st.binary(max_size=60)
KNOWN = st.sampled_from([kind for kind in ItemType if kind != ItemType.PADDING])
LATER = st.integers(0x80, 0xFF).filter(lambda kind: kind not in set(ItemType))
UNKNOWN_CRITICAL = st.integers(0, 0x7F).filter(lambda kind: kind not in set(ItemType))


def as_parsed(kind: int, data: bytes) -> tuple[int, int, bytes]:
    """A message has its age before it, or is no message; other items have no age."""
    if kind != ItemType.MESSAGE:
        return kind, 0, data
    return (kind, int.from_bytes(data[:4], "big"), data[4:]) if len(data) >= 4 else (kind, 0, b"")


@given(U32, U64, st.lists(st.tuples(KNOWN, BYTES), max_size=8))
def test_every_plaintext_survives_the_round_trip(
    t_ms: int, settled: int, items: list[tuple[int, bytes]]
) -> None:
    plaintext = write_sealed(t_ms, settled, [item(kind, data) for kind, data in items])
    parsed = parse_sealed(plaintext)
    assert parsed[:2] == (t_ms, settled)
    assert parsed.items == [as_parsed(kind, data) for kind, data in items]


@given(st.lists(st.tuples(KNOWN, BYTES), max_size=5), st.lists(st.tuples(LATER, BYTES)), st.data())
def test_unknown_types_from_0x80_on_are_skipped_wherever_they_stand(
    known: list[tuple[int, bytes]], later: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    mixed = list(known)
    for extra in later:
        mixed.insert(data.draw(st.integers(0, len(mixed))), extra)
    left = [pair for pair in mixed if pair[0] in set(ItemType)]
    plaintext = write_sealed(0, 0, [item(*pair) for pair in mixed])
    assert left == known
    without = parse_sealed(write_sealed(0, 0, [item(*pair) for pair in known])).items
    # What has no whole age has no message; whatever stands where its age would be is no matter.
    whole = [len(inside) >= 4 or kind != ItemType.MESSAGE for kind, inside in known]
    parsed = parse_sealed(plaintext).items
    assert [one[::2] for one in parsed] == [one[::2] for one in without]
    assert list(compress(parsed, whole)) == [as_parsed(*pair) for pair in compress(known, whole)]


@given(st.lists(st.tuples(KNOWN, BYTES), max_size=4), UNKNOWN_CRITICAL, BYTES, st.integers(0))
def test_unknown_types_below_0x80_are_refused_wherever_they_stand(
    known: list[tuple[int, bytes]], kind: int, data: bytes, place: int
) -> None:
    items = [item(*pair) for pair in known]
    items.insert(place % (len(items) + 1), item(kind, data))
    with pytest.raises(InvalidPacket):
        parse_sealed(write_sealed(0, 0, items))


@pytest.mark.parametrize("size", range(4))
def test_a_message_without_its_whole_age_is_none_and_what_follows_is_no_part_of_it(
    size: int,
) -> None:
    items = [item(ItemType.MESSAGE, b"\xff" * size), item(ItemType.PING, b"\xff" * 8)]
    parsed = parse_sealed(write_sealed(0, 0, items)).items
    assert parsed == [(ItemType.MESSAGE, 0, b""), (ItemType.PING, 0, b"\xff" * 8)]


@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_items_or_invalid(data: bytes) -> None:
    for parse in (parse_sealed, parse_chunk, parse_age):
        try:
            parse(data)
        except InvalidPacket:
            continue


@pytest.mark.parametrize("kind", ItemType)
@given(st.lists(st.tuples(KNOWN, BYTES), max_size=3), BYTES, st.integers(1))
def test_a_plaintext_cut_inside_an_item_is_refused(
    kind: ItemType, items: list[tuple[int, bytes]], data: bytes, cut: int
) -> None:
    last = item(kind, data)
    plaintext = write_sealed(0, 0, [*(item(*pair) for pair in items), last])
    # By less than the whole last item, which would leave a good plaintext.
    with pytest.raises(InvalidPacket):
        parse_sealed(plaintext[: len(plaintext) - 1 - cut % (len(last) - 1)])


@given(U32, st.integers(0, 2**32 - 1))
def test_a_goaway_says_why_and_for_how_long(reason: int, retry_ms: int) -> None:
    data = write_goaway(reason, retry_ms / 1000)
    said, retry_after_s = parse_goaway(data)
    assert said == reason
    assert retry_after_s == pytest.approx(retry_ms / 1000, abs=0.0011)
    assert parse_goaway(data + b"later") == parse_goaway(data)
    with pytest.raises(InvalidPacket):
        parse_goaway(data[:-1])


@pytest.mark.parametrize("promise", [1, 65_536, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [1, 2, 0x80, 0xFF])
def test_a_promise_of_much_is_refused_and_reserves_nothing(kind: int, promise: int) -> None:
    plaintext = write_sealed(0, 0, [bytes((kind,)) + promise.to_bytes(4, "big")])
    tracemalloc.start()
    try:
        with pytest.raises(InvalidPacket):
            parse_sealed(plaintext)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


@given(U32, BYTES)
def test_a_message_item_carries_its_age_outside_of_the_message(age_ms: int, message: bytes) -> None:
    (parsed,) = parse_sealed(write_sealed(0, 0, [write_message(age_ms, message)])).items
    assert parsed == (ItemType.MESSAGE, age_ms, message)
    # A message in chunks is put together as the bytes of such an item.
    assert parse_age(write_message(age_ms, message)[5:]) == (age_ms, message)


@given(U64, st.frozensets(U64, max_size=64))
def test_numbers_settled_but_for_some_survive_the_round_trip(
    upto: int, exceptions: frozenset[int]
) -> None:
    data = write_settled_except(upto, exceptions)
    assert parse_settled_except(data, 64) == (upto, exceptions)


def test_so_many_exceptions_may_be_told_and_not_one_more() -> None:
    assert len(parse_settled_except(write_settled_except(99, range(64)), 64)[1]) == 64
    with pytest.raises(InvalidPacket):
        parse_settled_except(write_settled_except(99, range(65)), 64)


@given(st.binary(max_size=600))
def test_what_is_no_row_of_numbers_or_too_long_a_one_is_refused(data: bytes) -> None:
    try:
        parse_settled_except(data, 64)
    except InvalidPacket:
        assert len(data) % 8 or not 8 <= len(data) <= 8 * 65


@given(U32, U32, U32, st.binary(min_size=1, max_size=60))
def test_a_chunk_survives_the_round_trip(
    message_id: int, total: int, offset: int, data: bytes
) -> None:
    chunk = write_chunk(message_id, total, offset, data)
    ((kind, _, inside),) = parse_sealed(write_sealed(0, 0, [chunk])).items
    assert kind == ItemType.CHUNK
    assert parse_chunk(inside) == Chunk(message_id, total, offset, data)


def test_a_chunk_has_at_least_one_byte_and_at_most_16_kib() -> None:
    assert CHUNK_BYTES_MAX == 16_384
    header = bytes(12)
    assert len(parse_chunk(header + bytes(16_384)).data) == 16_384
    for size in (-12, -1, 0, 16_385, 60_000):
        with pytest.raises(InvalidPacket):
            parse_chunk(bytes(12 + size))


@given(st.integers(2**32, 2**70))
def test_a_clock_or_age_beyond_its_field_stays_at_the_largest(much_ms: int) -> None:
    assert parse_sealed(write_sealed(much_ms, 0, [])).t_ms == 2**32 - 1
    assert write_message(much_ms, b"m")[5:9] == b"\xff" * 4


# The frozen vectors.


def test_the_frozen_items_in_both_directions(vectors: dict[str, Any]) -> None:
    items = vectors["items"]
    assert {entry["type"] for entry in items.values()} > set(ItemType)
    for name, vector in items.items():
        data = bytes.fromhex(vector["bytes"])
        if name == "message":
            made = write_message(vector["age_ms"], bytes.fromhex(vector["message"]))
        elif name == "chunk":
            fields = (vector["message_id"], vector["total"], vector["offset"])
            made = write_chunk(*fields, bytes.fromhex(vector["data"]))
        else:
            made = item(vector["type"], bytes.fromhex(vector["data"]))
        assert made == data, name
        parsed = parse_sealed(write_sealed(0, 0, [data])).items
        skipped = name in ("unknown_ignorable", "padding")
        assert parsed == ([] if skipped else [as_parsed(vector["type"], data[5:])])


def test_the_frozen_items_are_about_one_query(vectors: dict[str, Any]) -> None:
    message = bytes.fromhex(vectors["items"]["message"]["message"])
    decode_message(message)
    reference = hashlib.sha256(message).hexdigest()
    assert vectors["items"]["working"]["data"] == reference
    assert vectors["items"]["cancel"]["data"] == reference
    record = SignedCommRecord.decode(bytes.fromhex(vectors["items"]["record"]["data"]))
    assert record.key.hex() == vectors["identities"]["alice"]["identity_key"]


def test_the_frozen_plaintexts_are_a_clock_a_mark_and_items(vectors: dict[str, Any]) -> None:
    items, packets = vectors["items"], vectors["packets"]
    query = [bytes.fromhex(items[n]["bytes"]) for n in ("message", "ping", "unknown_ignorable")]
    pong = [bytes.fromhex(items["pong"]["bytes"])]
    assert write_sealed(0, 1, []).hex() == packets["data_confirming"]["plaintext"]
    assert write_sealed(1500, 2, query).hex() == packets["data_query"]["plaintext"]
    assert write_sealed(1499, 1, pong).hex() == packets["data_reply"]["plaintext"]


def test_the_frozen_invalid_plaintexts(vectors: dict[str, Any]) -> None:
    assert len(vectors["invalid_plaintexts"]) >= 8
    for vector in vectors["invalid_plaintexts"]:
        with pytest.raises(InvalidPacket):
            parse_sealed(bytes.fromhex(vector["bytes"]))
            pytest.fail(vector["description"])

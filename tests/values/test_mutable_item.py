"""BEP 44 mutable items: an EGTP record has to be one, for every DHT that knows BEP 44."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.errors import InvalidRecord
from egtp.values.identity import Identity, verify
from egtp.values.mutable_item import MutableItem, signing_buffer

# The test vectors that BEP 44 publishes.
BEP44_KEY = bytes.fromhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
BEP44_VALUE = b"12:Hello World!"
BEP44_SIGNATURE = bytes.fromhex(
    "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff"
    "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
)
BEP44_TARGET = bytes.fromhex("4a533d47ec9c7d95b1ad75f576cffc641853b750")
BEP44_SALTED_SIGNATURE = bytes.fromhex(
    "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d"
    "df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08"
)
BEP44_SALTED_TARGET = bytes.fromhex("411eba73b6f087ca51a3795d9c8c938d365e32c1")

SMALL_ORDER_KEY = (1).to_bytes(32, "little")
CONSTANT_SIGNATURE = SMALL_ORDER_KEY + bytes(32)


def egtp_buffer(sequence: int, value: bytes) -> bytes:
    """The signed bytes, written from the specification and nothing else."""
    return (
        b"4:salt13:EGTP nodeId 13:seqi"
        + str(sequence).encode()
        + b"e1:v"
        + str(len(value)).encode()
        + b":"
        + value
    )


def test_bep_44_vector_1_without_salt() -> None:
    buffer = signing_buffer(1, BEP44_VALUE)
    assert buffer == b"3:seqi1e1:v12:Hello World!"
    assert verify(BEP44_KEY, BEP44_SIGNATURE, buffer)
    assert hashlib.sha1(BEP44_KEY).digest() == BEP44_TARGET  # noqa: S324
    assert not verify(BEP44_KEY, BEP44_SALTED_SIGNATURE, buffer)


def test_bep_44_vector_2_with_salt() -> None:
    buffer = signing_buffer(1, BEP44_VALUE, b"foobar")
    assert buffer == b"4:salt6:foobar3:seqi1e1:v12:Hello World!"
    assert verify(BEP44_KEY, BEP44_SALTED_SIGNATURE, buffer)
    assert hashlib.sha1(BEP44_KEY + b"foobar").digest() == BEP44_SALTED_TARGET  # noqa: S324
    assert not verify(BEP44_KEY, BEP44_SIGNATURE, buffer)


@given(value=st.binary(max_size=800), sequence=st.integers(1, 2**48 - 1))
def test_every_item_is_a_valid_bep_44_item(alice: Identity, value: bytes, sequence: int) -> None:
    item = MutableItem.sign(alice, sequence, value)
    assert verify(item.key, item.signature, egtp_buffer(sequence, value))
    assert hashlib.sha1(item.key + b"EGTP nodeId 1").digest() == alice.node_id  # noqa: S324


@given(value=st.binary(max_size=800), sequence=st.integers(1, 2**48 - 1))
def test_an_item_survives_the_round_trip(alice: Identity, value: bytes, sequence: int) -> None:
    item = MutableItem.sign(alice, sequence, value)
    data = item.encode()
    assert msgpack.unpackb(data) == [alice.key, sequence, value, item.signature]
    assert MutableItem.decode(data) == item
    assert MutableItem.decode(data).encode() == data
    assert MutableItem.verified(alice.key, sequence, value, item.signature) == item


def test_the_largest_item_has_at_most_920_bytes(alice: Identity) -> None:
    item = MutableItem.sign(alice, 2**48 - 1, bytes(800))
    assert len(item.encode()) <= 920
    assert MutableItem.decode(item.encode()) == item


@pytest.mark.parametrize("size", [801, 995, 996, 70_000])
def test_a_value_above_800_bytes_is_refused(alice: Identity, size: int) -> None:
    value = bytes(size)
    signature = alice.sign(egtp_buffer(1, value))
    with pytest.raises(InvalidRecord):
        MutableItem.sign(alice, 1, value)
    with pytest.raises(InvalidRecord):
        MutableItem.verified(alice.key, 1, value, signature)
    with pytest.raises(InvalidRecord):
        MutableItem.decode(msgpack.packb([alice.key, 1, value, signature]))


@pytest.mark.parametrize("sequence", [0, -1, 2**48, 2**63, 2**64 - 1, -(2**63)])
def test_a_sequence_outside_the_limits_is_refused(alice: Identity, sequence: int) -> None:
    signature = alice.sign(egtp_buffer(sequence, b"v"))
    with pytest.raises(InvalidRecord):
        MutableItem.sign(alice, sequence, b"v")
    with pytest.raises(InvalidRecord):
        MutableItem.verified(alice.key, sequence, b"v", signature)
    with pytest.raises(InvalidRecord):
        MutableItem.decode(msgpack.packb([alice.key, sequence, b"v", signature]))


def test_true_is_not_the_sequence_one(alice: Identity) -> None:
    """``b"%d" % True`` is ``1``, so the signature is good, but the item could not be read back."""
    signature = MutableItem.sign(alice, 1, b"v").signature
    with pytest.raises(InvalidRecord):
        MutableItem.decode(msgpack.packb([alice.key, True, b"v", signature]))
    with pytest.raises(InvalidRecord):
        MutableItem.verified(alice.key, True, b"v", signature)
    with pytest.raises(InvalidRecord):
        MutableItem.sign(alice, True, b"v")


def test_every_flipped_bit_is_refused(alice: Identity) -> None:
    data = MutableItem.sign(alice, 1_800_000_000, b"some value").encode()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidRecord):
            MutableItem.decode(bytes(flipped))


def test_a_signature_of_somebody_or_something_else_is_refused(
    alice: Identity, bob: Identity
) -> None:
    mine, his = MutableItem.sign(alice, 5, b"v"), MutableItem.sign(bob, 5, b"v")
    for parts in (
        [alice.key, 5, b"v", his.signature],
        [bob.key, 5, b"v", mine.signature],
        [alice.key, 6, b"v", mine.signature],
        [alice.key, 5, b"w", mine.signature],
        [alice.key, 5, b"v", MutableItem.sign(alice, 4, b"v").signature],
        [alice.key, 5, b"v", alice.sign(signing_buffer(5, b"1:v", b"EGTP nodeId 2"))],
        [alice.key, 5, b"v", bytes(64)],
    ):
        with pytest.raises(InvalidRecord):
            MutableItem.decode(msgpack.packb(parts))


def test_length_and_value_cannot_be_shifted_against_each_other(alice: Identity) -> None:
    """The buffer has lengths in it, so no other item has the same buffer."""
    item = MutableItem.sign(alice, 11, b"1:v5:hello")
    for sequence, value in ((1, b"1:v5:hello"), (11, b"5:hello"), (11, b"hello")):
        with pytest.raises(InvalidRecord):
            MutableItem.verified(alice.key, sequence, value, item.signature)


def test_a_constant_signature_under_a_small_order_key_is_refused() -> None:
    assert verify(SMALL_ORDER_KEY, CONSTANT_SIGNATURE, egtp_buffer(1, b"v"))  # the danger is real
    with pytest.raises(InvalidRecord):
        MutableItem.decode(msgpack.packb([SMALL_ORDER_KEY, 1, b"v", CONSTANT_SIGNATURE]))
    with pytest.raises(InvalidRecord):
        MutableItem.verified(SMALL_ORDER_KEY, 1, b"v", CONSTANT_SIGNATURE)


def wrong_shapes(key: bytes, sequence: int, value: bytes, signature: bytes) -> list[Any]:
    return [
        None,
        1,
        key,
        [],
        [key, sequence, value],
        [key, sequence, value, signature, None],
        [[key, sequence, value, signature]],
        [sequence, key, value, signature],
        [key[:31], sequence, value, signature],
        [key + b"\0", sequence, value, signature],
        [key, sequence, value, signature[:63]],
        [key, sequence, value, signature + b"\0"],
        [key, sequence, value, b""],
        [key, sequence, "v", signature],
        [key, None, value, signature],
        [key, str(sequence), value, signature],
        [key, float(sequence), value, signature],
        [key, sequence, [value], signature],
        {b"k": key, b"seq": sequence, b"v": value, b"sig": signature},
    ]


def test_other_shapes_are_refused(alice: Identity) -> None:
    item = MutableItem.sign(alice, 1, b"v")
    parts = (item.key, item.sequence, item.value, item.signature)
    assert MutableItem.decode(msgpack.packb(parts)) == item
    for shape in wrong_shapes(*parts):
        with pytest.raises(InvalidRecord):
            MutableItem.decode(msgpack.packb(shape))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_the_typed_error(data: bytes) -> None:
    with pytest.raises(InvalidRecord):
        MutableItem.decode(data)


def test_a_packet_of_tiny_arrays_costs_no_more_memory_than_a_few_times_its_size() -> None:
    """An item has no array inside; reading hundreds of thousands of them first is a gift to an
    attacker, who pays one byte for each list of 64."""
    row = b"\xdc\x00\x40" + b"\x90" * 64
    data = b"\xdc\x00\x40" + (b"\xdc\x00\x40" + row * 64) * 64
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRecord):
            MutableItem.decode(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2**20 + 4 * len(data)

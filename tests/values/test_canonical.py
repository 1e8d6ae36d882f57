"""Canonical form: equal values have equal bytes, and no other bytes are read (R2)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egtp.errors import CanonicalError, LocalProtocolError
from egtp.values import canonical
from egtp.values.canonical import ARRAY_LENGTH_MAX, DEPTH_MAX, Value

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from(
        [
            edge + step
            for edge in (0, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**63, -(2**5), -(2**7))
            for step in (-1, 0, 1)
        ]
        + [-(2**15), -(2**15) - 1, -(2**31), -(2**31) - 1, -(2**63), 2**64 - 1]
    ),
    st.binary(max_size=40),
    st.sampled_from([bytes(255), bytes(256), bytes(65535), bytes(65536)]),
    st.text(st.characters(max_codepoint=127), max_size=40),
    st.sampled_from(["x" * size for size in (31, 32, 255, 256, 65535, 65536)]),
)


def nested(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return LEAVES
    return st.one_of(
        LEAVES,
        st.lists(nested(depth - 1), max_size=5),
        st.lists(nested(0), min_size=15, max_size=17),
    )


VALUES = nested(DEPTH_MAX)


def shortest(value: Any) -> bytes:
    """The canonical form, written from the msgpack specification and nothing else."""
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return shortest_int(value)
    if isinstance(value, bytes):
        return header(len(value), ((0xC4, 1), (0xC5, 2), (0xC6, 4))) + value
    if isinstance(value, str):
        size = len(value)
        head = (
            bytes([0xA0 | size]) if size < 32 else header(size, ((0xD9, 1), (0xDA, 2), (0xDB, 4)))
        )
        return head + value.encode("ascii")
    size = len(value)
    head = bytes([0x90 | size]) if size < 16 else header(size, ((0xDC, 2), (0xDD, 4)))
    return head + b"".join(map(shortest, value))


def shortest_int(value: int) -> bytes:
    if -32 <= value < 128:
        return value.to_bytes(1, "big", signed=value < 0)
    if value > 0:
        return header(value, ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)))
    for first, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        if value >= -(1 << (8 * size - 1)):
            return bytes([first]) + value.to_bytes(size, "big", signed=True)
    raise AssertionError(value)


def header(number: int, forms: tuple[tuple[int, int], ...]) -> bytes:
    for first, size in forms:
        if number < 1 << (8 * size):
            return bytes([first]) + number.to_bytes(size, "big")
    raise AssertionError(number)


def decode_or_none(data: bytes) -> tuple[Value] | None:
    """The decoded value in a tuple, or None if refused with the one error allowed."""
    try:
        return (canonical.decode(data),)
    except CanonicalError:
        return None


@given(VALUES)
def test_every_allowed_value_survives_the_round_trip_with_its_types(value: Value) -> None:
    # repr tells True from 1, which == does not.
    assert repr(canonical.decode(canonical.encode(value))) == repr(value)


@given(VALUES)
def test_the_bytes_are_the_shortest_msgpack_form(value: Value) -> None:
    assert canonical.encode(value) == shortest(value)


@given(VALUES)
def test_tuples_and_lists_have_the_same_bytes(value: Value) -> None:
    def frozen(part: Any) -> Any:
        return tuple(map(frozen, part)) if isinstance(part, list) else part

    assert canonical.encode(frozen(value)) == canonical.encode(value)


def test_true_and_one_have_different_bytes() -> None:
    assert len({canonical.encode(value) for value in (True, 1, False, 0, None, b"", "")}) == 7


# Bytes that look like msgpack reach much deeper into the decoder than uniformly random ones.
LIKELY_BYTES = st.lists(
    st.one_of(
        st.sampled_from(
            bytes.fromhex("0001 7f 80 81 8f 90 91 92 9f a0 a1 bf c0c1c2c3 c4c5c6 c7c8c9 cacb")
            + bytes.fromhex("cccdcecf d0d1d2d3 d4d5d6d7d8 d9dadb dcdd dedf e0 ff 40 00")
        ),
        st.integers(0, 255),
    ),
    max_size=40,
).map(bytes)


@given(st.one_of(st.binary(max_size=60), LIKELY_BYTES))
@example(b"")
@example(b"\xc1")
@example(b"\xd6\xff\x00\x00\x00\x00")
@example(b"\xc7\x00\xff")
@example(b"\xdf\x00\x00\x00\x00")
def test_what_decodes_encodes_to_the_same_bytes_and_the_rest_is_refused(data: bytes) -> None:
    decoded = decode_or_none(data)
    if decoded is not None:
        assert canonical.encode(decoded[0]) == data
        assert shortest(decoded[0]) == data


@given(VALUES, st.data())
def test_a_flipped_bit_is_refused_or_gives_another_value(value: Value, data: st.DataObject) -> None:
    mutated = bytearray(canonical.encode(value))
    bit = data.draw(st.integers(0, 8 * len(mutated) - 1))
    mutated[bit // 8] ^= 1 << bit % 8
    decoded = decode_or_none(bytes(mutated))
    if decoded is not None:
        assert shortest(decoded[0]) == mutated
        assert repr(decoded[0]) != repr(value)


@given(VALUES, st.data())
def test_truncated_bytes_are_refused(value: Value, data: st.DataObject) -> None:
    whole = canonical.encode(value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CanonicalError):
        canonical.decode(whole[:cut])


@given(VALUES, st.binary(min_size=1, max_size=9))
def test_appended_bytes_are_refused(value: Value, extra: bytes) -> None:
    with pytest.raises(CanonicalError):
        canonical.decode(canonical.encode(value) + extra)


def all_forms_of_int(value: int) -> list[bytes]:
    """Every msgpack form that can hold ``value``."""
    forms = [value.to_bytes(1, "big", signed=value < 0)] if -32 <= value < 128 else []
    for first, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        if 0 <= value < 1 << (8 * size):
            forms.append(bytes([first]) + value.to_bytes(size, "big"))
    for first, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        if -(1 << (8 * size - 1)) <= value < 1 << (8 * size - 1):
            forms.append(bytes([first]) + value.to_bytes(size, "big", signed=True))
    return forms


@given(st.one_of(st.integers(-(2**63), 2**64 - 1), st.integers(-200, 300)))
@example(40_000)
@example(20_000)  # fits a 16-bit form with and without sign; only the unsigned one is canonical
@example(0)
@example(-33)
def test_an_integer_has_one_form_only(value: int) -> None:
    forms = all_forms_of_int(value)
    assert [form for form in forms if decode_or_none(form)] == [canonical.encode(value)]
    inside = [b"\x92\xc0" + form for form in forms]
    assert [form for form in inside if decode_or_none(form)] == [canonical.encode([None, value])]


@pytest.mark.parametrize(
    ("value", "heads"),
    [
        (b"", "c500 00 | c600000000"),
        (b"abc", "c50003 | c600000003"),
        (bytes(256), "c600000100"),
        ("", "d900 | da0000 | db00000000"),
        ("abc", "d903 | da0003 | db00000003"),
        ("x" * 31, "d91f | da001f"),
        ("x" * 32, "da0020 | db00000020"),
        ("x" * 256, "db00000100"),
    ],
)
def test_longer_headers_of_strings_are_refused(value: bytes | str, heads: str) -> None:
    raw = value if isinstance(value, bytes) else value.encode("ascii")
    assert canonical.decode(canonical.encode(value)) == value
    for head in heads.split("|"):
        data = bytes.fromhex(head) + raw
        assert msgpack.unpackb(data) == value  # good msgpack, with a longer header than needed
        with pytest.raises(CanonicalError):
            canonical.decode(data)


@pytest.mark.parametrize(
    ("length", "heads"),
    [(0, "dc0000 | dd00000000"), (1, "dc0001 | dd00000001"), (16, "dd00000010")],
)
def test_longer_headers_of_arrays_are_refused(length: int, heads: str) -> None:
    for head in heads.split("|"):
        data = bytes.fromhex(head) + b"\xc0" * length
        assert msgpack.unpackb(data) == [None] * length
        with pytest.raises(CanonicalError):
            canonical.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        "80",  # an empty map
        "81c0c0",
        "81a16101",
        "8190c0",  # a map whose key cannot be hashed
        "de0000",
        "df00000000",
        "82a16201a16101",  # unsorted
        "ca00000000",  # 0.0
        "cb3ff0000000000000",  # 1.0, which equals the integer 1
        "cb7ff8000000000000",  # NaN
        "ca7fc00000",
        "cb7ff0000000000000",  # infinity
        "c70001",  # extension types of every header
        "c7010100",
        "c8000001",
        "c900000000 01",
        "d40100",
        "d5010000",
        "d601" + "00" * 4,
        "d701" + "00" * 8,
        "d801" + "00" * 16,
        "d6ff00000000",  # timestamps of 32, 64 and 96 bits
        "d7ff" + "00" * 8,
        "d7ff" + "ff" * 8,  # nanoseconds out of range
        "c70cff" + "00" * 12,
        "c70cff" + "ff" * 12,
        "c700ff",
        "c1",  # never used in msgpack
        "a2c3a9",  # UTF-8, but not ASCII
        "a3e282ac",
        "a180",
        "a1ff",  # not UTF-8
        "a2c080",  # overlong NUL
        "a3eda080",  # a surrogate
        "a4f4908080",  # above U+10FFFF
        "",
    ],
)
@pytest.mark.parametrize("around", ["", "91", "92c0", "9191"])
def test_forms_that_do_not_exist_here_are_refused(data: str, around: str) -> None:
    with pytest.raises(CanonicalError):
        canonical.decode(bytes.fromhex(around + data))


def test_arrays_nest_four_deep_and_no_deeper() -> None:
    assert canonical.decode(b"\x91" * 4 + b"\xc0") == [[[[None]]]]
    assert canonical.decode(b"\x91" * 3 + b"\x90") == [[[[]]]]
    for data in (b"\x91" * 5 + b"\xc0", b"\x91" * 4 + b"\x90", b"\x92\xc0\x91\x91\x91\x91\xc0"):
        with pytest.raises(CanonicalError):
            canonical.decode(data)


def test_arrays_have_at_most_64_elements() -> None:
    full: list[Value] = [7] * ARRAY_LENGTH_MAX
    assert canonical.decode(canonical.encode(full)) == full
    with pytest.raises(CanonicalError):
        canonical.decode(b"\xdc\x00\x41" + b"\x07" * 65)
    with pytest.raises(LocalProtocolError):
        canonical.encode([*full, 7])


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" * 10_000 + b"\xc0",
        b"\x91" * 1_000_000,
        b"\xdc\x00\x40" * 10_000,
        b"\xdc\xff\xff" * 10_000,
        b"\xdc\x75\x00" * 10_000,  # every promise is less than the bytes that are there
        b"\xdd\x00\x00\x75\x00" * 10_000,
        b"\xdd\xff\xff\xff\xff" * 10_000,
        b"\x9f" * 10_000,
        b"\xdd\x7f\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc6\x7f\xff\xff\xff" + bytes(1000),
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdf\xff\xff\xff\xff",
        b"\x81" * 10_000,
        b"\xdf\x7f\xff\xff\xff" * 10_000,
    ],
    ids=lambda bomb: f"{bomb[:5].hex()}-{len(bomb)}",
)
def test_a_bomb_is_refused_within_a_mebibyte(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CanonicalError):
            canonical.decode(bomb)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2**20


class Number(int):
    """An integer with a name, like a code of a reply."""


class Name(bytes):
    """A byte string with a meaning, like a nodeId."""


def test_named_numbers_and_byte_strings_have_the_bytes_of_plain_ones() -> None:
    assert canonical.encode([Number(300), Name(b"abc")]) == canonical.encode([300, b"abc"])


def test_what_has_too_many_arrays_to_be_read_cannot_be_written() -> None:
    """Each of a message's bytes could ask for a list, which takes sixty times the memory."""
    value: list[Value] = [[[] for _ in range(ARRAY_LENGTH_MAX)] for _ in range(ARRAY_LENGTH_MAX)]
    with pytest.raises(CanonicalError):
        canonical.decode(msgpack.packb(value))
    with pytest.raises(LocalProtocolError):
        canonical.encode(value)


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        {},
        {"a": 1},
        {1},
        bytearray(b"a"),
        memoryview(b"a"),
        "\u00e9",
        "\ud800",
        2**64,
        -(2**63) - 1,
        10**400,
        object(),
        msgpack.Timestamp(0, 0),
        msgpack.ExtType(1, b""),
        [[[[[]]]]],
        ENDLESS,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_without_canonical_form_is_the_callers_mistake(value: Any) -> None:
    for offered in (value, [value], (None, value)):
        with pytest.raises(LocalProtocolError):
            canonical.encode(offered)

"""Signed comm records and contact links: what is said, who said it, and which one is newer."""

from __future__ import annotations

import base64
import hashlib
import itertools
import tracemalloc
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import assume, given
from hypothesis import strategies as st

from egtp.errors import CanonicalError, InvalidRecord, LocalProtocolError
from egtp.values import canonical
from egtp.values.comm_record import CommRecord, SignedCommRecord, supersedes
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat, parse_strategy
from egtp.values.contact_link import ContactLink
from egtp.values.identity import Identity, NodeId
from egtp.values.mutable_item import MutableItem, signing_buffer

EXPIRY = 1_900_000_000
INCARNATION = bytes(range(8))
IP = bytes([192, 0, 2, 7])

IPS = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
ADDRESSES = st.builds(Address, IPS, st.integers(1, 65535))
KEYS = st.sampled_from([Identity.generate(bytes([n]).__mul__).key for n in range(8)])
STRATEGIES: st.SearchStrategy[CommStrat] = st.one_of(
    st.builds(TCPStrat, ADDRESSES),
    st.builds(
        RelayStrat,
        KEYS,
        st.integers(1, 255),
        st.binary(min_size=32, max_size=32),
        st.lists(ADDRESSES, max_size=2).map(tuple),
    ),
)
SEQUENCES = st.integers(1, 2**48 - 1)
CONTENTS = st.builds(
    CommRecord,
    st.integers(0, 2**48 - 1),
    st.binary(min_size=8, max_size=8),
    st.lists(st.tuples(st.integers(1, 300), st.binary(max_size=40)), max_size=3).map(tuple),
    st.lists(STRATEGIES, max_size=4).map(tuple),
    st.lists(st.binary(min_size=20, max_size=20).map(NodeId), max_size=3).map(tuple),
    st.integers(0, 2**16 - 1),
)


def fields_of_format_1() -> list[Any]:
    """A good record's fields, to be spoilt by the tests."""
    return [1, EXPIRY, 0, INCARNATION, [[1, bytes(range(32))]], [[1, IP, 4000]], [bytes(20)], []]


def signed(identity: Identity, fields: Any, sequence: int = 7) -> bytes:
    """The encoded item of any value at all, signed as a hostile peer would sign it."""
    value = fields if isinstance(fields, bytes) else msgpack.packb(fields)
    signature = identity.sign(
        signing_buffer(sequence, b"%d:%b" % (len(value), value), b"EGTP nodeId 1")
    )
    data: bytes = msgpack.packb([identity.key, sequence, value, signature])
    return data


def made(identity: Identity, sequence: int = 7, **changes: Any) -> SignedCommRecord:
    content: dict[str, Any] = {
        "expiry_unix_s": EXPIRY,
        "incarnation": INCARNATION,
        "channels": ((1, identity.channel_key),),
    }
    return SignedCommRecord.sign(identity, sequence, CommRecord(**(content | changes)))


@given(content=CONTENTS, sequence=SEQUENCES)
def test_every_record_survives_the_round_trip(
    alice: Identity, content: CommRecord, sequence: int
) -> None:
    assume(len(content.encode()) <= 800)
    record = SignedCommRecord.sign(alice, sequence, content)
    assert record.content == content
    decoded = SignedCommRecord.decode(record.encode())
    assert decoded == record
    assert decoded.encode() == record.encode()
    assert decoded.content == content
    assert (decoded.sequence, decoded.key, decoded.peer_id) == (sequence, alice.key, alice.node_id)
    assert decoded.expiry_unix_s == content.expiry_unix_s
    assert decoded.strategies == content.strategies
    assert set(decoded.tcp) | set(decoded.relays) == set(content.strategies)
    assert CommRecord.decode(content.encode()) == content


@given(CONTENTS)
def test_the_value_is_the_array_of_the_specification(content: CommRecord) -> None:
    value = msgpack.unpackb(content.encode())
    assert value[:2] == [1, content.expiry_unix_s]
    assert value[2:4] == [content.flags, content.incarnation]
    assert value[4] == [list(channel) for channel in content.channels]
    assert [parse_strategy(fields) for fields in value[5]] == list(content.strategies)
    assert value[6] == list(content.friends)
    assert value[7] == []
    assert len(value) == 8


def with_bytes(value: Any) -> Any:
    """A value as ``vectors.json`` writes it: ``hex:`` stands before byte strings."""
    if isinstance(value, list):
        return [with_bytes(part) for part in value]
    if isinstance(value, str) and value.startswith("hex:"):
        return bytes.fromhex(value.removeprefix("hex:"))
    return value


def test_every_frozen_value_has_its_bytes_and_back(vectors: dict[str, Any]) -> None:
    assert len(vectors["values"]) == 21
    for frozen in vectors["values"].values():
        value, data = with_bytes(frozen["value"]), bytes.fromhex(frozen["bytes"])
        assert canonical.encode(value) == data
        assert repr(canonical.decode(data)) == repr(value)
    for frozen in vectors["refused_canonical"]:
        with pytest.raises(CanonicalError):
            canonical.decode(bytes.fromhex(frozen["bytes"]))


def frozen_identity(vectors: dict[str, Any], name: str) -> Identity:
    frozen = vectors["identities"][name]
    seeds = iter((frozen["signing_seed"], frozen["channel_secret"]))
    return Identity.generate(lambda _: bytes.fromhex(next(seeds)))


def frozen_strategies(vectors: dict[str, Any]) -> dict[str, CommStrat]:
    relay = frozen_identity(vectors, "relay")
    v6 = bytes.fromhex("20010db8000000000000000000000007")
    hints = (Address(bytes([198, 51, 100, 1]), 443), Address(v6, 8443))
    return {
        "strategy_tcp4": TCPStrat(Address(IP, 4000)),
        "strategy_tcp6": TCPStrat(Address(v6, 65535)),
        "strategy_relay": RelayStrat(relay.key, 1, relay.channel_key),
        "strategy_relay_hints": RelayStrat(relay.key, 1, relay.channel_key, hints),
    }


def frozen_contents(vectors: dict[str, Any]) -> dict[str, CommRecord]:
    alice, relay = (frozen_identity(vectors, name) for name in ("alice", "relay"))
    ways = frozen_strategies(vectors)
    incarnation = bytes.fromhex("0011223344556677")
    return {
        "record_value": CommRecord(
            EXPIRY,
            incarnation,
            ((1, alice.channel_key),),
            (ways["strategy_tcp4"], ways["strategy_tcp6"], ways["strategy_relay_hints"]),
            (relay.node_id,),
        ),
        "record_value_smallest": CommRecord(EXPIRY, incarnation, ((1, alice.channel_key),)),
    }


def test_the_frozen_strategies_are_read_and_written(vectors: dict[str, Any]) -> None:
    for name, strategy in frozen_strategies(vectors).items():
        data = bytes.fromhex(vectors["values"][name]["bytes"])
        assert canonical.encode(strategy.fields()) == data
        assert parse_strategy(canonical.decode(data)) == strategy


def test_the_frozen_records_are_read_and_written(vectors: dict[str, Any]) -> None:
    alice, contents = frozen_identity(vectors, "alice"), frozen_contents(vectors)
    for name, content in contents.items():
        assert content.encode().hex() == vectors["values"][name]["bytes"]
        assert CommRecord.decode(content.encode()) == content
    for name, content_name, sequence in (
        ("record", "record_value", 1_800_000_000),
        ("record_smallest", "record_value_smallest", 1),
        ("record_highest_sequence", "record_value_smallest", 2**48 - 1),
    ):
        frozen, content = vectors["values"][name], contents[content_name]
        record = SignedCommRecord.sign(alice, sequence, content)
        assert record.encode().hex() == frozen["bytes"]
        assert hashlib.sha256(record.encode()).hexdigest() == frozen["sha256"]
        value = content.encode()
        buffer = signing_buffer(sequence, b"%d:%b" % (len(value), value), b"EGTP nodeId 1")
        assert buffer.hex() == frozen["signing_buffer"]
        assert SignedCommRecord.decode(bytes.fromhex(frozen["bytes"])) == record


def test_the_frozen_records_of_later_versions_are_read_and_passed_on(
    vectors: dict[str, Any],
) -> None:
    alice = frozen_identity(vectors, "alice")
    data = bytes.fromhex(vectors["values"]["record_extended"]["bytes"])
    extended = SignedCommRecord.decode(data)
    assert extended.encode() == data
    assert extended.strategies == (TCPStrat(Address(IP, 4000)),)
    assert extended.channel_key(1) == alice.channel_key
    data = bytes.fromhex(vectors["values"]["record_format_2"]["bytes"])
    later = SignedCommRecord.decode(data)
    assert later.encode() == data
    assert later.content is None
    assert (later.expiry_unix_s, later.peer_id) == (EXPIRY, alice.node_id)


def test_what_is_frozen_as_usable_is_used_and_what_as_unusable_is_not(
    vectors: dict[str, Any],
) -> None:
    alice = frozen_identity(vectors, "alice")
    for frozen in vectors["usable_record_values"]:
        item = MutableItem.sign(alice, 1, bytes.fromhex(frozen["bytes"]))
        record = SignedCommRecord.of_item(item)
        key = record.channel_key()
        found = None if key is None else key.hex(), len(record.strategies)
        assert found == (frozen["channel_key"], frozen["strategies"]), frozen["description"]
    for frozen in vectors["unusable_record_values"]:
        with pytest.raises(InvalidRecord):
            CommRecord.decode(bytes.fromhex(frozen["bytes"]))


def test_every_record_that_is_frozen_as_refused_is_refused(vectors: dict[str, Any]) -> None:
    for frozen in vectors["refused_records"]:
        with pytest.raises(InvalidRecord):
            SignedCommRecord.decode(bytes.fromhex(frozen["bytes"]))
        if "verifies under it" in frozen["description"]:
            # So it is refused for its key, and nothing else.
            key, sequence, value, signature = msgpack.unpackb(bytes.fromhex(frozen["bytes"]))
            public = Ed25519PublicKey.from_public_bytes(key)
            signed = signing_buffer(sequence, b"%d:%b" % (len(value), value), b"EGTP nodeId 1")
            public.verify(signature, signed)


def test_the_frozen_links_are_read_and_written(vectors: dict[str, Any]) -> None:
    alice = frozen_identity(vectors, "alice")
    record = SignedCommRecord.decode(bytes.fromhex(vectors["values"]["record"]["bytes"]))
    for name, link in (
        ("link", ContactLink(alice.node_id)),
        ("link_record", ContactLink(alice.node_id, record)),
    ):
        text = vectors["links"][name]["text"]
        assert str(link) == text
        assert ContactLink.parse(text) == link
    upper = ContactLink.parse(vectors["links"]["link_upper_case"]["text"])
    assert upper == ContactLink(alice.node_id)
    for frozen in vectors["refused_links"]:
        with pytest.raises((LocalProtocolError, InvalidRecord)):
            ContactLink.parse(frozen["text"])


def test_what_a_later_version_adds_is_skipped_and_survives(alice: Identity) -> None:
    fields = fields_of_format_1()
    fields[2] = 0xFFFF
    fields[4] = [[9, b"a hash of a larger key"], [1, bytes(range(32)), "more", [True]]]
    fields[5] = [[3], [77, b"x", [1, 2]], [1, IP, 4000, None], [2**64 - 1], [-1]]
    fields[7] = [[5, b"unknown"], [2**40, b""], [6, b"", None, [1]]]
    fields += [None, "more", [[b"deep"]]]
    data = signed(alice, fields)
    record = SignedCommRecord.decode(data)
    assert record.encode() == data
    assert record.strategies == (TCPStrat(Address(IP, 4000)),)
    assert record.channel_key(1) == bytes(range(32))
    assert record.content is not None
    assert record.content.flags == 0xFFFF


@pytest.mark.parametrize(
    "fields",
    [
        [2, EXPIRY],
        [2, EXPIRY, None],
        [3, EXPIRY, "anything", [[[-1]]]],
        [2**64 - 1, EXPIRY, b""],
        [2, EXPIRY, 0xFFFFFFFF, b"", [], [], [], []],
    ],
    ids=repr,
)
def test_a_later_format_verifies_and_is_passed_on_but_not_read(
    alice: Identity, fields: list[Any]
) -> None:
    data = signed(alice, fields)
    record = SignedCommRecord.decode(data)
    assert record.encode() == data
    assert record.content is None
    assert record.strategies == ()
    assert (record.tcp, record.relays) == ((), ())
    assert record.channel_key() is None
    assert record.expired(EXPIRY)
    assert not record.expired(EXPIRY - 1)
    assert str(alice.node_id) in str(record)
    assert repr(record) == f"<{record}>"


def test_a_forged_record_of_a_later_format_is_refused(alice: Identity, bob: Identity) -> None:
    key, sequence, value, signature = msgpack.unpackb(signed(alice, [2, EXPIRY]))
    for parts in (
        [bob.key, sequence, value, signature],
        [key, sequence + 1, value, signature],
        [key, sequence, msgpack.packb([2, EXPIRY + 1]), signature],
    ):
        with pytest.raises(InvalidRecord):
            SignedCommRecord.decode(msgpack.packb(parts))


def test_content_of_another_format_is_not_read_as_format_1() -> None:
    fields = fields_of_format_1()
    CommRecord.decode(msgpack.packb(fields))
    for form in (2, 3, 0, -1, True, None, b"1"):
        with pytest.raises(InvalidRecord):
            CommRecord.decode(msgpack.packb([form, *fields[1:]]))


@pytest.mark.parametrize("expiry", [True, False, -1, 2**48, 2**64 - 1, None, b"1", "1", 1.0])
def test_an_expiry_is_a_number_within_its_limits(alice: Identity, expiry: Any) -> None:
    fields = fields_of_format_1()
    fields[1] = expiry
    with pytest.raises(InvalidRecord):
        SignedCommRecord.decode(signed(alice, fields))
    with pytest.raises(InvalidRecord):
        CommRecord.decode(msgpack.packb(fields))


@pytest.mark.parametrize("bit", range(16))
def test_ignorable_flags_are_accepted(alice: Identity, bit: int) -> None:
    assert SignedCommRecord.decode(made(alice, flags=1 << bit).encode()).content is not None


@pytest.mark.parametrize("bit", range(16, 32))
def test_critical_flags_are_refused(alice: Identity, bit: int) -> None:
    fields = fields_of_format_1()
    fields[2] = 1 << bit
    with pytest.raises(InvalidRecord):
        SignedCommRecord.decode(signed(alice, fields))
    with pytest.raises(InvalidRecord):
        made(alice, flags=1 << bit | 1)


SMALL_ORDER_KEY = bytes(32)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (0, 0),
        (0, -1),
        (0, True),
        (0, None),
        (0, "1"),
        (2, True),
        (2, -1),
        (2, 2**32),
        (2, None),
        (2, b""),
        (3, bytes(7)),
        (3, bytes(9)),
        (3, "x" * 8),
        (3, None),
        (3, 0),
        (4, None),
        (4, b""),
        (4, [1, bytes(32)]),
        (4, [[1]]),
        (4, [[]]),
        (4, [[True, bytes(32)]]),
        (4, [[0, bytes(32)]]),
        (4, [[-1, bytes(32)]]),
        (4, [[1, "x" * 32]]),
        (4, [[1, None]]),
        (4, [[1, bytes(32)], None]),
        (4, [[1, b""]] * 9),
        (5, None),
        (5, [1, IP, 4000]),
        (5, [[]]),
        (5, [[True, IP, 4000]]),
        (5, [[1, IP, True]]),
        (5, [[1, IP, 0]]),
        (5, [[1, IP[:3], 4000]]),
        (5, [[2, SMALL_ORDER_KEY, 1, bytes(32)]]),
        (5, [[99], None]),
        (5, [[1, IP, 4000]] * 9),
        (5, [[99]] * 9),
        (6, None),
        (6, [bytes(19)]),
        (6, [bytes(21)]),
        (6, ["a" * 20]),
        (6, [[bytes(20)]]),
        (6, [None]),
        (6, [bytes(20)] * 9),
        (7, None),
        (7, {}),
        (7, [[]]),
        (7, [[1]]),
        (7, [[True, b""]]),
        (7, [["1", b""]]),
        (7, [[1, "text"]]),
        (7, [[1, None]]),
        (7, [None]),
        (7, [1, b""]),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_wrong_fields_are_refused(alice: Identity, place: int, wrong: Any) -> None:
    fields = fields_of_format_1()
    SignedCommRecord.decode(signed(alice, fields))
    fields[place] = wrong
    with pytest.raises(InvalidRecord):
        SignedCommRecord.decode(signed(alice, fields))
    with pytest.raises(InvalidRecord):
        CommRecord.decode(msgpack.packb(fields))


@pytest.mark.parametrize("length", range(8))
def test_missing_fields_are_refused(alice: Identity, length: int) -> None:
    with pytest.raises(InvalidRecord):
        SignedCommRecord.decode(signed(alice, fields_of_format_1()[:length]))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc0",
        b"\x01",
        b"hello",
        b"\x80",
        msgpack.packb({1: EXPIRY}),
        msgpack.packb(fields_of_format_1()) + b"\xc0",
        msgpack.packb(fields_of_format_1())[:-1],
        b"\xdc\x00\x08" + msgpack.packb(fields_of_format_1())[1:],
        b"\x92\xcc\x01\x01",
        b"\x92\x02\xcb" + bytes(8),
        b"\x93\x02\x01\x80",  # not canonical, though the format is a later one
        b"\x91" * 700 + b"\xc0",
        b"\xdc\x00\x40" * 200,
    ],
)
def test_a_signed_value_that_is_no_canonical_record_is_refused(
    alice: Identity, value: bytes
) -> None:
    with pytest.raises(InvalidRecord):
        SignedCommRecord.decode(signed(alice, value))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 3),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([INCARNATION, IP, bytes(20), bytes(range(32)), b""]),
    st.text(st.characters(max_codepoint=127), max_size=4),
)
ENTRIES = st.lists(st.one_of(SCALARS, st.lists(st.one_of(SCALARS, st.lists(SCALARS)))), max_size=4)


@given(st.data())
def test_any_canonical_value_is_a_record_or_refused(alice: Identity, data: st.DataObject) -> None:
    fields = fields_of_format_1()
    for place in data.draw(st.sets(st.integers(0, 7), min_size=1, max_size=3)):
        fields[place] = data.draw(ENTRIES if place >= 4 else st.one_of(SCALARS, ENTRIES))
    value = msgpack.packb(fields)
    assume(len(value) <= 800)
    encoded = signed(alice, value)
    try:
        record = SignedCommRecord.decode(encoded)
    except InvalidRecord:
        return
    assert record.encode() == encoded
    assert type(record.expiry_unix_s) is int
    if record.content is not None:
        # What was read can be written and means the same.
        assert CommRecord.decode(record.content.encode()) == record.content


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_with_the_typed_error(data: bytes) -> None:
    for decode in (SignedCommRecord.decode, CommRecord.decode):
        with pytest.raises(InvalidRecord):
            decode(data)


def test_every_flipped_bit_of_a_record_is_refused(alice: Identity) -> None:
    record = made(alice, strategies=(TCPStrat(Address(IP, 4000)),), friends=(alice.node_id,))
    data = record.encode()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidRecord):
            SignedCommRecord.decode(bytes(flipped))


def test_truncated_and_lengthened_records_are_refused(alice: Identity) -> None:
    data = made(alice).encode()
    for changed in (*(data[:cut] for cut in range(len(data))), data + b"\0", b"\0" + data):
        with pytest.raises(InvalidRecord):
            SignedCommRecord.decode(changed)


def test_a_record_of_another_key_is_refused(alice: Identity, bob: Identity) -> None:
    parts = msgpack.unpackb(made(alice).encode())
    with pytest.raises(InvalidRecord):
        SignedCommRecord.decode(msgpack.packb([bob.key, *parts[1:]]))


def test_a_value_has_at_most_800_bytes(alice: Identity) -> None:
    fields = fields_of_format_1()
    fields[7] = [[1, b""]]
    room = 800 - len(msgpack.packb(fields)) - 1  # bytes above 255 have a header of three
    fields[7] = [[1, bytes(room)]]
    assert len(msgpack.packb(fields)) == 800
    assert SignedCommRecord.decode(signed(alice, fields)).content is not None
    fields[7] = [[1, bytes(room + 1)]]
    assert len(msgpack.packb(fields)) == 801
    with pytest.raises(InvalidRecord):
        SignedCommRecord.decode(signed(alice, fields))
    with pytest.raises(InvalidRecord):
        MutableItem.sign(alice, 7, msgpack.packb(fields))


def test_a_record_has_at_most_eight_addresses(alice: Identity) -> None:
    ways = tuple(TCPStrat(Address(IP, port)) for port in range(1, 10))
    assert made(alice, strategies=ways[:8]).tcp == ways[:8]
    with pytest.raises(InvalidRecord):
        made(alice, strategies=ways)


@pytest.mark.parametrize(
    "changes",
    [
        {"expiry_unix_s": -1},
        {"expiry_unix_s": 2**48},
        {"incarnation": b""},
        {"incarnation": bytes(9)},
        {"channels": ((0, bytes(32)),)},
        {"flags": -1},
        {"flags": 2**32},
        {"strategies": (TCPStrat(Address(b"123", 4000)),)},
        {"strategies": (TCPStrat(Address(IP, 0)),)},
        {"strategies": (RelayStrat(SMALL_ORDER_KEY, 1, bytes(32)),)},
        {"friends": tuple(NodeId(bytes([n]) * 20) for n in range(9))},
        {"channels": tuple((suite, bytes(120)) for suite in range(1, 8))},  # above 800 bytes
    ],
    ids=repr,
)
def test_this_side_signs_only_what_the_others_will_read(
    alice: Identity, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRecord):
        made(alice, **changes)


def test_the_channel_key_is_the_first_that_fits_the_suite(alice: Identity) -> None:
    first, second = b"1" * 32, b"2" * 32
    record = made(alice, channels=((7, b"7" * 32), (1, b"short"), (1, first), (1, second)))
    assert record.channel_key() == record.channel_key(1) == first
    assert record.channel_key(7) == b"7" * 32
    assert record.channel_key(2) is None


def test_a_record_is_expired_from_its_expiry_on(alice: Identity) -> None:
    record = made(alice, expiry_unix_s=1000)
    assert [record.expired(now) for now in (0, 999, 999.999, 1000, 1000.5, 2**40)] == [
        *(False, False, False),
        *(True, True, True),
    ]


def records_to_compare(identity: Identity) -> list[SignedCommRecord]:
    return [
        made(identity, sequence, incarnation=bytes([other]) * 8)
        for sequence in (1, 2, 2**48 - 1)
        for other in range(5)
    ]


def test_supersedes_is_a_strict_total_order(alice: Identity) -> None:
    records = records_to_compare(alice)
    above = {(a, b): supersedes(a, b) for a, b in itertools.product(records, repeat=2)}
    for a, b in itertools.product(records, repeat=2):
        assert above[a, b] + above[b, a] == (a is not b)
    for a, b, c in itertools.product(records, repeat=3):
        if above[a, b] and above[b, c]:
            assert above[a, c]


def test_the_higher_sequence_wins_whatever_the_hash(alice: Identity) -> None:
    for a, b in itertools.product(records_to_compare(alice), repeat=2):
        if a.sequence != b.sequence:
            assert supersedes(a, b) == (a.sequence > b.sequence)


def test_among_equal_sequences_the_lower_sha256_wins(alice: Identity) -> None:
    for a, b in itertools.product(records_to_compare(alice), repeat=2):
        if a.sequence == b.sequence and a is not b:
            lower = hashlib.sha256(a.encode()).digest() < hashlib.sha256(b.encode()).digest()
            assert supersedes(a, b) == lower


def test_anything_supersedes_nothing_and_not_itself(alice: Identity) -> None:
    record = made(alice)
    assert supersedes(record, None)
    assert not supersedes(record, record)
    assert not supersedes(record, SignedCommRecord.decode(record.encode()))


def test_a_later_format_takes_part_in_the_order(alice: Identity) -> None:
    older, later = made(alice, 7), SignedCommRecord.decode(signed(alice, [2, EXPIRY], 8))
    assert supersedes(later, older)
    assert not supersedes(older, later)


@given(content=CONTENTS, sequence=SEQUENCES)
def test_every_link_survives_the_round_trip(
    alice: Identity, content: CommRecord, sequence: int
) -> None:
    assume(len(content.encode()) <= 800)
    record = SignedCommRecord.sign(alice, sequence, content)
    for link in (ContactLink(alice.node_id), ContactLink(alice.node_id, record)):
        assert ContactLink.parse(str(link)) == link


def test_a_link_is_the_scheme_the_id_and_base64url(alice: Identity) -> None:
    record = made(alice)
    tail = base64.urlsafe_b64encode(record.encode()).decode().rstrip("=")
    assert str(ContactLink(alice.node_id)) == f"egtp:{alice.node_id}"
    assert str(ContactLink(alice.node_id, record)) == f"egtp:{alice.node_id}.{tail}"


def test_a_link_is_read_with_blanks_around_it_and_in_upper_case(alice: Identity) -> None:
    record = made(alice)
    tail = base64.urlsafe_b64encode(record.encode()).decode().rstrip("=")
    upper = f"EGTP:{str(alice.node_id).upper()}"
    assert ContactLink.parse(f"  {upper}\r\n") == ContactLink(alice.node_id)
    assert ContactLink.parse(f"\t{upper}.{tail} ") == ContactLink(alice.node_id, record)


def test_a_link_with_the_record_of_somebody_else_is_refused(alice: Identity, bob: Identity) -> None:
    tail = base64.urlsafe_b64encode(made(bob).encode()).decode().rstrip("=")
    with pytest.raises(InvalidRecord):
        ContactLink.parse(f"egtp:{alice.node_id}.{tail}")


def test_a_link_with_a_damaged_record_is_refused(alice: Identity) -> None:
    data = bytearray(made(alice).encode())
    data[len(data) // 2] ^= 1
    tail = base64.urlsafe_b64encode(data).decode().rstrip("=")
    with pytest.raises(InvalidRecord):
        ContactLink.parse(f"egtp:{alice.node_id}.{tail}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "egtp",
        "egtp:",
        ":" + "a" * 32,
        "a" * 32,
        "http:" + "a" * 32,
        "egtp://" + "a" * 32,
        "egtp:" + "a" * 31,
        "egtp:" + "a" * 33,
        "egtp: " + "a" * 32,
        "egtp:" + "1" * 32,
        "egtp:.",
        "egtp:." + "a" * 32,
        "egtp:" + "a" * 32 + ".!",
        "egtp:" + "a" * 32 + ".a",
        "egtp:" + "a" * 32 + ".ab cd",
        "egtp:" + "a" * 32 + ".ab\ncd",
        "egtp:" + "a" * 32 + ".\u00e9\u00e9\u00e9\u00e9",
        "egtp:" + "a" * 32 + ".abcd.abcd",
        "egtp:" + "a" * 32 + "?x=1",
        "\u00e9gtp:" + "a" * 32,
    ],
)
def test_a_text_that_is_no_link_is_the_users_mistake(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        ContactLink.parse(text)


@pytest.mark.parametrize("tail", ["", "wA", "gA", "AAAA", "kZGR" * 200])
def test_base64url_of_no_record_is_an_invalid_record(alice: Identity, tail: str) -> None:
    with pytest.raises(InvalidRecord):
        ContactLink.parse(f"egtp:{alice.node_id}.{tail}")


def test_the_record_in_a_link_is_base64url_and_not_base64(vectors: dict[str, Any]) -> None:
    """A ``+`` or ``/`` would not survive every place that a link is pasted into."""
    text = vectors["links"]["link_record"]["text"]
    assert "-" in text
    assert "_" in text
    for other in (text.replace("-", "+"), text.replace("_", "/")):
        with pytest.raises(LocalProtocolError):
            ContactLink.parse(other)


@given(st.one_of(st.text(max_size=60), st.text(max_size=60).map("egtp:".__add__)))
def test_any_text_is_a_link_or_refused_with_a_typed_error(text: str) -> None:
    try:
        link = ContactLink.parse(text)
    except (LocalProtocolError, InvalidRecord):
        return
    assert str(link) == text.strip().lower()


@given(tail=st.text("ABCXYZabcxyz019-_", max_size=80))
def test_any_tail_of_a_link_is_refused_with_a_typed_error(alice: Identity, tail: str) -> None:
    with pytest.raises((LocalProtocolError, InvalidRecord)):
        ContactLink.parse(f"egtp:{alice.node_id}.{tail}")


def test_a_huge_link_costs_no_more_than_a_few_times_its_size(alice: Identity) -> None:
    row = b"\xdc\x00\x40" + b"\x90" * 64
    bomb = b"\xdc\x00\x40" + (b"\xdc\x00\x40" + row * 64) * 64
    text = f"egtp:{alice.node_id}.{base64.urlsafe_b64encode(bomb).decode().rstrip('=')}"
    tracemalloc.start()
    try:
        with pytest.raises((LocalProtocolError, InvalidRecord)) as caught:
            ContactLink.parse(text)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2**20 + 6 * len(text)
    assert len(str(caught.value)) < 500

"""What relays are told and tell: one form each, and nothing else is taken for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.packet import END_TO_END_BYTES_MAX
from egtp.errors import InvalidMessage
from egtp.relay import wire
from egtp.relay.wire import Delivery, Hint, Relay, decode_lease, digest_of, encode_lease
from egtp.values import canonical
from egtp.values.identity import NodeId

IDS = st.binary(min_size=20, max_size=20).map(NodeId)
U32 = st.integers(0, 2**32 - 1)
PACKETS = st.one_of(st.binary(max_size=200), st.just(bytes(END_TO_END_BYTES_MAX)))
DECODERS: list[Any] = [Relay.decode, Delivery.decode, Hint.decode, decode_lease]
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.binary(max_size=40),
        st.text("abc", max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=10,
)


@given(IDS, U32, PACKETS)
def test_a_relay_message_survives_the_round_trip(
    recipient: NodeId, lifetime_ms: int, packet: bytes
) -> None:
    message = Relay(recipient, lifetime_ms, packet)
    assert Relay.decode(message.encode()) == message
    assert canonical.decode(message.encode()) == [bytes(recipient), lifetime_ms, packet]
    assert type(Relay.decode(message.encode()).recipient) is NodeId


@given(IDS, PACKETS)
def test_a_delivery_survives_the_round_trip(sender: NodeId, packet: bytes) -> None:
    assert Delivery.decode(Delivery(sender, packet).encode()) == Delivery(sender, packet)


@given(
    IDS,
    st.one_of(st.none(), st.sampled_from([0, 127, 255, 256, 30_000, 65_535, 65_536])),
    st.binary(max_size=300),
    st.data(),
)
def test_changed_bytes_are_a_message_only_if_they_are_the_canonical_form_of_one(
    node_id: NodeId, lifetime_ms: int | None, packet: bytes, data: st.DataObject
) -> None:
    """However it is read: most are read without decoding them."""
    kind: Any = Delivery if lifetime_ms is None else Relay
    message = (
        Delivery(node_id, packet) if lifetime_ms is None else Relay(node_id, lifetime_ms, packet)
    )
    changed = bytearray(message.encode())
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, min(30, len(changed) - 1)))
        changed[at] = data.draw(st.integers(0, 255))
    body = (
        bytes(changed[: data.draw(st.integers(0, len(changed)))])
        if data.draw(st.booleans())
        else bytes(changed)
    )
    is_read_as_decoding_has_it(kind, body)


def is_read_as_decoding_has_it(kind: Any, body: bytes) -> None:
    try:
        read = kind.decode(body)
    except InvalidMessage:
        return
    fields = canonical.decode(body)
    assert isinstance(fields, list)
    assert fields[: len(read)] == list(read)


@pytest.mark.reaches_in
def test_what_travels_with_every_packet_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_decode", None)
    for packet in (b"", bytes(300), bytes(END_TO_END_BYTES_MAX)):
        relay, delivery = Relay(NodeId(bytes(20)), 256, packet), Delivery(NodeId(bytes(20)), packet)
        assert Relay.decode(relay.encode()) == relay
        assert Delivery.decode(delivery.encode()) == delivery


@pytest.mark.parametrize(
    "message",
    [
        *(Relay(NodeId(bytes(20)), lifetime_ms, b"abcd") for lifetime_ms in (5, 30_000, 70_000)),
        Relay(NodeId(bytes(20)), 30_000, bytes(300)),
        Delivery(NodeId(bytes(20)), b"abcd"),
        Delivery(NodeId(bytes(20)), bytes(300)),
    ],
)
def test_whichever_byte_is_another_one_or_missing_it_is_read_as_decoding_has_it(
    message: Relay | Delivery,
) -> None:
    body = message.encode()
    for at in range(len(body) - len(message.packet) + 1):
        is_read_as_decoding_has_it(type(message), body[:at])
        for value in range(256):
            changed = body[:at] + bytes((value,)) + body[at + 1 :]
            is_read_as_decoding_has_it(type(message), changed)


@given(st.binary(), st.integers(0, 255))
def test_a_hint_survives_the_round_trip_and_names_its_packet(packet: bytes, code: int) -> None:
    hint = Hint(digest_of(packet), code)
    assert Hint.decode(hint.encode()) == hint
    assert len(hint.digest) == 16
    assert digest_of(packet + b"x") != hint.digest


@given(U32)
def test_a_lease_survives_the_round_trip(seconds: int) -> None:
    assert decode_lease(encode_lease(seconds)) == seconds


@given(ANYTHING)
def test_whatever_canonical_value_comes_it_is_taken_whole_or_refused_typed(value: Any) -> None:
    data = canonical.encode(value)
    for decode in DECODERS:
        try:
            decode(data)
        except InvalidMessage:
            continue


@given(st.binary(max_size=200))
def test_whatever_bytes_come_they_are_taken_or_refused_typed(data: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(data)
        except InvalidMessage:
            continue


RELAY = (bytes(20), 1000, b"packet")
DELIVERY = (bytes(20), b"packet")
HINT = (bytes(16), 1)


@pytest.mark.parametrize(
    "fields",
    [
        (),
        RELAY[:2],
        (bytes(19), 1000, b"packet"),
        (bytes(21), 1000, b"packet"),
        ("a" * 20, 1000, b"packet"),
        (bytes(20), -1, b"packet"),
        (bytes(20), 2**32, b"packet"),
        (bytes(20), True, b"packet"),
        (bytes(20), None, b"packet"),
        (bytes(20), 1000, "packet"),
        (bytes(20), 1000, bytes(END_TO_END_BYTES_MAX + 1)),
        (1000, bytes(20), b"packet"),
        RELAY[0],
        1000,
    ],
    ids=lambda fields: repr(fields)[:50],
)
def test_what_is_no_relay_message_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidMessage):
        Relay.decode(canonical.encode(fields))


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (bytes(20),),
        (bytes(19), b"packet"),
        (bytes(20), "packet"),
        (bytes(20), bytes(END_TO_END_BYTES_MAX + 1)),
        None,
    ],
    ids=lambda fields: repr(fields)[:50],
)
def test_what_is_no_delivery_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidMessage):
        Delivery.decode(canonical.encode(fields))


@pytest.mark.parametrize(
    "fields", [(), (bytes(16),), (bytes(15), 1), (bytes(17), 1), (bytes(16), True), (1, bytes(16))]
)
def test_what_is_no_hint_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidMessage):
        Hint.decode(canonical.encode(fields))


@pytest.mark.parametrize("fields", [(), (-1,), (2**32,), (True,), (None,), (b"60",), 60])
def test_what_is_no_lease_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidMessage):
        decode_lease(canonical.encode(fields))


def test_what_a_later_version_adds_behind_the_known_fields_is_skipped() -> None:
    later: tuple[Any, ...] = (b"later", [1, [2]], None)
    assert Relay.decode(canonical.encode((*RELAY, *later))) == RELAY
    assert Delivery.decode(canonical.encode((*DELIVERY, *later))) == DELIVERY
    assert Hint.decode(canonical.encode((*HINT, *later))) == HINT
    assert decode_lease(canonical.encode((60, *later))) == 60


@given(st.sampled_from([RELAY, DELIVERY, HINT, (60,)]), st.data())
def test_a_body_cut_off_or_with_something_behind_it_is_refused(
    fields: tuple[Any, ...], data: st.DataObject
) -> None:
    body = canonical.encode(fields)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    for decode in DECODERS:
        for broken in (cut, body + b"\x00"):
            with pytest.raises(InvalidMessage):
                decode(broken)


def test_a_number_in_a_longer_form_than_needed_is_refused() -> None:
    assert encode_lease(60) == b"\x91\x3c"
    with pytest.raises(InvalidMessage):
        decode_lease(b"\x91\xcc\x3c")

"""Messages: queries, replies and sends in canonical form (R1-R4)."""

from __future__ import annotations

import hashlib
import string
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.errors import InvalidMessage, LocalProtocolError
from egtp.values import message as message_module
from egtp.values.message import (
    Message,
    Query,
    Reply,
    ReplyCode,
    Send,
    check_kind,
    decode_message,
    reference_of,
)

NONCE = bytes(range(16))
REFERENCE = bytes(range(32))

NONCES = st.binary(min_size=16, max_size=16)
KINDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=64)
U32 = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 127, 128, 65535, 2**32 - 1]))
BODIES = st.one_of(st.binary(max_size=300), st.sampled_from([bytes(255), bytes(256), bytes(65536)]))
QUERIES = st.builds(Query, NONCES, st.integers(0, 2**64 - 1), KINDS, U32, U32, BODIES)
REPLIES = st.builds(Reply, NONCES, st.binary(min_size=32, max_size=32), st.integers(0, 127), BODIES)
SENDS = st.builds(Send, NONCES, KINDS, U32, BODIES)
MESSAGES: st.SearchStrategy[Message] = st.one_of(QUERIES, REPLIES, SENDS)


@given(MESSAGES)
def test_every_message_survives_the_round_trip(message: Message) -> None:
    decoded = decode_message(message.encode())
    assert type(decoded) is type(message)
    assert decoded == message
    assert decoded.encode() == message.encode()


@given(QUERIES)
def test_the_form_of_a_query(query: Query) -> None:
    nonce, number, kind, lifetime_ms, reply_bytes_max, body = query
    form = [1, nonce, None, number, kind, lifetime_ms, reply_bytes_max, body]
    assert query.encode() == msgpack.packb(form)


@given(REPLIES)
def test_the_form_of_a_reply(reply: Reply) -> None:
    form = [2, reply.nonce, reply.reference, reply.code, reply.body]
    assert reply.encode() == msgpack.packb(form)


@given(SENDS)
def test_the_form_of_a_send(send: Send) -> None:
    form = [3, send.nonce, None, send.kind, send.lifetime_ms, send.body]
    assert send.encode() == msgpack.packb(form)


@given(QUERIES)
def test_the_reference_is_the_sha256_of_the_bytes_of_the_query(query: Query) -> None:
    data = query.encode()
    assert reference_of(data) == hashlib.sha256(data).digest()
    assert reference_of(decode_message(data).encode()) == reference_of(data)


def test_queries_that_differ_anywhere_have_different_references() -> None:
    query = Query(NONCE, 7, "echo", 1000, 2000, b"body")
    others = [
        query._replace(nonce=bytes(16)),
        query._replace(number=8),
        query._replace(kind="echp"),
        query._replace(lifetime_ms=1001),
        query._replace(reply_bytes_max=2001),
        query._replace(body=b"bodz"),
    ]
    assert len({reference_of(each.encode()) for each in [query, *others]}) == 7


def test_the_frozen_messages_are_read_and_written(vectors: dict[str, Any]) -> None:
    values = vectors["values"]
    query = Query(b"\x11" * 16, 7, "example.echo", 30_000, 65_536, b"hello")
    limits = Query(b"\xff" * 16, 2**64 - 1, "z" * 64, 2**32 - 1, 2**32 - 1, b"")
    reference = bytes.fromhex(values["query"]["reference"])
    expected: dict[str, Message] = {
        "query": query,
        "query_limits": limits,
        "reply": Reply(b"\x22" * 16, reference, 0, b"hello"),
        "reply_application_code": Reply(b"\x33" * 16, reference, 64, b""),
        "send": Send(b"\x44" * 16, "example.tell", 0, bytes(range(256))),
    }
    for name, message in expected.items():
        assert message.encode().hex() == values[name]["bytes"]
        assert decode_message(bytes.fromhex(values[name]["bytes"])) == message
    assert reference_of(query.encode()) == reference
    assert reference_of(limits.encode()).hex() == values["query_limits"]["reference"]


def test_every_message_that_is_frozen_as_refused_is_refused(vectors: dict[str, Any]) -> None:
    for frozen in vectors["refused_messages"]:
        with pytest.raises(InvalidMessage):
            decode_message(bytes.fromhex(frozen["bytes"]))


GOOD_QUERY = (1, NONCE, None, 7, "echo", 1000, 2000, b"body")
GOOD_REPLY = (2, NONCE, REFERENCE, 0, b"body")
GOOD_SEND = (3, NONCE, None, "echo", 1000, b"body")


def replaced(form: tuple[Any, ...], **changes: Any) -> list[Any]:
    fields = list(form)
    for place, value in changes.items():
        fields[int(place[1:])] = value
    return fields


NUMBER_MISTAKES: tuple[Any, ...] = (True, False, None, -1, -(2**63), b"7", "7", 7.0, [7])
NONCE_MISTAKES: tuple[Any, ...] = (None, b"", NONCE[:15], NONCE + b"\0", "n" * 16, 5, [NONCE])
NOT_NIL: tuple[Any, ...] = (False, 0, b"", "", [], REFERENCE)
KIND_MISTAKES: tuple[Any, ...] = (
    *(None, "", "x" * 65, "Echo", "e cho", "echo\n", "echo\0", "e/cho", "\u00e9cho", b"echo", 4),
    *(True, ["echo"], "echo:", "a+b", "~", "e\u0442ho", "\uff45cho"),
)
BODY_MISTAKES: tuple[Any, ...] = (None, "body", 5, True, [b"body"], [])


def mistakes() -> list[list[Any]]:
    forms = [
        *(replaced(GOOD_QUERY, _1=nonce) for nonce in NONCE_MISTAKES),
        *(replaced(GOOD_REPLY, _1=nonce) for nonce in NONCE_MISTAKES),
        *(replaced(GOOD_SEND, _1=nonce) for nonce in NONCE_MISTAKES),
        *(replaced(GOOD_QUERY, _2=other) for other in NOT_NIL),
        *(replaced(GOOD_SEND, _2=other) for other in NOT_NIL),
        *(replaced(GOOD_QUERY, _3=number) for number in NUMBER_MISTAKES),
        *(replaced(GOOD_QUERY, _5=number) for number in (*NUMBER_MISTAKES, 2**32, 2**64 - 1)),
        *(replaced(GOOD_QUERY, _6=number) for number in (*NUMBER_MISTAKES, 2**32, 2**64 - 1)),
        *(replaced(GOOD_SEND, _4=number) for number in (*NUMBER_MISTAKES, 2**32, 2**64 - 1)),
        *(replaced(GOOD_REPLY, _3=number) for number in NUMBER_MISTAKES),
        *(replaced(GOOD_QUERY, _4=kind) for kind in KIND_MISTAKES),
        *(replaced(GOOD_SEND, _3=kind) for kind in KIND_MISTAKES),
        *(replaced(GOOD_QUERY, _7=body) for body in BODY_MISTAKES),
        *(replaced(GOOD_REPLY, _4=body) for body in BODY_MISTAKES),
        *(replaced(GOOD_SEND, _5=body) for body in BODY_MISTAKES),
        *(
            replaced(GOOD_REPLY, _2=reference)
            for reference in (None, b"", REFERENCE[:31], REFERENCE + b"\0", "r" * 32, 5)
        ),
    ]
    for good in (GOOD_QUERY, GOOD_REPLY, GOOD_SEND):
        forms += [replaced(good, _0=kind) for kind in (0, 4, -1, True, None, b"1", "1", [1], 1.0)]
        forms += [replaced(good, _0=kind) for kind in (1, 2, 3) if kind != good[0]]
        forms += [[*good, None], [*good, b""], list(good[:-1]), [list(good)], [good[0]]]
    return [*forms, []]


@pytest.mark.parametrize("form", mistakes(), ids=lambda form: repr(form)[:60])
def test_what_is_not_exactly_a_message_is_refused(form: list[Any]) -> None:
    with pytest.raises(InvalidMessage):
        decode_message(msgpack.packb(form))


def test_the_forms_that_the_mistakes_are_made_of_are_good() -> None:
    kinds = [type(decode_message(msgpack.packb(form))) for form in (GOOD_QUERY, GOOD_REPLY)]
    assert [*kinds, type(decode_message(msgpack.packb(GOOD_SEND)))] == [Query, Reply, Send]


@pytest.mark.parametrize("value", [None, 1, b"", "query", True, {}, {1: 2}, 1.5])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessage):
        decode_message(msgpack.packb(value))


@pytest.mark.reaches_in
@pytest.mark.parametrize("data", [b"", b"\x90", b"\x98\x91\x91\x91" + b"\x91" * 30, bytes(40)])
def test_what_does_not_begin_like_a_message_costs_no_decoding(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of such messages, 13,000 fit into a packet, and each cost more than a query."""
    monkeypatch.setattr(message_module, "decode_with_body", None)
    with pytest.raises(InvalidMessage):
        decode_message(data)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_the_typed_error_only(data: bytes) -> None:
    try:
        message = decode_message(data)
    except InvalidMessage:
        return
    assert message.encode() == data


@given(MESSAGES, st.data())
def test_a_flipped_bit_is_refused_or_gives_another_message(
    message: Message, data: st.DataObject
) -> None:
    mutated = bytearray(message.encode())
    bit = data.draw(st.integers(0, 8 * len(mutated) - 1))
    mutated[bit // 8] ^= 1 << bit % 8
    try:
        other = decode_message(bytes(mutated))
    except InvalidMessage:
        return
    assert other.encode() == mutated
    assert other != message


@given(MESSAGES, st.binary(min_size=1, max_size=4), st.data())
def test_truncated_and_lengthened_messages_are_refused(
    message: Message, extra: bytes, data: st.DataObject
) -> None:
    whole = message.encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    for changed in (whole[:cut], whole + extra):
        with pytest.raises(InvalidMessage):
            decode_message(changed)


@pytest.mark.parametrize(
    "longer",
    [
        "9101",  # too short, but first of all no message
        "dc0005" + "02" + "c410" + "00" * 16 + "c420" + "00" * 32 + "00" + "c400",
        "95" + "cc02" + "c410" + "00" * 16 + "c420" + "00" * 32 + "00" + "c400",
        "95" + "02" + "c50010" + "00" * 16 + "c420" + "00" * 32 + "00" + "c400",
        "95" + "02" + "c410" + "00" * 16 + "c420" + "00" * 32 + "d000" + "c400",
        "95" + "02" + "c410" + "00" * 16 + "c420" + "00" * 32 + "00" + "c600000000",
    ],
)
def test_a_message_has_one_form_only(longer: str) -> None:
    assert decode_message(bytes.fromhex("9502c410" + "00" * 16 + "c420" + "00" * 32 + "00c400"))
    with pytest.raises(InvalidMessage):
        decode_message(bytes.fromhex(longer))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_535, 65_536, 65_537])
def test_a_body_has_the_shortest_head_for_its_size(size: int) -> None:
    body = bytes(size)
    heads = [b"\xc4" + bytes([size])] if size < 256 else []
    heads += [b"\xc5" + size.to_bytes(2, "big")] if size < 65_536 else []
    heads += [b"\xc6" + size.to_bytes(4, "big")]
    for empty in (
        Query(NONCE, 300, "echo", 1000, 2**24, b""),
        Reply(NONCE, REFERENCE, 0, b""),
        Send(NONCE, "echo", 1000, b""),
    ):
        before = empty.encode()[:-2]
        assert decode_message(before + heads[0] + body) == empty._replace(body=body)
        wrong = [before + head + body for head in heads[1:]]
        wrong += [before + heads[0] + body + b"x", (before + heads[0] + body)[:-1]]
        wrong += [before, before + b"\xc4", before + heads[0][:1]]
        for data in wrong:
            with pytest.raises(InvalidMessage):
                decode_message(data)


def test_a_kind_has_one_to_64_characters_of_a_small_alphabet() -> None:
    allowed = set(string.ascii_lowercase + string.digits + "._-")
    for code in [*range(256), 0x131, 0x17F, 0x212A, 0x661, 0xFF41, 0x1D7D8, 0xD800]:
        kind = "a" + chr(code)
        if chr(code) in allowed:
            check_kind(kind)
        else:
            with pytest.raises(LocalProtocolError):
                check_kind(kind)
    for good in ("a", "-", ".", "0", "a" * 64, "egtp", "egtp-x", "my.egtp.kind", "egtpx.y"):
        check_kind(good)
    for bad in ("", "a" * 65, "a\n", "\na", " a"):
        with pytest.raises(LocalProtocolError):
            check_kind(bad)


@pytest.mark.parametrize("kind", [None, 5, b"echo", ["echo"], True])
def test_a_kind_is_text(kind: Any) -> None:
    with pytest.raises(LocalProtocolError):
        check_kind(kind)


@pytest.mark.parametrize("kind", ["egtp.", "egtp.relay", "egtp.x.y"])
def test_the_engines_kinds_are_reserved_but_travel(kind: str) -> None:
    with pytest.raises(LocalProtocolError):
        check_kind(kind)
    check_kind(kind, reserved=True)
    with pytest.raises(LocalProtocolError):
        check_kind(kind + "!", reserved=True)
    send = Send(NONCE, kind, 1000, b"")
    assert decode_message(send.encode()) == send


def test_the_codes_are_those_of_the_specification() -> None:
    assert {code.name: code.value for code in ReplyCode} == {
        "OK": 0,
        "NO_SUCH_KIND": 1,
        "HANDLER_ERROR": 2,
        "BUSY": 3,
        "TOO_LARGE": 4,
        "REFUSED": 5,
        "EXPIRED": 6,
        "RAN_REPLY_GONE": 7,
    }


@pytest.mark.parametrize("code", list(ReplyCode))
def test_a_named_code_is_written_like_its_number(code: ReplyCode) -> None:
    """``Reply.code`` is an int and a ReplyCode is one; the name must not be a trap."""
    reply = Reply(NONCE, REFERENCE, code, b"")
    assert reply.encode() == Reply(NONCE, REFERENCE, int(code), b"").encode()
    assert decode_message(reply.encode()) == reply


def test_a_large_message_of_tiny_arrays_costs_no_more_than_a_few_times_its_size() -> None:
    """A message has no array inside. Reading a million of them before refusing would let one
    message of the allowed 16 MiB take a gigabyte and stop the event loop for seconds."""
    row = b"\xdc\x00\x40" + b"\x90" * 64
    plane = b"\xdc\x00\x40" + row * 64
    for data in (b"\xdc\x00\x40" + plane * 64, b"\x98\x01" + plane * 7, b"\x98" + plane * 8):
        tracemalloc.start()
        try:
            with pytest.raises(InvalidMessage):
                decode_message(data)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak_bytes < 2**20 + 4 * len(data)


def test_a_large_body_costs_a_few_times_its_size() -> None:
    data = Send(NONCE, "echo", 1000, bytes(2**22)).encode()
    tracemalloc.start()
    try:
        message = decode_message(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message.body == bytes(2**22)
    assert peak_bytes < 2**20 + 5 * len(data)

"""Whatever it has read before, the reader says of each message what decoding it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egtp.errors import InvalidMessage
from egtp.queries import message_reader
from egtp.queries.message_reader import KINDS_MAX, MessageReader
from egtp.values.message import Message, Query, Reply, Send, decode_message

NONCE = bytes(range(16))
U32 = st.one_of(st.sampled_from([0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1]))
NUMBERS = st.one_of(U32, st.sampled_from([2**32, 2**64 - 1]), st.integers(0, 2**64 - 1))
KINDS = st.sampled_from(["a", "echo", "k" * 31, "k" * 32, "k" * 64])
BODIES = st.sampled_from([b"", b"x", bytes(255), bytes(256), bytes(65_535), bytes(65_536)])
QUERIES = st.builds(Query, st.just(NONCE), NUMBERS, KINDS, U32, U32, BODIES)
SENDS = st.builds(Send, st.just(NONCE), KINDS, U32, BODIES)
MESSAGES = st.one_of(
    QUERIES,
    st.builds(Reply, st.just(NONCE), st.just(bytes(32)), st.just(0), BODIES),
    SENDS,
)


def decoded(data: bytes) -> Message | None:
    try:
        return decode_message(data)
    except InvalidMessage:
        return None


def read(reader: MessageReader, data: bytes) -> Message | None:
    try:
        return reader.read(data)
    except InvalidMessage:
        return None


@given(st.lists(MESSAGES, max_size=6), MESSAGES)
def test_what_was_read_before_changes_nothing(before: list[Message], message: Message) -> None:
    reader = MessageReader()
    for one in before:
        assert reader.read(one.encode()) == one
    for _ in range(2):
        assert reader.read(message.encode()) == message


@given(st.one_of(QUERIES, SENDS), st.data())
def test_a_changed_message_is_read_as_decoding_has_it(
    message: Query | Send, data: st.DataObject
) -> None:
    reader, whole = MessageReader(), message.encode()
    reader.read(whole)
    changed = bytearray(whole)
    head_bytes = len(whole) - len(message.body)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(head_bytes + 2, len(changed) - 1)))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)))
    for form in (bytes(changed), bytes(changed[:cut]), whole[:cut], whole + b"x"):
        assert read(reader, form) == decoded(form)


@pytest.mark.parametrize(
    "message",
    [
        *(Query(NONCE, number, "echo", 1000, 1000, b"abcd") for number in (5, 300, 70_000)),
        Query(NONCE, 1, "k" * 31, 1000, 70_000, bytes(300)),
        Send(NONCE, "echo", 1000, b"abcd"),
        Send(NONCE, "k" * 31, 70_000, b""),
    ],
)
def test_whichever_byte_is_another_one_or_missing_it_is_read_as_decoding_has_it(
    message: Query | Send,
) -> None:
    reader, whole = MessageReader(), message.encode()
    reader.read(whole)
    for at in range(len(whole) - len(message.body) + 1):
        assert read(reader, whole[:at]) == decoded(whole[:at])
        for value in range(256):
            changed = whole[:at] + bytes((value,)) + whole[at + 1 :]
            assert read(reader, changed) == decoded(changed)
            assert reader.read(whole) == message


@pytest.mark.reaches_in
def test_nothing_of_a_kind_that_was_read_before_is_decoded_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = MessageReader()
    messages: list[Query | Send] = [
        *(Query(NONCE, number, "echo", 1000, 1000, b"x") for number in (5, 127, 256, 65_536)),
        *(Send(NONCE, "echo", lifetime_ms, b"x") for lifetime_ms in (1000, 256)),
    ]
    reader.read(messages[0].encode())
    reader.read(messages[-1].encode())
    monkeypatch.setattr(message_reader, "decode_message", None)
    for message in messages:
        for body in (b"abc", bytes(300), bytes(70_000)):
            other = message._replace(body=body)
            assert reader.read(other.encode()) == other


@example(b"")
@given(st.binary(max_size=60).map(lambda rest: b"\x98\x01\xc4\x10" + NONCE + b"\xc0" + rest))
def test_what_is_no_query_is_refused_as_by_decoding(data: bytes) -> None:
    reader = MessageReader()
    reader.read(Query(NONCE, 1, "a", 1000, 1000, b"").encode())
    assert read(reader, data) == decoded(data)


@pytest.mark.parametrize(
    "number", ["ccff", "cd0001", "cd00ff", "ce00000100", "ce0000ffff", "d100ff"]
)
def test_a_number_in_a_longer_form_is_refused(number: str) -> None:
    whole = Query(NONCE, 1, "echo", 1000, 1000, b"body").encode()
    reader = MessageReader()
    reader.read(whole)
    data = whole[:21] + bytes.fromhex(number) + whole[22:]
    assert (read(reader, data) is None) == (number != "ccff")
    assert read(reader, data) == decoded(data)


@pytest.mark.parametrize("lifetime", ["ccff", "cd0001", "cd00ff", "cd0100", "ce00000100", "d103e8"])
def test_a_lifetime_in_a_longer_form_is_refused(lifetime: str) -> None:
    whole = Send(NONCE, "echo", 1000, b"body").encode()
    reader = MessageReader()
    reader.read(whole)
    at = whole.index(bytes.fromhex("cd03e8"))
    data = whole[:at] + bytes.fromhex(lifetime) + whole[at + 3 :]
    assert (read(reader, data) is None) == (lifetime not in ("ccff", "cd0100"))
    assert read(reader, data) == decoded(data)


def test_kinds_that_strangers_invent_are_forgotten() -> None:
    reader = MessageReader()
    for number in range(3 * KINDS_MAX):
        query: Any = Query(NONCE, number, f"kind-{number}", 1000, 1000, b"")
        assert reader.read(query.encode()) == query
        send = Send(NONCE, f"kind-{number}", 1000, b"")
        assert reader.read(send.encode()) == send
        assert len(reader._terms) <= KINDS_MAX
        assert len(reader._kinds) <= KINDS_MAX

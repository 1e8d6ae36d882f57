"""The datagrams: what goes in comes out, and what is wrong is refused with one kind of error."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.values import canonical
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.datagram import (
    BYTES_OUT_MAX,
    PROBE_BYTES_MAX,
    DatagramError,
    Method,
    Query,
    Reply,
    StoreStatus,
    decode_query,
    decode_reply,
    encode_query,
    encode_reply,
    reply_bytes_max,
)
from lookup_dht.wire.query_head import network_field, read_head

ids = st.binary(min_size=20, max_size=20)
records = st.binary(min_size=1, max_size=920)
tokens = st.binary(max_size=32)
sequences = st.integers(0, 2**48 - 1)
ports = st.integers(min_value=1, max_value=65535)


def contacts_at(ip_bytes: int) -> st.SearchStrategy[Contact]:
    return st.builds(Contact, ids, st.binary(min_size=ip_bytes, max_size=ip_bytes), ports)


node_lists = st.lists(contacts_at(4), max_size=20) | st.lists(contacts_at(16), max_size=20)
networks = st.sampled_from(["main", "x", "a" * 32])
heads = {"network": networks, "sender": ids, "server": st.booleans()}
EMPTY = {
    "key": st.just(b""),
    "record": st.just(b""),
    "token": st.just(b""),
    "sequence": st.just(0),
    "prove": st.just(False),
    "address": st.just(b""),
}


def queries_of(method: Method, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Query]:
    return st.builds(Query, method=st.just(method), **{**heads, **EMPTY, **fields})


queries = st.one_of(
    queries_of(Method.PING, prove=st.booleans()),
    queries_of(Method.REACH, address=st.binary(min_size=6, max_size=6)),
    queries_of(Method.FIND_NODE, key=ids, token=tokens),
    queries_of(Method.FIND_VALUE, key=ids, token=tokens, sequence=sequences),
    queries_of(Method.STORE, key=ids, token=tokens, record=records),
)


def reply_of(nodes: list[Contact], record: bytes = b"", **fields: Any) -> Reply:
    """A reply to ``find_value``, observed at an address of the family of the nodes."""
    observed = bytes(18 if nodes and len(nodes[0].packed) == 16 else 6)
    compact = tuple(node.compact for node in nodes)
    return Reply(
        Method.FIND_VALUE, "main", bytes(20), True, observed, compact, record,
        token=bytes(8), **fields,
    )  # fmt: skip


@given(ids, queries, st.integers(0, 31), st.lists(st.integers(0, 9), max_size=20))
def test_the_head_of_a_query_says_what_decoding_says(
    message_id: bytes, query: Query, more_flags: int, more: list[int]
) -> None:
    """Those of later versions included."""
    method, arguments = msgpack.unpackb(encode_query(message_id, query)[21:])
    arguments[2] |= more_flags << 3
    data = bytes(1) + message_id + canonical.pack([method, arguments + more])
    decoded = decode_query(data)
    head = read_head(data, network_field(query.network))
    assert head == (decoded.method, decoded.key, decoded.token)
    assert read_head(data, network_field("another")) is None


@given(ids, queries, st.data())
def test_no_bytes_make_reading_a_head_raise_or_differ_from_decoding(
    message_id: bytes, query: Query, data: st.DataObject
) -> None:
    sent = bytearray(encode_query(message_id, query))
    for _ in range(data.draw(st.integers(0, 3))):
        sent[data.draw(st.integers(21, min(len(sent), 140) - 1))] = data.draw(st.integers(0, 255))
    received = bytes(sent[: data.draw(st.integers(22, len(sent)))])
    head = read_head(received, network_field("main"))
    with contextlib.suppress(DatagramError):
        decoded = decode_query(received)
        expected = (decoded.method, decoded.key, decoded.token)
        assert head == (expected if decoded.network == "main" else None)


@given(ids, queries)
def test_a_query_comes_back_as_it_was(message_id: bytes, query: Query) -> None:
    data = encode_query(message_id, query)
    assert decode_query(data) == query
    assert len(data) <= BYTES_OUT_MAX


@given(ids, node_lists, st.binary(max_size=920), sequences, st.booleans())
def test_a_reply_that_fits_comes_back_as_it_was(
    message_id: bytes, nodes: list[Contact], record: bytes, sequence: int, again: bool
) -> None:
    reply = reply_of(nodes, record, sequence=sequence, again=again)
    data = encode_reply(message_id, reply, 4000)
    assert data is not None
    if len(data) <= 1400:
        assert decode_reply(data) == reply


@given(node_lists, st.binary(max_size=920), st.integers(0, 1300))
def test_a_reply_is_cut_to_its_limit_and_keeps_the_closest_nodes(
    nodes: list[Contact], record: bytes, bytes_max: int
) -> None:
    reply = reply_of(nodes, record)
    data = encode_reply(bytes(20), reply, bytes_max)
    if data is None:
        assert bytes_max < 120
        return
    assert len(data) <= bytes_max
    cut = decode_reply(data)
    assert cut.nodes == reply.nodes[: len(cut.nodes)]
    assert cut.record in (record, b"")


@pytest.mark.parametrize("method", [Method.FIND_NODE, Method.FIND_VALUE])
@pytest.mark.parametrize("packed", [bytes(4), bytes(16)])
def test_twenty_nodes_fit_into_three_times_the_query(method: Method, packed: bytes) -> None:
    query = encode_query(bytes(20), Query(method, "main", bytes(20), True, bytes(20)))
    nodes = tuple(Contact(bytes(20), packed, port).compact for port in range(1, 21))
    observed = packed + b"\0\1"
    reply = Reply(method, "main", bytes(20), True, observed, nodes, token=bytes(8))
    data = encode_reply(bytes(20), reply, reply_bytes_max(len(query)))
    assert data is not None
    assert decode_reply(data).nodes == nodes


def test_a_reply_has_no_more_nodes_than_it_may_have() -> None:
    """As when ``DHTLimits.replication`` is larger."""
    reply = reply_of([Contact(bytes(20), bytes(4), port) for port in range(1, 26)])
    data = encode_reply(bytes(20), reply, 1200)
    assert data is not None
    assert decode_reply(data).nodes == reply.nodes[:20]


def test_a_ping_leaves_room_for_its_reply_and_a_probe_in_any_network() -> None:
    for network in ("x", "a" * 32):
        query = encode_query(bytes(20), Query(Method.PING, network, bytes(20), True))
        reply = Reply(Method.PING, network, bytes(20), True, bytes(18))
        assert encode_reply(bytes(20), reply, reply_bytes_max(len(query))) is not None
        assert len(query) <= PROBE_BYTES_MAX


def test_the_largest_record_and_eight_nodes_fit_into_a_datagram() -> None:
    query = encode_query(bytes(20), Query(Method.FIND_VALUE, "main", bytes(20), True, bytes(20)))
    nodes = [Contact(bytes(20), bytes(4), port) for port in range(1, 21)]
    reply = reply_of(nodes, bytes(870), sequence=2**48 - 1)
    data = encode_reply(bytes(20), reply, reply_bytes_max(len(query)))
    assert data is not None
    assert len(decode_reply(data).record) == 870
    assert len(decode_reply(data).nodes) >= 7


@given(st.binary(max_size=1500))
def test_random_bytes_are_refused_with_the_codecs_own_error(data: bytes) -> None:
    for decode in (decode_query, decode_reply):
        with pytest.raises(DatagramError):
            decode(data)


json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(max_size=40) | ids | st.sampled_from([method.value for method in Method]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(list(Method)), json_like)
def test_any_msgpack_is_read_or_refused(method: Method, arguments: Any) -> None:
    for body in ([method.value, arguments], [method.value, ["main", bytes(20), 1, arguments]]):
        data = bytes(21) + msgpack.packb(body)
        for decode in (decode_query, decode_reply):
            with contextlib.suppress(DatagramError):
                decode(data)


@given(queries, st.data())
def test_a_mutated_query_is_read_or_refused(query: Query, data: st.DataObject) -> None:
    encoded = bytearray(encode_query(bytes(20), query))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DatagramError):
        decode_query(bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))


def reply_with(method: Method, *rest: object) -> bytes:
    head = ["main", bytes(20), 1, bytes(6)]
    return bytes([1, *bytes(20)]) + bytes(msgpack.packb([method.value, [*head, *rest]]))


@pytest.mark.parametrize(
    "nodes",
    [
        bytes(24) + b"\0\0",  # port 0
        [[bytes(20), "127.0.0.1", 70000]], [[bytes(20), None, -1]], [[bytes(20), "a\0b", 1]],
        [[bytes(20)]], [None], [1], [bytes(26)], b"\1" * 25, b"\1" * 27, 5, "x", True,
        {"value": 1}, {}, None, [], b"\1" * 38, b"\1" * 26 * 21,
    ],
)  # fmt: skip
def test_a_reply_with_nodes_of_a_wrong_shape_is_refused(nodes: object) -> None:
    with pytest.raises(DatagramError):
        decode_reply(reply_with(Method.FIND_NODE, b"token", nodes))
    with pytest.raises(DatagramError):
        decode_reply(reply_with(Method.FIND_VALUE, b"token", nodes, 0, b""))


def test_a_reply_in_which_one_node_of_several_has_no_port_is_refused() -> None:
    one, none, other = (bytes(24) + port.to_bytes(2, "big") for port in (9100, 0, 256))
    assert len(decode_reply(reply_with(Method.FIND_NODE, b"", one + other)).nodes) == 2
    for nodes in (none + one + other, one + none + other, one + other + none):
        with pytest.raises(DatagramError):
            decode_reply(reply_with(Method.FIND_NODE, b"", nodes))


def test_a_record_in_a_reply_is_at_most_920_bytes() -> None:
    assert len(decode_reply(reply_with(Method.FIND_VALUE, b"", b"", 5, bytes(920))).record) == 920
    with pytest.raises(DatagramError):
        decode_reply(reply_with(Method.FIND_VALUE, b"", b"", 5, bytes(921)))


def test_if_its_record_does_not_fit_a_reply_still_says_which_one_is_held() -> None:
    nodes = tuple(bytes(25) + bytes((1 + number,)) for number in range(20))
    reply = Reply(
        Method.FIND_VALUE, "main", bytes(20), True, bytes(6), nodes, bytes(900),
        token=b"token", sequence=5,
    )  # fmt: skip
    cut = encode_reply(bytes(20), reply, 300)
    assert cut is not None
    assert len(cut) <= 300
    assert decode_reply(cut) == reply._replace(nodes=(), record=b"")
    assert encode_reply(bytes(20), reply, 60) is None


@pytest.mark.parametrize("status", [4, -1, None, True, b"", "stored", [0]])
def test_a_store_reply_says_one_of_four_things(status: object) -> None:
    with pytest.raises(DatagramError):
        decode_reply(reply_with(Method.STORE, b"token", status))
    assert decode_reply(reply_with(Method.STORE, b"token", 1)).status is StoreStatus.NEWER_HELD


@pytest.mark.parametrize("sequence", [-1, 2**48, True, None, b"1"])
def test_a_sequence_is_a_number_of_48_bits(sequence: object) -> None:
    with pytest.raises(DatagramError):
        decode_reply(reply_with(Method.FIND_VALUE, b"token", b"", sequence, b""))
    query = ["main", bytes(20), 1, bytes(20), b"token", sequence, b""]
    with pytest.raises(DatagramError):
        decode_query(bytes(21) + bytes(msgpack.packb([Method.FIND_VALUE.value, query])))


@pytest.mark.parametrize("token", [None, "token", 5, bytes(33), []])
def test_a_token_is_at_most_32_bytes(token: object) -> None:
    for method, rest in ((Method.STORE, [0]), (Method.FIND_NODE, [b""])):
        with pytest.raises(DatagramError):
            decode_reply(reply_with(method, token, *rest))
    with pytest.raises(DatagramError):
        query = ["main", bytes(20), 1, bytes(20), token, b""]
        decode_query(bytes(21) + bytes(msgpack.packb([Method.FIND_NODE.value, query])))


def test_what_asks_for_a_token_is_shorter_than_any_query_for_nodes() -> None:
    for method in (Method.FIND_NODE, Method.FIND_VALUE):
        query = encode_query(bytes(20), Query(method, "a" * 32, bytes(20), True, bytes(20)))
        again = Reply(method, "a" * 32, bytes(20), True, bytes(18), token=bytes(8), again=True)
        data = encode_reply(bytes(20), again, len(query))
        assert data is not None
        assert decode_reply(data) == again


def with_bytes(value: Any) -> Any:
    """A value as ``vectors.json`` writes it: ``hex:`` stands before byte strings."""
    if isinstance(value, list):
        return [with_bytes(part) for part in value]
    if isinstance(value, str) and value.startswith("hex:"):
        return bytes.fromhex(value.removeprefix("hex:"))
    return value


def test_the_frozen_datagrams_are_read_and_written() -> None:
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="ascii"))
    message_id = bytes.fromhex(vectors["message_id"])
    assert {frozen["value"][0] for frozen in vectors["queries"].values()} == {
        method.value for method in Method
    }
    for frozen in vectors["queries"].values():
        data = bytes.fromhex(frozen["bytes"])
        assert encode_query(message_id, decode_query(data)) == data
        assert data == b"\0" + message_id + canonical.encode(with_bytes(frozen["value"]))
    for frozen in vectors["replies"].values():
        data = bytes.fromhex(frozen["bytes"])
        assert encode_reply(message_id, decode_reply(data), BYTES_OUT_MAX) == data
        assert data == b"\1" + message_id + canonical.encode(with_bytes(frozen["value"]))
    for read, refused in (
        (decode_query, vectors["refused_queries"]),
        (decode_reply, vectors["refused_replies"]),
    ):
        for frozen in refused:
            with pytest.raises(DatagramError):
                read(bytes.fromhex(frozen["bytes"]))


def test_a_reply_to_a_ping_is_shorter_than_the_ping() -> None:
    query = encode_query(bytes(20), Query(Method.PING, "main", bytes(20), True))
    reply = Reply(Method.PING, "main", bytes(20), True, bytes(18))
    assert encode_reply(bytes(20), reply, len(query)) is not None


def test_arguments_of_a_later_version_are_skipped() -> None:
    stored = decode_reply(reply_with(Method.STORE, b"token", 0, b"later"))
    assert stored.status is StoreStatus.STORED
    assert decode_reply(reply_with(Method.PING, 1, 2)).method is Method.PING


def test_a_message_of_an_unmodified_node_is_not_understood() -> None:
    data = bytes(21) + msgpack.packb(["ping", [bytes(20)]])
    with pytest.raises(DatagramError, match="datagram_method"):
        decode_query(data)

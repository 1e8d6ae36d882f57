"""The datagrams: what goes in comes out, and what is wrong is refused with one kind of error."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_dht.contact import Contact
from lookup_dht.datagram import (
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

ids = st.binary(min_size=20, max_size=20)
records = st.binary(min_size=1, max_size=920)
contacts = st.builds(
    Contact,
    ids,
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    st.integers(min_value=1, max_value=65535),
)
networks = st.sampled_from(["main", "x", "a" * 32])
queries = st.one_of(
    st.builds(Query, st.just(Method.PING), networks, ids, st.booleans()),
    st.builds(
        Query, st.sampled_from([Method.FIND_NODE, Method.FIND_VALUE]), networks, ids,
        st.booleans(), ids,
    ),
    st.builds(Query, st.just(Method.STORE), networks, ids, st.booleans(), ids, records),
)  # fmt: skip


@given(ids, queries)
def test_a_query_comes_back_as_it_was(message_id: bytes, query: Query) -> None:
    data = encode_query(message_id, query)
    assert decode_query(data) == query
    assert len(data) <= BYTES_OUT_MAX


@given(ids, st.lists(contacts, max_size=20), st.binary(max_size=920))
def test_a_reply_that_fits_comes_back_as_it_was(
    message_id: bytes, nodes: list[Contact], record: bytes
) -> None:
    reply = Reply(Method.FIND_VALUE, "main", message_id, True, bytes(6), tuple(nodes), record)
    data = encode_reply(message_id, reply, 4000)
    assert data is not None
    if len(data) <= 1400:
        assert decode_reply(data) == reply


@given(st.lists(contacts, max_size=20), st.binary(max_size=920), st.integers(0, 1300))
def test_a_reply_is_cut_to_its_limit_and_keeps_the_closest_nodes(
    nodes: list[Contact], record: bytes, bytes_max: int
) -> None:
    reply = Reply(Method.FIND_VALUE, "main", bytes(20), True, bytes(6), tuple(nodes), record)
    data = encode_reply(bytes(20), reply, bytes_max)
    if data is None:
        assert bytes_max < 100
        return
    assert len(data) <= bytes_max
    cut = decode_reply(data)
    assert cut.nodes == tuple(nodes[: len(cut.nodes)])
    assert cut.record in (record, b"")


@pytest.mark.parametrize("method", [Method.FIND_NODE, Method.FIND_VALUE])
@pytest.mark.parametrize("packed", [bytes(4), bytes(16)])
def test_twenty_nodes_fit_into_three_times_the_query(method: Method, packed: bytes) -> None:
    query = encode_query(bytes(20), Query(method, "main", bytes(20), True, bytes(20)))
    nodes = tuple(Contact(bytes(20), packed, port) for port in range(1, 21))
    reply = Reply(method, "main", bytes(20), True, bytes(18), nodes)
    data = encode_reply(bytes(20), reply, reply_bytes_max(len(query)))
    assert data is not None
    assert decode_reply(data).nodes == nodes


def test_a_ping_leaves_room_for_its_reply_and_a_probe_in_any_network() -> None:
    for network in ("x", "a" * 32):
        query = encode_query(bytes(20), Query(Method.PING, network, bytes(20), True))
        reply = Reply(Method.PING, network, bytes(20), True, bytes(18))
        assert encode_reply(bytes(20), reply, reply_bytes_max(len(query))) is not None
        assert len(query) <= PROBE_BYTES_MAX


def test_the_largest_record_and_eight_nodes_fit_into_a_datagram() -> None:
    query = encode_query(bytes(20), Query(Method.FIND_VALUE, "main", bytes(20), True, bytes(20)))
    nodes = tuple(Contact(bytes(20), bytes(4), port) for port in range(1, 21))
    reply = Reply(Method.FIND_VALUE, "main", bytes(20), True, bytes(6), nodes, bytes(870))
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
        [bytes(24) + b"\0\0"],  # port 0
        [[bytes(20), "127.0.0.1", 70000]], [[bytes(20), None, -1]], [[bytes(20), "a\0b", 1]],
        [[bytes(20)]], [None], [1], [bytes(25)], [b""], 5, "x", True, {"value": 1}, {}, None,
        [bytes(26) + b"1"], [b"\x01" * 26] * 21,
    ],
)  # fmt: skip
def test_a_reply_with_nodes_of_a_wrong_shape_is_refused(nodes: object) -> None:
    with pytest.raises(DatagramError):
        decode_reply(reply_with(Method.FIND_NODE, nodes))
    with pytest.raises(DatagramError):
        decode_reply(reply_with(Method.FIND_VALUE, nodes, b""))


@pytest.mark.parametrize("status", [3, -1, None, True, b"", "stored", [0]])
def test_a_store_reply_says_one_of_three_things(status: object) -> None:
    with pytest.raises(DatagramError):
        decode_reply(reply_with(Method.STORE, status))
    assert decode_reply(reply_with(Method.STORE, 1)).status is StoreStatus.NEWER_HELD


def test_arguments_of_a_later_version_are_skipped() -> None:
    assert decode_reply(reply_with(Method.STORE, 0, b"later")).status is StoreStatus.STORED
    assert decode_reply(reply_with(Method.PING, 1, 2)).method is Method.PING


def test_a_message_of_an_unmodified_node_is_not_understood() -> None:
    data = bytes(21) + msgpack.packb(["ping", [bytes(20)]])
    with pytest.raises(DatagramError, match="datagram_method"):
        decode_query(data)

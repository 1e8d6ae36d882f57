"""A node among strangers: nothing that they send harms it, or makes it send much.

Every attack is made on both loops (see ``conftest.py``): they differ in what they make of an
address that is none.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import logging
import os
import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import msgpack
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egtp.errors import LookupFailed, LookupFailure
from egtp.values.comm_record import SignedCommRecord
from egtp.values.identity import Identity, NodeId
from lookup_dht import DHTLimits, DHTLookup
from lookup_dht.protocol.alarm import Alarm
from lookup_dht.protocol.answering import BRIEF_ANSWERS
from lookup_dht.protocol.checked_transport import BUFFER_BYTES_MAX, CheckedTransport
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.datagram import (
    Method,
    Query,
    Reply,
    StoreStatus,
    decode_query,
    decode_reply,
    encode_query,
)
from tests.lookup_dht.at_hand import Sign, Start

OpenRaw = Callable[..., Awaitable[Any]]


VALID = [
    encode_query(bytes(range(20)), Query(method, "main", b"\x07" * 20, True, key, record))
    for method, key, record in (
        (Method.PING, b"", b""),
        (Method.FIND_NODE, bytes(20), b""),
        (Method.FIND_VALUE, bytes(20), b""),
        (Method.STORE, bytes(20), bytes(300)),
    )
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(VALID)))
    data[0] = draw(st.sampled_from([0, 0, 1, 2]))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data) + draw(st.binary(max_size=8))


framed = st.builds(
    lambda kind, value: bytes([kind]) + bytes(20) + bytes(msgpack.packb(value)),
    st.integers(0, 1),
    st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=30)
        | st.text(max_size=10) | st.sampled_from([method.value for method in Method]),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=10,
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("new_loop", "examples"), [(asyncio.new_event_loop, 60), (uvloop.new_event_loop, 25)]
)
def test_no_garbage_makes_a_node_stumble_or_talk(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    examples: int,
    raw_peer_type: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Over the socket, and shrunk when it fails: no exception in the loop, no line in the log."""
    caplog.set_level(logging.INFO)
    errors: list[dict[str, Any]] = []
    sent = 0

    async def prepare() -> tuple[DHTLookup, Any]:
        asyncio.get_running_loop().set_exception_handler(lambda _, it: errors.append(it))
        limits = DHTLimits(source_queries_per_s=1e9, queries_per_s=1e9, probes_per_s=1e9)
        node = DHTLookup(private_addresses=True, limits=limits)
        await node.start()
        return node, await raw_peer_type.open()

    async def send(datagrams: list[bytes]) -> bool:
        nonlocal sent
        for data in datagrams:
            stranger.send(data, node)
            sent += 1
        stranger.query(Method.PING, node, server=False, sender=bytes(19) + b"\x01")
        while True:  # Loopback keeps the order: the reply says that all before were read.
            reply = decode_reply(await stranger.reply())
            if reply.method is Method.PING and reply.sender == node.node_id:
                return True

    with asyncio.Runner(loop_factory=new_loop) as runner:
        node, stranger = runner.run(prepare())
        caplog.clear()

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.binary(max_size=60) | framed | mutated(), min_size=20, max_size=24))
        def fuzz(datagrams: list[bytes]) -> None:
            assert runner.run(send(datagrams))
            assert errors == []

        fuzz()
        for nested in (
            b"\x91" * 1300,
            b"\xdd\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\x81" * 99,
        ):
            assert runner.run(send([bytes(21) + nested, b"\x01" + bytes(20) + nested]))
        assert runner.run(send([b"", b"\0", bytes(1401), bytes(9000)]))
        assert sent >= 20 * examples
        assert errors == []
        assert caplog.records == []
        stranger.close()
        runner.run(node.close())


FUZZED = 24_000


def made_up(rng: random.Random, message_ids: list[bytes]) -> bytes:
    """A datagram that is almost right: of the right shape but for a field or a byte or a length."""
    kind, method = rng.choice([0, 1, 1, 1, 2, 3]), rng.choice(list(Method))
    fields: list[Any] = ["main", rng.randbytes(20), rng.choice([0, 1, 3])]
    if kind == 1:
        fields.append(rng.randbytes(6))
    else:
        fields += [] if method is Method.PING else [rng.randbytes(20)]
    fields += [] if method is Method.PING else [rng.randbytes(8)]
    answers: dict[Method, list[Any]] = {
        Method.PING: [],
        Method.REACH: [],
        Method.STORE: [rng.randrange(4)],
        Method.FIND_NODE: [rng.randbytes(26 * rng.randrange(21))],
        Method.FIND_VALUE: [rng.randbytes(26 * rng.randrange(9)), 9, rng.randbytes(300)],
    }
    if kind == 1:
        fields += answers[method]
    else:
        fields += [5] if method is Method.FIND_VALUE else []
        fields += [rng.randbytes(rng.randrange(1, 700))]
    wrong: list[Any] = [
        None, True, -1, 4, 256, 2**48, 2**63, 1.5, b"", b"x" * 33, "lab", "\xe9", [[]], {"a": 1},
        rng.randbytes(38), rng.randbytes(26 * 21), rng.randbytes(rng.randrange(1000)),
    ]  # fmt: skip
    if rng.random() < 0.7:
        fields[rng.randrange(len(fields))] = rng.choice(wrong)
    del fields[rng.choice([len(fields), len(fields), rng.randrange(len(fields) + 1)]) :]
    shape: Any = [rng.choice([method.value] * 9 + ["ping", 9]), fields]
    data = bytearray([kind, *rng.choice(message_ids)])
    packed = msgpack.packb(shape)
    data += rng.choice([packed, packed, packed, rng.randbytes(rng.randrange(60)), VALID[2][21:]])
    if rng.random() < 0.3:
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


async def test_twenty_four_thousand_made_up_datagrams_raise_nothing_and_are_all_counted(
    start: Start, open_raw: OpenRaw, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of them are replies to queries that are open."""
    caplog.set_level(logging.INFO)
    limits = DHTLimits(
        source_queries_per_s=1e9, queries_per_s=1e9, reply_timeout_min_s=60, reply_timeout_max_s=60
    )
    node, other = await start(limits=limits), await open_raw()
    caplog.clear()
    protocol, rng = node._node.protocol, random.Random(1)
    replies, fuzzing = 0, True

    def ended(_: Reply | None) -> None:
        nonlocal replies
        replies += 1
        if fuzzing:
            ask()

    def ask() -> None:
        method = rng.choice([Method.PING, Method.FIND_NODE, Method.FIND_VALUE, Method.STORE])
        assert protocol.ask(other.contact, method, ended, key=bytes(20), record=b"x") is not None

    for _ in range(20):
        ask()
    for number in range(FUZZED):
        source = other.address if number % 4 else (f"127.0.{number % 250}.7", number % 65536)
        ids = [query.message_id for query in protocol.asker.queries.all()]
        protocol.datagram_received(made_up(rng, [*ids, bytes(20)]), source)
    fuzzing = False
    dropped = sum(
        count
        for name, count in node.counters.items()
        if not name.startswith(("sent_", "probe_", "contact_", "record_", "store_"))
    )
    assert dropped + replies >= FUZZED
    assert replies > 20
    assert node.counters["datagram_fields"] > 1000
    assert caplog.records == []
    assert node.contacts <= 1
    assert len(node.counters) < 60


HOSTILE_NODES: list[Any] = [
    [[bytes(20), "127.0.0.1", 70000]], [[bytes(20), "127.0.0.1", -1]], [[bytes(20), None, None]],
    [[bytes(20), 5, 5]], [[bytes(20), "a\0b", 5]], 7, "nodes", True, {"other": 1}, {"value": [1]},
    [[bytes(20), "127.0.0.1", 5, 5]], [[b"", "127.0.0.1", 5]], [[b"\5"], [b"\0\5"]], [[bytes(20)]],
    [bytes(20) + b"\xff\xff\xff\xff\x00\x09"], [bytes(20) + bytes(4) + b"\0\7"], [bytes(26)] * 30,
]  # fmt: skip


async def test_hostile_replies_spoil_no_lookup_and_close_no_socket(
    start: Start, open_raw: OpenRaw, identity: Identity, sign: Sign
) -> None:
    """Upstream: one reply closed the socket, or made get and set raise."""
    honest = await start()
    stranger = await open_raw()
    stranger.answer = stranger.as_server
    victim = await start(honest, f"{stranger.address[0]}:{stranger.address[1]}")
    assert victim.contacts == 2
    record = sign(identity, 5)
    await honest_store(honest, record)
    for nodes in HOSTILE_NODES:
        for rest in ([nodes], [nodes, 0, b""], [b"", 0, nodes]):

            def answer(data: bytes, rest: list[Any] = rest) -> bytes | None:
                name = decode_query(data).method.value
                head = ["main", stranger.id, 1, bytes(6), b"token"]
                packed: bytes = msgpack.packb([name, [*head, *rest]])
                stranger.send(bytes([1]) + data[1:21] + packed, victim)
                reply: bytes | None = stranger.as_server(data)  # so that nobody has to wait
                return reply

            stranger.answer = answer
            assert await victim.resolve(identity.node_id, fresh=True) == record
    assert victim.counters["datagram_fields"] + victim.counters["datagram_not_canonical"] > 40
    assert (await victim.publish(sign(identity, 6))).stored >= 1


async def honest_store(node: DHTLookup, record: SignedCommRecord) -> None:
    assert node._node.storage.put(record.peer_id, record.encode()) is StoreStatus.STORED


async def test_ids_of_equal_value_and_other_lengths_are_not_understood(
    start: Start, open_raw: OpenRaw
) -> None:
    """Upstream: they broke every lookup, and split buckets for ever."""
    node, stranger = await start(), await open_raw()
    for node_id in (
        b"\5",
        b"\0\5",
        *(bytes(length) + b"\1" for length in range(60) if length != 19),
    ):
        body = msgpack.packb(["egtp1.ping", ["main", node_id, 1]])
        stranger.send(bytes([0]) + os.urandom(20) + bytes(body), node)
    for bit in range(60):
        stranger.query(Method.PING, node, sender=(1 << bit).to_bytes(20, "big"), server=True)
    assert decode_reply(await stranger.reply()).method is Method.PING
    await stranger.ask(Method.FIND_NODE, node, key=bytes(20))
    assert node.counters["datagram_fields"] == 61
    assert node.contacts == 0
    assert (await start(node)).contacts == 1


async def test_pings_with_many_ids_from_one_address_make_at_most_one_contact(
    start: Start, open_raw: OpenRaw
) -> None:
    """Upstream: 4,000 of them filled the table and were reflected 669 times."""
    node, stranger = await start(), await open_raw()
    stranger.answer = stranger.as_server
    for _ in range(10):
        for _ in range(30):
            stranger.query(Method.PING, node, sender=os.urandom(20), server=True)
        for _ in range(30):
            await stranger.reply()
    assert node.counters["sent_ping"] <= 5
    assert node.contacts <= 1


@pytest.mark.parametrize("key", [b"", bytes(19), 1.5, None, {"a": 1}, "text", 7, [1]])
async def test_a_store_of_anything_but_a_record_stores_nothing(
    start: Start, open_raw: OpenRaw, key: object
) -> None:
    """Upstream: any key and value of any size was kept."""
    node, stranger = await start(), await open_raw()
    for value in (key, b"x", bytes(920), bytes(1000)):
        for token in (b"token", key):
            body = msgpack.packb(["egtp1.store", ["main", stranger.id, 0, key, token, value]])
            stranger.send(bytes([0]) + os.urandom(20) + bytes(body), node)
    found = decode_reply(await stranger.ask(Method.FIND_NODE, node, key=bytes(20)))
    stranger.query(Method.STORE, node, key=bytes(20), record=bytes(500), token=found.token)
    while (reply := decode_reply(await stranger.reply())).status is StoreStatus.TOKEN:
        pass
    assert reply.status is StoreStatus.REFUSED
    assert len(node._node.storage) == 0


async def test_no_query_is_answered_with_more_than_three_times_its_bytes(
    start: Start, open_raw: OpenRaw, identity: Identity, sign: Sign
) -> None:
    """Upstream: up to 1,980 times. The ping that probes a stranger is counted in."""
    node = await start()
    for _ in range(20):
        await start(node)
    record = sign(identity, 5)
    await honest_store(node, record)
    answered = 0
    for method in Method:
        for padding in (0, 1, 40, 120, 400, 800):
            stranger = await open_raw("127.0.9.8")
            key = b"" if method is Method.PING else bytes(record.peer_id)
            token = [] if method is Method.PING else [b""]
            known = [0] if method is Method.FIND_VALUE else []
            body: list[Any] = ["main", stranger.id, 1, key, *token, *known, bytes(padding)]
            data = bytes(21) + bytes(msgpack.packb([method.value, body]))
            stranger.send(data, node)
            received = 0
            for _ in range(2):  # After two round trips it has sent all that it will.
                marker = stranger.query(Method.PING, node)[1:21]
                async with asyncio.timeout(5):
                    while (answer := await stranger.received.get())[0][1:21] != marker:
                        received += len(answer[0])
            assert received <= 3 * len(data), (method, padding)
            answered += received > 0
    assert answered >= 20


async def test_a_reply_from_another_address_is_dropped_and_the_right_one_still_counts(
    start: Start, open_raw: OpenRaw
) -> None:
    asked, thief = await open_raw("127.0.9.1"), await open_raw("127.0.9.2")

    def stolen(data: bytes) -> bytes | None:
        reply = bytes(asked.as_server(data))
        thief.transport.sendto(reply, node._node.bound)
        return reply

    node = await start()
    asked.answer = stolen
    happened, reply = await node._node.protocol.ping(asked.address, node.node_id)
    assert happened
    assert reply is not None
    assert reply.sender == asked.id
    await node._node.protocol.ping(asked.address, node.node_id)
    assert node.counters["reply_from_another_address"] == 2


async def test_a_node_that_answers_under_another_id_is_no_contact_under_the_first(
    start: Start, open_raw: OpenRaw
) -> None:
    node, stranger = await start(), await open_raw()
    stranger.answer = stranger.as_server
    claimed = Contact(b"\x01" * 20, stranger.contact.packed, stranger.contact.port)
    await node._node.protocol.call_ping(claimed)
    assert list(node._node.protocol.router) == [stranger.contact]
    assert node.counters["reply_of_another_id"] == 1
    stranger.answer = lambda data: stranger.as_server(data, sender=node.node_id)
    await node._node.protocol.call_ping(stranger.contact)
    assert node.contacts == 0


async def test_a_node_suggested_under_a_wrong_id_is_asked_all_the_same(
    start: Start, open_raw: OpenRaw, identity: Identity, sign: Sign
) -> None:
    liar, holder = await open_raw(), await start()
    record = sign(identity, 5)
    await honest_store(holder, record)
    host, port = holder._node.bound
    wrong = Contact(bytes(identity.node_id), bytes(map(int, host.split("."))), port)
    liar.answer = lambda data: liar.as_server(data, nodes=(wrong.compact,))
    node = await start(f"{liar.address[0]}:{liar.address[1]}", server=False)
    met = Contact(holder.node_id, wrong.packed, port)
    node._node.protocol.router.remove_contact(met)  # When joining. Only the liar is left.
    assert node.contacts == 1
    assert await node.resolve(identity.node_id) == record
    node._node.protocol.router.remove_contact(met)
    assert met in await node._node.walks.find_nodes(bytes(identity.node_id))


async def test_a_squatter_does_not_take_over_the_id_of_a_node_that_answers(
    start: Start, open_raw: OpenRaw
) -> None:
    """Upstream kept whatever address came first for an id."""
    owner = await start()
    node = await start(owner)
    squatter = await open_raw()
    squatter.id = owner.node_id
    squatter.answer = squatter.as_server
    await squatter.ask(Method.PING, node, server=True)
    await node._node._refresh_table()
    await node._node.protocol.call_ping(squatter.contact)
    assert [it.address for it in node._node.protocol.router] == [owner._node.bound]


async def test_a_tar_pit_at_one_address_does_not_hold_up_a_lookup(
    start: Start, open_raw: OpenRaw
) -> None:
    """Upstream: 979 queries, then RecursionError, and 649 invented contacts."""
    honest, pit = await start(), await open_raw()
    pit.answer = pit.as_server
    node = await start(honest, f"{pit.address[0]}:{pit.address[1]}")
    packed, port = pit.contact.packed, pit.contact.port
    rng = random.Random(1)

    def closer(data: bytes) -> bytes | None:
        nodes = tuple(
            Contact(bytes(15) + rng.randbytes(5), packed, port).compact for _ in range(20)
        )
        return bytes(pit.as_server(data, nodes=nodes))

    pit.answer = closer
    before = node.counters["sent_find_value"]
    with pytest.raises(LookupFailed) as failed:
        await node.resolve(NodeId(bytes(20)))
    assert failed.value.reason is LookupFailure.NOT_FOUND
    assert node.counters["sent_find_value"] - before <= 4
    assert node.contacts <= 2


async def test_a_cancelled_lookup_leaves_nothing_pending(start: Start, open_raw: OpenRaw) -> None:
    """Upstream: every one leaked, and InvalidStateError followed."""
    silent = [await open_raw(f"127.0.8.{number}") for number in range(1, 8)]
    for peer in silent:
        peer.answer = peer.as_server
    seeds = [f"{peer.address[0]}:{peer.address[1]}" for peer in silent]
    limits = DHTLimits(reply_timeout_min_s=60, reply_timeout_max_s=60)
    node = await start(*seeds, limits=limits)
    for peer in silent:
        peer.answer = None
    tasks = asyncio.all_tasks()
    lookups = [asyncio.create_task(node.resolve(NodeId(os.urandom(20)))) for _ in range(20)]
    for peer in silent:
        async with asyncio.timeout(5):
            await peer.received.get()
    assert len(node._node.protocol.asker.queries) > 20
    for lookup in lookups:
        lookup.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait(lookups)
    assert all(lookup.cancelled() for lookup in lookups)
    async with asyncio.timeout(5):
        await asyncio.gather(
            *asyncio.all_tasks() - tasks - node._node._tasks, return_exceptions=True
        )
    assert len(node._node.protocol.asker.queries) == 0
    assert len(node._resolver._searches) == 0


async def test_one_source_over_its_rate_is_not_answered_and_others_are(
    start: Start, open_raw: OpenRaw
) -> None:
    limits = DHTLimits(source_queries_per_s=5, queries_per_s=50)
    node = await start(limits=limits, elapsed=lambda: 1000.0)
    loud, quiet = await open_raw("127.0.9.1"), await open_raw("127.0.9.2")
    for _ in range(50):
        loud.query(Method.PING, node)
    await quiet.ask(Method.PING, node)
    assert node.counters["query_over_rate"] == 30
    for number in range(50):
        for _ in range(20):
            node._node.protocol.datagram_received(VALID[0], (f"127.0.7.{number + 1}", 9))
    # Half of what is answered in all, and then briefly.
    assert node.counters["query_ping"] == 4 * 50 / 2 + 4 * 50 * BRIEF_ANSWERS
    assert node.counters["query_over_rate"] == 30 + 1021 - node.counters["query_ping"]


async def test_open_queries_are_limited(start: Start) -> None:
    node = await start(limits=DHTLimits(pending_queries_max=3, reply_timeout_max_s=0.01,
                                        reply_timeout_min_s=0.01))  # fmt: skip
    ping = node._node.protocol.ping
    answers = await asyncio.gather(*(ping(("127.0.6.6", 9), node.node_id) for _ in range(5)))
    assert answers == [(False, None)] * 5
    assert node.counters["sent_ping"] == 6
    assert node.counters["pending_queries_full"] == 2


@pytest.mark.parametrize("address", [("localhost", 5), ("127.0.0.1", 70000), ("127.0.0.1", -1),
                                     (None, 5), ("127.0.0.1", None), ("a\0b", 5)])  # fmt: skip
async def test_no_address_closes_the_socket(start: Start, open_raw: OpenRaw, address: Any) -> None:
    node, stranger = await start(), await open_raw()
    node._node.protocol.transport.sendto(b"x", address)
    assert node.counters["send_to_no_ip_address"] + node.counters["send_to_no_port"] == 1
    await stranger.ask(Method.PING, node)


@pytest.mark.parametrize(
    ("port", "is_closing", "buffered", "counted"),
    [(1, False, BUFFER_BYTES_MAX, None), (65535, False, 0, None), (0, False, 0, "send_to_no_port"),
     (65536, False, 0, "send_to_no_port"), (9, True, 0, "send_after_close"),
     (9, False, BUFFER_BYTES_MAX + 1, "send_buffer_full")],
)  # fmt: skip
def test_what_a_socket_cannot_take_is_counted_and_no_word_against_the_network(
    port: int, is_closing: bool, buffered: int, counted: str | None
) -> None:
    sent: list[bytes] = []
    socket = SimpleNamespace(
        is_closing=lambda: is_closing,
        get_write_buffer_size=lambda: buffered,
        sendto=lambda data, _: sent.append(data),
    )
    counters: collections.Counter[str] = collections.Counter()
    transport = CheckedTransport(cast("asyncio.DatagramTransport", socket), counters)
    transport.error_received(OSError(errno.ENETUNREACH, "an earlier one was refused"))
    assert transport.sendto(b"x", ("127.0.6.6", port))
    assert counters == ({} if counted is None else {counted: 1})
    assert sent == ([b"x"] if counted is None else [])
    assert transport.is_closing() is is_closing


@pytest.mark.parametrize(
    ("number", "tries"),
    [(errno.ENETUNREACH, 1), (errno.EPERM, 1), (errno.ENOBUFS, 2), (errno.ENOMEM, 2)],
)
@pytest.mark.parametrize("raises", [False, True])
async def test_only_what_may_pass_by_itself_is_tried_again_when_the_system_refuses_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, number: int, tries: int, *, raises: bool
) -> None:
    """Loops tell such an error within the call; one that they raise counts as well."""
    soon = DHTLimits(reply_timeout_min_s=0.01, reply_timeout_max_s=0.01)
    node = await start(limits=soon)
    protocol, error = node._node.protocol, OSError(number, "refused")

    class Refusing:
        def is_closing(self) -> bool:
            return False

        def get_write_buffer_size(self) -> int:
            return 0

        def sendto(self, data: bytes, address: tuple[str, int]) -> None:
            if raises:
                raise error
            protocol.error_received(error)

    monkeypatch.setattr(protocol.transport, "_transport", Refusing())
    assert await protocol.ping(("127.0.6.6", 9), node.node_id) == (False, None)
    assert node.counters["sent_ping"] == tries
    assert node.counters["send_failed" if raises else "socket_error"] == tries


async def test_nodes_of_another_network_and_private_strangers_are_not_heard(
    start: Start, open_raw: OpenRaw
) -> None:
    lab, stranger = await start(network="lab"), await open_raw()
    stranger.query(Method.PING, lab, network="main")
    await stranger.ask(Method.PING, lab, network="lab")
    assert lab.counters["datagram_of_another_network"] == 1
    public = await start(private_addresses=False)
    public._node.protocol.datagram_received(VALID[0], stranger.address)
    assert public.counters["query_from_refused_address"] == 1
    assert not public._node.protocol.acquaintances.believe(stranger.contact.compact)
    assert public.counters["contact_at_refused_address"] == 1


async def test_an_id_that_does_not_fit_a_public_address_is_not_believed(start: Start) -> None:
    node = await start()
    protocol = node._node.protocol
    compliant = bytes.fromhex("5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401")
    address = bytes([124, 31, 75, 21])
    assert protocol.acquaintances.believe(Contact(compliant, address, 9100).compact)
    assert not protocol.acquaintances.believe(Contact(bytes(20), address, 9100).compact)
    assert not protocol.acquaintances.believe(Contact(compliant, bytes(16), 9100).compact)
    assert node.counters["contact_id_does_not_fit"] == 1


async def test_a_node_under_strain_answers_strangers_with_a_token_and_no_more(
    start: Start, open_raw: OpenRaw
) -> None:
    """Then a forged source address gets less than what was sent in its name."""
    node = await start(limits=DHTLimits(queries_per_s=10), elapsed=lambda: 1000.0)
    await start(node)
    stranger, loud = await open_raw("127.0.9.1"), await open_raw("127.0.9.2")
    key = bytes(20)
    before = decode_reply(await stranger.ask(Method.FIND_NODE, node, key=key))
    assert before.nodes
    for _ in range(22):
        await loud.ask(Method.PING, node)
    strangers_probed = node.counters["sent_ping"]
    for method in (Method.FIND_NODE, Method.FIND_VALUE):
        query = stranger.query(method, node, key=key, server=True)
        data = await stranger.reply()
        reply = decode_reply(data)
        assert (reply.again, reply.nodes, reply.record) == (True, (), b"")
        assert len(data) < len(query)
        query = stranger.query(method, node, key=key, server=True, token=reply.token)
        assert decode_reply(await stranger.reply()).nodes
    assert node.counters["query_unproven_under_strain"] == 2
    assert node.counters["sent_ping"] == strangers_probed
    wrong = decode_reply(
        await stranger.ask(Method.FIND_NODE, node, key=b"\1" * 20, token=reply.token)
    )
    assert wrong.again


async def test_a_node_that_is_asked_for_proof_gives_it_and_gets_its_answer(
    start: Start, identity: Identity, sign: Sign
) -> None:
    strained = await start(limits=DHTLimits(queries_per_s=10), elapsed=lambda: 1000.0)
    strained._node.storage.put(identity.node_id, sign(identity, 5).encode())
    node = await start(strained)
    while not strained._node.protocol.answerer.answers.strained:
        await node._node.protocol.ping(strained._node.bound, node.node_id)
    assert (await node.resolve(identity.node_id)).sequence == 5
    assert node.counters["asked_again_with_token"] == 1


async def test_a_store_needs_the_token_of_its_key_and_address(
    start: Start, open_raw: OpenRaw, identity: Identity, sign: Sign
) -> None:
    node, owner, thief = await start(), await open_raw("127.0.9.1"), await open_raw("127.0.9.2")
    record = sign(identity, 5)
    key, data = bytes(record.peer_id), record.encode()
    token = decode_reply(await owner.ask(Method.FIND_VALUE, node, key=key)).token
    other = decode_reply(await owner.ask(Method.FIND_VALUE, node, key=bytes(20))).token
    for stranger, shown in ((thief, token), (owner, other), (owner, b""), (owner, bytes(8))):
        refused = await stranger.ask(Method.STORE, node, key=key, record=data, token=shown)
        assert decode_reply(refused).status is StoreStatus.TOKEN
    assert len(node._node.storage) == 0
    stored = await owner.ask(Method.STORE, node, key=key, record=data, token=token)
    assert decode_reply(stored).status is StoreStatus.STORED
    assert node.counters["store_without_token"] == 4


async def test_an_alarm_that_is_due_at_once_can_be_set_to_an_earlier_time() -> None:
    """Of a time less than half a millisecond ahead uvloop gives a handle that knows no time: what
    came in at that moment was lost, and with it at times a walk."""
    loop, rung = asyncio.get_running_loop(), asyncio.Event()
    alarm = Alarm(rung.set)
    for ahead_s in (10.0, 0.0001, 0.0, -1.0, 5.0):
        alarm.set(loop.time() + ahead_s)
    async with asyncio.timeout(5):
        await rung.wait()
    alarm.set(loop.time() + 1e-6)
    alarm.close()
    alarm.close()
    rung.clear()
    await asyncio.sleep(0.01)
    assert not rung.is_set()

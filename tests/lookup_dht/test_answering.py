"""From the bytes of a query to the bytes of its reply, and what is done besides."""

from __future__ import annotations

import collections
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from kademlia.node import Node

from egtp.values.comm_record import SignedCommRecord
from egtp.values.identity import Identity
from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.settings import DHTLimits, NodeSettings
from lookup_dht.wire.contact import Contact, SocketAddress
from lookup_dht.wire.datagram import (
    Method,
    Query,
    Reply,
    StoreStatus,
    decode_query,
    decode_reply,
    encode_query,
)
from tests.lookup_dht.at_hand import Sign

OWN, KEY = b"\x01" * 20, b"\x09" * 20
MESSAGE_ID = bytes(range(20))
STRANGER = Contact(b"\x02" * 20, b"\x7f\x00\x00\x02", 9100)


class Asked:
    """A node on a socket that is none: it keeps what is sent."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1000.0
        self.counters: collections.Counter[str] = collections.Counter()
        self.sent: list[tuple[bytes, SocketAddress]] = []
        chosen = NodeSettings(
            lambda: self.now, lambda: self.now, random.Random(1).randbytes,
            **{"private_addresses": True, **settings},
        )  # fmt: skip
        self.storage = RecordStore(OWN, chosen, self.counters)
        self.protocol = LookupProtocol(
            Node(OWN), self.storage, chosen.limits.replication, chosen, self.counters
        )
        self.protocol.connection_made(self)

    def sendto(self, data: bytes, address: SocketAddress) -> None:
        self.sent.append((data, address))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _: str) -> SocketAddress:
        return "127.0.0.1", 9100

    def receive(self, data: bytes, source: SocketAddress = STRANGER.address) -> list[bytes]:
        """What the node sends because of it, all of it to where it came from."""
        self.sent.clear()
        self.protocol.datagram_received(data, source)
        assert all(address == source for _, address in self.sent)
        return [data for data, _ in self.sent]

    def asked(
        self, method: Method, key: bytes = KEY, source: Contact = STRANGER, **fields: Any
    ) -> tuple[Reply, list[Query]]:
        """Its reply, and the queries with which it follows that up."""
        query = Query(method, "main", source.id, fields.pop("server", False), key, **fields)
        reply, *more = self.receive(encode_query(MESSAGE_ID, query), source.address)
        assert reply[1:21] == MESSAGE_ID
        return decode_reply(reply), [decode_query(it) for it in more]

    def token(self, key: bytes = KEY, source: Contact = STRANGER) -> bytes:
        return self.asked(Method.FIND_NODE, key, source)[0].token

    def strain(self) -> None:
        """Use up what it answers in all, from many places."""
        rate, number = self.protocol.answerer.query_rate, 0
        while not rate.strained:
            number += 1
            rate.allow(number, self.now)


@pytest.fixture
async def asked() -> AsyncIterator[Callable[..., Asked]]:
    nodes: list[Asked] = []

    def asked(**settings: Any) -> Asked:
        nodes.append(Asked(**settings))
        return nodes[-1]

    yield asked
    for node in nodes:
        node.protocol.asker.close()


def stored_by(node: Asked, identity: Identity, sign: Sign, sequence: int) -> SignedCommRecord:
    record = sign(identity, sequence, expiry=2000)
    assert node.storage.put(record.peer_id, record.encode()) is StoreStatus.STORED
    return record


async def test_a_reply_says_who_answers_and_where_it_saw_the_query_come_from(
    asked: Callable[..., Asked],
) -> None:
    node = asked()
    for method in (Method.PING, Method.FIND_NODE, Method.FIND_VALUE):
        reply, more = node.asked(method)
        assert reply[:5] == (method, "main", OWN, True, STRANGER.home)
        assert more == []
        assert not reply.again
        assert (reply.token == b"") == (method is Method.PING)
        assert node.counters[f"query_{method.name.lower()}"] == 1


@pytest.mark.parametrize(
    ("address", "private"),
    [
        (("localhost", 9100), True),
        (("fe80::1%eth0", 9100), True),
        (("127.0.0.2", 0), True),
        (("127.0.0.2", 9100), False),
        (("8.1.1.1", 0), False),
        (("2600::1", 9100), True),
    ],
)
async def test_who_cannot_be_a_node_there_is_not_answered(
    asked: Callable[..., Asked], address: SocketAddress, private: bool
) -> None:
    node = asked(private_addresses=private)
    ping = encode_query(MESSAGE_ID, Query(Method.PING, "main", STRANGER.id, True))
    assert node.receive(ping, address) == []
    assert node.counters == {"query_from_refused_address": 1}
    assert node.receive(ping, ("127.0.0.2", 9100) if private else ("8.1.1.1", 9100)) != []


async def test_a_client_answers_nobody_and_becomes_a_server_with_the_first_question_of_a_stranger(
    asked: Callable[..., Asked],
) -> None:
    ping = encode_query(MESSAGE_ID, Query(Method.PING, "main", STRANGER.id, False))
    client = asked(server=False)
    assert client.receive(ping) == []
    assert client.counters == {"query_to_a_client": 1}
    found_out = asked(server=None)
    found_out.protocol.reachability.sent_to(STRANGER.address, 1000.0)
    assert found_out.receive(ping) == []
    assert found_out.counters == {"query_to_a_client": 1}
    for number in range(2):
        assert len(found_out.receive(ping, ("127.0.0.3", 9100 + number))) == 1
    assert found_out.counters["proven_reachable"] == 1


async def test_what_comes_too_fast_is_not_even_read(asked: Callable[..., Asked]) -> None:
    node = asked(limits=DHTLimits(source_queries_per_s=1))
    for _ in range(5):
        assert node.receive(bytes(40)) == []
    assert node.counters == {"datagram_not_canonical": 4, "query_over_rate": 1}


async def test_all_ipv6_addresses_of_one_customer_count_as_one_source(
    asked: Callable[..., Asked],
) -> None:
    """Whoever has one address of a /64 has them all, and used up what is answered in all."""
    node = asked(private_addresses=False, limits=DHTLimits(source_queries_per_s=1))
    node.protocol.acquaintances.family_bytes = 16
    ping = encode_query(MESSAGE_ID, Query(Method.PING, "main", STRANGER.id, False))
    answered = [len(node.receive(ping, (f"2a00:1450:1:1::{n:x}", 9100))) for n in range(1, 100)]
    assert answered == [1] * 4 + [0] * 95
    assert node.counters["query_over_rate"] == 95
    assert len(node.receive(ping, ("2a00:1450:1:2::1", 9100))) == 1


async def test_the_queries_of_another_network_are_dropped(asked: Callable[..., Asked]) -> None:
    node = asked(network="lab")
    ping = encode_query(MESSAGE_ID, Query(Method.PING, "main", STRANGER.id, True))
    assert node.receive(ping) == []
    assert node.counters == {"datagram_of_another_network": 1}


async def test_a_query_too_short_for_its_reply_has_no_consequence(
    asked: Callable[..., Asked],
) -> None:
    node = asked()
    node.protocol.acquaintances.family_bytes = 16
    padded = encode_query(MESSAGE_ID, Query(Method.PING, "main", STRANGER.id, True))
    short = padded[:-22].replace(b"\x94\xa4main", b"\x93\xa4main")
    assert node.receive(short, ("fd00::1", 9100)) == []
    assert node.counters["query_too_short_for_a_reply"] == 1
    assert len(node.receive(padded, ("fd00::1", 9100))) == 2  # The reply, and a ping to meet it.


async def test_a_reach_is_not_replied_to_and_served_for_a_contact_alone(
    asked: Callable[..., Asked],
) -> None:
    node, hidden = asked(), Contact(bytes(20), b"\x7f\x00\x00\x07", 9107)
    reach = Query(Method.REACH, "main", STRANGER.id, True, address=hidden.home)
    data = encode_query(MESSAGE_ID, reach)
    for known in (False, True):
        if known:
            node.protocol.router.add_contact(STRANGER)
        node.sent.clear()
        node.protocol.datagram_received(data, STRANGER.address)
        assert [address for _, address in node.sent] == [hidden.address] * known
    assert (node.counters["query_reach"], node.counters["reach_refused"]) == (2, 1)


@pytest.mark.parametrize(
    ("known_as", "server", "pinged"),
    [
        (None, True, True),
        (None, False, False),
        (STRANGER.id, True, False),
        (STRANGER.id, False, True),  # Is it a client now, or does somebody say so?
        (b"\x03" * 20, True, True),  # It has another id now.
    ],
)
async def test_who_asks_is_pinged_if_that_is_news(
    asked: Callable[..., Asked], known_as: bytes | None, server: bool, pinged: bool
) -> None:
    node = asked()
    if known_as is not None:
        node.protocol.router.add_contact(Contact(known_as, STRANGER.packed, STRANGER.port))
    _, more = node.asked(Method.FIND_NODE, server=server)
    assert [query.method for query in more] == [Method.PING] * pinged


async def test_who_asks_for_proof_is_not_pinged_by_the_node_itself(
    asked: Callable[..., Asked],
) -> None:
    node, helper = asked(), Contact(b"\x03" * 20, b"\x7f\x00\x00\x03", 9103)
    node.protocol.router.add_contact(helper)
    query = Query(Method.PING, "main", STRANGER.id, True, prove=True)
    node.protocol.datagram_received(encode_query(MESSAGE_ID, query), STRANGER.address)
    (_, first), (data, second) = node.sent
    assert (first, second) == (STRANGER.address, helper.address)
    assert decode_query(data).address == STRANGER.home


async def test_a_record_is_stored_with_a_token_of_its_key_and_not_without(
    asked: Callable[..., Asked], identity: Identity, sign: Sign
) -> None:
    node, key = asked(), identity.node_id
    data = sign(identity, 5, expiry=2000).encode()
    for token in (b"", b"8 bytes.", node.token(KEY)):
        reply, _ = node.asked(Method.STORE, key, record=data, token=token)
        assert reply.status is StoreStatus.TOKEN
        assert node.storage.held(key) is None
    assert node.counters["store_without_token"] == 3
    for sequence, expected in ((5, StoreStatus.STORED), (4, StoreStatus.NEWER_HELD)):
        data = sign(identity, sequence, expiry=2000).encode()
        again, _ = node.asked(Method.STORE, key, record=data, token=reply.token)
        assert again.status is expected
        assert again.token == reply.token


@pytest.mark.parametrize(
    ("held", "known", "sent", "asks_around"),
    [
        (0, 0, False, False),
        (0, 5, False, False),
        (5, 0, True, False),
        (5, 4, True, False),
        (5, 5, False, True),
        (5, 6, False, False),
    ],
)
async def test_a_record_is_sent_to_who_knows_an_older_one_and_who_knows_it_asks_around(
    asked: Callable[..., Asked],
    identity: Identity,
    sign: Sign,
    monkeypatch: pytest.MonkeyPatch,
    held: int,
    known: int,
    sent: bool,
    asks_around: bool,
) -> None:
    node, noted = asked(), list[bytes]()
    monkeypatch.setattr(node.storage, "asked_around", noted.append)
    node.protocol.router.add_contact(Contact(KEY, b"\x7f\x00\x00\x04", 9104))
    record = stored_by(node, identity, sign, held).encode() if held else b""
    reply, _ = node.asked(Method.FIND_VALUE, identity.node_id, sequence=known)
    assert (reply.sequence, reply.record) == (held, record if sent else b"")
    assert noted == [identity.node_id] * asks_around
    assert [it[:20] for it in reply.nodes] == [KEY]


async def test_under_strain_it_meets_nobody_and_looks_nothing_up_for_who_shows_no_token(
    asked: Callable[..., Asked], identity: Identity, sign: Sign
) -> None:
    node, key = asked(), identity.node_id
    record = stored_by(node, identity, sign, 5).encode()
    node.protocol.router.add_contact(Contact(KEY, b"\x7f\x00\x00\x04", 9104))
    token = node.token(key)
    node.strain()
    for method in (Method.FIND_NODE, Method.FIND_VALUE):
        reply, more = node.asked(method, key, server=True)
        assert (reply.again, reply.nodes, reply.record, reply.token) == (True, (), b"", token)
        assert more == []
        reply, more = node.asked(method, key, token=token, server=True)
        assert (reply.again, len(reply.nodes)) == (False, 1)
        assert reply.record == (record if method is Method.FIND_VALUE else b"")
        assert more == []
    assert node.counters["query_unproven_under_strain"] == 2
    reply, _ = node.asked(Method.STORE, key, record=record, token=token)
    assert reply.status is StoreStatus.STORED
    assert not node.asked(Method.PING, server=True)[0].again

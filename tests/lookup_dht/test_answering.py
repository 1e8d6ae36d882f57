"""From the bytes of a query to the bytes of its reply, and what is done besides."""

from __future__ import annotations

import asyncio
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
    encode_reply,
)
from lookup_dht.wire.node_id import new_node_id
from tests.lookup_dht.at_hand import Sign

OWN, KEY = b"\x01" * 20, b"\x09" * 20
# A public address, and an id that fits it by BEP 42.
PUBLIC, FITTING = b"\x7c\x1f\x4b\x15", bytes.fromhex("5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401")
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

    def asks(self, data: bytes, source: Contact) -> list[tuple[Query, SocketAddress]]:
        """The queries that the node sends because of it, and to whom."""
        self.sent.clear()
        self.protocol.datagram_received(data, source.address)
        return [(decode_query(it), address) for it, address in self.sent if it[0] == 0]

    def asked_for_proof(self, seeker: Contact) -> list[tuple[Query, SocketAddress]]:
        query = Query(Method.PING, "main", seeker.id, False, prove=True)
        return self.asks(encode_query(MESSAGE_ID, query), seeker)

    def asked_to_ping(self, home: bytes, asker: Contact) -> list[tuple[Query, SocketAddress]]:
        query = Query(Method.REACH, "main", asker.id, False, address=home)
        asks = self.asks(encode_query(MESSAGE_ID, query), asker)
        assert len(asks) == len(self.sent), "it has no reply"
        return asks

    def token(self, key: bytes = KEY, source: Contact = STRANGER) -> bytes:
        return self.asked(Method.FIND_NODE, key, source)[0].token

    def strain(self) -> None:
        """Use up what it answers to those without a token."""
        answers = self.protocol.answerer.answers
        while answers.take(self.now, leave=answers.half):
            pass


@pytest.fixture
async def asked() -> AsyncIterator[Callable[..., Asked]]:
    nodes: list[Asked] = []

    def asked(**settings: Any) -> Asked:
        nodes.append(Asked(**settings))
        return nodes[-1]

    yield asked
    for node in nodes:
        node.protocol.asker.close()


def seeker(number: int) -> Contact:
    return Contact(bytes((number,)) * 20, bytes((127, 0, 1, number)), 9100)


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


async def test_the_nodes_in_a_reply_are_those_near_to_what_is_looked_for(
    asked: Callable[..., Asked],
) -> None:
    node, ids = asked(), random.Random(1)
    for number in range(200):
        contact = Contact(ids.randbytes(20), bytes((127, 0, number, 1)), 9100)
        node.protocol.router.add_contact(contact)
    known = [it.compact for it in node.protocol.router]
    for key in (KEY, bytes(20), b"\xff" * 20):
        target = int.from_bytes(key, "big")
        near = sorted(known, key=lambda it: target ^ int.from_bytes(it[:20], "big"))
        for method in (Method.FIND_NODE, Method.FIND_VALUE):
            nodes = node.asked(method, key)[0].nodes
            assert 0 < len(nodes) < len(known)
            assert list(nodes) == near[: len(nodes)]


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


async def test_a_stranger_is_not_pinged_if_its_bucket_is_half_full(
    asked: Callable[..., Asked],
) -> None:
    node = asked()
    for number in range(11):
        stranger = Contact(b"\x02" + bytes((number,)) * 19, b"\x7f\x00\x01\x01", 9100 + number)
        _, more = node.asked(Method.FIND_NODE, source=stranger, server=True)
        assert len(more) == (number < 10)
        other = Contact(b"\x03" + bytes((number,)) * 19, b"\x7f\x00\x02\x01", 9100 + number)
        node.protocol.router.add_contact(other)


async def test_few_strangers_are_pinged_at_a_time_and_none_twice(
    asked: Callable[..., Asked],
) -> None:
    node = asked(limits=DHTLimits(probes_max=2))
    pinged = [
        len(node.asked(Method.FIND_NODE, source=seeker(number), server=True)[1])
        for number in (2, 2, 3, 4, 5)
    ]
    assert pinged == [1, 0, 1, 0, 0]


async def test_a_stranger_at_a_public_address_is_pinged_and_a_contact_only_if_its_id_fits(
    asked: Callable[..., Asked],
) -> None:
    for node_id, fits in ((STRANGER.id, False), (FITTING, True)):
        node, stranger = asked(private_addresses=False), Contact(node_id, PUBLIC, 9100)
        _, more = node.asked(Method.FIND_NODE, source=stranger, server=True)
        assert len(more) == fits
        pong = Reply(Method.PING, "main", node_id, True, bytes(6))
        node.protocol.handle_call_response((True, pong), stranger)
        assert len(node.protocol.router) == fits


async def test_nobody_is_asked_where_no_node_of_this_network_can_be_whoever_suggests_it(
    asked: Callable[..., Asked],
) -> None:
    node = asked(private_addresses=False)
    believe, ipv6 = node.protocol.acquaintances.believe, bytes.fromhex("2600") + bytes(14)
    assert believe(Contact(FITTING, PUBLIC, 9100).compact)
    for suggested in (
        Contact(OWN, PUBLIC, 9101),
        Contact(FITTING, b"\x0a\x00\x00\x01", 9100),
        Contact(new_node_id(ipv6, random.Random(1).randbytes), ipv6, 9100),
        Contact(STRANGER.id, PUBLIC, 9100),
    ):
        # A seed may have any id, until it has learned its address.
        node.protocol.acquaintances.seeds[(suggested.ip, 9101)] = None
        assert not believe(suggested.compact)
    assert believe(Contact(STRANGER.id, PUBLIC, 9101).compact)


@pytest.mark.parametrize("lab", [False, True])
async def test_contacts_say_where_they_see_a_node_but_not_in_a_lab(
    asked: Callable[..., Asked], lab: bool
) -> None:
    node = asked(private_addresses=lab)
    for ip in (b"\x08" * 4, b"\x09" * 4):
        contact = Contact(new_node_id(ip, random.Random(1).randbytes), ip, 9100)
        pong = Reply(Method.PING, "main", contact.id, True, PUBLIC + b"\x23\x8c")
        node.protocol.handle_call_response((True, pong), contact)
    now_s, router = node.now, node.protocol.router
    told = [(ip, PUBLIC, now_s) for ip in (b"\x08" * 4, b"\x09" * 4)]
    assert sorted(router.sightings()) == ([] if lab else told)
    router.sort_again()  # It has another id; what was said stays true.
    assert sorted(router.sightings()) == ([] if lab else told)


async def test_whoever_may_be_the_victim_of_a_forger_gets_one_ping_though_it_is_silent(
    asked: Callable[..., Asked],
) -> None:
    node, victim = asked(), seeker(7)
    node.protocol.router.add_contact(STRANGER)
    pinged = [address for _, address in node.asked_to_ping(victim.home, STRANGER)]
    node.asked(Method.FIND_NODE, server=False)
    pinged += [address for _, address in node.sent[1:]]
    node.asked(Method.FIND_NODE, source=seeker(2), server=True)
    pinged += [address for _, address in node.sent[1:]]
    assert pinged == [victim.address, STRANGER.address, seeker(2).address]
    node.sent.clear()
    await asyncio.sleep(60)
    assert node.sent == []


async def test_claims_that_a_contact_is_a_client_cost_it_few_pings(
    asked: Callable[..., Asked],
) -> None:
    """Anybody can forge them."""
    node, pings = asked(), 0
    node.protocol.router.add_contact(STRANGER)
    for _ in range(20):
        node.asked(Method.FIND_NODE, server=False)
        for data, _ in list(node.sent[1:]):
            pings += 1
            pong = Reply(Method.PING, "main", STRANGER.id, True, bytes(6))
            node.receive(encode_reply(data[1:21], pong, 1200) or b"")
    assert pings == 4  # One a second, and four at once.
    assert node.counters["probe_over_rate"] == 16
    assert node.protocol.router.has_address(STRANGER.address)


async def test_who_asked_for_proof_a_moment_ago_gives_it_to_the_next(
    asked: Callable[..., Asked],
) -> None:
    """In a young network nobody else is a stranger to anybody."""
    node, first, second = asked(), seeker(1), seeker(2)
    assert node.asked_for_proof(first) == []
    assert node.asked_for_proof(first) == []
    [(query, address)] = node.asked_for_proof(second)
    assert (query.method, query.address, address) == (Method.REACH, second.home, first.address)
    node.now += 60
    assert node.asked_for_proof(seeker(3)) == []


async def test_of_those_who_asked_for_proof_the_last_few_are_remembered(
    asked: Callable[..., Asked],
) -> None:
    node, seekers = asked(), [seeker(number) for number in range(1, 101)]
    for number, asker in enumerate(seekers):
        last = {it.address for it in seekers[max(0, number - 8) : number]}
        assert {address for _, address in node.asked_for_proof(asker)} <= last


async def test_nobody_is_asked_to_ping_its_own_host_nor_anybody_very_often(
    asked: Callable[..., Asked],
) -> None:
    node, asker = asked(private_addresses=False), Contact(FITTING, PUBLIC, 9100)
    node.protocol.router.add_contact(Contact(STRANGER.id, PUBLIC, 9101))
    assert node.asked_for_proof(asker) == []
    helper = Contact(b"\x03" * 20, b"\x08\x08\x08\x08", 9100)
    node.protocol.router.add_contact(helper)
    told = [address for _ in range(20) for _, address in node.asked_for_proof(asker)]
    assert told == [helper.address] * 3  # Four at once, with the one that nobody was told of.
    assert node.counters["probe_over_rate"] == 17


@pytest.mark.parametrize(
    "home",
    [
        b"\x0a\x00\x00\x01\x23\x8c",  # in the local network of the node
        b"\x7f\x00\x00\x01\x23\x8c",
        b"\x08\x08\x08\x08\x00\x00",
        bytes.fromhex("2600") + bytes(14) + b"\x23\x8c",
    ],
)
async def test_a_contact_cannot_have_a_node_ping_what_is_no_node(
    asked: Callable[..., Asked], home: bytes
) -> None:
    node, asker = asked(private_addresses=False), Contact(FITTING, PUBLIC, 9100)
    node.protocol.router.add_contact(asker)
    assert node.asked_to_ping(home, asker) == []
    assert node.counters["reach_refused"] == 1
    [(query, address)] = node.asked_to_ping(b"\x08\x08\x08\x08\x23\x8c", asker)
    assert (query.method, address) == (Method.PING, ("8.8.8.8", 9100))


async def test_a_client_pings_for_its_contacts_now_and_then(asked: Callable[..., Asked]) -> None:
    """Whomever it pings is no stranger any more, and it needs strangers itself."""
    client, hidden = asked(server=None), seeker(7)
    for asker in (STRANGER, seeker(2)):
        client.protocol.reachability.sent_to(asker.address, client.now)
    client.protocol.router.add_contact(STRANGER)
    assert client.asked_to_ping(hidden.home, seeker(2)) == []
    assert client.counters == {"query_to_a_client": 1}
    for later, helps in ((0, True), (1, False), (1199, False), (1200, True), (1201, False)):
        client.now = 1000.0 + later
        client.protocol.reachability.sent_to(STRANGER.address, client.now)
        pinged = [address for _, address in client.asked_to_ping(hidden.home, STRANGER)]
        assert pinged == [hidden.address] * helps
    assert client.counters["reach_refused"] == 3
    query = Query(Method.FIND_NODE, "main", STRANGER.id, False, KEY)
    assert client.receive(encode_query(MESSAGE_ID, query)) == []


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


def forged(rng: random.Random) -> tuple[bytes, SocketAddress]:
    query = Query(Method.FIND_VALUE, "main", rng.randbytes(20), False, rng.randbytes(20))
    host = ".".join(map(str, (127, *rng.randbytes(2), 1)))
    return encode_query(rng.randbytes(20), query), (host, rng.randrange(1024, 65536))


async def test_whoever_shows_a_token_is_answered_during_a_flood_of_forged_queries(
    asked: Callable[..., Asked],
) -> None:
    """Ten times of what is answered in all, for a minute. Who has no token gets one often enough
    that asking a few times does."""
    node, rng = asked(limits=DHTLimits(queries_per_s=20)), random.Random(7)
    honest = newcomers = answered = 0
    while node.now < 1080:
        node.now += rng.expovariate(210)
        # At first, what may come as a burst is used up.
        if node.now < 1020 or rng.random() < 200 / 210:
            node.receive(*forged(rng))
            continue
        honest += 1
        place = seeker(rng.randrange(1, 200))
        query = Query(Method.FIND_NODE, "main", place.id, False, rng.randbytes(20))
        replies = node.receive(encode_query(MESSAGE_ID, query), place.address)
        newcomers += len(replies)
        for reply in map(decode_reply, replies):
            shown = encode_query(MESSAGE_ID, query._replace(token=reply.token))
            answered += not decode_reply(node.receive(shown, place.address)[0]).again
    assert honest > 500
    assert newcomers / honest > 0.4
    assert answered == newcomers


async def test_who_sends_from_the_address_of_another_keeps_nothing_from_it_but_new_tokens(
    asked: Callable[..., Asked],
) -> None:
    node = asked(limits=DHTLimits(source_queries_per_s=2))
    token = node.token()
    ping = encode_query(MESSAGE_ID, Query(Method.PING, "main", STRANGER.id, False))
    assert sum(len(node.receive(ping)) for _ in range(20)) == 7
    assert node.receive(ping) == []
    assert not node.asked(Method.FIND_NODE, token=token)[0].again
    # It has no more than others either.
    query = encode_query(
        MESSAGE_ID, Query(Method.FIND_NODE, "main", STRANGER.id, False, KEY, token=token)
    )
    assert sum(len(node.receive(query)) for _ in range(20)) == 7


async def test_under_strain_a_store_without_a_token_gets_one_and_a_reach_nothing(
    asked: Callable[..., Asked], identity: Identity, sign: Sign
) -> None:
    node, key = asked(), identity.node_id
    record = sign(identity, 5, expiry=2000).encode()
    contact = seeker(9)
    node.protocol.router.add_contact(contact)
    node.strain()
    reply, more = node.asked(Method.STORE, key, record=record)
    assert (reply.status, reply.again, more) == (StoreStatus.TOKEN, False, [])
    assert node.counters["store_without_token"] == 1
    assert node.asked_to_ping(PUBLIC + b"\0\1", contact) == []
    assert node.counters["query_over_rate"] == 1
    reply, _ = node.asked(Method.STORE, key, record=record, token=reply.token)
    assert reply.status is StoreStatus.STORED


async def test_what_is_made_to_be_decoded_slowly_is_not_decoded_under_strain(
    asked: Callable[..., Asked],
) -> None:
    node = asked()
    node.strain()
    deep = bytes(21) + b"\x91" * 1300 + b"\x90"
    assert node.receive(deep) == []
    assert node.counters == {"query_over_rate": 1}


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

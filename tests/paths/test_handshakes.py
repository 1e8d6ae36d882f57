"""How two nodes prove themselves to each other, and what a recording of it is good for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.handshake import InitiationPayload, Initiator, Responder, ResponsePayload
from egtp.channel.packet import Initiation, Response, decode_packet
from egtp.channel.sealed import ItemType, item, write_message, write_sealed
from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import Answers
from egtp.queries.early import Early, pack_early
from egtp.queries.exchange import ExchangeTable
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.comm_strat import CommStrat, TCPStrat
from egtp.values.identity import NodeId
from egtp.values.message import Query
from tests.paths.hosts import (
    DATA,
    INITIATION,
    LIMITS,
    RELAYS,
    RESPONSE,
    ROUTES,
    UNIX_S,
    Clock,
    Host,
    Sent,
    contact_of,
    ends,
    flipped,
    forge_initiation,
    identity,
    pair,
    talk,
    tcp,
)

# The handshake, as it should be.


@ROUTES
def test_both_sides_prove_themselves_and_talk(relayed: bool) -> None:
    both = talk(relayed)
    alice, bob = both.alice, both.bob
    assert alice.ended == [both.alices]
    assert (both.alices.peer_id, both.bobs.peer_id) == (bob.record.peer_id, alice.record.peer_id)
    assert (both.alices.dialled, both.bobs.dialled) == (True, False)
    assert both.alices.relayed == both.bobs.relayed == relayed
    assert bob.learned == [alice.record]
    assert alice.learned == []  # Bob's record was known in its newest form
    assert both.works()
    assert (alice.confirmations, bob.confirmations) == ([both.alices], [both.bobs])
    assert alice.channels.dialling == bob.channels.dialling == 0
    assert alice.channels.unconfirmed == bob.channels.unconfirmed == 0
    assert not alice.rejected
    assert not bob.rejected
    assert not (alice.counters + bob.counters)


@ROUTES
def test_each_side_knows_since_when_the_other_one_has_been_there(relayed: bool) -> None:
    """A query that was given away runs in a later incarnation only if that was there before it."""
    clock = Clock()
    alice = Host("alice", clock)
    clock.now_s = 130.0
    bob = Host("bob", clock)
    clock.now_s = 150.0
    both = talk(relayed, hosts=(alice, bob))
    assert (both.bobs.peer_started_s, both.alices.peer_started_s) == (100.0, 130.0)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_peer_that_nobody_here_knows_is_a_stranger(is_known: bool) -> None:
    alice, bob = pair()
    if is_known:
        bob.known[alice.record.peer_id] = alice.record
    assert talk(hosts=(alice, bob)).bobs.is_strangers == (not is_known)


def test_the_initiator_hears_where_it_is_seen() -> None:
    assert talk().alices.observed == cast("TCPStrat", talk().at_bob).address
    assert talk(relayed=True).alices.observed is None


@ROUTES
def test_a_newer_record_comes_with_the_response(relayed: bool) -> None:
    alice, bob = pair()
    contact = contact_of(bob)
    bob.record = bob.sign(2)
    # The response is not larger than the initiation: with a larger record there is room.
    content = replace(cast("CommRecord", alice.record.content), strategies=tuple(RELAYS))
    alice.record = SignedCommRecord.sign(alice.identity, 1, content)
    at_alice, at_bob = ends(relayed)
    alice.dial(bob, at_alice, contact)
    bob.receive(alice.take_one(INITIATION), at_bob)
    alice.receive(bob.take_one(RESPONSE), at_alice)
    assert alice.learned == [bob.record]


@ROUTES
def test_only_the_initiators_first_data_packet_confirms(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    alice.dial(bob, at_alice)
    initiation = alice.take_one(INITIATION)
    bob.receive(initiation, at_bob)
    response = bob.take_one(RESPONSE)
    assert (bob.channels.unconfirmed, bob.told()) == (1, (0,) * 7)
    alice.receive(response, at_alice)
    first = alice.take_one(DATA)
    # Nothing that is not that packet does it: not the handshake again, not a bent packet.
    bob.receive(initiation, at_bob)
    assert bob.take_one(RESPONSE) == response
    if relayed:
        for bit in range(0, 8 * len(first), 7):
            bob.receive(flipped(first, bit), at_bob)
        bob.take()
    assert (bob.channels.unconfirmed, bob.told()) == (1, (0,) * 7)
    bob.receive(first, at_bob)
    assert bob.channels.unconfirmed == 0
    assert bob.learned == [alice.record]
    assert len(bob.confirmations) == len(bob.openings) == 1


def test_the_first_data_packet_is_small_enough_for_somebody_who_has_no_proof_yet() -> None:
    alice, bob = pair()
    alice.dial(bob, tcp(1))
    bob.receive(alice.take_one(INITIATION), tcp(101))
    # As the engine does: what waits for a path goes out as soon as there is one.
    alice.confirmed = (  # type: ignore[method-assign]
        lambda path: path.queue_control(item(ItemType.PADDING, bytes(60_000)))
    )
    alice.receive(bob.take_one(RESPONSE), tcp(1))
    first, second = alice.take()
    assert len(first.packet) < 16_384 < len(second.packet)


# A handshake that is only to arrive.

TOKEN = bytes(range(16))


def dialled_back(alice: Host, bob: Host, at_alice: CommStrat) -> bytes:
    """The initiation by which alice shows that she reached bob."""
    alice.channels.dial(contact_of(bob), at_alice, alice, alice.ended.append, check=TOKEN)
    return alice.take_one(INITIATION)


@ROUTES
def test_a_handshake_that_shows_a_token_is_told_of_and_makes_no_session(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    initiation = dialled_back(alice, bob, at_alice)
    for times in (1, 2):
        bob.receive(initiation, at_bob)
        arrival = bob.arrival(at_bob)
        assert bob.dialled_backs == [(alice.record.peer_id, TOKEN, arrival)] * times
        assert bob.rejected == [arrival] * times
    assert not bob.sent
    assert bob.channels.unconfirmed == 0
    assert not bob.learned
    assert not bob.confirmations


def test_a_token_travels_encrypted() -> None:
    alice, bob = pair()
    assert TOKEN not in dialled_back(alice, bob, tcp(1))


def test_who_shows_a_token_takes_no_response() -> None:
    alice, bob = pair()
    packet = decode_packet(dialled_back(alice, bob, tcp(1)))
    assert isinstance(packet, Initiation)
    # Bob does not care for tokens.
    handshake = Responder(bob.identity, "main", packet)
    payload = ResponsePayload(b"incarnat", 0, False, None, 0, LIMITS)
    ephemeral = X25519PrivateKey.from_private_bytes(bytes(32))
    alice.receive(handshake.respond(payload, 7, ephemeral)[0].encode(), tcp(1))
    assert not alice.confirmations
    assert not alice.sent
    assert alice.counters["response to no dial of ours"] == 1


# Replayed initiations.


@ROUTES
def test_an_initiation_that_is_still_there_gets_the_identical_response(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    dial = alice.dial(bob, at_alice)
    dial.send()
    first, again = alice.take()
    assert first == again
    bob.receive(first.packet, at_bob)
    response = bob.take_one(RESPONSE)
    for strategy in (at_bob, *RELAYS):
        bob.receive(first.packet, strategy)
        (answer,) = bob.take()
        assert answer == Sent(strategy, response)
    assert bob.channels.unconfirmed == 1
    assert bob.told() == (0,) * 7


@ROUTES
def test_no_copies_of_a_response_wait_for_somebody_who_does_not_read(relayed: bool) -> None:
    """Up to a megabyte of them waited for each connection whose other end had proven nothing."""
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    initiation = alice.dial(bob, at_alice).packet
    bob.receive(initiation, at_bob)
    assert len(bob.take()) == 1
    bob.full = True
    bob.receive(initiation, at_bob)
    assert not bob.take()
    assert bob.channels.unconfirmed == 1
    bob.full = False
    bob.receive(initiation, at_bob)
    assert len(bob.take()) == 1


def test_whoever_delivers_a_recording_is_not_taken_for_its_maker() -> None:
    both = talk()
    alice, bob = both.alice, both.bob
    recorded = alice.dial(bob, tcp(2)).packet
    bob.receive(recorded, tcp(666))
    (stolen,) = bob.channels.sessions.unconfirmed.paths()
    assert stolen.peer_id == alice.record.peer_id
    assert stolen.seen_at is None, "an early query in it is from nowhere"
    assert both.bobs.seen_at == cast("TCPStrat", both.at_bob).address


@ROUTES
@pytest.mark.parametrize("by_relay", [False, True], ids=["replayed by tcp", "replayed by relay"])
def test_a_replayed_initiation_does_nothing_to_a_live_session(
    relayed: bool, by_relay: bool
) -> None:
    both = talk(relayed)
    bob, before = both.bob, both.bob.told()
    initiation, response, first = both.recording
    route = RELAYS[1] if by_relay else tcp(150)
    for _ in range(300):
        bob.receive(initiation, route)
    answers = {sent.packet for sent in bob.take()}
    assert len(answers) == 1
    assert response not in answers
    assert bob.channels.unconfirmed == 1
    # What followed it in the recording does not confirm the new entry, or anything else.
    bob.receive(first, route)
    bob.take()
    assert bob.channels.unconfirmed == 1
    assert bob.told() == before
    if not relayed:
        assert bob.channels.path_of(101) is both.bobs
    assert both.bobs.strategy == both.at_bob
    assert both.works()
    before = bob.told()
    both.alice.clock.now_s += 5.0
    bob.channels.expire(both.alice.clock.now_s)
    assert bob.channels.unconfirmed == 0
    assert bob.told() == before


def test_a_replay_on_the_connection_of_the_live_session_adds_nothing() -> None:
    both = talk()
    before = both.bob.told()
    both.bob.receive(both.recording[0], both.at_bob)
    assert both.bob.take() == []
    assert len(both.bob.rejected) == 1
    assert both.bob.channels.unconfirmed == 0
    assert both.bob.told() == before


@ROUTES
def test_an_unconfirmed_session_ends_after_five_seconds(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    alice.dial(bob, at_alice)
    bob.receive(alice.take_one(INITIATION), at_bob)
    alice.receive(bob.take_one(RESPONSE), at_alice)
    late = alice.take_one(DATA)
    alice.clock.now_s += 4.9
    bob.channels.expire(alice.clock.now_s)
    assert bob.channels.unconfirmed == 1
    alice.clock.now_s += 0.1
    bob.channels.expire(alice.clock.now_s)
    assert bob.channels.unconfirmed == 0
    assert bob.channels.path_of(101) is None
    bob.receive(late, at_bob)
    assert bob.told() == (0,) * 7


def test_one_peer_has_at_most_eight_unconfirmed_sessions() -> None:
    both = talk()
    alice, bob = both.alice, both.bob
    for number in range(20):
        alice.dial(bob, RELAYS[number % 2])
        bob.receive(alice.take_one(INITIATION), RELAYS[number % 2])
        assert bob.channels.unconfirmed == min(number + 1, 8)
    # Each newcomer took the place of the oldest; the session that is proven stays.
    assert bob.counters["unconfirmed session displaced by a newer one of its peer"] == 12
    assert bob.failed == []
    assert len(bob.confirmations) == 1
    assert bob.take()
    assert both.works()
    # A stranger still has a chance.
    other = Host("carol", alice.clock)
    talk(relayed=True, hosts=(other, bob))


def test_all_strangers_together_have_at_most_256_unconfirmed_sessions() -> None:
    both = talk()
    bob = both.bob
    for number in range(260):
        bob.receive(forge_initiation(bob, f"stranger {number}"), tcp(1000 + number))
    assert bob.channels.unconfirmed == 256
    assert len(bob.take()) == 260
    # The oldest made way.
    assert [arrival.connection for arrival in bob.rejected] == [1000, 1001, 1002, 1003]
    assert len(bob.confirmations) == 1
    assert both.works()


@ROUTES
def test_a_crowd_that_proves_nothing_does_not_lock_the_door(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    for number in range(300):
        bob.receive(forge_initiation(bob, f"stranger {number}"), tcp(1000 + number))
    alice.dial(bob, at_alice)
    bob.receive(alice.take_one(INITIATION), at_bob)
    response = bob.take()[-1].packet
    # More come while her proof is on its way.
    for number in range(200):
        bob.receive(forge_initiation(bob, f"stranger {300 + number}"), tcp(2000 + number))
    alice.receive(response, at_alice)
    bob.receive(alice.take_one(DATA), at_bob)
    assert [path.peer_id for path in bob.confirmations] == [alice.identity.node_id]


# Early data.


@ROUTES
def test_what_makes_room_for_an_unknown_record_is_no_early_data(relayed: bool) -> None:
    _, bob = pair()
    room = write_sealed(0, 0, [item(ItemType.PADDING, bytes(1100))])
    packet = forge_initiation(
        bob, payload=lambda payload: replace(payload, early=room, responder_sequence=0)
    )
    bob.receive(packet, ends(relayed)[1])
    assert bob.channels.unconfirmed == 1
    assert bob.counters == {}


@ROUTES
@pytest.mark.parametrize(
    "early",
    [write_sealed(0, 0, [item(ItemType.PING, b"early")]), b"garbage", bytes(12_000)],
    ids=["ping", "garbage", "much"],
)
def test_early_data_is_challenged_and_not_looked_at(relayed: bool, early: bytes) -> None:
    _, bob = pair()
    packet = forge_initiation(
        bob, payload=lambda payload: replace(payload, early=early, responder_sequence=1)
    )
    bob.receive(packet, ends(relayed)[1])
    assert bob.told() == (0,) * 7
    assert bob.counters["early data challenged"] == 1
    assert bob.channels.unconfirmed == 1
    response = decode_packet(bob.take_one(RESPONSE))
    assert isinstance(response, Response)
    attacker = identity("mallory")
    initiator = Initiator(attacker, "main", bob.identity.key, bob.identity.channel_key, 7)
    content = CommRecord(2_000_000_000, b"incarnat", ((1, attacker.channel_key),))
    record = SignedCommRecord.sign(attacker, 1, content).encode()
    initiator.initiate(
        InitiationPayload(record, 0, 1, None, b"incarnat", LIMITS, early),
        X25519PrivateKey.from_private_bytes((1).to_bytes(32, "big")),
    )
    assert initiator.finish(response)[0].early_accepted is False


def test_early_data_runs_once_though_its_response_did_not_leave_at_first() -> None:
    _, bob = pair()
    query = Query(bytes(16), 0, "kind", 60_000, 1024, b"")
    early = write_sealed(0, 0, [write_message(0, query.encode())])
    initiation = forge_initiation(
        bob,
        payload=lambda payload: replace(
            payload,
            early=early,
            time_ms=int((UNIX_S + bob.clock.now_s) * 1000),
            responder_sequence=1,
            responder_incarnation=bob.channels.handshakes._incarnation,
        ),
    )
    bob.broken = True
    bob.receive(initiation, RELAYS[0])
    assert len(bob.openings) == 1
    bob.broken = False
    bob.receive(initiation, RELAYS[0])
    assert bob.take_one(RESPONSE)
    assert len(bob.openings) == 1


def dialled_with_a_query(
    alice: Host, bob: Host, strategy: CommStrat, incarnation: bytes | None = None
) -> Early:
    """A dial of hers, with a query for his present incarnation unless another one is named."""
    incarnation = incarnation or bob.channels.handshakes._incarnation
    contact = replace(contact_of(bob), incarnation=incarnation)
    exchange = ExchangeTable[None](Counter()).open(
        contact.peer_id, "kind", b"", bytes(16), 1, 60.0, None, alice.clock.now_s, None, early=True
    )
    early = pack_early(contact, [exchange], 0, alice.clock.now_s)
    assert early is not None
    alice.dial(bob, strategy, contact, early)
    return early


@ROUTES
@pytest.mark.parametrize("taken", [True, False], ids=["taken", "challenged"])
def test_a_query_that_travels_with_a_dial_is_taken_or_not_and_its_asker_hears_which(
    relayed: bool, taken: bool
) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    early = dialled_with_a_query(alice, bob, at_alice, None if taken else b"another-")
    (exchange,) = early.exchanges
    # A relay has it now; a connection says itself when its first byte leaves.
    assert exchange.given == relayed
    bob.receive(alice.take_one(INITIATION), at_bob)
    messages = [data for _, sealed in bob.openings for _, _, data in sealed.items]
    assert messages == ([exchange.message] if taken else [])
    alice.receive(bob.take_one(RESPONSE), at_alice)
    (path,) = alice.confirmations
    assert alice.accepted == ([(path, early)] if taken else [])


@pytest.mark.parametrize("is_known", [True, False])
def test_without_room_to_remember_its_asker_no_early_data_is_taken(is_known: bool) -> None:
    alice, bob = pair()
    limits = AnswerLimits(askers_max=8)
    bob.restart(Answers(limits))
    for number in range(limits.strangers_max):
        one = NodeId(bytes(19) + bytes([number]))
        assert bob.answers.session_began(one, b"incarnat", 1, bob.clock.now_s, stranger=True)
    if is_known:
        bob.known[alice.record.peer_id] = alice.record
    at_alice, at_bob = ends(relayed=False)
    dialled_with_a_query(alice, bob, at_alice)
    bob.receive(alice.take_one(INITIATION), at_bob)
    assert len(bob.openings) == is_known
    alice.receive(bob.take_one(RESPONSE), at_alice)
    bob.receive(alice.take_one(DATA), at_bob)
    (path,) = bob.confirmations
    assert (path.asker is not None) == is_known
    bob.channels.close(path)
    assert len(bob.answers) == limits.strangers_max


def test_a_path_that_ends_is_one_session_less_for_what_remembers_its_queries() -> None:
    both = talk()
    asker = both.bobs.asker
    assert asker is not None
    asker.running += 1  # so that it is remembered
    for _ in range(2):
        both.bob.channels.close(both.bobs)
        assert asker.sessions == 0


# Who is let in.


@ROUTES
@pytest.mark.parametrize("asked_again", [False, True], ids=["at first", "before the proof"])
def test_who_is_not_welcome_leaves_nothing(relayed: bool, asked_again: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    bob.welcoming = asked_again
    alice.dial(bob, at_alice)
    bob.receive(alice.take_one(INITIATION), at_bob)
    if asked_again:
        # As somebody would do who keeps a session in reserve, for when the others are closed.
        bob.welcoming = False
        alice.receive(bob.take_one(RESPONSE), at_alice)
        bob.receive(alice.take_one(DATA), at_bob)
    assert bob.take() == []
    assert bob.told() == (0,) * len(bob.told())
    assert len(bob.answers) == len(bob.channels.sessions.by_index) == bob.channels.unconfirmed == 0
    assert bob.counters == {"dropped: the peer is not admitted": 1}
    assert [arrival.strategy for arrival in bob.rejected] == [at_bob]

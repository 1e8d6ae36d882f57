"""Whom the one who dials believes, and whom the one who is dialled."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.handshake import Responder, ResponsePayload
from egtp.channel.noise import RESPONSE_OVERHEAD
from egtp.channel.packet import Initiation, Response, decode_packet
from egtp.environment import Environment
from egtp.errors import HandshakeFailed, NotSent
from egtp.paths.channels import SecureChannels
from egtp.paths.handshakes import WRONG_RESPONSES_MAX
from egtp.queries.answers import Answers
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.identity import Identity
from tests.paths.hosts import (
    INITIATION,
    LIMITS,
    RELAYS,
    RESPONSE,
    ROUTES,
    Host,
    contact_from_a_relay,
    contact_of,
    ends,
    flipped,
    forge_initiation,
    pair,
    talk,
    tcp,
)

# What a dial believes.


def answer_as(
    responder: Identity,
    initiation: bytes,
    record: SignedCommRecord | None,
    index: int = 9,
    *,
    early_accepted: bool = False,
) -> bytes:
    """The response of somebody who has the keys of ``responder`` and says what he likes."""
    packet = decode_packet(initiation)
    assert isinstance(packet, Initiation)
    answer = ResponsePayload(
        b"incarnat",
        0,
        early_accepted,
        None,
        0,
        LIMITS,
        None if record is None else record.encode(),
    )
    secret = X25519PrivateKey.from_private_bytes(b"e" * 32)
    return Responder(responder, "main", packet).respond(answer, index, secret)[0].encode()


@ROUTES
def test_whoever_accepts_early_data_that_was_not_there_is_a_peer_like_others(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, _ = ends(relayed)
    alice.dial(bob, at_alice)
    initiation = alice.take_one(INITIATION)
    alice.receive(answer_as(bob.identity, initiation, None, early_accepted=True), at_alice)
    assert len(alice.confirmations) == 1
    assert alice.accepted == []


@ROUTES
def test_a_peer_known_from_a_relay_strategy_must_show_its_record(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    alice.dial(bob, at_alice, contact_from_a_relay(bob))
    initiation = alice.take_one(INITIATION)
    alice.receive(answer_as(bob.identity, initiation, None), at_alice)
    assert alice.confirmations == []
    assert alice.learned == []
    if relayed:
        assert (alice.channels.dialling, alice.ended) == (1, [])
    else:
        assert alice.channels.dialling == 0
        said = "the peer did not show its record"
        assert alice.ended == [Cause(AttemptReason.NOT_PROVEN, said)]
        assert len(alice.rejected) == 1
        return
    bob.receive(initiation, at_bob)
    alice.receive(bob.take_one(RESPONSE), at_alice)
    assert alice.learned == [bob.record]
    assert alice.ended == alice.confirmations


@ROUTES
def test_an_initiation_to_a_peer_whose_record_is_not_known_has_room_for_the_record(
    relayed: bool,
) -> None:
    alice, bob = pair()
    content = replace(cast("CommRecord", bob.record.content), strategies=tuple(RELAYS) * 3)
    bob.record = SignedCommRecord.sign(bob.identity, 4, content)
    at_alice, at_bob = ends(relayed)
    alice.dial(bob, at_alice, contact_from_a_relay(bob))
    initiation = alice.take_one(INITIATION)
    bob.receive(initiation, at_bob)
    response = bob.take_one(RESPONSE)
    assert len(response) <= len(initiation) <= 16_384
    alice.receive(response, at_alice)
    assert alice.learned == [bob.record]


@ROUTES
def test_a_record_of_somebody_else_or_of_another_channel_key_is_not_believed(
    relayed: bool,
) -> None:
    alice, bob = pair()
    mallory = Host("mallory", alice.clock)
    at_alice, _ = ends(relayed)
    for record in (
        mallory.record,
        mallory.sign(9, bob.identity.channel_key),
        alice.record,
        bob.sign(9, mallory.identity.channel_key),
    ):
        alice.dial(bob, at_alice)
        initiation = alice.take_one(INITIATION)
        alice.receive(answer_as(bob.identity, initiation, record), at_alice)
    assert alice.confirmations == []
    assert alice.learned == []
    assert alice.take() == []


@ROUTES
def test_whoever_has_not_the_dialled_keys_cannot_answer(relayed: bool) -> None:
    alice, bob = pair()
    mallory = Host("mallory", alice.clock)
    at_alice, at_bob = ends(relayed)
    alice.dial(bob, at_alice)
    initiation = alice.take_one(INITIATION)
    dialled = decode_packet(initiation)
    assert isinstance(dialled, Initiation)
    alice.dial(mallory, at_alice if relayed else tcp(1_000))
    answer = bytearray(answer_as(mallory.identity, alice.take_one(INITIATION), None))
    # Mallory's honest answer to another dial of Alice's, made to look like Bob's to this one.
    answer[4:12] = dialled.sender_index.to_bytes(8, "big")
    alice.receive(bytes(answer), at_alice)
    assert alice.confirmations == []
    if relayed:
        bob.receive(initiation, at_bob)
        alice.receive(bob.take_one(RESPONSE), at_alice)
        assert [path.peer_id for path in alice.confirmations] == [bob.record.peer_id]
    else:
        assert alice.rejected


def test_bent_responses_over_a_relay_do_not_spoil_the_real_one() -> None:
    step, at_a_time, bits = 5, WRONG_RESPONSES_MAX - 1, 8 * 300
    for first in range(0, bits, step * at_a_time):
        alice, bob = pair()
        alice.dial(bob, RELAYS[0])
        bob.receive(alice.take_one(INITIATION), RELAYS[0])
        response = bob.take_one(RESPONSE)
        assert 8 * len(response) <= bits
        for bit in range(first, min(first + step * at_a_time, 8 * len(response)), step):
            alice.receive(flipped(response, bit), RELAYS[0])
        assert alice.told() == (0,) * 7
        assert alice.channels.dialling == 1
        alice.receive(response, RELAYS[1])
        assert len(alice.confirmations) == 1


def test_a_relay_that_makes_up_response_after_response_has_few_of_them_tried() -> None:
    """Each costs two key agreements: five thousand a second kept a core busy."""
    alice, bob = pair()
    dial = alice.dial(bob, RELAYS[0])
    for number in range(100):
        noise = bytes([number + 1]) * RESPONSE_OVERHEAD
        alice.receive(Response(dial.index, number, noise).encode(), RELAYS[0])
    assert alice.counters["dropped: the handshake does not authenticate"] == WRONG_RESPONSES_MAX
    assert alice.counters["response to a dial that has had too many wrong ones"] > 0
    assert alice.channels.dialling == 1
    alice.channels.abandon(dial)
    again = alice.dial(bob, RELAYS[0])
    alice.take()
    bob.receive(again.packet, RELAYS[0])
    alice.receive(bob.take_one(RESPONSE), RELAYS[0])
    assert len(alice.confirmations) == 1, "another dial is not held up by that"


def test_a_response_from_another_connection_is_not_taken_for_the_one_awaited() -> None:
    alice, bob = pair()
    alice.dial(bob, tcp(1))
    bob.receive(alice.take_one(INITIATION), tcp(101))
    response = bob.take_one(RESPONSE)
    for strategy in (tcp(2), RELAYS[0]):
        alice.receive(response, strategy)
    assert alice.told() == (0,) * 7
    assert alice.channels.dialling == 1
    assert tcp(1) not in [arrival.strategy for arrival in alice.rejected]
    alice.receive(response, tcp(1))
    assert len(alice.confirmations) == 1


def test_a_response_to_a_relayed_dial_does_not_count_on_a_connection() -> None:
    alice, bob = pair()
    alice.dial(bob, RELAYS[0])
    bob.receive(alice.take_one(INITIATION), RELAYS[0])
    response = bob.take_one(RESPONSE)
    alice.receive(response, tcp(1))
    assert alice.told() == (0,) * 7
    alice.receive(response, RELAYS[0])
    assert len(alice.confirmations) == 1


@ROUTES
def test_a_replayed_response_makes_no_second_session(relayed: bool) -> None:
    both = talk(relayed)
    before = both.alice.told()
    both.alice.receive(both.recording[1], both.at_alice)
    assert both.alice.take() == []
    assert both.alice.told() == before


@ROUTES
def test_an_abandoned_dial_takes_no_response(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    dial = alice.dial(bob, at_alice)
    bob.receive(alice.take_one(INITIATION), at_bob)
    alice.channels.abandon(dial)
    alice.channels.abandon(dial)
    alice.receive(bob.take_one(RESPONSE), at_alice)
    assert alice.told() == (0,) * 7
    assert alice.channels.dialling == 0


def test_a_dial_that_could_not_be_sent_leaves_nothing() -> None:
    alice, bob = pair()
    alice.broken = True
    with pytest.raises(NotSent):
        alice.dial(bob, tcp(1))
    assert (alice.channels.dialling, alice.ended) == (0, [])


def test_a_dial_of_a_channel_key_of_low_order_leaves_nothing() -> None:
    alice, bob = pair()
    with pytest.raises(HandshakeFailed):
        alice.dial(bob, tcp(1), replace(contact_of(bob), channel_key=bytes(32)))
    assert (alice.channels.dialling, alice.ended, alice.take()) == (0, [], [])


# What a responder believes.


@ROUTES
def test_a_channel_key_that_was_replaced_is_refused(relayed: bool) -> None:
    alice, bob = pair()
    bob.known[alice.record.peer_id] = alice.sign(2, channel_key=b"n" * 32)
    alice.dial(bob, ends(relayed)[0])
    bob.receive(alice.take_one(INITIATION), ends(relayed)[1])
    assert bob.take() == []
    assert bob.channels.unconfirmed == 0


@ROUTES
def test_a_channel_key_that_is_newer_than_the_known_one_is_believed(relayed: bool) -> None:
    alice, bob = pair()
    bob.known[alice.record.peer_id] = alice.sign(1, channel_key=b"o" * 32)
    alice.record = alice.sign(2)
    assert talk(relayed, hosts=(alice, bob)).works()
    assert bob.learned == [alice.record]


@ROUTES
def test_an_older_or_expired_record_with_the_same_channel_key_still_proves_its_owner(
    relayed: bool,
) -> None:
    alice, bob = pair()
    content = replace(cast("CommRecord", alice.record.content), expiry_unix_s=1)
    alice.record = SignedCommRecord.sign(alice.identity, 1, content)
    bob.known[alice.record.peer_id] = alice.sign(2)
    talk(relayed, hosts=(alice, bob))


def test_our_own_initiation_is_noticed_and_makes_no_state() -> None:
    alice, _ = pair()
    alice.dial(alice, tcp(1))
    alice.receive(alice.take_one(INITIATION), tcp(2))
    assert [arrival.strategy for arrival in alice.ourselves] == [tcp(2)]
    assert alice.take() == []
    assert alice.channels.unconfirmed == 0


def test_a_record_that_names_somebody_elses_channel_key_leads_nobody_there() -> None:
    # Mallory's record lists Alice's channel key. Bob dials Mallory, who passes it on to Alice.
    alice, bob = pair()
    mallory = Host("mallory", alice.clock)
    mallory.record = mallory.sign(3, alice.identity.channel_key)
    bob.dial(mallory, tcp(1))
    alice.receive(bob.take_one(INITIATION), tcp(101))
    assert alice.take() == []
    assert len(alice.rejected) == 1
    assert alice.channels.unconfirmed == 0


@ROUTES
def test_an_initiation_of_another_network_is_refused(relayed: bool) -> None:
    alice, bob = pair()
    alice.channels = SecureChannels(
        alice.identity,
        "other",
        b"incarnat",
        LIMITS,
        Environment(elapsed=lambda: 0.0, unix_time=lambda: 0.0, entropy=alice.random.randbytes),
        alice.counters,
        alice,
        Answers(),
    )
    alice.dial(bob, ends(relayed)[0])
    bob.receive(alice.take_one(INITIATION), ends(relayed)[1])
    assert bob.take() == []
    assert bob.channels.unconfirmed == 0


def test_a_second_initiation_on_one_connection_is_rejected() -> None:
    both = talk()
    before = both.bob.told()
    both.bob.receive(forge_initiation(both.bob), both.at_bob)
    assert both.bob.take() == []
    assert len(both.bob.rejected) == 1
    assert both.bob.told() == before
    assert both.bob.channels.path_of(101) is both.bobs


def test_an_initiation_on_a_connection_that_we_dialled_cannot_hide_its_session() -> None:
    # Mallory is dialled, and before she answers begins a handshake of her own on the same
    # connection. However that is taken, there is one session to a connection, and it is found
    # again when the connection is lost.
    alice, mallory = pair()
    alice.dial(mallory, tcp(1))
    mallory.receive(alice.take_one(INITIATION), tcp(101))
    response = mallory.take_one(RESPONSE)
    alice.receive(forge_initiation(alice, "bob"), tcp(1))
    if alice.rejected:
        assert (alice.take(), alice.channels.unconfirmed) == ([], 0)
        assert alice.channels.path_of(1) is None
        return
    alice.take()
    alice.receive(response, tcp(1))
    alice.clock.now_s += 60.0
    alice.channels.expire(alice.clock.now_s)
    (path,) = alice.confirmations
    assert alice.channels.path_of(1) is path
    assert alice.channels.connection_lost(1, "lost") is path
    assert path.closed

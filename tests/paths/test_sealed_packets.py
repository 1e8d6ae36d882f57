"""Data packets: which open, and what becomes of those that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.sealed import ItemType, item
from egtp.values.attempts import AttemptReason, Cause
from tests.paths.hosts import DATA, INITIATION, RELAYS, RESPONSE, ROUTES, flipped, pair, talk, tcp


def test_a_data_packet_on_another_connection_is_rejected_and_opens_nothing() -> None:
    both = talk()
    packet = both.alice.say(both.alices)
    before = both.bob.told()
    for strategy in (tcp(150), replace(tcp(101), address=tcp(9).address)):
        both.bob.receive(packet, strategy)
        assert both.bob.rejected[-1].strategy == strategy
    both.bob.receive(packet, RELAYS[0])
    assert both.bob.told() == before
    # Rejecting the stranger's connection does not cost the owner its packet.
    both.bob.take()
    both.bob.receive(packet, both.at_bob)
    assert len(both.bob.openings) == before[2] + 1


def test_a_relayed_sessions_packet_on_a_connection_is_rejected_and_opens_nothing() -> None:
    both = talk(relayed=True)
    packet = both.alice.say(both.alices)
    before = both.bob.told()
    both.bob.receive(packet, tcp(150))
    assert [arrival.strategy for arrival in both.bob.rejected] == [tcp(150)]
    assert both.bob.take() == []
    assert both.bob.told() == before
    both.bob.receive(packet, both.at_bob)
    assert len(both.bob.openings) == before[2] + 1


def test_a_packet_that_is_lost_on_tcp_ends_the_connection_at_the_next() -> None:
    both = talk()
    both.alice.say(both.alices)
    before = both.bob.told()
    both.bob.receive(both.alice.say(both.alices), both.at_bob)
    assert len(both.bob.rejected) == 1
    assert both.bob.told() == before


@given(st.integers(0), st.booleans())
def test_a_bent_or_replayed_data_packet_rejects_a_connection_and_is_counted_on_a_relay(
    bit: int, replayed: bool
) -> None:
    for relayed in (False, True):
        both = talk(relayed)
        bob = both.bob
        packet = both.alice.say(both.alices)
        if replayed:
            bob.receive(packet, both.at_bob)
        before, counted = bob.told(), bob.counters.total()
        bad = packet if replayed else flipped(packet, bit % (8 * len(packet)))
        bob.receive(bad, both.at_bob)
        assert bob.told() == before
        assert bob.counters.total() > counted
        if relayed:
            # Whatever is made of it, there is no connection that it could cost.
            assert [a for a in bob.rejected if a.connection is not None] == []
            if not replayed:
                bob.receive(packet, both.at_bob)
            bob.take()
            assert len(bob.openings) == before[2] + (not replayed)
            assert both.works()
        else:
            assert len(bob.rejected) == 1
            assert bob.rejected[0].connection == 101


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=12))
def test_over_relays_every_packet_opens_once_in_whatever_order_and_however_often(
    order: list[int], replays: list[int]
) -> None:
    both = talk(relayed=True)
    packets = [both.alice.say(both.alices, b"%d" % number) for number in range(12)]
    before = len(both.bob.openings)
    for number in [*order, *replays]:
        both.bob.receive(packets[number], RELAYS[number % 2])
    texts = [sealed.items[0][2] for _, sealed in both.bob.openings[before:]]
    assert texts == [b"%d" % number for number in order]
    assert not both.bob.rejected


def test_the_answer_goes_back_by_the_relay_that_last_worked() -> None:
    both = talk(relayed=True)
    both.bob.receive(both.alice.say(both.alices), RELAYS[1])
    both.bobs.queue_control(item(ItemType.PONG))
    assert [sent.strategy for sent in both.bob.take()] == [RELAYS[1]]


def test_a_packet_that_does_not_open_changes_no_route() -> None:
    both = talk(relayed=True)
    packet = both.alice.say(both.alices)
    both.bob.receive(packet, RELAYS[0])
    both.bob.receive(packet, RELAYS[1])
    both.bob.receive(flipped(packet, 200), RELAYS[1])
    assert both.bobs.strategy == RELAYS[0]


@ROUTES
@pytest.mark.parametrize("plaintext", [b"", bytes(12) + b"\x0b\0\0\0\0"], ids=["short", "critical"])
def test_a_proven_peer_that_breaks_the_protocol_ends_the_path(
    relayed: bool, plaintext: bytes
) -> None:
    # Unlike a packet that does not authenticate, this can only have come from the peer itself,
    # which goes on in the belief that it was understood.
    both = talk(relayed)
    both.bob.receive(both.alices.session.seal(plaintext), both.at_bob)
    assert len(both.bob.openings) == 1
    if relayed:
        assert both.bobs.closed
    else:
        assert [arrival.strategy for arrival in both.bob.rejected] == [both.at_bob]


@pytest.mark.parametrize("with_a_message", [False, True])
def test_a_proven_session_for_which_there_is_no_room_leaves_nothing_and_is_closed_in_silence(
    with_a_message: bool,
) -> None:
    alice, bob = pair()
    bob.admitting = False
    alice.dial(bob, RELAYS[0])
    bob.receive(alice.take_one(INITIATION), RELAYS[0])
    alice.receive(bob.take_one(RESPONSE), RELAYS[0])
    first = alice.take_one(DATA)
    bob.receive(alice.say(alice.confirmations[0]) if with_a_message else first, RELAYS[0])
    assert bob.take() == []
    assert bob.told() == (0,) * len(bob.told())
    assert not bob.channels.sessions.by_index
    assert not bob.channels.sessions.by_remote
    assert bob.channels.unconfirmed == 0


def test_a_dial_fails_if_there_is_no_room_for_the_session_that_it_gave() -> None:
    alice, bob = pair()
    alice.admitting = False
    alice.dial(bob, RELAYS[0])
    bob.receive(alice.take_one(INITIATION), RELAYS[0])
    alice.receive(bob.take_one(RESPONSE), RELAYS[0])
    assert alice.ended == [Cause(AttemptReason.LOST)]
    assert not alice.confirmations
    assert not alice.channels.sessions.by_index

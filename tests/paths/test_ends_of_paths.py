"""What ends with a connection, and what with a path."""

from __future__ import annotations

import struct

import pytest

from egtp.errors import HandshakeFailed
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_strat import TCPStrat
from tests.paths.hosts import INITIATION, RESPONSE, ROUTES, ends, forge_initiation, pair, talk, tcp


def test_a_lost_connection_ends_its_dials_and_its_path() -> None:
    both = talk()
    assert both.bob.channels.connection_lost(101, "reset") is both.bobs
    assert both.bobs.closed
    assert both.bob.channels.path_of(101) is None
    both.alice.dial(both.bob, tcp(5))
    assert both.alice.channels.connection_lost(5, "reset") is None
    assert both.alice.ended[-1] == Cause(AttemptReason.LOST, "reset")
    assert both.alice.channels.dialling == 0
    assert both.alice.channels.connection_lost(5, "again") is None
    assert both.alice.ended.count(Cause.of("again")) == 0


def test_a_lost_connection_frees_the_room_of_its_unconfirmed_session() -> None:
    _, bob = pair()
    for number in range(40):
        bob.receive(forge_initiation(bob, ephemeral=number + 1), tcp(number))
        assert bob.channels.unconfirmed == 1
        bob.channels.connection_lost(number, "reset")
        assert bob.channels.unconfirmed == 0
    assert not bob.rejected


def test_a_connection_carries_one_dial_at_a_time() -> None:
    alice, bob = pair()
    first = alice.dial(bob, tcp(1))
    with pytest.raises(HandshakeFailed, match="a second handshake"):
        alice.dial(bob, tcp(1))
    assert alice.channels.dialling == 1
    alice.channels.abandon(first)
    second = alice.dial(bob, tcp(1))
    alice.channels.abandon(first)
    alice.channels.connection_lost(1, "reset")
    assert alice.ended == [Cause(AttemptReason.LOST, "reset")]
    alice.channels.abandon(second)
    assert alice.channels.dialling == 0


class NeverCompared(TCPStrat):
    """A strategy that nothing is compared with."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("an initiation, or a connection that is lost, looks at all dials")

    __hash__ = TCPStrat.__hash__


def test_the_dials_of_others_are_not_looked_at_for_an_initiation_or_a_lost_connection() -> None:
    alice, bob = pair()
    for number in range(20):
        alice.dial(bob, NeverCompared(tcp(number).address, number))
    alice.receive(forge_initiation(alice, ephemeral=1), tcp(100))
    assert alice.channels.unconfirmed == 1
    alice.channels.connection_lost(100, "reset")
    assert (alice.channels.unconfirmed, alice.channels.dialling) == (0, 20)


@ROUTES
def test_a_closed_path_opens_nothing_and_may_be_closed_again(relayed: bool) -> None:
    both = talk(relayed)
    packet = both.alice.say(both.alices)
    both.bob.channels.close(both.bobs)
    both.bob.channels.close(both.bobs)
    before = both.bob.told()
    both.bob.receive(packet, both.at_bob)
    assert both.bob.told() == before


def test_closing_one_path_leaves_those_of_other_connections() -> None:
    first = talk(number=1)
    second = talk(number=2, hosts=(first.alice, first.bob))
    first.bob.channels.close(first.bobs)
    assert first.bob.channels.path_of(102) is second.bobs
    assert second.works()


@ROUTES
def test_a_way_back_that_is_gone_raises_nothing(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    alice.dial(bob, at_alice)
    initiation = alice.take_one(INITIATION)
    bob.broken = True
    bob.receive(initiation, at_bob)
    bob.receive(struct.pack(">BBBBQQ", 3, 1, 1, 0, 4, 0) + bytes(16), at_bob)
    assert bob.channels.unconfirmed <= 1
    # A copy of the initiation that comes when the way is there again is answered.
    bob.broken = False
    bob.receive(initiation, at_bob)
    alice.receive(bob.take_one(RESPONSE), at_alice)
    assert len(alice.confirmations) == 1


@ROUTES
def test_a_proof_that_cannot_be_sent_is_no_path(relayed: bool) -> None:
    alice, bob = pair()
    at_alice, at_bob = ends(relayed)
    alice.dial(bob, at_alice)
    bob.receive(alice.take_one(INITIATION), at_bob)
    response = bob.take_one(RESPONSE)
    alice.broken = True
    alice.receive(response, at_alice)
    assert alice.ended == [Cause(AttemptReason.LOST)]
    assert alice.confirmations == []
    assert (alice.channels.dialling, alice.channels.path_of(1)) == (0, None)

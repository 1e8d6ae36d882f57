"""Packets of sessions that are not known, the notes that say so, and who believes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.packet import UnknownSession, decode_packet
from egtp.paths.path import Path
from tests.paths.hosts import (
    INITIATION,
    NOTE,
    RELAYS,
    RESPONSE,
    ROUTES,
    forge_initiation,
    pair,
    talk,
    tcp,
)


def test_an_unknown_session_over_a_relay_is_answered_with_a_note() -> None:
    both = talk(relayed=True)
    both.bob.restart()
    packet = both.alice.say(both.alices)
    both.bob.receive(packet, RELAYS[1])
    (note,) = both.bob.take()
    assert note.strategy == RELAYS[1]
    expected = UnknownSession(both.alices.session.remote_index, packet[-16:])
    assert decode_packet(note.packet) == expected
    assert len(note.packet) <= len(packet)


def test_an_answer_that_overtakes_the_response_at_relays_is_dropped_without_a_note() -> None:
    """A note would make the other side believe that its session is unknown here."""
    alice, bob = pair()
    alice.dial(bob, RELAYS[0])
    bob.receive(alice.take_one(INITIATION), RELAYS[0])
    response = bob.take_one(RESPONSE)
    (path,) = bob.channels.sessions.unconfirmed.paths()
    alice.receive(bob.say(path), RELAYS[1])
    assert alice.take() == []
    assert alice.counters == {"data packet before its session": 1}
    alice.receive(response, RELAYS[0])
    assert len(alice.confirmations) == 1


def test_a_relay_that_takes_no_more_is_given_no_notes_and_no_responses() -> None:
    """Whoever sits behind it may send as much as he likes, and it need not read what comes back."""
    both = talk(relayed=True)
    both.bob.restart()
    packet = both.alice.say(both.alices)
    initiation = forge_initiation(both.bob)
    both.bob.broken = True
    for _ in range(3):
        both.bob.receive(packet, RELAYS[0])
        both.bob.receive(initiation, RELAYS[0])
    assert both.bob.take() == []
    assert both.bob.counters["answer not sent: the way back is gone, or full"] == 6
    both.bob.broken = False
    both.bob.receive(initiation, RELAYS[0])
    assert [sent.kind for sent in both.bob.take()] == [RESPONSE]


def test_an_unknown_session_on_tcp_closes_the_connection_without_an_answer() -> None:
    both = talk()
    both.bob.restart()
    both.bob.receive(both.alice.say(both.alices), both.at_bob)
    assert both.bob.take() == []
    assert len(both.bob.rejected) == 1


def test_a_note_about_a_packet_that_was_sent_is_believed() -> None:
    both = talk(relayed=True)
    both.bob.restart()
    both.bob.receive(both.alice.say(both.alices), both.at_bob)
    note = both.bob.take_one(NOTE)
    both.alice.receive(note, RELAYS[1])
    assert both.alice.unknown == [both.alices]
    assert both.alice.take() == []  # a note is never answered
    assert not both.alices.closed


def test_one_of_the_last_64_packets_is_enough_and_an_older_one_is_not() -> None:
    both = talk(relayed=True)
    index = both.alices.session.remote_index
    packets = [both.alice.say(both.alices) for _ in range(65)]
    both.alice.receive(UnknownSession(index, packets[0][-16:]).encode(), RELAYS[0])
    assert both.alice.unknown == []
    both.alice.receive(UnknownSession(index, packets[1][-16:]).encode(), RELAYS[0])
    assert both.alice.unknown == [both.alices]


@given(st.binary(min_size=16, max_size=16), st.booleans())
def test_a_note_that_matches_nothing_sent_is_not_believed(tail: bytes, right_index: bool) -> None:
    both = talk(relayed=True)
    packet = both.alice.say(both.alices)
    index = both.alices.session.remote_index
    made_up = UnknownSession(index if right_index else index ^ 1, tail)
    if not right_index:
        made_up = replace(made_up, tail=packet[-16:])
    both.alice.receive(made_up.encode(), RELAYS[0])
    assert both.alice.unknown == []
    assert both.alice.take() == []
    assert both.works()


def test_a_note_about_a_packet_of_the_other_side_is_not_believed() -> None:
    both = talk(relayed=True)
    packet = both.bob.say(both.bobs)
    both.alice.receive(packet, RELAYS[0])
    note = UnknownSession(both.alices.session.remote_index, packet[-16:])
    both.alice.receive(note.encode(), RELAYS[0])
    assert both.alice.unknown == []


@ROUTES
def test_a_note_on_a_connection_is_rejected_whatever_it_is_about(relayed: bool) -> None:
    both = talk(relayed)
    packet = both.alice.say(both.alices)
    note = UnknownSession(both.alices.session.remote_index, packet[-16:])
    both.alice.receive(note.encode(), tcp(1))
    assert both.alice.unknown == []
    assert [arrival.strategy for arrival in both.alice.rejected] == [tcp(1)]
    assert both.alice.take() == []


class NotLookedThrough(dict[int, Path]):
    """Finds single paths only."""

    def values(self) -> Any:
        raise AssertionError("all paths are looked at")

    items = __iter__ = values


@pytest.mark.reaches_in
def test_a_note_costs_no_look_at_all_paths() -> None:
    """Notes are free to send, so what one costs must not grow with the sessions of a node."""
    both = talk(relayed=True)
    sessions: Any = both.alice.channels.sessions
    sessions.by_index = NotLookedThrough(sessions.by_index)
    packet = both.alice.say(both.alices)
    index = both.alices.session.remote_index
    both.alice.receive(UnknownSession(index ^ 1, packet[-16:]).encode(), RELAYS[0])
    both.alice.receive(UnknownSession(index, bytes(16)).encode(), RELAYS[0])
    assert both.alice.unknown == []
    both.alice.receive(UnknownSession(index, packet[-16:]).encode(), RELAYS[0])
    assert both.alice.unknown == [both.alices]


def test_a_session_that_is_over_gets_no_notes() -> None:
    both = talk(relayed=True)
    packet = both.alice.say(both.alices)
    both.alice.channels.close(both.alices)
    note = UnknownSession(both.alices.session.remote_index, packet[-16:])
    both.alice.receive(note.encode(), RELAYS[0])
    assert both.alice.unknown == []
    assert both.alice.channels.sessions.by_remote == {}

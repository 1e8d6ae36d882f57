"""Secure channels on a network of lists: what strangers, replays and forwarders cannot do.

Nothing is sent anywhere. A node's carrier appends to a list, the test moves packets from there to
whom it likes, as often as it likes, and changed as it likes: it is the attacker on the way.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from egtp.channel.handshake import (
    InitiationPayload,
    Initiator,
    PeerLimits,
    Responder,
    ResponsePayload,
)
from egtp.channel.packet import (
    Data,
    Initiation,
    Response,
    UnknownSession,
    decode_packet,
)
from egtp.channel.sealed import ItemType, Sealed, item, write_message, write_sealed
from egtp.environment import Environment
from egtp.errors import HandshakeFailed, NotSent
from egtp.limits.shares import Shares
from egtp.paths.arrival import Arrival
from egtp.paths.channels import SecureChannels
from egtp.paths.handshakes import Dial
from egtp.paths.path import Path
from egtp.paths.uploads import Uploads
from egtp.queries.answers import Answers
from egtp.queries.early import Early
from egtp.values import canonical
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.canonical import Value
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import Identity, NodeId
from egtp.values.message import Query
from egtp.values.mutable_item import MutableItem

LIMITS = PeerLimits(65_536, 131_072, 16, 262_144)
UNIX_S = 1_800_000_000.0
INITIATION, RESPONSE, DATA, NOTE = 1, 2, 3, 4


def identity(name: str) -> Identity:
    return Identity.generate(random.Random(name).randbytes)


RELAY_IDENTITIES = [identity(f"relay {number}") for number in range(2)]
RELAYS = [RelayStrat(relay.key, 1, relay.channel_key) for relay in RELAY_IDENTITIES]


class Clock:
    """Elapsed seconds, set by the test."""

    def __init__(self) -> None:
        self.now_s = 100.0


@dataclass(frozen=True)
class Sent:
    """A packet that a node gave to its carrier."""

    strategy: CommStrat
    packet: bytes

    @property
    def kind(self) -> int:
        return self.packet[0]


class Host:
    """One node: its channels, a carrier that keeps what it is given, and all it was told."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.clock = clock
        self.identity = identity(name)
        self.random = random.Random(name + " at run time")
        self.counters: Counter[str] = Counter()
        self.known: dict[NodeId, SignedCommRecord] = {}
        self.sent: list[Sent] = []
        self.broken = False
        self.admitting = True
        self.turn: list[Callable[[], None]] = []
        self.learned: list[SignedCommRecord] = []
        self.confirmations: list[Path] = []
        self.openings: list[tuple[Path, Sealed]] = []
        self.accepted: list[tuple[Path, Early]] = []
        self.unknown: list[Path] = []
        self.rejected: list[Arrival] = []
        self.ourselves: list[Arrival] = []
        self.dialled_backs: list[tuple[NodeId, bytes, Arrival]] = []
        self.failed: list[tuple[Path, str]] = []
        self.ended: list[Path | Cause] = []
        room = Shares(10**9, strangers_max=10**9, peer_max=10**9)
        self.uploads = Uploads(room, 10**9, Counter())
        self.record = self.sign(1)
        self.channels = self.start()

    def start(self) -> SecureChannels:
        environment = Environment(
            elapsed=lambda: self.clock.now_s,
            unix_time=lambda: UNIX_S + self.clock.now_s,
            entropy=self.random.randbytes,
        )
        return SecureChannels(
            self.identity,
            "main",
            self.random.randbytes(8),
            LIMITS,
            environment,
            self.counters,
            self,
            Answers(),
        )

    def restart(self) -> None:
        self.channels = self.start()

    def sign(self, sequence: int, channel_key: bytes | None = None) -> SignedCommRecord:
        channels = ((1, channel_key or self.identity.channel_key),)
        content = CommRecord(2_000_000_000, b"incarnat", channels, (RELAYS[0],))
        return SignedCommRecord.sign(self.identity, sequence, content)

    # The carrier.

    def send_tcp(self, strategy: TCPStrat, packet: bytes) -> None:
        self._send(strategy, packet)

    def send_relay(self, strategy: RelayStrat, packet: bytes) -> None:
        self._send(strategy, packet)

    def _send(self, strategy: CommStrat, packet: bytes) -> None:
        if self.broken:
            raise NotSent("the connection is gone")
        self.sent.append(Sent(strategy, packet))

    # What the channels tell.

    def is_awaited(self, peer_id: NodeId, reference: bytes) -> bool:
        return True

    def now(self) -> float:
        return self.clock.now_s

    def soon(self, callback: Callable[[], None]) -> None:
        self.turn.append(callback)

    def at_once(self, callback: Callable[[], None], /) -> None:
        callback()

    def settled(self, peer_id: NodeId) -> int:
        return 0

    def settled_except(self, peer_id: NodeId) -> None:
        return None

    def takes_early(self, kind: str) -> bool:
        return kind != "late"

    def early_accepted(self, path: Path, early: Early) -> None:
        self.accepted.append((path, early))

    def takes_more(self, _: CommStrat) -> bool:
        return not self.broken

    def is_throttled(self, _: CommStrat) -> bool:
        return False

    def path_waits(self, path: Path) -> None:
        raise AssertionError("nothing here is that large")

    def path_failed(self, path: Path, reason: str) -> None:
        self.failed.append((path, reason))
        self.channels.close(path)

    def own_record(self) -> SignedCommRecord:
        return self.record

    def known_record(self, peer_id: NodeId) -> SignedCommRecord | None:
        return self.known.get(peer_id)

    def knows(self, peer_id: NodeId) -> bool:
        return peer_id in self.known

    def learned_record(self, record: SignedCommRecord) -> None:
        self.learned.append(record)

    def admits(self, path: Path) -> bool:
        return self.admitting

    def confirmed(self, path: Path) -> None:
        self.confirmations.append(path)

    def opened(self, path: Path, sealed: Sealed, transit_ms: int) -> None:
        assert transit_ms >= 0
        self.openings.append((path, sealed))

    def session_unknown(self, path: Path) -> None:
        self.unknown.append(path)

    def reject(self, arrival: Arrival) -> None:
        self.rejected.append(arrival)

    def dialled_back(self, peer_id: NodeId, token: bytes, arrival: Arrival) -> None:
        self.dialled_backs.append((peer_id, token, arrival))

    def dialled_ourselves(self, arrival: Arrival) -> None:
        self.ourselves.append(arrival)

    # What the tests do with it.

    def arrival(self, strategy: CommStrat) -> Arrival:
        observed = strategy.address if isinstance(strategy, TCPStrat) else None
        return Arrival(strategy, self, observed)

    def receive(self, packet: bytes, strategy: CommStrat) -> None:
        self.channels.receive(packet, self.arrival(strategy))

    def take(self) -> list[Sent]:
        """What was sent since the last time."""
        for callback in self.turn:
            callback()
        self.turn.clear()
        sent, self.sent = self.sent, []
        return sent

    def take_one(self, kind: int) -> bytes:
        (sent,) = self.take()
        assert sent.kind == kind
        return sent.packet

    def dial(self, peer: Host, strategy: CommStrat, contact: Contact | None = None) -> Dial:
        contact = contact or contact_of(peer)
        return self.channels.dial(contact, strategy, self, self.ended.append)

    def say(self, path: Path, text: bytes = b"text") -> bytes:
        """The data packet by which ``path`` carries a ping."""
        path.queue_control(item(ItemType.PING, text))
        return self.take_one(DATA)

    def told(self) -> tuple[int, ...]:
        """How much this node was told: unchanged if a packet had no effect."""
        return (
            len(self.learned),
            len(self.confirmations),
            len(self.openings),
            len(self.unknown),
            len(self.failed),
            len(self.ended),
            len(self.known),
        )


def contact_of(peer: Host) -> Contact:
    contact = Contact.of_record(peer.record, UNIX_S)
    assert contact is not None
    return contact


def contact_from_a_relay(peer: Host) -> Contact:
    """What somebody else's strategy "through that relay" says of ``peer``."""
    key, channel_key = peer.identity.key, peer.identity.channel_key
    contact = Contact.of_relay(RelayStrat(key, 1, channel_key))
    assert contact is not None
    assert contact.sequence == 0
    return contact


def tcp(number: int) -> TCPStrat:
    """An open connection, as one of its ends knows it."""
    return TCPStrat(Address(bytes((192, 0, 2, number % 256)), 4000), number)


def pair() -> tuple[Host, Host]:
    clock = Clock()
    return Host("alice", clock), Host("bob", clock)


ROUTES = pytest.mark.parametrize("relayed", [False, True], ids=["tcp", "relayed"])


def ends(relayed: bool, number: int = 1) -> tuple[CommStrat, CommStrat]:
    """A route as the one who dials knows it, and as the other one does."""
    return (RELAYS[0], RELAYS[0]) if relayed else (tcp(number), tcp(number + 100))


@dataclass(frozen=True)
class Talk:
    """Two nodes with a live session between them, and a recording of how it began."""

    alice: Host
    bob: Host
    at_alice: CommStrat
    at_bob: CommStrat
    alices: Path
    bobs: Path
    recording: tuple[bytes, bytes, bytes]

    def works(self) -> bool:
        """Whether a ping arrives in both directions."""
        for sender, path, receiver, route, other in (
            (self.alice, self.alices, self.bob, self.at_bob, self.bobs),
            (self.bob, self.bobs, self.alice, self.at_alice, self.alices),
        ):
            before = len(receiver.openings)
            receiver.receive(sender.say(path), route)
            if receiver.openings[before:] != [(other, Sealed(0, 0, [(ItemType.PING, 0, b"text")]))]:
                return False
        return True


def talk(relayed: bool = False, number: int = 1, hosts: tuple[Host, Host] | None = None) -> Talk:
    alice, bob = hosts or pair()
    at_alice, at_bob = ends(relayed, number)
    alice.dial(bob, at_alice)
    initiation = alice.take_one(INITIATION)
    bob.receive(initiation, at_bob)
    response = bob.take_one(RESPONSE)
    alice.receive(response, at_alice)
    first = alice.take_one(DATA)
    bob.receive(first, at_bob)
    recording = (initiation, response, first)
    return Talk(
        alice, bob, at_alice, at_bob, alice.confirmations[-1], bob.confirmations[-1], recording
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
    assert alice.channels.dialling == bob.channels.dialling == 0
    assert alice.channels.unconfirmed == bob.channels.unconfirmed == 0
    assert not alice.rejected
    assert not bob.rejected


def test_the_initiator_hears_where_it_is_seen() -> None:
    assert talk().alices.observed == cast("TCPStrat", talk().at_bob).address
    assert talk(relayed=True).alices.observed is None


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


def flipped(data: bytes, bit: int) -> bytes:
    bent = bytearray(data)
    bent[bit // 8] ^= 1 << bit % 8
    return bytes(bent)


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


def forge_initiation(
    responder: Host,
    name: str = "mallory",
    *,
    payload: Callable[[InitiationPayload], object] = lambda payload: payload,
    index: int = 7,
    ephemeral: int = 1,
) -> bytes:
    """An initiation by somebody who has keys, and says what he likes."""
    attacker = identity(name)
    content = CommRecord(2_000_000_000, b"incarnat", ((1, attacker.channel_key),))
    record = SignedCommRecord.sign(attacker, 1, content).encode()
    said = payload(InitiationPayload(record, 0, 0, None, b"incarnat", LIMITS))
    key, channel_key = responder.identity.key, responder.identity.channel_key
    initiator = Initiator(attacker, "main", key, channel_key, index)
    secret = X25519PrivateKey.from_private_bytes(ephemeral.to_bytes(32, "big"))
    return initiator.initiate(cast("InitiationPayload", said), secret).encode()


# Data packets.


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


# Unknown sessions.


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


# What a dial believes.


def answer_as(
    responder: Identity, initiation: bytes, record: SignedCommRecord | None, index: int = 9
) -> bytes:
    """The response of somebody who has the keys of ``responder`` and says what he likes."""
    packet = decode_packet(initiation)
    assert isinstance(packet, Initiation)
    answer = ResponsePayload(
        b"incarnat", 0, False, None, 0, LIMITS, None if record is None else record.encode()
    )
    secret = X25519PrivateKey.from_private_bytes(b"e" * 32)
    return Responder(responder, "main", packet).respond(answer, index, secret)[0].encode()


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
    alice, bob = pair()
    alice.dial(bob, RELAYS[0])
    bob.receive(alice.take_one(INITIATION), RELAYS[0])
    response = bob.take_one(RESPONSE)
    for bit in range(0, 8 * len(response), 5):
        alice.receive(flipped(response, bit), RELAYS[0])
    assert alice.told() == (0,) * 7
    assert alice.channels.dialling == 1
    alice.receive(response, RELAYS[1])
    assert len(alice.confirmations) == 1


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


# The end of connections and paths.


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


# Arbitrary bytes.

COUNTERS_MAX = 40
"""How many different reasons there may be to drop something; texts of strangers are none."""


@given(st.lists(st.tuples(st.binary(max_size=200), st.sampled_from([tcp(101), *RELAYS]))))
def test_arbitrary_bytes_raise_nothing_and_make_no_state(
    packets: list[tuple[bytes, CommStrat]],
) -> None:
    _, bob = pair()
    for data, strategy in packets:
        bob.receive(data, strategy)
        for kind in (INITIATION, RESPONSE, DATA, NOTE):
            bob.receive(bytes((kind, 1, 1, 0)) + data, strategy)
    assert bob.told() == (0,) * 7
    assert bob.channels.unconfirmed == 0
    assert len(bob.counters) < COUNTERS_MAX
    assert all(sent.kind == NOTE for sent in bob.take())


def test_unknown_types_versions_and_suites_are_counted_and_never_answered() -> None:
    both = talk()
    packets = [*both.recording, both.alice.say(both.alices)]
    for packet in packets:
        for place, value in ((0, 0), (0, 5), (0, 255), (1, 0), (1, 2), (2, 0), (2, 2), (3, 1)):
            bent = bytearray(packet)
            bent[place] = value
            for strategy in (tcp(150), RELAYS[0]):
                rejected, counted = len(both.bob.rejected), both.bob.counters.total()
                both.bob.receive(bytes(bent), strategy)
                assert len(both.bob.rejected) == rejected + 1
                assert both.bob.counters.total() == counted + 1
    assert both.bob.take() == []


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 7),  # which packet
        st.sampled_from(["whole", "flip", "cut", "grow", "splice", "kind", "index"]),
        st.integers(0, 2**32),
        st.sampled_from([tcp(1), tcp(101), tcp(150), *RELAYS]),
        st.booleans(),  # to whom
    ),
    max_size=25,
)


@given(MUTATIONS)
def test_real_packets_bent_in_any_way_raise_nothing_and_forge_nothing(
    mutations: list[tuple[int, str, int, CommStrat, bool]],
) -> None:
    both = talk(relayed=True)
    alice, bob = both.alice, both.bob
    direct = talk(number=1, hosts=(alice, bob))
    alice.dial(bob, RELAYS[0])
    seeds = [
        *both.recording,
        *direct.recording,
        alice.take_one(INITIATION),
        UnknownSession(both.alices.session.index, bytes(16)).encode(),
    ]
    alices_confirmations, bobs_confirmations = len(alice.confirmations), len(bob.confirmations)
    learned = len(bob.learned)
    for which, how, number, strategy, to_alice in mutations:
        packet = bytearray(seeds[which])
        place = number % len(packet)
        if how == "flip":
            packet[place] ^= 1 + number % 255
        elif how == "cut":
            del packet[place:]
        elif how == "grow":
            packet += bytes(place)
        elif how == "splice":
            other = seeds[number % len(seeds)]
            packet[place:] = other[place:]
        elif how == "kind":
            packet[0] = number % 6
        elif how == "index":
            index = (both.alices, both.bobs, direct.alices, direct.bobs)[number % 4].session.index
            packet[4:12] = index.to_bytes(8, "big")
        (alice if to_alice else bob).receive(bytes(packet), strategy)
    assert len(alice.confirmations) == alices_confirmations
    assert len(bob.confirmations) == bobs_confirmations
    assert len(bob.learned) == learned
    assert alice.channels.unconfirmed + bob.channels.unconfirmed <= 4
    assert max(len(alice.counters), len(bob.counters)) < COUNTERS_MAX
    alice.take()
    bob.take()
    assert both.works()
    assert direct.works()


LEAF = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20)
    | st.text("abc", max_size=8)
)  # fmt: skip
VALUES = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4), max_leaves=10)


class Said:
    """A payload of an attacker's making."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def encode(self) -> bytes:
        try:
            return canonical.encode(self.value)
        except ValueError:
            return b"\xc1"


@given(st.lists(st.tuples(st.integers(0, 7), VALUES), max_size=10))
def test_what_somebody_with_keys_says_makes_few_counters_and_raises_nothing(
    said: list[tuple[int, Value]],
) -> None:
    _, bob = pair()
    for number, (place, value) in enumerate(said):

        def payload(honest: InitiationPayload, place: int = place, value: Value = value) -> Said:
            fields = canonical.decode(honest.encode())
            assert isinstance(fields, list)
            if place < len(fields):
                fields[place] = value
                return Said(fields)
            return Said(value)

        bob.receive(forge_initiation(bob, payload=payload, ephemeral=number + 1), RELAYS[0])
    assert bob.told() == (0,) * 7
    assert bob.channels.unconfirmed <= 8
    assert len(bob.counters) < COUNTERS_MAX


@given(st.lists(st.tuples(st.integers(0, 8), VALUES), max_size=10), st.binary(max_size=60))
@example([(5, []), (5, []), (5, [])], b"")
def test_a_signed_record_of_nonsense_makes_few_counters_and_raises_nothing(
    said: list[tuple[int, Value]], raw: bytes
) -> None:
    _, bob = pair()
    attacker = identity("mallory")
    content = CommRecord(2_000_000_000, b"incarnat", ((1, attacker.channel_key),), (RELAYS[0],))
    records = [MutableItem.sign(attacker, 1, raw).encode()]
    for place, value in said:
        fields = canonical.decode(content.encode())
        assert isinstance(fields, list)
        if place < len(fields):
            fields[place] = value
        nonsense = Said(fields if place < len(fields) else value).encode()
        records.append(MutableItem.sign(attacker, 1, nonsense[:800]).encode())
    for number, record in enumerate(records):

        def payload(honest: InitiationPayload, record: bytes = record) -> InitiationPayload:
            return replace(honest, record=record)

        bob.receive(forge_initiation(bob, payload=payload, ephemeral=number + 1), RELAYS[0])
    assert bob.told() == (0,) * 7
    assert bob.channels.unconfirmed <= 8
    assert len(bob.counters) < COUNTERS_MAX


def test_a_proven_peer_can_name_only_so_many_counters() -> None:
    both = talk(relayed=True)
    reasons = set[str]()
    for text in (b"", b"one", b"another"):
        for kind in range(256):
            plaintext = write_sealed(0, 0, [item(kind, text)])
            both.bob.receive(both.alices.session.seal(plaintext), both.at_bob)
        both.bob.take()
        reasons = reasons or set(both.bob.counters)
    # The type may be part of the reason, nothing else may.
    assert len(both.bob.counters) <= 128
    assert set(both.bob.counters) == reasons


def test_a_data_packet_says_no_more_than_was_sealed() -> None:
    both = talk()
    packet = decode_packet(both.alice.say(both.alices))
    assert isinstance(packet, Data)
    assert packet.receiver_index == both.bobs.session.index
    assert packet.counter == 1

"""Two nodes' secure channels on a network of lists.

Nothing is sent anywhere. A node's carrier appends to a list, the test moves packets from there to
whom it likes, as often as it likes, and changed as it likes: it is the attacker on the way.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.handshake import InitiationPayload, Initiator, PeerLimits
from egtp.channel.sealed import ItemType, Sealed, item
from egtp.environment import Environment
from egtp.errors import NotSent
from egtp.limits.shares import Shares
from egtp.paths.arrival import Arrival
from egtp.paths.channels import SecureChannels
from egtp.paths.handshakes import Dial
from egtp.paths.path import Path
from egtp.paths.uploads import Uploads
from egtp.queries.answers import Answers
from egtp.queries.early import Early
from egtp.values.attempts import Cause
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import Identity, NodeId

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
        self.full = False
        """Whether what is sent has to wait."""
        self.admitting = True
        self.welcoming = True
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
        self.answers = Answers()
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
            self.answers,
        )

    def restart(self, answers: Answers | None = None) -> None:
        self.answers = Answers() if answers is None else answers
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
        return not (self.broken or self.full)

    def is_throttled(self, _: CommStrat) -> bool:
        return False

    def path_waits(self, path: Path) -> None:
        raise AssertionError("nothing here is that large")

    def lose_path(self, path: Path, reason: str) -> None:
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

    def is_welcome(self, peer_id: NodeId) -> bool:
        return self.welcoming

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

    def dial(
        self,
        peer: Host,
        strategy: CommStrat,
        contact: Contact | None = None,
        early: Early | None = None,
    ) -> Dial:
        contact = contact or contact_of(peer)
        return self.channels.dial(contact, strategy, self, self.ended.append, early)

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


def flipped(data: bytes, bit: int) -> bytes:
    bent = bytearray(data)
    bent[bit // 8] ^= 1 << bit % 8
    return bytes(bent)


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

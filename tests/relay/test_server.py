"""The relay server with a host of straw: to whom it gives what, what it keeps, what it counts."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp import Identity, Node, NodeConfig
from egtp.channel.packet import DATA, INITIATION, INITIATION_BYTES_MIN
from egtp.errors import HandlerFailed, InvalidMessage
from egtp.relay.leases import RelayLimits
from egtp.relay.server import RelayServer
from egtp.relay.wire import (
    DELIVERY_KIND,
    HINT_KIND,
    NO_LEASE,
    TOO_MUCH,
    Delivery,
    Hint,
    Relay,
    decode_lease,
    digest_of,
    encode_lease,
)
from egtp.values.identity import NodeId
from egtp.values.message import U32_LIMIT, ReplyCode

PEERS = [NodeId(bytes([number]) * 20) for number in range(4)]
A, B, C, D = PEERS
LIMITS = RelayLimits(
    leases_max=3,
    lease_s_max=30.0,
    mailbox_packets_max=3,
    mailbox_bytes_max=600,
    mailboxes_bytes_max=900,
    mailbox_s_max=20.0,
    queue_bytes_max=1000,
)


@dataclass
class Host:
    """Connections are entries of a dict; what is pushed is kept in a list."""

    now_s: float = 0.0
    queues: dict[NodeId, int] = field(default_factory=dict)
    of_senders: Counter[tuple[NodeId | None, NodeId]] = field(default_factory=Counter)
    pushed: list[tuple[NodeId, str, bytes, int]] = field(default_factory=list)
    memory: int = 10**6
    known: set[NodeId] = field(default_factory=lambda: set(PEERS))

    def is_stranger(self, peer_id: NodeId) -> bool:
        return peer_id not in self.known

    def may_push(self, peer_id: NodeId, size: int) -> bool:
        return size <= self.memory

    def now(self) -> float:
        return self.now_s

    def queued_bytes(self, peer_id: NodeId) -> int | None:
        return self.queues.get(peer_id)

    def queued_bytes_of(self, sender: NodeId, peer_id: NodeId) -> int:
        return self.of_senders[sender, peer_id]

    def push(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes,
        lifetime_ms: int,
        sender: NodeId | None = None,
    ) -> None:
        assert peer_id in self.queues, "pushed to somebody who is not connected"
        assert 0 <= lifetime_ms < U32_LIMIT
        self.queues[peer_id] += len(body)
        self.of_senders[sender, peer_id] += len(body)
        self.pushed.append((peer_id, kind, body, lifetime_ms))

    def take(self) -> list[tuple[NodeId, str, bytes, int]]:
        pushed, self.pushed = self.pushed, []
        return pushed


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def server(host: Host) -> RelayServer:
    return RelayServer(host, LIMITS)


def first(serial: int = 0, size: int = INITIATION_BYTES_MIN) -> bytes:
    """A packet that a mailbox may hold."""
    return (bytes((INITIATION,)) + b"%8d" % serial * 100)[:size]


def relay(
    server: RelayServer,
    sender: NodeId,
    recipient: NodeId,
    packet: bytes,
    lifetime_ms: int = 5000,
    age_ms: int = 0,
) -> None:
    server.relay(sender, Relay(recipient, lifetime_ms, packet).encode(), age_ms)


MADE_WAY = "dropped: made way in a mailbox"


@dataclass
class Kept:
    sender: NodeId
    packet: bytes
    deadline_s: float


class RelayMachine(RuleBasedStateMachine):
    """Every relay message has one fate: delivered, held, or dropped for a counted reason."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.server = RelayServer(self.host, LIMITS)
        self.until: dict[NodeId, float] = {}
        self.boxes: dict[NodeId, list[Kept]] = {peer_id: [] for peer_id in PEERS}
        self.asked = 0
        self.direct = 0
        self.delivered_bytes = 0
        self.delivered = 0
        self.serial = count()

    def _live(self, peer_id: NodeId) -> bool:
        return self.host.now_s < self.until.get(peer_id, float("-inf"))

    def _check_mailbox_emptied(self, peer_id: NodeId, live: bool) -> None:
        """``peer_id`` is connected: it is given what was held for it, in order, no more."""
        fresh = [kept for kept in self.boxes[peer_id] if kept.deadline_s > self.host.now_s]
        pushed = self.host.take()
        if live:
            assert len(pushed) == len(fresh)
        for (recipient, kind, body, left_ms), kept in zip(pushed, fresh, strict=False):
            assert (recipient, kind) == (peer_id, DELIVERY_KIND)
            assert Delivery.decode(body) == (kept.sender, kept.packet)
            assert left_ms / 1000 <= kept.deadline_s - self.host.now_s
            self.delivered += 1
            self.delivered_bytes += len(kept.packet)
        self.boxes[peer_id] = []

    @rule(peer_id=st.sampled_from(PEERS), seconds=st.sampled_from([0, 1, 10, 30, 31, 2**32 - 1]))
    def lease(self, peer_id: NodeId, seconds: int) -> None:
        live = self._live(peer_id)
        others = sum(self._live(other) for other in PEERS if other != peer_id)
        if seconds and not live and others == LIMITS.leases_max:
            with pytest.raises(HandlerFailed) as caught:
                self.server.lease(peer_id, encode_lease(seconds))
            assert caught.value.code == ReplyCode.BUSY
            return
        granted_s = decode_lease(self.server.lease(peer_id, encode_lease(seconds)))
        assert granted_s == min(seconds, LIMITS.lease_s_max)
        if not live or not granted_s:
            self.boxes[peer_id] = []
        self.until.pop(peer_id, None)
        if granted_s:
            self.until[peer_id] = self.host.now_s + granted_s
        if peer_id in self.host.queues:
            self._check_mailbox_emptied(peer_id, live)
        assert not self.host.take()

    @rule(peer_id=st.sampled_from(PEERS), body=st.binary(max_size=10))
    def ask_for_a_lease_in_bad_form(self, peer_id: NodeId, body: bytes) -> None:
        try:
            decode_lease(body)
        except InvalidMessage:
            with pytest.raises(HandlerFailed) as caught:
                self.server.lease(peer_id, body)
            assert caught.value.code == ReplyCode.REFUSED

    @rule(
        sender=st.sampled_from(PEERS),
        recipient=st.sampled_from(PEERS),
        kind=st.sampled_from([INITIATION, INITIATION, DATA, 2, 4, 200]),
        size=st.one_of(st.integers(1, 650), st.integers(-1, 80).map(INITIATION_BYTES_MIN.__add__)),
        lifetime_ms=st.one_of(st.integers(0, 60_000), st.just(2**32 - 1)),
        age_ms=st.integers(0, 30_000),
    )
    def a_relay_message(
        self,
        sender: NodeId,
        recipient: NodeId,
        kind: int,
        size: int,
        lifetime_ms: int,
        age_ms: int,
    ) -> None:
        packet = (bytes((kind,)) + b"%8d" % next(self.serial) * 100)[:size]
        before = self.server.counters.copy()
        queued = self.host.queues.get(recipient, 0)
        own = self.host.of_senders[sender, recipient] + size
        room = not queued or own <= LIMITS.queue_bytes_max - queued
        relay(self.server, sender, recipient, packet, lifetime_ms, age_ms)
        self.asked += 1
        counted = self.server.counters - before
        pushed = self.host.take()
        left_ms = lifetime_ms - age_ms
        if left_ms <= 0:
            assert counted == {"dropped: too old": 1}
            assert not pushed
        elif recipient in self.host.queues and room:
            ((whom, how, body, lifetime),) = pushed
            assert (whom, how, lifetime) == (recipient, DELIVERY_KIND, left_ms)
            assert Delivery.decode(body) == (sender, packet)
            assert counted == {"relayed packets": 1, "relayed bytes": size}
            self.direct += 1
            self.delivered += 1
            self.delivered_bytes += size
        elif counted["held packets"]:
            assert kind == INITIATION
            assert size >= INITIATION_BYTES_MIN
            assert recipient not in self.host.queues
            assert self._live(recipient)
            made_way = self._make_way(recipient)
            assert counted == Counter({"held packets": 1, MADE_WAY: len(made_way)})
            told = [one for one in made_way if one.sender in self.host.queues]
            assert [whom for whom, *_ in pushed] == [one.sender for one in told]
            for (_, how, body, _), one in zip(pushed, told, strict=True):
                assert (how, body) == (HINT_KIND, Hint(digest_of(one.packet), TOO_MUCH).encode())
            kept_s = min(left_ms / 1000, LIMITS.mailbox_s_max)
            self.boxes[recipient].append(Kept(sender, packet, self.host.now_s + kept_s))
        else:
            ((reason, times),) = counted.items()
            assert reason.startswith("dropped: ")
            assert times == 1
            for whom, how, body, _ in pushed:
                assert (whom, how) == (sender, HINT_KIND)
                hint = Hint.decode(body)
                assert hint.digest == digest_of(packet)
                lasts = kind == INITIATION and size >= INITIATION_BYTES_MIN
                away = not (self._live(recipient) and lasts)
                connected = recipient in self.host.queues
                assert hint.code == (NO_LEASE if away and not connected else TOO_MUCH)
            assert len(pushed) <= 1

    def _make_way(self, recipient: NodeId) -> list[Kept]:
        """Who had to, says a test of leases; here, that they are counted and told."""
        left = {held.packet for held in self.server.leases._leases[recipient].held}
        box = [kept for kept in self.boxes[recipient] if kept.deadline_s > self.host.now_s]
        self.boxes[recipient] = [kept for kept in box if kept.packet in left]
        return [kept for kept in box if kept.packet not in left]

    @rule(sender=st.sampled_from(PEERS), body=st.binary(max_size=30))
    def garbage(self, sender: NodeId, body: bytes) -> None:
        before = self.server.counters["dropped: not a relay message"]
        self.server.relay(sender, body, 0)
        self.asked += 1
        assert self.server.counters["dropped: not a relay message"] == before + 1
        assert not self.host.take()

    @rule(peer_id=st.sampled_from(PEERS))
    def connect(self, peer_id: NodeId) -> None:
        self.a_queue_is_empty(peer_id)
        live = self._live(peer_id)
        self.server.came_back(peer_id)
        self._check_mailbox_emptied(peer_id, live)

    def a_queue_is_empty(self, peer_id: NodeId) -> None:
        self.host.queues[peer_id] = 0
        self.a_queue_moves(peer_id, 0)

    @rule(peer_id=st.sampled_from(PEERS))
    def disconnect(self, peer_id: NodeId) -> None:
        self.host.queues.pop(peer_id, None)
        self.server.came_back(peer_id)
        assert not self.host.take(), "it is not there"

    @rule(peer_id=st.sampled_from(PEERS), queued=st.integers(0, 2000))
    def a_queue_moves(self, peer_id: NodeId, queued: int) -> None:
        if peer_id in self.host.queues:
            self.host.queues[peer_id] = queued
            for sender in (*PEERS, None):
                self.host.of_senders[sender, peer_id] = queued // 5

    @rule(delay_s=st.floats(0.0, 15.0))
    def time_passes(self, delay_s: float) -> None:
        self.host.now_s += delay_s

    @invariant()
    def every_message_has_one_fate_and_is_counted(self) -> None:
        counters = self.server.counters
        dropped = sum(n for reason, n in counters.items() if reason.startswith("dropped: "))
        held = counters["held packets"] - counters[MADE_WAY]
        assert self.asked == self.direct + held + dropped
        assert counters["relayed packets"] == self.delivered
        assert counters["relayed bytes"] == self.delivered_bytes

    @invariant()
    def no_more_is_held_than_is_allowed(self) -> None:
        assert self.server.leases.held_bytes <= LIMITS.mailboxes_bytes_max


def test_every_relay_message_is_delivered_held_or_dropped_for_a_counted_reason() -> None:
    run_state_machine_as_test(RelayMachine)


def test_a_packet_goes_down_the_recipients_own_connection_only(
    host: Host, server: RelayServer
) -> None:
    host.queues = {A: 0, B: 0, C: 0}
    relay(server, A, B, b"packet", lifetime_ms=5000, age_ms=200)
    assert host.take() == [(B, DELIVERY_KIND, Delivery(A, b"packet").encode(), 4800)]


def test_a_connection_is_a_lease_without_a_mailbox(host: Host, server: RelayServer) -> None:
    host.queues = {A: 0, B: 0}
    relay(server, A, B, first())
    assert len(host.take()) == 1
    del host.queues[B]
    relay(server, A, B, first())
    ((whom, kind, body, _),) = host.take()
    assert (whom, kind, Hint.decode(body).code) == (A, HINT_KIND, NO_LEASE)
    assert server.leases.held_bytes == 0


@pytest.mark.parametrize(
    "packet",
    [bytes((kind,)) + bytes(300) for kind in (0, 2, DATA, 4, 255)]
    + [first(size=1), first(size=INITIATION_BYTES_MIN - 1)],
)
def test_only_initiations_are_held(host: Host, server: RelayServer, packet: bytes) -> None:
    """Everything else is sealed under a session that may be gone when the recipient is back; and
    what is too short for one fills mailboxes only."""
    host.queues = {A: 0}
    server.lease(B, encode_lease(30))
    relay(server, A, B, packet)
    ((whom, how, body, _),) = host.take()
    assert (whom, how, Hint.decode(body).code) == (A, HINT_KIND, NO_LEASE)
    assert server.leases.held_bytes == 0


def test_an_empty_packet_is_not_held(server: RelayServer) -> None:
    server.lease(B, encode_lease(30))
    relay(server, A, B, b"")
    assert server.counters == {"dropped: the recipient is away": 1}


def test_a_sender_who_is_not_connected_gets_no_hint(host: Host, server: RelayServer) -> None:
    relay(server, A, B, first())
    assert host.pushed == []
    assert server.counters == {"dropped: no lease": 1}


def test_what_waits_for_who_is_away_comes_in_order_with_what_is_left_of_its_time(
    host: Host, server: RelayServer
) -> None:
    server.lease(B, encode_lease(30))
    for serial in range(3):
        relay(server, A, B, first(serial), lifetime_ms=4000 + 1000 * serial, age_ms=500)
    host.now_s = 4.0
    host.queues[B] = 0
    server.came_back(B)
    assert host.take() == [
        (B, DELIVERY_KIND, Delivery(A, first(1)).encode(), 500),
        (B, DELIVERY_KIND, Delivery(A, first(2)).encode(), 1500),
    ]
    server.came_back(B)
    assert host.take() == []


def test_a_message_is_as_old_on_arrival_as_its_sender_says(host: Host, server: RelayServer) -> None:
    host.queues = {A: 0, B: 0}
    for age_ms, expected in ((4999, 1), (5000, 0), (2**32, 0)):
        relay(server, A, B, first(), lifetime_ms=5000, age_ms=age_ms)
        assert len(host.take()) == expected


def test_the_quota_of_a_slow_recipient_is_told_to_the_sender(
    host: Host, server: RelayServer
) -> None:
    host.queues = {A: 0, B: LIMITS.queue_bytes_max - 30}
    relay(server, A, B, first(size=30))
    assert host.take()[0][1] == DELIVERY_KIND
    host.queues[B] = LIMITS.queue_bytes_max - 29
    host.of_senders.clear()
    relay(server, A, B, first(size=30))
    ((whom, kind, body, _),) = host.take()
    assert (whom, kind, Hint.decode(body).code) == (A, HINT_KIND, TOO_MUCH)


def test_a_relay_without_memory_for_all_who_do_not_read_tells_the_sender(
    host: Host, server: RelayServer
) -> None:
    host.queues = {A: 0, B: 0}
    host.memory = 40
    relay(server, A, B, first(size=40))
    assert host.take()[0][1] == DELIVERY_KIND
    relay(server, A, B, first(size=41))
    ((whom, kind, body, _),) = host.take()
    assert (whom, kind, Hint.decode(body).code) == (A, HINT_KIND, TOO_MUCH)


def test_a_full_mailbox_is_told_to_the_sender(host: Host, server: RelayServer) -> None:
    host.queues = {A: 0}
    server.lease(B, encode_lease(30))
    for serial in range(LIMITS.mailbox_packets_max):
        relay(server, A, B, first(serial))
    assert host.take() == []
    relay(server, A, B, first(99))
    ((whom, kind, body, _),) = host.take()
    assert (whom, kind, Hint.decode(body).code) == (A, HINT_KIND, TOO_MUCH)


def test_a_few_who_fill_a_mailbox_make_way_and_are_told(host: Host) -> None:
    server = RelayServer(host, RelayLimits())
    crowd = [NodeId(bytes([number]) * 20) for number in range(100, 104)]
    host.queues = dict.fromkeys([A, *crowd], 0)
    server.lease(B, encode_lease(30))
    for serial in range(64):
        relay(server, crowd[serial // 16], B, first(serial), lifetime_ms=600_000)
    assert server.counters == {"held packets": 64}
    relay(server, A, B, first(99))
    hint = Hint(digest_of(first(0)), TOO_MUCH).encode()
    assert host.take() == [(crowd[0], HINT_KIND, hint, 5000)]
    assert server.counters == {"held packets": 65, MADE_WAY: 1}
    host.queues[B] = 0
    server.came_back(B)
    assert host.take()[-1] == (B, DELIVERY_KIND, Delivery(A, first(99)).encode(), 5000)


def test_a_sender_who_reads_nothing_does_not_fill_the_memory_with_hints(
    host: Host, server: RelayServer
) -> None:
    """Each message to nobody makes a hint. Whoever sends them and does not read the hints must
    meet the limit that other recipients have."""
    host.queues = {A: 0}
    for serial in range(2000):
        relay(server, A, D, first(serial))
    assert host.queues[A] <= LIMITS.queue_bytes_max + 100
    assert server.counters["dropped: no lease"] == 2000


def test_a_lease_that_is_given_back_ends_the_mailbox(host: Host, server: RelayServer) -> None:
    server.lease(B, encode_lease(30))
    relay(server, A, B, first())
    assert decode_lease(server.lease(B, encode_lease(0))) == 0
    assert server.leases.held_bytes == 0
    host.queues[B] = 0
    server.came_back(B)
    assert host.take() == []


def test_a_full_relay_says_busy_and_counts_it(server: RelayServer) -> None:
    for peer_id in (A, B, C):
        server.lease(peer_id, encode_lease(30))
    with pytest.raises(HandlerFailed) as caught:
        server.lease(D, encode_lease(30))
    assert caught.value.code == ReplyCode.BUSY
    assert server.counters == {"lease refused: full": 1}
    # Giving back what one never had is no failure.
    assert decode_lease(server.lease(D, encode_lease(0))) == 0


def test_strangers_without_a_connection_make_way_in_a_full_relay(
    host: Host, server: RelayServer
) -> None:
    host.known = {D}
    host.queues = {A: 0, B: 0}
    for peer_id in (A, B, C):
        server.lease(peer_id, encode_lease(30))
    assert decode_lease(server.lease(D, encode_lease(30))) == 30
    assert not server.leases.has(C, host.now_s)
    # The others are here: whoever comes now is refused, until one of them goes.
    with pytest.raises(HandlerFailed):
        server.lease(C, encode_lease(30))
    del host.queues[A]
    server.leases.left(A)
    host.queues[C] = 0
    assert decode_lease(server.lease(C, encode_lease(30))) == 30


async def test_a_relay_that_nobody_talks_to_holds_nothing_beyond_its_lifetime() -> None:
    """R24 is about memory, too: a node cleans up now and then, and this belongs to it."""
    config = NodeConfig(clean_up_interval_s=0.01)
    async with Node(Identity.generate(os.urandom), config=config, relay_server=True) as node:
        server = node.relay_server
        assert server is not None
        server.lease(B, encode_lease(30))
        relay(server, A, B, first(), lifetime_ms=20)
        assert server.leases.held_bytes > 0
        async with asyncio.timeout(1.0):
            while server.leases.held_bytes:
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("flooders", [1, 2, 9, 100])
def test_however_many_flood_a_slow_recipient_whoever_comes_is_taken_too(
    host: Host, flooders: int
) -> None:
    most = 100_000
    server = RelayServer(host, RelayLimits(queue_bytes_max=most))
    host.queues = {B: 0}
    crowd = [NodeId(bytes([number]) * 20) for number in range(100, 100 + flooders)]
    for serial in range(10_000):
        relay(server, crowd[serial % flooders], B, first(serial, size=30))
    has = [host.of_senders[sender, B] for sender in crowd]
    assert max(has) - min(has) < 100
    assert host.queues[B] == sum(has) < most
    assert server.counters["dropped: the recipient is too slow"] > 0
    # As much as each of them has is left to whoever comes.
    for serial in range(10):
        before = server.counters["relayed packets"]
        relay(server, A, B, first(serial, size=20))
        assert server.counters["relayed packets"] == before + 1


def test_the_first_packet_of_all_is_taken_however_large_it_is(
    host: Host, server: RelayServer
) -> None:
    host.queues = {B: 0}
    relay(server, A, B, bytes(2 * LIMITS.queue_bytes_max))
    relay(server, A, B, first())
    assert server.counters["relayed packets"] == 1

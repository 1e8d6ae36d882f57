"""A path: what is sealed together, when it is written, and what it knows of the other end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.frames import UNCONFIRMED_FRAME_BYTES_MAX
from egtp.channel.handshake import PeerLimits
from egtp.channel.packet import Data, decode_packet
from egtp.channel.sealed import ItemType, item, parse_sealed, write_chunk, write_sealed
from egtp.channel.session import InOrder, Session, SlidingWindow
from egtp.errors import InvalidPacket, NotSent
from egtp.limits.shares import Shares
from egtp.paths.bulk_window import BYTES_FIRST, OVERDUE_S
from egtp.paths.path import Path
from egtp.paths.path_life import PATH_LIFE, PathEvent, PathState
from egtp.paths.uploads import Uploads
from egtp.queries.outgoing import Outgoing
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat
from egtp.values.identity import Identity, NodeId

LIMITS = PeerLimits(65_536, 131_072, 16, 262_144)
PEER = NodeId(bytes(20))
TCP = TCPStrat(Address(bytes((192, 0, 2, 1)), 4000), 1)


@pytest.fixture(scope="session")
def relay(bob: Identity) -> RelayStrat:
    return RelayStrat(bob.key, 1, bob.channel_key)


@dataclass
class Owner:
    """The node and its carrier, as far as a path sees them."""

    now_s: float = 50.0
    writable: bool = True
    broken: bool = False
    waits: int = 0
    turn: list[Callable[[], None]] = field(default_factory=list)
    sent: list[tuple[CommStrat, bytes]] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    uploads: Uploads = field(
        default_factory=lambda: Uploads(
            Shares(10**9, strangers_max=10**9, peer_max=10**9), 10**9, Counter()
        )
    )

    def is_awaited(self, peer_id: NodeId, reference: bytes) -> bool:
        return True

    def now(self) -> float:
        return self.now_s

    def soon(self, callback: Callable[[], None]) -> None:
        self.turn.append(callback)

    def at_once(self, callback: Callable[[], None], /) -> None:
        callback()

    def settled(self, peer_id: NodeId) -> int:
        assert peer_id == PEER
        return 77

    def settled_except(self, peer_id: NodeId) -> None:
        return None

    def takes_more(self, _: CommStrat) -> bool:
        return self.writable

    def is_throttled(self, _: CommStrat) -> bool:
        return False

    def path_waits(self, path: Path) -> None:
        self.waits += 1

    def lose_path(self, path: Path, reason: str) -> None:
        path.on(PathEvent.END)
        self.failed.append((path, reason))

    def send_tcp(self, strategy: TCPStrat, packet: bytes) -> None:
        self._send(strategy, packet)

    def send_relay(self, strategy: RelayStrat, packet: bytes) -> None:
        self._send(strategy, packet)

    def _send(self, strategy: CommStrat, packet: bytes) -> None:
        if self.broken:
            raise NotSent("the connection is gone")
        self.sent.append((strategy, packet))

    def end_turn(self) -> None:
        turn, self.turn = self.turn, []
        for callback in turn:
            callback()


def session(index: int, remote: int, *, relayed: bool, started_s: float) -> Session:
    keys = (b"a" * 32, b"b" * 32)
    send, receive = keys if index < remote else keys[::-1]
    return Session(
        index=index,
        remote_index=remote,
        send_key=send,
        receive_key=receive,
        window=SlidingWindow() if relayed else InOrder(),
        started_s=started_s,
    )


def path_of(
    owner: Owner,
    strategy: CommStrat = TCP,
    index: int = 1,
    remote: int = 2,
    started_s: float = 50,
    *,
    dialled: bool = True,
    proven: bool = True,
) -> Path:
    relayed = isinstance(strategy, RelayStrat)
    path = Path(
        PEER,
        session(index, remote, relayed=relayed, started_s=started_s),
        strategy,
        owner,
        owner,
        dialled=dialled,
        theirs=LIMITS,
        ours=LIMITS,
        incarnation=b"incarnat",
    )
    if proven:
        path.on(PathEvent.PROOF)
    return path


def data(packet: bytes) -> Data:
    decoded = decode_packet(packet)
    assert isinstance(decoded, Data)
    return decoded


def waiting(message: bytes) -> Outgoing:
    return Outgoing(message, 50.0)


def plaintexts(owner: Owner, started_s: float = 50) -> list[bytes]:
    """What was sent, opened by the other side."""
    other = session(2, 1, relayed=False, started_s=started_s)
    return [other.open(data(packet)) for _, packet in owner.sent]


def test_what_is_queued_in_one_turn_is_one_packet() -> None:
    owner = Owner()
    path = path_of(owner)
    for number in range(5):
        path.queue(waiting(b"message %d" % number))
    assert owner.sent == []
    assert len(owner.turn) == 1
    owner.now_s += 1.25
    owner.end_turn()
    (plaintext,) = plaintexts(owner)
    sealed = parse_sealed(plaintext)
    assert (sealed.t_ms, sealed.settled) == (1250, 77)
    messages = [b"message %d" % number for number in range(5)]
    assert sealed.items == [(ItemType.MESSAGE, 1250, message) for message in messages]
    # The turn is over: another message asks for another one.
    path.queue(waiting(b"more"))
    assert len(owner.turn) == 1


def test_a_full_batch_does_not_wait_for_the_end_of_the_turn() -> None:
    owner = Owner()
    path = path_of(owner)
    path.queue(waiting(bytes(4096)))
    assert len(owner.sent) == 1
    assert not path.outbox


def test_what_comes_together_leaves_in_ever_larger_packets_and_the_next_turn_begins_anew() -> None:
    owner = Owner()
    path = path_of(owner)
    for _ in range(2):
        for _ in range(50):
            path.queue(waiting(bytes(1000)))
        assert len(owner.turn) == 1
        owner.end_turn()
    packets = [len(parse_sealed(plaintext).items) for plaintext in plaintexts(owner)]
    assert packets == [5, 9, 17, 17, 2] * 2


def test_items_of_the_engine_do_not_wait_for_the_end_of_the_turn_if_they_are_many() -> None:
    owner = Owner()
    path = path_of(owner)
    for _ in range(9):
        path.queue_control(item(ItemType.RECORD, bytes(500)))
    assert len(owner.turn) == 1
    assert sum(len(parse_sealed(plaintext).items) for plaintext in plaintexts(owner)) == 9


def test_what_is_not_wanted_any_more_costs_no_packet() -> None:
    owner = Owner(writable=False)
    path = path_of(owner)
    unwanted = waiting(b"not wanted")
    wanted = [waiting(bytes(4000)) for _ in range(8)]
    for one in (*wanted, unwanted):
        path.queue(one)
    path.take_back(unwanted)
    owner.end_turn()
    owner.writable = True
    path.flush()
    owner.end_turn()
    assert all(parse_sealed(plaintext).items for plaintext in plaintexts(owner))
    assert not unwanted.given
    assert all(one.given for one in wanted)


def test_what_the_transport_does_not_take_stays_queued_and_unsealed() -> None:
    owner, token = Owner(writable=False), waiting(bytes(8000))
    path = path_of(owner)
    path.queue(token)
    owner.end_turn()
    assert (owner.sent, path.session.sent, token.given) == ([], 0, False)
    owner.writable = True
    path.flush()
    assert token.given
    assert len(owner.sent) == 1


def say_something(path: Path) -> None:
    path.queue_control(item(ItemType.PADDING))
    path.flush()


def test_a_message_counts_as_given_before_the_write_that_may_fail() -> None:
    owner, token = Owner(broken=True), waiting(b"message")
    path = path_of(owner)
    path.queue(token)
    owner.end_turn()
    assert token.given
    assert owner.failed == [(path, "the connection is gone")]


def test_a_closed_path_writes_nothing_and_keeps_what_has_not_left() -> None:
    owner, token = Owner(), waiting(b"message")
    path = path_of(owner)
    path.queue(token)
    path.on(PathEvent.END)
    owner.end_turn()
    path.prove()
    path.say_close()
    assert (owner.sent, token.given) == ([], False)
    assert path.outbox.take_unsent() == [token]


def test_the_proof_that_this_side_lives_is_what_waits() -> None:
    owner = Owner()
    path = path_of(owner)
    path.queue(waiting(b"message"))
    path.prove()
    (only,) = (parse_sealed(plaintext) for plaintext in plaintexts(owner))
    assert [kind for kind, _, _ in only.items] == [ItemType.MESSAGE]


def test_the_proof_is_an_empty_packet_if_nothing_waits_and_is_written_once() -> None:
    owner = Owner()
    path = path_of(owner)
    path.prove()
    path.prove()
    (only,) = (parse_sealed(plaintext) for plaintext in plaintexts(owner))
    assert only.items == []


@pytest.mark.parametrize("size", [16_000, 16_384])
def test_what_is_too_large_before_the_proof_comes_after_an_empty_packet(size: int) -> None:
    owner = Owner()
    path = path_of(owner)
    path.queue(waiting(bytes(size)))
    path.prove()
    frames = [len(packet) for _, packet in owner.sent]
    assert frames[0] <= UNCONFIRMED_FRAME_BYTES_MAX
    assert (len(frames) == 1) == (size == 16_000)
    items = [parse_sealed(plaintext).items for plaintext in plaintexts(owner)]
    assert [kind for kind, _, _ in items[-1]] == [ItemType.MESSAGE]


def test_the_proof_is_written_even_if_the_transport_is_full() -> None:
    owner = Owner(writable=False)
    path = path_of(owner)
    path.queue(waiting(b"message"))
    path.prove()
    (only,) = (parse_sealed(plaintext) for plaintext in plaintexts(owner))
    assert only.items == []


def test_goodbye_comes_after_what_was_said_before() -> None:
    owner = Owner()
    path = path_of(owner)
    path.queue(waiting(b"a message"))
    path.queue_control(item(ItemType.PING, b"before"))
    path.say_close()
    said = [kind for plaintext in plaintexts(owner) for kind, _, _ in parse_sealed(plaintext).items]
    assert said == [ItemType.PING, ItemType.MESSAGE, ItemType.CLOSE]


def test_a_path_keeps_its_session_when_it_goes_by_another_relay(
    relay: RelayStrat, alice: Identity
) -> None:
    owner = Owner()
    other = RelayStrat(alice.key, 1, alice.channel_key)
    path = path_of(owner, relay)
    say_something(path)
    path.reroute(other)
    say_something(path)
    assert [strategy for strategy, _ in owner.sent] == [relay, other]
    assert [data(packet).counter for _, packet in owner.sent] == [0, 1]
    assert path.strategy == other


def test_what_waits_for_a_relay_that_is_gone_leaves_by_the_next_one(
    relay: RelayStrat, alice: Identity
) -> None:
    owner = Owner(writable=False)
    path = path_of(owner, relay)
    path.queue(waiting(b"a send, and nobody asks after it"))
    owner.end_turn()
    assert not owner.sent
    owner.writable = True
    other = RelayStrat(alice.key, 1, alice.channel_key)
    path.reroute(other)
    owner.end_turn()
    assert [strategy for strategy, _ in owner.sent] == [other]
    assert not path.outbox


def test_what_waits_leaves_at_the_next_look_if_nobody_says_that_the_way_is_free(
    relay: RelayStrat,
) -> None:
    owner = Owner(writable=False)
    path = path_of(owner, relay)
    path.queue(waiting(b"it waits for a connection that was replaced"))
    owner.end_turn()
    owner.writable = True
    path.look(owner.now())
    assert len(owner.sent) == 1
    assert not path.outbox


def test_a_relayed_path_knows_its_last_64_packets(relay: RelayStrat) -> None:
    owner = Owner()
    path = path_of(owner, relay)
    for _ in range(70):
        say_something(path)
    known = [path.sent_lately(packet[-16:]) for _, packet in owner.sent]
    assert known == [False] * 6 + [True] * 64
    assert not path.sent_lately(bytes(16))
    assert not path.sent_lately(b"")


def test_a_path_on_a_connection_keeps_no_tails() -> None:
    owner = Owner()
    path = path_of(owner)
    say_something(path)
    assert not path.sent_lately(owner.sent[0][1][-16:])


STEPS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=20)


@given(STEPS, st.integers(-(10**6), 10**6), st.booleans())
def test_transit_is_the_excess_over_the_fastest_packet_whatever_the_clocks_say(
    steps: list[tuple[int, int]], skew_s: int, dialled: bool
) -> None:
    """And whoever dialled knows more: that the other side's time began no later than its own, so
    that a delay which all packets have in common is seen, too."""
    # Two clocks that agree on nothing but their speed; each packet is under way for so long.
    sender, receiver = Owner(), Owner(now_s=50.0 + 10**6 + skew_s)
    sending = path_of(sender)
    receiving = path_of(receiver, index=2, remote=1, started_s=receiver.now_s, dialled=dialled)
    sent_at_ms = 0
    least = None
    for pause_ms, delay_ms in steps:
        sent_at_ms += pause_ms
        sender.now_s = 50.0 + sent_at_ms / 1000
        say_something(sending)
        receiver.now_s = receiving.session.started_s + (sent_at_ms + delay_ms) / 1000
        sealed, transit_ms = receiving.open(data(sender.sent[-1][1]))
        assert sealed.settled == 77
        least = delay_ms if least is None else min(least, delay_ms)
        # Each of the four readings of a clock may be cut by up to a millisecond.
        assert transit_ms >= 0
        assert abs(transit_ms - (delay_ms if dialled else delay_ms - least)) <= 4


@given(STEPS, st.integers(0, 10_000), st.booleans(), st.booleans(), st.integers(0, 10_000))
def test_nothing_seems_to_be_born_later_than_it_was_however_long_packets_are_held_back(
    steps: list[tuple[int, int]], first_ms: int, dialled: bool, at_once: bool, age_ms: int
) -> None:
    """The other side's time begins up to ``first_ms`` after this one's if it dialled, and before
    otherwise; but then it says nothing that matters before it has heard of this session."""
    sender, receiver = Owner(now_s=50.0), Owner(now_s=950.0)
    sending = path_of(sender)
    receiving = path_of(receiver, index=2, remote=1, started_s=950.0, dialled=dialled)
    assert receiving.born_after_s(age_ms, at_once=at_once) == -inf, "it may be of early data"
    began_s = 950.0 + (-first_ms if dialled else first_ms) / 1000
    sent_s = first_ms / 1000 if dialled else 0.0
    for pause_ms, delay_ms in steps:
        sent_s += pause_ms / 1000
        sender.now_s = 50.0 + sent_s
        say_something(sending)
        receiver.now_s = began_s + sent_s + delay_ms / 1000
        _, transit_ms = receiving.open(data(sender.sent[-1][1]))
        born_s = began_s + sent_s - age_ms / 1000
        after_s = receiving.born_after_s(age_ms + transit_ms, at_once=at_once)
        assert after_s <= born_s + 0.005
        if at_once and not dialled:
            assert after_s >= born_s - first_ms / 1000 - 0.005, "and it does not age by waiting"


@pytest.mark.parametrize("started_s", [50.0, 49.0])
def test_a_packet_that_does_not_open_is_no_use_of_the_path(started_s: float) -> None:
    sender, receiver = Owner(), Owner(now_s=60.0)
    path_of(sender).prove()
    packet = sender.sent[0][1]
    receiving = path_of(receiver, index=2, remote=1, started_s=started_s)
    with pytest.raises(InvalidPacket):
        receiving.open(data(packet[:-1] + bytes((packet[-1] ^ 1,))))
    assert receiving.used_s == started_s
    receiving.open(data(packet))
    assert receiving.used_s == 60.0


@given(st.binary(max_size=60))
def test_whatever_a_proven_peer_seals_is_read_or_invalid(plaintext: bytes) -> None:
    receiving = path_of(Owner(), index=2, remote=1)
    packet = session(1, 2, relayed=False, started_s=0.0).seal(plaintext)
    try:
        receiving.open(data(packet))
    except InvalidPacket:
        return
    assert len(plaintext) >= 12


def test_chunks_are_put_together_and_their_limits_hold() -> None:
    receiving = path_of(Owner(), index=2, remote=1)

    def chunk(message_id: int, total: int, offset: int, text: bytes) -> bytes:
        made = write_chunk(message_id, total, offset, text)
        ((_, _, inside),) = parse_sealed(write_sealed(0, 0, [made])).items
        return inside

    assert receiving.reassemble(chunk(1, 6, 0, b"abc")) is None
    assert receiving.reassemble(chunk(1, 6, 3, b"def")) == b"abcdef"
    with pytest.raises(InvalidPacket):
        receiving.reassemble(chunk(2, 6, 3, b"def"))
    with pytest.raises(InvalidPacket):
        receiving.reassemble(chunk(3, LIMITS.body_bytes_max + 257, 0, b"x"))


def test_small_messages_pass_where_large_ones_wait_for_the_peer_to_read() -> None:
    owner = Owner()
    path = path_of(owner)
    path.queue(waiting(bytes(1024 * 1024)))
    assert owner.waits == 1
    held = path.outbox.waiting_bytes
    assert 0 < 1024 * 1024 - held <= BYTES_FIRST + 16_384
    packets = len(owner.sent)
    owner.end_turn()
    path.queue(waiting(b"small"))
    owner.end_turn()
    assert len(owner.sent) == packets + 1
    assert path.outbox.waiting_bytes == held
    other = session(2, 1, relayed=False, started_s=50)
    items = [
        one for _, packet in owner.sent for one in parse_sealed(other.open(data(packet))).items
    ]
    assert items[-1] == (ItemType.MESSAGE, 0, b"small")
    pings = [ping for kind, _, ping in items if kind == ItemType.PING]
    owner.now_s += 0.001
    for ping in pings:
        path.pong(ping)
    owner.end_turn()
    assert path.outbox.waiting_bytes < held
    # A peer that dropped the rest of the pings is asked again, by sending on.
    held = path.outbox.waiting_bytes
    owner.now_s += OVERDUE_S / 2
    path.look(owner.now_s)
    assert path.outbox.waiting_bytes == held
    owner.now_s += OVERDUE_S
    path.look(owner.now_s)
    assert path.outbox.waiting_bytes < held


@pytest.mark.parametrize(("state", "event"), list(product(PathState, PathEvent)))
def test_a_path_goes_by_its_table(state: PathState, event: PathEvent) -> None:
    path = path_of(Owner(), proven=False)
    before = {
        PathState.PROVEN: [PathEvent.PROOF],
        PathState.SUSPECT: [PathEvent.PROOF, PathEvent.NOTE],
        PathState.CLOSED: [PathEvent.END],
    }
    for one in before.get(state, []):
        path.on(one)
    assert path.state is state
    was_confirmed = path.confirmed
    path.on(event)
    assert path.state is PATH_LIFE.after(state, event)
    assert path.closed == (path.state is PathState.CLOSED)
    assert path.suspect == (path.state is PathState.SUSPECT)
    assert path.confirmed == (was_confirmed or path.state is PathState.PROVEN)

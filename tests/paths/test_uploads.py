"""Uploads: what is unfinished holds memory only while it goes on, is wanted, and nobody else needs
the room more."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import pytest

from egtp.channel.sealed import Chunk
from egtp.errors import InvalidPacket
from egtp.limits.shares import Shares
from egtp.paths.reassembly import PAUSE_MAX_S, Reassembly
from egtp.paths.uploads import LOOK_AGAIN_S, Uploads
from egtp.queries.large_message import Arrived
from egtp.values.identity import NodeId
from egtp.values.message import Message, Query, Reply, Send

KIB = 1024
MIB = 1024 * KIB
STRANGERS_MAX = MIB
TOO_OLD = "unfinished message dropped: too old, or nothing more came"
TOO_SLOW = "unfinished message dropped: slow, and others need the room"


class Node:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.counters: Counter[str] = Counter()
        self.room = Shares(2 * MIB, strangers_max=STRANGERS_MAX, peer_max=MIB // 2)
        self.uploads = Uploads(self.room, STRANGERS_MAX, self.counters)

    def later(self, seconds: float) -> None:
        """Looked at each second, as an engine does."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(self.now_s + 1.0, until_s)
            self.uploads.look(self.now_s)


class Peer:
    """Uploads to a node, as over a path."""

    def __init__(self, node: Node, number: int, *, stranger: bool = True) -> None:
        self.node = node
        self.peer_id = NodeId(number.to_bytes(20, "big"))
        self.is_strangers = stranger
        self.awaited = True
        self.reassembly = Reassembly(4 * MIB, 4 * MIB, self)
        self.under_way: dict[int, tuple[bytes, int]] = {}

    def take_room(self, size: int) -> bool:
        node = self.node
        return node.uploads.take(self.peer_id, size, node.now_s, stranger=self.is_strangers)

    def give_room_back(self, size: int) -> None:
        self.node.room.give_back(self.peer_id, size)

    def is_awaited(self, reply: Reply) -> bool:
        return self.awaited

    def begin(self, number: int, message: Message, age_ms: int = 0) -> None:
        self.under_way[number] = age_ms.to_bytes(4, "big") + message.encode(), 0

    def send(self, number: int, most: int) -> Arrived | None:
        """So many bytes more of a message."""
        whole, at = self.under_way[number]
        arrived = None
        for start in range(at, min(at + most, len(whole)), 16 * KIB):
            piece = whole[start : min(start + 16 * KIB, at + most)]
            chunk = Chunk(number, len(whole), start, piece)
            arrived = self.reassembly.feed(chunk, self.node.now_s)
            if arrived is None:
                self.node.uploads.goes_on(self.reassembly)
        self.under_way[number] = whole, at + most
        assert not isinstance(arrived, bytes | bytearray)
        return arrived

    @property
    def holds(self) -> int:
        return self.node.room.of(self.peer_id)


def query(size: int = 200 * KIB, lifetime_ms: int = 600_000) -> Query:
    return Query(bytes(16), 5, "kind", lifetime_ms, 1000, bytes(size))


@pytest.mark.parametrize("age_ms", [0, 3000])
@pytest.mark.parametrize(
    "message", [query(lifetime_ms=5000), Send(bytes(16), "kind", 5000, bytes(200 * KIB))]
)
def test_what_is_past_its_lifetime_is_let_go_however_it_goes_on(
    message: Message, age_ms: int
) -> None:
    node = Node()
    peer = Peer(node, 1)
    peer.begin(1, message, age_ms)
    peer.begin(2, query())
    for _ in range(5 - age_ms // 1000):
        peer.send(1, KIB)
        peer.send(2, KIB)
        assert peer.holds
        node.later(1.0)
    held = peer.under_way[2][1]
    assert peer.holds == held, "of the other one nothing is let go"
    assert node.counters == {TOO_OLD: 1}
    peer.send(1, KIB)
    assert peer.holds == held
    arrived = peer.send(1, MIB)
    assert arrived is not None
    assert arrived.refused
    assert peer.send(2, MIB) is not None
    assert node.room.taken == 0


def test_each_is_let_go_at_the_end_of_its_own_lifetime() -> None:
    node = Node()
    peer = Peer(node, 1)
    for number, lifetime_ms in enumerate((20_000, 5000, 10_000)):
        peer.begin(number, query(lifetime_ms=lifetime_ms))
        peer.send(number, KIB)
    left = []
    for _ in range(5):
        node.later(4.0)
        left.append(peer.holds // KIB)
    assert left == [3, 2, 1, 1, 0]


def test_what_does_not_go_on_is_let_go_and_can_still_be_refused_when_it_does() -> None:
    node = Node()
    peer = Peer(node, 1)
    peer.begin(1, query())
    peer.send(1, 100 * KIB)
    node.later(PAUSE_MAX_S)
    assert peer.holds == 100 * KIB
    node.later(1.0)
    assert node.room.taken == 0
    assert node.counters == {TOO_OLD: 1}
    assert len(node.uploads) == 0, "what is not kept is not looked at"
    assert peer.reassembly.held_bytes == 100 * KIB, "both sides count what has come"
    arrived = peer.send(1, MIB)
    assert arrived is not None
    assert (arrived.refused, arrived.message) == (True, query(0))
    assert peer.reassembly.held_bytes == 0


def test_many_that_take_turns_on_a_slow_line_wait_for_each_other() -> None:
    """Ten kilobytes a second, sixteen messages: each has a chunk in 26 s; at a tenth of that, none
    in four minutes."""
    node = Node()
    peer = Peer(node, 1)
    for number in range(16):
        peer.begin(number, query(20 * KIB))
    for _ in range(2):
        for number in range(16):
            node.later(16.0)
            arrived = peer.send(number, 16 * KIB)
            assert arrived is None or not arrived.refused
    assert not any(node.counters.values())
    assert node.room.taken == 0


def test_a_reply_that_somebody_waits_for_stays_and_another_goes() -> None:
    node = Node()
    peer = Peer(node, 1)
    for number in range(2):
        peer.begin(number, Reply(bytes(16), bytes(32), 0, bytes(100 * KIB)))
        peer.send(number, 16 * KIB)
    node.later(2 * PAUSE_MAX_S)
    assert not node.counters
    arrived = peer.send(0, MIB)
    assert arrived is not None
    assert not arrived.refused
    peer.awaited = False
    node.later(2 * PAUSE_MAX_S)
    assert node.counters == {TOO_OLD: 1}
    arrived = peer.send(1, MIB)
    assert arrived is not None
    assert arrived.refused


def test_a_reply_is_let_go_once_nobody_waits_for_it_however_it_goes_on() -> None:
    """A peer could have a node hold 32 MiB on each path for as long as it liked, by a byte every
    half a minute, for one query whose hard timeout was long over."""
    node = Node()
    peer = Peer(node, 1)
    peer.begin(1, Reply(bytes(16), bytes(32), 0, bytes(100 * KIB)))
    for _ in range(9):
        peer.send(1, KIB)
        node.later(PAUSE_MAX_S / 2)
    assert not node.counters
    peer.awaited = False
    peer.send(1, KIB)
    assert peer.reassembly
    node.later(1.0)
    assert not peer.reassembly
    assert node.counters == {TOO_OLD: 1}


def test_what_cannot_be_read_in_pieces_and_was_let_go_ends_its_path() -> None:
    node = Node()
    peer = Peer(node, 1)
    assert peer.reassembly.feed(Chunk(1, 300, 0, bytes(100)), node.now_s) is None
    node.uploads.goes_on(peer.reassembly)
    node.later(2 * PAUSE_MAX_S)
    assert node.room.taken == 0
    with pytest.raises(InvalidPacket, match="no room"):
        peer.reassembly.feed(Chunk(1, 300, 100, bytes(100)), node.now_s)


def test_of_what_cannot_be_read_in_pieces_and_was_let_go_no_memory_is_kept() -> None:
    node = Node()
    peer = Peer(node, 1)
    tracemalloc.start()
    try:
        for number in range(20):
            chunk = Chunk(1, MIB, number * 16 * KIB, bytes(16 * KIB))
            assert peer.reassembly.feed(chunk, node.now_s) is None
        node.uploads.goes_on(peer.reassembly)
        assert peer.holds == 320 * KIB
        node.later(2 * PAUSE_MAX_S)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peer.holds == 0
    assert held < 100 * KIB


def crowd_of(node: Node, count: int) -> list[Peer]:
    """Strangers who hold all that strangers may, and let a byte of each query trickle."""
    crowd = [Peer(node, number) for number in range(100, 100 + count)]
    for one in crowd:
        one.begin(1, query(2 * STRANGERS_MAX // count))
        one.send(1, STRANGERS_MAX // count)
    assert node.room.left(stranger=True) == 0
    for _ in range(30):
        node.later(1.0)
        for one in crowd:
            if one.holds:
                one.send(1, 1)
    assert node.room.left(stranger=True) < STRANGERS_MAX // 4
    return crowd


@pytest.mark.parametrize("count", [4, 64])
def test_a_crowd_that_uploads_slowly_keeps_nobody_out_who_uploads(count: int) -> None:
    node = Node()
    crowd_of(node, count)
    for number in range(3):
        honest = Peer(node, number)
        honest.begin(1, query())
        for _ in range(4):
            arrived = honest.send(1, 64 * KIB)
            node.later(0.1)
        assert arrived is not None
        assert not arrived.refused
    assert node.counters[TOO_SLOW] > 0
    assert set(node.counters) == {TOO_SLOW}


def test_who_is_slowest_itself_makes_way_itself() -> None:
    node = Node()
    slow = Peer(node, 1)
    slow.begin(1, query())
    slow.send(1, 160 * KIB)
    node.later(20.0)
    fast = [Peer(node, number) for number in range(2, 6)]
    for one in fast:
        one.begin(1, query(MIB // 2))
        one.send(1, 208 * KIB)
    slow.send(1, 48 * KIB)
    assert slow.holds == 0
    assert [one.holds for one in fast] == [208 * KIB] * 4


def test_how_fast_somebody_was_before_does_not_count_for_what_is_unfinished_now() -> None:
    node = Node()
    was_fast, steady = Peer(node, 1), Peer(node, 2)
    for number in range(3):
        was_fast.begin(number, query())
        assert was_fast.send(number, MIB) is not None
    for one in (was_fast, steady):
        one.begin(9, query(MIB // 2))
    was_fast.send(9, 150 * KIB)
    for _ in range(10):
        node.later(1.0)
        steady.send(9, 20 * KIB)
    others = (NodeId(bytes(19) + bytes([number])) for number in range(3, 6))
    for other, size in zip(others, (350, 320, 16), strict=True):
        assert node.uploads.take(other, size * KIB, node.now_s, stranger=True)
    assert (was_fast.holds, steady.holds) == (0, 200 * KIB)


def test_nobody_makes_way_for_who_has_used_up_its_own_share() -> None:
    node = Node()
    other, greedy = Peer(node, 1), Peer(node, 2)
    other.begin(1, query())
    other.send(1, 16 * KIB)
    # Little is left, but enough for the greedy one if it had less.
    assert node.room.take(NodeId(bytes(19) + b"r"), 480 * KIB, stranger=True)
    node.later(10.0)
    greedy.begin(1, query(MIB))
    greedy.send(1, MIB // 2)
    assert greedy.holds == MIB // 2
    greedy.send(1, 16 * KIB)
    assert greedy.holds == 0
    assert other.holds == 16 * KIB
    assert not node.counters


def test_for_a_large_one_as_many_make_way_as_it_needs() -> None:
    node = Node()
    crowd = [Peer(node, number) for number in range(100, 116)]
    for one in crowd:
        one.begin(1, query())
        one.send(1, 64 * KIB)
    assert node.uploads.take(NodeId(bytes(19) + b"r"), 300 * KIB, node.now_s, stranger=True)
    assert sum(one.holds == 0 for one in crowd) == 5


def test_who_is_known_makes_way_for_no_stranger() -> None:
    node = Node()
    crowd_of(node, 4)
    known = Peer(node, 1, stranger=False)
    known.begin(1, query(MIB))
    known.send(1, MIB // 2)
    node.later(20.0)
    stranger = Peer(node, 2)
    stranger.begin(1, query())
    stranger.send(1, 200 * KIB)
    assert stranger.holds
    assert known.holds == MIB // 2


def test_where_it_is_no_unfinished_message_that_holds_the_room_nobody_is_looked_for_again() -> None:
    node = Node()
    handlers = NodeId(bytes(range(20)))
    for number in range(2):
        running = NodeId(number.to_bytes(20, "little"))
        assert node.room.take(running, MIB // 2 - 8 * KIB, stranger=True)
    peer = Peer(node, 1)
    peer.begin(1, query())
    peer.send(1, 16 * KIB)
    assert not node.uploads.take(handlers, 100 * KIB, node.now_s, stranger=True)
    assert node.counters == {TOO_SLOW: 1}
    peer.begin(2, query())
    peer.send(2, 16 * KIB)
    assert not node.uploads.take(handlers, 100 * KIB, node.now_s, stranger=True)
    assert node.counters == {TOO_SLOW: 1}
    node.now_s += LOOK_AGAIN_S
    assert not node.uploads.take(handlers, 100 * KIB, node.now_s, stranger=True)
    assert node.counters == {TOO_SLOW: 2}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_all_room_is_given_back_and_none_is_taken_twice(seed: int) -> None:
    rng = random.Random(seed)
    node = Node()
    peers = [Peer(node, number, stranger=rng.random() < 0.8) for number in range(12)]
    for serial in range(600):
        peer = rng.choice(peers)
        match rng.randrange(6):
            case 0 if len(peer.under_way) < 20:
                size = rng.choice([20, 100, 300]) * KIB
                peer.begin(serial, query(size, rng.choice([500, 60_000])))
            case 1:
                node.later(rng.choice([0.1, 1.0, 5.0]))
            case _ if peer.under_way:
                number = rng.choice(list(peer.under_way))
                if peer.send(number, rng.choice([1, 16, 60]) * KIB) is not None:
                    del peer.under_way[number]
        for one in peers:
            parts = one.reassembly._parts.values()
            assert one.holds == sum(part.room for part in parts)
            assert all(part.room == (part.size if part.is_kept else 0) for part in parts)
    for peer in peers:
        peer.reassembly.abandon_all()
    assert node.room.taken == 0

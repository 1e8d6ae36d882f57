"""Asking: every message of this node's own is somewhere, and is given again when it must be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from egtp.channel.handshake import PeerLimits
from egtp.channel.packet import Data, decode_packet
from egtp.channel.sealed import ItemType, parse_sealed
from egtp.channel.session import InOrder, Session, SlidingWindow
from egtp.config import NodeConfig
from egtp.engine.asking import AGAIN_FIRST_S, AGAIN_MAX_S, MOVED_MAX, Asking
from egtp.engine.routes import Routes
from egtp.engine.searching import Searching
from egtp.engine.upkeep import Upkeep
from egtp.errors import FastFail, HardTimeout, NodeClosed, NotSent, OutcomeUnknown
from egtp.limits.shares import Shares
from egtp.open_query import OpenQuery, Sending
from egtp.paths.path import Path
from egtp.paths.uploads import Uploads
from egtp.queries.early import Early
from egtp.queries.exchange import GAP_MAX, SettledExcept
from egtp.queries.outgoing import Outgoing, PassedOn
from egtp.reaching.peer import Peer
from egtp.reaching.peers import PeerBook
from egtp.values.comm_record import SUITE_AESGCM
from egtp.values.comm_strat import Address, CommStrat, RelayStrat, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import Identity, NodeId
from egtp.values.message import NONCE_BYTES, Reply, reference_of

ME = NodeId(bytes(20))
PEER = NodeId(bytes(19) + b"\1")
RELAY = Identity.generate(lambda size: bytes(range(1, size + 1)))
RELAYED = RelayStrat(RELAY.key, SUITE_AESGCM, RELAY.channel_key)
DIRECT = TCPStrat(Address.parse("127.0.0.1:9"), 7)
OTHER = TCPStrat(DIRECT.address, 8)
CONTACT = Contact(PEER, b"k" * 32, b"c" * 32, 5, (DIRECT,), (RELAYED,), incarnation=b"incarnat")
LIMITS = PeerLimits(10**6, 10**6, 64, 10**6)


class Recorder:
    """The node around the asking side, and the carrier of its packets: each is kept, or breaks."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.is_closed = False
        room = Shares(10**9, strangers_max=10**9, peer_max=10**9)
        self.uploads = Uploads(room, 10**9, Counter())
        self.counters: Counter[str] = Counter()
        self.book = PeerBook(100, 50, lambda _: False)
        nonces = count()
        self.asking = Asking(
            self,
            ME,
            self.book,
            NodeConfig(),
            self.counters,
            lambda: next(nonces).to_bytes(NONCE_BYTES, "big"),
        )
        self.peer = self.book.get(PEER)
        self.sought: list[Peer] = []
        self.not_sought_any_more: list[Peer] = []
        self.in_vain: list[Path] = []
        self.packets: list[tuple[CommStrat, bytes]] = []
        self.writes_left: int | None = None
        """How many packets more are written before one breaks the path."""
        self.broken: CommStrat | None = None
        """By which none is written any more."""
        self.takes: int | None = None
        """How many packets more may be written; the rest has to wait."""
        self.turn: list[Callable[[], None]] = []
        self.armed = 0

    # What it is to the asking side

    def is_awaited(self, peer_id: NodeId, reference: bytes) -> bool:
        return True

    def now(self) -> float:
        return self.now_s

    def knows(self, peer_id: NodeId) -> bool:
        return True

    def is_welcome(self, peer_id: NodeId) -> bool:
        return True

    def seek(self, peer: Peer) -> None:
        self.sought.append(peer)

    def want(self, peer_id: NodeId) -> Peer:
        peer = self.book.get(peer_id)
        self.book.want(peer)
        return peer

    def not_sought(self, peer: Peer) -> None:
        self.not_sought_any_more.append(peer)

    def deliver_to_self(self, exchange: object) -> None:
        raise AssertionError(exchange)

    def cancel_own(self, reference: bytes) -> None:
        raise AssertionError(reference)

    def asked_in_vain(self, path: Path) -> None:
        self.in_vain.append(path)

    def arm_timer(self) -> None:
        self.armed += 1

    # What it is to a path

    def soon(self, callback: Callable[[], None], /) -> None:
        self.turn.append(callback)

    def at_once(self, callback: Callable[[], None], /) -> None:
        callback()

    def settled(self, peer_id: NodeId) -> int:
        return self.asking.exchanges.settled(peer_id)

    def settled_except(self, peer_id: NodeId) -> SettledExcept | None:
        return self.asking.exchanges.settled_except(peer_id)

    def takes_more(self, _: CommStrat) -> bool:
        if self.takes is not None:
            self.takes -= 1
            return self.takes >= 0
        return True

    def is_throttled(self, _: CommStrat) -> bool:
        return False

    def path_waits(self, path: Path) -> None:
        pass

    def lose_path(self, path: Path, _: str) -> None:
        self.lose(path)

    def send_tcp(self, strategy: TCPStrat, packet: bytes) -> None:
        self._send(strategy, packet)

    def send_relay(self, strategy: RelayStrat, packet: bytes) -> None:
        self._send(strategy, packet)

    def _send(self, strategy: CommStrat, packet: bytes) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise NotSent("broken")
        if strategy == self.broken:
            raise NotSent("broken")
        self.packets.append((strategy, packet))

    # What a test does

    def path(
        self,
        strategy: CommStrat,
        incarnation: bytes = b"incarnat",
        up_s: float = 50,
        *,
        dialled: bool = True,
        accepted: Early | None = None,
    ) -> Path:
        """A confirmed path, of which the asking side is told, after the early data accepted."""
        relayed = isinstance(strategy, RelayStrat)
        session = Session(
            index=1,
            remote_index=2,
            send_key=b"a" * 32,
            receive_key=b"b" * 32,
            window=SlidingWindow() if relayed else InOrder(),
            started_s=self.now_s,
        )
        path = Path(
            PEER,
            session,
            strategy,
            self,
            self,
            dialled=dialled,
            theirs=LIMITS,
            ours=LIMITS,
            incarnation=incarnation,
            peer_started_s=self.now_s - up_s,
        )
        path.confirmed = True
        if accepted is not None:
            self.asking.early_accepted(path, accepted)
        self.peer.add_path(path, ME, 0.0)
        self.asking.path_opened(self.peer, path)
        return path

    def lose(self, path: Path) -> None:
        path.closed = True
        self.peer.remove_path(path)
        self.asking.path_is_gone(self.peer, path)

    def ask(
        self,
        size: int = 3000,
        hard_timeout_s: float = 60.0,
        *,
        idempotent: bool = False,
        early: bool | None = None,
    ) -> OpenQuery:
        query = OpenQuery(asyncio.get_running_loop().create_future(), self.asking.abandon)
        outcome, body = query._outcome, bytes(size)
        query._exchange = self.asking.ask(
            PEER, "kind", body, hard_timeout_s, None, outcome, None, idempotent, early
        )
        return query

    def tell(self) -> Sending:
        sending = Sending(bytes(26), self.now_s, asyncio.get_running_loop())
        self.asking.tell(PEER, sending)
        return sending

    def answer(self) -> None:
        (exchange,) = self.asking.exchanges.of(PEER)
        self.asking.received_reply(PEER, Reply(bytes(16), exchange.reference, 0, b""))

    def end_turn(self) -> None:
        turn, self.turn = self.turn, []
        for callback in turn:
            callback()

    def queries(self, strategy: CommStrat) -> list[bytes]:
        """The references of the queries that left by a strategy, one for each copy."""
        return [reference_of(data) for data in self._messages(strategy) if data[1:2] == b"\1"]

    def _messages(self, strategy: CommStrat) -> Iterator[bytes]:
        far_end = Session(
            index=2,
            remote_index=1,
            send_key=b"b" * 32,
            receive_key=b"a" * 32,
            window=SlidingWindow(),
            started_s=0.0,
        )
        for sent_by, packet in self.packets:
            data = decode_packet(packet)
            assert isinstance(data, Data)
            if sent_by == strategy:
                for kind, _, message in parse_sealed(far_end.open(data)).items:
                    if kind == ItemType.MESSAGE:
                        yield message


def outcome(query: OpenQuery) -> BaseException | None:
    return query.exception() if query.done() else None


@pytest.mark.parametrize("relayed", [False, True])
@pytest.mark.parametrize("writes", range(8))
async def test_whatever_a_path_that_breaks_had_not_taken_waits_for_the_next_one(
    writes: int, *, relayed: bool
) -> None:
    """It breaks in the middle of what it is given: the rest does not lie on it for ever."""
    node = Recorder()
    queries = [node.ask(12_000) for _ in range(8)]
    sending = node.tell()
    assert node.sought
    node.writes_left = writes
    broken = node.path(RELAYED if relayed else DIRECT)
    node.end_turn()
    assert broken.closed == (node.writes_left < 0)
    node.writes_left = None
    node.path(OTHER)
    node.end_turn()
    assert sending.given
    everything = [one for way in (DIRECT, RELAYED, OTHER) for one in node.queries(way)]
    assert len(set(everything)) == 8
    assert not node.peer.waiting
    assert not any(query.done() for query in queries)


async def test_a_query_leaves_at_once_while_nothing_else_is_under_way() -> None:
    node = Recorder()
    node.path(DIRECT)
    for _ in range(3):
        node.ask(100)
        assert len(node.packets) == 1
        node.answer()
        assert not node.turn
        node.packets.clear()


async def test_where_queries_come_in_waves_each_wave_but_the_first_is_one_packet() -> None:
    node = Recorder()
    node.path(DIRECT)
    packets = []
    for _ in range(4):
        for _ in range(10):
            node.ask(100)
        node.end_turn()
        for exchange in node.asking.exchanges.of(PEER):
            node.asking.received_reply(PEER, Reply(bytes(16), exchange.reference, 0, b""))
        packets.append(len(node.packets))
        node.packets.clear()
    assert packets == [2, 1, 1, 1]


async def test_when_every_path_breaks_everything_waits() -> None:
    node = Recorder()
    node.path(RELAYED)
    node.takes = 0
    queries = [node.ask() for _ in range(3)]
    node.takes, node.writes_left = None, 0
    node.path(DIRECT)
    node.end_turn()
    assert not node.peer.paths
    assert not any(query.done() for query in queries)
    assert len(node.peer.waiting) == 3


async def test_the_timer_is_looked_at_for_another_deadline_and_when_time_has_passed() -> None:
    recorder = Recorder()
    recorder.path(DIRECT)
    queries = [recorder.ask()]
    assert recorder.armed == 1
    queries.append(recorder.ask())
    assert recorder.armed == 1, "it is set for this very deadline"
    queries.append(recorder.ask(hard_timeout_s=5.0))
    assert recorder.armed == 2
    queries.append(recorder.ask(hard_timeout_s=5.0))
    recorder.asking.expire(recorder.now_s)
    queries.append(recorder.ask(hard_timeout_s=5.0))
    assert recorder.armed == 3, "it may have rung, and not be set any more"
    for query in queries:
        query.cancel()


@pytest.mark.parametrize(
    "sender", [None, NodeId(bytes(19) + b"\2")], ids=["of this node", "of another"]
)
async def test_what_was_to_be_passed_on_goes_by_the_other_connection_if_there_is_one(
    sender: NodeId | None,
) -> None:
    recorder = Recorder()
    one, other = recorder.path(DIRECT), recorder.path(OTHER)
    best = recorder.peer.direct
    assert best is not None
    packet = PassedOn(b"a packet of somebody else", recorder.now(), sender)
    if sender is None:
        best.queue(packet)
    else:
        best.pass_on(packet)
    recorder.lose(best)
    outbox = (one if best is other else other).outbox
    assert outbox.messages == 1
    if sender is not None:
        # It still counts as its sender's.
        assert outbox.waiting_of(sender) == outbox.waiting_bytes
    assert not recorder.counters


async def test_a_reply_that_has_not_left_when_its_path_is_gone_goes_by_another_one() -> None:
    recorder = Recorder()
    one, other = recorder.path(DIRECT), recorder.path(OTHER)
    for path in (one, other):
        path.queue(Outgoing(b"a reply", recorder.now()))
        assert path.outbox
    recorder.lose(one)
    assert len(other.outbox.unsent) == 2


@pytest.mark.parametrize("another", [True, False])
async def test_a_query_that_has_not_left_when_its_path_is_gone_waits_once(another: bool) -> None:
    """By another path, or for one; it was given to nobody, so it is not sent again either."""
    recorder = Recorder()
    one = recorder.path(DIRECT)
    recorder.takes = 0
    query = recorder.ask(100)
    size = one.outbox.waiting_bytes
    assert size > 0
    other = recorder.path(OTHER) if another else None
    recorder.lose(one)
    waiting = recorder.peer.waiting_bytes if other is None else other.outbox.waiting_bytes
    assert waiting == size
    assert other is None or len(other.outbox.unsent) == 1
    assert not recorder.counters
    query.cancel()


async def test_a_query_that_was_given_to_one_path_is_not_given_again_when_another_is_gone() -> None:
    recorder = Recorder()
    given_to = recorder.path(DIRECT)
    query = recorder.ask(100)
    recorder.end_turn()
    recorder.lose(recorder.path(RELAYED))
    recorder.end_turn()
    assert not recorder.counters
    assert len(recorder.queries(DIRECT)) == 1
    assert not given_to.outbox
    query.cancel()


@pytest.mark.parametrize("is_beside", [True, False])
async def test_after_paths_that_a_peer_opened_and_those_beside_another_it_is_dialled_at_once(
    is_beside: bool,
) -> None:
    """Pauses are for a peer that hangs up each time that it is dialled."""
    node = Recorder()
    if is_beside:
        node.path(RELAYED)
    for _ in range(20):
        path = node.path(DIRECT, dialled=is_beside)
        node.ask()
        node.lose(path)
    assert node.peer.rests_until_s < node.now_s


async def test_nobody_is_dialled_for_what_others_wanted_to_be_passed_on() -> None:
    recorder = Recorder()
    recorder.takes = 0
    path = recorder.path(DIRECT)
    path.queue(PassedOn(b"a packet of somebody else", recorder.now()))
    recorder.end_turn()
    recorder.lose(path)
    assert recorder.sought == []
    assert not recorder.peer.waiting


async def test_what_a_relay_lost_is_given_again_by_the_direct_path_that_came_meanwhile() -> None:
    node = Recorder()
    node.path(RELAYED)
    query = node.ask(100)
    node.end_turn()
    assert len(node.queries(RELAYED)) == 1
    node.path(DIRECT)
    node.asking.look(node.now_s)
    node.end_turn()
    assert node.queries(DIRECT) == [], "nothing says yet that it is lost"
    node.now_s += AGAIN_FIRST_S
    node.asking.look(node.now_s)
    node.end_turn()
    assert node.queries(DIRECT) == node.queries(RELAYED)
    # There it arrives, or the path ends: it is not given there twice.
    node.now_s += AGAIN_MAX_S
    node.asking.look(node.now_s)
    node.end_turn()
    assert len(node.queries(DIRECT)) == 1
    node.answer()
    assert query.done()


async def test_when_the_direct_path_breaks_as_queries_are_given_again_none_lies_on_it() -> None:
    node = Recorder()
    node.path(RELAYED)
    queries = [node.ask() for _ in range(8)]
    node.end_turn()
    direct = node.path(DIRECT)
    node.packets.clear()
    node.now_s += AGAIN_FIRST_S
    node.broken = DIRECT
    node.asking.look(node.now_s)
    node.end_turn()
    assert direct.closed
    assert not direct.outbox
    assert len(set(node.queries(RELAYED))) == 8
    assert not any(query.done() for query in queries)


async def test_what_had_not_left_by_a_relay_is_not_given_twice_by_the_direct_path() -> None:
    node = Recorder()
    node.path(RELAYED)
    node.ask(100)
    node.path(DIRECT)
    # As a superseded path hands over what it has not given.
    for outgoing in node.peer.relayed.outbox.take_unsent() if node.peer.relayed else ():
        node.asking.post(node.peer, outgoing)
    for _ in range(40):
        node.end_turn()
        node.now_s += 1.0
        node.asking.look(node.now_s)
    assert len(node.queries(DIRECT)) == 1


async def test_of_much_that_others_caused_little_goes_by_another_path() -> None:
    """A peer that did not read had 286,000 replies waiting, and each connection that it opened had
    them moved to that one: the node did nothing else for a second each time."""
    node = Recorder()
    crowded = node.path(DIRECT)
    node.takes = 0
    replies = [Outgoing(bytes(60), node.now_s) for _ in range(2000)]
    for reply in replies:
        crowded.queue(reply)
    own = [node.tell() for _ in range(300)]
    newer = node.path(OTHER)
    assert not newer.outbox, "the older path is about to end"
    node.lose(crowded)
    assert len([one for one in replies if one.path is newer]) == MOVED_MAX
    assert [one.path for one in own] == [newer] * 300
    assert node.counters["dropped: much waited where nobody read"] == 2000 - MOVED_MAX


async def test_much_of_this_nodes_own_goes_by_the_newer_path() -> None:
    node = Recorder()
    older = node.path(DIRECT)
    node.takes = 0
    own = [node.tell() for _ in range(2000)]
    reply = Outgoing(bytes(60), node.now_s)
    older.queue(reply)
    newer = node.path(OTHER)
    assert not older.outbox
    assert {one.path for one in (*own, reply)} == {newer}


async def test_over_relays_a_query_is_given_again_at_growing_pauses() -> None:
    node = Recorder()
    node.path(RELAYED)
    node.ask(100, hard_timeout_s=200.0)
    given: list[float] = []
    for _ in range(150):
        node.end_turn()
        given += [node.now_s - 100.0] * (len(node.queries(RELAYED)) - len(given))
        node.now_s += 1.0
        node.asking.look(node.now_s)
    assert given == [0.0, 2.0, 6.0, 14.0, 30.0, 60.0, 90.0, 120.0]


async def test_who_works_on_a_query_is_asked_again_rarely() -> None:
    node = Recorder()
    node.path(RELAYED)
    node.ask(100, hard_timeout_s=200.0)
    (exchange,) = node.asking.exchanges.of(PEER)
    node.end_turn()
    node.now_s += 1.0
    node.asking.received_working(PEER, exchange.reference)
    given: list[float] = []
    for _ in range(70):
        node.now_s += 1.0
        node.asking.look(node.now_s)
        node.end_turn()
        given += [node.now_s - 100.0] * (len(node.queries(RELAYED)) - 1 - len(given))
    assert given == [31.0, 61.0]


@pytest.mark.parametrize("works", [False, True])
async def test_a_relayed_path_is_doubted_when_a_peer_says_nothing_of_the_copies_of_a_query(
    works: bool,
) -> None:
    node = Recorder()
    path = node.path(RELAYED)
    node.ask(100)
    (exchange,) = node.asking.exchanges.of(PEER)
    doubted: list[float] = []
    for _ in range(20):
        node.end_turn()
        node.now_s += 1.0
        if works and node.now_s == 103.0:
            node.asking.received_working(PEER, exchange.reference)
        node.asking.look(node.now_s)
        doubted += [node.now_s - 100.0] * (len(node.in_vain) - len(doubted))
    assert doubted == ([] if works else [6.0, 14.0])
    assert set(node.in_vain) <= {path}


@pytest.mark.parametrize("is_over", [True, False])
async def test_word_of_a_query_that_is_over_or_between_two_paths_changes_nothing(
    is_over: bool,
) -> None:
    """A peer says that it works on a query and then answers it, maybe by another path."""
    node = Recorder()
    path = node.path(RELAYED)
    query = node.ask(100)
    (exchange,) = node.asking.exchanges.of(PEER)
    node.end_turn()
    if is_over:
        node.answer()
    else:
        node.lose(path)
    node.asking.received_working(PEER, exchange.reference)
    assert query.done() == is_over
    node.path(DIRECT)
    node.end_turn()
    assert len(node.queries(DIRECT)) == (0 if is_over else 1)


async def test_a_query_travels_with_one_dial_after_the_other() -> None:
    node = Recorder()
    node.ask(100, early=True)
    for _ in range(3):
        early = node.asking.early_for(CONTACT)
        assert early is not None
        assert node.asking.early_for(CONTACT) is None  # with one dial at a time
        (exchange,) = early.exchanges
        assert exchange.may_leave
        node.asking.early_is_over(CONTACT, early)
        assert not exchange.may_leave


async def test_a_query_that_came_early_through_a_relay_is_given_again_there() -> None:
    node = Recorder()
    node.ask(100, early=True)
    early = node.asking.early_for(CONTACT)
    assert early is not None
    early.given()
    node.path(RELAYED, accepted=early)
    given: list[float] = []
    for _ in range(8):
        node.end_turn()
        given += [node.now_s - 100.0] * (len(node.queries(RELAYED)) - len(given))
        node.now_s += 1.0
        node.asking.look(node.now_s)
    assert given == [2.0, 6.0]


async def test_a_query_that_is_open_for_a_day_is_given_again_to_the_end() -> None:
    node = Recorder()
    node.path(RELAYED)
    node.ask(100, hard_timeout_s=24 * 3600.0)
    for _ in range(2000):
        node.end_turn()
        node.now_s += 30.0
        node.asking.look(node.now_s)
    assert len(node.queries(RELAYED)) == 2000


async def test_a_query_that_still_waits_to_leave_is_not_queued_a_second_time() -> None:
    node = Recorder()
    path = node.path(RELAYED)
    node.takes = 3
    for size in (500_000, 100):
        node.ask(size)
    waits = path.outbox.waiting_bytes
    for _ in range(40):
        node.now_s += 1.0
        node.asking.look(node.now_s)
    assert 400_000 < path.outbox.waiting_bytes <= waits


async def test_on_a_connection_nothing_is_given_twice_while_it_lives() -> None:
    """And at once by another one when it ends."""
    node = Recorder()
    path = node.path(DIRECT)
    node.ask(100, hard_timeout_s=1000.0)
    for _ in range(100):
        node.end_turn()
        node.now_s += 1.0
        node.asking.look(node.now_s)
    (reference,) = node.queries(DIRECT)
    node.lose(path)
    node.path(OTHER)
    node.end_turn()
    assert node.queries(OTHER) == [reference]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(("up_s", "is_older"), [(50.0, True), (0.0, False), (10.0, False)])
async def test_a_later_incarnation_is_given_what_cannot_have_run_before_it_or_may_run_twice(
    up_s: float, *, given: bool, idempotent: bool, is_older: bool
) -> None:
    """It is older than the query: then the one before had ended when the query was made."""
    node = Recorder()
    path = node.path(DIRECT)
    node.takes = None if given else 0
    query = node.ask(100, idempotent=idempotent)
    node.end_turn()
    node.takes = None
    node.now_s += 10.0
    node.lose(path)
    node.path(OTHER, b"another-", up_s)
    node.end_turn()
    if not given or idempotent or is_older:
        assert len(node.queries(OTHER)) == 1
        assert not query.done()
    else:
        assert node.queries(OTHER) == []
        assert isinstance(outcome(query), OutcomeUnknown)
        assert node.asking.exchanges.count_of(PEER) == 0


async def test_when_there_is_no_way_what_was_given_to_nobody_fails_and_the_rest_waits() -> None:
    node = Recorder()
    path = node.path(DIRECT)
    given = node.ask(100)
    node.end_turn()
    node.lose(path)
    not_given, sending = node.ask(100), node.tell()
    node.asking.search_failed(node.peer, FastFail("no way"))
    assert isinstance(outcome(not_given), FastFail)
    assert isinstance(sending.left.exception(), FastFail)
    assert not given.done()
    assert len(node.peer.waiting) == 1
    node.now_s += 60.1
    node.asking.expire(node.now_s)
    error = outcome(given)
    assert isinstance(error, HardTimeout)
    assert error.may_have_run
    assert not node.peer.waiting
    assert node.peer.waiting_bytes == 0


async def test_what_waits_beside_a_suspect_path_leaves_by_it_when_the_search_has_failed() -> None:
    node = Recorder()
    path = node.path(DIRECT)
    path.suspect = True
    search: Any = SimpleNamespace()
    node.peer.search = search
    query, sending = node.ask(100), node.tell()
    node.end_turn()
    assert node.queries(DIRECT) == []
    node.peer.search = None  # as before it tells that it has failed
    node.asking.search_failed(node.peer, FastFail("nobody is there"))
    node.end_turn()
    assert len(node.queries(DIRECT)) == 1
    assert sending.left.done()
    assert sending.left.exception() is None
    assert not query.done()


async def test_a_query_that_is_over_leaves_no_queue_and_no_search_behind() -> None:
    node = Recorder()
    node.ask(100).cancel()
    assert not node.peer.waiting
    assert node.not_sought_any_more == [node.peer]
    path = node.path(RELAYED)
    for begun in (False, True):
        node.takes = 3 if begun else 0
        query = node.ask(300_000)
        assert (path.session.sent > 0) == begun
        query.cancel()
        assert path.outbox.waiting_bytes < 100
        assert node.asking.exchanges.count_of(PEER) == 0


async def test_a_search_goes_on_for_a_query_that_is_under_way_when_another_is_cancelled() -> None:
    """It may be for a path beside one that is silent."""
    node = Recorder()
    node.path(DIRECT)
    first, second = node.ask(100), node.ask(100)
    node.end_turn()
    first.cancel()
    assert node.not_sought_any_more == []
    second.cancel()
    assert node.not_sought_any_more == [node.peer]


async def test_a_reply_that_comes_while_its_query_is_given_again_ends_that() -> None:
    node = Recorder()
    first = node.path(DIRECT)
    node.ask(300_000)
    node.end_turn()
    node.lose(first)
    node.takes = 3
    second = node.path(OTHER)
    assert 0 < second.outbox.waiting_bytes < 300_000, "on its way"
    node.answer()
    assert second.outbox.waiting_bytes < 100


async def test_a_new_path_is_told_again_which_numbers_are_finished() -> None:
    """The item that told it may have been lost with the path before."""
    node = Recorder()
    path = node.path(RELAYED)
    long_one = node.ask()
    node.takes = 0
    for _ in range(GAP_MAX):
        node.ask(10)
        node.asking.exchanges.close(node.asking.exchanges.of(PEER)[-1])
    assert node.settled_except(PEER) is not None
    assert node.settled_except(PEER) is None
    node.lose(path)
    node.path(RELAYED)
    assert node.settled_except(PEER) is not None
    assert not long_one._outcome.done()


async def test_what_a_superseded_relayed_path_has_begun_to_give_is_brought_to_its_end() -> None:
    """The pong that would open its windows was lost, so it asks again, as the new one would."""
    node = Recorder()
    older = node.path(RELAYED)
    nobody: Any = SimpleNamespace(relays_dialled=list, own_relays=())
    searching = Searching(node, node.book, nobody, node.asking, None)
    routes = Routes(
        node, ME, node.book, nobody, nobody, searching, node.asking, nobody, NodeConfig(),
        node.counters, None,
    )  # fmt: skip
    upkeep = Upkeep(
        ME, node.book, nobody, searching, routes, nobody, node.asking, NodeConfig(), node.counters
    )
    node.ask(300_000)
    node.end_turn()
    node.path(RELAYED)
    assert node.peer.others == [older]
    waiting, sent = older.outbox.waiting_bytes, older.session.sent
    assert waiting
    node.now_s += 3.0
    older.heard_s = node.now_s  # of other things: no sign of life is asked for
    upkeep.look(node.now_s)
    node.end_turn()
    assert older.session.sent > sent
    assert older.outbox.waiting_bytes < waiting


async def test_what_waits_as_the_node_is_closed_ends_and_never_leaves() -> None:
    node = Recorder()
    waiting = [node.tell(), node.tell()]
    path = node.path(DIRECT)
    node.takes = 0
    sendings = [*waiting, node.tell()]
    queries = [node.ask(), node.ask(100_000)]
    node.end_turn()
    assert path.outbox.messages == 5
    node.asking.close()
    assert [type(one.left.exception()) for one in sendings] == [NodeClosed] * 3
    errors = [outcome(query) for query in queries]
    assert [type(error) for error in errors] == [NodeClosed] * 2
    assert not any(isinstance(error, NodeClosed) and error.may_have_run for error in errors)
    node.takes = None
    path.flush()
    node.end_turn()
    assert not path.outbox
    assert node.packets == []

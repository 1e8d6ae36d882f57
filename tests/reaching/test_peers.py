"""Which of two paths stays, what a peer keeps, and that the book of peers is bounded."""

from __future__ import annotations

import asyncio
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.paths.outbox import Outbox
from egtp.paths.path import Path
from egtp.queries.outgoing import Outgoing
from egtp.reaching.peer import (
    CROSSED_S,
    DEAD_END_KEPT_S,
    DEAD_ENDS_MAX,
    Peer,
    Search,
    outlasting,
    preferred,
)
from egtp.reaching.peers import LOOKS, PeerBook
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import Identity, NodeId

ONE = NodeId(bytes([1]) * 20)
TWO = NodeId(bytes([2]) * 20)
DELAY_S_MAX = 0.5


class FakePath(SimpleNamespace):
    """Itself, and no other, like a path."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]


def fake_path(
    *,
    started_s: float = 0.0,
    dialled: bool = True,
    peer_id: NodeId = TWO,
    relayed: bool = False,
    name: str = "",
    dialled_at_ms: int = 0,
    incarnation: bytes = bytes(8),
) -> Path:
    """What this module looks at of a path, without the keys and the sockets."""
    return cast(
        "Path",
        FakePath(
            session=SimpleNamespace(started_s=started_s, index=1, remote_index=1),
            dialled=dialled,
            dialled_at_ms=dialled_at_ms,
            incarnation=incarnation,
            peer_id=peer_id,
            relayed=relayed,
            suspect=False,
            outbox=Outbox(1000),
            name=name,
        ),
    )


# Which of two paths stays

DELAYS = st.tuples(*[st.floats(0.001, DELAY_S_MAX)] * 3)


def views(
    name: str, dialler: NodeId, dialled_s: float, delays: tuple[float, ...], skew_s: float
) -> dict[NodeId, tuple[float, Path]]:
    """How both ends see one handshake: when they confirm it, and the path they then have.

    A session starts at the responder when the initiation arrives and at the initiator when the
    response does; the responder confirms it with the first packet after that.
    """
    responder = TWO if dialler == ONE else ONE
    arrived_s = dialled_s + delays[0]
    answered_s = arrived_s + delays[1]
    confirmed_s = answered_s + delays[2]
    at = {ONE: 0.0, TWO: skew_s}
    return {
        dialler: (
            answered_s,
            fake_path(
                started_s=answered_s + at[dialler],
                dialled=True,
                dialled_at_ms=int(dialled_s * 1000),
                peer_id=responder,
                name=name,
            ),
        ),
        responder: (
            confirmed_s,
            fake_path(
                started_s=arrived_s + at[responder],
                dialled=False,
                dialled_at_ms=int(dialled_s * 1000),
                peer_id=dialler,
                name=name,
            ),
        ),
    }


def chosen(me: NodeId, first: tuple[float, Path], second: tuple[float, Path]) -> Any:
    (_, old), (_, new) = sorted((first, second), key=lambda view: view[0])
    return preferred(old, new, me)


@given(st.floats(-3.0, 3.0), DELAYS, DELAYS, st.floats(-1e6, 1e6))
def test_both_ends_keep_the_one_dialled_by_the_smaller_node_if_they_dialled_each_other(
    apart_s: float, first: tuple[float, ...], second: tuple[float, ...], skew_s: float
) -> None:
    """In whatever order each of them confirmed the two."""
    by_one = views("by one", ONE, 100.0, first, skew_s)
    by_two = views("by two", TWO, 100.0 + apart_s, second, skew_s)
    for me in (ONE, TWO):
        assert chosen(me, by_one[me], by_two[me]).name == "by one"


@given(
    st.sampled_from([ONE, TWO]),
    st.sampled_from([ONE, TWO]),
    st.floats(CROSSED_S + 3 * DELAY_S_MAX, 1e5),
    DELAYS,
    DELAYS,
    st.floats(-1e6, 1e6),
)
def test_both_ends_keep_the_newer_one_if_it_was_dialled_later(
    dialled_first: NodeId,
    dialled_second: NodeId,
    apart_s: float,
    first: tuple[float, ...],
    second: tuple[float, ...],
    skew_s: float,
) -> None:
    old = views("old", dialled_first, 100.0, first, skew_s)
    new = views("new", dialled_second, 100.0 + apart_s, second, skew_s)
    for me in (ONE, TWO):
        assert chosen(me, old[me], new[me]).name == "new"


@given(st.sampled_from([ONE, TWO]), st.floats(0.002, 10.0), DELAYS, DELAYS)
def test_a_node_that_dials_again_gets_the_new_one_however_soon_it_does(
    dialler: NodeId, apart_s: float, first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    """The old one may be dead at its end only, so it must not win for being dialled first. In
    whatever order each end confirmed the two."""
    old = views("old", dialler, 100.0, first, 0.0)
    new = views("new", dialler, 100.0 + apart_s, second, 0.0)
    for me in (ONE, TWO):
        assert chosen(me, old[me], new[me]).name == "new"


@given(st.sampled_from([ONE, TWO]), st.floats(0.002, 10.0), DELAYS, DELAYS, st.booleans())
def test_who_dialled_both_and_sends_on_the_old_one_again_does_not_make_it_the_one_in_use(
    dialler: NodeId,
    apart_s: float,
    first: tuple[float, ...],
    second: tuple[float, ...],
    old_comes_first: bool,
) -> None:
    old = views("old", dialler, 100.0, first, 0.0)
    new = views("new", dialler, 100.0 + apart_s, second, 0.0)
    for me in (ONE, TWO):
        both = old[me][1], new[me][1]
        one, other = both if old_comes_first else both[::-1]
        assert cast("Any", outlasting(one, other, me)).name == "new"


# A peer


def best(peer: Peer) -> Path | None:
    """As of now: a property that a type checker does not take for a constant."""
    return peer.best_path


def test_a_superseded_path_still_receives_and_takes_over_when_the_better_one_dies() -> None:
    peer = Peer(TWO)
    old, new = fake_path(started_s=0.0), fake_path(started_s=100.0)
    peer.add_path(old, ONE, 0.0)
    peer.add_path(new, ONE, 0.0)
    assert best(peer) is new
    assert peer.paths == [new, old]
    peer.remove_path(new)
    assert best(peer) is old
    peer.remove_path(old)
    assert best(peer) is None
    assert peer.paths == []
    assert not peer.in_use


def test_of_superseded_paths_the_very_one_goes_that_is_gone() -> None:
    peer = Peer(TWO)
    oldest, old, new = (fake_path(started_s=100.0 * number) for number in range(3))
    for path in (oldest, old, new):
        peer.add_path(path, ONE, 0.0)
    peer.remove_path(old)
    assert peer.paths == [new, oldest]
    peer.retire(new)
    peer.remove_path(new)
    assert peer.paths == [oldest]


@pytest.mark.parametrize("me", [ONE, TWO])
@pytest.mark.parametrize("mine_is_used", [True, False])
@pytest.mark.parametrize("relayed", [True, False])
def test_ends_that_disagree_settle_on_the_one_dialled_by_the_smaller_node_id(
    me: NodeId, mine_is_used: bool, relayed: bool
) -> None:
    other = TWO if me is ONE else ONE
    mine = fake_path(peer_id=other, dialled=True, relayed=relayed)
    theirs = fake_path(peer_id=other, dialled=False, started_s=100.0, relayed=relayed)
    peer = Peer(other)
    used, superseded = (mine, theirs) if mine_is_used else (theirs, mine)
    peer.superseded = {superseded: 0.0}
    if relayed:
        peer.relayed = used
    else:
        peer.direct = used
    peer.settle(superseded, me, 7.0)
    assert (peer.relayed if relayed else peer.direct) is (mine if me < other else theirs)
    assert (peer.direct if relayed else peer.relayed) is None
    assert peer.superseded == {theirs if me < other else mine: 7.0}
    assert sorted(map(id, peer.paths)) == sorted(map(id, (mine, theirs)))


def test_direct_paths_go_before_relayed_ones_and_never_replace_them() -> None:
    peer = Peer(TWO)
    relayed, direct = fake_path(relayed=True), fake_path()
    peer.add_path(relayed, ONE, 0.0)
    peer.add_path(direct, ONE, 0.0)
    assert best(peer) is direct
    assert set(map(id, peer.paths)) == {id(relayed), id(direct)}
    peer.remove_path(direct)
    assert best(peer) is relayed


def test_a_path_of_one_sort_does_not_take_over_from_one_of_the_other() -> None:
    peer = Peer(TWO)
    for relayed in (False, True):
        peer.add_path(fake_path(started_s=0.0, relayed=relayed), ONE, 0.0)
    peer.add_path(fake_path(started_s=100.0, relayed=True), ONE, 0.0)
    direct = peer.direct
    assert direct is not None
    peer.remove_path(direct)
    assert best(peer) is peer.relayed
    assert direct not in peer.paths
    assert len(peer.superseded) == 1


def test_a_path_that_the_peer_wants_to_be_left_alone_on_only_receives() -> None:
    peer = Peer(TWO)
    path = fake_path()
    peer.add_path(path, ONE, 0.0)
    peer.retire(path)
    assert best(peer) is None
    assert peer.paths == [path]
    peer.retire(path)
    assert peer.paths == [path]


def test_a_path_that_is_gone_cannot_be_retired_any_more() -> None:
    peer, path = Peer(TWO), fake_path()
    peer.add_path(path, ONE, 0.0)
    peer.remove_path(path)
    peer.retire(path)
    assert not peer.in_use


def test_the_end_of_a_retired_path_costs_no_other_its_place() -> None:
    peer = Peer(TWO)
    oldest, old, new = (fake_path(started_s=100.0 * number) for number in range(3))
    for path in (oldest, old, new):
        peer.add_path(path, ONE, 0.0)
    peer.retire(old)
    peer.remove_path(old)
    assert peer.paths == [new, oldest]


def test_the_end_of_a_relayed_path_leaves_the_direct_one() -> None:
    peer = Peer(TWO)
    direct, relayed = fake_path(), fake_path(relayed=True)
    for path in (direct, relayed):
        peer.add_path(path, ONE, 0.0)
    peer.remove_path(relayed)
    assert peer.paths == [direct]


def test_a_path_that_was_retired_does_not_come_back_when_a_newer_one_dies() -> None:
    peer = Peer(TWO)
    retired, newer = fake_path(started_s=0.0), fake_path(started_s=100.0)
    peer.add_path(retired, ONE, 0.0)
    peer.retire(retired)
    peer.add_path(newer, ONE, 0.0)
    peer.remove_path(newer)
    assert best(peer) is not retired


def test_retiring_two_paths_brings_neither_back() -> None:
    peer = Peer(TWO)
    paths = [fake_path(started_s=0.0), fake_path(started_s=100.0)]
    for path in paths:
        peer.add_path(path, ONE, 0.0)
        peer.retire(path)
    assert best(peer) is None
    assert sorted(map(id, peer.paths)) == sorted(map(id, paths)), "they still receive"


def test_a_peer_that_asked_to_be_left_alone_may_be_back_once_all_such_paths_are_gone() -> None:
    peer = Peer(TWO)
    paths = [fake_path(started_s=0.0), fake_path(started_s=100.0)]
    for path in paths:
        peer.add_path(path, ONE, 0.0)
        peer.retire(path)
    peer.away_until_s = 60.0
    for path, away_until_s in zip(paths, (60.0, -inf), strict=True):
        peer.remove_path(path)
        assert peer.away_until_s == away_until_s


def test_the_path_of_a_process_that_has_ended_takes_over_from_none_of_the_next() -> None:
    peer, old, new = Peer(TWO), fake_path(incarnation=b"formerly"), fake_path(dialled=False)
    peer.direct, peer.superseded = new, {old: 0.0}
    peer.settle(old, ONE, 7.0)
    assert peer.direct is new
    assert peer.superseded == {old: 0.0}


def test_a_superseded_path_that_was_retired_is_not_used_when_the_other_one_retires() -> None:
    """A peer that is about to close says so on each of its paths, in any order."""
    peer = Peer(TWO)
    old, new = fake_path(started_s=0.0), fake_path(started_s=100.0)
    for path in (old, new):
        peer.add_path(path, ONE, 0.0)
    for path in (old, new):
        peer.retire(path)
    assert best(peer) is None
    assert sorted(map(id, peer.paths)) == sorted(map(id, (old, new))), "they still receive"


async def test_a_suspect_path_is_not_used_only_while_a_search_goes_on() -> None:
    peer = Peer(TWO)
    path = fake_path()
    peer.add_path(path, ONE, 0.0)
    path.suspect = True
    assert best(peer) is path

    async def search(found: asyncio.Future[None]) -> None:
        await found

    peer.search = Search(search)
    assert best(peer) is None
    assert peer.in_use
    peer.search.path_opened()
    await peer.search.task
    peer.search = None
    assert best(peer) is path


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 500)), max_size=30))
def test_what_waits_is_counted_to_the_byte_and_comes_out_in_order(
    steps: list[tuple[int, int]],
) -> None:
    peer = Peer(TWO)
    model: list[Outgoing] = []
    for action, size in steps:
        if action < 2:
            outgoing = Outgoing(bytes(size), 0.0)
            peer.wait(outgoing)
            assert outgoing.queued
            model.append(outgoing)
        elif action == 2 and model:
            outgoing = model.pop(size % len(model))
            peer.drop_waiting(outgoing)
            assert not outgoing.queued
            peer.drop_waiting(outgoing)
        elif action == 3:
            assert peer.take_waiting() == model
            assert not any(outgoing.queued for outgoing in model)
            model = []
        assert peer.waiting_bytes == sum(len(outgoing.message) for outgoing in model)
        assert peer.in_use == bool(model)
    assert list(peer.waiting) == model


def signed(
    identity: Identity,
    sequence: int,
    port: int = 4000,
    suite: int = 1,
    incarnation: bytes = bytes(8),
) -> SignedCommRecord:
    strategies = (TCPStrat(Address(bytes([8, 8, 8, 8]), port)),)
    content = CommRecord(1000, incarnation, ((suite, bytes(32)),), strategies)
    return SignedCommRecord.sign(identity, sequence, content)


@pytest.fixture(scope="module")
def records(alice: Identity) -> list[SignedCommRecord]:
    return [signed(alice, sequence, port) for sequence in (1, 2, 3) for port in (4000, 4001)]


@given(order=st.permutations(range(6)))
def test_a_peers_record_never_goes_backward_and_ends_the_same_in_any_order(
    alice: Identity, records: list[SignedCommRecord], order: list[int]
) -> None:
    peer = Peer(alice.node_id)
    known = 0
    for moment, index in enumerate(order):
        before = peer.record
        assert peer.learn(records[index], "lookup", float(moment)) == (peer.record is not before)
        assert peer.record is not None
        assert peer.record.sequence >= known
        known = peer.record.sequence
        assert not peer.learn(peer.record, "pushed by the peer", 99.0)
        assert (peer.source, peer.learned_s < 99.0) == ("lookup", True)
    ended = Peer(alice.node_id)
    for record in records:
        ended.learn(record, "", 0.0)
    assert peer.record == ended.record


def test_hearsay_is_used_only_without_a_usable_record_of_the_peers_own(alice: Identity) -> None:
    peer = Peer(alice.node_id)
    assert peer.contact(0.0) is None
    peer.hearsay = Contact(alice.node_id, alice.key, bytes(32), 0, (), ())
    assert peer.contact(0.0) is peer.hearsay
    peer.learn(signed(alice, 1, suite=77), "lookup", 0.0)
    assert peer.contact(0.0) is peer.hearsay
    peer.learn(signed(alice, 2), "lookup", 0.0)
    contact = peer.contact(0.0)
    assert contact is not None
    assert contact.sequence == 2


def test_a_contact_says_whether_its_record_has_expired_by_now(alice: Identity) -> None:
    peer = Peer(alice.node_id)
    peer.learn(signed(alice, 1), "lookup", 0.0)
    for unix_s, expired in ((999.0, False), (1000.0, True), (999.0, False)):
        contact = peer.contact(unix_s)
        assert contact is not None
        assert contact.expired == expired
        assert peer.contact(unix_s) is contact, "it is made once"
    peer.learn(signed(alice, 2), "lookup", 0.0)
    contact = peer.contact(999.0)
    assert contact is not None
    assert contact.sequence == 2


@pytest.mark.parametrize(
    ("signers", "runs_twice"), [("aabb", False), ("abc", False), ("aba", True), ("aababb", True)]
)
def test_only_who_signs_again_after_another_shows_that_two_processes_run(
    alice: Identity, signers: str, *, runs_twice: bool
) -> None:
    peer = Peer(alice.node_id)
    for sequence, signer in enumerate(signers, 1):
        peer.learn(signed(alice, sequence, incarnation=signer.encode() * 8), "lookup", 0.0)
    assert peer.runs_twice == runs_twice


# The book


def peer_id_of(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


class BookMachine(RuleBasedStateMachine):
    """The model is a list of the peers that must still be known, in order of their use, another of
    those of them who are strangers, and the set of those whom somebody here wants."""

    PEERS_MAX = 5
    STRANGERS_MAX = 2

    def __init__(self) -> None:
        super().__init__()
        self.needed: set[NodeId] = set()
        self.book = PeerBook(self.PEERS_MAX, self.STRANGERS_MAX, self.needed.__contains__)
        self.order: list[NodeId] = []
        self.strangers: list[NodeId] = []
        self.wanted: set[NodeId] = set()

    @rule(number=st.integers(0, 14))
    def get(self, number: int) -> None:
        peer_id = peer_id_of(number)
        known = self.book.find(peer_id)
        protected = [i for i in self.order if self._in_use(i)]
        size = len(self.book)
        peer = self.book.get(peer_id)
        assert peer.peer_id == peer_id
        if known is not None:
            assert peer is known
            assert len(self.book) == size
            self.order.remove(peer_id)
        elif size >= self.PEERS_MAX:
            self._make_room(size + 1 - self.PEERS_MAX, protected)
        self.order.append(peer_id)
        if peer_id not in self.wanted:
            self.strangers = [i for i in self.strangers if i != peer_id] + [peer_id]
        assert all(self.book.find(i) is not None for i in protected), "forgot one in use"

    def _make_room(self, count: int, in_use: list[NodeId]) -> None:
        """Strangers above their share, the newcomer counted, go and cost nobody else the place;
        beyond them whoever was used longest ago."""
        above_share = min(count, max(0, len(self.strangers) + 1 - self.STRANGERS_MAX))
        self._forget(self.strangers, above_share, in_use)
        self._forget(self.order, count - above_share, in_use)

    def _forget(self, those: list[NodeId], count: int, in_use: list[NodeId]) -> None:
        """Who is looked at and in use was used just now."""
        gone: list[NodeId] = []
        for peer_id in list(those):
            if len(gone) == count:
                break
            if peer_id in in_use:
                those.remove(peer_id)
                those.append(peer_id)
            else:
                gone.append(peer_id)
        self.order = [i for i in self.order if i not in gone]
        self.strangers = [i for i in self.strangers if i not in gone]
        self.wanted -= set(gone)

    @rule(data=st.data())
    def want(self, data: st.DataObject) -> None:
        if self.order:
            peer_id = data.draw(st.sampled_from(self.order))
            peer = self.book.find(peer_id)
            assert peer is not None
            self.book.want(peer)
            self.wanted.add(peer_id)
            self.strangers = [i for i in self.strangers if i != peer_id]

    @rule(number=st.integers(0, 14))
    def find(self, number: int) -> None:
        assert (self.book.find(peer_id_of(number)) is not None) == (
            peer_id_of(number) in self.order
        )

    @rule(data=st.data(), use=st.integers(0, 2))
    def begin_to_use(self, data: st.DataObject, use: int) -> None:
        if not self.order:
            return
        peer_id = data.draw(st.sampled_from(self.order))
        peer = self.book.find(peer_id)
        assert peer is not None
        if use == 0:
            self.needed.add(peer_id)
        elif use == 1:
            peer.wait(Outgoing(b"message", 0.0))
        elif peer.direct is None:
            peer.add_path(fake_path(peer_id=peer_id), ONE, 0.0)

    @rule(data=st.data())
    def use_no_more(self, data: st.DataObject) -> None:
        if self.order:
            peer_id = data.draw(st.sampled_from(self.order))
            peer = self.book.find(peer_id)
            assert peer is not None
            self.needed.discard(peer_id)
            peer.take_waiting()
            if peer.direct is not None:
                peer.remove_path(peer.direct)

    def _in_use(self, peer_id: NodeId) -> bool:
        peer = self.book.find(peer_id)
        return peer is not None and (peer.in_use or peer_id in self.needed)

    @invariant()
    def exactly_those_peers_are_known(self) -> None:
        assert [peer.peer_id for peer in self.book.all()] == self.order
        assert len(self.book) == len(self.order)


def test_the_book_forgets_the_least_recently_used_and_none_that_is_in_use() -> None:
    run_state_machine_as_test(BookMachine)


def test_strangers_cannot_make_the_book_grow() -> None:
    book = PeerBook(10, 5, lambda _: False)
    for number in range(1000):
        book.get(peer_id_of(number))
        assert len(book) <= 10
    assert [peer.peer_id for peer in book.all()] == [peer_id_of(n) for n in range(990, 1000)]


def test_strangers_cannot_make_the_book_forget_whom_somebody_here_has_to_do_with() -> None:
    book = PeerBook(10, 5, lambda _: False)
    friends = [book.get(peer_id_of(number)) for number in range(5)]
    for friend in friends:
        book.want(friend)
    for number in range(1000, 2000):
        book.get(peer_id_of(number))
    assert all(book.find(friend.peer_id) is friend for friend in friends)
    # Their own share is theirs, however many are wanted.
    for number in range(20):
        book.want(book.get(peer_id_of(number)))
    assert len(book) == 10


def test_strangers_who_are_all_in_use_cost_nobody_his_place_who_is_wanted() -> None:
    in_use: set[NodeId] = set()
    book = PeerBook(10, 5, in_use.__contains__)
    friends = [book.get(peer_id_of(number)) for number in range(5)]
    for friend in friends:
        book.want(friend)
    for number in range(1000, 1020):
        peer_id = peer_id_of(number)
        assert book.has_room_for_stranger(peer_id) == (number < 1005)
        in_use.add(peer_id)
        book.get(peer_id)
        assert book.has_room_for_stranger(peer_id), "it is here"
    assert all(book.find(friend.peer_id) is friend for friend in friends)
    in_use.clear()
    assert book.has_room_for_stranger(peer_id_of(2000))
    book.get(peer_id_of(2000))
    assert len(book) == 10
    assert all(book.find(friend.peer_id) is friend for friend in friends)


def test_those_who_are_wanted_make_room_for_each_other_beside_strangers_in_use() -> None:
    strangers = {peer_id_of(number) for number in range(1000, 1008)}
    book = PeerBook(10, 5, strangers.__contains__)
    for peer_id in strangers:
        book.get(peer_id)
    for number in range(100):
        book.want(book.get(peer_id_of(number)))
    assert strangers <= {peer.peer_id for peer in book.all()}
    assert len(book) <= len(strangers) + 10 - 5 + 1
    assert book.find(peer_id_of(99)) is not None


def test_a_crowd_that_is_in_use_is_not_looked_through_for_each_newcomer() -> None:
    looks: list[NodeId] = []

    def is_needed(peer_id: NodeId) -> bool:
        looks.append(peer_id)
        return True

    book = PeerBook(1000, 1000, is_needed)
    for number in range(1000):
        book.get(peer_id_of(number))
    for number in range(1000, 1010):
        looks.clear()
        book.has_room_for_stranger(peer_id_of(number))
        book.get(peer_id_of(number))
        assert len(looks) <= 2 * (LOOKS + len(book) - 1000)


def test_those_in_use_that_were_used_longest_ago_do_not_keep_others_from_being_forgotten() -> None:
    needed = {peer_id_of(number) for number in range(2 * LOOKS)}
    book = PeerBook(3 * LOOKS, 3 * LOOKS, needed.__contains__)
    for number in range(20 * LOOKS):
        book.get(peer_id_of(number))
    assert len(book) == 3 * LOOKS
    assert needed <= {peer.peer_id for peer in book.all()}


def test_a_book_that_had_to_grow_shrinks_again_when_its_peers_are_not_in_use_any_more() -> None:
    needed = {peer_id_of(number) for number in range(30)}
    book = PeerBook(10, 5, needed.__contains__)
    for number in range(30):
        book.get(peer_id_of(number))
    assert len(book) == 30
    needed.clear()
    for number in range(100, 110):
        book.get(peer_id_of(number))
    assert len(book) <= 10


def test_after_some_paths_that_ended_soon_with_work_left_pauses_grow_up_to_ten_seconds() -> None:
    peer = Peer(TWO)
    pauses = []
    for _ in range(2000):  # hours of it
        peer.path_ended(0.1, 100.0, had_work=True)
        pauses.append(peer.rests_until_s - 100)
    assert pauses[:9] == [-inf, -inf, -inf, 1, 2, 4, 8, 10, 10]
    assert set(pauses[9:]) == {10}


def test_a_path_that_lasted_or_that_nobody_needed_any_more_leads_to_no_pause() -> None:
    peer = Peer(TWO)
    for _ in range(20):
        for _ in range(3):
            peer.path_ended(0.1, 100.0, had_work=True)
        peer.path_ended(0.1, 100.0, had_work=False)
        peer.path_ended(1.0, 100.0, had_work=False)
    assert peer.rests_until_s == -inf


def test_what_is_kept_of_a_peer_has_no_dictionary() -> None:
    """With this many attributes, it would take 1.3 KiB for each of thousands."""
    assert not hasattr(Peer(TWO), "__dict__")


def silent_path(number: int, *, heard_s: float = 0.0, dialled: bool = True) -> Path:
    path: Any = fake_path(dialled=dialled)
    path.heard_s, path.strategy = heard_s, TCPStrat(Address(bytes(4), number))
    return cast("Path", path)


def test_of_the_ways_that_led_nowhere_the_last_few_are_known_for_a_while() -> None:
    peer = Peer(ONE)
    ways = [Address(bytes(4), number) for number in range(1, 21)]
    for second in range(20):
        peer.fell_silent(silent_path(second + 1), float(second))
    assert peer.dead_ends(20.0) == tuple(ways[-DEAD_ENDS_MAX:])
    peer.fell_silent(silent_path(19), 30.0)
    assert peer.dead_ends(30.0)[-2:] == (ways[19], ways[18])
    assert peer.dead_ends(DEAD_END_KEPT_S + 25.0) == (ways[18],)
    assert peer.dead_ends(DEAD_END_KEPT_S + 30.0) == ()
    peer.fell_silent(silent_path(1), 1000.0)
    peer.network_changed()
    assert peer.dead_ends(1000.0) == ()


def test_a_way_by_which_something_has_come_after_all_is_no_dead_end() -> None:
    peer, paths = Peer(ONE), [silent_path(1), silent_path(2)]
    for path in paths:
        peer.add_path(path, TWO, 0.0)
        peer.fell_silent(path, 3.0)
    peer.remove_path(paths[0])
    assert len(peer.dead_ends(3.0)) == 2
    paths[1].heard_s = 4.0
    peer.remove_path(paths[1])
    assert peer.dead_ends(5.0) == (Address(bytes(4), 1),)


def test_a_way_by_which_the_peer_was_asked_in_vain_is_a_dead_end_though_something_came_by_it() -> (
    None
):
    """Signs of life, for example."""
    peer, path = Peer(ONE), silent_path(1, heard_s=8.0, dialled=False)
    peer.add_path(path, TWO, 0.0)
    assert not peer.was_asked_in_vain(path, 9.0)
    peer.asked_in_vain(path, 9.0)
    peer.asked_in_vain(path, 10.0)
    peer.remove_path(path)
    assert peer.dead_ends(10.0) == (Address(bytes(4), 1),)
    assert peer.was_asked_in_vain(path, 9.0 + DEAD_END_KEPT_S)
    assert not peer.was_asked_in_vain(silent_path(2), 10.0)
    assert not peer.was_asked_in_vain(path, 10.0 + DEAD_END_KEPT_S)
    peer.fell_silent(silent_path(3), 10.0)
    assert not peer.was_asked_in_vain(silent_path(3), 10.0)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(silent_path(1, heard_s=0.001), id="something has come"),
        pytest.param(silent_path(1, dialled=False), id="the peer opened it"),
    ],
)
def test_a_way_that_has_led_somewhere_is_no_dead_end(path: Path) -> None:
    peer = Peer(ONE)
    peer.fell_silent(path, 5.0)
    assert peer.dead_ends(5.0) == ()

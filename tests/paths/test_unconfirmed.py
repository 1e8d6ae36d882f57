"""The table of sessions that one side is not sure of yet, against a model of plain lists."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from egtp.paths.unconfirmed import (
    PER_PEER_MAX,
    RELAYED_MAX,
    SESSIONS_MAX,
    WAIT_S,
    UnconfirmedSessions,
)
from egtp.values.identity import NodeId


class FakePath:
    """Anything at all: the table only tells paths apart."""


def peer(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


@dataclass
class Entry:
    path: FakePath
    peer_id: NodeId
    initiation: bytes
    added_s: float
    relayed: bool


class UnconfirmedMachine(RuleBasedStateMachine):
    """Adds, removes and lets time pass in any order; the model is a list in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.table: UnconfirmedSessions[FakePath] = UnconfirmedSessions()
        self.model: list[Entry] = []
        self.gone: list[Entry] = []
        self.now_s = 1000.0
        self.made = 0

    def _has_room(self, peer_id: NodeId, relayed: bool) -> bool:
        return (
            len(self.model) < 256
            and not (relayed and sum(entry.relayed for entry in self.model) >= 128)
            and sum(entry.peer_id == peer_id for entry in self.model) < 8
        )

    def _add(self, peer_id: NodeId, relayed: bool) -> None:
        expected = self._has_room(peer_id, relayed)
        assert self.table.has_room(peer_id, relayed=relayed) == expected
        if expected:
            self.made += 1
            initiation = b"initiation %d" % self.made
            entry = Entry(FakePath(), peer_id, initiation, self.now_s, relayed)
            self.table.add(
                entry.path, peer_id, initiation, b"response", self.now_s, relayed=relayed
            )
            self.model.append(entry)

    @rule(number=st.integers(0, 5), times=st.integers(1, 9), relayed=st.booleans())
    def a_peer_introduces_itself(self, number: int, times: int, relayed: bool) -> None:
        for _ in range(times):
            self._add(peer(number), relayed)

    @rule(number=st.integers(0, 5), relayed=st.booleans())
    def a_newcomer_displaces_the_oldest_that_is_in_its_way(
        self, number: int, relayed: bool
    ) -> None:
        make_way = []
        while not self._has_room(peer(number), relayed):
            mine = [entry for entry in self.model if entry.peer_id == peer(number)]
            others = [entry for entry in self.model if entry.relayed]
            is_half_full = relayed and len(others) >= 128
            ranks = mine if len(mine) == 8 else others if is_half_full else self.model
            make_way.append(ranks[0])
            self.model.remove(ranks[0])
        displaced = self.table.displace(peer(number), relayed=relayed)
        assert [id(path) for path in displaced] == [id(entry.path) for entry in make_way]
        self.gone += make_way
        assert self.table.has_room(peer(number), relayed=relayed)

    @rule(count=st.sampled_from([10, 127, 255, 300]), base=st.integers(0, 3), relayed=st.booleans())
    def a_crowd_introduces_itself(self, count: int, base: int, relayed: bool) -> None:
        for number in range(count):
            self._add(peer(1000 * (base + 1) + number), relayed)

    @precondition(lambda self: self.model)
    @rule(place=st.integers(0))
    def one_is_confirmed(self, place: int) -> None:
        entry = self.model.pop(place % len(self.model))
        self.gone.append(entry)
        assert self.table.remove(entry.path)

    @precondition(lambda self: self.gone)
    @rule(place=st.integers(0))
    def one_that_is_gone_is_removed_again(self, place: int) -> None:
        assert not self.table.remove(self.gone[place % len(self.gone)].path)

    @rule(passed_s=st.sampled_from([0.0, 0.5, 1.0, 4.5, 5.0, 60.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now_s += passed_s
        old = [entry for entry in self.model if self.now_s - entry.added_s >= 5.0]
        self.model = [entry for entry in self.model if self.now_s - entry.added_s < 5.0]
        self.gone += old
        expired = self.table.expire(self.now_s)
        assert [id(path) for path in expired] == [id(entry.path) for entry in old]

    @invariant()
    def the_table_holds_what_the_model_holds(self) -> None:
        assert len(self.table) == len(self.model) <= 256
        for entry in self.model[:3] + self.model[-3:]:
            found = self.table.find(entry.initiation)
            assert found is not None
            assert found.path is entry.path
            assert found.response == b"response"
        for entry in self.gone[-3:]:
            assert self.table.find(entry.initiation) is None


TestUnconfirmedSessions = UnconfirmedMachine.TestCase


def test_the_limits_are_those_of_the_protocol() -> None:
    assert (SESSIONS_MAX, PER_PEER_MAX, WAIT_S) == (256, 8, 5.0)


def test_a_crowd_behind_relays_leaves_half_of_the_places_to_connections() -> None:
    table: UnconfirmedSessions[FakePath] = UnconfirmedSessions()
    for number in range(1000):
        table.displace(peer(number), relayed=True)
        table.add(FakePath(), peer(number), b"%d" % number, b"", 0.0, relayed=True)
    assert len(table) == RELAYED_MAX
    for number in range(1000, 1128):
        assert table.displace(peer(number), relayed=False) == []
        table.add(FakePath(), peer(number), b"%d" % number, b"", 0.0, relayed=False)


def filled(*entries: tuple[int, bool]) -> tuple[UnconfirmedSessions[FakePath], list[FakePath]]:
    """Sessions of those peers, through relays or not."""
    table: UnconfirmedSessions[FakePath] = UnconfirmedSessions()
    paths = [FakePath() for _ in entries]
    for place, (number, relayed) in enumerate(entries):
        table.add(paths[place], peer(number), b"%d" % place, b"", 0.0, relayed=relayed)
    return table, paths


def test_a_peer_whose_places_are_taken_displaces_its_own_oldest_and_nobody_elses() -> None:
    table, paths = filled((1, False), *[(2, False)] * PER_PEER_MAX)
    assert table.displace(peer(2), relayed=False) == paths[1:2]
    assert len(table) == PER_PEER_MAX


def test_whoever_comes_through_a_relay_displaces_the_oldest_that_did_and_no_connection() -> None:
    table, paths = filled((0, False), *((number, True) for number in range(1, RELAYED_MAX + 1)))
    assert table.displace(peer(999), relayed=True) == paths[1:2]
    assert table.displace(peer(999), relayed=False) == []


def test_in_a_full_table_the_oldest_of_all_makes_way() -> None:
    table, paths = filled(*((number, number % 2 == 1) for number in range(SESSIONS_MAX)))
    assert table.displace(peer(999), relayed=False) == paths[:1]


def test_nothing_is_kept_of_peers_whose_sessions_are_gone() -> None:
    table, paths = filled((1, False), (2, True))
    assert table.remove(paths[0])
    assert table.expire(WAIT_S) == paths[1:]
    assert table._per_peer == {}


def test_asking_for_room_makes_no_state() -> None:
    table: UnconfirmedSessions[FakePath] = UnconfirmedSessions()
    for number in range(1000):
        assert table.has_room(peer(number), relayed=False)
    assert table._per_peer == {}

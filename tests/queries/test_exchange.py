"""The exchange table: one end per exchange, only by its peer, and nothing left after it."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.config import NodeConfig
from egtp.limits.deadlines import TICK_S, Deadlines
from egtp.queries.exchange import Exchange, ExchangeTable, Passed
from egtp.values.identity import NodeId
from egtp.values.message import NONCE_BYTES, Query, Reply, decode_message, reference_of

PEERS = [NodeId(bytes([number]) * 20) for number in range(3)]
ROUNDING_S = 1e-6
REPLY_BYTES_MAX = 10


def nonce_of(number: int) -> bytes:
    return hashlib.sha256(b"nonce %d" % number).digest()[:NONCE_BYTES]


class Opener:
    """Opens exchanges with a nonce of their own each."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.table: ExchangeTable[int] = ExchangeTable(self.counters)
        self.serial = count()

    def open(
        self,
        peer_id: NodeId = PEERS[0],
        *,
        hard_s: float = 10.0,
        soft_s: float | None = None,
        now_s: float = 0.0,
    ) -> Exchange[int]:
        serial = next(self.serial)
        return self.table.open(
            peer_id,
            "kind",
            b"body",
            nonce=nonce_of(serial),
            reply_bytes_max=REPLY_BYTES_MAX,
            hard_timeout_s=hard_s,
            soft_timeout_s=soft_s,
            now_s=now_s,
            sink=serial,
        )


def reply_to(exchange: Exchange[int], body: bytes = b"") -> Reply:
    return Reply(nonce_of(-1), exchange.reference, 0, body)


def waited_for(deadlines: Deadlines[Exchange[int]]) -> set[Exchange[int]]:
    return {exchange for bucket in deadlines._buckets.values() for exchange in bucket}


class ExchangeMachine(RuleBasedStateMachine):
    """The model is a list of open exchanges, with the soft timeouts still to be told."""

    def __init__(self) -> None:
        super().__init__()
        self.opener = Opener()
        self.table = self.opener.table
        self.counters = self.opener.counters
        self.expected: Counter[str] = Counter()
        self.now_s = 1000.0
        self.open: list[Exchange[int]] = []
        self.ended: list[Exchange[int]] = []
        self.soft: dict[bytes, float] = {}
        self.next_number = dict.fromkeys(PEERS, 0)

    def _end(self, exchange: Exchange[int]) -> None:
        self.open.remove(exchange)
        self.ended.append(exchange)
        self.soft.pop(exchange.reference, None)

    @rule(
        peer_id=st.sampled_from(PEERS),
        hard_s=st.floats(0.01, 5.0),
        soft_part=st.one_of(st.none(), st.floats(0.01, 1.5)),
    )
    def begin(self, peer_id: NodeId, hard_s: float, soft_part: float | None) -> None:
        soft_s = None if soft_part is None else hard_s * soft_part
        exchange = self.opener.open(peer_id, hard_s=hard_s, soft_s=soft_s, now_s=self.now_s)
        assert exchange.number == self.next_number[peer_id]
        assert exchange.reference == reference_of(bytes(exchange.message))
        query = decode_message(bytes(exchange.message))
        assert isinstance(query, Query)
        assert query.number == exchange.number
        assert query.lifetime_ms == int(hard_s * 1000)
        assert not exchange.given
        self.next_number[peer_id] += 1
        self.open.append(exchange)
        if soft_s is not None:
            self.soft[exchange.reference] = self.now_s + soft_s

    @rule(data=st.data(), size=st.integers(0, REPLY_BYTES_MAX))
    def a_reply(self, data: st.DataObject, size: int) -> None:
        if self.open:
            exchange = data.draw(st.sampled_from(self.open))
            assert self.table.match(exchange.peer_id, reply_to(exchange, bytes(size))) is exchange
            self._end(exchange)

    @rule(data=st.data(), peer_id=st.sampled_from(PEERS))
    def a_reply_of_anybody(self, data: st.DataObject, peer_id: NodeId) -> None:
        if self.open:
            exchange = data.draw(st.sampled_from(self.open))
            matched = self.table.match(peer_id, reply_to(exchange))
            if exchange.peer_id == peer_id:
                assert matched is exchange
                self._end(exchange)
            else:
                assert matched is None
                self.expected["reply from the wrong peer"] += 1

    @rule(data=st.data())
    def a_late_or_repeated_reply(self, data: st.DataObject) -> None:
        if self.ended:
            exchange = data.draw(st.sampled_from(self.ended))
            assert self.table.match(exchange.peer_id, reply_to(exchange)) is None
            self.expected["reply with unknown reference"] += 1

    @rule(peer_id=st.sampled_from(PEERS), reference=st.binary(min_size=32, max_size=32))
    def a_forged_reply(self, peer_id: NodeId, reference: bytes) -> None:
        assert self.table.match(peer_id, Reply(nonce_of(-2), reference, 0, b"")) is None
        self.expected["reply with unknown reference"] += 1

    @rule(data=st.data(), excess=st.integers(1, 1000))
    def a_reply_that_is_too_large(self, data: st.DataObject, excess: int) -> None:
        if self.open:
            exchange = data.draw(st.sampled_from(self.open))
            reply = reply_to(exchange, bytes(REPLY_BYTES_MAX + excess))
            assert self.table.match(exchange.peer_id, reply) is None
            self.expected["reply larger than asked for"] += 1

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.open or self.ended:
            exchange = data.draw(st.sampled_from(self.open + self.ended))
            self.table.close(exchange)
            if exchange in self.open:
                self._end(exchange)

    @rule(delay_s=st.floats(0.0, 3.0))
    def time_passes(self, delay_s: float) -> None:
        self.now_s += delay_s
        late_s = self.now_s - TICK_S - ROUNDING_S
        hard_of = {exchange.reference: exchange.hard_deadline_s for exchange in self.open}
        must_end = {exchange for exchange in self.open if exchange.hard_deadline_s <= late_s}
        must_hear = {
            reference
            for reference, soft_s in self.soft.items()
            if soft_s <= late_s and soft_s <= hard_of[reference] - TICK_S - ROUNDING_S
        }
        for exchange, passed in self.table.expire(self.now_s):
            assert exchange in self.open, "told after the end"
            if passed is Passed.HARD:
                assert exchange.hard_deadline_s <= self.now_s + ROUNDING_S
                self._end(exchange)
                must_end.discard(exchange)
            else:
                # Told once only: popping it a second time fails.
                assert self.soft.pop(exchange.reference) <= self.now_s + ROUNDING_S
                must_hear.discard(exchange.reference)
        assert not must_end
        assert not must_hear

    @invariant()
    def what_is_open_is_in_the_table_and_nothing_else(self) -> None:
        assert len(self.table) == len(self.open)
        assert set(self.table.all()) == set(self.open)
        references = {exchange.reference for exchange in self.open}
        assert set(self.table._by_reference) == references
        assert waited_for(self.table._hard) == set(self.open)
        assert {one.reference for one in waited_for(self.table._soft)} == set(self.soft)
        for peer_id in PEERS:
            numbers = {exchange.number for exchange in self.open if exchange.peer_id == peer_id}
            assert self.table.count_of(peer_id) == len(numbers)
            kept = self.table._numbers.get(peer_id)
            assert numbers == (set() if kept is None else set(kept.open))

    @invariant()
    def all_below_the_settled_mark_is_finished_and_the_mark_itself_is_not(self) -> None:
        for peer_id in PEERS:
            numbers = [exchange.number for exchange in self.open if exchange.peer_id == peer_id]
            settled = min(numbers, default=self.next_number[peer_id])
            assert self.table.settled(peer_id) == settled

    @invariant()
    def every_drop_is_counted_and_nothing_else_is(self) -> None:
        assert self.counters == self.expected

    @invariant()
    def the_next_call_is_wanted_at_the_earliest_deadline(self) -> None:
        next_s = self.table.next_deadline_s()
        times = [exchange.hard_deadline_s for exchange in self.open] + list(self.soft.values())
        if not times:
            assert next_s is None
        else:
            assert next_s is not None
            assert abs(next_s - min(times)) <= TICK_S + ROUNDING_S


def test_the_table_holds_exactly_what_is_open_whatever_happens() -> None:
    run_state_machine_as_test(ExchangeMachine)


def test_a_late_reply_finds_nothing_after_the_hard_timeout() -> None:
    opener = Opener()
    exchange = opener.open(hard_s=1.0, soft_s=0.5)
    assert opener.table.expire(0.6) == [(exchange, Passed.SOFT)]
    assert opener.table.expire(1.1) == [(exchange, Passed.HARD)]
    assert opener.table.match(PEERS[0], reply_to(exchange)) is None
    assert opener.counters == {"reply with unknown reference": 1}
    table = opener.table
    assert not table._by_reference
    assert not waited_for(table._hard) | waited_for(table._soft)
    assert not any(numbers.open for numbers in table._numbers.values())
    assert table.next_deadline_s() is None
    assert not table._hard._buckets


@pytest.mark.parametrize("soft_s", [1.0, 1.005, 1.02, 2.0])
def test_no_soft_notice_comes_with_or_after_the_hard_timeout(soft_s: float) -> None:
    opener = Opener()
    exchange = opener.open(hard_s=1.0, soft_s=soft_s)
    told = [passed for moment in range(200) for _, passed in opener.table.expire(moment / 50)]
    assert told[-1] is Passed.HARD
    assert told.count(Passed.HARD) == 1
    assert told.count(Passed.SOFT) <= 1
    assert len(opener.table) == 0
    assert exchange.reference not in opener.table._by_reference


def test_both_timeouts_that_pass_in_one_jump_of_the_clock_are_told_in_order() -> None:
    opener = Opener()
    exchange = opener.open(hard_s=1.0, soft_s=0.5)
    assert opener.table.expire(1e6) == [(exchange, Passed.SOFT), (exchange, Passed.HARD)]


def test_the_first_of_two_peers_can_still_answer_after_the_soft_timeout() -> None:
    opener = Opener()
    first = opener.open(PEERS[0], hard_s=10.0, soft_s=0.5)
    assert opener.table.expire(0.6) == [(first, Passed.SOFT)]
    second = opener.open(PEERS[1], hard_s=10.0, now_s=0.6)
    assert opener.table.match(PEERS[0], reply_to(first)) is first
    assert opener.table.match(PEERS[1], reply_to(second)) is second


def test_nobody_but_its_peer_has_a_say_in_an_exchange() -> None:
    opener = Opener()
    exchange = opener.open(PEERS[0])
    assert opener.table.find(PEERS[0], exchange.reference) is exchange
    assert opener.table.find(PEERS[1], exchange.reference) is None
    assert opener.table.match(PEERS[1], reply_to(exchange)) is None
    assert opener.table.is_open(exchange)


def test_numbers_count_per_peer_and_go_on_after_an_end() -> None:
    opener = Opener()
    assert [opener.open(PEERS[0]).number for _ in range(3)] == [0, 1, 2]
    assert opener.open(PEERS[1]).number == 0
    for exchange in opener.table.all():
        opener.table.close(exchange)
    assert opener.table.settled(PEERS[0]) == 3
    assert opener.open(PEERS[0]).number == 3
    assert opener.table.settled(PEERS[2]) == 0


def test_an_exchange_that_cannot_be_opened_uses_no_number_and_leaves_nothing() -> None:
    opener = Opener()
    for hard_s in (float("inf"), float("nan"), 1e300):
        with pytest.raises((ValueError, OverflowError)):
            opener.open(hard_s=hard_s)
    assert len(opener.table) == 0
    assert opener.table.next_deadline_s() is None
    assert opener.open().number == 0


@pytest.mark.reaches_in
def test_what_is_kept_about_peers_without_open_exchanges_is_bounded() -> None:
    """Numbers must not be used again, but a node that asks every peer of a large network once
    must not remember each of them for ever: every container has a limit."""
    opener = Opener()
    peers_max = NodeConfig().peers_max
    for number in range(peers_max + 1000):
        opener.table.close(opener.open(NodeId(number.to_bytes(20, "big"))))
    assert len(opener.table) == 0
    kept = [value for value in vars(opener.table).values() if isinstance(value, dict)]
    assert sum(map(len, kept)) <= peers_max + len(opener.counters)


def test_a_peer_that_is_asked_again_after_many_others_gets_no_number_twice() -> None:
    """However the numbers of so many peers are kept, the same one is never used again."""
    opener = Opener()
    used = [opener.open(PEERS[0]).number for _ in range(5)]
    for exchange in opener.table.all():
        opener.table.close(exchange)
    for number in range(NodeConfig().peers_max + 1000):
        opener.table.close(opener.open(NodeId(number.to_bytes(20, "little"))))
    assert opener.open(PEERS[0]).number > max(used)
    assert opener.table.settled(PEERS[0]) > max(used)

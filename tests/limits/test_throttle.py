"""Throttling: the rate holds, everybody gets a turn, and nobody waits for ever (R16)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from egtp.limits.throttle import BURST_S, GRANT_S, Throttler, TokenBucket

RATES = st.floats(100.0, 1e8)
SIZES = st.integers(1, 65_539)
SHARES = st.floats(0.002, 0.3)
"""Of a second's worth, as the size of a packet."""


# Buckets


@given(RATES, st.floats(0.0, 10.0), st.lists(st.tuples(st.floats(0.0, 0.5), SIZES), max_size=60))
def test_a_bucket_lets_through_its_rate_its_burst_and_one_packet_and_no_more(
    rate: float, burst_s: float, arrivals: list[tuple[float, int]]
) -> None:
    now, taken, largest = 1000.0, 0, 0
    bucket = TokenBucket(rate, burst_s, now)
    for gap_s, size in arrivals:
        now += gap_s
        if bucket.ready_s <= now:
            bucket.take(size, now)
            taken, largest = taken + size, max(largest, size)
        assert taken <= (rate * (now - 1000.0 + burst_s) + largest) * (1 + 1e-9)


@given(RATES, st.floats(0.0, 1.0), st.lists(SIZES, min_size=1, max_size=60))
def test_whoever_takes_whenever_the_bucket_is_ready_gets_the_whole_rate(
    rate: float, burst_s: float, sizes: list[int]
) -> None:
    start = now = 50.0
    bucket = TokenBucket(rate, burst_s, now)
    for size in sizes:
        now = max(now, bucket.ready_s)
        bucket.take(size, now)
    assert bucket.ready_s == pytest.approx(start + sum(sizes) / rate - burst_s)


def test_a_bucket_that_rests_is_full_and_holds_no_more_than_its_burst() -> None:
    bucket = TokenBucket(10.0, 0.5, 0.0)
    assert bucket.ready_s == -0.5
    bucket.take(6, 100.0)
    assert bucket.ready_s == pytest.approx(100.1)
    bucket.take(5, 100.6)
    assert bucket.ready_s == pytest.approx(100.6)


@given(RATES, RATES, SIZES)
def test_what_is_owed_stays_owed_when_the_rate_changes(
    before: float, after: float, size: int
) -> None:
    bucket = TokenBucket(before, 0.0, 0.0)
    bucket.take(size, 0.0)
    bucket.change(after, 0.0)
    assert bucket.ready_s == pytest.approx(size / after)


def test_a_bucket_that_rested_holds_no_more_than_its_burst_when_the_rate_changes() -> None:
    bucket = TokenBucket(10.0, 0.5, 0.0)
    bucket.change(20.0, 100.0)
    assert bucket.ready_s == 99.5


def test_what_is_given_back_was_never_taken() -> None:
    bucket = TokenBucket(10.0, 0.5, 0.0)
    bucket.take(100, 0.0)
    bucket.take(-100, 0.0)
    assert bucket.ready_s == -0.5


# Turns


@dataclass
class World:
    """Senders with endless packets, and a clock: what a shell does, without sockets."""

    throttler: Throttler[str]
    now: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    turns: list[str] = field(default_factory=list)

    def add(self, key: str, size: int) -> None:
        self.sizes[key], self.moved[key] = size, 0
        self.move(key)

    def move(self, key: str) -> None:
        while self.throttler.may_move(key, self.now) and len(self.turns) < 100_000:
            self.throttler.moved(key, self.sizes[key], self.now)
            self.moved[key] += self.sizes[key]
            self.turns.append(key)
        self.throttler.wait(key, self.now)

    def run(self, until_s: float, *, late_s: float = 0.0) -> None:
        """``late_s`` is how much later than asked for the timer fires."""
        while True:
            at_s = self.throttler.next_s()
            assert at_s is not None, "somebody waits, and nobody would wake it"
            at_s = max(self.now, at_s + late_s)
            if at_s > until_s:
                self.now = until_s
                return
            before = (self.now, len(self.turns))
            self.now = at_s
            while (key := self.throttler.turn(self.now)) is not None:
                self.move(key)
            assert (self.now, len(self.turns)) != before, "it goes round in circles"


@given(
    st.floats(10_000.0, 1e7),
    st.lists(SHARES, min_size=1, max_size=8),
    st.sampled_from([0.0, 0.001, 0.015]),
)
def test_all_together_move_at_the_set_rate_though_timers_are_late(
    rate: float, shares: list[float], late_s: float
) -> None:
    sizes = [int(rate * share) for share in shares]
    world = World(Throttler())
    world.throttler.limit_all(rate, 0.0)
    for number, size in enumerate(sizes):
        world.add(str(number), size)
    seconds = 10.0 + 20 * max(sizes) / rate
    world.run(seconds, late_s=late_s)
    moved = sum(world.moved.values())
    assert rate * seconds - max(sizes) <= moved <= rate * (seconds + BURST_S) + max(sizes) + 1


@given(st.floats(10_000.0, 1e6), st.lists(SHARES, min_size=2, max_size=8))
def test_turns_go_round(rate: float, shares: list[float]) -> None:
    sizes = [int(rate * share) for share in shares]
    world = World(Throttler())
    world.throttler.limit_all(rate, 0.0)
    for number, size in enumerate(sizes):
        world.add(str(number), size)
    begun = len(world.turns)
    world.run(20 * sum(sizes) / rate)
    turns = world.turns[begun:]
    counts = [turns.count(str(number)) for number in range(len(sizes))]
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1


def test_who_comes_later_does_not_overtake_those_who_wait() -> None:
    throttler: Throttler[str] = Throttler()
    throttler.limit_all(1000.0, 0.0)
    throttler.moved("first", 1000, 0.0)
    throttler.wait("first", 0.0)
    # The debt is paid, and nobody has been woken yet.
    assert not throttler.may_move("second", 2.0)
    throttler.wait("second", 2.0)
    assert throttler.turn(2.0) == "first"
    throttler.moved("first", 10, 2.0)
    assert throttler.turn(2.0) == "second"


@given(
    st.lists(st.tuples(st.floats(1_000.0, 1e6), SHARES), min_size=1, max_size=6),
    st.none() | st.floats(1_000.0, 1e6),
)
def test_each_keeps_to_its_own_limit_and_all_to_that_of_all(
    limits: list[tuple[float, float]], rate: float | None
) -> None:
    own = [(own_rate, int(own_rate * share)) for own_rate, share in limits]
    world = World(Throttler())
    world.throttler.limit_all(rate, 0.0)
    for number, (own_rate, _) in enumerate(own):
        world.throttler.limit(str(number), own_rate, 0.0)
    for number, (_, size) in enumerate(own):
        world.add(str(number), size)
    seconds = 10.0 + 10 * max(size / own_rate for own_rate, size in own)
    world.run(seconds)
    for number, (own_rate, size) in enumerate(own):
        most = own_rate * (seconds + BURST_S) + size + 1
        assert world.moved[str(number)] <= most
        if rate is None:
            # Own limits are looked at with the tick of Deadlines, which the burst makes good.
            assert world.moved[str(number)] >= own_rate * seconds - size - 1 - own_rate * BURST_S
    if rate is not None:
        largest = max(size for _, size in own)
        assert sum(world.moved.values()) <= rate * (seconds + BURST_S) + largest + 1


def test_one_with_a_low_limit_of_its_own_does_not_hold_up_the_others() -> None:
    world = World(Throttler())
    world.throttler.limit_all(1e5, 0.0)
    world.throttler.limit("slow", 1_000.0, 0.0)
    world.add("slow", 1000)
    world.add("fast", 1000)
    world.run(10.0)
    assert world.moved["slow"] == pytest.approx(1e4, rel=0.2)
    assert world.moved["fast"] == pytest.approx(1e6 - 1e4, rel=0.02)


def test_with_a_limit_that_is_not_used_up_nobody_has_to_wait() -> None:
    throttler: Throttler[str] = Throttler()
    throttler.limit_all(1000.0, 0.0)
    assert throttler.may_move("key", 0.0)
    throttler.moved("key", 10_000, 0.0)
    assert not throttler.may_move("key", 0.0)
    assert throttler.may_move("key", 10.0)


def test_another_limit_does_not_make_good_what_was_moved_too_fast() -> None:
    throttler: Throttler[str] = Throttler()
    throttler.limit("key", 1000.0, 0.0)
    throttler.moved("key", 10_000, 0.0)
    throttler.limit("key", 2000.0, 0.0)
    assert not throttler.may_move("key", 1.0)
    assert throttler.may_move("key", 5.0)


def test_a_limit_can_be_lifted_while_somebody_waits() -> None:
    throttler: Throttler[str] = Throttler()
    throttler.limit_all(1.0, 0.0)
    throttler.limit("key", 1.0, 0.0)
    throttler.moved("key", 1_000_000, 0.0)
    throttler.wait("key", 0.0)
    assert throttler.turn(1.0) is None
    throttler.limit_all(None, 1.0)
    throttler.limit("key", None, 1.0)
    assert throttler.next_s() == 0.0
    assert throttler.turn(1.0) == "key"
    assert throttler.may_move("key", 1.0)


def test_a_higher_limit_of_its_own_wakes_who_waits_for_the_lower_one_sooner() -> None:
    throttler: Throttler[str] = Throttler()
    throttler.limit("key", 1.0, 0.0)
    throttler.moved("key", 1000, 0.0)
    throttler.wait("key", 0.0)
    throttler.limit("key", 1000.0, 0.0)
    at_s = throttler.next_s()
    assert at_s is not None
    assert at_s <= 1.0
    assert throttler.turn(1.0) == "key"


def test_turns_that_are_used_later_are_not_given_to_all_at_once() -> None:
    throttler: Throttler[int] = Throttler(reserve_bytes=10_000)
    throttler.limit_all(100_000.0, 0.0)
    for key in range(1000):
        throttler.wait(key, 0.0)
    assert throttler.turn(0.0) == 0
    assert throttler.turn(0.0) is None, "the burst is 5,000 bytes, and one turn reserves more"
    throttler.moved(0, 100, 0.0)
    assert throttler.turn(0.0) == 1, "the first one moved little, so there is room for another"


def test_a_turn_that_nobody_uses_is_over_and_what_it_reserved_is_free_again() -> None:
    throttler: Throttler[str] = Throttler(reserve_bytes=10_000)
    throttler.limit_all(1000.0, 0.0)
    throttler.wait("silent", 0.0)
    throttler.wait("next", 0.0)
    assert throttler.turn(0.0) == "silent"
    assert throttler.turn(0.0) is None
    assert throttler.next_s() == pytest.approx(GRANT_S)
    assert throttler.turn(GRANT_S) == "next"


def test_whoever_is_gone_waits_for_nothing_and_owes_nothing() -> None:
    throttler: Throttler[str] = Throttler(reserve_bytes=10_000)
    throttler.limit_all(1000.0, 0.0)
    throttler.limit("gone", 5.0, 0.0)
    throttler.wait("gone", 0.0)
    throttler.wait("next", 0.0)
    assert throttler.turn(0.0) == "gone"
    throttler.forget("gone")
    assert throttler.turn(0.0) == "next"
    throttler.moved("next", 1, 0.0)
    assert throttler.next_s() is None
    throttler.wait("gone", 0.0)
    throttler.forget("gone")
    assert throttler.next_s() is None
    assert throttler.turn(100.0) is None


def test_whoever_is_gone_while_it_waits_for_its_own_limit_is_given_no_turn() -> None:
    throttler: Throttler[str] = Throttler()
    for key in ("gone", "stays"):
        throttler.limit(key, 5.0, 0.0)
        throttler.moved(key, 10, 0.0)
        throttler.wait(key, 0.0)
    throttler.forget("gone")
    assert [throttler.turn(100.0), throttler.turn(100.0)] == ["stays", None]


def test_who_waits_twice_is_given_one_turn() -> None:
    throttler: Throttler[str] = Throttler()
    throttler.limit("low", 5.0, 0.0)
    throttler.moved("low", 10, 0.0)
    throttler.wait("low", 0.0)
    throttler.wait("low", 100.0)
    assert throttler.turn(0.0) is None, "its own limit holds"
    assert [throttler.turn(100.0), throttler.turn(100.0)] == ["low", None]


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order: while somebody waits there is a time to look again, and
    looking then brings somebody closer; a limit holds since it was last changed."""

    def __init__(self) -> None:
        super().__init__()
        self.throttler: Throttler[int] = Throttler()
        self.now = 0.0
        self.waiting: set[int] = set()
        self.rate: float | None = None
        self.since_s = 0.0
        self.moved = 0

    @rule(rate=st.none() | st.floats(1_000.0, 1e6))
    def limit_all(self, rate: float | None) -> None:
        self.throttler.limit_all(rate, self.now)
        self.rate, self.since_s, self.moved = rate, self.now, 0

    @rule(key=st.integers(0, 4), rate=st.none() | st.floats(1_000.0, 1e6))
    def limit(self, key: int, rate: float | None) -> None:
        self.throttler.limit(key, rate, self.now)

    @rule(key=st.integers(0, 4), size=SIZES)
    def send(self, key: int, size: int) -> None:
        if key in self.waiting:
            return
        if self.throttler.may_move(key, self.now):
            self.throttler.moved(key, size, self.now)
            self.moved += size
        else:
            self.throttler.wait(key, self.now)
            self.waiting.add(key)

    @rule(key=st.integers(0, 4))
    def forget(self, key: int) -> None:
        self.throttler.forget(key)
        self.waiting.discard(key)

    @precondition(lambda self: self.waiting)
    @rule(size=SIZES)
    def wait_for_a_turn(self, size: int) -> None:
        for _ in range(10):
            at_s = self.throttler.next_s()
            assert at_s is not None
            self.now = max(self.now, at_s)
            key = self.throttler.turn(self.now)
            if key is not None:
                assert key in self.waiting
                self.waiting.discard(key)
                assert self.throttler.may_move(key, self.now)
                self.throttler.moved(key, size, self.now)
                self.moved += size
                return
        raise AssertionError("nobody was given a turn")

    @rule(seconds=st.floats(0.0, 5.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_limit_holds(self) -> None:
        if self.rate is not None:
            most = self.rate * (self.now - self.since_s + BURST_S) + 65_539
            assert self.moved <= most * (1 + 1e-9)

    @invariant()
    def who_waits_is_known(self) -> None:
        assert (self.throttler.next_s() is None) == (not self.waiting)


TestAnyHistory = AnyHistory.TestCase

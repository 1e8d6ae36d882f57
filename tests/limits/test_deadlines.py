"""KeyedDeadlines: never early, at most a tick late, in order, against a plain dict."""

from __future__ import annotations

from itertools import pairwise
from sys import getsizeof

from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.limits.deadlines import BUCKETS_MIN, TICK_S, Deadlines, KeyedDeadlines, take_out

ROUNDING_S = 1e-6
"""What the binary form of a tick costs on a clock of some years."""

DELAYS = st.one_of(
    st.floats(-1.0, 5.0),
    st.integers(0, 100).map(lambda ticks: ticks * TICK_S),
    st.sampled_from([0.0, 1e-9, TICK_S / 2, TICK_S, 1e6]),
)


class DeadlinesMachine(RuleBasedStateMachine):
    """The model is a dict of key and deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: KeyedDeadlines[int] = KeyedDeadlines()
        self.model: dict[int, float] = {}
        self.now_s = 0.0

    @rule(key=st.integers(0, 9), delay_s=DELAYS)
    def set(self, key: int, delay_s: float) -> None:
        self.deadlines.set(key, self.now_s + delay_s)
        self.model[key] = self.now_s + delay_s

    @rule(key=st.integers(0, 9))
    def discard(self, key: int) -> None:
        self.deadlines.discard(key)
        self.model.pop(key, None)

    @rule(delay_s=st.floats(0.0, 3.0))
    def due_after(self, delay_s: float) -> None:
        self.now_s += delay_s
        self._take()

    @rule()
    def due_when_asked_for(self) -> None:
        next_s = self.deadlines.next_s()
        if next_s is not None:
            self.now_s = max(self.now_s, next_s)
            # A timer that fires for nothing would be armed again for the same moment, for ever.
            assert self._take()

    def _take(self) -> list[int]:
        due = self.deadlines.due(self.now_s)
        assert len(due) == len({*due})
        for key in due:
            assert self.model[key] <= self.now_s + ROUNDING_S, "early"
        for key, deadline_s in self.model.items():
            if deadline_s <= self.now_s - TICK_S - ROUNDING_S:
                assert key in due, "more than a tick late"
        times = [self.model.pop(key) for key in due]
        for earlier, later in pairwise(times):
            assert earlier <= later + TICK_S + ROUNDING_S, "out of order"
        return due

    @invariant()
    def the_timer_is_armed_for_the_earliest(self) -> None:
        next_s = self.deadlines.next_s()
        assert len(self.deadlines) == len(self.model)
        if not self.model:
            assert next_s is None
            return
        assert next_s is not None
        earliest_s = min(self.model.values())
        assert earliest_s - ROUNDING_S <= next_s < earliest_s + TICK_S + ROUNDING_S

    @invariant()
    def every_key_is_in_one_bucket_and_every_bucket_in_the_heap(self) -> None:
        buckets = self.deadlines._buckets
        in_buckets = [key for bucket in buckets.values() for key in bucket]
        assert sorted(in_buckets) == sorted(self.model)
        assert sorted(self.deadlines._ticks) == sorted(buckets)
        for key, bucket in self.deadlines._bucket_of.items():
            assert key in bucket

    def teardown(self) -> None:
        self.deadlines.due(1e9)
        assert not self.deadlines._buckets
        assert not self.deadlines._ticks
        assert not self.deadlines._bucket_of


def test_deadlines_behave_like_a_dict_that_is_searched_every_tick() -> None:
    run_state_machine_as_test(DeadlinesMachine)


@given(st.floats(-1e8, 1e8))
@example(0.0)
@example(TICK_S)
@example(3 * TICK_S)
def test_no_deadline_is_early_or_more_than_a_tick_late(deadline_s: float) -> None:
    deadlines: KeyedDeadlines[str] = KeyedDeadlines()
    deadlines.set("key", deadline_s)
    next_s = deadlines.next_s()
    assert next_s is not None
    assert deadline_s - ROUNDING_S <= next_s <= deadline_s + TICK_S + ROUNDING_S
    assert deadlines.due(deadline_s - ROUNDING_S * 2) == []
    assert deadlines.due(next_s) == ["key"]
    assert deadlines.due(next_s) == []


def test_a_key_that_is_moved_is_due_once_and_at_its_new_deadline_only() -> None:
    deadlines: KeyedDeadlines[str] = KeyedDeadlines()
    deadlines.set("key", 1.0)
    deadlines.set("key", 5.0)
    assert deadlines.due(4.9) == []
    assert deadlines.due(5.1) == ["key"]
    deadlines.set("key", 5.0)
    deadlines.set("key", 1.0)
    assert deadlines.due(1.1) == ["key"]
    assert deadlines.due(9.0) == []


@given(st.lists(st.floats(0, 10), max_size=30))
def test_after_a_jump_of_the_clock_everything_is_due_at_once_and_in_order(
    times: list[float],
) -> None:
    deadlines: KeyedDeadlines[int] = KeyedDeadlines()
    for key, deadline_s in enumerate(times):
        deadlines.set(key, deadline_s)
    due = deadlines.due(1e7)
    assert sorted(due) == list(range(len(times)))
    for earlier, later in pairwise(due):
        assert times[earlier] <= times[later] + TICK_S


def test_forgetting_everything_leaves_nothing_to_wait_for() -> None:
    deadlines: KeyedDeadlines[int] = KeyedDeadlines()
    for key in range(1000):
        deadlines.set(key, key / 7)
    for key in range(1000):
        deadlines.discard(key)
    assert deadlines.next_s() is None
    assert not deadlines._buckets
    assert not deadlines._ticks


def test_what_is_far_away_and_not_waited_for_any_more_takes_no_memory() -> None:
    """Queries that have their replies at once, each with an hour of time."""
    deadlines: Deadlines[int] = Deadlines()
    stays = [(key, deadlines.add(key, 3600.0 + key)) for key in range(100)]
    most = 0
    for key in range(100, 20_000):
        bucket = deadlines.add(key, 3600.0 + key * TICK_S)
        take_out(bucket, key)
        most = max(most, len(deadlines._buckets), len(deadlines._ticks))
    assert most <= 2 * len(stays) + BUCKETS_MIN
    assert len(deadlines) == len(stays)
    assert deadlines.next_s() == 3600.0
    assert deadlines.due(3600.0 + 99.0) == [key for key, _ in stays]


def test_a_bucket_that_was_many_does_not_keep_their_memory() -> None:
    deadlines: Deadlines[int] = Deadlines()
    empty = getsizeof({})
    for key in range(10_000):
        bucket = deadlines.add(key, 1.0)
    for key in range(10_000):
        take_out(bucket, key)
    assert getsizeof(bucket) <= empty


def test_a_key_that_was_told_can_still_be_taken_out_and_harms_nobody() -> None:
    deadlines: Deadlines[str] = Deadlines()
    old = deadlines.add("old", 1.0)
    assert deadlines.due(1.0) == ["old"]
    new = deadlines.add("new", 1.0)
    take_out(old, "old")
    take_out(old, "new")
    assert new == {"new": None}
    assert deadlines.due(1.0) == ["new"]

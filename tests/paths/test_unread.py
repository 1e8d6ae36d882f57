"""Unread: whatever waits and leaves, never more was let in than may wait in all, and those make way
who need it least."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.paths.path import Path
from egtp.paths.unread import LITTLE_BYTES, Unread

KIB = 1024
BYTES_MAX, STRANGERS_MAX = 1000 * KIB, 600 * KIB


class FakeOutbox:
    memory_bytes = 0


class FakePath:
    """What waits on it, and for whom."""

    def __init__(self, *, is_strangers: bool) -> None:
        self.outbox = FakeOutbox()
        self.closed = False
        self.is_strangers = is_strangers


def path(*, is_strangers: bool = False) -> Path:
    return cast("Path", FakePath(is_strangers=is_strangers))


def waits(one: Path, size: int) -> None:
    cast("FakePath", one).outbox.memory_bytes += size


class UnreadMachine(RuleBasedStateMachine):
    """Paths to those who read more or less."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = Unread(BYTES_MAX, STRANGERS_MAX, self._relieve)
        self.asks: Path | None = None
        self.paths = [path(is_strangers=number % 2 == 0) for number in range(8)]
        self.now_s = 0.0

    def _relieve(self, one: Path) -> None:
        asks = self.asks
        assert asks is not None
        assert one is not asks
        assert one.is_strangers or not asks.is_strangers, "a stranger makes nobody else make way"
        cast("FakePath", one).outbox.memory_bytes = 0

    @rule(
        number=st.integers(0, 7),
        size=st.sampled_from([1, KIB, LITTLE_BYTES, LITTLE_BYTES + 1, 100 * KIB, 700 * KIB]),
    )
    def something_is_to_wait(self, number: int, size: int) -> None:
        self.now_s += 0.01
        self.asks = one = self.paths[number]
        before = one.outbox.memory_bytes
        after = before + size
        looked_s = self.unread._looked_s
        admitted = self.unread.admits(one, size, self.now_s)
        if after <= LITTLE_BYTES:
            assert admitted
        elif not admitted and looked_s < self.now_s - 0.05:
            # It has just looked, so it knows: those who might make way have no more than this one.
            others = [
                other
                for other in self.paths
                if other is not one
                and other.is_strangers == one.is_strangers
                and other.outbox.memory_bytes > max(before, LITTLE_BYTES)
            ]
            assert not others
        if admitted:
            waits(one, size)

    def _heavy(self, other_than: Path | None = None) -> tuple[int, int]:
        heavy = [
            one
            for one in self.paths
            if one.outbox.memory_bytes > LITTLE_BYTES and one is not other_than
        ]
        return (
            sum(one.outbox.memory_bytes for one in heavy),
            sum(one.outbox.memory_bytes for one in heavy if one.is_strangers),
        )

    @rule(number=st.integers(0, 7), part=st.sampled_from([1, 2, 3]))
    def somebody_reads(self, number: int, part: int) -> None:
        waits(self.paths[number], -(self.paths[number].outbox.memory_bytes // part))

    @rule(number=st.integers(0, 7))
    def somebody_goes(self, number: int) -> None:
        self.paths[number].closed = True
        self.paths[number] = path(is_strangers=number % 2 == 0)

    @rule(pause_s=st.sampled_from([0.0, 0.05, 1.0]))
    def time_passes(self, pause_s: float) -> None:
        self.now_s += pause_s
        self.unread.look(self.now_s)
        everywhere, _ = self._heavy()
        assert self.unread.waiting_bytes == everywhere

    @invariant()
    def never_more_waits_than_may(self) -> None:
        everywhere, strangers = self._heavy()
        assert everywhere <= self.unread.waiting_bytes <= BYTES_MAX
        assert strangers <= STRANGERS_MAX


def test_never_more_waits_than_may_whoever_reads_or_not() -> None:
    run_state_machine_as_test(UnreadMachine)


@pytest.mark.parametrize("is_strangers", [True, False])
def test_what_is_little_waits_on_each_path_and_is_not_counted(is_strangers: bool) -> None:
    unread = Unread(0, 0, lambda _: None)
    for _ in range(100):
        one = path(is_strangers=is_strangers)
        assert unread.admits(one, LITTLE_BYTES, 0.0)
        waits(one, LITTLE_BYTES)
        assert not unread.admits(one, 1, 0.0)
    assert len(unread) == 0


def test_a_crowd_of_the_deaf_keeps_nobody_from_being_answered_who_listens() -> None:
    relieved: list[Path] = []

    def relieve(one: Path) -> None:
        relieved.append(one)
        cast("FakePath", one).outbox.memory_bytes = 0

    unread = Unread(BYTES_MAX, STRANGERS_MAX, relieve)
    deaf = [path(is_strangers=True) for _ in range(6)]
    for one in deaf:
        assert unread.admits(one, 100 * KIB, 0.0)
        waits(one, 100 * KIB)
    listener = path(is_strangers=True)
    assert unread.admits(listener, 50 * KIB, 1.0)
    assert relieved == deaf[:2], "an eighth more than needed goes, so that it is not soon again"
    known = path(is_strangers=False)
    assert unread.admits(known, 500 * KIB, 2.0)
    assert set(relieved) <= set(deaf)


class CountsLooks(Unread):
    looks = 0

    def look(self, now_s: float) -> None:
        self.looks += 1
        super().look(now_s)


def test_the_deaf_do_not_have_all_paths_looked_through_for_each_thing_that_is_to_wait() -> None:
    unread = CountsLooks(BYTES_MAX, STRANGERS_MAX, lambda _: None)
    deaf = [path(is_strangers=True) for _ in range(6)]
    for one in deaf:
        assert unread.admits(one, 100 * KIB, 0.0)
        waits(one, 100 * KIB)
    for number in range(1000):
        assert not unread.admits(deaf[number % 6], KIB, 1.0 + number / 10_000)
    assert unread.looks <= 3, "in a tenth of a second"


def test_what_was_read_in_the_meantime_is_room_and_nobody_makes_way() -> None:
    relieved: list[Path] = []
    unread = Unread(BYTES_MAX, STRANGERS_MAX, relieved.append)
    readers = [path(is_strangers=True) for _ in range(6)]
    for one in readers:
        assert unread.admits(one, 100 * KIB, 0.0)
        waits(one, 100 * KIB)
    for one in readers:
        waits(one, -50 * KIB)
    assert unread.admits(path(is_strangers=True), 200 * KIB, 1.0)
    assert relieved == []

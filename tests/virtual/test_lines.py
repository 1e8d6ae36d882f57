"""Lines: what happens to what travels, as numbers."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import Fixed, ImpossibleWorld, Link, Uniform
from simulations.virtual.lines import RETRANSMIT_MIN_S, RETRANSMITS_MAX, Lines

A, B, C = "a", "b", "c"
MANY = 20_000
shares = st.floats(0, 1)


def lines(link: Link | None = None, seed: int = 1) -> Lines:
    return Lines(random.Random(seed), link or Link(latency=1.0))


def arrivals(link: Link, count: int = MANY, size: int = 100) -> list[list[float]]:
    line = lines(link)
    return [line.datagrams(A, B, size, 0.0) for _ in range(count)]


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.3, 1.0])
def test_the_share_that_is_lost_is_the_one_that_was_asked_for(loss: float) -> None:
    lost = sum(not copies for copies in arrivals(Link(loss=loss)))
    assert lost / MANY == pytest.approx(loss, abs=0.01)


@pytest.mark.parametrize("duplicate", [0.0, 0.2, 1.0])
def test_the_share_that_comes_twice_is_the_one_that_was_asked_for(duplicate: float) -> None:
    sent = arrivals(Link(duplicate=duplicate))
    assert {len(copies) for copies in sent} <= {1, 2}
    assert sum(len(copies) == 2 for copies in sent) / MANY == pytest.approx(duplicate, abs=0.01)
    assert all(copies == sorted(copies) for copies in sent)


@pytest.mark.parametrize("reorder", [0.0, 0.2, 1.0])
def test_the_share_that_is_overtaken_is_late_by_no_more_than_was_asked_for(reorder: float) -> None:
    sent = arrivals(Link(latency=1, reorder=reorder, reorder_s=0.5))
    late = [at_s for (at_s,) in sent if at_s > 1]
    assert len(late) / MANY == pytest.approx(reorder, abs=0.01)
    assert all(1 <= at_s <= 1.5 for (at_s,) in sent)


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=30), st.floats(1, 1e6))
def test_a_line_carries_so_many_bytes_a_second_and_the_rest_queues(
    sizes: list[int], bandwidth: float
) -> None:
    line = lines(Link(latency=2, bandwidth_bytes_per_s=bandwidth, queue_s=1e9))
    at_s = [line.datagrams(A, B, size, 0.0)[0] for size in sizes]
    assert at_s == sorted(at_s)
    assert at_s[-1] == pytest.approx(2 + sum(sizes) / bandwidth)
    # A line that was idle starts at once.
    assert line.datagrams(A, B, 10, 1e10)[0] == pytest.approx(1e10 + 2 + 10 / bandwidth)


def test_a_line_carries_as_much_in_the_other_direction_at_the_same_time() -> None:
    line = lines(Link(latency=0, bandwidth_bytes_per_s=1_000))
    assert line.datagrams(A, B, 500, 0.0) == line.datagrams(B, A, 500, 0.0) == [0.5]


def test_datagrams_that_would_queue_for_too_long_are_lost_and_take_no_room() -> None:
    line = lines(Link(latency=0, bandwidth_bytes_per_s=1_000, queue_s=0.5))
    sent = [line.datagrams(A, B, 100, 0.0) for _ in range(20)]
    assert [bool(copies) for copies in sent] == [True] * 6 + [False] * 14
    assert line.datagrams(A, B, 100, 0.6) == [pytest.approx(0.7)]


def test_streams_queue_for_as_long_as_it_takes() -> None:
    line = lines(Link(latency=0, bandwidth_bytes_per_s=1_000, queue_s=0))
    assert [line.segment(A, B, 1_000, 0.0) for _ in range(5)] == [1, 2, 3, 4, 5]


@given(st.integers(1, 2_000), st.integers(1, 3_000))
def test_what_is_larger_than_the_line_takes_is_lost_if_it_is_a_datagram(
    mtu_bytes: int, size: int
) -> None:
    line = lines(Link(latency=1, mtu_bytes=mtu_bytes))
    assert bool(line.datagrams(A, B, size, 0.0)) == (size <= mtu_bytes)
    assert line.segment(A, B, size, 0.0) == 1


@given(shares, st.integers(0, 1_000))
def test_a_segment_is_late_but_never_lost(loss: float, seed: int) -> None:
    line = lines(Link(latency=1, loss=loss), seed)
    late_s = line.segment(A, B, 100, 0.0) - 1
    again_s = [RETRANSMIT_MIN_S * (2**tries - 1) for tries in range(RETRANSMITS_MAX + 1)]
    assert late_s == pytest.approx(min(again_s, key=lambda value: abs(value - late_s)))


@pytest.mark.parametrize("loss", [0.0, 0.3, 1.0])
def test_a_packet_of_a_handshake_waits_its_turn_and_may_be_lost(loss: float) -> None:
    line = lines(Link(latency=1, loss=loss, bandwidth_bytes_per_s=100, queue_s=0))
    line.segment(B, A, 300, 0.0)
    sent = [line.handshake(A, B, 0.0) for _ in range(MANY)]
    assert sent.count(None) / MANY == pytest.approx(loss, abs=0.01)
    assert {at_s for at_s in sent if at_s is not None} <= {1}
    assert line.handshake(B, A, 0.0) in {4, None}


def test_each_end_of_a_line_counts() -> None:
    line = lines(Link(latency=100))
    line.set_access(A, Link(latency=1))
    assert line.datagrams(A, C, 1, 0.0) == line.datagrams(C, A, 1, 0.0) == [1]
    line.set_access(B, Link(latency=2))
    assert line.datagrams(A, B, 1, 0.0) == line.datagrams(B, A, 1, 0.0) == [3]
    assert line.datagrams(B, C, 1, 0.0) == [2]
    line.set_pair(A, B, Link(latency=7))
    assert line.datagrams(A, B, 1, 0.0) == [7]
    assert line.datagrams(B, A, 1, 0.0) == [3]


def test_what_a_machine_says_to_itself_meets_no_line() -> None:
    line = lines(Link(latency=100, loss=1, mtu_bytes=1))
    line.set_access(A, Link(latency=100, loss=1))
    line.degrade(A, Link(latency=100, loss=1))
    (at_s,) = line.datagrams(A, A, 60_000, 0.0)
    assert at_s < 0.001


def test_all_that_one_machine_sends_shares_its_line() -> None:
    line = lines()
    line.set_access(A, Link(latency=0, bandwidth_bytes_per_s=100))
    assert line.datagrams(A, B, 10, 0.0) == [pytest.approx(0.1)]
    assert line.datagrams(A, C, 10, 0.0) == [pytest.approx(0.2)]
    assert line.datagrams(C, A, 10, 0.0) == [pytest.approx(0.1)]


def test_what_is_still_on_its_way_to_a_line_is_not_in_the_way_of_who_is_there() -> None:
    line = lines(Link(latency=0))
    line.set_access(A, Link(latency=0, bandwidth_bytes_per_s=100))
    line.set_access(B, Link(latency=0, bandwidth_bytes_per_s=100))
    assert line.segment(A, B, 1_000, 0.0) == pytest.approx(20)
    assert line.segment(C, B, 100, 0.0) == pytest.approx(1)
    assert line.segment(C, B, 900, 0.0) == pytest.approx(10)
    assert line.segment(C, B, 100, 0.0) == pytest.approx(21)


@given(st.permutations(range(3)))
def test_bad_lines_that_overlap_are_mended_in_any_order(order: list[int]) -> None:
    line = lines(Link(latency=100))
    line.set_access(A, Link(latency=1))
    heal = [line.degrade(A, Link(latency=10 * (n + 1))) for n in range(3)]
    left = {0, 1, 2}
    for n in order:
        assert line.datagrams(A, B, 1, 0.0) == [10 * (max(left) + 1)]
        heal[n]()
        left.remove(n)
    assert line.datagrams(A, B, 1, 0.0) == [1]


def test_a_bad_line_counts_for_everybody_also_beside_a_line_of_two() -> None:
    line = lines(Link(latency=100))
    line.set_pair(A, B, Link(latency=5))
    heal = line.degrade(A, Link(latency=10))
    assert line.datagrams(A, B, 1, 0.0) == [15]
    assert line.datagrams(A, C, 1, 0.0) == [10]
    heal()
    assert line.datagrams(A, B, 1, 0.0) == [5]


def test_a_bad_default_is_for_those_of_which_nothing_else_is_said() -> None:
    line = lines(Link(latency=1))
    line.set_access(A, Link(latency=2))
    one, two = line.degrade_all(Link(latency=10)), line.degrade_all(Link(latency=20))
    assert line.datagrams(A, B, 1, 0.0) == [2]
    assert line.datagrams(B, C, 1, 0.0) == [20]
    one()
    assert line.datagrams(B, C, 1, 0.0) == [20]
    two()
    assert line.datagrams(B, C, 1, 0.0) == [1]


@given(st.lists(st.booleans(), max_size=20))
def test_who_was_cut_off_more_than_once_is_mended_as_often(cuts: list[bool]) -> None:
    line, count = lines(), 0
    for is_cut in cuts:
        if is_cut:
            line.cut(A, B)
            count += 1
        elif count:
            line.mend(A, B)
            count -= 1
        assert line.is_open(A, B) == (count == 0)
        assert line.is_open(B, A)
        assert line.is_open(A, C)


def test_a_line_of_two_is_forgotten_by_nobody_when_others_change() -> None:
    line = lines(Link(latency=Uniform(1, 2)))
    assert line.datagrams(A, B, 1, 0.0)[0] >= 1
    line.set_pair(A, B, Link(latency=Fixed(0.25)))
    assert line.datagrams(A, B, 1, 0.0) == [0.25]
    line.set_access(C, Link())
    assert line.datagrams(A, B, 1, 0.0) == [0.25]
    assert math.isinf(Link().bandwidth_bytes_per_s)


def test_the_lines_of_which_nothing_else_is_said_may_follow_from_the_names() -> None:
    far = {(A, B): 1.0, (B, A): 2.0}
    line = Lines(random.Random(1), lambda a, b: Link(latency=far.get((a, b), 3.0)))
    line.set_pair(A, C, Link(latency=9.0))
    pairs = ((A, B), (B, A), (B, C), (A, C))
    assert [line.datagrams(*pair, 1, 0.0) for pair in pairs] == [[1.0], [2.0], [3.0], [9.0]]
    heal = line.degrade_all(lambda a, b: Link(latency=10 * far.get((a, b), 3.0)))
    assert [line.segment(*pair, 1, 0.0) for pair in pairs] == [10.0, 20.0, 30.0, 9.0]
    heal()
    assert line.datagrams(A, B, 1, 0.0) == [1.0]


@pytest.mark.parametrize("told", [0.05, None])
def test_what_follows_from_the_names_is_a_line(told: Any) -> None:
    line = Lines(random.Random(1), lambda _, __: told)
    with pytest.raises(ImpossibleWorld, match=f"a line must be a Link.*, not {told}"):
        line.datagrams(A, B, 1, 0.0)

"""How many nodes there are, from what walks found; and what follows from that."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_dht.walks.network_size import (
    CROWDING_MIN,
    SAMPLE_LIFETIME_S,
    SAMPLES_MAX,
    SAMPLES_SURE,
    SPACE,
    NetworkSize,
)

K = 20


def even(nodes: int) -> list[int]:
    """The distances of the closest in an evenly spread network of so many."""
    return [SPACE * (rank - 1) // nodes for rank in range(1, K + 1)]


def size_of(*networks: int) -> NetworkSize:
    """With a sample of each of these."""
    size = NetworkSize(K, list)
    for number, nodes in enumerate(networks):
        size.note(b"%d" % number, even(nodes), 0.0)
    return size


@pytest.mark.parametrize("nodes", [100, 1000, 20_000])
def test_the_size_of_a_network_is_estimated_within_a_third(nodes: int) -> None:
    rng = random.Random(nodes)
    ids = [rng.getrandbits(160) for _ in range(nodes)]

    def distances(target: int) -> list[int]:
        return sorted(it ^ target for it in ids)[:K]

    size = NetworkSize(K, lambda: distances(ids[0]))
    for _ in range(8):
        target = rng.getrandbits(160)
        size.note(target.to_bytes(20, "big"), distances(target), 0.0)
    estimate = size.nodes(0.0)
    assert estimate is not None
    assert nodes / 1.33 < estimate < nodes * 1.33
    target = rng.getrandbits(160)
    radius = size.radius(target.to_bytes(20, "big"), 0.0)
    within = sum(it ^ target <= radius for it in ids)
    assert K * 0.8 < within < K * 2.5
    assert 0.3 < size.crowding(target.to_bytes(20, "big"), distances(target), 0.0) < CROWDING_MIN
    crowd = [target ^ rng.getrandbits(120) for _ in range(25)]
    near = sorted(it ^ target for it in ids + crowd)[:K]
    assert size.crowding(target.to_bytes(20, "big"), near, 0.0) > CROWDING_MIN


@pytest.mark.parametrize("nodes", [100, 300, 1000])
def test_of_a_thousand_owners_none_is_warned_falsely_and_all_who_are_besieged_are(
    nodes: int,
) -> None:
    rng = random.Random(nodes)
    false, true = 0, 0
    for _ in range(25):
        ids = [rng.getrandbits(160) for _ in range(nodes)]
        size = NetworkSize(K, list)
        for _ in range(SAMPLES_SURE):
            elsewhere = rng.getrandbits(160)
            size.note(elsewhere.to_bytes(20, "big"), sorted(it ^ elsewhere for it in ids)[:K], 1.0)
        for _ in range(40):
            target = rng.getrandbits(160)
            key = target.to_bytes(20, "big")
            # Sixteen times as close as the closest node can be expected to be: nobody hides
            # a record from a walk of the region with less.
            crowd = [target ^ rng.getrandbits(160 - (16 * nodes).bit_length()) for _ in range(25)]
            for found, sybils in ((False, []), (True, crowd)):
                near = sorted(it ^ target for it in ids + sybils)[:K]
                suspected = size.crowding(key, near, 1.0, since=1.0) >= CROWDING_MIN
                false += suspected and not found
                true += suspected and found
    assert (false, true) == (0, 1000)


def test_what_was_learnt_of_a_smaller_network_is_left_out_when_asked_for() -> None:
    size = NetworkSize(K, lambda: [SPACE // 100] * K)
    for number in range(8):
        size.note(b"old %d" % number, [SPACE // 100] * K, 0.0)
    here = [SPACE // 2000] * K
    assert size.crowding(b"key", here, 9.0) == pytest.approx(20)
    for number in range(SAMPLES_SURE):
        size.note(b"new %d" % number, [SPACE // 2000] * K, 9.0)
    assert size.crowding(b"key", here, 9.0, since=9.0) == pytest.approx(1)


def test_samples_grow_old_and_small_networks_have_no_size() -> None:
    size = NetworkSize(K, list)
    size.note(b"one", [SPACE // 2] * (K - 1), 0.0)
    assert size.nodes(0.0) is None
    assert size.radius(b"one", 0.0) == 0
    assert size.crowding(b"one", [1] * K, 0.0) == 1.0
    size.note(b"one", [SPACE // 100] * K, 0.0)
    assert size.nodes(0.0) == pytest.approx((K - 1) * 100)
    assert size.nodes(0.0, without=b"one") is None
    assert size.nodes(3601.0) is None
    for number in range(100):
        size.note(b"%d" % number, [0] * K, 0.0)
    assert len(size._samples) == 16


def test_of_nothing_known_everything_is_in_reach_and_no_radius_is_asked_for() -> None:
    size = size_of()
    assert size.nodes(0.0) is None
    assert size.reach(25, 0.0) == SPACE
    assert size.radius(b"key", 0.0) == 0
    assert size.crowding(b"key", even(100), 0.0) == 1.0


@given(st.integers(K, 10**6), st.floats(1, 100))
def test_within_reach_there_are_as_many_nodes_as_asked_for_or_all_that_there_are(
    nodes: int, rank: float
) -> None:
    reach = size_of(nodes).reach(rank, 0.0)
    assert reach / SPACE * nodes == pytest.approx(min(rank, nodes))


@given(st.integers(K, 10**6), st.lists(st.floats(1, 1000), min_size=2, max_size=5))
def test_more_nodes_reach_farther_and_in_a_larger_network_less_far(
    nodes: int, ranks: list[float]
) -> None:
    for fewer, more in pairwise(sorted(ranks)):
        assert size_of(nodes).reach(fewer, 0.0) <= size_of(nodes).reach(more, 0.0)
        assert size_of(2 * nodes).reach(more, 0.0) <= size_of(nodes).reach(more, 0.0) <= SPACE


def test_what_is_in_reach_follows_from_all_samples_that_are_not_too_old() -> None:
    size = size_of(1000)
    assert size.reach(25, SAMPLE_LIFETIME_S) < SPACE
    assert size.reach(25, SAMPLE_LIFETIME_S + 1) == SPACE


@pytest.mark.parametrize(
    ("networks", "deviations"), [([1000], 1), ([900, 1100], 1), ([1000, 10**5, 900], 2)]
)
def test_a_radius_is_for_k_nodes_and_once_the_size_is_sure_for_twice_the_deviation_more(
    networks: list[int], deviations: int
) -> None:
    radius = size_of(*networks).radius(b"key", 0.0)
    expected = K + deviations * math.sqrt(K)
    assert radius / SPACE * 1000 == pytest.approx(expected)


def test_a_radius_in_a_small_network_takes_in_everybody() -> None:
    assert size_of(K).radius(b"key", 0.0) == SPACE


def test_the_neighbourhood_that_is_in_question_does_not_say_what_is_to_be_expected_there() -> None:
    size = size_of(1000)
    size.note(b"key", even(10**6), 0.0)
    assert size.crowding(b"key", even(10**6), 0.0) == pytest.approx(1000)
    assert size.crowding(b"key", even(10**6), 0.0, since=0.0) == pytest.approx(1000)
    assert size.radius(b"key", 0.0) == size_of(1000).radius(b"key", 0.0)


def test_one_crowded_sample_among_three_changes_hardly_anything() -> None:
    assert size_of(900, 10**9, 1000).nodes(0.0) == pytest.approx(1000)
    size = NetworkSize(K, lambda: even(1000))
    size.note(b"0", even(900), 0.0)
    size.note(b"1", even(10**9), 0.0)
    assert size.nodes(0.0) == pytest.approx(1000)


def test_a_walk_that_finds_fewer_than_k_takes_back_what_was_found_there_before() -> None:
    size = size_of(1000)
    size.note(b"0", even(1000)[1:], 1.0)
    assert size.nodes(1.0) is None


def test_only_the_latest_walks_count_and_of_one_target_the_last() -> None:
    size = size_of(*[1000] * SAMPLES_MAX)
    size.note(b"0", even(5000), 1.0)
    for number in range(SAMPLES_MAX // 2):
        size.note(b"another %d" % number, even(5000), 1.0)
    # That is one more than half of those that are left: a target walked to anew is not the oldest.
    assert size.nodes(1.0) == pytest.approx(5000)


@pytest.mark.parametrize("since", [0.0, 0.1])
def test_without_new_samples_nobody_is_said_to_be_crowded(since: float) -> None:
    """Not even by what the table says, which may be of a smaller network too."""
    size = NetworkSize(K, lambda: even(100))
    size.note(b"old", even(100), since - 0.1)
    assert size.crowding(b"key", even(10**6), since) > CROWDING_MIN
    assert size.crowding(b"key", even(10**6), since, since=since) == 1.0
    assert size.crowding(b"key", even(10**6)[1:], since) == 1.0


def test_where_a_record_is_on_one_node_alone_its_distance_says_nothing_of_the_size() -> None:
    size = NetworkSize(1, lambda: [SPACE // 100])
    size.note(b"one", [SPACE // 100], 0.0)
    assert size.nodes(0.0) is None
    assert size.crowding(b"key", [SPACE // 100], 0.0) == 1.0

"""Links: what may be asked of a line, and what it does then."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import Fixed, ImpossibleWorld, Link, LogNormal, Uniform

seconds = st.floats(0, 1e4)
seeds = st.integers(0, 2**32)


@given(seconds, seeds)
def test_a_fixed_latency_is_the_same_for_each_packet(latency_s: float, seed: int) -> None:
    rng = random.Random(seed)
    assert {Fixed(latency_s).draw(rng) for _ in range(10)} == {latency_s}
    assert Link(latency=latency_s) == Link(latency=Fixed(latency_s))


@given(seconds, seconds, seeds)
def test_a_uniform_latency_keeps_its_bounds(one_s: float, other_s: float, seed: int) -> None:
    low_s, high_s = sorted((one_s, other_s))
    latency, rng = Uniform(low_s, high_s), random.Random(seed)
    assert all(low_s <= latency.draw(rng) <= high_s for _ in range(20))


@given(st.floats(1e-6, 1e3), st.floats(0, 2), seeds)
def test_a_log_normal_latency_is_above_nothing(median_s: float, sigma: float, seed: int) -> None:
    latency, rng = LogNormal(median_s, sigma), random.Random(seed)
    assert all(0 < latency.draw(rng) < math.inf for _ in range(20))


def test_a_log_normal_latency_has_the_median_and_the_tail_it_says() -> None:
    latency, rng = LogNormal(0.02), random.Random(1)
    drawn = sorted(latency.draw(rng) for _ in range(20_000))
    assert statistics.median(drawn) == pytest.approx(0.02, rel=0.03)
    assert drawn[int(0.99 * len(drawn))] == pytest.approx(3.2 * 0.02, rel=0.1)


def test_a_uniform_latency_is_spread_evenly() -> None:
    latency, rng = Uniform(0.1, 0.3), random.Random(1)
    drawn = [latency.draw(rng) for _ in range(20_000)]
    assert statistics.fmean(drawn) == pytest.approx(0.2, rel=0.02)
    assert sum(value < 0.15 for value in drawn) / len(drawn) == pytest.approx(0.25, abs=0.02)


@given(seeds)
def test_what_is_drawn_follows_from_the_generator(seed: int) -> None:
    for latency in (Uniform(0, 1), LogNormal(1)):
        assert latency.draw(random.Random(seed)) == latency.draw(random.Random(seed))


@pytest.mark.parametrize("latency_s", [-1e-9, -1.0, math.nan, math.inf, -math.inf])
def test_there_is_no_such_latency(latency_s: float) -> None:
    with pytest.raises(ImpossibleWorld, match="latency"):
        Link(latency=latency_s)
    for impossible in (
        lambda: Fixed(latency_s),
        lambda: Uniform(latency_s, 1),
        lambda: Uniform(0, latency_s),
        lambda: LogNormal(latency_s),
        lambda: LogNormal(1, latency_s),
    ):
        with pytest.raises(ImpossibleWorld):
            impossible()


@pytest.mark.parametrize("latency_s", [-1e-9, -1.0, math.nan, math.inf])
def test_a_distribution_of_ones_own_draws_no_such_latency(latency_s: float) -> None:
    class Own:
        def draw(self, rng: random.Random) -> float:
            return latency_s

    with pytest.raises(ImpossibleWorld, match=f"a latency of {latency_s} s"):
        Link(latency=Own()).draw_latency_s(random.Random(1))


def test_a_range_has_its_lower_end_first() -> None:
    with pytest.raises(ImpossibleWorld, match="not a range"):
        Uniform(2, 1)


@pytest.mark.parametrize("name", ["loss", "duplicate", "reorder"])
@pytest.mark.parametrize("share", [2, -0.1, 1.0000001, math.nan, math.inf])
def test_there_is_no_such_share(name: str, share: float) -> None:
    with pytest.raises(ImpossibleWorld, match=f"{name} must be a share between 0 and 1"):
        Link(**{name: share})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["reorder_s", "queue_s"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_there_is_no_such_time(name: str, value: float) -> None:
    with pytest.raises(ImpossibleWorld, match=name):
        Link(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("bandwidth", [0, -1, math.nan])
def test_there_is_no_such_bandwidth(bandwidth: float) -> None:
    with pytest.raises(ImpossibleWorld, match="a line that carries nothing is a partition"):
        Link(bandwidth_bytes_per_s=bandwidth)


def test_a_line_carries_something() -> None:
    with pytest.raises(ImpossibleWorld, match="mtu_bytes"):
        Link(mtu_bytes=0)


@pytest.mark.parametrize("latency", ["fast", None, (1, 2)])
def test_a_latency_is_a_time_or_a_distribution(latency: Any) -> None:
    with pytest.raises(ImpossibleWorld, match="a number of seconds, or Fixed"):
        Link(latency=latency)


@pytest.mark.parametrize("name", ["loss", "reorder_s", "bandwidth_bytes_per_s", "mtu_bytes"])
def test_what_is_no_number_is_none(name: str) -> None:
    options: dict[str, Any] = {name: "much"}
    with pytest.raises(ImpossibleWorld, match=f"{name} must be a number, not 'much'"):
        Link(**options)


def test_an_impossible_link_is_a_wrong_value() -> None:
    with pytest.raises(ValueError, match="loss"):
        Link(loss=2)

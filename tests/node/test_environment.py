"""What a node takes from the world: replaceable, and by default the machine's own."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest

from egtp.environment import Environment, clock_counting_sleep


def test_the_elapsed_clock_never_goes_back_and_moves() -> None:
    elapsed = Environment().elapsed
    times = [elapsed() for _ in range(1000)]
    assert times == sorted(times)
    assert times[0] < times[-1]


def test_the_elapsed_clock_counts_time_spent_suspended() -> None:
    """A laptop that slept finds its deadlines passed."""
    boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 0 <= Environment().elapsed() - boottime < 5


@pytest.mark.parametrize(
    ("system", "names", "chosen"),
    [
        ("linux", ["CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW"], "CLOCK_BOOTTIME"),
        ("darwin", ["CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW"], "CLOCK_MONOTONIC_RAW"),
        ("darwin", [], "monotonic"),
        ("linux", ["CLOCK_MONOTONIC_RAW"], "monotonic"),
        ("win32", [], "monotonic"),
    ],
)
def test_each_system_has_a_clock_of_its_own_that_counts_sleep(
    system: str, names: list[str], chosen: str
) -> None:
    clocks = SimpleNamespace(
        **{name: name for name in names},
        clock_gettime=["CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW"].index,
        monotonic=lambda: 2,
    )
    read = clock_counting_sleep(system, clocks)()
    assert ["CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW", "monotonic"][int(read)] == chosen


def test_unix_time_is_the_machines() -> None:
    assert abs(Environment().unix_time() - time.time()) < 5


def test_entropy_is_of_the_size_asked_for_and_not_the_same_twice() -> None:
    entropy = Environment().entropy
    assert [len(entropy(size)) for size in (0, 1, 8, 16, 32)] == [0, 1, 8, 16, 32]
    assert entropy(32) != entropy(32)


def test_a_simulation_puts_its_own_clocks_and_entropy_in() -> None:
    environment = Environment(elapsed=lambda: 1.0, unix_time=lambda: 2.0, entropy=bytes)
    assert (environment.elapsed(), environment.unix_time()) == (1.0, 2.0)
    assert environment.entropy(4) == bytes(4)


def test_the_environment_of_a_node_cannot_be_exchanged_under_it() -> None:
    with pytest.raises(FrozenInstanceError):
        Environment().elapsed = time.monotonic  # type: ignore[misc]

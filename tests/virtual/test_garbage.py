"""What a program does as its garbage is found, it does at the same moment in each run."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from simulations.virtual import Network, garbage, simulate

ALICE, BOB = "192.0.2.1", "198.51.100.1"


class Forgotten:
    """Says so when it is found, and holds itself until then."""

    def __init__(self, inbox: Any) -> None:
        self.inbox, self.itself = inbox, self

    def __del__(self) -> None:
        self.inbox.send(b"found", BOB)


@pytest.fixture
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.virtual.loop.YOUNG_TURNS", 100)
    monkeypatch.setattr(garbage, "ALL_TURNS", 200)


@pytest.mark.parametrize("objects_before", [1, 333, 650])
def test_a_finalizer_runs_at_the_same_moment_whatever_was_there_before(
    programs: Any, few_turns: None, objects_before: int
) -> None:
    async def story(network: Network) -> list[float]:
        inbox = await programs.bind(network.host("alice", ALICE))
        heard = await programs.bind(network.host("bob", BOB))
        for _ in range(200):
            Forgotten(inbox)
            for _ in range(100):
                node: list[Any] = []
                node.append(node)
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        return list(heard.times)

    first = simulate(story)
    assert first.value
    held: list[Any] = [[] for _ in range(objects_before)]
    again = simulate(story)
    assert (again.value, again.digest) == (first.value, first.digest)
    assert held


@pytest.mark.parametrize("is_enabled", [True, False])
def test_afterwards_garbage_is_collected_as_before(is_enabled: bool) -> None:
    async def story(_: Network) -> None:
        assert not gc.isenabled()

    was_enabled = gc.isenabled()
    try:
        (gc.enable if is_enabled else gc.disable)()
        simulate(story)
        assert gc.isenabled() is is_enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_memory_does_not_grow_with_garbage(few_turns: None) -> None:
    async def story(network: Network) -> None:
        gc.collect()  # What was there before the world, up to a threshold of each Python's own.
        most = 0
        for _ in range(2_000):
            node: list[Any] = []
            node.append(node)
            await asyncio.sleep(0.1)
            most = max(most, gc.get_count()[0])
        assert most < 1_000

    simulate(story)


def test_in_a_world_ten_times_as_large_everything_is_looked_at_a_tenth_as_often(
    few_turns: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look takes ten times as long there: without this, garbage would cost the square."""
    monkeypatch.setattr(garbage, "MACHINES", 2)

    def looks(machines: int) -> int:
        seen = 0

        def look(phase: str, info: dict[str, int]) -> None:
            nonlocal seen
            seen += phase == "start" and info["generation"] == 2

        async def story(network: Network) -> None:
            for number in range(machines):
                network.host(f"machine-{number}", f"198.51.100.{number + 1}")
            gc.callbacks.append(look)
            for _ in range(10_000):
                await asyncio.sleep(0.1)
            gc.callbacks.remove(look)

        simulate(story)
        return seen

    assert looks(2) == pytest.approx(10 * looks(20), abs=1)

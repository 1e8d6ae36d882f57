"""A node that knows many peers looks at each now and then, and never at all of them at once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp import Node, NodeConfig
from egtp.engine.routes import ALL_AGAIN_S, Routes
from egtp.values.identity import NodeId

PEERS = 50
Start = Callable[..., Awaitable[Node]]
Config = Callable[..., NodeConfig]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Counter[NodeId]:
    """How often each peer at rest was looked at."""
    counter: Counter[NodeId] = Counter()

    def look(_: Routes, peer: Any, __: float) -> None:
        counter[peer.peer_id] += 1

    monkeypatch.setattr(Routes, "_renew_when_old", look)
    return counter


@pytest.fixture
async def routes(start: Start, config: Config) -> Any:
    """Of a node that knows so many peers, has looked at all of them at 0 s, and does not look at
    any by itself."""
    node = await start(config=config(clean_up_interval_s=3600.0))
    engine: Any = node._engine
    for _ in range(PEERS):
        engine.book.get(NodeId(os.urandom(20)))
    engine.routes._looked_at_s = 0.0
    return engine.routes


async def test_all_are_looked_at_in_turn_and_a_share_of_them_each_time(
    routes: Any, looked_at: Counter[NodeId]
) -> None:
    for second in range(1, int(ALL_AGAIN_S) + 1):
        routes.look(second)
        assert looked_at.total() == second * PEERS / ALL_AGAIN_S
    assert len(looked_at) == PEERS
    assert set(looked_at.values()) == {1}


async def test_who_was_not_there_in_time_looks_at_all_of_them_once(
    routes: Any, looked_at: Counter[NodeId]
) -> None:
    routes.look(3600)
    assert looked_at.total() == PEERS
    assert set(looked_at.values()) == {1}


async def test_who_comes_and_goes_meanwhile_changes_nothing_for_the_others(
    routes: Any, looked_at: Counter[NodeId]
) -> None:
    before = {peer.peer_id for peer in routes._book.all()}
    for step in range(1, 41):
        routes._book.get(NodeId(os.urandom(20)))
        routes.look(step / 2)
    assert before <= set(looked_at)
    assert max(looked_at.values()) <= 3


async def test_a_peer_with_whom_something_goes_on_is_watched_from_then_on(routes: Any) -> None:
    peer = routes._book.all()[-1]
    peer.superseded[object()] = 0.0
    assert peer not in routes._watched
    routes._look_at = lambda *_, **__: None
    for second in range(1, int(ALL_AGAIN_S) + 1):
        routes.look(second)
    assert list(routes._watched) == [peer]
    peer.superseded.clear()
    routes.look(100)
    assert not routes._watched


async def test_cleaning_up_goes_on_after_what_was_raised_once(
    start: Start,
    config: Config,
    problems: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []
    went_on = asyncio.Event()

    def look(_: Routes, now_s: float) -> None:
        looks.append(now_s)
        if len(looks) == 2:
            raise RuntimeError("once")
        if len(looks) == 4:
            went_on.set()

    monkeypatch.setattr(Routes, "look", look)
    await start(config=config(clean_up_interval_s=0.01))
    async with asyncio.timeout(2):
        await went_on.wait()
    assert [str(problem["exception"]) for problem in problems] == ["once"]
    problems.clear()

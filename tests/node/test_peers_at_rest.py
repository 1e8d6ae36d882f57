"""A node that knows many peers looks at each now and then, and never at all of them at once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from egtp.engine.upkeep import ALL_AGAIN_S, Upkeep
from egtp.values.comm_record import SUITE_AESGCM
from egtp.values.comm_strat import RelayStrat
from egtp.values.identity import Identity, NodeId
from tests.node.at_hand import Config, Start, engine_of

PEERS = 50


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Counter[NodeId]:
    """How often each peer at rest was looked at."""
    counter: Counter[NodeId] = Counter()

    def look(_: Upkeep, peer: Any, __: float) -> None:
        counter[peer.peer_id] += 1

    monkeypatch.setattr(Upkeep, "_renew_when_old", look)
    return counter


@pytest.fixture
async def upkeep(start: Start, config: Config) -> Any:
    """Of a node that knows so many peers, has looked at all of them at 0 s, and does not look at
    any by itself."""
    node = await start(config=config(clean_up_interval_s=3600.0))
    engine = engine_of(node)
    for _ in range(PEERS):
        engine.book.get(NodeId(os.urandom(20)))
    engine.upkeep._looked_at_s = 0.0
    return engine.upkeep


async def test_all_are_looked_at_in_turn_and_a_share_of_them_each_time(
    upkeep: Any, looked_at: Counter[NodeId]
) -> None:
    for second in range(1, int(ALL_AGAIN_S) + 1):
        upkeep.look(second)
        assert looked_at.total() == second * PEERS / ALL_AGAIN_S
    assert len(looked_at) == PEERS
    assert set(looked_at.values()) == {1}


async def test_who_was_not_there_in_time_looks_at_all_of_them_once(
    upkeep: Any, looked_at: Counter[NodeId]
) -> None:
    upkeep.look(3600)
    assert looked_at.total() == PEERS
    assert set(looked_at.values()) == {1}


async def test_who_comes_and_goes_meanwhile_changes_nothing_for_the_others(
    upkeep: Any, looked_at: Counter[NodeId]
) -> None:
    before = {peer.peer_id for peer in upkeep._book.all()}
    for step in range(1, 41):
        upkeep._book.get(NodeId(os.urandom(20)))
        upkeep.look(step / 2)
    assert before <= set(looked_at)
    assert max(looked_at.values()) <= 3


async def test_a_peer_with_whom_something_goes_on_is_watched_from_then_on(upkeep: Any) -> None:
    peer = upkeep._book.all()[-1]
    peer.superseded[object()] = 0.0
    assert peer not in upkeep._book.watched
    upkeep._look_at = lambda *_, **__: None
    for second in range(1, int(ALL_AGAIN_S) + 1):
        upkeep.look(second)
    assert list(upkeep._book.watched) == [peer]
    peer.superseded.clear()
    upkeep.look(100)
    assert not upkeep._book.watched


async def test_relays_in_use_are_looked_at_in_the_order_in_which_they_came_into_use(
    upkeep: Any,
) -> None:
    """In that of a set, which is another one in each process, runs of one seed part."""
    relays = [Identity.generate(os.urandom) for _ in range(8)]
    strategies = [RelayStrat(relay.key, SUITE_AESGCM, relay.channel_key) for relay in relays]
    for relay in relays:
        upkeep._book.get(relay.node_id)
    looked_at = []
    upkeep._channels = SimpleNamespace(relays_dialled=lambda: list(strategies))
    upkeep._look_at = lambda peer, *_, **__: looked_at.append(peer.peer_id)
    upkeep.look(0.0)
    assert looked_at == [relay.node_id for relay in relays]


async def test_cleaning_up_goes_on_after_what_was_raised_once(
    start: Start,
    config: Config,
    problems: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []
    went_on = asyncio.Event()

    def look(_: Upkeep, now_s: float) -> None:
        looks.append(now_s)
        if len(looks) == 2:
            raise RuntimeError("once")
        if len(looks) == 4:
            went_on.set()

    monkeypatch.setattr(Upkeep, "look", look)
    await start(config=config(clean_up_interval_s=0.01))
    async with asyncio.timeout(2):
        await went_on.wait()
    assert [str(problem["exception"]) for problem in problems] == ["once"]
    problems.clear()

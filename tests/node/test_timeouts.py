"""Time is over, or the asker does not care any more: all is freed, and the truth is said."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import Any

import pytest

from egtp import HardTimeout, Identity, MemoryLookup, Node, NodeConfig
from egtp.events import Dialling, Event, SearchFailed
from tests.lab import LATENCY_S, Lab, in_lab
from tests.node.at_hand import (
    Eventually,
    Held,
    Problems,
    Start,
    check_nothing_is_kept_of_queries,
    engine_of,
)
from tests.node.failing import World, play

# Timeouts


def test_a_hard_timeout_frees_everything_and_says_that_the_query_may_have_run() -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node()
        other = await lab.asker(node)
        started = lab.now_s
        with pytest.raises(HardTimeout) as timeout:
            await lab.query(other, node.node_id, "wait", hard_timeout_s=0.2)
        assert lab.now_s - started == pytest.approx(0.2, abs=0.01)
        assert timeout.value.may_have_run
        # It was heard of when the path was made, some round trips after the start.
        assert str(timeout.value) == (
            f"no reply to 'wait' from {node.node_id} in time; it may have run; "
            "the peer was last heard from 0.2 s ago"
        )
        silent_s = other.why(node.node_id).silent_s
        assert silent_s == pytest.approx(0.2 - 4 * LATENCY_S, abs=0.01)
        assert re.search(r"\n    last heard from 0.2 s ago", str(other.why(node.node_id)))
        check_nothing_is_kept_of_queries(other)

    in_lab(Lab, story)


async def test_a_hard_timeout_says_if_there_is_no_way_to_the_peer_any_more(start: Start) -> None:
    node, stuck = await start(), Held()
    node.handle("stuck", stuck)
    other = await start(listen=())
    query = other.open_query(node.node_id, "stuck", hard_timeout_s=1, idempotent=True)
    await stuck.called.wait()
    await node.close()
    with pytest.raises(
        HardTimeout, match="in time; it may have run; there is no longer a path to the peer"
    ):
        await query
    assert other.why(node.node_id).silent_s is None


async def test_a_hard_timeout_before_anything_was_given_to_a_socket_says_that_it_never_ran(
    start: Start,
) -> None:
    class Hanging(MemoryLookup):
        async def resolve(self, *args: Any, **options: Any) -> Any:
            await asyncio.Event().wait()

    node = await start(lookup=Hanging())
    with pytest.raises(HardTimeout) as timeout:
        await node.query(Identity.generate(bytes).node_id, "x", hard_timeout_s=0.1)
    assert not timeout.value.may_have_run
    assert str(timeout.value).endswith(" in time; it has not left this machine")
    check_nothing_is_kept_of_queries(node)


async def test_a_reply_before_the_soft_timeout_ends_the_wait_for_it(
    start: Start, greeter: Node
) -> None:
    node = await start(listen=())
    told: list[str] = []
    query = node.open_query(
        greeter.node_id, "greet", soft_timeout_s=5, on_soft_timeout=lambda: told.append("soft")
    )
    waiting = asyncio.ensure_future(query.soft_timeout())
    assert await query == b"hello "
    assert await waiting is False
    assert told == []


async def test_a_soft_timeout_callback_that_raises_hurts_no_other_query(
    start: Start, problems: Problems
) -> None:
    node, stuck = await start(), Held()
    node.handle("stuck", stuck)

    def clumsy() -> None:
        raise RuntimeError("clumsy callback")

    queries = [
        node.open_query(
            node.node_id, "stuck", hard_timeout_s=0.3, soft_timeout_s=0.1, on_soft_timeout=clumsy
        )
        for _ in range(3)
    ]
    ends = [node.open_query(node.node_id, "stuck", hard_timeout_s=0.1) for _ in range(3)]

    async def outcome(query: Any) -> BaseException:
        with pytest.raises(HardTimeout) as timeout:
            await query
        return timeout.value

    async with asyncio.timeout(2):
        await asyncio.gather(*map(outcome, queries + ends))
    assert len(problems) == 3
    problems.clear()


async def test_a_replacement_may_be_asked_after_the_soft_timeout_and_the_first_still_answers(
    start: Start, greeter: Node
) -> None:
    """The seed's impatience action (R6)."""
    node, other, slow = await start(), await start(listen=()), Held(b"first")
    node.handle("greet", slow)
    first = other.open_query(node.node_id, "greet", soft_timeout_s=0.05)
    assert await first.soft_timeout()
    assert await other.query(greeter.node_id, "greet", b"second") == b"hello second"
    slow.go.set()
    assert await first == b"first"


# Cancellation


async def test_cancelling_frees_at_once_and_cancels_the_handler_at_the_other_end(
    start: Start,
) -> None:
    node, stuck = await start(), Held()
    node.handle("stuck", stuck)
    other = await start(listen=())
    task = asyncio.ensure_future(other.query(node.node_id, "stuck"))
    await stuck.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(engine_of(other).exchanges) == 0
    async with asyncio.timeout(2):
        await stuck.cancelled.wait()
    assert node.counters["cancelled by the asker"] == 1


async def test_cancelling_during_the_search_ends_the_search(
    start: Start, eventually: Eventually
) -> None:
    cancelled = asyncio.Event()

    class Hanging(MemoryLookup):
        async def resolve(self, *args: Any, **options: Any) -> Any:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    node = await start(lookup=Hanging())
    await asyncio.sleep(0)
    cancelled.clear()
    unknown = Identity.generate(bytes).node_id
    task = asyncio.ensure_future(node.query(unknown, "x"))
    await eventually(lambda: engine_of(node).book.find(unknown) is not None)
    task.cancel()
    async with asyncio.timeout(2):
        await cancelled.wait()
    check_nothing_is_kept_of_queries(node)


def test_who_asks_again_at_once_after_cancelling_searches_once_more_and_no_oftener() -> None:
    """The end of the first search is no end of the second."""

    async def story(lab: Lab) -> None:
        events: list[Event] = []
        peer = await lab.node()
        asker = await lab.asker(peer, observer=events.append)

        async def ask() -> list[bytes]:
            first = asker.open_query(peer.node_id, "echo")
            await asyncio.sleep(LATENCY_S)
            first.cancel()
            queries = []
            for number in range(3):
                queries.append(asker.open_query(peer.node_id, "echo", b"%d" % number))
                await asyncio.sleep(0.1 * LATENCY_S)
            return list(await asyncio.gather(*queries))

        assert await lab.hosts[asker].run(ask()) == [b"0", b"1", b"2"]
        assert len([event for event in events if isinstance(event, Dialling)]) == 2

    in_lab(Lab, story)


def test_who_was_given_a_query_and_is_gone_is_searched_for_at_growing_pauses() -> None:
    async def story(world: World) -> None:
        searches: list[float] = []

        def observe(event: Event) -> None:
            if isinstance(event, SearchFailed):
                searches.append(world.now_s)

        peer = await world.node()
        asker = await world.asker(peer, observer=observe)
        async with world.given(asker, peer.node_id, hard_timeout_s=60) as query:
            world.hosts.pop(peer).kill()
            await asyncio.wait([query])
        pauses = [later - sooner for sooner, later in pairwise(searches)]
        late_s = 2 * NodeConfig().clean_up_interval_s
        assert len(pauses) >= 7
        for pause_s, least_s in zip(pauses, (1, 2, 4, 8, 10, 10, 10), strict=False):
            assert least_s <= pause_s <= least_s + late_s

    play(story)


async def test_one_of_two_queries_waiting_for_a_path_is_cancelled_and_the_other_is_answered(
    start: Start, greeter: Node
) -> None:
    node = await start(listen=())
    tasks = [asyncio.ensure_future(node.query(greeter.node_id, "greet")) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await tasks[1] == b"hello "

"""Programs with ``asyncio.eager_task_factory``: tasks take their first step as they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from egtp import FastFail, Identity, Node
from egtp.later import begin_later
from tests.node.at_hand import Problems, Start, engine_of

pytestmark = pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="came with Python 3.12"
)


@pytest.fixture
async def eager(start: Start, eager_task_factory: Any) -> AsyncIterator[None]:
    """Set up after ``start``, so that it ends before the nodes do."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager_task_factory)
    yield
    loop.set_task_factory(None)


@pytest.mark.usefixtures("eager")
async def test_a_task_that_begins_later_is_entered_before_it_does() -> None:
    entered: list[asyncio.Task[None]] = []

    async def leaves() -> None:
        entered.pop()

    entered.append(begin_later(leaves))
    await entered[0]
    assert entered == []


@pytest.mark.usefixtures("eager")
async def test_a_search_that_fails_without_waiting_is_over(
    start: Start, greeter: Node, identity: Callable[[], Identity]
) -> None:
    node = await start(listen=(), lookup=None)
    for _ in range(2):
        with pytest.raises(FastFail):
            await node.query(greeter.node_id, "greet")
    node.add_contact(greeter.link)
    assert await node.query(greeter.node_id, "greet", b"you") == b"hello you"


@pytest.mark.usefixtures("eager")
async def test_a_dial_that_fails_without_waiting_is_over(
    start: Start, greeter: Node, problems: Problems
) -> None:
    node = await start(listen=(), lookup=None, dial_from="203.0.113.9")
    node.add_contact(greeter.link)
    with pytest.raises(FastFail):
        await node.query(greeter.node_id, "greet")
    assert engine_of(node).comms._openings == {}
    assert problems == []

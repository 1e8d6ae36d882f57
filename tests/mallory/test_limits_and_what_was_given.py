"""A query that was given away is not ended by a limit: it may have run, and its answer is there."""

from __future__ import annotations

import asyncio

from simulations.mallory.small_world import Conditions, SmallWorld
from simulations.mallory.xray import XRay
from simulations.virtual import Network, simulate


def test_a_query_given_before_is_not_the_one_too_many_for_the_next_path() -> None:
    xray = XRay()

    async def story(network: Network) -> None:
        async with SmallWorld.opened(network, Conditions(tight=True), xray) as world:
            alice, bob = world.people
            # Too large to travel with a dial.
            text = b"\x32" + bytes(10_000)
            given = [world.ask(alice, bob, "slow", text) for _ in range(4)]
            await asyncio.sleep(0.5)
            with bob.host.block_inbound("drop"):
                for flow in world.line.live:
                    world.line.kill(flow)
                await asyncio.sleep(0.1)
                # More than Bob takes of Alice at a time, while there is no way to him.
                late = [world.ask(alice, bob, "echo") for _ in range(3)]
                await asyncio.sleep(0.1)
            await asyncio.sleep(20)
            assert [question.outcome for question in given] == ["reply"] * 4
            assert all(question.outcome in ("FastFail", "reply") for question in late)
            assert world.judge.violations == []

    with xray.looking():
        simulate(story, unreal=False)


def test_two_sends_of_one_peer_may_be_under_way_at_once() -> None:
    """Their handlers were told apart by the reference of a query, which a send has none of."""
    xray = XRay()

    async def story(network: Network) -> None:
        async with SmallWorld.opened(network, Conditions(), xray) as world:
            alice, bob = world.people
            sends = [world.send(alice, bob, bytes(1 + n), kind="slow") for n in range(3)]
            await asyncio.sleep(5)
            assert [len(send.ran) for send in sends] == [1, 1, 1]
            assert bob.node._engine is not None
            assert len(bob.node._engine.handlers) == 0
            asked = world.ask(alice, bob, "slow")
            await asyncio.sleep(5)
            assert asked.outcome == "reply"

    with xray.looking():
        simulate(story, unreal=False)

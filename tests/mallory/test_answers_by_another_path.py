"""An answer goes where its asker is, not where a query came from first."""

from __future__ import annotations

import asyncio

import pytest

from simulations.mallory.small_world import Conditions, SmallWorld
from simulations.mallory.xray import XRay
from simulations.virtual import Network, simulate


@pytest.mark.parametrize("kind", ["echo", "slow"])
def test_whoever_lost_a_connection_is_answered_on_his_next_one(kind: str) -> None:
    """Alice's router has forgotten her connection, which Bob cannot know: what he writes there is
    on its way for ever."""
    xray = XRay()

    async def story(network: Network) -> None:
        async with SmallWorld.opened(network, Conditions(), xray) as world:
            alice, bob = world.people
            world.ask(alice, bob, "echo")
            await asyncio.sleep(1)
            for flow in world.line.live:
                if flow.stream.host is bob.host:
                    world.line.hold(flow)
            question = world.ask(alice, bob, kind, b"\x14", timeout_s=25)
            await asyncio.sleep(0.1)
            for stream in list(alice.host.streams.values()):
                # She alone is told.
                stream.break_off(ConnectionResetError(104, "Connection reset by peer"))
            await asyncio.sleep(5)
            assert question.outcome == "reply"
            assert len(question.ran) == 1

    with xray.looking():
        simulate(story, unreal=False)

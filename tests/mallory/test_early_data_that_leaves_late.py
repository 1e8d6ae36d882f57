"""A dial goes on when the query in it has ended: what was said of it must stay true."""

from __future__ import annotations

import asyncio

from egtp import HardTimeout
from simulations.mallory.small_world import Conditions, SmallWorld
from simulations.mallory.xray import XRay
from simulations.virtual import Network, simulate


def test_a_query_that_timed_out_before_its_dial_may_still_run() -> None:
    xray = XRay()

    async def story(network: Network) -> None:
        async with SmallWorld.opened(network, Conditions(), xray) as world:
            alice, bob = world.people
            closed = bob.host.block_inbound("drop")
            question = world.ask(alice, bob, "echo", early=True, timeout_s=0.5)
            await asyncio.sleep(0.6)
            assert question.outcome == HardTimeout.__name__
            # The system asks a second time for the connection: it is there, and the packet leaves.
            closed.heal()
            await asyncio.sleep(5)
            assert len(question.ran) == 1
            assert world.judge.violations == []

    with xray.looking():
        simulate(story, unreal=False)

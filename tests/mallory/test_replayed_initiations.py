"""Initiations that come a second time, or late, or from somebody else's socket."""

from __future__ import annotations

import asyncio

from simulations.mallory.small_world import Conditions, SmallWorld
from simulations.mallory.xray import XRay
from simulations.virtual import Network, simulate


def test_the_answer_to_a_recording_makes_nobody_dial() -> None:
    """Its session is gone, unconfirmed, before the handler has ended. The answer waits for somebody
    who asks for it; to bring it, Bob would have to look up and dial whom a recording names."""
    xray = XRay()

    async def story(network: Network) -> None:
        async with SmallWorld.opened(network, Conditions(bob_knows_alice=False), xray) as world:
            alice, bob = world.people
            world.line.hold_new = True
            question = world.ask(alice, bob, "slow", b"\x50", early=True, timeout_s=9.0)
            await asyncio.sleep(0.5)
            firsts = [one for one in world.line.recorded if one.is_initiation]
            for flow in world.line.live:
                world.line.kill(flow)
            alice.host.crash()
            world.abandoned(alice)
            world.mallory.visit(firsts[0].endpoint, [firsts[0].packet])
            for _ in range(40):
                await asyncio.sleep(0.5)
                world.judge.check(world.now, world.parties)
            assert len(question.ran) == 1
            assert world.judge.violations == []
            assert bob.node._engine is not None
            assert bob.node._engine.book.find(alice.node_id) is None

    with xray.looking():
        simulate(story, unreal=False)

"""Two connections between the same two peers: both ends come to use the same one, soon.

On lines where packets take from 5 to 100 ms, each as long as it likes: what one end confirms first
is often what the other confirms last. In virtual time, over many seeds.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egtp import Node
from egtp.reaching.peer import CROSSED_S
from simulations.virtual import Link, Network, Uniform, run_in
from tests.lab import Lab
from tests.node.at_hand import engine_of

LATENCY_S_MAX = 0.1
LOOK_S = 0.001


class Line(Lab):
    """Two peers that know each other."""

    async def begin(self) -> None:
        self.left, self.right = await self.node(), await self.node()
        self.left.add_contact(self.right.record)
        self.right.add_contact(self.left.record)

    async def is_one(self) -> bool:
        """Whether both ends use one and the same connection, of those that they have."""
        here, there = used(self.left, self.right), used(self.right, self.left)
        return bool(here and there and here.session.remote_index == there.session.index)

    async def disagree_s(self) -> float:
        """For how long, from now on, both have a connection, and not the same one."""
        total_s = 0.0
        for _ in range(int(2 / LOOK_S)):
            await asyncio.sleep(LOOK_S)
            both = used(self.left, self.right) and used(self.right, self.left)
            if both and not await self.is_one():
                total_s += LOOK_S
        return total_s


def used(node: Node, other: Node) -> Any:
    engine = engine_of(node)
    peer = engine.book.find(other.node_id)
    return None if peer is None else peer.direct


def play(seed: int, story: Any) -> None:
    network = Network(seed, link=Link(latency=Uniform(0.005, LATENCY_S_MAX)))

    async def whole() -> None:
        line = Line(network)
        await line.begin()
        await story(line)
        await line.close(*line.hosts)

    run_in(network, whole())


@pytest.mark.parametrize("seed", range(40))
def test_peers_that_dial_each_other_disagree_for_a_round_trip_at_most(seed: int) -> None:
    """Each end learns of the other's connection in that time."""

    async def story(line: Line) -> None:
        both = [
            asyncio.ensure_future(line.query(line.left, line.right.node_id)),
            asyncio.ensure_future(line.query(line.right, line.left.node_id)),
        ]
        assert await line.disagree_s() <= 2 * LATENCY_S_MAX
        assert await line.is_one()
        assert [await query for query in both] == [b"x", b"x"]

    play(seed, story)


@pytest.mark.parametrize("seed", range(40))
def test_a_peer_that_dials_twice_at_once_is_answered_on_the_one_that_it_uses(seed: int) -> None:
    """It renews a session, say, while it looks for a way."""

    async def story(line: Line) -> None:
        engine = engine_of(line.left)
        contact = engine.book.get(line.right.node_id).contact(engine.unix_time())
        host = line.hosts[line.left]
        for _ in range(2):
            host.spawn(engine.dialler.attempt(contact.tcp[0], contact))
        assert await line.disagree_s() <= 2 * LATENCY_S_MAX
        assert await line.is_one()
        assert await line.query(line.left, line.right.node_id) == b"x"
        assert await line.query(line.right, line.left.node_id) == b"x"
        await asyncio.sleep(15)
        assert len(engine.comms) == 1, "the other one was drained"

    play(seed, story)


@pytest.mark.parametrize("seed", range(60))
def test_ends_that_judge_otherwise_what_crossed_agree_in_the_end(seed: int) -> None:
    """Whether two dials crossed is a matter of five seconds, which each end counts by itself."""

    async def story(line: Line) -> None:
        async def dial(from_node: Node, to_node: Node, after_s: float) -> None:
            await asyncio.sleep(after_s)
            engine = engine_of(from_node)
            contact = engine.book.get(to_node.node_id).contact(engine.unix_time())
            await engine.dialler.attempt(contact.tcp[0], contact)

        async def talk(from_node: Node, to_node: Node) -> None:
            for _ in range(30):
                assert await line.query(from_node, to_node.node_id) == b"x"
                await asyncio.sleep(1)

        one, other = (line.left, line.right) if seed % 2 else (line.right, line.left)
        line.hosts[one].spawn(dial(one, other, 0))
        line.hosts[other].spawn(dial(other, one, CROSSED_S + (seed - 30) / 300))
        await asyncio.sleep(1)
        await asyncio.gather(talk(line.left, line.right), talk(line.right, line.left))
        assert await line.is_one()
        await asyncio.sleep(10)
        engine = engine_of(line.left)
        assert len(engine.comms) == 1, "the other one was drained"

    play(seed, story)

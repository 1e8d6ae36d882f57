"""A laptop that slept for an hour finds its deadlines passed, at once and in order."""

from __future__ import annotations

import asyncio

from egtp import Environment, HardTimeout, Identity, Incoming, MemoryLookup, Node, NodeConfig
from egtp.events import PathLost
from simulations.virtual import Host, Network, run_in
from tests.lab import Lab, in_lab

HARD_S = (30.0, 10.0, 3500.0, 20.0, 10.0)
NEVER_S = 10_000.0
AWAKE_S = 2.0


def node_on(host: Host, lookup: MemoryLookup, *listen: str) -> Node:
    environment = Environment(host.elapsed, host.unix_time, host.entropy)
    config = NodeConfig(relays_wanted=0)
    identity = Identity.generate(host.entropy)
    return Node(identity, listen=listen, lookup=lookup, config=config, environment=environment)


async def story(network: Network) -> None:
    laptop, server = network.host("laptop", "5.1.0.1"), network.host("server", "5.2.0.1")
    lookup = MemoryLookup(network.story.unix_time)
    asker, answerer = node_on(laptop, lookup), node_on(server, lookup, "5.2.0.1:4000")

    @answerer.handler("wait")
    async def wait(query: Incoming) -> bytes:
        await asyncio.sleep(NEVER_S)
        return b"too late"

    @answerer.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    await server.run(answerer.start())
    await server.run(answerer.published())
    await laptop.run(asker.start())
    ended: list[tuple[float, int]] = []
    softly: list[int] = []

    async def ask(number: int) -> None:
        try:
            await asker.query(
                answerer.node_id,
                "wait",
                hard_timeout_s=HARD_S[number],
                soft_timeout_s=HARD_S[number] / 2,
                on_soft_timeout=lambda: softly.append(number),
            )
        except HardTimeout:
            ended.append((network.loop.now, number))

    asked = [laptop.spawn(ask(number)) for number in range(len(HARD_S))]
    await asyncio.sleep(1.0)
    laptop.sleep()
    await asyncio.sleep(3600.0)
    assert not ended
    woke_s = network.loop.now
    laptop.wake()
    await asyncio.wait(asked)
    assert all(at_s - woke_s < AWAKE_S for at_s, _ in ended)
    order = [number for _, number in ended]
    assert order == sorted(range(len(HARD_S)), key=HARD_S.__getitem__) == [1, 4, 3, 0, 2]
    assert sorted(softly) == list(range(len(HARD_S)))
    # And it is the node that it was.
    echoed = await laptop.run(asker.query(answerer.node_id, "echo", b"again", hard_timeout_s=10.0))
    assert echoed == b"again"
    assert network.loop.now - woke_s < 2 * AWAKE_S
    await laptop.run(asker.close())
    await server.run(answerer.close())


def test_after_an_hour_asleep_all_deadlines_pass_at_once_and_in_order() -> None:
    network = Network(7)
    run_in(network, story(network), limit_s=20_000.0)


def test_a_connection_that_is_opened_as_soon_as_the_machine_is_awake_stays() -> None:
    """That it was asleep is noticed a little later, and says nothing of that connection."""

    async def story(lab: Lab) -> None:
        server, lost = await lab.node(), list[PathLost]()
        asker = await lab.asker(
            server,
            observer=lambda event: lost.append(event) if isinstance(event, PathLost) else None,
        )
        await lab.query(asker, server.node_id)
        host = lab.hosts[asker]
        host.sleep()
        await asyncio.sleep(3600.0)
        host.wake()
        await lab.query(asker, server.node_id)
        await asyncio.sleep(AWAKE_S)
        assert asker.counters["this machine was asleep"] == 1
        assert len(lost) == 1
        assert asker.connected

    in_lab(Lab, story)

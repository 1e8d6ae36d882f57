"""Work that is the same each time, to the instruction: queries between two nodes in the bottle.

``python -m benchmarks.instructions_workload QUERIES``

It runs everything that a query passes through: the public API, the engine, sealing, frames, the
handler, and back. Time, entropy and sockets are those of :mod:`simulations.virtual`, so two runs of
one commit differ by next to nothing.
"""

from __future__ import annotations

import asyncio
import gc
import sys

from egtp import Environment, Identity, Incoming, MemoryLookup, Node, NodeConfig
from simulations.virtual import Host, Network, run_in

__all__ = ["ask_many"]

AT_ONCE = 64
BODY = bytes(100)
CONFIG = NodeConfig(relays_wanted=0)


async def echo(query: Incoming) -> bytes:
    return query.body


def _node(host: Host, listen: str | tuple[()]) -> Node:
    return Node(
        Identity.generate(host.entropy),
        listen=listen,
        lookup=MemoryLookup(),
        config=CONFIG,
        environment=Environment(host.elapsed, host.unix_time, host.entropy),
    )


async def _story(network: Network, queries: int) -> int:
    here, there = network.host("asker", "11.0.0.1"), network.host("answerer", "11.0.0.2")
    answerer, asker = _node(there, "11.0.0.2:4000"), _node(here, ())
    answerer.handle("echo", echo)
    await there.run(answerer.start())
    done = await here.run(_ask(asker, answerer.link, queries))
    await there.run(answerer.close())
    return done


async def _ask(asker: Node, link: str, queries: int) -> int:
    async with asker:
        peer_id = asker.add_contact(link)
        left = queries

        async def worker() -> int:
            nonlocal left
            done = 0
            while left > 0:
                left -= 1
                done += await asker.query(peer_id, "echo", BODY) == BODY
            return done

        return sum(await asyncio.gather(*(worker() for _ in range(AT_ONCE))))


def ask_many(queries: int) -> int:
    """Ask ``queries`` times, 64 at a time. Returns how many answers were right."""
    network = Network(seed=1)
    return run_in(network, _story(network, queries), unreal=False).value


if __name__ == "__main__":
    gc.disable()  # when it runs depends on what was imported; its cost is not ours to guard
    wanted = int(sys.argv[1])
    answered = ask_many(wanted)
    if answered != wanted:
        sys.exit(f"{answered} of {wanted} queries were answered")

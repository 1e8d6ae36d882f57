"""A peer that answers "greet". When you run it, it prints the command that asks it.

It has its own DHT node for others to join through, so nothing else has to run. Both programs stay
on this machine: that is what private_addresses is for.
"""

import asyncio
import contextlib
import os

from egtp import Identity, Incoming, Node, NodeConfig
from lookup_dht import DHTLookup


async def main() -> None:
    lookup = DHTLookup("127.0.0.1:0", private_addresses=True)
    node = Node(
        Identity.generate(os.urandom),
        listen="127.0.0.1:0",
        lookup=lookup,
        config=NodeConfig(private_addresses=True),
    )

    @node.handler("greet")
    async def greet(query: Incoming) -> bytes:
        print(f"{query.peer_id} says {query.body.decode()!r}", flush=True)
        return b"hello, " + query.body

    async with lookup, node:
        print(f"now run:  python examples/ask.py {node.node_id} {lookup.address}", flush=True)
        await asyncio.Event().wait()  # until ctrl-C


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())

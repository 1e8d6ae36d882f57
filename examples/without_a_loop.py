"""Two peers that greet each other, in a program without an event loop.

Run it as it is; both stay on this machine: that is what private_addresses is for. In your own
program, give each node a lookup service that others use too, such as a DHTLookup:

    lookup = DHTLookup(bootstrap=["192.0.2.7:9100"], server=False)
    with egtp.blocking.Node(identity, lookup=lookup, services=[lookup]) as node:
"""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Timer

import egtp

lookup = egtp.MemoryLookup()
config = egtp.NodeConfig(private_addresses=True)


def greet(query: egtp.Incoming) -> bytes:
    """A plain function: it runs in a thread of its own, and may block."""
    return b"hello, " + query.body


async def ponder(_: egtp.Incoming) -> bytes:
    """An async function runs on the node's loop, and ends when its asker gives up."""
    await asyncio.sleep(60)
    return b"42"


def node(listen: Sequence[str] = ()) -> egtp.blocking.Node:
    identity = egtp.Identity.generate(os.urandom)
    return egtp.blocking.Node(identity, listen=listen, lookup=lookup, config=config)


with node(["127.0.0.1:0"]) as greeter, node() as asker:
    greeter.handle("greet", greet)
    greeter.handle("ponder", ponder)
    greeter.published()

    print(asker.query(greeter.node_id, "greet", b"world", hard_timeout_s=5).decode())

    with ThreadPoolExecutor() as threads:
        names = [b"Alice", b"Bob", b"Carol"]
        for reply in threads.map(lambda name: asker.query(greeter.node_id, "greet", name), names):
            print(reply.decode())

    try:
        asker.query(greeter.node_id, "dance")
    except egtp.HandlerFailed as error:
        print(error)

    # Another thread, such as that of a window with a button "Cancel", can give up on a query.
    pondered = asker.call(lambda node: node.open_query(greeter.node_id, "ponder"))
    Timer(0.2, asker.call, [lambda _: pondered.cancel()]).start()
    try:
        asker.run(lambda _: pondered)
    except CancelledError:
        print("given up")

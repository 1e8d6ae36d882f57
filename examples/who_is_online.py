"""Who is online? ``Presence`` keeps an app informed about a few peers: copy it into yours.

``python examples/who_is_online.py``
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from egtp import (
    HandlerFailed,
    Identity,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
    QueryFailed,
)
from egtp.events import Event, PathLost, PathOpened, RecordNotPublished, RecordPublished

OFTEN_S = 1.0
"""How soon to ask again after a change; then ever more rarely..."""
SELDOM_S = 60.0
"""...down to this."""


class Presence:
    """Asks peers whether they are there: now and then, and when something may have changed."""

    def __init__(self, changed: Callable[[NodeId, bool], object]) -> None:
        """``changed`` is told whether a peer is there, at first and then at each change."""
        self._changed = changed
        self._look: dict[NodeId, asyncio.Event] = {}

    def observe(self, event: Event) -> None:
        """Give this to the node as its observer. Problems are then not logged: do that here."""
        match event:
            case PathOpened(peer_id) | PathLost(peer_id):
                if peer_id in self._look:
                    self._look[peer_id].set()
            case RecordPublished() | RecordNotPublished():  # this machine is online, or is not
                for look in self._look.values():
                    look.set()
            case _:
                pass

    async def watch(self, node: Node, peer_id: NodeId) -> None:
        """Watch one peer until this is cancelled. Raises ``NodeClosed`` when the node is closed."""
        look = self._look[peer_id] = asyncio.Event()
        was_there, pause_s = None, OFTEN_S
        while True:
            look.clear()
            is_there = await answers(node, peer_id)
            if is_there != was_there:
                was_there, pause_s = is_there, OFTEN_S
                self._changed(peer_id, is_there)
            else:
                pause_s = min(2 * pause_s, SELDOM_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await look.wait()
            await asyncio.sleep(0.1)  # a change rarely comes alone


async def answers(node: Node, peer_id: NodeId) -> bool:
    try:
        await node.query(peer_id, "presence", hard_timeout_s=5, idempotent=True)
    except HandlerFailed:  # "no such kind" is an answer, too
        return True
    except QueryFailed:
        return False
    return True


async def main() -> None:
    here, lookup = NodeConfig(private_addresses=True), MemoryLookup()
    told: asyncio.Queue[bool] = asyncio.Queue()
    presence = Presence(lambda _, is_there: told.put_nowait(is_there))
    ann = Node(Identity.generate(os.urandom), lookup=lookup, observer=presence.observe, config=here)
    identity = Identity.generate(os.urandom)
    async with ann, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(presence.watch(ann, identity.node_id))
        for _ in range(2):
            print("Ben is", "online" if await told.get() else "offline")
            async with Node(identity, listen="127.0.0.1:0", lookup=lookup, config=here):
                print("Ben is", "online" if await told.get() else "offline")
        print("Ben is", "online" if await told.get() else "offline")
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(main())

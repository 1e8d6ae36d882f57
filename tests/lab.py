"""Lab: a few nodes, each on a machine of its own, that find each other in one table. For tests of
what the engine promises, in virtual time; whoever needs a DHT and a story takes a ``Cluster``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from discovery import StaticDiscovery
from egtp import (
    Environment,
    Identity,
    IdentityFile,
    Incoming,
    Introduction,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
    OpenQuery,
    SignedCommRecord,
)
from simulations.virtual import Fixed, Host, Link, Network, run_in

__all__ = ["LATENCY_S", "Lab", "in_lab", "kept"]

LATENCY_S: Final = 0.01
"""One way, between any two machines."""

_Lab = TypeVar("_Lab", bound="Lab")


class Lab:
    """Each node answers ``echo`` with what it was sent, and ``wait`` never."""

    def __init__(self, network: Network) -> None:
        self.network: Final = network
        self.lookup: Final = MemoryLookup(network.story.unix_time)
        self.hosts: Final[dict[Node, Host]] = {}
        """Of the nodes that are there. Take one out whose machine was crashed or killed."""
        self.records: Final[dict[Node, SignedCommRecord]] = {}
        """As of their start, or of their first relay."""
        self.called: Final = asyncio.Event()
        """Some "wait" has begun to run."""

    @property
    def now_s(self) -> float:
        return self.network.loop.now

    async def node(
        self,
        *,
        identity: Identity | IdentityFile | None = None,
        on: Host | None = None,
        listens: bool = True,
        config: NodeConfig | None = None,
        **options: Any,
    ) -> Node:
        """A node that runs, and is in the table unless it is given another lookup service."""
        host = on or self.host()
        merged: dict[str, Any] = {"lookup": self.lookup} | options
        node = Node(
            identity or Identity.generate(host.entropy),
            listen=f"{host.addresses[0]}:4000" if listens else (),
            config=config or NodeConfig(),
            environment=Environment(host.elapsed, host.unix_time, host.entropy),
            **merged,
        )
        self.hosts[node] = host

        @node.handler("echo")
        async def echo(query: Incoming) -> bytes:
            return query.body

        @node.handler("wait")
        async def wait(query: Incoming) -> bytes:
            self.called.set()
            await asyncio.Event().wait()
            return query.body

        await host.run(node.start())
        self.records[node] = node.record
        if merged["lookup"] is self.lookup:
            await host.run(node.published())
        return node

    def host(self) -> Host:
        """A machine in a network of its own."""
        number = len(self.network.hosts) + 1
        return self.network.host(f"host {number}", f"5.{number}.0.1")

    async def asker(self, *known: Node, **options: Any) -> Node:
        """A node that only dials, without a lookup service, which has the contacts of some."""
        merged: dict[str, Any] = {"listens": False, "lookup": None} | options
        node = await self.node(**merged)
        for peer in known:
            node.add_contact(self.records[peer])
        return node

    async def hidden(self, *relays: Node, **options: Any) -> Node:
        """A node that can be reached through these relays only."""
        introductions = [Introduction(relay.node_id, relay.record) for relay in relays]
        node = await self.node(listens=False, discovery=StaticDiscovery(introductions), **options)
        async with asyncio.timeout(10):
            while len(node.relays) < len(relays):
                await asyncio.sleep(LATENCY_S)
        await self.hosts[node].run(node.published())
        self.records[node] = node.record
        return node

    async def gone(self) -> Node:
        """A peer that has left: its port is closed, its record says otherwise."""
        node = await self.node()
        await self.close(node)
        return node

    async def close(self, *nodes: Node) -> None:
        for node in nodes:
            await self.hosts[node].run(node.close())

    async def query(
        self, asker: Node, peer_id: NodeId, kind: str = "echo", body: bytes = b"x", **options: Any
    ) -> bytes:
        return await self.hosts[asker].run(asker.query(peer_id, kind, body, **options))

    async def open_query(
        self, asker: Node, peer_id: NodeId, kind: str, *args: Any, **options: Any
    ) -> OpenQuery:
        """As ``asker.open_query``, from the asker's machine."""

        async def begin() -> OpenQuery:
            return asker.open_query(peer_id, kind, *args, **options)

        return await self.hosts[asker].run(begin())


def in_lab(
    kind: Callable[[Network], _Lab], story: Callable[[_Lab], Coroutine[Any, Any, None]]
) -> None:
    """Let a story happen, and end all nodes that are there at its end."""
    network = Network(1, link=Link(latency=Fixed(LATENCY_S)))

    async def whole() -> None:
        lab = kind(network)
        await story(lab)
        await lab.close(*lab.hosts)

    run_in(network, whole())


def kept(node: Node) -> list[Any]:
    """What a node holds for the sake of messages of its own that are under way."""
    engine: Any = node._engine
    searches = [p.search for p in engine.book.all() if p.search and not p.search.found.done()]
    waiting = [outgoing for peer in engine.book.all() for outgoing in peer.waiting]
    dials = engine.channels.handshakes.dials.values()
    return [*engine.exchanges.all(), *waiting, *searches, *dials]

"""Nodes on machines of a simulated network, some of them behind a NAT of their own.

Lines take 20 ms. Everybody shares one lookup service, which answers at once and remembers every
record that it was given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import pytest

from egtp import (
    Address,
    Environment,
    Identity,
    Incoming,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
    SignedCommRecord,
)
from egtp.events import Dialling, Event
from egtp.lookup import Published
from egtp.own.own_addresses import OwnState
from simulations.virtual import Fixed, Gateway, Host, Link, Nat, NatKind, Network, run_in

_T = TypeVar("_T")

PUBLIC: Final = "9.9.9.9"
INSIDE: Final = "192.168.1.2"
PORT: Final = 4000
INTERNET: Final = Link(latency=Fixed(0.02))


class History(MemoryLookup):
    """Remembers every record, and when it came."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.story.unix_time)
        self._network = network
        self.records: list[tuple[float, SignedCommRecord]] = []

    async def publish(self, record: SignedCommRecord) -> Published:
        self.records.append((self._network.loop.now, record))
        return await super().publish(record)


async def echo(query: Incoming) -> bytes:
    return query.body


class Player:
    """One node, its machine, and the addresses that it dialled."""

    def __init__(self, world: World, host: Host, options: dict[str, Any]) -> None:
        local_addresses = options.pop("local_addresses", lambda: host.addresses)
        settings: dict[str, Any] = {
            "listen": str(Address.of(host.addresses[0], PORT)),
            "config": NodeConfig(),
            "lookup": world.lookup,
            "environment": Environment(host.elapsed, host.unix_time, host.entropy, local_addresses),
        }
        self.host: Final = host
        self.dialled: Final[list[Address]] = []
        self.node: Final = Node(
            Identity.generate(host.entropy),
            observer=self._observe,
            **(settings | options),
        )
        self.node.handle("echo", echo)

    def _observe(self, event: Event) -> None:
        if isinstance(event, Dialling):
            self.dialled.append(event.address)

    @property
    def engine(self) -> Any:
        return self.node._engine

    @property
    def node_id(self) -> NodeId:
        return self.node.node_id

    @property
    def tcp(self) -> list[str]:
        """The addresses in its record."""
        return [str(strategy.address) for strategy in self.node.record.tcp]

    def state(self, address: str) -> OwnState | None:
        own = self.node.own_addresses
        return next((one.state for one in own if str(one.address) == address), None)

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await self.host.run(work)

    async def ask(self, *others: Player) -> None:
        """Talk to some others, dialling them if need be."""
        for other in others:
            assert await self.run(self.node.query(other.node_id, "echo", b"x")) == b"x"

    async def query(self, other: Player, kind: str, body: bytes) -> bytes:
        """A query of a kind that is the engine's own."""
        return await self.run(self.engine.ask_directly(other.node_id, kind, body, 8.0))

    def paths_to(self, other: Player) -> tuple[str, ...]:
        return self.node.why(other.node_id).paths


class World:
    """Made by the fixture ``play`` for each story."""

    PUBLIC: Final = f"{PUBLIC}:{PORT}"
    INSIDE: Final = f"{INSIDE}:{PORT}"

    def __init__(self, network: Network) -> None:
        self.network: Final = network
        self.lookup: Final = History(network)
        self.everybody: Final[list[Player]] = []

    @property
    def now(self) -> float:
        return self.network.loop.now

    async def start(self, host: Host, **options: Any) -> Player:
        player = Player(self, host, options)
        await player.run(player.node.start())
        self.everybody.append(player)
        return player

    async def players(self, *addresses: str, **options: Any) -> list[Player]:
        """One in the open for each address."""
        hosts = [self.network.host(f"host {address}", address) for address in addresses]
        return [await self.start(host, **options) for host in hosts]

    async def at_home(
        self, kind: NatKind = NatKind.PORT_RESTRICTED, *, forwarded: bool, **options: Any
    ) -> tuple[Gateway, Player]:
        """One that listens on everything, behind a NAT that may forward its port."""
        nat = Nat(kind, PUBLIC)
        if forwarded:
            nat.forward("tcp", PORT, (INSIDE, PORT))
        gateway = self.network.gateway("router", nat)
        host = self.network.host("home", INSIDE, behind=gateway)
        return gateway, await self.start(host, **({"listen": f"0.0.0.0:{PORT}"} | options))

    def published(self, player: Player) -> list[tuple[float, list[str]]]:
        """When which addresses were published by somebody."""
        return [
            (at_s, [str(strategy.address) for strategy in record.tcp])
            for at_s, record in self.lookup.records
            if record.peer_id == player.node_id
        ]


@pytest.fixture
def play() -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Let a story happen in a world of its own."""

    def run(story: Callable[[World], Awaitable[None]]) -> None:
        network = Network(1, link=INTERNET)

        async def inside() -> None:
            await story(World(network))

        run_in(network, inside())

    return run

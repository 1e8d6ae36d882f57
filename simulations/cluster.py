"""A real cluster on loopback: real sockets, a real DHT, every member at an address of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from discovery import DiscoveryMan
from egtp import Environment, Identity, Incoming, InvalidConfig, Node, NodeConfig
from egtp.events import Dialling, Event
from lookup_dht import DHTLookup

__all__ = ["Cluster", "ClusterPlan", "Member"]

SETTLE_TIMEOUT_S: Final = 20.0
NODES_MIN, NODES_MAX = 12, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """Who is in a cluster. Raises :class:`InvalidConfig` for one that cannot be."""

    nodes: int = 14
    """All nodes, the bootstrap nodes of the DHT aside."""
    relays: int = 3
    """How many of them are relay servers."""
    unreachable: int = 3
    """How many accept no connections."""
    bootstraps: int = 2
    """Nodes that are in the DHT only, for the others to join through."""
    seed: int = 1

    def __post_init__(self) -> None:
        if not NODES_MIN <= self.nodes <= NODES_MAX:
            raise InvalidConfig(f"--nodes is {NODES_MIN} to {NODES_MAX}, not {self.nodes}")
        if self.relays < 2:
            raise InvalidConfig(
                f"--relays is at least 2, so that one can fail over to another, not {self.relays}"
            )
        most = self.nodes - self.unreachable - 4
        if self.relays > most:
            raise InvalidConfig(
                f"{self.relays} relays leave no four peers that can be reached among {self.nodes} "
                f"nodes; use --relays {most} or fewer, or more --nodes"
            )


class Member:
    """One node of the cluster, its DHT node, and the log of what it did."""

    def __init__(self, name: str, role: str, host: str, lookup: DHTLookup, node: Node) -> None:
        self.name: Final = name
        self.role: Final = role
        self.host = host
        self.lookup: Final = lookup
        self.node: Final = node
        self.events: Final[list[Event]] = []
        self._changed = asyncio.Event()

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def saw(self, wanted: Callable[[Event], bool], since: int = 0) -> Event:
        """The first event from number ``since`` on that is ``wanted``, waiting for it."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while True:
                for event in self.events[since:]:
                    if wanted(event):
                        return event
                self._changed.clear()
                await self._changed.wait()

    def dialled(self, since: int = 0) -> Iterator[str]:
        """The addresses that this node dialled, from event number ``since`` on."""
        for event in self.events[since:]:
            if isinstance(event, Dialling):
                yield str(event.address)


class Cluster:
    """Use with ``async with``: members run inside of it, and nothing is left after it.

    Keys come from the seed, so that a run can be repeated; that is for simulations only.
    """

    def __init__(self, plan: ClusterPlan, narrate: Callable[[str], None] = lambda _: None) -> None:
        self.plan: Final = plan
        self.narrate: Final = narrate
        self.members: Final[dict[str, Member]] = {}
        self.joined_s = 0.0
        self._random = random.Random(plan.seed)
        self._next_host = 1
        self._stack = AsyncExitStack()
        self._bootstraps: list[str] = []

    async def __aenter__(self) -> Self:
        began = time.perf_counter()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        self.joined_s = time.perf_counter() - began
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def new_host(self) -> str:
        """A loopback address that no member has had."""
        number = self._next_host
        self._next_host += 1
        return f"127.{10 + self.plan.seed % 100}.{number // 250}.{1 + number % 250}"

    @property
    def relays(self) -> list[Member]:
        return [member for member in self.members.values() if member.role == "relay"]

    def peers(self, role: str) -> list[Member]:
        return [member for member in self.members.values() if member.role == role]

    async def _start(self) -> None:
        plan = self.plan
        for _ in range(plan.bootstraps):
            lookup = DHTLookup(
                f"{self.new_host()}:0",
                self._bootstraps,
                private_addresses=True,
                entropy=self._random.randbytes,
            )
            await self._stack.enter_async_context(lookup)
            self._bootstraps.append(str(lookup.address))
        self.narrate(f"{plan.bootstraps} bootstrap nodes of the DHT: {', '.join(self._bootstraps)}")

        for number in range(plan.relays):
            await self.add(f"relay-{number + 1}", "relay")
        self.narrate(f"{plan.relays} relay servers")

        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        discovery = DiscoveryMan(self._write_relays(Path(folder, "relays.toml")))
        await self._stack.enter_async_context(discovery)

        reachable = plan.nodes - plan.relays - plan.unreachable
        for number in range(reachable):
            await self.add(f"peer-{number + 1}", "reachable", discovery)
        for number in range(plan.unreachable):
            await self.add(f"hidden-{number + 1}", "unreachable", discovery)
        self.narrate(f"{reachable} peers that can be reached, {plan.unreachable} that cannot")
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await asyncio.gather(*map(self.settled, self.members.values()))
        self.narrate("everybody's record is in the DHT")

    def _write_relays(self, path: Path) -> Path:
        entries = (f'[[relay]]\ncontact = "{relay.node.link}"\n' for relay in self.relays)
        path.write_text("".join(entries))
        return path

    async def settled(self, member: Member) -> None:
        """Wait until a member holds its leases and its record is stored."""
        wanted = 0 if member.role == "relay" else min(self.plan.relays, 3)
        while len(member.node.relays) < wanted:
            await member.saw(lambda _: True, len(member.events))
        await member.node.published()

    async def add(self, name: str, role: str, discovery: DiscoveryMan | None = None) -> Member:
        """Start another member."""
        host = self.new_host()
        reachable = role != "unreachable"
        lookup = DHTLookup(
            f"{host}:0",
            self._bootstraps,
            server=reachable,
            private_addresses=True,
            entropy=self._random.randbytes,
        )
        member: Member | None = None

        def observe(event: Event) -> None:
            if member is not None:
                member.observe(event)

        node = Node(
            Identity.generate(self._random.randbytes),
            listen=f"{host}:0" if reachable else (),
            dial_from=host,
            lookup=lookup,
            discovery=discovery,
            relay_server=role == "relay",
            config=NodeConfig(private_addresses=True),
            environment=Environment(entropy=self._random.randbytes),
            observer=observe,
        )
        member = Member(name, role, host, lookup, node)
        node.handle("echo", _echo)
        await self._stack.enter_async_context(lookup)
        await self._stack.enter_async_context(node)
        self.members[name] = member
        return member

    async def remove(self, member: Member) -> None:
        """The member goes away for good."""
        await member.node.close()
        await member.lookup.close()
        with contextlib.suppress(KeyError):
            del self.members[member.name]


async def _echo(query: Incoming) -> bytes:
    return query.body

"""Cluster: real nodes and a real DHT, each node at an address of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from discovery import DiscoveryMan
from egtp import InvalidConfig, NodeId
from egtp.events import Event, RecordPublished
from lookup_dht import DHTLookup
from simulations.checkers import Checkers
from simulations.expectations import within
from simulations.member import Member, Role
from simulations.plan import ClusterPlan
from simulations.virtual import Network
from simulations.world import LoopbackWorld, VirtualWorld, World

__all__ = ["Cluster"]

PATIENCE_S: Final = 20.0
"""How long a story waits for anything before it counts as not happening."""
START_S_PER_NODE: Final = 1.0
"""Extra time for the start per node: all nodes join at once, in one process."""
LEASES_MAX: Final = 3
"""How many relays a node wants at a time by default."""
NAMES: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")


class Cluster:
    """Use it with ``async with``: members run within the block, and nothing is left after it.

    Its verbs (:meth:`move`, :meth:`hide`, :meth:`leave`, :meth:`crash`) are the events of stories.
    """

    def __init__(
        self,
        plan: ClusterPlan,
        world: World | None = None,
        *,
        narrate: Callable[[str], None] = lambda _: None,
        watch: Callable[[Member, Event], None] = lambda *_: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """``world`` has a seed of its own; by default it is this machine, with the seed of the
        plan. ``narrate`` is called with the progress of the start, ``watch`` with every event."""
        self.plan: Final = plan
        self.world: Final[World] = world or LoopbackWorld(plan.seed)
        self.patience_s: Final = patience_s
        self.members: Final[list[Member]] = []
        self.bootstraps: Final[list[DHTLookup]] = []
        self.checkers: Final = Checkers(self.world.elapsed)
        self.joined_s = 0.0
        """How long it took until every record was in the DHT."""
        self._narrate = narrate
        self._watch = watch
        self._stack = AsyncExitStack()
        self._names: dict[NodeId, str] = {}
        self._discovery: DiscoveryMan | None = None

    # Life

    async def __aenter__(self) -> Self:
        self.world.check()
        began_s = self.world.elapsed()
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        self.joined_s = self.world.elapsed() - began_s
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _start(self) -> None:
        plan = self.plan
        for number in range(1, plan.bootstraps + 1):
            await self._add_bootstrap(f"bootstrap-{number}")
        self._narrate(f"bootstrap nodes of the DHT: {', '.join(self._seeds)}")

        relays = [self._make(f"relay-{n}", Role.RELAY) for n in range(1, plan.relays + 1)]
        await self._start_together(relays)
        self._narrate(f"{plan.relays} relays, and a file that names them for the others")

        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="egtp-cluster-"))
        file = Path(folder, "relays.toml")
        _write_relay_file(file, (relay.node.link for relay in relays))
        discovery = await self._stack.enter_async_context(DiscoveryMan(file))
        self._discovery = discovery

        names = [*NAMES, *(f"peer-{n}" for n in range(len(NAMES) + 1, plan.reachable + 1))]
        peers = [self._make(name, Role.REACHABLE, discovery) for name in names[: plan.reachable]]
        peers += [
            self._make(f"hidden-{n}", Role.UNREACHABLE, discovery)
            for n in range(1, plan.unreachable + 1)
        ]
        await self._start_together(peers)
        self._narrate(
            f"{plan.reachable} peers that can be reached, {plan.unreachable} that accept nothing"
        )
        self._narrate(
            f"each has leases at {min(plan.relays, LEASES_MAX)} relays, and its record in the DHT"
        )

    async def _add_bootstrap(self, name: str) -> None:
        machine = self.world.machine(name)
        lookup = DHTLookup(
            f"{machine.address}:0",
            self._seeds,
            private_addresses=self.world.private_addresses,
            unix_time=machine.environment.unix_time,
            elapsed=machine.environment.elapsed,
            entropy=machine.environment.entropy,
        )
        self._stack.push_async_callback(lambda: machine.end(lookup.close()))
        await machine.run(lookup.start())
        self.bootstraps.append(lookup)

    @property
    def _seeds(self) -> list[str]:
        return [str(bootstrap.address) for bootstrap in self.bootstraps]

    def _make(self, name: str, role: Role, discovery: DiscoveryMan | None = None) -> Member:
        member = Member(
            name,
            role,
            self.world.machine(name, reachable=role is not Role.UNREACHABLE),
            bootstraps=self._seeds,
            discovery=discovery,
            watch=self._watch,
            patience_s=self.patience_s,
            private_addresses=self.world.private_addresses,
            checkers=self.checkers,
        )
        # From now on it is closed with the cluster, even if it is never started.
        self.members.append(member)
        self._names[member.node_id] = member.name
        return member

    async def _start_together(self, members: Iterable[Member]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for member in members:
                    group.create_task(self._start_one(member))
        except ExceptionGroup as errors:
            # One reason is enough for a reader, and callers catch its own type.
            raise errors.exceptions[0] from None

    async def _start_one(self, member: Member) -> None:
        await member.start()
        wanted = 0 if member.role is Role.RELAY else min(self.plan.relays, LEASES_MAX)

        def leased(event: Event) -> bool:
            # Each confirmed lease leads to a new record, so this event follows the last lease.
            return isinstance(event, RecordPublished) and len(member.node.relays) >= wanted

        limit_s = self.patience_s + self.plan.nodes * START_S_PER_NODE
        await member.saw(f"{member.name} holds {wanted} leases", leased, limit_s=limit_s)
        await self.published(member)

    async def _close(self) -> None:
        try:
            await asyncio.gather(*(member.close() for member in self.members))
        finally:
            await self._stack.aclose()

    # Members

    def those(self, role: Role) -> list[Member]:
        """The members of this role, in the order in which they were created."""
        return [member for member in self.members if member.role is role]

    def words(self, thing: object) -> str:
        """A strategy, path or attempt as text, with members' names in place of their ids."""
        text = str(thing)
        for node_id, name in self._names.items():
            text = text.replace(f"relay {node_id}", name).replace(str(node_id), name)
        return text

    def name_of(self, node_id: NodeId) -> str:
        """A member's name; for any other node, its id as text."""
        return self._names.get(node_id, str(node_id))

    def relay_of(self, path: str) -> Member | None:
        """The relay that a path goes through, if any."""
        relays = self.those(Role.RELAY)
        return next((relay for relay in relays if path == f"relay {relay.node_id}"), None)

    @property
    def stored(self) -> list[int]:
        """For each member, how many nodes confirmed that they hold its last published record."""
        last = (
            next((e for e in reversed(m.events) if isinstance(e, RecordPublished)), None)
            for m in self.members
        )
        return [event.published.stored for event in last if event is not None]

    # Events

    @property
    def network(self) -> Network:
        """The simulated network. Raises :class:`InvalidConfig` on a real machine."""
        if not isinstance(self.world, VirtualWorld):
            raise InvalidConfig("that can happen in a virtual world only, not on this machine")
        return self.world.network

    async def join(self, name: str, role: Role = Role.REACHABLE) -> Member:
        """A new member joins. Returns once its record is stored."""
        member = self._make(name, role, self._discovery)
        await self._start_one(member)
        return member

    async def published(self, member: Member) -> int:
        """Wait until a member's current record is stored. Returns by how many nodes."""
        text = f"the record of {member.name} is stored in the DHT"
        return (await within(self.patience_s, text, member.node.published())).stored

    async def move(self, member: Member) -> None:
        """The member's machine gets a new address, and loses the old one."""
        await member.move()

    async def hide(self, member: Member) -> None:
        """The member accepts no more connections, and its open ones are cut."""
        await member.hide()

    async def leave(self, member: Member) -> None:
        """The member ends properly, and says goodbye to everybody."""
        await member.close()

    async def crash(self, member: Member) -> None:
        """The member ends without a goodbye."""
        await member.crash()


def _write_relay_file(file: Path, links: Iterable[str]) -> None:
    """Write the file that :class:`DiscoveryMan` reads."""
    file.write_text("".join(f'[[relay]]\ncontact = "{link}"\n' for link in links))

"""Member: one node of a cluster, with its DHT node and the log of what it did."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from typing import Final

from discovery import DiscoveryMan
from egtp import Identity, Incoming, Node, NodeConfig, NodeId
from egtp.events import Dialling, Event, PathLost, RecordLearned
from lookup_dht import DHTLookup
from simulations.expectations import within
from simulations.world import Machine

__all__ = ["Member", "Role"]

HARD_TIMEOUT_S: Final = 10.0
"""Of the queries in stories. Nothing comes near it."""


class Role(enum.Enum):
    """What a member is for the others."""

    RELAY = "relay"
    REACHABLE = "peer"
    UNREACHABLE = "hidden"


class Member:
    """A node that answers ``echo`` with what it was sent, at an address of its own."""

    def __init__(
        self,
        name: str,
        role: Role,
        machine: Machine,
        *,
        bootstraps: Iterable[str],
        discovery: DiscoveryMan | None,
        watch: Callable[[Member, Event], None],
        patience_s: float,
        private_addresses: bool,
    ) -> None:
        reachable = role is not Role.UNREACHABLE
        self.name: Final = name
        self.role: Final = role
        self.machine: Final = machine
        self.gone = False
        self.crashed = False
        self.events: Final[list[Event]] = []
        """Everything that its observer was told, in order."""
        self.lookup: Final = DHTLookup(
            f"{machine.address}:0",
            bootstraps,
            server=reachable,
            private_addresses=private_addresses,
            unix_time=machine.environment.unix_time,
            elapsed=machine.environment.elapsed,
            entropy=machine.environment.entropy,
        )
        self.node: Final = Node(
            Identity.generate(machine.environment.entropy),
            listen=f"{machine.address}:0" if reachable else (),
            dial_from=machine.address,
            lookup=self.lookup,
            discovery=discovery,
            relay_server=role is Role.RELAY,
            config=NodeConfig(private_addresses=private_addresses, hard_timeout_s=HARD_TIMEOUT_S),
            environment=machine.environment,
            observer=self._observe,
        )
        self.node.handle("echo", _echo)
        self._watch = watch
        self._patience_s = patience_s
        self._changed = asyncio.Event()

    async def start(self) -> None:
        await self.machine.run(self._start())

    async def close(self) -> None:
        """A second time does nothing, as with its parts."""
        if not self.crashed:
            self.gone = True
            await self.machine.run(self._close())

    async def move(self) -> None:
        """The machine has another address now, and the node is told."""
        await self.machine.run(self._move(self.machine.gain_address()))
        self.machine.lose_address()

    async def hide(self) -> None:
        """Accept no connections any more, and cut those that there are."""
        await self.machine.run(self.node.move((), dial_from=self.host))

    async def crash(self) -> None:
        """End without a word."""
        self.gone = self.crashed = self.machine.kill()
        if not self.crashed:
            # On a real machine that lives on, as near as can be: connections are cut before it can
            # say goodbye.
            await self.hide()
            await self.close()

    async def _start(self) -> None:
        await self.lookup.start()
        await self.node.start()

    async def _close(self) -> None:
        await self.node.close()
        await self.lookup.close()

    async def _move(self, address: str) -> None:
        await self.lookup.rebind(f"{address}:0")
        await self.node.move(f"{address}:0", dial_from=address)

    @property
    def host(self) -> str:
        """Its machine's address."""
        return self.machine.address

    @property
    def node_id(self) -> NodeId:
        return self.node.node_id

    # Talking

    async def ask(self, other: Member, body: bytes) -> bytes:
        """What the other one answers."""
        return await self.machine.run(self.node.query(other.node_id, "echo", body))

    def path_to(self, other: Member) -> str:
        """How the next message to the other one would travel."""
        return next(iter(self.node.why(other.node_id).paths), "none")

    @property
    def relayed_bytes(self) -> int:
        """What crossed this relay so far, as counted by itself."""
        server = self.node.relay_server
        return 0 if server is None else server.counters["relayed bytes"]

    @property
    def lookup_datagrams(self) -> int:
        """What its DHT node sent so far to find something."""
        sent = self.lookup.counters
        return sum(count for name, count in sent.items() if name.startswith("sent_find"))

    # The log

    @property
    def mark(self) -> int:
        """A moment in the log: what happens from now on has this number or a higher one."""
        return len(self.events)

    async def saw(
        self,
        text: str,
        wanted: Callable[[Event], bool],
        since: int = 0,
        limit_s: float | None = None,
    ) -> Event:
        """The first event since a mark that is ``wanted``, waiting for it.

        Raises :class:`Stopped` with ``text`` if it does not come.
        """
        return await within(limit_s or self._patience_s, text, self._saw(wanted, since))

    async def lost(self, other: Member, since: int) -> None:
        """Wait until this member knows that its path to the other one is gone."""

        def wanted(event: Event) -> bool:
            return isinstance(event, PathLost) and event.peer_id == other.node_id

        await self.saw(f"{self.name} notices that the way to {other.name} is gone", wanted, since)

    def dialled(self, since: int = 0) -> list[str]:
        """The addresses that this member dialled since a mark."""
        return [str(e.address) for e in self.events[since:] if isinstance(e, Dialling)]

    def learned(self, other: Member, sequence: int) -> int | None:
        """The mark at which this member took a record of the other one that was numbered
        ``sequence`` or higher; None if it has none."""
        for number, event in enumerate(self.events):
            if (
                isinstance(event, RecordLearned)
                and event.record.peer_id == other.node_id
                and event.record.sequence >= sequence
            ):
                return number
        return None

    def _observe(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()
        self._watch(self, event)

    async def _saw(self, wanted: Callable[[Event], bool], since: int) -> Event:
        while True:
            while since < len(self.events):
                if wanted(self.events[since]):
                    return self.events[since]
                since += 1
            self._changed.clear()
            await self._changed.wait()


async def _echo(query: Incoming) -> bytes:
    return query.body

"""Member: one node of a cluster, with its DHT node and its log of events."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from typing import Final

from discovery import DiscoveryMan
from egtp import Identity, IdentityFile, Incoming, Node, NodeConfig, NodeId
from egtp.events import Dialling, Event, PathLost, RecordLearned
from lookup_dht import DHTLookup
from simulations.checkers import MARK_BYTES, Checkers
from simulations.expectations import within
from simulations.world import Machine

__all__ = ["Member", "Role"]

HARD_TIMEOUT_S: Final = 10.0
"""The hard timeout of queries in stories. Nothing comes near it."""


class Role(enum.Enum):
    """The role of a member in its cluster."""

    RELAY = "relay"
    REACHABLE = "peer"
    UNREACHABLE = "hidden"


class Member:
    """A node, on a machine of its own, that answers ``echo`` with the body it was sent."""

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
        checkers: Checkers,
    ) -> None:
        self.name: Final = name
        self.role: Final = role
        self.machine: Final = machine
        self.gone = False
        """Whether it has ended; it may be restarted."""
        self.events: Final[list[Event]] = []
        """All events of its node, in order."""
        self._bootstraps = tuple(bootstraps)
        self._discovery = discovery
        self._private_addresses = private_addresses
        self._checkers = checkers
        self._watch = watch
        self._patience_s = patience_s
        self._changed = asyncio.Event()
        self._identity: Identity | IdentityFile = self._open_identity()
        self._make()

    def _open_identity(self) -> Identity | IdentityFile:
        entropy = self.machine.environment.entropy
        if self.machine.disk is None:
            return Identity.generate(entropy)
        return IdentityFile.open(self.machine.disk / "identity.pem", entropy=entropy)

    def _make(self) -> None:
        """Create a new node and its DHT node."""
        machine, reachable = self.machine, self.role is not Role.UNREACHABLE
        environment = machine.environment
        self.lookup = DHTLookup(
            f"{machine.address}:0",
            self._bootstraps,
            server=reachable,
            private_addresses=self._private_addresses,
            unix_time=environment.unix_time,
            elapsed=environment.elapsed,
            entropy=environment.entropy,
        )
        self.node = Node(
            self._identity,
            listen=f"{machine.address}:0" if reachable else (),
            dial_from=machine.address,
            lookup=self._checkers.watched(self.name, self.lookup, environment.unix_time),
            discovery=self._discovery,
            relay_server=self.role is Role.RELAY,
            config=NodeConfig(
                private_addresses=self._private_addresses, hard_timeout_s=HARD_TIMEOUT_S
            ),
            environment=environment,
            observer=self._observe,
        )
        self.node.handle("echo", self._echo)

    # Events

    async def start(self) -> None:
        await self.machine.run(self._start())

    async def close(self) -> None:
        """End properly, and say goodbye, unless its machine is asleep or down. Idempotent."""
        if not self.gone:
            self.gone = True
            await self.machine.end(self._close())
            self._ended()

    async def move(self) -> None:
        """Give the machine another address, and tell the node."""
        await self.machine.run(self._move(self.machine.gain_address()))
        self.machine.lose_address()

    async def hide(self) -> None:
        """Accept no more connections, and cut the open ones."""
        await self.machine.run(self.node.move((), dial_from=self.host))

    async def crash(self) -> None:
        """End without a goodbye."""
        if self.machine.kill():
            self._ended()
        else:
            # A real machine lives on. This comes closest: cut the connections before the node can
            # say goodbye.
            await self.hide()
            await self.close()

    def cut_power(self) -> None:
        """Its machine stops, and not even its system tells anybody. Virtual worlds only."""
        self.machine.host.crash()
        self._ended()

    async def restart(self, *, keep_disk: bool = True, clock_offset_s: float | None = None) -> None:
        """Restart after a crash: as the same peer if its disk is kept. Virtual worlds only."""
        if not self.gone:
            self.cut_power()
        self.machine.host.restart(keep_disk=keep_disk, clock_offset_s=clock_offset_s)
        self._identity = self._open_identity()
        self._checkers.started_again(self.name)
        self._make()
        self.gone = False
        await self.start()

    def _ended(self) -> None:
        self.gone = True
        if isinstance(self._identity, IdentityFile):
            self._identity.close()

    async def _start(self) -> None:
        await self.lookup.start()
        await self.node.start()

    async def _close(self) -> None:
        await self.node.close()
        await self.lookup.close()
        self._checkers.left(self.name)

    async def _move(self, address: str) -> None:
        await self.lookup.rebind(f"{address}:0")
        listen = f"{address}:0" if self.role is not Role.UNREACHABLE else ()
        await self.node.move(listen, dial_from=address)

    @property
    def host(self) -> str:
        """Its machine's address."""
        return self.machine.address

    @property
    def node_id(self) -> NodeId:
        return self.node.node_id

    # Queries

    async def ask(self, other: Member, body: bytes, hard_timeout_s: float | None = None) -> bytes:
        """Query another member, and return its reply. The checkers watch the query."""
        marked = self._checkers.mark(body)
        query = self.node.query(other.node_id, "echo", marked, hard_timeout_s=hard_timeout_s)
        with self._checkers.asking(self.name, self.node, other.name, marked):
            reply = await self.machine.run(query)
            self._checkers.answered(self.name, other.name, marked, reply)
        return reply[MARK_BYTES:]

    def path_to(self, other: Member) -> str:
        """The path of the next message to another member."""
        return next(iter(self.node.why(other.node_id).paths), "none")

    @property
    def relayed_bytes(self) -> int:
        """Bytes that this relay has passed on so far, by its own counters."""
        server = self.node.relay_server
        return 0 if server is None else server.counters["relayed bytes"]

    @property
    def lookup_datagrams(self) -> int:
        """Datagrams that its DHT node has sent so far to look something up."""
        sent = self.lookup.counters
        return sum(count for name, count in sent.items() if name.startswith("sent_find"))

    # The log

    @property
    def mark(self) -> int:
        """The current position in the log: later events have this number or a higher one."""
        return len(self.events)

    async def saw(
        self,
        text: str,
        wanted: Callable[[Event], bool],
        since: int = 0,
        limit_s: float | None = None,
    ) -> Event:
        """Wait for the first event since a mark that is ``wanted``, and return it.

        Raises :class:`Stopped` with ``text`` if it does not come in time.
        """
        return await within(limit_s or self._patience_s, text, self._saw(wanted, since))

    async def lost(self, other: Member, since: int) -> None:
        """Wait until this member notices that a path to the other one is gone."""

        def wanted(event: Event) -> bool:
            return isinstance(event, PathLost) and event.peer_id == other.node_id

        await self.saw(f"{self.name} notices that the way to {other.name} is gone", wanted, since)

    def dialled(self, since: int = 0) -> list[str]:
        """The addresses that this member dialled since a mark."""
        return [str(e.address) for e in self.events[since:] if isinstance(e, Dialling)]

    def learned(self, other: Member, sequence: int) -> int | None:
        """The mark at which this member learned a record of the other one with this sequence or a
        higher one; None if it has not."""
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

    async def _echo(self, query: Incoming) -> bytes:
        self._checkers.handled(self.name, query)
        return query.body

"""A running node: kademlia's server, whose every lookup, store and refresh goes the hardened way.

Records are kept under the raw peerId: upstream would hash the key once more. Nothing here stores
a record on its own: whoever signed it publishes it again in time, and it says when it ends.
"""

from __future__ import annotations

import asyncio
import collections
import os
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from kademlia.network import Server

from egtp.comm_record import SignedCommRecord, supersedes
from egtp.errors import InvalidConfig, InvalidRecord
from lookup_dht.contact import Contact, SocketAddress, pack_ip
from lookup_dht.datagram import Reply, StoreStatus
from lookup_dht.kademlia_crawl import LookupCrawl
from lookup_dht.kademlia_protocol import Answer, LookupProtocol
from lookup_dht.kademlia_storage import RecordStore
from lookup_dht.node_id import fits, new_node_id
from lookup_dht.settings import NodeSettings

__all__ = ["Found", "LookupServer", "Stored"]


@dataclass(slots=True)
class Found:
    """What a walk for a record came upon."""

    record: SignedCommRecord | None = None
    """The newest valid one, this node's own copy included."""
    asked: int = 0
    heard: int = 0
    invalid: int = 0
    """Nodes that gave something that is no valid record of that peer."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How many nodes were asked to store a record, and what they said."""

    asked: int
    stored: int
    newer_held: int


class LookupServer(Server):  # type: ignore[misc]
    """Upstream's life cycle: ``listen``, ``bootstrap``, then ``get_record`` and ``put_record``,
    and ``close``, which leaves no task, timer or socket behind."""

    protocol_class = LookupProtocol

    def __init__(
        self,
        settings: NodeSettings,
        node_id: bytes,
        seeds: Iterable[SocketAddress] = (),
    ) -> None:
        self.counters: collections.Counter[str] = collections.Counter()
        self._settings = settings
        self._limits = settings.limits
        self._seeds = tuple(seeds)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep_task: asyncio.Task[None] | None = None
        self._joining: asyncio.Task[list[Contact]] | None = None
        self._rejoin_at = 0.0
        self._greeted = 0
        self._rejoin_delay_s = self._limits.rejoin_delay_min_s
        super().__init__(
            ksize=self._limits.replication,
            alpha=self._limits.parallel_queries,
            node_id=node_id,
            storage=RecordStore(node_id, settings, self.counters),
        )
        self.node: Any
        self.storage: RecordStore
        self.transport: Any
        # One for ever: open queries, table and records outlive a change of sockets.
        self.protocol: LookupProtocol = self.protocol_class(
            self.node, self.storage, self.ksize, settings, self.counters
        )
        self.protocol.seeds.update(self._seeds)

    # Life cycle.

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:  # noqa: S104
        """Bind, and look after the table from now on. A node that listens already moves to the
        new address. Raises :class:`InvalidConfig`."""
        old = self.transport
        try:
            await super().listen(port, interface)
        except OSError as error:
            # The loops' own texts repeat the address, as a tuple; uvloop has the number below it.
            number = error.errno or getattr(error.__cause__, "errno", None)
            reason = os.strerror(number) if number else str(error)
            raise InvalidConfig(
                f"cannot listen on UDP {interface}:{port} ({reason}); "
                "free it or choose another address"
            ) from None
        if old is not None:
            old.close()

    def _create_protocol(self) -> LookupProtocol:
        return self.protocol

    @property
    def bound(self) -> SocketAddress:
        """Where the node listens."""
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port

    def stop(self) -> None:
        """Begin to end everything; :meth:`close` waits for it."""
        for task in self._tasks:
            task.cancel()
        super().stop()

    async def close(self) -> None:
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.protocol.close()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Joining and upkeep.

    async def bootstrap(self, addrs: Iterable[SocketAddress] = ()) -> list[Contact]:
        """Greet ``addrs`` and the seeds, and the contacts known, and look this node up, so that its
        neighbours meet it. Gives the neighbours; none if nobody answered. Calls at the same time
        share the work."""
        if self._joining is None or self._joining.done():
            self._joining = self._spawn(self._join(tuple(addrs)))
        return await asyncio.shield(self._joining)

    async def _join(self, addrs: tuple[SocketAddress, ...]) -> list[Contact]:
        router = self.protocol.router
        known = self.bootstrappable_neighbors()
        addresses = dict.fromkeys((*self._seeds, *addrs, *known, *router.former))
        await asyncio.gather(*map(self.bootstrap_node, addresses))
        self._adopt_fitting_id()
        peers = router.find_neighbors(self.node)
        self._schedule_rejoin(bool(peers))
        return await LookupCrawl(self.protocol, self.node, peers, self._settings).find()

    async def bootstrap_node(self, addr: SocketAddress) -> Contact | None:
        """Ping an address whose id is not known yet."""
        packed = pack_ip(addr[0])
        if packed is None or len(packed) != self.protocol.family_bytes:
            return None
        happened, reply = await self.protocol.ping(addr, self.node.id)
        if not happened or reply is None or reply.sender == self.node.id:
            return None
        contact = Contact(reply.sender, packed, addr[1])
        self.protocol.handle_call_response((True, reply), contact)
        return contact

    def bootstrappable_neighbors(self) -> list[SocketAddress]:
        return [contact.address for contact in self.protocol.router.find_neighbors(self.node)]

    def refresh_table(self, interval: float | None = None) -> None:
        """Called by ``listen``. Upstream's timer calls all nodes at once to refresh all at once."""
        if self._upkeep_task is None:
            self._upkeep_task = self._spawn(
                self._upkeep(interval or self._limits.upkeep_interval_s)
            )

    async def _upkeep(self, interval_s: float) -> None:
        while True:
            wait_s = interval_s
            if not len(self.protocol.router):
                wait_s = min(wait_s, self._rejoin_delay_s)
            await asyncio.sleep(self._settings.jitter(wait_s))
            await self._refresh_table()

    async def _refresh_table(self) -> None:
        """A little of everything that a node has to do now and then, and never a STORE."""
        router = self.protocol.router
        self.storage.drop_expired()
        self._adopt_fitting_id()
        few = len(router) < self.ksize // 2 and (self._seeds or router.former or len(router))
        if few and self._settings.elapsed() >= self._rejoin_at:
            await self.bootstrap()
        await self._greet_a_lost_one()
        for contact in router.silent_contacts(self.alpha):
            self.protocol.check(contact)
        for target in self.protocol.get_refresh_ids()[:1]:
            await self._crawl(target).find()
            self.counters["bucket_refreshed"] += 1

    async def _greet_a_lost_one(self) -> None:
        """A network that was cut in two heals only if somebody of one half asks one of the other:
        each half has forgotten the other, and is large enough to want for nothing."""
        known = dict.fromkeys((*self._seeds, *self.protocol.router.former))
        lost = [address for address in known if not self.protocol.router.has_address(address)]
        if not lost:
            return
        self._greeted += 1
        if await self.bootstrap_node(lost[self._greeted % len(lost)]) is not None:
            self.counters["lost_node_met_again"] += 1
            await self._crawl(self.node.id).find()

    def _schedule_rejoin(self, joined: bool) -> None:
        """A small network is no reason to greet it every half minute; an empty table is."""
        limits = self._limits
        if joined:
            self._rejoin_delay_s = limits.rejoin_delay_min_s
            delay_s = limits.refresh_interval_s
        else:
            delay_s = self._rejoin_delay_s
            self._rejoin_delay_s = min(2 * delay_s, limits.rejoin_delay_max_s)
        self._rejoin_at = self._settings.elapsed() + delay_s / 2

    def _adopt_fitting_id(self) -> None:
        """Others do not take a node whose id does not fit its address, so once it is known how
        they see us, the id follows it."""
        seen = self.protocol.votes.winner()
        if seen is None or fits(self.node.id, seen) or not self._settings.server:
            return
        node_id = new_node_id(seen, self._settings.entropy)
        self.node = type(self.node)(node_id)
        self.protocol.source_node = self.node
        self.protocol.router.recenter(self.node)
        self.storage.center = node_id
        self.counters["node_id_changed"] += 1

    # Records.

    async def get_record(self, peer_id: bytes) -> Found:
        """Ask the nodes closest to ``peer_id``, all of them, and take the newest valid record.
        A majority of old ones outvotes nothing."""
        found = Found(self.storage.record(peer_id))

        def on_reply(reply: Reply) -> None:
            if not reply.record:
                return
            try:
                record = self.storage.verify(peer_id, reply.record)
            except InvalidRecord:
                found.invalid += 1
                return
            if record.expired(self._settings.unix_time()):
                self.counters["record_expired"] += 1
            elif supersedes(record, found.record):
                found.record = record

        await self._ensure_contacts()
        crawl = self._crawl(peer_id, on_reply)
        await crawl.find_value()
        found.asked, found.heard = crawl.walk.asked, crawl.walk.heard
        return found

    async def put_record(self, peer_id: bytes, data: bytes) -> Stored:
        """Store on the closest nodes, and here if this node is one of them; that copy does not
        count. Returns when all have answered, or when half of them store it and the others
        are slow; these are still asked in the background."""
        await self._ensure_contacts()
        nodes = await self._crawl(peer_id).find()
        self._keep_if_close(peer_id, data, nodes)
        stores = [
            self._spawn(self.protocol.call_store(contact, peer_id, data)) for contact in nodes
        ]
        try:
            await self._enough(stores)
        except asyncio.CancelledError:
            for store in stores:
                store.cancel()
            raise
        statuses = [_status_of(store) for store in stores]
        return Stored(
            asked=len(nodes),
            stored=statuses.count(StoreStatus.STORED),
            newer_held=statuses.count(StoreStatus.NEWER_HELD),
        )

    async def _enough(self, stores: list[asyncio.Task[Answer]]) -> None:
        waiting = set(stores)
        while waiting:
            stored = sum(_status_of(store) is StoreStatus.STORED for store in stores)
            enough = stored >= (len(stores) + 1) // 2
            answered, waiting = await asyncio.wait(
                waiting,
                timeout=self._limits.soft_timeout_s if enough else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not answered:
                return

    def _keep_if_close(self, peer_id: bytes, data: bytes, nodes: list[Contact]) -> None:
        if not self._settings.server:
            return
        target = int.from_bytes(peer_id, "big")
        own_distance = self.node.long_id ^ target
        if sum(node.long_id ^ target < own_distance for node in nodes) < self.ksize:
            self.storage.put(peer_id, data)

    async def _ensure_contacts(self) -> None:
        if not len(self.protocol.router):
            await self.bootstrap()

    def _crawl(self, target: bytes, on_reply: Any = None) -> LookupCrawl:
        node = type(self.node)(target)
        self.protocol.router.touch(node)
        peers = self.protocol.router.find_neighbors(node)
        return LookupCrawl(self.protocol, node, peers, self._settings, on_reply)

    # Upstream's names for it, whose keys are strings that it hashes.

    async def get(self, key: bytes) -> bytes | None:
        """The newest record of the peer ``key``."""
        found = await self.get_record(key)
        return None if found.record is None else found.record.encode()

    async def set(self, key: bytes, value: bytes) -> bool:
        """Store the record ``value`` under the peerId ``key``, both bytes."""
        return await self.set_digest(key, value)

    async def set_digest(self, dkey: bytes, value: bytes) -> bool:
        return (await self.put_record(dkey, value)).stored > 0

    def save_state(self, fname: str) -> NoReturn:
        """Upstream pickles; see :mod:`lookup_dht.state_file`."""
        raise NotImplementedError("a node's state is written by lookup_dht.state_file")

    @classmethod
    async def load_state(cls, fname: str, port: int, interface: str = "") -> NoReturn:
        raise NotImplementedError("a node's state is read by lookup_dht.state_file")


def _status_of(store: asyncio.Task[Answer]) -> StoreStatus | None:
    if not store.done() or store.cancelled():
        return None
    happened, reply = store.result()
    return reply.status if happened and reply is not None else None

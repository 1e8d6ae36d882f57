"""A running node: kademlia's server, with every lookup, store and refresh replaced by a hardened
one.

Records are stored under the raw peerId, where upstream would hash the key once more. Nothing here
republishes a record: its signer does so in time, and the record itself says when it expires.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
from collections.abc import Coroutine, Iterable
from typing import Any, NoReturn

from kademlia.network import Server

from egtp.errors import InvalidConfig, InvalidRecord, in_words
from lookup_dht.ipv6_socket import send_from_lasting_address
from lookup_dht.membership.joining import Joining
from lookup_dht.membership.upkeep import Upkeep
from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.records.record_file import RecordFile
from lookup_dht.settings import NodeSettings
from lookup_dht.walks.record_walks import RecordWalks
from lookup_dht.wire.contact import Contact, SocketAddress

__all__ = ["LookupServer"]


class LookupServer(Server):  # type: ignore[misc]
    """Upstream's life cycle: ``listen``, ``bootstrap``, find and store through ``walks``, then
    ``close``, which leaves no task, timer or socket behind."""

    protocol_class = LookupProtocol

    def __init__(
        self,
        settings: NodeSettings,
        node_id: bytes,
        seeds: Iterable[SocketAddress] = (),
        file: RecordFile | None = None,
        counters: collections.Counter[str] | None = None,
    ) -> None:
        """The hosts of ``seeds`` are IP addresses, or names if the settings can resolve them."""
        # Not counters or Counter(): an empty Counter is false, but shared with the record file.
        self.counters: collections.Counter[str] = (
            collections.Counter() if counters is None else counters
        )
        self._settings = settings
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep_task: asyncio.Task[None] | None = None
        self._listening = asyncio.Lock()
        """Held while the socket is replaced: by a join, or because somebody asked for it."""
        self._asked_for: tuple[str, int]
        """Where to listen; the port is 0 if any will do."""
        super().__init__(
            ksize=settings.limits.replication,
            alpha=settings.limits.parallel_queries,
            node_id=node_id,
            storage=RecordStore(node_id, settings, self.counters, file),
        )
        self.node: Any
        self.storage: RecordStore
        self.transport: Any
        # One protocol for life: open queries, table and records survive a change of sockets.
        self.protocol: LookupProtocol = self.protocol_class(
            self.node, self.storage, self.ksize, settings, self.counters
        )
        self.walks = RecordWalks(self.protocol, self.storage, settings, self.counters)
        self.joining = Joining(
            self.protocol, self.walks, seeds, settings, self._spawn, self._change_port
        )
        self.upkeep = Upkeep(self.joining, self.protocol, self.walks, settings, self._spawn)

    # Life cycle.

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:  # noqa: S104
        """Bind the socket and start the upkeep of the table. A node that is already listening
        moves to the new address. Raises :class:`InvalidConfig`."""
        async with self._listening:
            await self._move(port, interface)
            self._asked_for = interface, port

    async def _move(self, port: int, interface: str) -> None:
        old = self.transport
        try:
            # Not as upstream does it, which also logs an address where it may not listen at all.
            if ":" in interface and self._settings.ipv6_socket is not None:
                opened = self._settings.ipv6_socket(interface, port)
                if self._settings.server is not False:
                    send_from_lasting_address(opened)
                await self._open_socket(sock=opened)
            else:
                await self._open_socket(local_addr=(interface, port))
        except asyncio.CancelledError:
            # The protocol may have switched to the new socket.
            self.protocol.take_back(old)
            raise
        except OSError as error:
            # The loops' messages repeat the address as a tuple, so take the text from errno, which
            # uvloop has in the cause only.
            number = error.errno or getattr(error.__cause__, "errno", None)
            why = OSError(number, os.strerror(number)) if number else error
            host = f"[{interface}]" if ":" in interface else interface
            raise InvalidConfig(f"cannot listen on UDP {host}:{port}: {in_words(why)}") from why
        if old is not None:
            self.protocol.reachability.moved()
            old.close()

    async def _change_port(self) -> None:
        """Take any other port, unless this one was asked for."""
        host, port = self._asked_for
        if not port:
            with contextlib.suppress(InvalidConfig):
                await self.listen(0, host)
                self.counters["port_changed"] += 1

    async def _open_socket(self, **where: Any) -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(self._create_protocol, **where)
        self.refresh_table()

    def _create_protocol(self) -> LookupProtocol:
        return self.protocol

    @property
    def bound(self) -> SocketAddress:
        """Where the node listens."""
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port

    def stop(self) -> None:
        """Cancel every task and close the socket; :meth:`close` waits until all have ended."""
        for task in self._tasks:
            task.cancel()
        super().stop()

    async def close(self) -> None:
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.protocol.close()
        self.storage.close()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Joining and upkeep, by their names upstream.

    async def bootstrap(self, addrs: Iterable[SocketAddress] = ()) -> list[Contact]:
        """See :meth:`Joining.join`."""
        return await self.joining.join(addrs)

    async def bootstrap_node(self, addr: SocketAddress) -> Contact | None:
        """See :meth:`Joining.greet`."""
        return await self.joining.greet(addr)

    def bootstrappable_neighbors(self) -> list[SocketAddress]:
        return [contact.address for contact in self.protocol.router.closest(self.node.long_id)]

    def refresh_table(self) -> None:
        """Called by ``listen``."""
        if self._upkeep_task is None:
            self._upkeep_task = self._spawn(self.upkeep.run())

    async def _refresh_table(self) -> None:
        await self.upkeep.round()

    # Upstream's API. Its keys are strings, which it hashes; these are raw peerIds.

    async def get(self, key: bytes) -> bytes | None:
        """The newest record of the peer ``key``."""
        await self.joining.ensure_contacts()
        search = self.walks.new_search(key, 0)
        await self.walks.search(search)
        record = search.findings.record
        return None if record is None else record.encode()

    async def set(self, key: bytes, value: bytes) -> bool:
        """Store the record ``value`` under the peerId ``key``, both bytes."""
        return await self.set_digest(key, value)

    async def set_digest(self, dkey: bytes, value: bytes) -> bool:
        await self.joining.ensure_contacts()
        try:
            record = self.storage.verify(dkey, value)
        except InvalidRecord:
            return False
        return (await self.walks.put(dkey, record)).stored > 0

    def save_state(self, fname: str) -> NoReturn:
        """Disabled: upstream pickles. Use :mod:`lookup_dht.state.state_file`."""
        raise NotImplementedError("a node's state is written by lookup_dht.state.state_file")

    @classmethod
    async def load_state(cls, fname: str, port: int, interface: str = "") -> NoReturn:
        raise NotImplementedError("a node's state is read by lookup_dht.state.state_file")

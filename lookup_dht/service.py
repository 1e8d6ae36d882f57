"""DHTLookup: the lookup service that an engine is given, over a node of the DHT."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import re
import time
from collections.abc import Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from egtp.comm_record import SignedCommRecord
from egtp.comm_strat import Address
from egtp.errors import (
    InvalidConfig,
    LocalProtocolError,
    LookupFailed,
    LookupFailure,
    NodeClosed,
    PublishFailed,
)
from egtp.identity import Entropy, NodeId
from egtp.lookup import Published
from lookup_dht.contact import AddressPolicy, SocketAddress
from lookup_dht.kademlia_server import Found, LookupServer
from lookup_dht.node_id import fits, new_node_id
from lookup_dht.record_verifier import SequenceFloor
from lookup_dht.settings import Clock, DHTLimits, NodeSettings
from lookup_dht.state_file import NodeState

__all__ = ["DHTLookup"]

_T = TypeVar("_T")
_NETWORK = re.compile(r"[a-z0-9._-]{1,32}")


class DHTLookup:
    """An :class:`egtp.lookup.LookupService` whose records are kept by a network of strangers.

    ::

        async with DHTLookup("0.0.0.0:9100", ["192.0.2.7:9100"]) as lookup:
            record = await lookup.resolve(peer_id)

    It does not publish anything again by itself: the owner of a record does, at half its life.
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        bootstrap: Iterable[str | Address] = (),
        *,
        network: str = "main",
        server: bool = True,
        private_addresses: bool = False,
        state: NodeState | None = None,
        limits: DHTLimits | None = None,
        unix_time: Clock = time.time,
        elapsed: Clock = time.monotonic,
        entropy: Entropy = os.urandom,
    ) -> None:
        """``bootstrap`` are IP addresses of nodes to join through; with none, others join us.

        ``server=False`` for a node that others cannot reach. ``private_addresses`` lets loopback
        and private addresses be nodes: for tests and labs. ``state`` is what :attr:`state` was
        when this node ran last. Raises :class:`InvalidConfig`.
        """
        if not _NETWORK.fullmatch(network):
            raise InvalidConfig(f"a network is named by 1-32 of a-z 0-9 . _ -, not {network!r}")
        self._listen = Address.parse(listen)
        self._settings = NodeSettings(
            unix_time, elapsed, entropy, network, server, private_addresses, limits or DHTLimits()
        )
        self._policy = AddressPolicy(private_addresses=private_addresses)
        seeds = [self._check_seed(Address.parse(str(text))) for text in bootstrap]
        self._state = state
        self._node = LookupServer(self._settings, self._choose_id(), seeds)
        self._floor = SequenceFloor(self._settings.limits.sequences_max)
        self._resolving: dict[tuple[NodeId, int], _SharedResolve] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        self._started = False
        self._closed = False

    async def start(self) -> None:
        """Bind, and try to join. A network that does not answer is no error: the node goes on
        trying. Raises :class:`InvalidConfig` if the address cannot be listened on."""
        if self._started:
            raise LocalProtocolError("a DHTLookup is started once")
        await self._node.listen(self._listen.port, self._listen.host)
        self._started = True
        with self._node_closed_if_closed():
            if self._state is not None:
                await self._restore(self._state)
                self._state = None
            await self._node.bootstrap()

    async def close(self) -> None:
        """Afterwards no task, timer or socket is left; open calls end with NodeClosed."""
        self._closed = True
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        if self._started:
            await self._node.close()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def rebind(self, listen: str) -> None:
        """Move to another address of this machine, keeping the id and everything known, and
        greet the contacts from there. Raises :class:`InvalidConfig` and stays if it cannot."""
        self._check_running()
        address = Address.parse(listen)
        if len(address.ip) != len(self._listen.ip):
            raise InvalidConfig(f"a node cannot move between IPv4 and IPv6, as to {listen}")
        await self._node.listen(address.port, address.host)
        self._listen = address
        with self._node_closed_if_closed():
            await self._node.bootstrap()

    @property
    def address(self) -> Address:
        """Where the node listens. Raises :class:`NodeClosed` unless it is running."""
        self._check_running()
        host, port = self._node.bound
        return Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    @property
    def node_id(self) -> bytes:
        """The id of the DHT node, which has nothing to do with any peerId."""
        node_id: bytes = self._node.node.id
        return node_id

    @property
    def counters(self) -> collections.Counter[str]:
        """What was dropped, and what was asked and sent, by reason."""
        return self._node.counters

    @property
    def contacts(self) -> int:
        """How many nodes are in the table."""
        return len(self._node.protocol.router)

    @property
    def state(self) -> NodeState:
        """What a later run of this node needs to go on where this one is."""
        self._check_started()
        router = self._node.protocol.router
        return NodeState(
            self.node_id,
            self._settings.network,
            tuple(dict.fromkeys((*router, *router.former.values()))),
            tuple(self._node.storage),
        )

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        """The newest record of ``peer_id`` above ``newer_than``: see :class:`LookupService`.

        All of the closest nodes are asked, and the highest valid sequence wins; the copy in this
        node is one among others. Nothing below what was returned before is returned.
        """
        self._check_running()
        key = (peer_id, newer_than)
        shared = self._resolving.get(key)
        if shared is None:
            shared = _SharedResolve(self._begin(self._resolve(peer_id, newer_than)))
            self._resolving[key] = shared
        shared.waiting += 1
        try:
            with self._node_closed_if_closed():
                return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting:
                # Forgotten at once: who comes now must not wait for a call that is cancelled.
                del self._resolving[key]
                shared.task.cancel()

    async def publish(self, record: SignedCommRecord) -> Published:
        """Store ``record`` on the nodes closest to its peer.

        If this node is a server and one of these, it keeps a copy, which does not count: the
        number is of other nodes. Raises :class:`PublishFailed` if that would be zero.
        """
        self._check_running()
        if record.expired(self._settings.unix_time()):
            raise PublishFailed("the record has expired; sign a new one")
        with self._node_closed_if_closed():
            stored = await self._begin(
                self._node.put_record(bytes(record.peer_id), record.encode())
            )
        if not stored.stored:
            if stored.newer_held:
                raise PublishFailed("the network has a newer record of this peer")
            if stored.asked:
                raise PublishFailed(f"none of {stored.asked} nodes stored the record")
            raise PublishFailed("no node of the network answered")
        self._floor.note(record.peer_id, record.sequence)
        return Published(stored.stored, stored.asked)

    async def _resolve(self, peer_id: NodeId, newer_than: int) -> SignedCommRecord:
        found = await self._node.get_record(bytes(peer_id))
        record = found.record
        # Looked at again: the machine may have been asleep for hours in the middle of the search.
        if record is None or record.expired(self._settings.unix_time()):
            raise LookupFailed(_failure(found))
        if record.sequence < self._floor[peer_id]:
            self.counters["record_below_floor"] += 1
            raise LookupFailed(LookupFailure.SUPERSEDED)
        self._floor.note(peer_id, record.sequence)
        if record.sequence <= newer_than:
            raise LookupFailed(LookupFailure.SUPERSEDED)
        return record

    async def _restore(self, state: NodeState) -> None:
        """Go on where an earlier run ended, believing nothing that it wrote."""
        for contact in state.contacts:
            if self._node.protocol.believable(contact):
                self._node.protocol.router.remember(contact)
        for peer_id, data in state.records:
            self._node.storage.put(peer_id, data)
            await asyncio.sleep(0)  # A signature each: let others have the loop in between.

    def _begin(self, call: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """A task that close() ends."""
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    @contextlib.contextmanager
    def _node_closed_if_closed(self) -> Iterator[None]:
        """What close() cancelled ends with NodeClosed; what the caller cancelled, as usual."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise NodeClosed("the lookup service was closed") from None
            raise

    def _choose_id(self) -> bytes:
        """The id of the last run, unless this machine has a public address that it cannot have."""
        if self._state is None or not self._state.node_id:
            return new_node_id(self._listen.ip, self._settings.entropy)
        if self._state.network != self._settings.network:
            raise InvalidConfig(
                f"the state is of network {self._state.network!r}, "
                f"not {self._settings.network!r}; use another state file for each network"
            )
        if not fits(self._state.node_id, self._listen.ip):
            return new_node_id(self._listen.ip, self._settings.entropy)
        return self._state.node_id

    def _check_seed(self, seed: Address) -> SocketAddress:
        if seed.port == 0:
            raise InvalidConfig(f"a bootstrap address needs a port, unlike {seed}")
        if len(seed.ip) != len(self._listen.ip):
            raise InvalidConfig(
                f"a node that listens on {self._listen} cannot reach {seed}; "
                "use IPv4 for both, or IPv6 for both"
            )
        if not self._policy.allows(seed.ip):
            hint = "" if self._settings.private_addresses else "; allow private addresses for a lab"
            raise InvalidConfig(f"{seed} is not an address of a node on the internet{hint}")
        return seed.host, seed.port

    def _check_started(self) -> None:
        if not self._started:
            raise NodeClosed("the lookup service is not running; start() it first")

    def _check_running(self) -> None:
        if self._closed:
            raise NodeClosed("the lookup service is closed")
        self._check_started()


class _SharedResolve:
    """A resolve that several callers wait for; it is cancelled when none is left."""

    def __init__(self, task: asyncio.Task[SignedCommRecord]) -> None:
        self.task = task
        self.waiting = 0


def _failure(found: Found) -> LookupFailure:
    if found.invalid:
        return LookupFailure.INVALID
    if found.heard:
        return LookupFailure.NOT_FOUND
    return LookupFailure.NO_RESPONSES if found.asked else LookupFailure.NO_NODES

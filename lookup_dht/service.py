"""DHTLookup: the lookup service to give to a node, over a node of the DHT."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from egtp.config import check_network
from egtp.environment import Environment
from egtp.errors import InvalidConfig, LocalProtocolError, NodeClosed, PublishFailed, WrongLoop
from egtp.lookup import Published
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import Address
from egtp.values.identity import Entropy, NodeId
from egtp.values.settings import check_yes_or_no
from lookup_dht.ipv6_socket import ipv6_only_socket
from lookup_dht.kademlia_server import LookupServer
from lookup_dht.names import system_names
from lookup_dht.records.record_file import open_or_set_aside
from lookup_dht.resolving.resolving import Resolver
from lookup_dht.resolving.turns import Turns
from lookup_dht.settings import Clock, DHTLimits, NameResolver, NodeSettings, SocketOpener
from lookup_dht.state.seeds import default_listen, parse_seed
from lookup_dht.state.state_file import NodeState
from lookup_dht.state.unused import UnusedContacts
from lookup_dht.statistics import Traffic
from lookup_dht.walks.network_size import CROWDING_MIN
from lookup_dht.walks.record_walks import Stored
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.node_id import fits, new_node_id

__all__ = ["DHTLookup"]

_T = TypeVar("_T")
log = logging.getLogger("lookup_dht")


class DHTLookup:
    """A lookup service (:class:`egtp.LookupService`) whose records are kept by a network of
    strangers (R8).

    ::

        async with DHTLookup("0.0.0.0:9100", ["192.0.2.7:9100"]) as lookup:
            record = await lookup.resolve(peer_id)

    It does not publish records again by itself: their owner does, at half of their life. Lookups
    and publishing raise :class:`NodeClosed` unless it is running, and :class:`WrongLoop` on another
    event loop than the one that it was started on (R15).
    """

    def __init__(
        self,
        listen: str | None = None,
        bootstrap: str | Iterable[str | Address] = (),
        *,
        network: str = "main",
        server: bool | None = True,
        private_addresses: bool = False,
        state: NodeState | None = None,
        store: str | os.PathLike[str] | None = None,
        limits: DHTLimits | None = None,
        unix_time: Clock = time.time,
        elapsed: Clock | None = None,
        entropy: Entropy = os.urandom,
        ipv6_socket: SocketOpener | None = ipv6_only_socket,
        resolve_name: NameResolver | None = None,
    ) -> None:
        """
        :param listen: the UDP address ``IP:PORT`` of the DHT node. Port 0 picks a free one. By
            default a free port: of all interfaces if it knows whom to join through, and of the
            loopback interface alone if it does not, or if those are there too.
        :param bootstrap: one or more nodes to join through, ``IP:PORT`` or ``NAME:PORT``; with
            none, others join through this node.
        :param network: nodes of other networks are ignored.
        :param server: False for a node that others cannot reach. None to find that out: the node
            serves once it was reached by a node that it has sent nothing to lately. True promises
            that others can reach it, as the first nodes of a network must: the node serves at once,
            and stops if there are strangers in its network and none of them reaches it.
        :param private_addresses: whether nodes may have loopback and private addresses: for tests
            and labs.
        :param state: the :attr:`state` of an earlier run of this node, to go on from there;
            see :class:`KeptState`.
        :param store: a file for the records held and the highest sequences seen, which survives a
            kill. Without it, they are in memory only. A corrupt file is set aside with a warning.
        :param limits: the defaults if None.
        :param unix_time: the wall clock, in Unix seconds; by default the machine's own, like the
            next two.
        :param elapsed: a clock in seconds that never runs backward.
        :param entropy: the source of random bytes.
        :param ipv6_socket: opens the socket of an IPv6 node. None for loops whose sockets on ``::``
            do not take IPv4 as well.
        :param resolve_name: resolves host names; by default the system does.

        Raises :class:`InvalidConfig` for a value that cannot work.
        """
        check_network(network)
        _check_kinds(listen, server, limits)
        check_yes_or_no(private_addresses=private_addresses)
        given: object = bootstrap
        if not isinstance(given, Iterable):
            raise InvalidConfig(f"bootstrap must be a list of HOST:PORT, not {given!r}")
        if not isinstance(state, NodeState | None):
            raise InvalidConfig(
                f"state must be the DHTLookup.state of an earlier run, not {state!r}; "
                "store= names a file"
            )
        texts = [bootstrap] if isinstance(bootstrap, str) else [str(text) for text in bootstrap]
        if listen is None:
            listen = default_listen(texts, () if state is None else state.contacts)
        self._listen = Address.parse(listen)
        self._settings = NodeSettings(
            unix_time,
            elapsed or Environment().elapsed,
            entropy,
            network,
            server,
            private_addresses,
            limits or DHTLimits(),
            ipv6_socket,
            resolve_name or system_names(self._listen, _warn),
        )
        seeds = [
            parse_seed(text, self._listen, private_addresses=private_addresses) for text in texts
        ]
        self._state = state
        self._unused = UnusedContacts((), self._listen)
        node_id = self._choose_id()
        counters: collections.Counter[str] = collections.Counter()
        file = None
        if store is not None:
            file, warning = open_or_set_aside(Path(store), counters)
            if warning is not None:
                log.warning(warning)
        self._stored_in_file = file is not None
        self._node = LookupServer(self._settings, node_id, seeds, file, counters)
        self._node.protocol.statistics = self.statistics
        self._traffic = Traffic(self._settings.elapsed())
        self._turns = Turns(self._settings.limits, self._settings.elapsed)
        self._resolver = Resolver(self._node, self._settings, file, self._turns, self._begin)
        self._calls: set[asyncio.Task[Any]] = set()
        self._binding = asyncio.Lock()
        """Held while the socket is opened, replaced or closed, so that these never overlap."""
        self._started = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Bind the socket, and try to join the network. ``async with`` does this.

        It is not an error if the network does not answer: the node keeps trying. Raises
        :class:`InvalidConfig` if the address cannot be listened on, :class:`LocalProtocolError` if
        it was started before, and :class:`NodeClosed` if it is closed.
        """
        joining = await self.begin()
        with self._node_closed_if_closed():
            await joining

    async def begin(self) -> asyncio.Task[None]:
        """As :meth:`start`, but return as soon as the socket is bound: the node can be used. The
        task ends when it has joined, or nobody has answered."""
        async with self._binding:
            if self._closed:
                raise NodeClosed("the lookup service is closed")
            if self._started:
                raise LocalProtocolError("this DHTLookup was already started; create a new one")
            self._loop = asyncio.get_running_loop()
            await self._node.listen(self._listen.port, self._listen.host)
            self._started = True
            if self._state is not None:
                self._restore_contacts(self._state.contacts)
            return self._begin(self._join())

    async def close(self) -> None:
        """Close the node. No task, timer or socket is left, and open calls raise
        :class:`NodeClosed`. If the call is cancelled, call it again to go on."""
        self._check_loop()
        self._closed = True
        async with self._binding:
            self._resolver.close()
            for call in self._calls:
                call.cancel()
            if self._calls:
                await asyncio.wait(self._calls)
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
        """Move to another address ``IP:PORT`` of this machine, keep the id and everything known,
        and greet the contacts from there.

        Raises :class:`InvalidConfig`, and stays where it is, if it cannot listen there.
        """
        address = Address.parse(listen)
        self._check_loop()
        async with self._binding:
            self._check_running()
            if len(address.ip) != len(self._listen.ip):
                raise InvalidConfig(
                    f"cannot move to {listen}: a node cannot change between IPv4 and IPv6"
                )
            await self._node.listen(address.port, address.host)
            self._listen = address
        with self._node_closed_if_closed():
            await self._node.bootstrap()

    @property
    def address(self) -> Address:
        """The address that the node listens on. Raises :class:`NodeClosed` unless it is running."""
        self._check_running()
        host, port = self._node.bound
        return Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    @property
    def node_id(self) -> bytes:
        """The id of the DHT node, 20 bytes. It is independent of any peerId."""
        node_id: bytes = self._node.node.id
        return node_id

    @property
    def counters(self) -> collections.Counter[str]:
        """How often something was dropped, asked and sent, by reason."""
        return self._node.counters

    @property
    def contacts(self) -> int:
        """The number of nodes in the routing table."""
        return len(self._node.protocol.router)

    @property
    def state(self) -> NodeState:
        """What a later run of this node needs to go on from here. It contains the records, unless
        they are in a ``store``."""
        self._check_started()
        router = self._node.protocol.router
        return NodeState(
            self.node_id,
            self._settings.network,
            tuple(dict.fromkeys((*router, *router.former.values(), *self._unused.kept))),
            () if self._stored_in_file else tuple(self._node.storage),
        )

    def statistics(self, *, rates: bool = True) -> dict[str, Any]:
        """The state of the node as values by name, which JSON can represent. Rates are per second
        since the last call with ``rates``; without, they are left out, and that time goes on.
        Raises :class:`NodeClosed` unless the node is running."""
        elapsed, node = self._settings.elapsed(), self._node
        router = node.protocol.router
        size = node.walks.size.nodes(elapsed)
        return {
            "address": str(self.address),
            "node_id": self.node_id.hex(),
            "network": self._settings.network,
            "server": node.protocol.reachability.proven,
            "contacts": len(router),
            "buckets": {
                str(index): len(bucket.entries) for index, bucket in sorted(router.buckets.items())
            },
            "nodes_estimated": None if size is None else round(size),
            "records": len(node.storage),
            "records_max": self._settings.limits.records_max,
            "record_bytes": node.storage.size_bytes,
            "open_queries": len(node.protocol.asker.queries),
            **(self._traffic.rates(self.counters, elapsed) if rates else {}),
            "uptime_s": self._traffic.uptime_s(elapsed),
            "counters": dict(self.counters),
        }

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        """Find the newest record of ``peer_id`` above ``newer_than``; see
        :class:`egtp.LookupService`.

        The highest valid sequence wins, never a majority, and nothing older than what was returned
        before is ever returned. Ordinarily the lookup ends when a few nodes hold the same newest
        record, or did so a moment ago; a caller that finds the address outdated asks again with
        ``newer_than``. ``fresh`` waits until the whole neighbourhood of the peerId was asked.

        Raises :class:`LookupFailed`, with a reason, if there is none. Cancelling the call frees
        everything.
        """
        self._check_loop()
        self._check_running()
        with self._node_closed_if_closed():
            return await self._resolver.resolve(peer_id, newer_than, fresh=fresh)

    async def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        """Yield records of strictly increasing sequence above ``newer_than``: the first valid one
        as soon as it is found (or was found a moment ago), and newer ones as they turn up, until
        the neighbourhood was asked.

        Raises :class:`LookupFailed` if there was none at all. Closing the iterator, as with
        ``contextlib.aclosing``, ends the search.
        """
        self._check_loop()
        self._check_running()
        with self._node_closed_if_closed():
            async with contextlib.aclosing(self._resolver.stream(peer_id, newer_than)) as records:
                async for record in records:
                    yield record

    async def publish(self, record: SignedCommRecord) -> Published:
        """Store ``record`` on the nodes closest to its peer, and return on how many.

        If this node is a server and one of the closest, it keeps a copy, which does not count. Only
        the copy of a network's first node does, as long as that is alone: whoever joins, joins
        through it. Raises :class:`PublishFailed`, with the reason, if no node stored the record.
        """
        self._check_loop()
        self._check_running()
        if record.expired(self._settings.unix_time()):
            raise PublishFailed("the record has expired; sign a new one")
        taken_before = self._node.protocol.asker.taken
        with self._node_closed_if_closed():
            stored = await self._begin(self._put(record))
        if stored.crowding >= CROWDING_MIN:
            self.counters["eclipse_suspected"] += 1
            log.warning(
                "the nodes around %s are %.0f times as dense as elsewhere: somebody may be "
                "trying to hide this peer",
                record.peer_id,
                stored.crowding,
            )
        if not stored.stored:
            if not (self._node.joining.is_first and self._holds(record)):
                raise PublishFailed(self._why_not_stored(stored, taken_before))
            stored = Stored(asked=1, stored=1, newer_held=0, networks=1)
        self._resolver.learn(record)
        return Published(stored.stored, stored.asked, stored.networks)

    def _why_not_stored(self, stored: Stored, taken_before: int) -> str:
        if stored.newer_held:
            return "the network has a newer record of this peer"
        if stored.refused:
            return (
                f"{stored.refused} of {stored.asked} nodes refused the record: by their clocks it "
                "has expired or is far ahead, or they are full"
            )
        if self._node.protocol.asker.took_nothing_since(taken_before):
            return "this machine can send nothing to any node of the network"
        if stored.asked:
            return f"none of {stored.asked} nodes stored the record"
        why = self._node.joining.seeds.unresolved
        return f"no node of the network answers{why and f': {why}'}"

    def _holds(self, record: SignedCommRecord) -> bool:
        held = self._node.storage.held(bytes(record.peer_id))
        return held is not None and held[0] == record.sequence

    async def _put(self, record: SignedCommRecord) -> Stored:
        async with self._turns.turn(queries=2):
            await self._node.joining.ensure_contacts()
            return await self._node.walks.put(bytes(record.peer_id), record)

    async def _join(self) -> None:
        await self._restore(self._state)
        self._state = None
        await self._node.bootstrap()

    async def _restore(self, state: NodeState | None) -> None:
        """Go on where an earlier run ended, believing nothing that it wrote."""
        if state is not None:
            for peer_id, data in state.records:
                self._node.storage.put(peer_id, data)
                await asyncio.sleep(0)  # Each record costs a signature check: yield in between.
        for _ in self._node.storage.restore():
            await asyncio.sleep(0)

    def _restore_contacts(self, contacts: Sequence[Contact]) -> None:
        """Remember the contacts of an earlier run, to be greeted when joining. Those at which no
        node may be now are kept unused, with a warning."""
        may_be_node = self._node.protocol.acquaintances.may_be_node
        # Those of the table come first in the state, and should be the last to be dropped.
        for contact in reversed([it for it in contacts if may_be_node(it.packed)]):
            self._node.protocol.router.remember(contact)
        unused = [it for it in contacts if not may_be_node(it.packed)]
        self._unused = UnusedContacts(unused, self._listen)
        for text in self._unused.why():
            log.warning(text)

    def _begin(self, call: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task that close() cancels."""
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    @contextlib.contextmanager
    def _node_closed_if_closed(self) -> Iterator[None]:
        """Raise NodeClosed where close() cancelled the call; a caller's own cancellation passes."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise NodeClosed("the lookup service was closed") from None
            raise

    def _choose_id(self) -> bytes:
        """The id of the last run, or a new one if that does not fit a public listen address."""
        state, settings = self._state, self._settings
        if state is not None and state.network != settings.network:
            raise InvalidConfig(
                f"the state belongs to network {state.network!r}, not {settings.network!r}; "
                "use a separate state file for each network"
            )
        if state is not None and state.node_id and fits(state.node_id, self._listen.ip):
            return state.node_id
        return new_node_id(self._listen.ip, settings.entropy)

    def _check_loop(self) -> None:
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise WrongLoop(
                "a lookup service must be used on the event loop it was started on, as must the "
                "node that it is given to"
            )

    def _check_started(self) -> None:
        if not self._started:
            raise NodeClosed(
                "the lookup service is not running; start() it first, or name it in the services "
                "of an egtp.blocking.Node"
            )

    def _check_running(self) -> None:
        if self._closed:
            raise NodeClosed("the lookup service is closed")
        self._check_started()


def _warn(text: str) -> None:
    log.warning("%s", text)


def _check_kinds(listen: object, server: object, limits: object) -> None:
    """Raise :class:`InvalidConfig` for arguments of the wrong type."""
    if not isinstance(listen, str | None):
        raise InvalidConfig(f"listen must be a string of the form IP:PORT, not {listen!r}")
    if not isinstance(server, bool | None):
        raise InvalidConfig(f"server must be True, False, or None to find out, not {server!r}")
    if not isinstance(limits, DHTLimits | None):
        raise InvalidConfig(f"limits must be DHTLimits, not {limits!r}")

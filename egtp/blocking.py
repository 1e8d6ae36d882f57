"""``egtp.blocking``: a node for programs without an event loop, such as scripts, threads and REPLs.

::

    import egtp.blocking

    with egtp.blocking.Node(identity, lookup=lookup) as node:
        reply = node.query(peer_id, "greet", b"hello", hard_timeout_s=5)

It runs the asyncio node on an event loop in a thread of its own, and passes calls to it and
outcomes back (R15 holds: nothing else touches the node). The outcomes are the same typed errors,
each with its traceback on both sides.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

import egtp.node
from egtp.admission import Admit
from egtp.config import NodeConfig
from egtp.discovery_service import DiscoveryService
from egtp.environment import Environment
from egtp.errors import InvalidConfig, LocalProtocolError, NodeClosed, WrongLoop
from egtp.events import Observer
from egtp.handling.handler_threads import HandlerThreads
from egtp.handling.handlers import Handler, Incoming
from egtp.hedging import HedgedReply, hedge
from egtp.identity_file import IdentityFile
from egtp.lookup import LookupService, Published
from egtp.loop_thread import LoopThread
from egtp.own.friends import Friends
from egtp.own.own_addresses import OwnAddress
from egtp.reaching.peer import Explanation
from egtp.relay.leases import RelayLimits
from egtp.values.comm_record import SignedCommRecord
from egtp.values.contact_link import ContactLink
from egtp.values.identity import Identity, NodeId
from egtp.values.message import check_kind
from egtp.values.settings import check_count, check_seconds

__all__ = ["Node", "PlainHandler"]

T = TypeVar("T")

H = TypeVar("H", bound="PlainHandler | Handler")

PlainHandler: TypeAlias = Callable[[Incoming], bytes | None]
"""A plain function that takes an :class:`Incoming` and returns the body of the reply, or None for
an empty one. It raises :class:`HandlerFailed` to answer with a code of its own, 64 to 127."""


class Node:
    """A peer of the network, which talks to other nodes by their peerId, from any thread.

    Every call waits for its outcome. Whatever interrupts the wait, ``KeyboardInterrupt`` included,
    frees everything and tells the peer, as a cancellation does in asyncio. A signal handler may
    call and close the node, too.

    Calls raise :class:`NodeClosed` before the start, after the end, and when the node is closed
    while they wait. They raise :class:`WrongLoop` on the node's own thread, which would wait for
    itself, and in a process that was forked from the node's. A node that was not closed is closed
    when the process ends.
    """

    def __init__(
        self,
        identity: Identity | IdentityFile,
        *,
        services: Iterable[AbstractAsyncContextManager[object]] = (),
        handler_threads: int = 8,
        handlers_waiting_max: int = 128,
        close_timeout_s: float = 10.0,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        listen: str | Sequence[str] = (),
        announce: str | Sequence[str] | None = None,
        dial_from: str | None = None,
        lookup: LookupService | None = None,
        friends: Friends | None = None,
        discovery: DiscoveryService | None = None,
        relay_server: RelayLimits | bool = False,
        config: NodeConfig | None = None,
        environment: Environment | None = None,
        observer: Observer | None = None,
        admit: Admit | None = None,
    ) -> None:
        """
        :param services: async context managers that the node needs on its loop, such as a
            ``DHTLookup``. They are entered before the node is started, and left in reverse order
            after it was closed.
        :param handler_threads: how many plain handlers run at a time. Each may block. Handlers that
            wait for a peer that waits for them in turn are ended by the hard timeouts of their
            queries.
        :param handlers_waiting_max: how many more may wait for a thread, for bursts. Further
            queries are answered "busy".
        :param close_timeout_s: how many seconds :meth:`close` waits for plain handlers that still
            run.
        :param loop_factory: makes the event loop; ``uvloop.new_event_loop`` for speed.

        All other parameters are those of :class:`egtp.Node`. Raises :class:`InvalidConfig`.
        """
        check_count(1, handler_threads=handler_threads)
        check_count(0, handlers_waiting_max=handlers_waiting_max)
        check_seconds(close_timeout_s=close_timeout_s, or_0=True)
        entered = tuple(services) if isinstance(services, Iterable) else (None,)
        if not all(hasattr(service, "__aenter__") for service in entered):
            raise InvalidConfig(
                f"services must be a list of async context managers, not {services!r}"
            )
        self.on_loop: Final = egtp.node.Node(
            identity,
            listen=listen,
            announce=announce,
            dial_from=dial_from,
            lookup=lookup,
            friends=friends,
            discovery=discovery,
            relay_server=relay_server,
            config=config,
            environment=environment,
            observer=observer,
            admit=admit,
        )
        """The asyncio node, for async handlers and callbacks, which run on its loop."""
        name = f"egtp {self.node_id}"
        self._services: Final = entered
        self._threads: Final = HandlerThreads(handler_threads, handlers_waiting_max, name)
        self._loop: Final = LoopThread(self._life, loop_factory=loop_factory, name=name)
        self._close_timeout_s: Final = close_timeout_s
        self._started = False

    def __repr__(self) -> str:
        return f"blocking.Node({self.node_id})"

    # Life

    def start(self) -> None:
        """Start the services and the node: listen, and begin to publish and to look for relays.
        ``with`` does this.

        Raises what they raise, such as :class:`InvalidConfig`, and :class:`NodeClosed` if the node
        is closed meanwhile; nothing is left running then. Raises :class:`LocalProtocolError` if the
        node was started before.
        """
        atexit.register(self.close)
        try:
            self._loop.start()
        except BaseException:
            if not self._loop.is_alive:  # it is, if it was started before
                atexit.unregister(self.close)
            raise
        self._started = True

    def close(self, *, drain_s: float = 0.0) -> None:
        """Close the node and its services: no thread, task or socket is left, and calls that wait
        raise :class:`NodeClosed`. A second call does nothing, and neither does a call in a forked
        process. With ``drain_s``, what was accepted is answered first, as by
        :meth:`egtp.Node.close`.

        Waits up to ``close_timeout_s`` for plain handlers that still run. Those that go on have
        threads that end with them, and a ``ResourceWarning`` says so. Raises :class:`WrongLoop` in
        a handler, which would wait for itself.
        """
        if self._loop.is_of_another_process:
            return
        if self._threads.is_one_of_them(threading.current_thread()):
            raise WrongLoop("a handler cannot close its own node, which would wait for the handler")
        check_seconds(drain_s=drain_s, or_0=True)
        try:
            if drain_s:
                with contextlib.suppress(NodeClosed):  # by another call, or it never ran
                    self.run(lambda node: node.close(drain_s=drain_s))
        finally:
            try:
                self._loop.close()
            finally:
                if not self._loop.is_alive:  # as it is if this was interrupted, or is its thread
                    self._end_threads()

    def _end_threads(self) -> None:
        atexit.unregister(self.close)
        left = self._threads.close(self._close_timeout_s)
        if left:
            run = "1 handler still runs" if left == 1 else f"{left} handlers still run"
            end = "a thread that ends with it" if left == 1 else "threads that end with them"
            text = f"{run} after {self.node_id} was closed, in {end}"
            warnings.warn(text, ResourceWarning, stacklevel=3)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextlib.asynccontextmanager
    async def _life(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for service in self._services:
                await stack.enter_async_context(service)
            await stack.enter_async_context(self.on_loop)
            yield

    # Talking

    def query(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes = b"",
        *,
        hard_timeout_s: float | None = None,
        soft_timeout_s: float | None = None,
        on_soft_timeout: Callable[[], None] | None = None,
        idempotent: bool = False,
        early: bool | None = None,
    ) -> bytes:
        """Ask a peer, wherever it is now, and return the body of its reply.

        As :meth:`egtp.Node.query`, with the same parameters and outcomes. ``on_soft_timeout`` is
        called on the node's thread and must not wait there.
        """
        return self.run(
            lambda node: node.query(
                peer_id,
                kind,
                body,
                hard_timeout_s=hard_timeout_s,
                soft_timeout_s=soft_timeout_s,
                on_soft_timeout=on_soft_timeout,
                idempotent=idempotent,
                early=early,
            )
        )

    def hedge(
        self,
        peer_ids: Iterable[NodeId],
        kind: str,
        body: bytes | Callable[[NodeId], bytes] = b"",
        *,
        soft_timeout_s: float,
        hard_timeout_s: float | None = None,
        idempotent: bool = False,
        early: bool | None = None,
    ) -> HedgedReply:
        """Ask peers one after another, each when the one before it fails or is slow. The first
        reply wins. As :func:`egtp.hedge`, with the same parameters and outcomes."""
        return self.run(
            lambda node: hedge(
                node,
                peer_ids,
                kind,
                body,
                soft_timeout_s=soft_timeout_s,
                hard_timeout_s=hard_timeout_s,
                idempotent=idempotent,
                early=early,
            )
        )

    def send(
        self, peer_id: NodeId, kind: str, body: bytes = b"", *, hard_timeout_s: float | None = None
    ) -> None:
        """Send a peer a message without a reply. As :meth:`egtp.Node.send`, with the same
        outcomes."""
        self.run(lambda node: node.send(peer_id, kind, body, hard_timeout_s=hard_timeout_s))

    def handle(
        self,
        kind: str,
        handler: PlainHandler | Handler,
        *,
        at_once_max: int | None = None,
        idempotent: bool = False,
        early: bool = True,
    ) -> None:
        """Answer queries and sends of ``kind`` with ``handler``, before or after the start.

        A plain function runs in one of the node's threads, so it may block, and several may run at
        a time. It cannot be interrupted: when its asker gives up, it runs to its end, and its
        answer is dropped. An async function runs on the node's loop, where it awaits methods of
        :attr:`on_loop`, never of this class. The options and errors are those of
        :meth:`egtp.Node.handle`.
        """
        is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object with an async __call__
        )
        on_loop = handler if is_async else self._threads.wrap(handler)

        def add(node: egtp.node.Node) -> None:
            node.handle(
                kind,
                on_loop,  # type: ignore[arg-type]
                at_once_max=at_once_max,
                idempotent=idempotent,
                early=early,
            )

        if self._started:
            self.call(add)
        else:
            add(self.on_loop)

    def handler(
        self,
        kind: str,
        *,
        at_once_max: int | None = None,
        idempotent: bool = False,
        early: bool = True,
    ) -> Callable[[H], H]:
        """:meth:`handle` as a decorator, with the same options and errors:
        ``@node.handler("greet")``."""
        check_kind(kind)

        def decorate(handler: H) -> H:
            self.handle(kind, handler, at_once_max=at_once_max, idempotent=idempotent, early=early)
            return handler

        return decorate

    def remove_handler(self, kind: str) -> None:
        """Take away the handler of ``kind``: as :meth:`egtp.Node.remove_handler`. A query that
        comes before another one was given is answered "no such kind".
        """
        if self._started:
            self._look(lambda node: node.remove_handler(kind))
        else:
            self.on_loop.remove_handler(kind)

    def run(
        self, work: Callable[[egtp.node.Node], Awaitable[T]], *, timeout_s: float | None = None
    ) -> T:
        """Run an async function on the node's loop, with the asyncio node as its argument, and
        return its result. This is for what has no method here.

        ::

            replies = node.run(ask_all_at_once)

        :param timeout_s: seconds after which the function is cancelled; None for no limit.

        Raises what ``work`` raises, :class:`TimeoutError` if its time was up,
        :class:`concurrent.futures.CancelledError` if what it awaits was cancelled, and
        :class:`LocalProtocolError` if it is not async.
        """

        async def awaited() -> T:
            result = work(self.on_loop)
            if not isinstance(result, Awaitable):
                raise LocalProtocolError(f"{work!r} is not async: use call()")
            return await result

        return self._loop.run(awaited, timeout_s)

    def call(self, work: Callable[[egtp.node.Node], T]) -> T:
        """Call a plain function on the node's loop, with the asyncio node as its argument, and
        return its result. The function must not wait.

        ::

            node.call(lambda node: node.throttle_peer(peer_id, send_bytes_per_s=10_000))

        Raises what ``work`` raises, and :class:`LocalProtocolError` if it is async.
        """

        async def called() -> T:
            result = work(self.on_loop)
            if inspect.iscoroutine(result):
                result.close()
                raise LocalProtocolError(f"{work!r} is async: use run()")
            return result

        return self._loop.run(called)

    def _look(self, work: Callable[[egtp.node.Node], T]) -> T:
        """For what can be read after the end, too, when nobody else touches the node."""
        is_over = self._started and not self._loop.is_alive
        if is_over and not self._loop.is_of_another_process:
            return work(self.on_loop)
        return self.call(work)

    # Peers

    def add_contact(self, contact: SignedCommRecord | ContactLink | str) -> NodeId:
        """Add a peer by its record or contact link, and return its peerId.

        Raises :class:`LocalProtocolError` for what is not a contact, and :class:`InvalidRecord` for
        a link with an invalid record.
        """
        return self.call(lambda node: node.add_contact(contact))

    def change_friends(
        self,
        *,
        tell: Iterable[NodeId] | None = None,
        keep_for: Iterable[NodeId] | None = None,
        friends_of: Mapping[NodeId, Iterable[NodeId]] | None = None,
    ) -> None:
        """Have other friends from now on: as :meth:`egtp.Node.change_friends`."""
        self.call(
            lambda node: node.change_friends(tell=tell, keep_for=keep_for, friends_of=friends_of)
        )

    @property
    def connected(self) -> tuple[NodeId, ...]:
        """The peers to which there is a path now; :meth:`why` tells more about each."""
        return self.call(lambda node: node.connected)

    def disconnect(self, peer_id: NodeId) -> None:
        """Close the paths to a peer, and tell the peer: as :meth:`egtp.Node.disconnect`."""
        self.run(lambda node: node.disconnect(peer_id))

    def why(self, peer_id: NodeId) -> Explanation:
        """What is known of a peer, how it is reached now, and which attempts failed. Can be asked
        after the end, too. Raises :class:`LocalProtocolError` for what is not a peerId."""
        return self._look(lambda node: node.why(peer_id))

    # This node

    @property
    def identity(self) -> Identity:
        """The keys of this node."""
        return self.on_loop.identity

    @property
    def node_id(self) -> NodeId:
        """The nodeId of this node. For others, it is the peerId to ask."""
        return self.on_loop.node_id

    @property
    def record(self) -> SignedCommRecord:
        """This node's own record, as last signed. Can be read after the end, too."""
        return self._look(lambda node: node.record)

    @property
    def link(self) -> str:
        """A contact link that contains the record, to give to somebody."""
        return self.call(lambda node: node.link)

    @property
    def listening(self) -> tuple[str, ...]:
        """The addresses on which this node accepts connections now, as ``IP:PORT``."""
        return self.call(lambda node: node.listening)

    @property
    def own_addresses(self) -> tuple[OwnAddress, ...]:
        """The addresses where others may reach this node, how each is known, and whether it is in
        the record; see ``docs/own-address.md``."""
        return self.call(lambda node: node.own_addresses)

    @property
    def relays(self) -> tuple[NodeId, ...]:
        """The relays through which this node can be reached now."""
        return self.call(lambda node: node.relays)

    @property
    def counters(self) -> Counter[str]:
        """How often something was dropped, refused or closed until now, by reason: a copy. Can be
        read after the end, too."""
        return self._look(lambda node: node.counters.copy())

    def statistics(self) -> dict[str, Any]:
        """The state of the node as values by name: as :meth:`egtp.Node.statistics`."""
        return self._look(lambda node: node.statistics())

    def published(self, *, timeout_s: float = 30.0) -> Published:
        """Wait until a lookup service has stored this node's record as it is now: as
        :meth:`egtp.Node.published`, for ``timeout_s`` seconds at most.

        Raises :class:`PublishFailed` as there, or :class:`TimeoutError`.
        """
        return self.run(lambda node: node.published(), timeout_s=timeout_s)

    def reachable(self, *, timeout_s: float = 30.0) -> Published:
        """Wait until a record is stored that names a way to reach this node: as
        :meth:`egtp.Node.reachable`, for ``timeout_s`` seconds at most.

        Raises :class:`PublishFailed` as there, or :class:`TimeoutError`.
        """
        return self.run(lambda node: node.reachable(), timeout_s=timeout_s)

    def listen(self, addresses: str | Sequence[str]) -> None:
        """Accept connections on these addresses ``IP:PORT`` and no others, and say so in a new
        record. Open connections stay.

        Raises :class:`InvalidConfig` if an address cannot be used; all is then as it was.
        """
        self.run(lambda node: node.listen(addresses))

    def throttle(
        self,
        *,
        send_bytes_per_s: float | None = None,
        receive_bytes_per_s: float | None = None,
    ) -> None:
        """Limit what all connections together send and receive from now on, in bytes per second: as
        :meth:`egtp.Node.throttle`."""
        self.call(
            lambda node: node.throttle(
                send_bytes_per_s=send_bytes_per_s, receive_bytes_per_s=receive_bytes_per_s
            )
        )

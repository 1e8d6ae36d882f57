"""``egtp.blocking``: a node for programs without an event loop: scripts, threads, REPLs.

::

    import egtp.blocking

    with egtp.blocking.Node(identity, lookup=lookup) as node:
        reply = node.query(peer_id, "greet", b"hello", hard_timeout_s=5)

It is the asyncio node, on an event loop in a thread of its own (R15 holds: nothing else touches
it), and this facade carries calls there and outcomes back. They are the same outcomes: the same
typed errors, each with its traceback on both sides.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

import egtp.node
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
"""Returns the reply's body. Raises :class:`HandlerFailed` to answer with a code of its own."""


class Node:
    """Talks to other nodes by their peerId, from any thread.

    Every call waits for its outcome. What interrupts the wait, ``KeyboardInterrupt`` too, frees
    everything and tells the peer, as cancelling does in asyncio. Calls raise :class:`WrongLoop` on
    the node's own thread, which would wait for itself, and in a process that was forked from the
    node's; and :class:`NodeClosed` before the start, after the end, and when the node is closed
    while they wait. A node that was not closed is closed when the process ends.
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
    ) -> None:
        """
        :param services: what the node needs running on its loop, such as a ``DHTLookup``: entered
            before the node is started, left in reverse order after it was closed.
        :param handler_threads: how many plain handlers run at a time. Each may block; those that
            wait for a peer that waits for them are ended by the hard timeouts of their queries.
        :param handlers_waiting_max: how many more may wait for a thread: some bursts. Others are
            answered "busy".
        :param close_timeout_s: how long :meth:`close` waits for plain handlers that still run.
        :param loop_factory: what makes the event loop; ``uvloop.new_event_loop`` for speed.

        The others are those of :class:`egtp.Node`. Raises :class:`InvalidConfig`.
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
        )
        """The asyncio node, for async handlers and callbacks: they are on its loop."""
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
        """Start the services, and the node: listen, publish, and look for relays. ``with`` does.

        Raises what they raise, :class:`InvalidConfig` for one; nothing is left then.
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
        """End everything; no thread, task or socket is left. Calls that wait raise
        :class:`NodeClosed`. A second call does nothing, nor does one in a forked process.

        With ``drain_s``, what was accepted is answered first, as by :meth:`egtp.Node.close`.

        A plain handler that runs is waited for, up to ``close_timeout_s``; then a
        ``ResourceWarning`` says that its thread is left until it returns. Raises
        :class:`WrongLoop` in a handler, which would wait for itself.
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
            self._loop.close()
            atexit.unregister(self.close)
            left = self._threads.close(self._close_timeout_s)
        if left:
            run = "1 handler still runs" if left == 1 else f"{left} handlers still run"
            end = "a thread that ends with it" if left == 1 else "threads that end with them"
            text = f"{run} after {self.node_id} was closed, in {end}"
            warnings.warn(text, ResourceWarning, stacklevel=2)

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

        As :meth:`egtp.Node.query`, with the same outcomes. ``on_soft_timeout`` is called on the
        node's thread, and must not wait there.
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
        """Ask peers one after another, each when the one before it fails or is slow; the first
        reply wins. As :func:`egtp.hedge`."""
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
        """Tell a peer something, without an answer: as :meth:`egtp.Node.send`."""
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

        A plain function is called in one of the node's threads, so it may block, and several may
        run at a time. It cannot be interrupted: when its asker gives up it runs to its end, and
        its answer is dropped. An async function runs on the node's loop, and awaits
        :attr:`on_loop`, never this facade. The options are those of :meth:`egtp.Node.handle`.
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
        """:meth:`handle` as a decorator: ``@node.handler("greet")``, with the same options."""
        check_kind(kind)

        def decorate(handler: H) -> H:
            self.handle(kind, handler, at_once_max=at_once_max, idempotent=idempotent, early=early)
            return handler

        return decorate

    def run(
        self, work: Callable[[egtp.node.Node], Awaitable[T]], *, timeout_s: float | None = None
    ) -> T:
        """Run an async function of the asyncio node on its loop: for what has no method here.

        ::

            replies = node.run(ask_all_at_once)

        Raises what ``work`` raises, or :class:`TimeoutError` when it was cancelled for its time.
        """

        async def awaited() -> T:
            result = work(self.on_loop)
            if not isinstance(result, Awaitable):
                raise LocalProtocolError(f"{work!r} is not async: use call()")
            return await result

        return self._loop.run(awaited, timeout_s)

    def call(self, work: Callable[[egtp.node.Node], T]) -> T:
        """Call a plain function of the asyncio node on its loop, where it must not wait: ::

        node.call(lambda node: node.throttle_peer(peer_id, send_bytes_per_s=10_000))
        """

        async def called() -> T:
            result = work(self.on_loop)
            if inspect.iscoroutine(result):
                result.close()
                raise LocalProtocolError(f"{work!r} is async: use run()")
            return result

        return self._loop.run(called)

    def _look(self, work: Callable[[egtp.node.Node], T]) -> T:
        """What can be read after the end, too: then nobody else touches the node any more."""
        is_over = self._started and not self._loop.is_alive
        if is_over and not self._loop.is_of_another_process:
            return work(self.on_loop)
        return self.call(work)

    # Peers

    def add_contact(self, contact: SignedCommRecord | ContactLink | str) -> NodeId:
        """Take note of a peer from its record or contact link, and return its peerId.

        Raises :class:`LocalProtocolError` or :class:`InvalidRecord` for what is no contact.
        """
        return self.call(lambda node: node.add_contact(contact))

    def disconnect(self, peer_id: NodeId) -> None:
        """Close what leads to a peer, once what was accepted has left, and tell the peer."""
        self.run(lambda node: node.disconnect(peer_id))

    def why(self, peer_id: NodeId) -> Explanation:
        """What is known of a peer, how it is reached now, and what was tried in vain."""
        return self._look(lambda node: node.why(peer_id))

    # This node

    @property
    def identity(self) -> Identity:
        """The keys of this node."""
        return self.on_loop.identity

    @property
    def node_id(self) -> NodeId:
        """Who this node is; for others, its peerId."""
        return self.on_loop.node_id

    @property
    def record(self) -> SignedCommRecord:
        """This node's own record, as last signed."""
        return self._look(lambda node: node.record)

    @property
    def link(self) -> str:
        """A contact link with the record in it, to paste to somebody."""
        return self.call(lambda node: node.link)

    @property
    def listening(self) -> tuple[str, ...]:
        """Where this node accepts connections now, as ``IP:PORT``."""
        return self.call(lambda node: node.listening)

    @property
    def own_addresses(self) -> tuple[OwnAddress, ...]:
        """Where others may reach this node; see ``docs/own-address.md``."""
        return self.call(lambda node: node.own_addresses)

    @property
    def relays(self) -> tuple[NodeId, ...]:
        """The relays through which this node can be reached now."""
        return self.call(lambda node: node.relays)

    @property
    def counters(self) -> Counter[str]:
        """What was dropped, refused or closed until now, by reason: a copy."""
        return self._look(lambda node: node.counters.copy())

    def statistics(self) -> dict[str, Any]:
        """See :meth:`egtp.node.Node.statistics`."""
        return self._look(lambda node: node.statistics())

    def published(self, *, timeout_s: float = 30.0) -> Published:
        """Wait until the lookup service has stored this node's record as it is now.

        Raises :class:`PublishFailed` without a lookup service, or :class:`TimeoutError`.
        """
        return self.run(lambda node: node.published(), timeout_s=timeout_s)

    def reachable(self, *, timeout_s: float = 30.0) -> Published:
        """Wait until a record is stored that names a way to this node; see
        :meth:`egtp.node.Node.reachable`.

        Raises :class:`PublishFailed` without a lookup service, or :class:`TimeoutError`.
        """
        return self.run(lambda node: node.reachable(), timeout_s=timeout_s)

    def listen(self, addresses: str | Sequence[str]) -> None:
        """Accept connections on these addresses and no others, and say so in a new record.

        Raises :class:`InvalidConfig` if one cannot be used; then all is as it was.
        """
        self.run(lambda node: node.listen(addresses))

    def throttle(
        self,
        *,
        send_bytes_per_s: float | None = None,
        receive_bytes_per_s: float | None = None,
    ) -> None:
        """Limit what all connections together send and receive, from now on: as
        :meth:`egtp.Node.throttle`."""
        self.call(
            lambda node: node.throttle(
                send_bytes_per_s=send_bytes_per_s, receive_bytes_per_s=receive_bytes_per_s
            )
        )

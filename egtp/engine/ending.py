"""Ending: what is under way may end, peers are told, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

from egtp.channel.sealed import CLOSE_FOR_GOOD, GOAWAY_CLOSING, ItemType, item, write_goaway
from egtp.config import NodeConfig
from egtp.engine.answering import Answering
from egtp.engine.asking import Asking
from egtp.engine.routes import Routes
from egtp.engine.searching import Searching
from egtp.later import begin_later
from egtp.own.address_watch import AddressWatch
from egtp.own.publishing import Publisher
from egtp.paths.channels import SecureChannels
from egtp.reaching.peers import PeerBook
from egtp.relay.relaying import Relaying
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.values.identity import NodeId

__all__ = ["Ending", "EndingHost"]

LOOK_S: Final = 0.05
"""How often a node that is about to close checks whether it is done."""


class EndingHost(Protocol):
    """What the end needs from its node."""

    is_closed: bool

    def now(self) -> float:
        """Elapsed seconds."""

    def stop(self) -> None:
        """Nothing is begun from now on, and no timer runs: :attr:`is_closed`."""


class Ending:
    """The end of one node, and of the paths to a peer to which nothing more will be said."""

    def __init__(
        self,
        host: EndingHost,
        book: PeerBook,
        channels: SecureChannels,
        comms: TCPCommsHandler,
        routes: Routes,
        searching: Searching,
        asking: Asking,
        answering: Answering,
        relaying: Relaying,
        publisher: Publisher,
        addresses: AddressWatch,
        config: NodeConfig,
    ) -> None:
        self._host: Final = host
        self._book: Final = book
        self._channels: Final = channels
        self._comms: Final = comms
        self._routes: Final = routes
        self._searching: Final = searching
        self._asking: Final = asking
        self._answering: Final = answering
        self._handlers: Final = answering.handlers
        self._relaying: Final = relaying
        self._publisher: Final = publisher
        self._addresses: Final = addresses
        self._config: Final = config
        self._draining: asyncio.Task[None] | None = None
        """Lets what is under way end, then closes the node."""
        self._closing: asyncio.Task[None] | None = None
        """Closes the node, once for all callers."""

    async def disconnect(self, peer_id: NodeId) -> None:
        """Close all paths to a peer, once what waits there has left or has taken too long."""
        await self._wait_while(lambda: self._has_unsent(peer_id), self._config.close_timeout_s)
        self._routes.disconnect(peer_id)

    async def close(self, drain_s: float = 0.0) -> None:
        """End every exchange with :class:`NodeClosed`, tell the peers, and leave nothing behind.
        With ``drain_s``, what is under way may end first.

        This happens once, in a task of its own that all callers wait for: if one of them is
        cancelled, the node is closed all the same.
        """
        caller = asyncio.current_task()
        if drain_s <= 0 or self._host.is_closed:
            await self._close_now(caller)
            return
        if self._draining is None:
            self._draining = begin_later(partial(self._drain, drain_s, caller))
        elif self._handlers.runs_in(caller):
            return  # a handler must not wait for what waits for it
        await asyncio.shield(self._draining)

    # Draining

    async def _drain(self, drain_s: float, caller: asyncio.Task[Any] | None) -> None:
        """Tell all peers that this node is about to close, refuse anything new, and close once
        everything under way has ended, or after ``drain_s`` seconds."""
        self._answering.refuses_new = True
        goaway = item(ItemType.GOAWAY, write_goaway(GOAWAY_CLOSING, drain_s))
        for peer in self._book.all():
            for path in peer.paths:
                path.queue_control(goaway)
        # If cancelled, as everything is when the program ends, do not wait any longer.
        with contextlib.suppress(asyncio.CancelledError):
            await self._wait_while(
                lambda: not self._host.is_closed and self._is_busy_but_for(caller), drain_s
            )
        await self._close_now(caller)

    async def _wait_while(self, goes_on: Callable[[], bool], seconds: float) -> None:
        until_s = self._host.now() + seconds
        # Polled, since an event for each reason would cost every message.
        while goes_on() and self._host.now() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(min(LOOK_S, max(0.0, until_s - self._host.now())))

    def _has_unsent(self, peer_id: NodeId) -> bool:
        peer = self._book.find(peer_id)
        return peer is not None and any(path.outbox for path in peer.paths)

    def _is_busy_but_for(self, caller: asyncio.Task[Any] | None) -> bool:
        handlers = len(self._handlers) - self._handlers.runs_in(caller)
        # A query that is still coming in has no reference to refuse it by until it is whole.
        uploads = len(self._answering.uploads)
        return bool(handlers or len(self._asking.exchanges) or uploads) or any(
            peer.waiting or any(path.outbox for path in peer.paths) for peer in self._book.all()
        )

    # Closing

    async def _close_now(self, caller: asyncio.Task[Any] | None) -> None:
        if self._closing is None:
            self._host.stop()
            self._asking.close()
            self._answering.refuses_new = True
            self._closing = begin_later(partial(self._close, caller))
        elif self._handlers.runs_in(caller):
            return  # a handler must not wait for what waits for it
        if not self._closing.done():
            await asyncio.shield(self._closing)

    async def _close(self, caller: asyncio.Task[Any] | None) -> None:
        # If cancelled, as everything is when the program ends, wait for none of it.
        with contextlib.suppress(asyncio.CancelledError):
            await self._end_work(caller)
        # Also to those who have proven nothing yet: their proofs may be under way, with queries.
        # First, since some of these goodbyes travel by the other paths.
        for path in self._channels.sessions.unconfirmed.paths():
            path.say_close(CLOSE_FOR_GOOD)
        paths = self._routes.say_goodbye(self._book.all(), CLOSE_FOR_GOOD)
        await self._comms.close()
        for path in paths:
            self._channels.close(path)

    async def _end_work(self, caller: asyncio.Task[Any] | None) -> None:
        listener = self._relaying.listener
        parts: list[Callable[[], Awaitable[object]]] = [
            self._addresses.close,
            self._publisher.close,
            *([] if listener is None else [listener.close]),
            self._searching.close,
            partial(self._handlers.close, caller),
        ]
        for close in parts:
            try:
                await close()
            except Exception as error:
                # A bug in one part is reported, and is no reason to leave the others open.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a part of a node could not be closed", "exception": error}
                )

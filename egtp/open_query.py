"""What the caller of a node holds while a message of its own is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from egtp.errors import EgtpError
from egtp.queries.exchange import Exchange
from egtp.queries.large_message import LargeMessage
from egtp.queries.outgoing import Outgoing

__all__ = ["OpenQuery", "PeerExchange", "Sending"]


PeerExchange: TypeAlias = Exchange[asyncio.Future[bytes]]
"""An exchange of this node's. Its outcome goes to a plain future, the cheapest thing to await."""


class OpenQuery:
    """A query that is under way, from :meth:`Node.open_query`. Await it for the body of the reply;
    ``asyncio.gather`` and ``asyncio.wait_for`` take it as well.

    Exactly one outcome comes (see ``docs/outcomes.md``). Cancelling it, or the task that awaits it,
    abandons the query: everything about it is freed at once, and the peer is told.
    """

    __slots__ = ("_abandon", "_exchange", "_on_soft_timeout", "_outcome", "_soft", "_soft_passed")

    def __init__(
        self,
        outcome: asyncio.Future[bytes],
        abandon: Callable[[PeerExchange], None],
        on_soft_timeout: Callable[[], None] | None = None,
    ) -> None:
        self._outcome = outcome
        self._abandon = abandon
        self._exchange: PeerExchange | None = None
        """Set by the node; None if it failed at once, or was abandoned."""
        self._on_soft_timeout = on_soft_timeout
        self._soft: asyncio.Future[bool] | None = None
        self._soft_passed = False

    def __await__(self) -> Generator[Any, None, bytes]:
        try:
            return (yield from self._outcome)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def done(self) -> bool:
        """Whether the outcome is known, a cancellation included."""
        return self._outcome.done()

    def cancel(self) -> bool:
        """Abandon the query. Returns False if it already had its outcome."""
        self._outcome.cancel()
        if self._exchange is None:
            return False
        exchange, self._exchange = self._exchange, None
        self._abandon(exchange)
        return self._outcome.cancelled()

    def cancelled(self) -> bool:
        """Whether the query was abandoned before it had an outcome."""
        return self._outcome.cancelled()

    def result(self) -> bytes:
        """The body of the reply. Raises what awaiting the query would raise, or
        :class:`asyncio.InvalidStateError` before the outcome is known."""
        return self._outcome.result()

    def exception(self) -> BaseException | None:
        """What awaiting the query would raise; None for a reply. Raises
        :class:`asyncio.CancelledError` if the query was abandoned, or
        :class:`asyncio.InvalidStateError` before the outcome is known."""
        return self._outcome.exception()

    async def soft_timeout(self) -> bool:
        """Wait for the soft timeout (R6). Returns True when it passes, and False if the outcome
        comes first. Without a soft timeout, this waits for the outcome.

        The query goes on: a reply after the soft timeout counts as if it had been on time.
        Cancelling this wait does not cancel the query.
        """
        if self._soft_passed or self._outcome.done():
            return self._soft_passed
        if self._soft is None:
            self._soft = self._outcome.get_loop().create_future()
            self._outcome.add_done_callback(self._outcome_came)
        return await asyncio.shield(self._soft)

    def _pass_soft_timeout(self) -> None:
        """Called by the engine when it passes."""
        if self._outcome.done() or self._soft_passed:
            return
        self._soft_passed = True
        if self._soft is not None and not self._soft.done():
            self._soft.set_result(True)
        if self._on_soft_timeout is not None:
            # In a turn of its own: what it raises is the application's affair.
            self._outcome.get_loop().call_soon(self._on_soft_timeout)

    def _outcome_came(self, _: asyncio.Future[bytes]) -> None:
        if self._soft is not None and not self._soft.done():
            self._soft.set_result(False)


class Sending(Outgoing):
    """A message without a reply. That it leaves is its success."""

    __slots__ = ("left",)

    def __init__(
        self, message: bytes | LargeMessage, born_s: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.left: asyncio.Future[None] = loop.create_future()
        super().__init__(message, born_s)

    def leave(self) -> None:
        self.given = True
        if not self.left.done():
            self.left.set_result(None)

    def fail(self, error: EgtpError) -> None:
        if not self.left.done():
            self.left.set_exception(error)

"""What a caller of the node holds while a message of its own is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from egtp.errors import EgtpError, HandlerFailed
from egtp.exchange import Exchange
from egtp.message import Reply, ReplyCode
from egtp.outgoing import Outgoing

__all__ = ["OpenQuery", "Sending"]


class OpenQuery:
    """A query whose outcome is to come. Await it for the body of the reply.

    Exactly one outcome comes (see docs/protocol.md, "Outcomes"). Cancelling it, or what awaits it,
    abandons the query: everything about it is freed at once, and the peer is told.
    """

    __slots__ = ("_on_soft_timeout", "_soft", "_soft_passed", "abandon", "exchange", "outcome")

    def __init__(
        self,
        outcome: asyncio.Future[bytes],
        on_soft_timeout: Callable[[], None] | None = None,
    ) -> None:
        self.outcome = outcome
        """A plain future: those are awaited at half the price of any other kind."""
        self._on_soft_timeout = on_soft_timeout
        self._soft: asyncio.Future[bool] | None = None
        self._soft_passed = False
        self.exchange: Exchange[OpenQuery] | None = None
        self.abandon: Callable[[Exchange[OpenQuery]], None] | None = None
        """What to call with the exchange when nobody wants it any more."""

    def __await__(self) -> Generator[Any, None, bytes]:
        try:
            return (yield from self.outcome)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def done(self) -> bool:
        """Whether the outcome is there, a cancellation included."""
        return self.outcome.done()

    def cancel(self) -> bool:
        """Abandon the query. False if it had its outcome already."""
        self.outcome.cancel()
        if self.exchange is None or self.abandon is None:
            return False
        exchange, self.exchange = self.exchange, None
        self.abandon(exchange)
        return True

    def cancelled(self) -> bool:
        return self.outcome.cancelled()

    def result(self) -> bytes:
        """The reply's body. Raises as awaiting it would, and InvalidStateError before its end."""
        return self.outcome.result()

    def exception(self) -> BaseException | None:
        """What awaiting it would raise, or None for a reply."""
        return self.outcome.exception()

    async def soft_timeout(self) -> bool:
        """Wait for the soft timeout (R6). True when it passes; False if the outcome comes first.

        The query goes on: a reply after the soft timeout counts as if it had been on time.
        """
        if self._soft_passed or self.outcome.done():
            return self._soft_passed
        if self._soft is None:
            self._soft = self.outcome.get_loop().create_future()
            self.outcome.add_done_callback(self._outcome_came)
        return await asyncio.shield(self._soft)

    # What the engine calls

    def pass_soft_timeout(self) -> None:
        if self.outcome.done() or self._soft_passed:
            return
        self._soft_passed = True
        if self._soft is not None and not self._soft.done():
            self._soft.set_result(True)
        if self._on_soft_timeout is not None:
            # In a turn of its own: what it raises is the application's affair.
            self.outcome.get_loop().call_soon(self._on_soft_timeout)

    def succeed(self, reply: Reply) -> None:
        if reply.code:
            # Codes of later versions mean that the handler failed, whatever else they say.
            known = reply.code in ReplyCode._value2member_map_ or reply.code >= 64
            code = reply.code if known else ReplyCode.HANDLER_ERROR
            self.fail(HandlerFailed(code, reply.body))
            return
        self.exchange = None
        if not self.outcome.done():
            self.outcome.set_result(reply.body)

    def fail(self, error: EgtpError) -> None:
        self.exchange = None
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def _outcome_came(self, _: asyncio.Future[bytes]) -> None:
        if self._soft is not None and not self._soft.done():
            self._soft.set_result(False)


class Sending(Outgoing):
    """A message without a reply. ``given`` turning true is its success."""

    __slots__ = ("left",)

    def __init__(self, message: bytes, born_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.left: asyncio.Future[None] = loop.create_future()
        super().__init__(message, born_s)

    @property
    def given(self) -> bool:
        return self.left.done() and not self.left.cancelled() and self.left.exception() is None

    @given.setter
    def given(self, given: bool) -> None:
        if given and not self.left.done():
            self.left.set_result(None)

    def fail(self, error: EgtpError) -> None:
        if not self.left.done():
            self.left.set_exception(error)

"""What a caller of the node holds while a message of its own is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Final

from egtp.errors import EgtpError, HandlerFailed
from egtp.message import Reply, ReplyCode

__all__ = ["OpenQuery", "Replying", "Sending"]


class OpenQuery:
    """A query whose outcome is to come. Await it for the body of the reply.

    Exactly one outcome comes (see docs/protocol.md, "Outcomes"). Cancelling the await abandons
    the query: everything about it is freed at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_soft_timeout: Callable[[], None] | None,
    ) -> None:
        self._outcome: Final[asyncio.Future[bytes]] = loop.create_future()
        self._on_soft_timeout = on_soft_timeout
        self._soft: Final[asyncio.Future[bool]] = loop.create_future()

    def __await__(self) -> Generator[object, None, bytes]:
        return self._outcome.__await__()

    @property
    def done(self) -> bool:
        """Whether the outcome is there."""
        return self._outcome.done()

    async def soft_timeout(self) -> bool:
        """Wait for the soft timeout (R6). True when it passes; False if the outcome comes first.

        The query goes on: a reply after the soft timeout counts as if it had been on time.
        """
        return await asyncio.shield(self._soft)

    # What the engine calls

    def add_done_callback(self, callback: Callable[[OpenQuery], None]) -> None:
        self._outcome.add_done_callback(lambda _: callback(self))

    @property
    def cancelled(self) -> bool:
        return self._outcome.cancelled()

    def pass_soft_timeout(self) -> None:
        if self._outcome.done() or self._soft.done():
            return
        self._soft.set_result(True)
        if self._on_soft_timeout is not None:
            # In a turn of its own: what it raises is the application's affair.
            self._outcome.get_loop().call_soon(self._on_soft_timeout)

    def succeed(self, reply: Reply) -> None:
        if reply.code == ReplyCode.OK:
            self._end()
            if not self._outcome.done():
                self._outcome.set_result(reply.body)
        else:
            # Codes of later versions mean that the handler failed, whatever else they say.
            known = reply.code in ReplyCode._value2member_map_ or reply.code >= 64
            self.fail(HandlerFailed(reply.code if known else ReplyCode.HANDLER_ERROR, reply.body))

    def fail(self, error: EgtpError) -> None:
        self._end()
        if not self._outcome.done():
            self._outcome.set_exception(error)

    def _end(self) -> None:
        if not self._soft.done():
            self._soft.set_result(False)


class Sending:
    """A message without a reply. ``given`` turning true is its success."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.left: Final[asyncio.Future[None]] = loop.create_future()

    @property
    def given(self) -> bool:
        return self.left.done() and not self.left.cancelled() and self.left.exception() is None

    @given.setter
    def given(self, _: bool) -> None:
        if not self.left.done():
            self.left.set_result(None)

    def fail(self, error: EgtpError) -> None:
        if not self.left.done():
            self.left.set_exception(error)


class Replying:
    """A reply on its way. When its query's lifetime is over, nobody wants it any more."""

    __slots__ = ("given",)

    def __init__(self) -> None:
        self.given = False

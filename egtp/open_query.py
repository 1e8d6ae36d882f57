"""What a caller of the node holds while a message of its own is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from egtp.errors import EgtpError, HandlerFailed
from egtp.message import Reply, ReplyCode
from egtp.outgoing import Outgoing

__all__ = ["OpenQuery", "Sending"]


class OpenQuery(asyncio.Future[bytes]):
    """A query whose outcome is to come. Await it for the body of the reply.

    Exactly one outcome comes (see docs/protocol.md, "Outcomes"). Cancelling it, or what awaits it,
    abandons the query: everything about it is freed at once, and the peer is told.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_soft_timeout: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(loop=loop)
        self._on_soft_timeout = on_soft_timeout
        self._soft: asyncio.Future[bool] | None = None
        self._soft_passed = False
        self._abandon: Callable[[OpenQuery], None] | None = None

    async def soft_timeout(self) -> bool:
        """Wait for the soft timeout (R6). True when it passes; False if the outcome comes first.

        The query goes on: a reply after the soft timeout counts as if it had been on time.
        """
        if self._soft_passed or self.done():
            return self._soft_passed
        if self._soft is None:
            self._soft = self.get_loop().create_future()
            self.add_done_callback(self._outcome_came)
        return await asyncio.shield(self._soft)

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        if self._abandon is not None:
            self._abandon(self)
        return True

    # What the engine calls

    def when_abandoned(self, callback: Callable[[OpenQuery], None]) -> None:
        self._abandon = callback

    def pass_soft_timeout(self) -> None:
        if self.done() or self._soft_passed:
            return
        self._soft_passed = True
        if self._soft is not None and not self._soft.done():
            self._soft.set_result(True)
        if self._on_soft_timeout is not None:
            # In a turn of its own: what it raises is the application's affair.
            self.get_loop().call_soon(self._on_soft_timeout)

    def succeed(self, reply: Reply) -> None:
        self._abandon = None
        if reply.code == 0:
            if not self.done():
                self.set_result(reply.body)
            return
        # Codes of later versions mean that the handler failed, whatever else they say.
        known = reply.code in ReplyCode._value2member_map_ or reply.code >= 64
        self.fail(HandlerFailed(reply.code if known else ReplyCode.HANDLER_ERROR, reply.body))

    def fail(self, error: EgtpError) -> None:
        self._abandon = None
        if not self.done():
            self.set_exception(error)

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

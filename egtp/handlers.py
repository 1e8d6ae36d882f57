"""The answering side: which function answers which kind, and the ones that run now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from egtp.errors import HandlerFailed, LocalProtocolError
from egtp.identity import Entropy, NodeId
from egtp.message import NONCE_BYTES, Query, Reply, ReplyCode, Send, check_kind
from egtp.path import Path

__all__ = ["Answer", "Handler", "Handlers", "Incoming"]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A query or a send that a handler is called with."""

    peer_id: NodeId
    """Who sent it, proven."""
    kind: str
    body: bytes
    wants_reply: bool
    """False for a send: what the handler returns is then ignored."""
    reply_bytes_max: int
    """The largest body that the sender takes back."""
    age_s: float
    """How long it was under way, as far as both sides could see."""


Handler: TypeAlias = Callable[[Incoming], Awaitable[bytes | None]]
"""Returns the reply's body. Raises :class:`HandlerFailed` to answer with a code of its own."""


class Answer(Protocol):
    """How a reply leaves: by ``path`` if it still lives, else as the node sees fit."""

    def __call__(
        self, path: Path | None, peer_id: NodeId, reply: Reply, lifetime_s: float
    ) -> None: ...


class Handlers:
    """Runs a handler for each query that comes in, at most once for each.

    Invariant: a (peer, reference) is in ``_running`` exactly while its handler runs.
    """

    def __init__(
        self,
        answer: Answer,
        entropy: Entropy,
        per_peer_max: int,
        counters: Counter[str],
    ) -> None:
        self._answer = answer
        self._entropy = entropy
        self._per_peer_max = per_peer_max
        self._counters = counters
        self._handlers: dict[str, Handler] = {}
        self._running: dict[tuple[NodeId, bytes], asyncio.Task[None]] = {}
        self._per_peer: Counter[NodeId] = Counter()

    def add(self, kind: str, handler: Handler, *, reserved: bool = False) -> None:
        """Answer ``kind`` with ``handler``.

        Raises :class:`LocalProtocolError` for a wrong or reserved kind, or one that is taken.
        """
        check_kind(kind, reserved=reserved)
        if kind in self._handlers:
            raise LocalProtocolError(f"kind {kind!r} has a handler already")
        self._handlers[kind] = handler

    def __len__(self) -> int:
        return len(self._running)

    def receive(
        self,
        path: Path | None,
        peer_id: NodeId,
        message: Query | Send,
        reference: bytes,
        age_ms: int,
    ) -> None:
        """A query or send came; ``age_ms`` is its age, transit included."""
        if age_ms > message.lifetime_ms:
            # Its sender has given up; the work would be for nobody.
            self._counters["dropped: query past its lifetime"] += 1
            return
        left_s = (message.lifetime_ms - age_ms) / 1000
        reply = partial(self._reply, path, peer_id, message, reference, left_s)
        handler = self._handlers.get(message.kind)
        if handler is None:
            self._counters["no such kind"] += 1
            reply(ReplyCode.NO_SUCH_KIND)
            return
        if self._per_peer[peer_id] >= self._per_peer_max:
            self._counters["busy: too many queries of one peer"] += 1
            reply(ReplyCode.BUSY)
            return
        key = (peer_id, reference)
        if key in self._running:
            self._counters["dropped: query already running"] += 1
            return
        is_query = isinstance(message, Query)
        incoming = Incoming(
            peer_id,
            message.kind,
            message.body,
            is_query,
            message.reply_bytes_max if isinstance(message, Query) else 0,
            age_ms / 1000,
        )
        self._per_peer[peer_id] += 1
        task = asyncio.get_running_loop().create_task(self._run(handler, incoming, reply))
        self._running[key] = task
        task.add_done_callback(partial(self._done, key))

    async def _run(
        self, handler: Handler, incoming: Incoming, reply: Callable[[int, bytes], None]
    ) -> None:
        code, body = int(ReplyCode.OK), b""
        try:
            try:
                body = await handler(incoming) or b""
            except HandlerFailed as failed:
                code, body = _code_that_travels(failed.code), failed.body
            if not isinstance(body, bytes):
                raise TypeError(f"a handler answers with bytes, not {type(body).__name__}")
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise
            # A bug of the application's must not stop the node, nor leave the asker waiting.
            self._counters["handler raised"] += 1
            code, body = ReplyCode.HANDLER_ERROR, b""
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"handler of kind {incoming.kind!r} raised", "exception": error}
            )
        reply(code, body)

    def _done(self, key: tuple[NodeId, bytes], task: asyncio.Task[None]) -> None:
        del self._running[key]
        peer_id = key[0]
        self._per_peer[peer_id] -= 1
        if not self._per_peer[peer_id]:
            del self._per_peer[peer_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "a reply could not be sent", "exception": error, "task": task}
            )

    def _reply(
        self,
        path: Path | None,
        peer_id: NodeId,
        message: Query | Send,
        reference: bytes,
        left_s: float,
        code: int,
        body: bytes = b"",
    ) -> None:
        if isinstance(message, Send):
            return
        if len(body) > message.reply_bytes_max:
            self._counters["reply too large for its asker"] += 1
            code, body = ReplyCode.TOO_LARGE, b""
        nonce = self._entropy(NONCE_BYTES)
        self._answer(path, peer_id, Reply(nonce, reference, int(code), body), left_s)

    def cancel(self, peer_id: NodeId, reference: bytes) -> None:
        """The asker does not want the answer any more."""
        task = self._running.get((peer_id, reference))
        if task is not None:
            self._counters["cancelled by the asker"] += 1
            task.cancel()

    async def close(self) -> None:
        """Cancel what runs, and wait for it."""
        # A handler may be the one who closes the node; it is not to wait for itself.
        this = asyncio.current_task()
        running = [task for task in self._running.values() if task is not this]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _code_that_travels(code: int) -> int:
    travels = isinstance(code, int) and ReplyCode.OK < code < 128
    return code if travels else ReplyCode.HANDLER_ERROR

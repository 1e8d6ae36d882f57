"""Handlers: which function answers which kind of query, and what it is called with."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from egtp.bug_reports import BugReports
from egtp.errors import HandlerFailed, LocalProtocolError, Refusal
from egtp.handling.workers import Worker, Workers
from egtp.limits.shares import Shares
from egtp.paths.path import Path
from egtp.queries.asker import Answer, Asker
from egtp.values.comm_strat import Address
from egtp.values.identity import NodeId
from egtp.values.message import APPLICATION_CODES, ReplyCode, check_kind

__all__ = ["RUNNING_BYTES", "Handler", "Handlers", "Incoming", "Kind"]

RUNNING_BYTES: Final = 3072
"""What a waiting handler takes in addition to the body: its coroutine, its task and what goes with
them, plus something for what the application holds. A test measures that it is no more."""


class Incoming:
    """A query or a send, which a handler is called with: ``kind`` and ``body``; ``peer_id``, its
    proven sender; ``wants_reply``, False for a send; ``reply_bytes_max``, the largest body that the
    sender accepts in return; ``age_s``, how long it was under way; and ``seen_at``, where the
    sender is seen.
    """

    # Its maker fills it in: passing arguments would double the time.
    __slots__ = (
        "_answer",
        "_asked_again",
        "_asker",
        "_came_s",
        "_cancelled",
        "_deadline_s",
        "_kind",
        "_path",
        "_reference",
        "_worker",
        "age_s",
        "body",
        "peer_id",
        "reply_bytes_max",
        "wants_reply",
    )

    peer_id: NodeId
    """The peer that sent it, proven."""
    body: bytes
    """What the peer sent."""
    wants_reply: bool
    """False for a send: what the handler returns is then ignored."""
    reply_bytes_max: int
    """The largest body that the sender accepts as a reply."""
    age_s: float
    """How many seconds it was under way, as far as both sides could see."""
    _kind: Kind
    _path: Path | None
    _asker: Asker | None
    _answer: Answer | None
    _reference: bytes
    _came_s: float
    _deadline_s: float
    _cancelled: bool
    _asked_again: bool
    """A copy has come since, so the path of the first one may be dead."""
    _worker: Worker[Incoming] | None

    @property
    def kind(self) -> str:
        """The kind that it was sent as."""
        return self._kind.name

    @classmethod
    def example(
        cls, peer_id: NodeId, kind: str, body: bytes = b"", *, wants_reply: bool = True
    ) -> Incoming:
        """An incoming query or send as a handler may be called with: for tests of handlers without
        a network."""
        one = cls()
        one.peer_id, one.body, one.age_s = peer_id, body, 0.0
        one.wants_reply, one.reply_bytes_max = wants_reply, 2**32 - 1 if wants_reply else 0
        one._kind = Kind(kind, _nobody, at_once_max=None, idempotent=False, early=True)
        one._path = one._asker = one._answer = one._worker = None
        one._reference, one._came_s, one._deadline_s = b"", 0.0, 0.0
        one._cancelled = one._asked_again = False
        return one

    @property
    def seen_at(self) -> Address | None:
        """The address where the sender is seen: known only if the message came over a TCP
        connection that the sender opened, and not yet while a query that travelled with a dial may
        be a recording."""
        return None if self._path is None else self._path.seen_at

    def __repr__(self) -> str:
        return f"Incoming({self.kind!r} of {self.peer_id}, {len(self.body)} bytes)"


Handler: TypeAlias = Callable[[Incoming], Awaitable[bytes | None]]
"""An async function that takes an :class:`Incoming` and returns the body of the reply, or None for
an empty one. It raises :class:`HandlerFailed` to answer with a code of its own, 64 to 127."""


@dataclass(slots=True, eq=False)
class Kind:
    """A kind of query that this node answers."""

    name: str
    function: Callable[[Incoming], Coroutine[Any, Any, bytes | None]]
    at_once_max: int | None
    """How many may run at a time; further ones are answered "busy"."""
    idempotent: bool
    """The handler may run again for the same query, so its answers are not kept."""
    early: bool
    """The handler may run before the asker has proven that it is alive."""
    running: int = 0


class Ended(Protocol):
    """Called once for each incoming, when its handler has ended."""

    def __call__(self, incoming: Incoming, code: int, body: bytes) -> None: ...


class Handlers:
    """Runs a handler for each incoming.

    Invariant: an incoming is in :attr:`_waiting` exactly while its handler waits for something, and
    :attr:`_queries` has no others. (A peer that claims two incarnations may have two queries with
    the same reference run; which of them it then cancels is its own affair.)
    """

    def __init__(self, ended: Ended, counters: Counter[str], room: Shares) -> None:
        """:param room: the bytes that waiting handlers may take up, by the peers they work for."""
        self._ended = ended
        self._room = room
        self._counters = counters
        self._kinds: dict[str, Kind] = {}
        self.find: Final[Callable[[str], Kind | None]] = self._kinds.get
        self._workers: Workers[Incoming] = Workers(self._done)
        self._run = self._workers.run
        self._waiting: dict[Incoming, int] = {}
        """With the room that was taken for each."""
        self._queries: dict[tuple[NodeId, bytes], Incoming] = {}
        """The queries among these; of two with the same key, which only a cheat sends, the later.
        """
        self._bugs = BugReports()
        self._closed = False

    def add(
        self,
        name: str,
        handler: Handler,
        *,
        reserved: bool = False,
        at_once_max: int | None = None,
        idempotent: bool = False,
        early: bool = True,
    ) -> None:
        """Answer ``name`` with ``handler``.

        Raises :class:`LocalProtocolError` for a wrong or reserved kind, or one that is taken.
        """
        check_kind(name, reserved=reserved)
        if name in self._kinds:
            raise LocalProtocolError(
                f"kind {name!r} already has a handler: call remove_handler() first"
            )
        self._kinds[name] = Kind(
            name,
            _coroutine_function(handler),
            at_once_max=at_once_max,
            idempotent=idempotent,
            early=early,
        )

    def remove(self, name: str) -> None:
        """Take away the handler of ``name``, which has one. What it has begun, it goes on with:
        each incoming keeps the :class:`Kind` that it began with."""
        del self._kinds[name]

    def __len__(self) -> int:
        return len(self._workers)

    def run(self, incoming: Incoming) -> None:
        """Call the handler, and ``ended`` when it has ended: at once if it does not wait."""
        kind, asker = incoming._kind, incoming._asker
        # After close() nothing begins, which is no fault of the handler.
        incoming._cancelled = self._closed
        kind.running += 1
        if asker is not None:
            asker.running += 1
        worker = self._run(incoming, kind.function)
        if worker is not None:
            incoming._worker = worker
            self._waiting[incoming] = self._take_room(incoming)
            if incoming.wants_reply:
                self._queries[incoming.peer_id, incoming._reference] = incoming

    def _done(self, incoming: Incoming, body: Any, error: BaseException | None) -> None:
        incoming._kind.running -= 1
        if incoming._asker is not None:
            incoming._asker.running -= 1
        if incoming._worker is not None:
            self._room.give_back(incoming.peer_id, self._waiting.pop(incoming))
            query = incoming.peer_id, incoming._reference
            if self._queries.get(query) is incoming:
                del self._queries[query]
        if error is None and type(body) is bytes:
            self._ended(incoming, 0, body)
        else:
            self._ended(incoming, *self._failed(incoming, body, error))

    def _take_room(self, incoming: Incoming) -> int:
        path, size = incoming._path, RUNNING_BYTES + len(incoming.body)
        # Room was checked before it began; what this node asks itself needs none.
        fits = path is not None and self._room.take(
            incoming.peer_id, size, stranger=path.is_strangers
        )
        return size if fits else 0

    def _failed(
        self, incoming: Incoming, body: Any, error: BaseException | None
    ) -> tuple[int, bytes]:
        """The code and body to answer with."""
        if error is None and (body is None or isinstance(body, bytes)):
            return ReplyCode.OK, bytes(body or b"")
        raised: Any = error  # an application may have put anything into it
        # One with a peer_id is how a query of the handler's own ended.
        if isinstance(error, HandlerFailed) and raised.peer_id is None:
            wrong = _wrong_with(raised)
            if wrong is None:
                if isinstance(error, Refusal) and error.counted:
                    self._counters[error.counted] += 1
                return raised.code, raised.body
            error = ValueError(f"a handler must answer with {wrong}")
            error.__cause__ = raised
        if incoming._cancelled and isinstance(error, asyncio.CancelledError):
            return ReplyCode.EXPIRED, b""
        # A bug in the application must neither stop the node nor leave the asker waiting.
        self._counters["handler raised"] += 1
        if error is None:
            error = TypeError(f"a handler must return bytes or None, not {type(body).__name__}")
        message = f"the handler of kind {incoming.kind!r} raised an exception"
        self._bugs.report(message, error, asyncio.get_running_loop())
        return ReplyCode.HANDLER_ERROR, b""

    def asked_again(self, path: Path, reference: bytes) -> None:
        """Another copy of a running query has come, by this path."""
        incoming = self._queries.get((path.peer_id, reference))
        if incoming is not None:
            incoming._path, incoming._asked_again = path, True

    def cancel(self, peer_id: NodeId, reference: bytes) -> None:
        """The asker does not want the answer any more."""
        incoming = self._queries.get((peer_id, reference))
        # Once only: it may be tidying up, since its time is over here as well.
        if incoming is not None and not incoming._cancelled:
            self._counters["cancelled by the asker"] += 1
            self._cancel(incoming)

    def expire(self, now_s: float) -> None:
        """Cancel the handlers of queries past their lifetimes: nobody waits for those."""
        for incoming in list(self._waiting):
            if incoming._deadline_s <= now_s and not incoming._cancelled:
                self._counters["handler cancelled: its query is past its lifetime"] += 1
                self._cancel(incoming)

    def end_for_the_gone(self) -> None:
        """Cancel the handlers that work for strangers that are gone: others need the room."""
        for incoming in list(self._waiting):
            asker = incoming._asker
            is_gone = asker is not None and asker.stranger and not asker.sessions
            if is_gone and not incoming._cancelled:
                self._counters[
                    "handler cancelled: its asker is gone, and others need the room"
                ] += 1
                self._cancel(incoming)

    def _cancel(self, incoming: Incoming) -> None:
        incoming._cancelled = True
        if incoming._worker is not None:
            self._workers.cancel(incoming._worker, incoming)

    def runs_in(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether the task is a handler's."""
        return self._workers.has(task)

    async def close(self, caller: asyncio.Task[Any] | None = None) -> None:
        """Cancel the handlers, and wait for them; those that go on all the same are reported and
        left alone. If ``caller`` is the task of a handler, that one closes its own node: it is
        left alone, too."""
        self._closed = True
        for incoming in self._waiting:
            incoming._cancelled = True
        for incoming in await self._workers.close(caller):
            self._counters["handler goes on after its node was closed"] += 1
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the handler of kind {incoming.kind!r} was cancelled, but goes on"}
            )


async def _nobody(_: Incoming) -> bytes:
    return b""


def _coroutine_function(handler: Handler) -> Callable[[Incoming], Coroutine[Any, Any, Any]]:
    """A handler may also be a function that returns something else to await."""
    if inspect.iscoroutinefunction(handler):
        return handler

    async def handle(incoming: Incoming) -> bytes | None:
        result: object = handler(incoming)
        if not isinstance(result, Awaitable):
            wrong = type(result).__name__
            raise TypeError(
                f"a handler must be an `async def` function, but it returned {wrong}; "
                "plain functions can be handlers of an egtp.blocking.Node only"
            )
        body: bytes | None = await result
        return body

    return handle


def _wrong_with(failed: Any) -> str | None:
    """What a handler must answer with instead; None if this will do."""
    code, body = failed.code, failed.body
    if not isinstance(body, bytes):
        return f"bytes, not {type(body).__name__}"
    if isinstance(failed, Refusal) or (isinstance(code, int) and code in APPLICATION_CODES):
        return None
    return f"a code of its own, 64 to 127, not {code!r}"

"""The Lookup Service: peerId to current comm strategies (seed I.C, R7).

The engine sees this protocol and never learns what is behind it: a DHT (``lookup_dht``), friends,
a table in memory, or several of these in a chain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from egtp.errors import EgtpError, InvalidConfig, LookupFailed, LookupFailure, PublishFailed
from egtp.values.comm_record import SignedCommRecord, supersedes
from egtp.values.identity import NodeId
from egtp.values.settings import check_seconds

__all__ = [
    "PUBLISH_TIMEOUT_S",
    "LookupChain",
    "LookupRace",
    "LookupService",
    "MemoryLookup",
    "Published",
    "StreamingLookup",
    "check_service",
    "ending",
    "publish_to",
    "resolve_from",
    "resolve_stream",
    "tell_of_bug",
]

PUBLISH_TIMEOUT_S: Final = 8.0
"""Of each service of several."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a record that was published."""

    stored: int
    """How many nodes said that they hold it now. Never zero: that is :class:`PublishFailed`."""
    asked: int
    """How many were asked to."""
    networks: int = field(default=0, compare=False)
    """Of how many networks (a /24, or an IPv6 /48) those are that hold it: twenty nodes of one
    owner are one. 0 if the service cannot tell."""


class LookupService(Protocol):
    """Stores and finds signed records. What it returns is verified, of the peer asked for, not
    expired, and newer than what was asked to be newer than. Cancelling a call frees everything."""

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        """The newest record of ``peer_id`` whose sequence is above ``newer_than``.

        Raises :class:`LookupFailed`, with a reason, if there is none.
        """

    async def publish(self, record: SignedCommRecord) -> Published:
        """Store ``record``. Raises :class:`PublishFailed` if nobody did."""


@runtime_checkable
class StreamingLookup(LookupService, Protocol):
    """A lookup service that tells what it finds while it goes on searching."""

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        """As before. ``fresh`` waits for everybody who might know something newer, and does not
        take what was found before for an answer."""

    def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        """Records of strictly increasing sequence above ``newer_than``: the first one found at
        once, so that it can be dialled, and newer ones as they turn up.

        Raises :class:`LookupFailed` if there was none. Leaving the iteration ends the search, so
        close it: ``async with contextlib.aclosing(...)``.
        """


class ending:  # noqa: N801 - as contextlib.aclosing, which it is but for one case
    """Ends a stream with its block. A coroutine that is dropped where it waits, as at the end of a
    process, may wait for nothing more: then the stream is dropped with it."""

    def __init__(self, stream: AsyncGenerator[SignedCommRecord, None]) -> None:
        self._stream = stream

    async def __aenter__(self) -> AsyncGenerator[SignedCommRecord, None]:
        return self._stream

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not GeneratorExit:
            await self._stream.aclose()


async def resolve_stream(
    service: LookupService, peer_id: NodeId, *, newer_than: int = 0
) -> AsyncGenerator[SignedCommRecord, None]:
    """:meth:`StreamingLookup.resolve_stream` of any service: if it does not stream, the stream is
    of one record."""
    if isinstance(service, StreamingLookup):
        with _cancelling_nobody_else():
            found = service.resolve_stream(peer_id, newer_than=newer_than)
            async with ending(found):
                async for record in found:
                    yield record
    else:
        yield await resolve_from(service, peer_id, newer_than)


async def resolve_from(
    service: LookupService, peer_id: NodeId, newer_than: int = 0, *, fresh: bool = False
) -> SignedCommRecord:
    """:meth:`LookupService.resolve` of somebody's service, which may raise anything. One that does
    not know of ``fresh`` has nothing older to answer with."""
    with _cancelling_nobody_else():
        found: object
        if fresh and isinstance(service, StreamingLookup):
            found = await service.resolve(peer_id, newer_than=newer_than, fresh=True)
        else:
            found = await service.resolve(peer_id, newer_than=newer_than)
    if not isinstance(found, SignedCommRecord):
        raise TypeError(f"resolve() must return a SignedCommRecord, not {found!r}")
    return found


async def publish_to(service: LookupService, record: SignedCommRecord) -> Published:
    """:meth:`LookupService.publish` of somebody's service, which may raise or return anything."""
    with _cancelling_nobody_else():
        published: object = await service.publish(record)
    if not isinstance(published, Published):
        raise TypeError(f"publish() must return a Published, not {published!r}")
    return published


@contextmanager
def _cancelling_nobody_else() -> Iterator[None]:
    """What a service cancels by itself, a future of its own say, is its failure and no more: who
    asked it is not at an end."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("it was cancelled, but not by its caller") from error


def check_service(name: str, service: object) -> None:
    """Raises :class:`InvalidConfig` for what is no lookup service."""
    if isinstance(service, type):
        raise InvalidConfig(
            f"{name} must be an instance, not the class: write {service.__name__}()"
        )
    if not (hasattr(service, "resolve") and hasattr(service, "publish")):
        raise InvalidConfig(
            f"{name} must be a lookup service, such as a DHTLookup, not {service!r}"
        )


class MemoryLookup:
    """A lookup service that is a table in this process: for tests, and for apps whose peers are
    all known beforehand. Several nodes may share one."""

    def __init__(self, unix_time: Callable[[], float] = time.time) -> None:
        self._unix_time = unix_time
        self._records: dict[NodeId, SignedCommRecord] = {}

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        """See :class:`LookupService`."""
        record = self._records.get(peer_id)
        if record is None or record.expired(self._unix_time()):
            raise LookupFailed(LookupFailure.NOT_FOUND)
        if record.sequence <= newer_than:
            raise LookupFailed(LookupFailure.SUPERSEDED)
        return record

    async def publish(self, record: SignedCommRecord) -> Published:
        """See :class:`LookupService`. Raises :class:`PublishFailed` if a newer one is here."""
        if supersedes(record, self._records.get(record.peer_id)):
            self._records[record.peer_id] = record
        elif self._records[record.peer_id].encode() != record.encode():
            raise PublishFailed("a newer record is already stored")
        return Published(stored=1, asked=1)


def _failure(error: Exception) -> LookupFailed:
    """A service of several that raises something else, as one that is closed or has a bug, has
    failed like any other; nobody is kept from what the others know."""
    if isinstance(error, LookupFailed):
        return error
    tell_of_bug(error)
    return LookupFailed(LookupFailure.NO_RESPONSES, _named(error))


def tell_of_bug(error: Exception) -> None:
    """Tell the loop of what no lookup service is to raise."""
    if not isinstance(error, EgtpError | TimeoutError):
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a lookup service raised", "exception": error}
        )


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class LookupChain:
    """Several services as one: asked in order, the first usable record wins; published to all at
    once."""

    def __init__(
        self, *services: LookupService, publish_timeout_s: float = PUBLISH_TIMEOUT_S
    ) -> None:
        """``publish_timeout_s`` is what each service may take to store a record: less than a node
        gives all of them (``lookup_timeout_s``), so that what one has stored counts though another
        one hangs. Raises :class:`InvalidConfig`."""
        for service in services:
            check_service("each service", service)
        check_seconds(publish_timeout_s=publish_timeout_s)
        self._services: Final = services
        self.publish_timeout_s: Final = publish_timeout_s

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        """With ``fresh``, all are asked, and the newest record wins."""
        answers = (resolve_from(one, peer_id, newer_than, fresh=fresh) for one in self._services)
        return await _best(answers, fresh=fresh)

    async def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        """Of all services, one after another, so put those first that answer fast."""
        failure = LookupFailed(LookupFailure.NO_NODES)
        told = newer_than
        for service in self._services:
            stream = resolve_stream(service, peer_id, newer_than=told)
            try:
                async with ending(stream):
                    async for record in stream:
                        told = record.sequence
                        yield record
            except Exception as error:
                failure = _failure(error)
        if told == newer_than:
            raise failure

    async def publish(self, record: SignedCommRecord) -> Published:
        """To all at once, each with its own time. Raises :class:`PublishFailed`, with what became
        of each, if none has stored it."""
        outcomes = await asyncio.gather(*(self._publish(one, record) for one in self._services))
        done = [one for one in outcomes if isinstance(one, Published)]
        if not any(one.stored for one in done):
            failures = [one for one in outcomes if isinstance(one, str)]
            raise PublishFailed("; ".join(failures) or "no lookup service to publish to")
        return Published(
            sum(one.stored for one in done),
            sum(one.asked for one in done),
            sum(one.networks for one in done),
        )

    async def _publish(self, service: LookupService, record: SignedCommRecord) -> Published | str:
        """What was stored, or why nothing was."""
        try:
            async with asyncio.timeout(self.publish_timeout_s):
                return await publish_to(service, record)
        except PublishFailed as error:
            return str(error)
        except TimeoutError:
            return f"{type(service).__name__} did not answer in time"
        except Exception as error:
            tell_of_bug(error)
            return _named(error)


class LookupRace(LookupChain):
    """Several services as one: asked all at once, the first usable record wins."""

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        """With ``fresh``, all are waited for, and the newest record wins. When this returns, raises
        or is cancelled, every search has ended: the slower ones are cancelled."""
        searches = [
            asyncio.ensure_future(resolve_from(one, peer_id, newer_than, fresh=fresh))
            for one in self._services
        ]
        try:
            return await _best(asyncio.as_completed(searches), fresh=fresh)
        finally:
            await _end(searches)

    async def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        """Of all services at once. If several records are found before the next one is asked for,
        it is the newest of them."""
        newest: SignedCommRecord | None = None
        failure = LookupFailed(LookupFailure.NO_NODES)
        changed = asyncio.Event()

        async def search(service: LookupService) -> None:
            nonlocal newest, failure
            stream = resolve_stream(service, peer_id, newer_than=newer_than)
            try:
                async with ending(stream):
                    async for record in stream:
                        if supersedes(record, newest):
                            newest = record
                            changed.set()
            except Exception as error:
                failure = _failure(error)

        searches = [asyncio.ensure_future(search(service)) for service in self._services]
        for one in searches:
            one.add_done_callback(lambda _: changed.set())
        told, is_dropped = newer_than, False
        try:
            while True:
                is_over = all(one.done() for one in searches)
                if newest is not None and newest.sequence > told:
                    told = newest.sequence
                    yield newest
                elif is_over:
                    break
                else:
                    changed.clear()
                    try:
                        await changed.wait()
                    except GeneratorExit:
                        # Whoever closes a stream does so between two records. Here it is dropped,
                        # with who awaits the next one: from Python 3.13 on it is told.
                        is_dropped = True
                        raise
        finally:
            await _end(searches, is_dropped=is_dropped)
        if told == newer_than:
            raise failure


async def _best(answers: Iterable[Awaitable[SignedCommRecord]], *, fresh: bool) -> SignedCommRecord:
    """The first record to come; the newest of all if it is to be ``fresh``."""
    failure = LookupFailed(LookupFailure.NO_NODES)
    newest: SignedCommRecord | None = None
    for answer in answers:
        try:
            record = await answer
        except Exception as error:
            failure = _failure(error)
            continue
        if not fresh:
            return record
        if supersedes(record, newest):
            newest = record
    if newest is None:
        raise failure
    return newest


async def _end(searches: Sequence[asyncio.Task[Any]], *, is_dropped: bool = False) -> None:
    """Return when all have ended: at once, though, if who asked is dropped and may not wait."""
    for one in searches:
        one.cancel()
    if not is_dropped:
        await asyncio.gather(*searches, return_exceptions=True)

"""The Lookup Service: from a peerId to the peer's current strategies (seed I.C, R7).

The engine sees this protocol and never learns what is behind it: a DHT (``lookup_dht``), friends, a
table in memory, or several of these combined.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from egtp.bug_reports import BugReports
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
"""Seconds for each service of several."""
_SAYS: Final = {reason: place for place, reason in enumerate(LookupFailure)}
"""How much a failure says of the peer."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a record that was published."""

    stored: int
    """How many nodes said that they hold it now. Never zero: that raises :class:`PublishFailed`."""
    asked: int
    """How many nodes were asked to store it."""
    networks: int = field(default=0, compare=False)
    """How many networks (/24, or IPv6 /48) the nodes that hold it are in: twenty nodes of one owner
    are in one. 0 if the service cannot tell."""
    failed: int = field(default=0, compare=False)
    """Of several services, how many have not, or not everywhere: :class:`LookupChain`."""


class LookupService(Protocol):
    """Stores and finds signed records. A record that it returns is verified, of the peer that was
    asked for, not expired, and newer than ``newer_than``. Cancelling a call frees everything."""

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        """Find the newest record of ``peer_id`` whose sequence is above ``newer_than``.

        Raises :class:`LookupFailed`, with a reason, if there is none.
        """

    async def publish(self, record: SignedCommRecord) -> Published:
        """Store ``record``. Raises :class:`PublishFailed` if nobody did."""


@runtime_checkable
class StreamingLookup(LookupService, Protocol):
    """A lookup service that returns records while it goes on searching."""

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        """As in :class:`LookupService`. ``fresh`` waits for everybody who might know a newer
        record, and does not accept what an earlier search found."""

    def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        """Yield records of strictly increasing sequence above ``newer_than``: the first one as soon
        as it is found, so that it can be dialled, and newer ones as they turn up.

        Raises :class:`LookupFailed` if there is none. Closing the iterator ends the search, so
        leave it with ``async with contextlib.aclosing(...)``.
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
    """As :meth:`StreamingLookup.resolve_stream`, of any service. If it does not stream, the stream
    has one record."""
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
    """Raise :class:`InvalidConfig` unless ``service`` can be a lookup service."""
    if isinstance(service, type):
        raise InvalidConfig(
            f"{name} must be an instance, not the class: write {service.__name__}()"
        )
    if not (hasattr(service, "resolve") and hasattr(service, "publish")):
        raise InvalidConfig(
            f"{name} must be a lookup service, such as a DHTLookup, not {service!r}"
        )


class MemoryLookup:
    """A lookup service that is a table in this process: for tests, and for applications that know
    all their peers beforehand. Several nodes may share one."""

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
        """See :class:`LookupService`. Raises :class:`PublishFailed` if a newer record is here."""
        if supersedes(record, self._records.get(record.peer_id)):
            self._records[record.peer_id] = record
        elif self._records[record.peer_id].encode() != record.encode():
            raise PublishFailed("a newer record is already stored")
        return Published(stored=1, asked=1)


def _failure(error: Exception, bugs: BugReports) -> LookupFailed:
    """A service of several that raises something else, as one that is closed or has a bug, has
    failed like any other; nobody is kept from what the others know."""
    if isinstance(error, LookupFailed):
        return error
    tell_of_bug(error, bugs)
    return LookupFailed(LookupFailure.NO_RESPONSES, _named(error))


def _says_more(one: LookupFailed, other: LookupFailed) -> LookupFailed:
    """Of the failures of two services: that one has found no record says more than that another
    cannot be asked, as over a version of IP that leads nowhere."""
    return one if _SAYS[one.reason] > _SAYS[other.reason] else other


def tell_of_bug(error: Exception, bugs: BugReports) -> None:
    """Report what no lookup service should raise."""
    if not isinstance(error, EgtpError | TimeoutError):
        bugs.report("a lookup service raised", error, asyncio.get_running_loop())


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class LookupChain:
    """Several lookup services as one: they are asked in order, and the first usable record wins.
    Records are published to all of them at once."""

    def __init__(
        self, *services: LookupService, publish_timeout_s: float = PUBLISH_TIMEOUT_S
    ) -> None:
        """
        :param services: the lookup services, those first that answer fast.
        :param publish_timeout_s: seconds that each service may take to store a record. A node
            allows at most 0.8 of its ``lookup_timeout_s``, so that what one service has stored
            counts although another one hangs.

        Raises :class:`InvalidConfig` for what is not a lookup service or not a time.
        """
        for service in services:
            check_service("each service", service)
        check_seconds(publish_timeout_s=publish_timeout_s)
        self._services: Final = services
        self._bugs: Final = BugReports()
        self.publish_timeout_s: Final = publish_timeout_s
        """Seconds that each service may take to store a record."""

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        """See :class:`LookupService`. With ``fresh``, all services are asked, and the newest record
        wins."""
        answers = (resolve_from(one, peer_id, newer_than, fresh=fresh) for one in self._services)
        return await _best(answers, self._bugs, fresh=fresh)

    async def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        """See :class:`StreamingLookup`: the records of all services, one service after another."""
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
                failure = _says_more(failure, _failure(error, self._bugs))
        if told == newer_than:
            raise failure

    async def publish(self, record: SignedCommRecord) -> Published:
        """Publish to all services at once; each has its own timeout. Returns the sums. Raises
        :class:`PublishFailed`, with what each said, if none has stored it."""
        outcomes = await asyncio.gather(*(self._publish(one, record) for one in self._services))
        done = [one for one in outcomes if isinstance(one, Published)]
        if not any(one.stored for one in done):
            failures = [one for one in outcomes if isinstance(one, str)]
            raise PublishFailed("; ".join(failures) or "no lookup service to publish to")
        return Published(
            sum(one.stored for one in done),
            sum(one.asked for one in done),
            sum(one.networks for one in done),
            len(outcomes) - sum(one.stored > 0 and not one.failed for one in done),
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
            tell_of_bug(error, self._bugs)
            return _named(error)


class LookupRace(LookupChain):
    """Several lookup services as one: they are asked all at once, and the first usable record wins.
    Records are published to all of them at once."""

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        """See :class:`LookupService`. With ``fresh``, all services are waited for, and the newest
        record wins. When this returns, raises or is cancelled, every search has ended: the slower
        ones are cancelled."""
        searches = [
            asyncio.ensure_future(resolve_from(one, peer_id, newer_than, fresh=fresh))
            for one in self._services
        ]
        try:
            return await _best(asyncio.as_completed(searches), self._bugs, fresh=fresh)
        finally:
            await _end(searches)

    async def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        """See :class:`StreamingLookup`: the records of all services, asked at once. If several are
        found before the next one is asked for, that is the newest of them."""
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
                failure = _says_more(failure, _failure(error, self._bugs))

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


async def _best(
    answers: Iterable[Awaitable[SignedCommRecord]], bugs: BugReports, *, fresh: bool
) -> SignedCommRecord:
    """The first record to come; with ``fresh``, the newest of all."""
    failure = LookupFailed(LookupFailure.NO_NODES)
    newest: SignedCommRecord | None = None
    for answer in answers:
        try:
            record = await answer
        except Exception as error:
            failure = _says_more(failure, _failure(error, bugs))
            continue
        if not fresh:
            return record
        if supersedes(record, newest):
            newest = record
    if newest is None:
        raise failure
    return newest


async def _end(searches: Sequence[asyncio.Task[Any]], *, is_dropped: bool = False) -> None:
    """Cancel all and wait for their ends; at once if the caller is dropped and may not wait."""
    for one in searches:
        one.cancel()
    if not is_dropped:
        await asyncio.gather(*searches, return_exceptions=True)

"""The Lookup Service: peerId to current comm strategies (seed I.C, R7).

The engine sees this protocol and never learns what is behind it: a DHT (``lookup_dht``), friends,
a table in memory, or several of these in a chain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from egtp.comm_record import SignedCommRecord, supersedes
from egtp.errors import LookupFailed, LookupFailure, PublishFailed
from egtp.identity import NodeId

__all__ = ["LookupChain", "LookupService", "MemoryLookup", "Published"]


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


class MemoryLookup:
    """A lookup service that is a table in this process: for tests, and for apps whose peers are
    all known beforehand. Several nodes may share one."""

    def __init__(self, unix_time: Callable[[], float] = time.time) -> None:
        self._unix_time = unix_time
        self._records: dict[NodeId, SignedCommRecord] = {}

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        record = self._records.get(peer_id)
        if record is None or record.expired(self._unix_time()):
            raise LookupFailed(LookupFailure.NOT_FOUND)
        if record.sequence <= newer_than:
            raise LookupFailed(LookupFailure.SUPERSEDED)
        return record

    async def publish(self, record: SignedCommRecord) -> Published:
        if supersedes(record, self._records.get(record.peer_id)):
            self._records[record.peer_id] = record
        elif self._records[record.peer_id].encode() != record.encode():
            raise PublishFailed("a newer record is stored")
        return Published(stored=1, asked=1)


class LookupChain:
    """Several services as one: asked in order, the first usable record wins; published to all."""

    def __init__(self, *services: LookupService) -> None:
        self._services = services

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        failure = LookupFailed(LookupFailure.NO_NODES)
        for service in self._services:
            try:
                return await service.resolve(peer_id, newer_than=newer_than)
            except LookupFailed as error:
                failure = error
        raise failure

    async def publish(self, record: SignedCommRecord) -> Published:
        stored = asked = 0
        failures = []
        for service in self._services:
            try:
                published = await service.publish(record)
            except PublishFailed as error:
                failures.append(str(error))
            else:
                stored += published.stored
                asked += published.asked
        if not stored:
            raise PublishFailed("; ".join(failures) or "no lookup service to publish to")
        return Published(stored, asked)

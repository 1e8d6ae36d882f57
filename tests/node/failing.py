"""Nodes in virtual time that ask in vain, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from egtp import (
    Attempt,
    AttemptReason,
    CommRecord,
    FastFail,
    FastFailReason,
    HardTimeout,
    MemoryLookup,
    Node,
    NodeId,
    RelayStrat,
    SignedCommRecord,
    TCPStrat,
)
from tests.lab import LATENCY_S, Lab, in_lab, kept

ROUND_TRIP_S: Final = 2 * LATENCY_S


class Hanging(MemoryLookup):
    """A lookup service that never answers."""

    async def resolve(self, *args: Any, **options: Any) -> Any:
        await asyncio.Event().wait()


class World(Lab):
    """Nodes, and what became of a query."""

    async def fails(
        self,
        asker: Node,
        peer_id: NodeId,
        body: bytes = b"x",
        reason: FastFailReason = FastFailReason.NO_WAY,
        **options: Any,
    ) -> tuple[FastFail, float]:
        """Ask in vain. Returns the error, and how long it took."""
        before, began_s = kept(asker), self.now_s
        with pytest.raises(FastFail) as failed:
            await self.query(asker, peer_id, body=body, **options)
        assert failed.value.reason is reason
        assert not failed.value.may_have_run
        assert kept(asker) == before
        return failed.value, self.now_s - began_s

    def sign(
        self, peer: Node, channel: tuple[int, bytes], *strategies: TCPStrat | RelayStrat
    ) -> SignedCommRecord:
        """A record of the peer's, newer than all others, that says something else."""
        expiry_unix_s = int(self.network.story.unix_time()) + 600
        content = CommRecord(expiry_unix_s, bytes(8), (channel,), strategies)
        return SignedCommRecord.sign(peer.identity, 2**40, content)

    @asynccontextmanager
    async def given(
        self, asker: Node, peer_id: NodeId, *, hard_timeout_s: float = 6.0, **options: Any
    ) -> AsyncIterator[asyncio.Task[bytes]]:
        """A query that the peer has begun to run, and never answers. What is done meanwhile must
        not make it fail fast: the block ends with the outcome, which is anything else."""
        query = self.query(asker, peer_id, "wait", hard_timeout_s=hard_timeout_s, **options)
        task = asyncio.ensure_future(query)
        async with asyncio.timeout(2):
            await self.called.wait()
        yield task
        await asyncio.wait([task])
        assert not isinstance(task.exception(), FastFail)


def play(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    in_lab(World, story)


def said(
    failure: FastFail,
) -> list[tuple[type[TCPStrat | RelayStrat] | None, AttemptReason]]:
    """What kind of strategy each attempt was, None for a lookup, and why it failed."""
    return [(None if a.strategy is None else type(a.strategy), a.reason) for a in failure.attempts]


def lasted(attempt: Attempt, seconds: float) -> bool:
    return attempt.duration_s == pytest.approx(seconds, abs=0.002)


def timed_out(task: asyncio.Task[bytes]) -> None:
    """It ended as a query does that may have run, and of which nobody has heard again."""
    error = task.exception()
    assert isinstance(error, HardTimeout)
    assert error.may_have_run


@asynccontextmanager
async def stranger(
    world: World,
    peer: Node,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[None]:
    """Somebody else listens where the peer was."""
    address = world.records[peer].tcp[0].address
    host = world.hosts[peer]

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await host.run(asyncio.start_server(served, address.host, address.port))
    yield
    server.close()

"""Operations: puts and gets in a simulated world, timed, and their datagrams counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from benchmarks.dht.members import Member
from benchmarks.dht.records import Owner
from benchmarks.dht.tables import percentile
from benchmarks.dht.world import World
from egtp import SignedCommRecord
from egtp.errors import InvalidRecord

__all__ = ["Done", "Phase", "carry_out", "get_all", "put_all", "verdict", "verdicts"]

_T = TypeVar("_T")

SPREAD_S = 4.0
"""The operations of a phase begin at random moments of this."""
TAIL_S = 3.0
"""What is sent this long after an operation has returned is still counted as its own."""
IDLE_S = 20.0
"""How long an idle network is looked at, to know what to subtract."""


@dataclass(frozen=True, slots=True)
class Done(Generic[_T]):
    """One operation."""

    seconds: float
    value: _T
    datagrams: int
    """See :class:`Traffic`."""


@dataclass(frozen=True, slots=True)
class Phase(Generic[_T]):
    """Many operations, and what they cost in all."""

    done: Sequence[Done[_T]]
    cpu_ms: float
    """Per operation; what an idle network costs meanwhile is subtracted."""

    @property
    def values(self) -> list[_T]:
        return [it.value for it in self.done]

    def figures(self, name: str) -> dict[str, float]:
        seconds = [it.seconds for it in self.done]
        return {
            f"{name} p50 s": percentile(seconds, 0.5),
            f"{name} p95 s": percentile(seconds, 0.95),
            f"{name} datagrams": sum(it.datagrams for it in self.done) / len(self.done),
            f"{name} CPU ms": self.cpu_ms,
        }


Work = tuple[Member, Callable[[], Coroutine[Any, Any, _T]]]


async def carry_out(world: World[Any], work: Iterable[Work[_T]]) -> Phase[_T]:
    """Let each member do its work, beginning at random moments, and wait for all."""
    loop, traffic = world.network.loop, world.traffic

    async def one(member: Member, begin: Callable[[], Coroutine[Any, Any, _T]]) -> Done[_T]:
        await asyncio.sleep(SPREAD_S * world.rng.random())
        traffic.watch(member.address)
        began = loop.now
        value = await member.host.run(begin())
        seconds = loop.now - began
        await asyncio.sleep(TAIL_S)
        return Done(seconds, value, traffic.unwatch(member.address))

    began, began_cpu = loop.now, time.process_time()
    done = await asyncio.gather(*(one(member, begin) for member, begin in work))
    cpu_s, virtual_s = time.process_time() - began_cpu, loop.now - began
    began_cpu = time.process_time()
    await asyncio.sleep(IDLE_S)
    idle_cpu_s = (time.process_time() - began_cpu) * virtual_s / IDLE_S
    return Phase(done, 1000 * max(0.0, cpu_s - idle_cpu_s) / len(done))


async def put_all(
    world: World[Any], owners: Sequence[tuple[Member, Owner]], sequence: int
) -> Phase[int]:
    """Each owner publishes a version of its record, through its own node."""

    def put(member: Member, owner: Owner) -> Callable[[], Coroutine[Any, Any, int]]:
        record = owner.record(sequence, world.network.story.unix_time())
        return lambda: member.put(record)

    return await carry_out(world, [(member, put(member, owner)) for member, owner in owners])


async def get_all(
    world: World[Any],
    owners: Sequence[tuple[Member, Owner]],
    getters: Sequence[Member],
    *,
    fresh: bool,
) -> Phase[bytes | None]:
    """The record of each owner is asked of one of the ``getters``, of each of them once."""

    def get(member: Member, owner: Owner) -> Callable[[], Coroutine[Any, Any, bytes | None]]:
        return lambda: member.get(owner.peer_id, fresh=fresh)

    pairs = zip(getters, owners, strict=True)
    return await carry_out(world, [(member, get(member, owner)) for member, (_, owner) in pairs])


def verdicts(
    owners: Sequence[tuple[Member, Owner]], got: Sequence[bytes | None], latest: int
) -> Counter[str]:
    """How many of the records got are the ``latest``, ``stale``, ``forged`` or ``none``."""
    return Counter(
        verdict(owner, data, latest) for (_, owner), data in zip(owners, got, strict=True)
    )


def verdict(owner: Owner, data: bytes | None, latest: int, *, at_least: bool = False) -> str:
    """``at_least``: one newer than the ``latest`` is as good."""
    if data is None:
        return "none"
    try:
        record = SignedCommRecord.decode(data)
    except InvalidRecord:
        return "forged"
    if record.peer_id != owner.peer_id:
        return "forged"
    if record.sequence == latest or (at_least and record.sequence > latest):
        return "latest"
    return "stale"

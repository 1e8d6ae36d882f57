"""The two sides of a contestant that runs on asyncio or uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias

import uvloop

from benchmarks.load import Call, Load
from benchmarks.stations import Settings, next_work, say, take_part

__all__ = ["Connect", "Serve", "Session", "take_part_on_asyncio"]

HOLDERS = 16


class Session(Protocol):
    """One authenticated connection of a contestant's client."""

    @property
    def call(self) -> Call:
        """Send a body, and wait for it to come back."""

    async def close(self) -> None:
        """End the connection; return when the socket is closed on this side."""


Connect: TypeAlias = Callable[[Settings], Coroutine[Any, Any, Session]]
Serve: TypeAlias = Callable[[Settings], Coroutine[Any, Any, object]]
"""Starts a server, and returns the address to give to clients."""
Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]


def take_part_on_asyncio(
    serve: Serve, connect: Connect, *, relay: Serve | None = None, run: Run = uvloop.run
) -> None:
    """Run the role that the command line names. ``run`` chooses the loop."""

    async def stay(start: Serve, settings: Settings) -> None:
        address = await start(settings)
        say("ready", address=address)
        await asyncio.Event().wait()

    take_part(
        {
            "serve": lambda settings: run(stay(serve, settings)),
            "relay": lambda settings: run(stay(relay or serve, settings)),
            "client": lambda settings: run(_client(connect, settings)),
        }
    )


async def _client(connect: Connect, settings: Settings) -> None:
    async def session(body: bytes) -> None:
        one = await connect(settings)
        await one.call(body)
        await one.close()

    loop = asyncio.get_running_loop()
    main: Session | None = None
    say("ready")
    while True:
        work = await loop.run_in_executor(None, next_work)
        if work["work"] == "sessions":
            await _carry(Load(session, work))
        elif work["work"] == "hold":
            await _hold(connect, settings, work["count"])
        else:
            if main is None:
                main = await connect(settings)
                assert await main.call(b"right?") == b"right?"
            await (
                _mixed(main.call, work)
                if work["work"] == "mixed"
                else _carry(Load(main.call, work))
            )


async def _carry(load: Load, *, tell: bool = True) -> dict[str, float]:
    watching = asyncio.ensure_future(load.watch(asyncio.sleep, tell=tell))
    await asyncio.gather(watching, *(load.worker() for _ in range(load.at_once)))
    return watching.result()


async def _mixed(call: Call, work: dict[str, Any]) -> None:
    """Small calls one at a time, first alone, then beside a large body that never pauses."""
    small = work | {"at_once": 1, "bytes": 100}
    alone = await _carry(Load(call, small), tell=False)
    large = Load(call, work | {"at_once": 1, "warm_up_s": 2 * work["warm_up_s"]})
    say("begin")
    beside, large_facts = await asyncio.gather(
        _carry(Load(call, small), tell=False), _carry(large, tell=False)
    )
    say(
        "end",
        **beside,
        alone_p50_us=alone["p50_us"],
        alone_p99_us=alone["p99_us"],
        large_mb_per_s=large_facts["per_s"] * work["bytes"] / 1e6,
    )


async def _hold(connect: Connect, settings: Settings, count: int) -> None:
    """Open ``count`` connections, prove each with a call, and keep them."""
    held: list[Session] = []
    say("begin")

    async def holder(share: int) -> None:
        for _ in range(share):
            session = await connect(settings)
            await session.call(b"")
            held.append(session)

    shares = [count // HOLDERS + (number < count % HOLDERS) for number in range(HOLDERS)]
    await asyncio.gather(*map(holder, shares))
    say("end", held=len(held))
    # They live as long as this process: the harness ends it.
    await asyncio.Event().wait()

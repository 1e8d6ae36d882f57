"""A responder is killed at random moments of exchanges, hundreds of times, on real sockets.

What it executed is in a file, which no crash takes back: at most once each, and nothing that its
asker was told had never left. ``EGTP_CRASHES=5000`` kills more of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from egtp import (
    AnswerLimits,
    EgtpError,
    Identity,
    Incoming,
    Node,
    NodeConfig,
    NodeId,
    OutcomeUnknown,
)
from egtp.errors import FastFail, LookupFailed, LookupFailure
from egtp.lookup import Published
from egtp.values.comm_record import SignedCommRecord

CRASHES = int(os.environ.get("EGTP_CRASHES", "300"))
HARD_TIMEOUT_S = 8.0
LARGE_BYTES = 60_000


class FolderLookup:
    """Finds the record that the last responder left in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        try:
            record = SignedCommRecord.decode((self._folder / "record").read_bytes())
        except FileNotFoundError:
            raise LookupFailed(LookupFailure.NOT_FOUND) from None
        if record.peer_id != peer_id or record.sequence <= newer_than:
            raise LookupFailed(LookupFailure.SUPERSEDED)
        return record

    async def publish(self, record: SignedCommRecord) -> Published:
        return Published(stored=1, asked=1)


@dataclass
class Told:
    """What the asker of one query was told."""

    mark: str
    asked_s: float
    outcome: str = ""
    ended_s: float = 0.0
    may_have_run: bool = True


class Responders:
    """Starts and kills them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._child = 0
        self.killed_s: list[float] = []

    async def start(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"start\n")
        self._child = int(await self._process.stdout.readline())

    async def kill(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Returns when it is gone, and its locks with it. ``meanwhile`` is called when the others
        cannot have noticed yet."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        handle = os.pidfd_open(self._child)
        loop.add_reader(handle, gone.set)
        try:
            os.kill(self._child, signal.SIGKILL)
            self.killed_s.append(loop.time())
            meanwhile()
            async with asyncio.timeout(30):
                await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)


@pytest.fixture
async def responders(tmp_path: Path) -> AsyncIterator[Responders]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("responder.py")),
        str(tmp_path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    responders = Responders(process)
    yield responders
    await responders.kill()
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0


async def ask(node: Node, peer_id: NodeId, told: Told, rng: random.Random) -> None:
    delay_ms = rng.choice((0, 0, 1, 5, 20))
    size = rng.choice((0, 0, LARGE_BYTES))
    body = f"{told.mark} {delay_ms} {size} ".encode() + bytes(rng.choice((0, 0, LARGE_BYTES)))
    early = rng.choice((True, True, None, False))
    try:
        reply = await node.query(
            peer_id, "execute", body, early=early, hard_timeout_s=HARD_TIMEOUT_S
        )
    except EgtpError as error:
        told.outcome = type(error).__name__
        told.may_have_run = getattr(error, "may_have_run", True)
    else:
        assert reply == told.mark.encode() + bytes(size)
        told.outcome = "reply"
    told.ended_s = asyncio.get_running_loop().time()


async def test_no_crash_makes_anything_run_twice(responders: Responders, tmp_path: Path) -> None:
    rng, loop = random.Random(1), asyncio.get_running_loop()
    here = asyncio.Event()
    peers: list[NodeId] = []
    here_s: list[float] = []

    async def somebody_is_here(query: Incoming) -> bytes:
        peers.append(query.peer_id)
        here_s.append(loop.time())
        here.set()
        return b""

    node = Node(
        Identity.generate(os.urandom),
        listen="127.0.0.1:0",
        lookup=FolderLookup(tmp_path),
        config=NodeConfig(
            private_addresses=True,
            hard_timeout_s=HARD_TIMEOUT_S,
            # Each that is started is an asker too, and one peer is a sixty-fourth of all at most.
            answers=AnswerLimits(askers_max=64 * (CRASHES + 1)),
        ),
    )
    node.handle("here", somebody_is_here)
    everything: list[Told] = []
    async with node:
        (tmp_path / "asker").write_bytes(node.record.encode())
        await responders.start()
        async with asyncio.timeout(30):
            await here.wait()
        peer_id = peers[0]
        async with asyncio.TaskGroup() as tasks:

            def ask_something() -> None:
                told = Told(f"q{len(everything)}", loop.time())
                everything.append(told)
                tasks.create_task(ask(node, peer_id, told, rng))

            for _ in range(CRASHES):
                # Mostly when it is there, and sometimes before, or long after.
                if rng.random() < 0.8:
                    async with asyncio.timeout(30):
                        await here.wait()
                for _ in range(rng.randrange(1, 5)):
                    ask_something()
                    await asyncio.sleep(rng.choice((0, 0.001, 0.003)))
                await asyncio.sleep(rng.random() * rng.choice((0.002, 0.01, 0.03)))
                await responders.kill(ask_something if rng.random() < 0.2 else lambda: None)
                here.clear()
                if rng.random() < 0.2:
                    ask_something()
                    await asyncio.sleep(0.005)
                await responders.start()
    executed = (tmp_path / "executed").read_text().split()
    _judge(everything, here_s, responders.killed_s, executed)


def _judge(
    everything: list[Told], here_s: list[float], killed_s: list[float], executed: list[str]
) -> None:
    times = Counter(executed)
    assert [mark for mark, count in times.items() if count > 1] == []
    for told in everything:
        if not told.may_have_run or told.outcome == FastFail.__name__:
            assert times[told.mark] == 0, f"{told} ran"
        elif told.outcome == "reply":
            assert times[told.mark] == 1, f"{told} did not run"
        elif told.outcome == OutcomeUnknown.__name__:
            # One that is dead when it is asked may be given the query still: nobody here knows yet.
            heard_s = max(at_s for at_s in here_s if at_s <= told.asked_s)
            since = [at_s for at_s in killed_s if heard_s <= at_s <= told.ended_s]
            assert since, f"nobody was killed since it was heard: {told}"
    # Not because nothing happened.
    outcomes = Counter(told.outcome for told in everything)
    ran_unheard = sum(told.outcome != "reply" and times[told.mark] for told in everything)
    print(  # noqa: T201 - what a long run is played for
        f"{len(killed_s)} killed, {len(executed)} executed, {ran_unheard} of them unheard; "
        + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    )
    assert outcomes["reply"] > CRASHES / 4
    assert outcomes[OutcomeUnknown.__name__]
    assert ran_unheard

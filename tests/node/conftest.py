"""Real nodes on loopback sockets, a TCP proxy that misbehaves, and a look around afterwards.

Every test of this folder runs on asyncio's own event loop and on uvloop, since the engine promises
to run on whatever loop it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import pytest
import uvloop

from egtp import Identity, MemoryLookup, Node, NodeConfig
from tests.node.at_hand import direct_path, engine_of, greets

LIMIT_S = 8.0
"""How long anything may take here before the test gives up. Nothing comes near it."""


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test once per event loop."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def wait_until(predicate: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait for a state that no event announces."""
    async with asyncio.timeout(limit_s):
        while not predicate():
            await asyncio.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """``await eventually(lambda: ...)`` returns once the predicate is true."""
    return wait_until


@pytest.fixture
async def problems() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop's exception handler was told. A test that causes a problem on purpose empties
    the list; any other one, and any task that is left, fails the test."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    before = asyncio.all_tasks()
    # A test that hangs is ended by its loop, so that it fails and the next one runs.
    alarm = loop.call_later(
        2 * LIMIT_S, lambda: [task.cancel() for task in asyncio.all_tasks() - before]
    )
    yield told
    alarm.cancel()

    def others() -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks() - before if not task.done()} - {
            asyncio.current_task()
        }

    with contextlib.suppress(TimeoutError):
        await wait_until(lambda: not others(), 1.0)
    assert not others(), "tasks are left"
    # What nobody retrieved is reported when it is collected.
    gc.collect()
    await asyncio.sleep(0)
    assert told == []


@pytest.fixture
def lookup() -> MemoryLookup:
    """The lookup service of all nodes of a test."""
    return MemoryLookup()


@pytest.fixture
def config() -> Callable[..., NodeConfig]:
    """Settings that bring the end of things near enough to be waited for."""

    def make(**changes: Any) -> NodeConfig:
        settings: dict[str, Any] = {
            "private_addresses": True,
            "hard_timeout_s": LIMIT_S,
            "clean_up_interval_s": 0.05,
        }
        return NodeConfig(**(settings | changes))

    return make


@pytest.fixture
def identity() -> Callable[[], Identity]:
    return lambda: Identity.generate(os.urandom)


@pytest.fixture
async def start(
    problems: list[dict[str, Any]],
    lookup: MemoryLookup,
    config: Callable[..., NodeConfig],
) -> AsyncIterator[Callable[..., Awaitable[Node]]]:
    """Start a node; it listens on loopback, uses the shared lookup service, and is closed after
    the test. ``problems`` is set up first, so it looks around last."""
    nodes: list[Node] = []

    async def make(identity: Identity | None = None, **options: Any) -> Node:
        merged: dict[str, Any] = {"listen": "127.0.0.1:0", "lookup": lookup, "config": config()}
        merged |= options
        node = Node(identity or Identity.generate(os.urandom), **merged)
        nodes.append(node)
        await node.start()
        if merged["lookup"] is lookup:
            await node.published()
        return node

    yield make
    for node in reversed(nodes):
        await node.close()
    for node in nodes:
        assert len(engine_of(node).comms) == 0, "connections are left"
        assert len(engine_of(node).exchanges) == 0, "exchanges are left"
        assert len(engine_of(node).handlers) == 0, "handlers are left"
        assert not engine_of(node).relaying._expected_hints, "hints are still expected"
        assert not engine_of(node).searching._tasks, "searches are left"


@pytest.fixture
async def greeter(start: Callable[..., Awaitable[Node]]) -> Node:
    """A node that answers ``greet`` with ``hello`` and the body."""
    return greets(await start())


@pytest.fixture
async def attacked(
    start: Callable[..., Awaitable[Node]], config: Callable[..., NodeConfig]
) -> Node:
    """A greeter that lets few strangers in at a time, and those not for long."""
    return greets(await start(config=config(prove_timeout_s=0.3, half_open_max=8)))


@pytest.fixture
async def bystander(start: Callable[..., Awaitable[Node]], attacked: Node) -> AsyncIterator[Node]:
    """Talks to the attacked node all the while; must get every reply, over the connection that it
    began with."""
    node = await start(listen=())
    asked = 0
    stop = asyncio.Event()

    async def ask() -> None:
        nonlocal asked
        while not stop.is_set():
            assert await node.query(attacked.node_id, "greet", b"x") == b"hello x"
            asked += 1
            await asyncio.sleep(0.002)

    await node.query(attacked.node_id, "greet")
    first, task = direct_path(node, attacked), asyncio.ensure_future(ask())
    yield node
    before = asked
    await wait_until(lambda: asked >= before + 3 or task.done())
    stop.set()
    await task
    assert asked >= 3
    assert direct_path(node, attacked) is first, "the bystander lost its connection"


Change = Callable[[bytes], Iterable[bytes]]


class Proxy:
    """A TCP proxy in front of one port. ``up`` is towards that port, ``down`` is back.

    ``change_up`` and ``change_down`` turn what was read into the writes it becomes; ``pace_s``
    is waited before each write; while ``frozen``, everything is swallowed, closing included.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.change_up: Change = lambda data: (data,)
        self.change_down: Change = lambda data: (data,)
        self.pace_s = 0.0
        self.frozen = False
        self.connections = 0
        self.captured: list[bytearray] = []
        """What each client sent, as it was read."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    @property
    def address(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        captured = bytearray()
        self.captured.append(captured)
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection(*self._target)
            self._writers.append(back)
            await asyncio.gather(
                self._pump(reader, back, self.change_up, captured),
                self._pump(there, writer, self.change_down, bytearray()),
            )

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        change: Change,
        captured: bytearray,
    ) -> None:
        try:
            while data := await reader.read(65536):
                if self.frozen:
                    continue
                captured += data
                for piece in change(data):
                    if self.pace_s:
                        await asyncio.sleep(self.pace_s)
                    writer.write(piece)
                    await writer.drain()
        except OSError:
            pass
        if not self.frozen:
            writer.close()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def proxy(problems: list[dict[str, Any]]) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """Start a proxy in front of an address."""
    proxies: list[Proxy] = []

    async def make(address: str) -> Proxy:
        host, port = address.rsplit(":", 1)
        made = Proxy(host, int(port))
        await made.start()
        proxies.append(made)
        return made

    yield make
    for made in proxies:
        await made.close()

"""What tests of nodes have at hand: the types of their fixtures, a look inside, and handlers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp import FastFail, Identity, Incoming, Node, NodeConfig

Start = Callable[..., Awaitable[Node]]
Config = Callable[..., NodeConfig]
Eventually = Callable[..., Awaitable[None]]
MakeIdentity = Callable[[], Identity]
MakeProxy = Callable[[str], Awaitable[Any]]
Problems = list[dict[str, Any]]


def engine_of(node: Node) -> Any:
    """Untyped, since a test knows which of all that may be None is there."""
    assert node._engine is not None
    return node._engine


def connections(node: Node) -> int:
    return len(engine_of(node).comms)


def direct_path(node: Node, peer: Node) -> Any:
    found = engine_of(node).book.find(peer.node_id)
    return None if found is None else found.direct


def dropped(node: Node) -> int:
    return sum(count for reason, count in node.counters.items() if "dropped" in reason)


async def echo(query: Incoming) -> bytes:
    return query.body


def greets(node: Node, word: bytes = b"hello") -> Node:
    """It answers ``greet`` with the word and the body."""

    @node.handler("greet")
    async def greet(query: Incoming) -> bytes:
        return word + b" " + query.body

    return node


class Held:
    """A handler that answers when it is let go, if ever, and tells what happens to it."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.go = asyncio.Event()
        self.called = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, query: Incoming) -> bytes:
        self.bodies.append(query.body)
        self.called.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.body


def check_nothing_is_kept_of_queries(node: Node) -> None:
    engine = engine_of(node)
    assert len(engine.exchanges) == 0
    assert engine.exchanges.next_deadline_s() is None
    for peer in engine.book.all():
        assert not peer.waiting
        assert peer.waiting_bytes == 0
        assert not any(path.outbox for path in peer.paths)


async def fast_fail(query: Awaitable[object]) -> tuple[FastFail, float]:
    started = time.monotonic()
    with pytest.raises(FastFail) as failed:
        await query
    assert not failed.value.may_have_run
    return failed.value, time.monotonic() - started

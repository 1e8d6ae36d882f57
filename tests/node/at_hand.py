"""What tests of nodes have at hand: the types of their fixtures, a look inside, and handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from egtp import Identity, Incoming, Node, NodeConfig

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

"""What a user cannot have meant is said at once, in words that say what to do."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp import (
    Friends,
    HandlerFailed,
    Identity,
    Incoming,
    InvalidConfig,
    LocalProtocolError,
    Node,
)

Start = Callable[..., Awaitable[Node]]


async def echo(query: Incoming) -> bytes:
    return query.body


@pytest.mark.parametrize("identity", [None, "identity.pem", b"key"])
def test_an_identity_is_no_file_name(identity: Any) -> None:
    with pytest.raises(InvalidConfig, match="identity is an Identity or an open IdentityFile"):
        Node(identity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lookup": "127.0.0.1:9100"}, "lookup is a lookup service"),
        ({"lookup": Friends([])}, "given as friends="),
        ({"friends": 5}, "friends is a Friends"),
        ({"discovery": "relays.toml"}, "discovery is a discovery service"),
        ({"relay_server": "yes"}, "relay_server is True, False or RelayLimits"),
        ({"listen": 5}, "addresses are texts"),
        ({"listen": [("127.0.0.1", 4000)]}, "addresses are texts"),
        ({"announce": "0.0.0.0:4000"}, "nobody can dial 0.0.0.0:4000"),
        ({"announce": "192.0.2.7:0"}, "nobody can dial 192.0.2.7:0"),
    ],
)
def test_a_part_of_the_wrong_kind_is_told_when_the_node_is_made(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        Node(Identity.generate(os.urandom), **options)


def test_a_decorator_without_its_parentheses_is_told() -> None:
    node: Any = Node(Identity.generate(os.urandom))
    with pytest.raises(LocalProtocolError, match="a kind is"):
        node.handler(echo)
    with pytest.raises(LocalProtocolError, match="the handler of 'echo' is a function"):
        node.handle("echo", b"hello")


async def test_a_notice_that_would_never_be_heard_is_told(start: Start) -> None:
    node: Any = await start()

    async def awaited() -> None: ...

    for options, message in (
        ({"on_soft_timeout": print}, "soft_timeout_s"),
        ({"on_soft_timeout": awaited, "soft_timeout_s": 1}, "called, not awaited"),
    ):
        with pytest.raises(LocalProtocolError, match=message):
            await node.query(node.node_id, "echo", **options)
        with pytest.raises(LocalProtocolError, match=message):
            node.open_query(node.node_id, "echo", **options)


async def test_what_a_node_has_counted_can_be_read_after_its_end(start: Start) -> None:
    node, other = await start(), await start(listen=())
    with pytest.raises(HandlerFailed, match="code 1, no such kind") as failed:
        await other.query(node.node_id, "nothing")
    assert not failed.value.may_have_run
    record = node.record
    await node.close()
    assert node.counters["no such kind"] == 1
    assert node.statistics()["counters"]["no such kind"] == 1
    assert node.record is record
    assert node.why(other.node_id).paths == ()


@pytest.mark.parametrize(("code", "may_have_run"), [(1, False), (3, False), (2, True), (70, True)])
def test_an_answer_tells_whether_the_query_may_have_run(code: int, may_have_run: bool) -> None:
    assert HandlerFailed(code).may_have_run is may_have_run


async def test_an_observer_that_raises_disturbs_nobody_and_is_told(
    start: Start, problems: list[dict[str, Any]]
) -> None:
    def observe(event: object) -> None:
        raise ValueError(event)

    node, other = await start(), await start(listen=(), observer=observe)
    node.handle("echo", echo)
    assert await other.query(node.node_id, "echo", b"x") == b"x"
    assert other.connected == (node.node_id,)
    assert {problem["message"] for problem in problems} == {"an observer raised"}
    problems.clear()
    await other.close()
    problems.clear()

"""The seed's impatience action (R6) on real sockets: a replacement, and one reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp import (
    FastFail,
    HandlerFailed,
    HardTimeout,
    HedgedReply,
    HedgeFailed,
    Identity,
    Incoming,
    LocalProtocolError,
    Node,
    NodeClosed,
    NodeId,
    hedge,
)
from tests.node.at_hand import Held, Start

Holders = Callable[[int], Awaitable[list[tuple[NodeId, Held]]]]


@pytest.fixture
def holders(start: Start) -> Holders:
    """Start some nodes that hold a block, each named for its number."""

    async def make(count: int) -> list[tuple[NodeId, Held]]:
        made = []
        for number in range(count):
            node, block = await start(), Held(b"from %d" % number)
            node.handle("block", block)
            made.append((node.node_id, block))
        return made

    return make


@pytest.fixture
async def asker(start: Start) -> Node:
    return await start(listen=())


def check_free(node: Node, *peer_ids: NodeId) -> None:
    """No exchange is left, with anybody."""
    assert [node.why(peer_id).open_queries for peer_id in peer_ids] == [0] * len(peer_ids)


async def test_r6_a_slow_peer_is_replaced_and_then_abandoned(holders: Holders, asker: Node) -> None:
    (slow, slow_block), (quick, quick_block), (_, never_asked) = peers = await holders(3)
    quick_block.go.set()
    reply = await hedge(
        asker, [peer for peer, _ in peers], "block", b"7", soft_timeout_s=0.1, hard_timeout_s=5
    )
    assert reply == HedgedReply(b"from 1", quick)
    check_free(asker, slow, quick)
    async with asyncio.timeout(2):
        await slow_block.cancelled.wait()
    assert slow_block.bodies == quick_block.bodies == [b"7"]
    assert never_asked.bodies == []


async def test_r6_the_late_reply_of_the_first_is_used_as_if_it_had_been_on_time(
    holders: Holders, asker: Node
) -> None:
    (first, first_block), (second, second_block) = await holders(2)
    hedged = asyncio.ensure_future(
        hedge(asker, [first, second], "block", soft_timeout_s=0.1, hard_timeout_s=5)
    )
    await second_block.called.wait()
    first_block.go.set()
    assert await hedged == (b"from 0", first)
    check_free(asker, first, second)
    async with asyncio.timeout(2):
        await second_block.cancelled.wait()


async def test_a_peer_that_cannot_be_reached_is_replaced_without_waiting(
    holders: Holders, asker: Node, identity: Callable[[], Identity]
) -> None:
    ((there, block),) = await holders(1)
    block.go.set()
    unknown = identity().node_id
    async with asyncio.timeout(2):
        reply = await hedge(asker, [unknown, there], "block", soft_timeout_s=6, hard_timeout_s=7)
    assert reply.peer_id == there


async def test_a_peer_whose_handler_fails_is_replaced_without_waiting(
    start: Start, holders: Holders, asker: Node
) -> None:
    ((there, block),) = await holders(1)
    block.go.set()
    without = await start()
    reply = await hedge(asker, [without.node_id, there], "block", soft_timeout_s=6)
    assert reply.peer_id == there


async def test_each_peer_may_be_asked_with_a_body_of_its_own(holders: Holders, asker: Node) -> None:
    (first, first_block), (second, second_block) = await holders(2)
    second_block.go.set()
    await hedge(asker, [first, second], "block", bytes, soft_timeout_s=0.1)
    assert (first_block.bodies, second_block.bodies) == ([bytes(first)], [bytes(second)])


async def test_when_all_fail_every_outcome_is_told(
    start: Start, holders: Holders, asker: Node, identity: Callable[[], Identity]
) -> None:
    ((stuck, _),) = await holders(1)
    unknown, without = identity().node_id, (await start()).node_id
    with pytest.raises(HedgeFailed) as failed:
        await hedge(
            asker, [unknown, without, stuck], "block", soft_timeout_s=0.1, hard_timeout_s=0.4
        )
    assert [(peer, type(error)) for peer, error in failed.value.outcomes] == [
        (unknown, FastFail),
        (without, HandlerFailed),
        (stuck, HardTimeout),
    ]
    assert failed.value.may_have_run
    assert failed.value.not_asked == ()
    for peer_id in (unknown, without, stuck):
        assert str(peer_id) in str(failed.value)
    check_free(asker, unknown, without, stuck)


async def test_when_none_can_be_reached_nothing_can_have_run(
    asker: Node, identity: Callable[[], Identity]
) -> None:
    nobodies = [identity().node_id for _ in range(3)]
    with pytest.raises(HedgeFailed) as failed:
        await hedge(asker, nobodies, "block", soft_timeout_s=1)
    assert not failed.value.may_have_run
    assert [peer for peer, _ in failed.value.outcomes] == nobodies


async def test_peers_whose_turn_does_not_come_are_told_as_not_asked(
    holders: Holders, asker: Node
) -> None:
    (first, _), (second, block), (third, _) = await holders(3)
    with pytest.raises(HedgeFailed) as failed:
        await hedge(asker, [first, second, third], "block", soft_timeout_s=0.2, hard_timeout_s=0.35)
    assert [peer for peer, _ in failed.value.outcomes] == [first, second]
    assert failed.value.not_asked == (third,)
    assert "not asked" in str(failed.value)
    assert block.bodies == [b""]


async def test_a_peer_named_twice_is_asked_once(holders: Holders, asker: Node) -> None:
    ((peer, block),) = await holders(1)
    with pytest.raises(HedgeFailed) as failed:
        await hedge(asker, [peer, peer], "block", soft_timeout_s=0.1, hard_timeout_s=0.3)
    assert len(failed.value.outcomes) == len(block.bodies) == 1


async def test_cancelling_it_abandons_all_at_once(holders: Holders, asker: Node) -> None:
    (first, first_block), (second, second_block) = await holders(2)
    hedged = asyncio.ensure_future(hedge(asker, [first, second], "block", soft_timeout_s=0.1))
    await second_block.called.wait()
    hedged.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hedged
    check_free(asker, first, second)
    async with asyncio.timeout(2):
        await first_block.cancelled.wait()
        await second_block.cancelled.wait()


async def test_closing_the_node_is_told_as_that_and_says_that_something_may_have_run(
    holders: Holders, asker: Node, identity: Callable[[], Identity]
) -> None:
    (first, first_block), (second, _) = await holders(2)
    hedged = asyncio.ensure_future(hedge(asker, [first, second], "block", soft_timeout_s=5))
    await first_block.called.wait()
    await asker.close()
    with pytest.raises(NodeClosed) as closed:
        await hedged
    assert closed.value.may_have_run


async def test_closing_the_node_between_two_peers_says_that_the_first_may_have_run_it(
    start: Start, asker: Node, identity: Callable[[], Identity]
) -> None:
    first, second = await start(), identity().node_id

    @first.handler("fail")
    async def fail(_: Incoming) -> bytes:
        raise HandlerFailed(64)

    def body(peer_id: NodeId) -> bytes:
        if peer_id == second:
            # All that closing does at once.
            closing = asker.close().__await__()
            next(closing)
            closing.close()
        return b""

    with pytest.raises(NodeClosed) as closed:
        await hedge(asker, [first.node_id, second], "fail", body, soft_timeout_s=5)
    assert closed.value.may_have_run


@pytest.mark.parametrize(
    ("peers", "options"),
    [
        (0, {"soft_timeout_s": 1}),
        (2, {"soft_timeout_s": 0}),
        (2, {"soft_timeout_s": 2, "hard_timeout_s": 2}),
        (2, {"soft_timeout_s": 1, "hard_timeout_s": float("nan")}),
        (2, {"soft_timeout_s": "1"}),
        (2, {"soft_timeout_s": None}),
        (2, {"soft_timeout_s": 1, "hard_timeout_s": "3"}),
        (2, {"soft_timeout_s": 1, "body": "text"}),
    ],
)
async def test_what_no_query_can_have_is_refused_before_anybody_is_asked(
    asker: Node, identity: Callable[[], Identity], peers: int, options: dict[str, Any]
) -> None:
    nobodies = [identity().node_id for _ in range(peers)]
    with pytest.raises(LocalProtocolError):
        await hedge(asker, nobodies, "block", **options)
    check_free(asker, *nobodies)


async def test_what_is_no_peer_is_refused_before_anybody_is_asked(
    holders: Holders, asker: Node
) -> None:
    ((first, block),) = await holders(1)
    peers: Any = [first, str(first)]
    with pytest.raises(LocalProtocolError, match=r"NodeId\.parse"):
        await hedge(asker, peers, "block", soft_timeout_s=0.1)
    assert not block.bodies
    block.go.set()
    assert await hedge(asker, [bytes(first)], "block", soft_timeout_s=5) == (b"from 0", first)  # type: ignore[list-item]


async def test_one_peer_instead_of_several_is_told(holders: Holders, asker: Node) -> None:
    """A peerId is a row of numbers, too."""
    with pytest.raises(LocalProtocolError, match="several peers, such as a list"):
        await hedge(asker, asker.node_id, "x", soft_timeout_s=1)  # type: ignore[arg-type]

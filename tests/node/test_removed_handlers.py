"""Removed handlers: what they have begun ends as it would have, and what comes later is new."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from egtp import HandlerFailed, Identity, Incoming, LocalProtocolError, Node, ReplyCode
from tests.node.at_hand import Held, Start, echo


async def test_without_its_handler_a_kind_is_none_and_its_asker_knows_that_nothing_ran(
    greeter: Node, start: Start
) -> None:
    other = await start(listen=())
    greeter.remove_handler("greet")
    with pytest.raises(HandlerFailed) as caught:
        await other.query(greeter.node_id, "greet")
    assert caught.value.code == ReplyCode.NO_SUCH_KIND
    assert not caught.value.may_have_run


async def test_of_a_handler_that_is_replaced_while_it_runs_the_reply_still_comes(
    start: Start,
) -> None:
    node, other = await start(), await start(listen=())
    old, new = Held(b"old"), Held(b"new")
    node.handle("ask", old, at_once_max=1)
    first = other.open_query(node.node_id, "ask")
    await old.called.wait()
    node.remove_handler("ask")
    node.handle("ask", new, at_once_max=1)
    # The one that still runs does not count for the new handler, whose own ones do.
    second = other.open_query(node.node_id, "ask")
    await new.called.wait()
    with pytest.raises(HandlerFailed) as caught:
        await other.query(node.node_id, "ask")
    assert caught.value.code == ReplyCode.BUSY
    new.go.set()
    assert await second == b"new"
    assert await other.query(node.node_id, "ask") == b"new"
    assert not first.done()
    old.go.set()
    assert await first == b"old"


async def test_a_removed_handler_is_cancelled_when_its_asker_gives_up(start: Start) -> None:
    node, other, held = await start(), await start(listen=()), Held()
    node.handle("ask", held)
    query = other.open_query(node.node_id, "ask")
    await held.called.wait()
    node.remove_handler("ask")
    query.cancel()
    async with asyncio.timeout(5):
        await held.cancelled.wait()


async def test_a_handler_that_puts_another_in_its_place_still_answers(start: Start) -> None:
    node, other = await start(), await start(listen=())

    async def once(query: Incoming) -> bytes:
        node.remove_handler(query.kind)
        node.handle(query.kind, echo)
        return b"once"

    node.handle("ask", once)
    assert await other.query(node.node_id, "ask", b"x") == b"once"
    assert await other.query(node.node_id, "ask", b"x") == b"x"


async def test_while_one_handler_makes_room_for_the_next_every_query_meets_one(
    start: Start,
) -> None:
    node, other = await start(), await start(listen=())
    ran: list[int] = []

    def numbered(number: int) -> None:
        async def handler(query: Incoming) -> bytes:
            ran.append(number)
            return query.body

        node.handle("ask", handler)

    numbered(0)
    for number in range(1, 51):
        queries = [other.open_query(node.node_id, "ask", b"%d" % each) for each in range(4)]
        await asyncio.sleep(0)
        node.remove_handler("ask")
        numbered(number)
        assert await asyncio.gather(*queries) == [b"%d" % each for each in range(4)]
    assert len(ran) == 200
    assert ran == sorted(ran)


async def test_a_handler_is_removed_before_the_start_and_after_the_end(start: Start) -> None:
    node, other = Node(Identity.generate(os.urandom)), await start(listen=())
    node.handle("ask", echo)
    node.remove_handler("ask")
    with pytest.raises(LocalProtocolError, match="kind 'ask' has no handler"):
        node.remove_handler("ask")
    other.handle("ask", echo)
    await other.close()
    other.remove_handler("ask")
    with pytest.raises(LocalProtocolError, match="kind 'ask' has no handler"):
        other.remove_handler("ask")


@pytest.mark.parametrize("kind", ["never given", "egtp.friends.find", "never", "ä", None, 5, []])
async def test_what_is_no_handler_of_the_app_is_not_removed(greeter: Node, kind: Any) -> None:
    with pytest.raises(LocalProtocolError, match="kind"):
        greeter.remove_handler(kind)

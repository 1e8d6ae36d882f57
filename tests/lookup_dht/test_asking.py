"""What a node sends to one that answers oddly, late or not at all, and what it makes of that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lookup_dht import DHTLimits
from lookup_dht.wire.datagram import Method, Query, Reply, decode_query
from tests.lookup_dht.at_hand import Start

KEY = bytes(20)
OpenRaw = Callable[..., Awaitable[Any]]


class Odd:
    """A stranger that is asked by a node, and what it was asked."""

    def __init__(self, node: Any, peer: Any) -> None:
        self.asker, self.peer = node._node.protocol.asker, peer
        self.asked: list[Query] = []
        self.ends: list[Reply | None] = []

    def answers(self, answer: Callable[[bytes, int], bytes | None]) -> None:
        """By what was sent to it and how often it had been asked before."""

        def note(data: bytes) -> bytes | None:
            query = decode_query(data)
            if query.key != KEY:
                return None  # The node looks around on its own account.
            self.asked.append(query)
            return answer(data, len(self.asked) - 1)

        self.peer.answer = note

    async def is_asked(self) -> None:
        query = self.asker.query(Method.FIND_NODE, KEY)
        self.asker.ask(self.peer.address, query, self.ends.append, self.peer.contact, 2)
        await asyncio.sleep(60)


@pytest.fixture
async def odd(start: Start, open_raw: OpenRaw) -> Odd:
    return Odd(await start(), await open_raw())


@pytest.mark.parametrize(("token", "times"), [(b"", 1), (b"token", 2)])
async def test_who_only_ever_says_ask_again_is_asked_once_more_at_most(
    odd: Odd, token: bytes, times: int
) -> None:
    odd.answers(lambda data, _: odd.peer.as_server(data, again=True, token=token))
    await odd.is_asked()
    assert [query.token for query in odd.asked] == [b"", token][:times]
    assert [reply is not None and reply.nodes for reply in odd.ends] == [()]


async def test_who_says_ask_again_to_the_last_repetition_is_asked_once_more_and_given_up(
    odd: Odd,
) -> None:
    odd.answers(lambda data, n: odd.peer.as_server(data, again=True) if n == 1 else None)
    await odd.is_asked()
    assert [query.token for query in odd.asked] == [b"", b"", b"token"]
    assert odd.ends == [None]


async def test_an_answer_in_the_name_of_another_network_is_none(odd: Odd) -> None:
    def answer(data: bytes, number: int) -> bytes:
        right = bytes(odd.peer.as_server(data))
        return right if number else right.replace(b"\xa4main", b"\xa4miau")

    odd.answers(answer)
    await odd.is_asked()
    assert len(odd.asked) == 2
    assert [reply is not None and reply.network for reply in odd.ends] == ["main"]
    assert odd.asker._counters["datagram_of_another_network"] == 1


@pytest.mark.parametrize("answered", ["the first query", "the repetition", "the one with a token"])
async def test_only_the_answer_to_a_query_that_was_sent_once_tells_how_long_answers_take(
    odd: Odd, answered: str
) -> None:
    def answer(data: bytes, number: int) -> bytes | None:
        if answered == "the one with a token":
            return bytes(odd.peer.as_server(data, again=number == 0))
        return odd.peer.as_server(data) if (number > 0) == (answered == "the repetition") else None

    limits = DHTLimits()
    await asyncio.sleep(3600)
    odd.answers(answer)
    await odd.is_asked()
    assert [reply is not None for reply in odd.ends] == [True]
    if answered == "the first query":
        assert odd.asker.soft_timeout_s == limits.soft_timeout_min_s
    else:
        assert odd.asker.soft_timeout_s == limits.soft_timeout_s


async def test_who_waits_no_longer_for_an_answer_leaves_no_open_query(odd: Odd) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            query = odd.asker.query(Method.PING)
            await odd.asker.ask_and_wait(odd.peer.address, query, odd.peer.contact)
    assert len(odd.asker.queries) == 0

"""Lookup services that fail or lie, and records that try to make a node somebody's victim."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp import (
    AttemptReason,
    CommRecord,
    FastFail,
    Identity,
    MemoryLookup,
    Node,
    NodeClosed,
    SignedCommRecord,
)
from tests.node.at_hand import Config, Problems, Start

Answer = Callable[[], Awaitable[SignedCommRecord]]
Asking = Callable[[Answer], Awaitable[FastFail]]


def record_of(identity: Identity, sequence: int, **changes: Any) -> SignedCommRecord:
    fields: dict[str, Any] = {
        "expiry_unix_s": int(time.time()) + 3600,
        "incarnation": bytes(8),
        "channels": ((1, identity.channel_key),),
    }
    return SignedCommRecord.sign(identity, sequence, CommRecord(**(fields | changes)))


class Scripted(MemoryLookup):
    """A lookup service that answers what the test says."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer
        self.calls = 0

    async def resolve(self, peer_id: Any, *, newer_than: int = 0) -> SignedCommRecord:
        self.calls += 1
        return await self._answer()


@pytest.fixture
def asking(start: Start, config: Config, attacked: Node) -> Asking:
    """How a query to the attacked node fails, with such a lookup service; soon, and without
    asking it over and over."""

    async def ask(answer: Answer) -> FastFail:
        service = Scripted(answer)
        settings = config(lookup_timeout_s=0.3, dial_timeout_s=0.3)
        asker = await start(lookup=service, config=settings, listen=())
        started = time.monotonic()
        with pytest.raises(FastFail) as failed:
            await asker.query(attacked.node_id, "greet")
        assert time.monotonic() - started < 2
        assert service.calls < 6
        return failed.value

    return ask


async def test_a_lookup_that_raises_anything_is_an_attempt_and_is_reported(
    bystander: Node, asking: Asking, problems: Problems
) -> None:
    async def answer() -> SignedCommRecord:
        raise OSError("the database is gone")

    (attempt,) = (await asking(answer)).attempts
    assert attempt.reason is AttemptReason.LOOKUP_RAISED
    assert attempt.detail == "the database is gone"
    assert problems
    problems.clear()


async def test_a_lookup_that_raises_with_every_query_is_reported_once(
    attacked: Node, start: Start, config: Config, problems: Problems
) -> None:
    async def answer() -> SignedCommRecord:
        raise OSError("the database is gone")

    asker = await start(lookup=Scripted(answer), config=config(), listen=())
    for _ in range(5):
        with pytest.raises(FastFail, match="the database is gone"):
            await asker.query(attacked.node_id, "greet")
    assert [problem["message"] for problem in problems] == ["a lookup service raised"]
    problems.clear()


async def test_a_lookup_service_that_is_closed_is_an_attempt_and_no_bug(
    bystander: Node, asking: Asking
) -> None:
    async def answer() -> SignedCommRecord:
        raise NodeClosed("the lookup service is closed")

    (attempt,) = (await asking(answer)).attempts
    assert attempt.reason is AttemptReason.LOOKUP_RAISED
    assert attempt.detail == "the lookup service is closed"


@pytest.mark.parametrize("expiry_unix_s", [1000, 2**40], ids=["expired", "useless"])
async def test_a_useless_record_given_again_and_again_ends_the_search(
    attacked: Node, bystander: Node, asking: Asking, expiry_unix_s: int
) -> None:
    useless = record_of(attacked.identity, 2**40, expiry_unix_s=expiry_unix_s)

    async def answer() -> SignedCommRecord:
        return useless

    await asking(answer)


async def test_a_newer_useless_record_each_time_ends_the_search(
    attacked: Node, bystander: Node, asking: Asking
) -> None:
    sequence = 2**40

    async def answer() -> SignedCommRecord:
        nonlocal sequence
        sequence += 1
        return record_of(attacked.identity, sequence)

    await asking(answer)


async def test_a_record_with_the_channel_key_of_another_makes_nobody_its_victim(
    attacked: Node, bystander: Node, start: Start
) -> None:
    """Mallory's record names the attacked node's channel key and address: whoever asks Mallory
    must not talk to that node and believe that it is Mallory."""
    mallory = Identity.generate(os.urandom)
    content = attacked.record.content
    assert content is not None
    asker = await start(lookup=None, listen=())
    asker.add_contact(
        record_of(mallory, 5, channels=content.channels, strategies=attacked.record.strategies)
    )
    with pytest.raises(FastFail):
        await asker.query(mallory.node_id, "greet")


async def test_an_old_contact_whose_record_has_expired_is_dialled_all_the_same(
    attacked: Node, bystander: Node, start: Start
) -> None:
    """The dial proves the peer or fails, so trying costs nothing; as the last thing, marked."""
    asker = await start(lookup=None, listen=())
    asker.add_contact(
        record_of(attacked.identity, 5, expiry_unix_s=1000, strategies=attacked.record.strategies)
    )
    assert await asker.query(attacked.node_id, "greet") == b"hello "

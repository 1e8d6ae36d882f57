"""Whom a node asks for the record of a peer, and what it believes of the answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from egtp.errors import FastFail, LookupFailed, LookupFailure, Refusal
from egtp.handling.handlers import Incoming
from egtp.own.friends import STORE_KIND, Friends
from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.values.identity import Identity, NodeId
from egtp.values.message import ReplyCode

NOW = 1_800_000_000
FRIENDS = tuple(NodeId(bytes((number,)) * 20) for number in (1, 2))


class Asker:
    """Stands where the node is: each friend has an answer, or is silent."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.counters: Counter[str] = Counter()
        self.known: dict[NodeId, SignedCommRecord] = {}
        self.answers: dict[NodeId, bytes] = {}
        self.asked: list[NodeId] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def now(self) -> float:
        return self.now_s

    def unix_time(self) -> float:
        return NOW

    def known_record(self, peer_id: NodeId) -> SignedCommRecord | None:
        return self.known.get(peer_id)

    async def ask_peer(self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float) -> bytes:
        self.asked.append(peer_id)
        outcome = self.meanwhile()
        if asyncio.iscoroutine(outcome):
            await outcome
        await asyncio.sleep(0.001 * peer_id[0])
        if peer_id not in self.answers:
            raise FastFail("no way to reach the friend")
        return self.answers[peer_id]


def signed(
    identity: Identity, sequence: int, expiry: int = NOW + 60, friends: tuple[NodeId, ...] = ()
) -> SignedCommRecord:
    content = CommRecord(expiry, bytes(8), ((SUITE_AESGCM, identity.channel_key),), friends=friends)
    return SignedCommRecord.sign(identity, sequence, content)


def asking(peer: NodeId, friends: tuple[NodeId, ...]) -> tuple[Friends, Asker]:
    service, asker = Friends(friends_of={peer: friends}), Asker()
    service.attach(asker)
    return service, asker


async def failure(service: Friends, peer: NodeId, newer_than: int = 0) -> LookupFailure:
    with pytest.raises(LookupFailed) as failed:
        await service.resolve(peer, newer_than=newer_than)
    return failed.value.reason


async def test_an_answer_is_believed_only_if_it_is_a_good_record_of_that_peer_and_news(
    alice: Identity, bob: Identity
) -> None:
    service, asker = asking(alice.node_id, FRIENDS[:1])
    good = signed(alice, 5)
    for answer, newer_than, why in (
        (b"junk", 0, LookupFailure.INVALID),
        (signed(bob, 5).encode(), 0, LookupFailure.INVALID),
        (signed(alice, 5, expiry=NOW).encode(), 0, LookupFailure.INVALID),
        (good.encode(), 5, LookupFailure.SUPERSEDED),
        (b"", 0, LookupFailure.NOT_FOUND),
    ):
        asker.answers = {FRIENDS[0]: answer}
        assert await failure(service, alice.node_id, newer_than) is why
    asker.answers = {FRIENDS[0]: good.encode()}
    assert await service.resolve(alice.node_id, newer_than=4) == good
    asker.answers = {}
    assert await failure(service, alice.node_id) is LookupFailure.NO_RESPONSES
    assert asker.counters == {"friend without an answer: FastFail": 1}


@pytest.mark.parametrize("silent", [0, 1])
async def test_that_one_friend_has_no_record_says_more_than_that_another_is_silent(
    alice: Identity, silent: int
) -> None:
    service, asker = asking(alice.node_id, FRIENDS[:2])
    asker.answers = {FRIENDS[1 - silent]: b""}
    assert await failure(service, alice.node_id) is LookupFailure.NOT_FOUND


async def test_a_peer_that_is_its_own_friend_is_not_asked_for_its_record(
    alice: Identity,
) -> None:
    peer, friend = alice.node_id, FRIENDS[0]
    service, asker = asking(peer, (peer, friend))
    asker.known[peer] = signed(alice, 5, friends=(peer, friend))
    await failure(service, peer)
    assert asker.asked == [friend]


async def test_the_friends_of_a_friend_are_not_asked_for_it_while_it_is_itself_asked(
    alice: Identity, bob: Identity
) -> None:
    """Such questions could go round in circles. Afterwards they are."""
    friend, other = bob.node_id, FRIENDS[0]
    service, asker = Friends(friends_of={alice.node_id: [friend], friend: [other]}), Asker()
    service.attach(asker)
    asker.answers = {friend: b"", other: b""}
    seen: list[LookupFailure] = []

    async def look_it_up() -> None:
        asker.meanwhile = lambda: None
        seen.append(await failure(service, friend))

    asker.meanwhile = look_it_up
    await failure(service, alice.node_id)
    assert (seen, asker.asked) == ([LookupFailure.NO_NODES], [friend])
    assert await failure(service, friend) is LookupFailure.NOT_FOUND
    assert asker.asked == [friend, other]


async def test_a_friend_that_is_asked_twice_is_not_looked_up_through_friends_until_both_end(
    alice: Identity, bob: Identity, mallory: Identity
) -> None:
    friend = bob.node_id
    peers = (alice.node_id, mallory.node_id)
    service, asker = (
        Friends(friends_of={**{it: [friend] for it in peers}, friend: FRIENDS}),
        Asker(),
    )
    service.attach(asker)
    asker.answers = {friend: b""}
    first, second = (asyncio.ensure_future(failure(service, peer)) for peer in peers)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert await failure(service, friend) is LookupFailure.NO_NODES
    assert await first is LookupFailure.NOT_FOUND
    assert await failure(service, friend) is LookupFailure.NO_RESPONSES


async def test_of_a_flood_of_records_few_are_verified_and_none_that_is_kept(
    alice: Identity, bob: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verifying takes a quarter of a millisecond. A thousand stores, which are read at once, held
    up the friend for that many of them."""
    service, friend = asking(FRIENDS[0], ())
    verified = []
    decode = SignedCommRecord.decode

    def count(data: bytes) -> SignedCommRecord:
        verified.append(data)
        return decode(data)

    async def keep(owner: Identity, data: bytes) -> int:
        try:
            return len(await service.keep(Incoming.example(owner.node_id, STORE_KIND, data)))
        except Refusal as refusal:
            return refusal.code

    monkeypatch.setattr(SignedCommRecord, "decode", count)
    record = signed(alice, 5).encode()
    assert [await keep(alice, record) for _ in range(20)] == [0] * 20
    assert verified == [record]
    forged = record[:-1] + bytes((record[-1] ^ 1,))
    codes = [await keep(alice, forged) for _ in range(20)]
    assert codes == [ReplyCode.REFUSED] * 5 + [ReplyCode.BUSY] * 15
    assert await keep(bob, signed(bob, 5).encode()) == 0, "others do not wait for that"
    assert await keep(alice, record) == 0
    friend.now_s += 1.0
    assert await keep(alice, signed(alice, 6).encode()) == 0
    assert await keep(alice, signed(bob, 6).encode()) == ReplyCode.REFUSED
    assert len(verified) == 8

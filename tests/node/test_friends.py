"""R9: a node tells its friends where it is, and whoever knows who they are asks them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from egtp import (
    FastFail,
    Friends,
    HandlerFailed,
    Identity,
    Incoming,
    InvalidConfig,
    LocalProtocolError,
    LookupFailed,
    MemoryLookup,
    Node,
    NodeId,
    Published,
    PublishFailed,
    SignedCommRecord,
)
from egtp.lookup import LookupService
from egtp.own.friends import ASKED_MAX, FIND_KIND, STORE_KIND
from egtp.values import canonical
from tests.node.at_hand import Eventually, Start, engine_of, greets


def new_ids(count: int) -> list[NodeId]:
    return [Identity.generate(os.urandom).node_id for _ in range(count)]


@pytest.fixture
async def friend(start: Start) -> Node:
    return await start(lookup=None, friends=Friends())


async def told(start: Start, *friends: Node, **options: Any) -> Node:
    """A node that answers, and has told its record to its friends."""
    mine = Friends((one.node_id for one in friends), **options)
    # It has to know where its friends are; here, they are all in one place.
    book = MemoryLookup()
    for one in friends:
        await book.publish(one.record)
    made = greets(await start(lookup=book, friends=mine))
    await made.published()
    return made


async def asks(engine: Any, peer_id: NodeId, kind: str, body: bytes) -> bytes:
    reply: bytes = await engine.ask_peer(peer_id, kind, body, 5.0)
    return reply


async def test_r9_friends_are_told_and_whoever_knows_them_finds_a_peer_through_them(
    start: Start, friend: Node
) -> None:
    subject = await told(start, friend)
    asker = await start(
        lookup=None, friends=Friends(friends_of={subject.node_id: [friend.node_id]})
    )
    asker.add_contact(friend.record)
    assert await asker.query(subject.node_id, "greet", b"you") == b"hello you"
    assert asker.why(subject.node_id).source == "lookup"


async def test_who_only_keeps_records_of_others_has_nowhere_to_publish_his_own(
    start: Start, config: Callable[..., Any], eventually: Eventually
) -> None:
    keeper = await start(
        lookup=None, friends=Friends(keep_for=new_ids(1)), config=config(record_lifetime_s=1)
    )
    with pytest.raises(PublishFailed, match="no lookup service"):
        await keeper.published()
    # Its record is renewed all the same, for handshakes.
    first = keeper.record
    await eventually(lambda: keeper.record.sequence > first.sequence)
    assert not keeper.counters["publish failed"]


async def test_friends_are_told_though_the_lookup_service_hangs(
    start: Start, config: Callable[..., Any], friend: Node
) -> None:
    class Hangs(MemoryLookup):
        async def publish(self, record: SignedCommRecord) -> Published:
            await asyncio.Event().wait()
            return await super().publish(record)

    mine = Friends([friend.node_id])
    made = await start(lookup=Hangs(), friends=mine, config=config(lookup_timeout_s=0.5))
    made.add_contact(friend.record)
    await made.published()
    asker = await start(lookup=None, friends=Friends(friends_of={made.node_id: [friend.node_id]}))
    asker.add_contact(friend.record)
    greets(made)
    assert await asker.query(made.node_id, "greet", b"you") == b"hello you"


async def test_r9_friends_are_told_again_when_the_address_changes(
    start: Start, friend: Node, eventually: Eventually
) -> None:
    subject = await told(start, friend, announce=True)
    asker = await start(lookup=None, friends=Friends())
    asker.add_contact(friend.record)
    asker.add_contact(subject.record)
    assert subject.record.content is not None
    assert subject.record.content.friends == (friend.node_id,)
    before = subject.record.sequence
    await subject.move("127.0.0.2:0", dial_from="127.0.0.2")
    await subject.published()
    friends: Any = friend._friends
    await eventually(lambda: friends._store.get(subject.node_id, 0).sequence > before)
    # The record that named the old address also named whom to ask for a new one.
    assert await asker.query(subject.node_id, "greet", b"again") == b"hello again"


async def test_a_friend_made_while_the_node_runs_is_told_its_record(
    start: Start, friend: Node
) -> None:
    subject = greets(await start(lookup=None, friends=Friends()))
    subject.add_contact(friend.record)
    with pytest.raises(PublishFailed, match="no lookup service"):
        await subject.published()
    subject.change_friends(tell=[friend.node_id])
    await subject.published()
    asker = await start(lookup=None, friends=Friends())
    asker.add_contact(friend.record)
    with pytest.raises(FastFail, match="no nodes to ask"):
        await asker.query(subject.node_id, "greet", b"you")
    asker.change_friends(friends_of={subject.node_id: [friend.node_id]})
    assert await asker.query(subject.node_id, "greet", b"you") == b"hello you"


async def test_a_second_friend_is_told_though_the_record_was_stored_before(
    start: Start, friend: Node
) -> None:
    subject = await told(start, friend, announce=True)
    other = await start(lookup=None, friends=Friends())
    subject.add_contact(other.record)
    subject.change_friends(tell=[friend.node_id, other.node_id])
    published = await subject.published()
    assert (published.stored, published.asked) == (2 + 1, 2 + 1), "two friends and the book"
    friends: Any = other._friends
    assert friends._store.get(subject.node_id, 0) == subject.record
    assert subject.record.content is not None
    assert subject.record.content.friends == (friend.node_id, other.node_id)


async def test_a_friend_made_while_the_node_looks_for_its_own_record_is_told_before_that_counts(
    start: Start, friend: Node
) -> None:
    class Slow(MemoryLookup):
        asked, answers = asyncio.Event(), asyncio.Event()

        async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
            self.asked.set()
            await self.answers.wait()
            return await super().resolve(peer_id, newer_than=newer_than)

    subject = await start(lookup=Slow(), friends=Friends())
    subject.add_contact(friend.record)
    await Slow.asked.wait()
    subject.change_friends(tell=[friend.node_id])
    Slow.answers.set()
    await subject.published()
    friends: Any = friend._friends
    assert friends._store.get(subject.node_id, 0) == subject.record


async def test_who_is_a_friend_no_more_is_told_nothing_more_and_named_no_more(
    start: Start, friend: Node
) -> None:
    subject = await told(start, friend, announce=True)
    friends: Any = friend._friends
    before = friends._store.get(subject.node_id, 0)
    subject.change_friends(tell=[])
    published = await subject.published()
    assert published.asked == 1, "only the book"
    assert friends._store.get(subject.node_id, 0) == before != subject.record
    assert subject.record.content is not None
    assert subject.record.content.friends == ()


async def test_the_same_friends_are_not_told_again(start: Start, friend: Node) -> None:
    """So that an app may say who they are whenever it likes."""
    subject = await told(start, friend)
    before = subject.record
    for _ in range(10):
        subject.change_friends(tell=[friend.node_id])
        await subject.published()
    assert subject.record == before


async def test_who_waits_to_be_published_hears_that_the_last_friend_is_gone(
    start: Start, config: Callable[..., Any]
) -> None:
    """The friend cannot be found, so that the record is not stored anywhere."""
    subject = await start(lookup=None, friends=Friends(new_ids(1)))
    waiting = asyncio.ensure_future(subject.published())
    await asyncio.sleep(0)
    subject.change_friends(tell=[])
    with pytest.raises(PublishFailed, match="no lookup service"):
        await waiting


async def test_records_are_kept_in_any_case_for_those_listed_while_the_node_runs(
    start: Start,
) -> None:
    keeper = await start(lookup=None, friends=Friends(strangers_max=0))
    subject = await start(lookup=None)
    subject.add_contact(keeper.record)
    engine = engine_of(subject)
    with pytest.raises(HandlerFailed, match="code 5"):
        await asks(engine, keeper.node_id, STORE_KIND, subject.record.encode())
    sequence = keeper.record.sequence
    keeper.change_friends(keep_for=[subject.node_id])
    assert await asks(engine, keeper.node_id, STORE_KIND, subject.record.encode()) == b""
    assert keeper.record.sequence == sequence, "nobody has to be told of that"


async def test_friends_that_cannot_be_leave_those_before(start: Start, friend: Node) -> None:
    subject = await told(start, friend)
    before, text = subject.record, str(friend.node_id)
    wrong: list[dict[str, Any]] = [
        {"tell": new_ids(9)},
        {"tell": [], "keep_for": [text]},
        {"tell": [], "friends_of": {text: []}},
    ]
    for one in wrong:
        with pytest.raises((InvalidConfig, LocalProtocolError)):
            subject.change_friends(**one)
    friends: Any = subject._friends
    assert friends.told == (friend.node_id,)
    assert subject.record == before
    alone = await start(lookup=None)
    with pytest.raises(LocalProtocolError, match=r"friends=Friends\(\)"):
        alone.change_friends(tell=[])


async def test_who_the_friends_are_is_told_only_if_that_is_wanted(
    start: Start, friend: Node
) -> None:
    subject = await told(start, friend)
    assert subject.record.content is not None
    assert subject.record.content.friends == ()


async def test_a_peer_whose_friends_nobody_knows_is_not_found_and_nobody_is_asked(
    start: Start,
) -> None:
    asker = await start(lookup=None, friends=Friends())
    with pytest.raises(FastFail, match="no nodes to ask"):
        await asker.query(new_ids(1)[0], "greet")


async def test_a_friend_who_was_told_nothing_says_so_at_once(start: Start, friend: Node) -> None:
    (nobody,) = new_ids(1)
    friends = Friends(friends_of={nobody: [friend.node_id]})
    asker = await start(lookup=None, friends=friends)
    asker.add_contact(friend.record)
    with pytest.raises(LookupFailed, match="no record found"):
        await friends.resolve(nobody)


async def test_a_record_is_kept_for_its_owner_only(start: Start, friend: Node) -> None:
    subject = await start(lookup=None, listen=())
    other = await start(lookup=None)
    subject.add_contact(friend.record)
    engine = engine_of(subject)
    for body in (other.record.encode(), b"", b"nonsense", friend.record.encode()):
        with pytest.raises(HandlerFailed, match="code 5"):
            await asks(engine, friend.node_id, STORE_KIND, body)
    assert await asks(engine, friend.node_id, STORE_KIND, subject.record.encode()) == b""
    found = await asks(engine, friend.node_id, FIND_KIND, canonical.encode((subject.node_id, 0)))
    assert found == subject.record.encode()


async def test_a_friend_answers_from_its_store_and_looks_for_nobody(start: Start) -> None:
    """It knows the peer from a handshake, and has a lookup service that knows him, too."""
    lookup = MemoryLookup()
    friend = await start(lookup=lookup, friends=Friends())
    subject = greets(await start(lookup=lookup))
    await friend.query(subject.node_id, "greet")
    asker = await start(lookup=None)
    asker.add_contact(friend.record)
    question = canonical.encode((subject.node_id, 0))
    assert await asks(engine_of(asker), friend.node_id, FIND_KIND, question) == b""


@pytest.mark.parametrize("body", [b"", b"x", canonical.encode((b"short", 0)), canonical.encode(1)])
async def test_what_is_no_question_is_refused(start: Start, friend: Node, body: bytes) -> None:
    asker = await start(lookup=None)
    asker.add_contact(friend.record)
    with pytest.raises(HandlerFailed, match="code 5"):
        await asks(engine_of(asker), friend.node_id, FIND_KIND, body)
    assert friend.counters["as a friend, refused: not a question for a record"] == 1


async def test_a_lying_friend_is_not_believed_and_an_honest_one_beside_him_is(
    start: Start, friend: Node
) -> None:
    subject = await told(start, friend)
    other = await start(lookup=None)

    class Liar(Friends):
        async def find(self, incoming: Incoming) -> bytes:
            return other.record.encode()

    liar = await start(lookup=None, friends=Liar())
    for known in ([liar], [liar, friend]):
        friends = Friends(friends_of={subject.node_id: [one.node_id for one in known]})
        asker = await start(lookup=None, friends=friends)
        for one in known:
            asker.add_contact(one.record)
        if friend in known:
            assert await asker.query(subject.node_id, "greet") == b"hello "
        else:
            with pytest.raises(LookupFailed, match="invalid"):
                await friends.resolve(subject.node_id)


async def test_at_most_sixteen_are_asked_each_once(start: Start) -> None:
    asked: list[NodeId] = []

    class Asked(Friends):
        async def _query(self, friend: NodeId, kind: str, body: bytes) -> bytes | None:
            asked.append(friend)
            return None

    (subject,) = new_ids(1)
    many = new_ids(20)
    friends = Asked(friends_of={subject: [*many, *many, subject]})
    await start(lookup=None, friends=friends)
    with pytest.raises(LookupFailed, match="no node answered"):
        await friends.resolve(subject)
    assert asked == many[:ASKED_MAX]


async def test_friends_who_are_each_others_friends_are_not_asked_in_circles(start: Start) -> None:
    one, two, subject = new_ids(3)
    circle = {subject: [one], one: [two], two: [one, subject]}
    asker = await start(lookup=None, friends=Friends(friends_of=circle))
    async with asyncio.timeout(2):
        with pytest.raises(FastFail):
            await asker.query(subject, "greet")


async def test_friends_are_one_lookup_service_among_others(start: Start, friend: Node) -> None:
    subject = await told(start, friend)
    lookup: LookupService = MemoryLookup()
    await lookup.publish(friend.record)
    asker = await start(
        lookup=lookup, friends=Friends(friends_of={subject.node_id: [friend.node_id]})
    )
    assert await asker.query(subject.node_id, "greet") == b"hello "


def test_settings_that_cannot_work_are_refused() -> None:
    for settings in ({"tell": new_ids(9)}, {"strangers_max": -1}, {"timeout_s": 0}):
        with pytest.raises(InvalidConfig):
            Friends(**settings)


def test_who_is_named_by_the_text_of_a_peer_id_is_told_so() -> None:
    (peer_id,) = new_ids(1)
    text: Any = str(peer_id)
    for named in (
        {"tell": [text]},
        {"keep_for": [text]},
        {"friends_of": {text: [peer_id]}},
        {"friends_of": {peer_id: [text]}},
        {"friends_of": {peer_id: text}},
    ):
        with pytest.raises(LocalProtocolError, match=r"NodeId\.parse"):
            Friends(**named)

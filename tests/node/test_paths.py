"""Connections come and go, peers restart and move; conversations go on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from egtp import (
    Address,
    FastFail,
    HardTimeout,
    MemoryLookup,
    TCPStrat,
)
from egtp.events import Dialling, Event, PathLost, PathOpened, RecordLearned
from tests.node.at_hand import (
    Config,
    Eventually,
    Held,
    MakeIdentity,
    Start,
    connections,
    direct_path,
    engine_of,
    greets,
)

# Both at once


async def test_both_sides_dial_at_once_and_lose_nothing(
    start: Start, eventually: Eventually
) -> None:
    """Many rounds, since who comes first differs."""
    left, right = greets(await start()), greets(await start())
    for _ in range(15):
        replies = await asyncio.gather(
            *(left.query(right.node_id, "greet", b"%d" % n, hard_timeout_s=4) for n in range(10)),
            *(right.query(left.node_id, "greet", b"%d" % n, hard_timeout_s=4) for n in range(10)),
        )
        assert replies == [b"hello %d" % n for n in range(10)] * 2
        # Both ends send by the same connection.
        here, there = direct_path(left, right), direct_path(right, left)
        assert here.session.remote_index == there.session.index
        assert here.session.index == there.session.remote_index
        engine_of(left).comms.drop_all("next round")
        await eventually(lambda: not connections(left) and not connections(right))


async def test_the_connection_that_lost_is_closed_and_nothing_with_it(
    start: Start, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egtp.engine.upkeep.DRAIN_S", 0.1)
    left, right = greets(await start()), greets(await start())
    for _ in range(20):
        await asyncio.gather(left.query(right.node_id, "greet"), right.query(left.node_id, "greet"))
        if connections(left) == 2:
            break
        engine_of(left).comms.drop_all("again, until they cross")
        await eventually(lambda: not connections(left) and not connections(right))
    assert connections(left) == 2, "the dials never crossed"
    await eventually(lambda: connections(left) == connections(right) == 1)
    assert direct_path(left, right).session.remote_index == direct_path(right, left).session.index
    assert await left.query(right.node_id, "greet", b"on") == b"hello on"


async def test_many_peers_dialling_one_another_all_get_through(start: Start) -> None:
    nodes = [greets(await start()) for _ in range(8)]
    pairs = [(a, b) for a in nodes for b in nodes if a is not b]
    replies = await asyncio.gather(
        *(a.query(b.node_id, "greet", bytes(b.node_id)) for a, b in pairs)
    )
    assert replies == [b"hello " + b.node_id for _, b in pairs]


async def test_queries_of_one_moment_share_one_dial(start: Start) -> None:
    events: list[Event] = []
    node, other = greets(await start()), await start(observer=events.append)
    await asyncio.gather(*(other.query(node.node_id, "greet") for _ in range(50)))
    assert len([event for event in events if isinstance(event, Dialling)]) == 1


# Loss


async def test_a_connection_that_is_reset_is_dialled_again_when_it_is_needed(
    start: Start, eventually: Eventually
) -> None:
    node, other = greets(await start()), await start(listen=())
    for number in range(10):
        assert await other.query(node.node_id, "greet", b"%d" % number) == b"hello %d" % number
        engine_of(node if number % 2 else other).comms.drop_all("cut")
        await eventually(lambda: direct_path(other, node) is None)
    assert connections(other) == 0


async def test_a_connection_that_is_lost_as_soon_as_it_was_found_is_dialled_again(
    start: Start, eventually: Eventually
) -> None:
    """The search for the first path may not be quite over when the path is gone again."""
    node, other = greets(await start()), await start(listen=())
    for number in range(10):
        body = b"%d" % number
        query = other.query(node.node_id, "greet", body, hard_timeout_s=1)
        assert await query == b"hello " + body
        # Without a turn of the loop in between.
        engine_of(other).comms.drop_all("cut")


async def test_queries_while_the_connection_is_reset_all_have_an_outcome(start: Start) -> None:
    """A query is answered, or was given to the connection that died; none is lost unsaid."""
    node, other = greets(await start()), await start(listen=())
    outcomes: list[object] = []
    for _ in range(5):
        await other.query(node.node_id, "greet")
        queries = [
            asyncio.ensure_future(other.query(node.node_id, "greet", hard_timeout_s=0.2))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        engine_of(node).comms.drop_all("cut")
        outcomes += await asyncio.gather(*queries, return_exceptions=True)
    assert len(outcomes) == 100
    for outcome in outcomes:
        if isinstance(outcome, HardTimeout):
            assert outcome.may_have_run
        else:
            assert outcome == b"hello "


async def test_a_reply_outlives_the_connection_its_query_came_by(
    start: Start, eventually: Eventually
) -> None:
    node, other = await start(), await start()
    slow = Held(b"at last")
    node.handle("wait", slow)
    query = other.open_query(node.node_id, "wait")
    await eventually(lambda: len(engine_of(node).handlers) == 1)
    old = direct_path(other, node)
    engine_of(other).comms.drop_all("cut")
    await eventually(lambda: direct_path(other, node) not in (None, old))
    slow.go.set()
    assert await query == b"at last"


async def test_a_reply_waits_for_an_asker_that_nobody_can_dial(
    start: Start, eventually: Eventually
) -> None:
    node, other = await start(), await start(listen=())
    slow = Held(b"at last")
    node.handle("wait", slow)
    query = other.open_query(node.node_id, "wait")
    await eventually(lambda: len(engine_of(node).handlers) == 1)
    old = direct_path(node, other)
    engine_of(other).comms.drop_all("cut")
    # The asker may be back already: a query is open, so it dials again by itself.
    await eventually(lambda: old.closed)
    slow.go.set()
    assert await query == b"at last"


async def test_one_timeout_disturbs_no_other_query_and_not_the_connection(start: Start) -> None:
    node, other = greets(await start()), await start(listen=())
    slow = Held(b"slow")
    node.handle("slow", slow)
    node.handle("stuck", Held())
    await other.query(node.node_id, "greet")
    path = direct_path(other, node)
    waiting = other.open_query(node.node_id, "slow")
    for _ in range(5):
        with pytest.raises(HardTimeout):
            await other.query(node.node_id, "stuck", hard_timeout_s=0.05)
        assert await other.query(node.node_id, "greet", b"on") == b"hello on"
    assert not waiting.done()
    slow.go.set()
    assert await waiting == b"slow"
    assert direct_path(other, node) is path
    assert engine_of(other).book.find(node.node_id).record is not None


# Restart


async def test_a_peer_that_restarts_on_its_port_is_found_again(
    start: Start, eventually: Eventually, identity: MakeIdentity
) -> None:
    who, other = identity(), await start(listen=())
    node = greets(await start(who), b"first")
    address = node.listening[0]
    for word in (b"second", b"third"):
        assert (await other.query(node.node_id, "greet", b"!")).endswith(b" !")
        await node.close()
        await eventually(lambda: connections(other) == 0)
        node = greets(await start(who, listen=address), word)
        assert await other.query(node.node_id, "greet", b"!") == word + b" !"


async def test_a_peer_that_was_down_for_long_is_asked_as_soon_as_its_new_record_is_known(
    start: Start, identity: MakeIdentity
) -> None:
    """Its address is left alone for longer each time it refuses. A newer record that names it
    says that the peer is back; a query then must not fail because of the time before."""
    who, other = identity(), await start(listen=())
    node = greets(await start(who))
    address = node.listening[0]
    await node.close()
    for _ in range(3):
        with pytest.raises(FastFail):
            await other.query(node.node_id, "greet")
    back = greets(await start(who, listen=address), b"back")
    assert back.record.sequence > engine_of(node).own.current.sequence
    assert await other.query(back.node_id, "greet") == b"back "


async def test_a_reply_of_a_handler_goes_to_the_restarted_peer_as_an_unknown_one(
    start: Start, identity: MakeIdentity, eventually: Eventually
) -> None:
    """The new process never asked; the reply is dropped there and hurts nobody."""
    node, who = await start(), identity()
    slow = Held(b"for the one who is gone")
    node.handle("wait", slow)
    first = await start(who)
    address = first.listening[0]
    node.add_contact(first.record)
    query = asyncio.ensure_future(first.query(node.node_id, "wait"))
    await eventually(lambda: len(engine_of(node).handlers) == 1)
    engine_of(first).comms.drop_all("lost")  # so it goes without a word, as if it were killed
    await first.close()
    await asyncio.gather(query, return_exceptions=True)
    second = greets(await start(who, listen=address))
    slow.go.set()
    await eventually(lambda: second.counters["reply with unknown reference"] == 1)
    assert await node.query(second.node_id, "greet") == b"hello "


async def test_a_stranger_who_has_gone_is_not_dialled_to_be_given_a_reply(
    start: Start, eventually: Eventually
) -> None:
    """Where he says that he is may be where somebody else is. An honest one asks again."""
    node = await start()
    slow = Held(b"for the one who is gone")
    node.handle("wait", slow)
    stranger = await start()
    query = asyncio.ensure_future(stranger.query(node.node_id, "wait"))
    await eventually(lambda: len(engine_of(node).handlers) == 1)
    for connection in engine_of(stranger).comms.all():
        connection.pause_reading()
    engine_of(node).comms.drop_all("lost")
    slow.go.set()
    await eventually(lambda: node.counters["reply kept until its asker comes"])
    assert engine_of(node).book.get(stranger.node_id).search is None
    for connection in engine_of(stranger).comms.all():
        connection.resume_reading()
    assert await query == b"for the one who is gone"


async def test_the_sequence_goes_on_after_a_restart(
    start: Start, identity: MakeIdentity, lookup: MemoryLookup
) -> None:
    who = identity()
    sequences = []
    for _ in range(4):
        node = await start(who)
        sequences.append((await lookup.resolve(who.node_id)).sequence)
        await node.close()
    assert sequences == sorted(set(sequences))


# Moving


async def test_a_peer_that_moves_is_found_and_its_old_address_left_alone(
    start: Start, eventually: Eventually
) -> None:
    events: list[Event] = []
    node = greets(await start(listen="127.0.0.2:0"))
    other = await start(listen=(), observer=events.append)
    await other.query(node.node_id, "greet")
    old = Address.parse(node.listening[0])
    await node.move("127.0.0.3:0", dial_from="127.0.0.3")
    new = Address.parse(node.listening[0])
    assert new.host == "127.0.0.3"
    assert node.record.tcp == (TCPStrat(new),)
    await node.published()
    await eventually(lambda: connections(other) == 0)
    assert await other.query(node.node_id, "greet", b"there") == b"hello there"
    learned = next(
        index
        for index, event in enumerate(events)
        if isinstance(event, RecordLearned) and event.record.sequence >= node.record.sequence
    )
    # From the moment that the new record is known, and whatever happens later.
    engine_of(other).comms.drop_all("dial again")
    assert await other.query(node.node_id, "greet") == b"hello "
    later = [event.address for event in events[learned:] if isinstance(event, Dialling)]
    assert later
    assert old not in later
    stranger_events: list[Event] = []
    stranger = await start(listen=(), observer=stranger_events.append)
    assert await stranger.query(node.node_id, "greet") == b"hello "
    assert [e.address for e in stranger_events if isinstance(e, Dialling)] == [new]


async def test_a_peer_that_listens_elsewhere_tells_those_it_is_connected_to(
    start: Start, eventually: Eventually
) -> None:
    """Pushed over the connection: nobody needs a lookup to find the peer later."""
    node = greets(await start(lookup=None))
    other = await start(lookup=None, listen=())
    other.add_contact(node.record)
    await other.query(node.node_id, "greet")
    await node.listen("127.0.0.4:0")
    await eventually(
        lambda: engine_of(other).book.find(node.node_id).record.sequence == node.record.sequence
    )
    assert "pushed" in other.why(node.node_id).source
    engine_of(other).comms.drop_all("dial again")
    assert await other.query(node.node_id, "greet", b"new") == b"hello new"


async def test_a_move_reaches_those_who_are_connected_without_any_lookup(
    start: Start, eventually: Eventually
) -> None:
    """Whoever moved knows whom it talked to, and can dial them with its new record."""
    node = greets(await start(lookup=None, listen="127.0.0.2:0"))
    other = greets(await start(lookup=None))
    other.add_contact(node.record)
    await other.query(node.node_id, "greet")
    await node.move("127.0.0.3:0", dial_from="127.0.0.3")
    # The one who moved says something, and thereby where it is.
    assert await node.query(other.node_id, "greet") == b"hello "
    await eventually(
        lambda: engine_of(other).book.find(node.node_id).record.sequence == node.record.sequence
    )
    engine_of(other).comms.drop_all("dial again")
    assert await other.query(node.node_id, "greet", b"new") == b"hello new"


async def test_an_address_that_cannot_be_listened_on_leaves_all_as_it_was(start: Start) -> None:
    node, other = greets(await start()), await start()
    before = (node.listening, node.record)
    with pytest.raises(ValueError, match="cannot listen on"):
        await node.listen([*node.listening, other.listening[0]])
    assert (node.listening, node.record) == before
    assert await other.query(node.node_id, "greet") == b"hello "


async def test_listening_on_one_more_address_keeps_the_first_and_its_connections(
    start: Start,
) -> None:
    node, other = greets(await start()), await start(listen=())
    await other.query(node.node_id, "greet")
    path = direct_path(other, node)
    first = node.listening[0]
    await node.listen([first, "127.0.0.5:0"])
    assert first in node.listening
    assert len(node.listening) == 2
    assert len(node.record.tcp) == 2
    await other.query(node.node_id, "greet")
    assert direct_path(other, node) is path


async def test_ipv6_is_spoken_as_well(start: Start) -> None:
    node = greets(await start(listen="[::1]:0"))
    other = await start(listen=())
    assert await other.query(node.node_id, "greet", b"six") == b"hello six"
    assert node.listening[0].startswith("[::1]:")


# What observers and people are told


async def test_an_observer_sees_paths_come_and_go(start: Start, eventually: Eventually) -> None:
    events: list[Event] = []
    node, other = greets(await start()), await start(listen=(), observer=events.append)
    await other.query(node.node_id, "greet")
    await node.close()
    await eventually(lambda: any(isinstance(event, PathLost) for event in events))
    kinds = [type(e) for e in events if isinstance(e, Dialling | PathOpened | PathLost)]
    assert kinds == [Dialling, PathOpened, PathLost]


async def test_why_tells_the_path_the_record_and_what_was_tried(start: Start) -> None:
    node, other = greets(await start()), await start(listen=())
    assert "no record known" in str(other.why(node.node_id))
    await other.query(node.node_id, "greet")
    explanation = other.why(node.node_id)
    assert explanation.record == node.record
    assert explanation.paths
    assert node.listening[0] in str(explanation)
    assert explanation.attempts == ()


async def test_why_tells_nothing_of_failed_attempts_once_the_peer_has_come_by_itself(
    start: Start,
) -> None:
    node, other = greets(await start()), await start(listen=())
    with pytest.raises(FastFail):
        await node.query(other.node_id, "greet")
    assert node.why(other.node_id).attempts
    await other.query(node.node_id, "greet")
    explanation = node.why(other.node_id)
    assert (len(explanation.paths), explanation.attempts) == (1, ())


async def test_a_contact_link_is_all_that_is_needed(start: Start) -> None:
    node = greets(await start(lookup=None))
    other = await start(lookup=None, listen=())
    assert other.add_contact(node.link) == node.node_id
    assert await other.query(node.node_id, "greet", b"link") == b"hello link"


async def test_nodes_of_different_networks_cannot_talk(start: Start, config: Config) -> None:
    node, other = greets(await start()), await start(config=config(network="other"))
    with pytest.raises(FastFail):
        await other.query(node.node_id, "greet")


async def test_why_names_the_path_first_that_is_used_now(start: Start) -> None:
    node, other = greets(await start()), await start(listen=())
    await other.query(node.node_id, "greet")
    peer = engine_of(other).book.get(node.node_id)
    direct: Any = peer.direct
    relayed: Any = SimpleNamespace(
        strategy="relayed", suspect=False, round_trip_s=None, heard_s=other.elapsed_s - 7
    )
    peer.relayed, direct.suspect = relayed, True
    why = other.why(node.node_id)
    peer.relayed, direct.suspect = None, False
    assert why.paths == ("relayed", str(direct.strategy))
    *_, first, heard, second = str(why).splitlines()
    assert (first, heard) == ("  path: relayed", "    last heard from 7.0 s ago")
    assert second == f"  path: {direct.strategy}"

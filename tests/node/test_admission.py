"""``Node(admit=...)``: the application says who may connect."""

from __future__ import annotations

from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import FastFail, Introduction, InvalidConfig, Node, NodeId, QueryFailed
from egtp.values.attempts import AttemptReason
from tests.node.at_hand import (
    Eventually,
    Held,
    Problems,
    Start,
    connections,
    engine_of,
    greets,
)

REFUSED = "dropped: the peer is not admitted"


async def hidden(start: Start, eventually: Eventually, relay: Node, **options: Any) -> Node:
    """A node that others reach through the relay only."""
    introduction = Introduction(relay.node_id, relay.record)
    node = await start(listen=(), discovery=StaticDiscovery([introduction]), **options)
    await eventually(lambda: node.relays == (relay.node_id,))
    await node.published()
    return greets(node)


async def test_only_who_is_admitted_connects_and_the_application_may_change_its_mind(
    start: Start,
) -> None:
    friends: set[NodeId] = set()
    private = greets(await start(admit=friends.__contains__))
    peer = await start(listen=())
    with pytest.raises(FastFail) as failed:
        await peer.query(private.node_id, "greet", b"you")
    assert [one.reason for one in failed.value.attempts][:1] == [AttemptReason.HUNG_UP]
    assert private.counters[REFUSED] == 1
    friends.add(peer.node_id)
    assert await peer.query(private.node_id, "greet", b"you") == b"hello you"


async def test_a_blocked_peer_that_is_disconnected_does_not_come_back(start: Start) -> None:
    blocked: set[NodeId] = set()
    node = greets(await start(admit=lambda peer_id: peer_id not in blocked))
    peer, other = await start(listen=()), await start(listen=())
    await peer.query(node.node_id, "greet")
    blocked.add(peer.node_id)
    # It stays until somebody ends that.
    await peer.query(node.node_id, "greet")
    await node.disconnect(peer.node_id)
    with pytest.raises(QueryFailed):
        await peer.query(node.node_id, "greet", hard_timeout_s=0.5)
    assert await other.query(node.node_id, "greet") == b"hello "


async def test_nobody_dials_a_blocked_peer_to_bring_it_what_it_had_asked(
    start: Start, eventually: Eventually
) -> None:
    blocked, held = set[NodeId](), Held()
    node = await start(admit=lambda peer_id: peer_id not in blocked)
    node.handle("slow", held)
    peer = greets(await start())
    await node.query(peer.node_id, "greet")
    asked = peer.open_query(node.node_id, "slow")
    await held.called.wait()
    blocked.add(peer.node_id)
    await node.disconnect(peer.node_id)
    held.go.set()
    await eventually(lambda: node.counters["reply kept until its asker comes"])
    assert not node.connected
    asked.cancel()


@pytest.mark.reaches_in
async def test_a_dial_to_bring_a_peer_what_it_had_asked_ends_when_it_is_blocked(
    start: Start, eventually: Eventually
) -> None:
    blocked, held = set[NodeId](), Held()
    node = await start(admit=lambda peer_id: peer_id not in blocked)
    node.handle("slow", held)
    peer = greets(await start())
    await node.query(peer.node_id, "greet")
    asked = peer.open_query(node.node_id, "slow")
    await held.called.wait()
    # From now on it neither dials nor answers whoever dials it.
    engine_of(peer).seek = lambda _: None
    engine_of(peer).channels.handshakes.initiation = lambda *_: None
    await node.disconnect(peer.node_id)
    held.go.set()
    await eventually(lambda: engine_of(node).channels.dialling)
    blocked.add(peer.node_id)
    await node.disconnect(peer.node_id)
    known = engine_of(node).book.find(peer.node_id)
    assert known.search is None
    assert not known.waiting
    await eventually(lambda: not connections(node))
    asked.cancel()


async def test_who_is_refused_is_not_remembered_and_its_early_query_does_not_run(
    start: Start,
) -> None:
    node, asked = await start(admit=lambda _: False), []

    @node.handler("ask")
    async def ask(query: object) -> bytes:
        asked.append(query)
        return b""

    peer = await start(listen=())
    with pytest.raises(QueryFailed):
        await peer.query(node.node_id, "ask", early=True, hard_timeout_s=0.5)
    assert node.counters[REFUSED]
    assert not asked
    engine = engine_of(node)
    assert engine.book.find(peer.node_id) is None
    assert len(engine.answering.answers) == 0
    assert not engine.channels.sessions.by_index


async def test_nobody_is_asked_about_those_that_this_node_connects_to(start: Start) -> None:
    asked: list[NodeId] = []

    def admit(peer_id: NodeId) -> bool:
        asked.append(peer_id)
        return False

    node, peer = greets(await start(admit=admit)), greets(await start())
    assert await node.query(peer.node_id, "greet") == b"hello "
    assert await peer.query(node.node_id, "greet") == b"hello "
    assert not asked


async def test_whom_a_node_refuses_does_not_reach_it_through_a_relay_either(
    start: Start, eventually: Eventually
) -> None:
    relay, friends = await start(relay_server=True), set[NodeId]()
    node = await hidden(start, eventually, relay, admit=friends.__contains__)
    peer, stranger = await start(listen=()), await start(listen=())
    friends.add(peer.node_id)
    assert await peer.query(node.node_id, "greet") == b"hello "
    with pytest.raises(QueryFailed):
        await stranger.query(node.node_id, "greet", hard_timeout_s=0.5)
    assert node.counters[REFUSED]


async def test_a_relay_serves_whom_it_admits_only(start: Start, eventually: Eventually) -> None:
    fleet = set[NodeId]()
    relay = await start(relay_server=True, admit=fleet.__contains__)
    introduction = Introduction(relay.node_id, relay.record)
    stranger = await start(listen=(), discovery=StaticDiscovery([introduction]))
    await eventually(lambda: relay.counters[REFUSED])
    assert not stranger.relays
    assert relay.relay_server is not None
    assert len(relay.relay_server.leases) == 0


async def test_a_relay_keeps_no_lease_of_whom_it_disconnects(
    start: Start, eventually: Eventually
) -> None:
    blocked = set[NodeId]()
    relay = await start(relay_server=True, admit=lambda peer_id: peer_id not in blocked)
    discovery = StaticDiscovery([Introduction(relay.node_id, relay.record)])
    here, away = [await start(listen=(), discovery=discovery) for _ in range(2)]
    await eventually(lambda: here.relays and away.relays)
    assert relay.relay_server is not None
    assert len(relay.relay_server.leases) == 2
    blocked |= {here.node_id, away.node_id}
    engine_of(away).comms.drop_all("without a word")
    await eventually(lambda: away.node_id not in relay.connected)
    for node in (here, away):
        await relay.disconnect(node.node_id)
    assert len(relay.relay_server.leases) == 0


async def test_of_whom_it_cannot_tell_is_refused_and_the_exception_handler_hears_of_it(
    start: Start, problems: Problems
) -> None:
    answers: list[Any] = ["yes", KeyError("who?"), KeyError("who?")]

    def admit(_: NodeId) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    node = greets(await start(admit=admit))
    for _ in range(len(answers)):
        peer = await start(listen=())
        with pytest.raises(FastFail):
            await peer.query(node.node_id, "greet")
    assert not answers
    told = [problem["exception"] for problem in problems]
    assert [type(one) for one in told] == [TypeError, KeyError], "the same once a minute"
    assert "must return True or False, not 'yes'" in str(told[0])
    problems.clear()


async def test_what_cannot_be_asked_is_refused_at_once(start: Start) -> None:
    async def later(_: NodeId) -> bool:
        return True

    for wrong in (later, {1, 2}):
        with pytest.raises(InvalidConfig, match="admit must be a"):
            await start(admit=wrong)

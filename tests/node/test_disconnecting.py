"""``node.disconnect``: who knows that there will be nothing more to say closes what is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from discovery import StaticDiscovery
from egtp import Identity, Incoming, Introduction, Node, NodeClosed
from egtp.events import Event, LeaseNotGranted, PathLost
from tests.node.at_hand import Eventually, Start, connections, engine_of

MIB = 1024 * 1024


async def test_both_sides_close_and_the_next_query_connects_anew(
    start: Start, greeter: Node, eventually: Eventually
) -> None:
    seen: list[Event] = []
    node = await start(listen=(), observer=seen.append)
    for _ in range(3):
        assert await node.query(greeter.node_id, "greet", b"again") == b"hello again"
        assert connections(node) == 1
        await node.disconnect(greeter.node_id)
        assert not node.why(greeter.node_id).paths
        await eventually(lambda: connections(node) == connections(greeter) == 0)
    assert [event.reason for event in seen if isinstance(event, PathLost)] == ["disconnected"] * 3
    assert not node.counters["dropped: connection reset"]


async def test_what_was_accepted_still_leaves(start: Start, eventually: Eventually) -> None:
    got: list[int] = []
    node, peer = await start(listen=()), await start()

    @peer.handler("take")
    async def take(message: Incoming) -> None:
        got.append(len(message.body))

    for size in (100, MIB):
        await node.send(peer.node_id, "take", bytes(size))
        await node.disconnect(peer.node_id)
        await eventually(lambda size=size: size in got)


async def test_an_open_query_is_given_again_and_runs_once(start: Start) -> None:
    node, peer = await start(listen=()), await start()
    began, goes_on, ran = asyncio.Event(), asyncio.Event(), 0

    @peer.handler("wait")
    async def wait(query: Incoming) -> bytes:
        nonlocal ran
        ran += 1
        began.set()
        await goes_on.wait()
        return b"done"

    asked = asyncio.ensure_future(node.query(peer.node_id, "wait"))
    await began.wait()
    await node.disconnect(peer.node_id)
    goes_on.set()
    assert await asked == b"done"
    assert ran == 1


@pytest.mark.reaches_in
async def test_what_the_node_dials_a_peer_for_fails_when_the_peer_is_disconnected(
    start: Start, eventually: Eventually
) -> None:
    """The relay takes the connection and says nothing: later, it would be connected again."""
    relay, events = await start(relay_server=True), list[Event]()
    engine_of(relay).channels.handshakes.initiation = lambda *_: None
    discovery = StaticDiscovery([Introduction(relay.node_id, relay.record)])
    node = await start(listen=(), discovery=discovery, observer=events.append)
    await eventually(lambda: engine_of(node).channels.dialling)
    await node.disconnect(relay.node_id)
    await eventually(lambda: any(isinstance(event, LeaseNotGranted) for event in events))
    (event,) = [event for event in events if isinstance(event, LeaseNotGranted)]
    assert event.reason == f"{relay.node_id} was disconnected while it was dialled"


async def test_whoever_is_not_connected_or_not_known_is_no_mistake(
    start: Start, greeter: Node, identity: Callable[[], Identity]
) -> None:
    node = await start(listen=())
    await node.disconnect(identity().node_id)
    node.add_contact(greeter.record)
    await node.disconnect(greeter.node_id)
    assert await node.query(greeter.node_id, "greet", b"you") == b"hello you"


async def test_a_node_that_is_not_started_says_so(identity: Callable[[], Identity]) -> None:
    with pytest.raises(NodeClosed, match="not started"):
        await Node(identity()).disconnect(identity().node_id)

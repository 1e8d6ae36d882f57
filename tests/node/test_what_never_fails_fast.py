"""What never is a fast fail: the second table of docs/outcomes.md.

Once a copy was given to a socket, no fast fail comes any more, whatever a peer, a relay or the
network says (R21). In virtual time; the last one is on real sockets.
"""

from __future__ import annotations

import asyncio

import pytest

from discovery import StaticDiscovery
from egtp import (
    AttemptReason,
    HandlerFailed,
    HardTimeout,
    Incoming,
    Introduction,
    Node,
    NodeClosed,
    NodeConfig,
    NodeId,
    OutcomeUnknown,
    ReplyCode,
)
from egtp.relay.wire import HINT_KIND, NO_LEASE, Hint, Relay, digest_of
from tests.lab import LATENCY_S, kept
from tests.node.at_hand import Start, engine_of
from tests.node.failing import Hanging, World, play, stranger, timed_out


def test_the_connection_is_reset_and_the_port_then_refuses() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id) as query:
            world.hosts.pop(peer).kill()
            await asyncio.sleep(4)
            assert not query.done()
            why = asker.why(peer.node_id)
            assert any(one.reason is AttemptReason.REFUSED for one in why.attempts), str(why)
        timed_out(query)

    play(story)


def test_the_peer_goes_silent() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id, hard_timeout_s=30) as query:
            with world.network.partition([world.hosts[asker]], [world.hosts[peer]]):
                await asyncio.sleep(25)
                assert not query.done()
                assert not asker.why(peer.node_id).paths
                assert asker.counters["path given up: silent"] == 1
                await asyncio.wait([query])
        timed_out(query)

    play(story)


@pytest.mark.parametrize("relayed", [False, True])
@pytest.mark.parametrize("size", [1, 900_000])
def test_the_peer_says_goodbye(size: int, relayed: bool) -> None:
    """It will never answer, and no later life of it may be asked again."""

    async def story(world: World) -> None:
        peer = await somebody(world, relayed=relayed)
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id, body=bytes(size)) as query:
            began_s = world.now_s
            await world.close(peer)
        assert isinstance(query.exception(), OutcomeUnknown)
        assert world.now_s - began_s < 1
        assert not kept(asker)

    play(story)


def test_the_peer_says_goodbye_while_a_large_query_is_on_its_way() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer, config=NodeConfig(send_bytes_per_s=100_000.0))
        query = asyncio.ensure_future(
            world.query(asker, peer.node_id, body=bytes(900_000), hard_timeout_s=60)
        )
        await asyncio.sleep(1)
        began_s = world.now_s
        await world.close(peer)
        with pytest.raises(OutcomeUnknown):
            await query
        assert world.now_s - began_s < 1
        assert not kept(asker)

    play(story)


@pytest.mark.parametrize("relayed", [False, True])
def test_the_peer_says_goodbye_before_anything_of_its_asker_has_come(relayed: bool) -> None:
    """It has answered the handshake alone: the query, and the proof of who asks, come too late."""

    async def story(world: World) -> None:
        peer = await somebody(world, relayed=relayed)
        asker = await world.asker(peer)
        query = asyncio.ensure_future(world.query(asker, peer.node_id))
        while not engine_of(peer).channels.unconfirmed:
            await asyncio.sleep(LATENCY_S / 10)
        await asyncio.sleep(LATENCY_S / 2)
        began_s = world.now_s
        await world.close(peer)
        with pytest.raises(OutcomeUnknown):
            await query
        assert world.now_s - began_s < 1

    play(story)


@pytest.mark.parametrize("relayed", [False, True])
def test_the_peer_says_goodbye_to_a_query_that_may_run_twice(relayed: bool) -> None:
    """A later life of the peer may answer it."""

    async def story(world: World) -> None:
        peer = await somebody(world, relayed=relayed)
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id, idempotent=True) as query:
            await world.close(peer)
        timed_out(query)

    play(story)


@pytest.mark.parametrize("relayed", [False, True])
def test_the_peer_only_hangs_up(relayed: bool) -> None:
    """It is still there, and answers by another path."""

    async def story(world: World) -> None:
        peer = await somebody(world, relayed=relayed)
        asker = await world.asker(peer)
        done = asyncio.Event()

        @peer.handler("later")
        async def later(query: Incoming) -> bytes:
            await done.wait()
            return query.body

        query = asyncio.ensure_future(world.query(asker, peer.node_id, "later"))
        await asyncio.sleep(1)
        await world.hosts[peer].run(peer.disconnect(asker.node_id))
        await asyncio.sleep(1)
        assert not query.done()
        done.set()
        assert await query == b"x"

    play(story)


async def somebody(world: World, *, relayed: bool) -> Node:
    if not relayed:
        return await world.node()
    return await world.hidden(await world.node(relay_server=True))


def test_the_lookup_says_that_there_is_no_such_peer() -> None:
    """After the path was lost, all that is known is looked up anew, and nothing is found."""

    async def story(world: World) -> None:
        peer = await world.node(lookup=None)
        asker = await world.asker(peer, lookup=world.lookup)
        async with world.given(asker, peer.node_id, idempotent=True) as query:
            await world.close(peer)
            await asyncio.sleep(1)
            reasons = [attempt.reason for attempt in asker.why(peer.node_id).attempts]
            assert AttemptReason.NOT_FOUND in reasons
        timed_out(query)

    play(story)


def test_the_relay_dies_after_it_took_the_packet() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id) as query:
            await world.close(relay)
            await asyncio.sleep(1)
            (failed,) = asker.why(peer.node_id).attempts
            assert failed.reason is AttemptReason.RELAY_UNREACHABLE
        timed_out(query)

    play(story)


def test_the_relay_says_that_it_does_not_know_the_peer() -> None:
    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id, hard_timeout_s=20, idempotent=True) as query:
            await world.close(peer)
            await asyncio.sleep(15)
            server = relay.relay_server
            assert server is not None
            assert server.counters["dropped: no lease"]
        timed_out(query)

    play(story)


@pytest.mark.reaches_in
def test_the_relay_lies_about_every_packet_it_was_given() -> None:
    """It passes them on, and says of each that it does not know the peer."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        engine = engine_of(relay)
        passed_on = engine.relaying.server.relay

        def lie(sender: NodeId, body: bytes, age_ms: int) -> None:
            passed_on(sender, body, age_ms)
            if sender == asker.node_id and world.called.is_set():
                hint = Hint(digest_of(Relay.decode(body).packet), NO_LEASE).encode()
                engine.relaying.say(engine.book.find(sender).direct, HINT_KIND, hint, 1000)

        engine.relaying.server.relay = lie
        async with world.given(asker, peer.node_id) as query:
            other = asyncio.ensure_future(world.query(asker, peer.node_id, body=b"y"))
            await asyncio.sleep(1)
            assert asker.counters["dropped: hint about nothing we wait for"]
            assert other.result() == b"y"
        timed_out(query)

    play(story)


def test_the_peer_says_that_it_does_not_know_the_session() -> None:
    """It was started again behind its relay, so it cannot know, and nobody does."""

    async def story(world: World) -> None:
        relay = await world.node(relay_server=True)
        peer = await world.hidden(relay)
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id, hard_timeout_s=30) as query:
            world.hosts[peer].kill()
            introductions = [Introduction(relay.node_id, relay.record)]
            await world.node(
                identity=peer.identity,
                listens=False,
                on=world.hosts.pop(peer),
                discovery=StaticDiscovery(introductions),
            )
        assert isinstance(query.exception(), OutcomeUnknown)

    play(story)


def test_the_peer_was_restarted_and_takes_only_smaller_bodies() -> None:
    """What would be a fast fail for a new query is not one for a query that was given before."""

    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        large = world.query(
            asker, peer.node_id, "wait", bytes(5000), hard_timeout_s=20, idempotent=True
        )
        query = asyncio.ensure_future(large)
        await world.called.wait()
        host = world.hosts.pop(peer)
        host.kill()
        again = await world.node(
            identity=peer.identity, on=host, config=NodeConfig(body_bytes_max=1000)
        )
        await asyncio.wait([query])
        error = query.exception()
        assert isinstance(error, OutcomeUnknown)
        assert "takes at most 1000 bytes" in str(error)
        assert again.node_id == peer.node_id

    play(story)


def test_early_data_was_taken_by_whoever_it_is() -> None:
    """It travelled with the dial, and the dial then failed."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async def story(world: World) -> None:
        peer = await world.gone()
        asker = await world.asker(peer)
        async with stranger(world, peer, take):
            with pytest.raises(HardTimeout) as timeout:
                await world.query(asker, peer.node_id, early=True, hard_timeout_s=5)
        assert timeout.value.may_have_run

    play(story)


def test_the_limits_of_this_node_do_not_end_what_was_given() -> None:
    """A given query waits for a way again, though as much waits as may."""

    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer, config=NodeConfig(waiting_bytes_max=1000))
        twice = {"idempotent": True}
        async with world.given(asker, peer.node_id, body=bytes(900), **twice) as query:
            other = asyncio.ensure_future(
                world.query(asker, peer.node_id, "wait", bytes(900), hard_timeout_s=6, **twice)
            )
            await asyncio.sleep(1)
            await world.close(peer)
            await asyncio.sleep(1)
            assert not query.done()
            assert not other.done()
        await asyncio.wait([other])
        timed_out(query)
        timed_out(other)

    play(story)


def test_this_node_is_closed_while_the_query_is_open() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        async with world.given(asker, peer.node_id) as query:
            await world.close(asker)
        error = query.exception()
        assert isinstance(error, NodeClosed)
        assert error.may_have_run

    play(story)


def test_the_peer_refuses_to_run_it() -> None:
    """That is an answer: it is the peer that says so, and says it of one query."""

    async def story(world: World) -> None:
        peer = await world.node()
        asker = await world.asker(peer)
        with pytest.raises(HandlerFailed) as failed:
            await world.query(asker, peer.node_id, "nothing")
        assert failed.value.code == ReplyCode.NO_SUCH_KIND

    play(story)


def test_time_is_over_while_a_way_is_searched_for() -> None:
    """A hard timeout is one even if nothing was given to a socket, which it says."""

    async def story(world: World) -> None:
        asker = await world.asker(lookup=Hanging())
        with pytest.raises(HardTimeout) as timeout:
            await world.query(asker, NodeId(bytes(20)), hard_timeout_s=2)
        assert not timeout.value.may_have_run

    play(story)


# On real sockets


async def test_a_real_connection_is_reset_after_the_query_was_written(start: Start) -> None:
    node, asker = await start(), await start(listen=())
    called = asyncio.Event()

    @node.handler("wait")
    async def wait(query: Incoming) -> bytes:
        called.set()
        await asyncio.Event().wait()
        return b""

    query = asker.open_query(node.node_id, "wait", hard_timeout_s=0.5)
    await called.wait()
    engine = engine_of(node)
    engine.comms._listeners.close()  # the port refuses before the asker can come back
    engine.comms.drop_all("a test")
    await node.close()
    with pytest.raises(HardTimeout) as timeout:
        await query
    assert timeout.value.may_have_run

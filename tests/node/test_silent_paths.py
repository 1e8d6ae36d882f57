"""Paths that lead nowhere any more, without a word: in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import (
    AttemptReason,
    Environment,
    FastFail,
    HardTimeout,
    Identity,
    Incoming,
    Introduction,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
)
from egtp.channel.packet import INITIATION, RESPONSE
from egtp.engine.upkeep import ALL_AGAIN_S
from egtp.events import Dialling, Event, Observer, PathLost, PathOpened
from egtp.relay.wire import Relay
from egtp.tcp.connection import TCPConnection
from simulations.virtual import Fixed, Host, Link, Nat, NatKind, Network, run_in, simulate
from tests.lab import Lab, in_lab

SILENT_S = 8.0
CONFIG = NodeConfig(silent_path_s=SILENT_S)


def node_on(
    host: Host,
    lookup: MemoryLookup,
    observer: Observer | None = None,
    config: NodeConfig = CONFIG,
) -> Node:
    environment = Environment(host.elapsed, host.unix_time, host.entropy)
    identity = Identity.generate(host.entropy)
    node = Node(
        identity,
        listen=f"{host.addresses[0]}:4000",
        lookup=lookup,
        environment=environment,
        config=config,
        observer=observer,
    )

    async def echo(query: Incoming) -> bytes:
        return query.body

    node.handle("echo", echo)
    return node


async def pair(
    network: Network, observer: Observer | None = None, config: NodeConfig = CONFIG
) -> tuple[Host, Node, Host, Node]:
    """Both run; it is the first that is observed."""
    one, two = network.host("one", "5.0.0.1"), network.host("two", "5.0.1.1")
    lookup = MemoryLookup(network.story.unix_time)
    asker = node_on(one, lookup, observer, config)
    answerer = node_on(two, lookup, config=config)
    await one.run(asker.start())
    await two.run(answerer.start())
    return one, asker, two, answerer


async def connected_pair(network: Network) -> tuple[Host, Node, Host, Node]:
    """The first has dialled the second."""
    one, asker, two, answerer = await pair(network)
    assert await one.run(asker.query(answerer.node_id, "echo", b"1")) == b"1"
    return one, asker, two, answerer


@pytest.mark.parametrize("silent_path_s", [1.0, 2.0, 8.0])
def test_a_path_that_was_once_asked_is_idle_again_once_nobody_waits_for_it(
    silent_path_s: float,
) -> None:
    """However impatient the node: it must not ask on and on, and keep the connection for that."""

    async def story(network: Network) -> None:
        config = NodeConfig(silent_path_s=silent_path_s, idle_timeout_s=60)
        one, asker, _, answerer = await pair(network, config=config)

        async def slow(query: Incoming) -> bytes:
            await asyncio.sleep(10)
            return query.body

        answerer.handle("slow", slow)
        assert await one.run(asker.query(answerer.node_id, "slow", b"1")) == b"1"
        await asyncio.sleep(3)
        before = asker.statistics()["bytes_sent"]
        await asyncio.sleep(50)
        assert asker.connected == (answerer.node_id,)
        assert asker.statistics()["bytes_sent"] == before
        await asyncio.sleep(50)
        assert asker.connected == answerer.connected == ()

    simulate(story, seed=1)


def test_a_peer_without_power_is_noticed_while_somebody_waits_and_found_again_after() -> None:
    async def story(network: Network) -> None:
        one, asker, two, answerer = await connected_pair(network)
        peer_id = answerer.node_id
        with network.partition([one], [two]):
            began = network.loop.now
            with pytest.raises(HardTimeout) as caught:
                await one.run(asker.query(peer_id, "echo", b"2", hard_timeout_s=30))
            assert caught.value.may_have_run
            assert network.loop.now - began == pytest.approx(30, abs=0.1)
            assert asker.counters["path given up: silent"] == 1
            assert not asker.why(peer_id).paths
        # Without that, TCP alone would go on sending into the void.
        assert await one.run(asker.query(peer_id, "echo", b"3")) == b"3"

    simulate(story, seed=1)


def test_a_machine_that_started_again_says_at_once_that_the_connection_is_gone() -> None:
    async def story(network: Network) -> None:
        one, asker, two, answerer = await connected_pair(network)
        peer_id = answerer.node_id
        two.crash()
        two.restart()
        lookup = MemoryLookup(network.story.unix_time)
        again = node_on(two, lookup)
        await two.run(again.start())
        lost = one.spawn(asker.query(peer_id, "echo", b"2", hard_timeout_s=20))
        await asyncio.sleep(0.1)
        assert not asker.why(peer_id).paths
        with pytest.raises(HardTimeout):
            await lost

    simulate(story, seed=2)


async def behind_a_router(network: Network) -> tuple[Nat, Host, Node, Node]:
    """The router, the asker's machine, the asker, and an answerer on the Internet."""
    gateway = network.gateway("router", Nat(NatKind.PORT_RESTRICTED, "9.9.9.9"))
    one = network.host("one", "192.168.1.2", behind=gateway)
    two = network.host("two", "5.0.1.1")
    lookup = MemoryLookup(network.story.unix_time)
    asker, answerer = node_on(one, lookup), node_on(two, lookup)
    await one.run(asker.start())
    await two.run(answerer.start())
    return gateway.nat, one, asker, answerer


def test_a_connection_that_is_dead_while_its_peer_lives_is_replaced_before_it_is_given_up() -> None:
    """As when a NAT on the way forgets it. The query that it was given arrives by the new one."""

    async def story(network: Network) -> None:
        router, one, asker, answerer = await behind_a_router(network)
        peer_id = answerer.node_id
        assert await one.run(asker.query(peer_id, "echo", b"1")) == b"1"
        router.forget()
        began = network.loop.now
        assert await one.run(asker.query(peer_id, "echo", b"2")) == b"2"
        # A quarter of the time, an eighth of it, and for each the next look.
        assert network.loop.now - began < SILENT_S * 3 / 8 + 2.5
        assert asker.counters["path given up: silent"] == 0
        assert len(asker.why(peer_id).paths) == 1

    simulate(story, seed=1)


def test_a_connection_that_dies_again_and_again_is_replaced_each_time() -> None:
    """As behind a router that forgets a connection when nothing was said for half a minute."""

    async def story(network: Network) -> None:
        router, one, asker, answerer = await behind_a_router(network)
        await one.run(asker.query(answerer.node_id, "echo", b"1"))
        for _ in range(3):
            await asyncio.sleep(30)
            router.forget()
            began = network.loop.now
            await one.run(asker.query(answerer.node_id, "echo", b"2"))
            assert network.loop.now - began < SILENT_S / 8 + 2.5
        assert asker.counters["path given up: silent"] == 0

    simulate(story, seed=1)


@pytest.mark.parametrize("listens", ["5.0.1.2:4000", None])
def test_a_peer_that_is_known_to_have_moved_is_not_dialled_where_it_was(
    listens: str | None,
) -> None:
    """Found by ``run_cluster --scenario=rolling-ip --seed=5 --drawn``. The asker learns of it from
    a third party, before it notices that its connection is dead."""

    async def story(network: Network) -> None:
        events: list[Event] = []
        one, asker, two, answerer = await pair(network, events.append)
        peer_id = answerer.node_id
        assert await one.run(asker.query(peer_id, "echo", b"1")) == b"1"
        two.change_ip("5.0.1.2")
        await two.run(answerer.move([] if listens is None else listens))
        asker.add_contact(answerer.record)
        events.clear()
        began = network.loop.now
        query = one.spawn(asker.query(peer_id, "echo", b"2", hard_timeout_s=15))
        if listens is None:
            with pytest.raises(HardTimeout):
                await query
        else:
            assert await query == b"2"
            assert network.loop.now - began < SILENT_S * 3 / 8 + 2.5
        dialled = [str(event.address) for event in events if isinstance(event, Dialling)]
        assert dialled == ([] if listens is None else [listens])

    simulate(story, seed=1)


def test_a_peer_that_has_moved_is_looked_up_before_a_dead_connection_is_given_up() -> None:
    """Found by ``run_cluster --scenario=ip-change --seed=103 --drawn``. What would have told the
    asker that the connection is dead was lost."""

    async def story(network: Network) -> None:
        one, asker, two, answerer = await connected_pair(network)
        peer_id = answerer.node_id
        await asyncio.sleep(SILENT_S)
        two.change_ip("5.0.1.2")
        await two.run(answerer.move("5.0.1.2:4000"))
        await asyncio.sleep(1)
        began = network.loop.now
        assert await one.run(asker.query(peer_id, "echo", b"2")) == b"2"
        # Asked at the next look, doubted after an eighth of the time, and the next look.
        assert network.loop.now - began < SILENT_S / 8 + 2.5
        assert asker.counters["path given up: silent"] == 0
        assert len(asker.why(peer_id).paths) == 1

    simulate(story, seed=1)


def test_a_query_given_to_a_dead_connection_goes_by_the_one_that_the_peer_opens_meanwhile() -> None:
    """Found by ``run_cluster --scenario=rolling-ip --seed=21 --drawn``."""

    async def story(network: Network) -> None:
        one, asker, two, answerer = await connected_pair(network)
        peer_id = answerer.node_id
        await asyncio.sleep(SILENT_S)
        two.change_ip("5.0.1.2")
        await two.run(answerer.move("5.0.1.2:4000"))
        began = network.loop.now
        query = one.spawn(asker.query(peer_id, "echo", b"2"))
        assert await two.run(answerer.query(asker.node_id, "echo", b"3")) == b"3"
        assert await query == b"2"
        assert network.loop.now - began < SILENT_S / 8 + 2.5
        assert asker.counters["path given up: silent"] == 0
        assert len(asker.why(peer_id).paths) == 1

    simulate(story, seed=1)


def test_a_dead_connection_that_the_peer_had_opened_is_replaced_before_it_is_given_up() -> None:
    """There is no address to renew it at; but the peer may be elsewhere, and have said so."""

    async def story(network: Network) -> None:
        one, asker, two, answerer = await pair(network)
        peer_id = answerer.node_id
        assert await two.run(answerer.query(asker.node_id, "echo", b"1")) == b"1"
        await asyncio.sleep(10)  # or the dials would count as crossed
        two.change_ip("5.0.1.2")
        await two.run(answerer.move("5.0.1.2:4000"))
        asker.add_contact(answerer.record)
        began = network.loop.now
        assert await one.run(asker.query(peer_id, "echo", b"2")) == b"2"
        assert network.loop.now - began < SILENT_S * 3 / 8 + 2.5
        assert asker.counters["path given up: silent"] == 0
        assert len(asker.why(peer_id).paths) == 1

    simulate(story, seed=1)


def test_a_relay_leads_past_a_dead_connection_that_the_peer_had_opened() -> None:
    async def story(lab: Lab) -> None:
        relay, asker = await lab.node(relay_server=True), await lab.node()
        hidden = await lab.hidden(relay)
        await lab.query(hidden, asker.node_id)
        await asyncio.sleep(10)
        (direct,) = asker.why(hidden.node_id).paths
        with lab.network.partition([lab.hosts[asker]], [lab.hosts[hidden]]):
            began = lab.now_s
            await lab.query(asker, hidden.node_id)
            assert lab.now_s - began < SILENT_S * 3 / 8 + 2.5
            assert direct not in asker.why(hidden.node_id).paths, "nobody waits for it any more"
        assert asker.counters["path given up: silent"] == 0

    in_lab(Lab, story)


def test_a_peer_that_has_answered_in_vain_through_its_relay_notices_it() -> None:
    """Its router has forgotten the connection to the relay. It waits for nobody's answer itself,
    and would otherwise notice when it renews its lease."""

    async def story(lab: Lab) -> None:
        relay, asker = await lab.node(relay_server=True), await lab.node()
        gateway = lab.network.gateway("router", Nat(NatKind.PORT_RESTRICTED, "9.9.9.9"))
        machine = lab.network.host("hidden", "192.168.1.2", behind=gateway)
        hidden = await lab.hidden(relay, on=machine)
        await lab.query(asker, hidden.node_id)
        await asyncio.sleep(5)
        before = lab.network.trace.entries
        await asyncio.sleep(10)
        assert lab.network.trace.entries == before, "one sign of life is enough"
        await lab.query(asker, hidden.node_id)
        gateway.nat.forget()
        began = lab.now_s
        await lab.query(asker, hidden.node_id)
        assert lab.now_s - began < SILENT_S * 3 / 8 + 4

    in_lab(Lab, story)


def test_a_relay_notices_that_a_peer_which_others_ask_for_is_gone() -> None:
    async def story(lab: Lab) -> None:
        relay, asker = await lab.node(relay_server=True), await lab.node()
        hidden = await lab.hidden(relay)
        others = [other for other in lab.hosts.values() if other is not lab.hosts[hidden]]
        with lab.network.partition([lab.hosts[hidden]], others):
            reasons = [await fast_fail(lab, asker, hidden)]
            await asyncio.sleep(ALL_AGAIN_S + SILENT_S + 2)
            assert hidden.node_id not in relay.connected
            assert relay.counters["path given up: silent"] == 1
            await asyncio.sleep(hidden.config.relay_lease_s)
            reasons.append(await fast_fail(lab, asker, hidden))
            assert reasons == [AttemptReason.RELAY_SILENT, AttemptReason.RELAY_KNOWS_NOT]

    in_lab(Lab, story)


def test_a_relay_asks_nobody_for_a_sign_of_life_who_answers_what_it_passes_on() -> None:
    async def story(lab: Lab) -> None:
        relay, asker = await lab.node(relay_server=True), await lab.node()
        hidden = await lab.hidden(relay)
        await lab.query(asker, hidden.node_id)
        await asyncio.sleep(5)
        before = lab.network.trace.entries
        await asyncio.sleep(ALL_AGAIN_S)
        assert lab.network.trace.entries == before

    in_lab(Lab, story)


async def fast_fail(lab: Lab, asker: Node, hidden: Node) -> AttemptReason:
    """Why the asker's attempt to reach the hidden peer through its only relay failed."""
    with pytest.raises(FastFail) as caught:
        await lab.query(asker, hidden.node_id)
    (reason,) = [one.reason for one in caught.value.attempts if one.strategy is not None]
    return reason


@pytest.mark.parametrize("moves", [False, True], ids=["hangs", "moves"])
def test_another_relay_leads_past_one_that_has_gone_silent(moves: bool) -> None:
    """Neither end is told. Without asking, the peer would not notice before it renews its lease, so
    finding the relay where it is now would not help, either."""

    async def story(lab: Lab) -> None:
        relays = [await lab.node(relay_server=True) for _ in range(2)]
        asker, hidden = await lab.node(), await lab.hidden(*relays)
        await lab.query(asker, hidden.node_id)
        await asyncio.sleep(SILENT_S)
        (path,) = asker.why(hidden.node_id).paths
        (used,) = [relay for relay in relays if str(relay.node_id) in path]
        host = lab.hosts[used]
        if moves:
            host.change_ip("5.99.0.1")
            await host.run(used.move("5.99.0.1:4000"))
        others = [other for other in lab.hosts.values() if other is not host]
        with contextlib.nullcontext() if moves else lab.network.partition([host], others):
            began = lab.now_s
            await lab.query(asker, hidden.node_id)
            assert lab.now_s - began < SILENT_S / 8 + 2.5
        assert asker.counters["path given up: silent"] == 0
        assert str(used.node_id) not in str(asker.why(hidden.node_id).paths)

    in_lab(Lab, story)


async def behind_one_that_passes_on(lab: Lab, wanted: Callable[[bytes], bool]) -> tuple[Node, Node]:
    """A peer behind two relays: the one that is nearby, and tried first, passes on such packets
    only. The other one is returned as well."""
    relays = [await lab.node(relay_server=True) for _ in range(2)]
    peer = await lab.hidden(*relays)
    assert peer.record is not None
    first = peer.record.relays[0].relay_id
    nearby, honest = sorted(relays, key=lambda relay: relay.node_id != first)
    lab.hosts[honest].degrade(Link(latency=0.2))
    server: Any = nearby.relay_server
    passes_on = server.relay

    def relay(sender: NodeId, body: bytes, age_ms: int) -> None:
        if wanted(Relay.decode(body).packet):
            passes_on(sender, body, age_ms)

    server.relay = relay
    return peer, honest


@pytest.mark.reaches_in
def test_a_relay_nearby_that_passes_on_nothing_but_handshakes_keeps_nobody_from_the_other() -> None:
    """It won the race for a path each time that the path before had fallen silent."""

    async def story(lab: Lab) -> None:
        peer, _ = await behind_one_that_passes_on(
            lab, lambda packet: packet[0] in (INITIATION, RESPONSE)
        )
        asker = await lab.asker(peer)
        began_s = lab.now_s
        assert await lab.query(asker, peer.node_id) == b"x"
        assert lab.now_s - began_s < 10

    in_lab(Lab, story)


@pytest.mark.reaches_in
@pytest.mark.parametrize("large", ["query", "reply"])
def test_a_relay_nearby_that_passes_on_signs_of_life_but_nothing_large_keeps_nobody_from_the_other(
    large: str,
) -> None:
    async def story(lab: Lab) -> None:
        peer, honest = await behind_one_that_passes_on(lab, lambda packet: len(packet) < 1000)

        @peer.handler("large")
        async def reply(query: Incoming) -> bytes:
            return query.body if large == "query" else bytes(2000)

        asker = await lab.asker(peer)
        body = bytes(2000 if large == "query" else 2)
        for longest_s in (10.0, 1.0, 1.0):
            began_s = lab.now_s
            assert await lab.query(asker, peer.node_id, "large", body) == bytes(2000)
            assert lab.now_s - began_s < longest_s
        (path,) = asker.why(peer.node_id).paths
        assert str(honest.node_id) in path

    in_lab(Lab, story)


def take_no_large_packets(node: Node) -> None:
    """Of connections with relays, it takes them."""
    engine: Any = node._engine
    receive, stuck = engine.received, set()

    def received(connection: TCPConnection, packet: bytes) -> None:
        if len(packet) > 1280:
            stuck.add(connection)
        if connection not in stuck or is_a_relays(connection):
            receive(connection, packet)

    def is_a_relays(connection: TCPConnection) -> bool:
        path = engine.channels.path_of(connection.number)
        return path is not None and engine.relaying.is_relay(path.peer_id)

    engine.comms.received = received


@pytest.mark.reaches_in
def test_a_line_that_takes_no_packets_of_full_size_keeps_nobody_from_the_relay() -> None:
    """As when routers do not say that a packet is too large: handshakes pass, since they are small;
    but the first larger packet, and all that is behind it, is lost."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        introductions = [Introduction(relay.node_id, relay.record)]
        peer = await lab.node(discovery=StaticDiscovery(introductions))
        while not peer.relays:
            await asyncio.sleep(0.1)
        lab.records[peer] = peer.record
        asker = await lab.asker(peer)
        assert await lab.query(asker, peer.node_id) == b"x"
        take_no_large_packets(peer)
        for longest_s in (10.0, 1.0):
            began_s = lab.now_s
            assert len(await lab.query(asker, peer.node_id, body=bytes(2000))) == 2000
            assert lab.now_s - began_s < longest_s

    in_lab(Lab, story)


@pytest.mark.reaches_in
@pytest.mark.parametrize("listens", [False, True])
def test_small_messages_that_pass_beside_them_keep_no_large_ones_from_the_relay(
    *, listens: bool
) -> None:
    """On each new connection, some small ones came before the first large one: so it seemed to lead
    somewhere, and the next one was made there, too."""

    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        discovery = StaticDiscovery([Introduction(relay.node_id, relay.record)])
        peer = await lab.node(discovery=discovery)
        asker = await lab.node(discovery=discovery, listens=listens)
        while not (peer.relays and asker.relays):
            await asyncio.sleep(0.1)
        await lab.query(asker, peer.node_id)
        for node in (asker, peer):
            take_no_large_packets(node)

        async def ask_small_ones(one: Node, other: Node) -> None:
            while True:
                beside.add(asyncio.ensure_future(lab.query(one, other.node_id)))
                await asyncio.sleep(0.25)

        beside: set[asyncio.Future[bytes]] = set()
        smalls = [
            asyncio.ensure_future(ask_small_ones(asker, peer)),
            asyncio.ensure_future(ask_small_ones(peer, asker)),
        ]
        for longest_s in (20.0, 1.0, 1.0):
            began_s = lab.now_s
            assert len(await lab.query(asker, peer.node_id, body=bytes(2000))) == 2000
            assert lab.now_s - began_s < longest_s
        for small in smalls:
            small.cancel()
        assert set(await asyncio.gather(*beside)) == {b"x"}

    in_lab(Lab, story)


def test_a_peer_that_is_busy_for_a_while_keeps_its_connection_and_answers_once() -> None:
    """Its machine stands still for longer than it takes to be doubted, and then goes on."""

    async def story(network: Network) -> None:
        one, asker, two, answerer = await pair(network)
        ran = []

        async def count(query: Incoming) -> bytes:
            ran.append(query.body)
            await asyncio.sleep(0.5)
            return query.body

        answerer.handle("count", count)
        peer_id = answerer.node_id
        assert await one.run(asker.query(peer_id, "echo", b"1")) == b"1"
        query = one.spawn(asker.query(peer_id, "count", b"2", hard_timeout_s=20))
        await asyncio.sleep(0.2)
        with network.partition([one], [two]):
            await asyncio.sleep(SILENT_S * 5 / 8)
        assert await query == b"2"
        assert ran == [b"2"]

    simulate(story, seed=1)


def test_a_peer_that_is_merely_slow_is_not_searched_for_again_and_again() -> None:
    """Each question is answered, but later than round trips are expected to take."""

    async def story(network: Network) -> None:
        events: list[Event] = []
        one, asker, _, answerer = await pair(network, events.append)

        async def sleep(query: Incoming) -> bytes:
            await asyncio.sleep(50)
            return query.body

        answerer.handle("sleep", sleep)
        peer_id = answerer.node_id
        assert await one.run(asker.query(peer_id, "sleep", b"1", hard_timeout_s=100)) == b"1"
        # One for the connection, and one beside it when it was doubted first.
        assert len([event for event in events if isinstance(event, Dialling)]) == 2
        assert asker.counters["path given up: silent"] == 0

    network = Network(1, link=Link(latency=Fixed(0.7)))
    run_in(network, story(network))


def test_a_path_on_which_the_answer_has_come_is_not_lost_for_one_opened_beside_it() -> None:
    """The answer was late, so there is a second path in the same moment: nobody has looked yet."""

    async def story(network: Network) -> None:
        events: list[Event] = []
        one, asker, two, answerer = await pair(network, events.append)

        async def sleep(query: Incoming) -> bytes:
            await asyncio.sleep(5)
            return query.body

        answerer.handle("sleep", sleep)
        query = one.spawn(asker.query(answerer.node_id, "sleep", b"1", hard_timeout_s=20))
        await asyncio.sleep(2.5)
        with two.degrade(Link(latency=Fixed(1.015))):  # for the question that is asked after 3 s
            await asyncio.sleep(1)
        assert await query == b"1"
        assert len([event for event in events if isinstance(event, PathOpened)]) == 2
        assert not [event for event in events if isinstance(event, PathLost)]

    simulate(story, seed=1)


def test_nobody_is_bothered_on_paths_that_nobody_waits_for() -> None:
    async def story(network: Network) -> None:
        one, asker, _, answerer = await pair(network)
        await one.run(asker.query(answerer.node_id, "echo", b"1"))
        before = network.trace.entries
        await asyncio.sleep(60.0)
        assert network.trace.entries == before

    simulate(story, seed=3)


def test_a_superseded_path_ends_though_a_query_is_open_all_the_time() -> None:
    """Asked for a sign of life again and again, it would never be quiet."""

    async def story(network: Network) -> None:
        one, two = network.host("one", "5.0.0.1"), network.host("two", "5.0.1.1")
        lookup, events = MemoryLookup(network.story.unix_time), list[Event]()
        renews = NodeConfig(silent_path_s=SILENT_S, rekey_s=4.0)
        asker = node_on(one, lookup, events.append, renews)
        answerer = node_on(two, lookup)
        await one.run(asker.start())
        await two.run(answerer.start())
        ran = 0

        async def sleep(query: Incoming) -> bytes:
            nonlocal ran
            ran += 1
            await asyncio.sleep(40)
            return query.body

        answerer.handle("sleep", sleep)
        query = one.spawn(asker.query(answerer.node_id, "sleep", b"1", hard_timeout_s=60))
        await asyncio.sleep(20)
        assert len([event for event in events if isinstance(event, PathOpened)]) == 2
        assert [type(event) for event in events].count(PathLost) == 1
        assert await query == b"1"
        assert ran == 1

    simulate(story, seed=1)


def hanging_up(network: Network, until_s: float) -> tuple[Host, Node, Host, Node, list[Event]]:
    """The second node hangs up soon after each connection, until then: as if it did not
    understand what comes."""
    one, two = network.host("one", "5.0.0.1"), network.host("two", "5.0.1.1")
    lookup, events = MemoryLookup(network.story.unix_time), list[Event]()
    answerer: Node

    async def hang_up(peer_id: NodeId) -> None:
        await asyncio.sleep(0.05)
        await answerer.disconnect(peer_id)

    def observe(event: Event) -> None:
        if isinstance(event, PathOpened) and two.elapsed() < until_s:
            two.spawn(hang_up(event.peer_id))

    asker, answerer = node_on(one, lookup, events.append), node_on(two, lookup, observe)

    async def sleep(query: Incoming) -> bytes:
        await asyncio.sleep(float(query.body))
        return query.body

    answerer.handle("sleep", sleep)
    return one, asker, two, answerer, events


def test_who_hangs_up_each_time_is_not_dialled_ever_again_at_once() -> None:
    async def story(network: Network) -> None:
        one, asker, two, answerer, events = hanging_up(network, until_s=math.inf)
        await one.run(asker.start())
        await two.run(answerer.start())
        query = one.spawn(asker.query(answerer.node_id, "sleep", b"60", hard_timeout_s=30))
        await asyncio.sleep(20)
        pause = "the last ones ended within a second; the next in 9.1 s"
        assert f"no path\n    {pause}" in str(asker.why(answerer.node_id))
        with pytest.raises(HardTimeout):
            await query
        opened = len([event for event in events if isinstance(event, PathOpened)])
        assert 5 <= opened <= 10

    simulate(story, seed=1)


def test_who_stops_hanging_up_is_asked_again_after_a_pause_and_answers() -> None:
    async def story(network: Network) -> None:
        one, asker, two, answerer, _ = hanging_up(network, until_s=5.0)
        await one.run(asker.start())
        await two.run(answerer.start())
        query = one.spawn(asker.query(answerer.node_id, "sleep", b"8", hard_timeout_s=30))
        assert await query == b"8"
        assert one.elapsed() < 12

    simulate(story, seed=1)

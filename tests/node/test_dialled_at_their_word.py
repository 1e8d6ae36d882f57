"""A peer says where it may be reached, and may be lying: whom does a node dial for that?

In virtual time. Whoever speaks is reached through a relay, so its word is all that there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, cast

from egtp import Address, CommRecord, Incoming, Node, NodeConfig, NodeId, SignedCommRecord, TCPStrat
from egtp.channel.sealed import ItemType, item
from egtp.engine.records import PUSHES_BURST_S, PUSHES_PER_S
from egtp.engine.searching import HEARD_AGAIN_S, HEARD_BURST_S, HEARD_PER_S
from egtp.events import Dialling, Event
from egtp.paths.path import Path
from egtp.reaching.peer import Peer
from egtp.values.contact import Contact
from tests.lab import LATENCY_S, Lab, in_lab
from tests.node.at_hand import engine_of

VICTIM: Final = "5.99.0.1"
"""Where nobody is who was ever asked."""


class World(Lab):
    """A listener behind a relay, and somebody who talks to it through that relay."""

    async def begin(self) -> None:
        self.events: list[Event] = []
        relay = await self.node(relay_server=True)
        self.listener = await self.hidden(relay, observer=self.events.append)
        self.speaker = await self.asker(self.listener)
        await self.query(self.speaker, self.listener.node_id)
        self.network.host("victim", VICTIM)
        self.sequence = self.speaker.record.sequence

    @property
    def engine(self) -> Any:
        return engine_of(self.listener)

    @property
    def heard(self) -> Any:
        """What the listener knows of the speaker."""
        return self.engine.book.find(self.speaker.node_id)

    @property
    def dialled(self) -> list[Address]:
        return [event.address for event in self.events if isinstance(event, Dialling)][1:]

    def lie(self, *ports: int) -> SignedCommRecord:
        """A record that names the victim, newer than all before."""
        self.sequence += 1
        content = self.speaker.record.content
        assert content is not None
        there = tuple(TCPStrat(Address.parse(f"{VICTIM}:{port}")) for port in ports)
        moved = CommRecord(content.expiry_unix_s, content.incarnation, content.channels, there)
        return SignedCommRecord.sign(self.speaker.identity, self.sequence, moved)

    async def push(self, record: SignedCommRecord, by: str = "relayed") -> None:
        engine = engine_of(self.speaker)
        path = getattr(engine.book.find(self.listener.node_id), by)
        data = item(ItemType.RECORD, record.encode())
        await self.on(self.speaker, lambda: path.queue_control(data))
        await asyncio.sleep(10 * LATENCY_S)
        assert self.heard.record == record

    async def want(self) -> None:
        await self.on(self.listener, lambda: self.listener.add_contact(self.speaker.record))

    async def on(self, node: Node, do: Callable[[], object]) -> None:
        """Do it on the node's machine."""

        async def done() -> None:
            do()

        await self.hosts[node].run(done())


def play(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def whole(world: World) -> None:
        await world.begin()
        await story(world)

    in_lab(World, whole)


def test_nobody_is_dialled_at_the_word_of_a_stranger() -> None:
    async def story(world: World) -> None:
        for port in range(1, 50):
            await world.push(world.lie(port, port + 100))
            await asyncio.sleep(1 / PUSHES_PER_S)  # sooner, the next one would not be taken
        await asyncio.sleep(60)
        assert world.dialled == []

    play(story)


def test_nobody_is_dialled_to_give_a_stranger_the_replies_that_it_left_behind() -> None:
    """It asks for more than it reads, says where else it is, and hangs up."""

    async def story(world: World) -> None:
        direct = await world.node(observer=world.events.append)

        async def much(_: Incoming) -> bytes:
            return bytes(400_000)

        direct.handle("much", much)
        slow = NodeConfig(receive_bytes_per_s=1000.0)
        world.speaker = await world.asker(direct, config=slow)
        world.listener = direct
        await world.query(world.speaker, direct.node_id)
        asked = [await world.open_query(world.speaker, direct.node_id, "much") for _ in range(20)]
        world.sequence = world.speaker.record.sequence
        await world.push(world.lie(1, 2), by="direct")
        assert world.heard.direct.outbox.waiting_bytes
        for query in asked:
            query.cancel()
        world.hosts.pop(world.speaker).kill()
        await asyncio.sleep(30)
        assert [event for event in world.events if isinstance(event, Dialling)][1:] == []
        assert direct.counters["reply kept until its asker comes"]

    play(story)


def test_nobody_is_dialled_since_a_stranger_says_that_it_does_not_know_a_session() -> None:
    async def story(world: World) -> None:
        def said() -> None:
            world.engine.session_unknown(world.heard.relayed)

        await world.push(world.lie(1, 2))
        await world.on(world.listener, said)
        await asyncio.sleep(10)
        assert world.dialled == []
        assert world.listener.counters["unknown-session note: of a stranger"] == 1
        await world.want()
        await world.on(world.listener, said)
        await asyncio.sleep(10)
        assert len(world.dialled) == 2

    play(story)


def test_of_records_that_a_peer_pushes_so_many_are_verified() -> None:
    """To sign one takes less time than to verify it."""

    async def story(world: World) -> None:
        lies = [world.lie(port) for port in range(1, 41)]
        engine = engine_of(world.speaker)
        path = engine.book.find(world.listener.node_id).relayed
        for lie in lies:
            data = item(ItemType.RECORD, lie.encode())
            await world.on(world.speaker, partial(path.queue_control, data))
        await asyncio.sleep(1)
        too_soon = world.listener.counters["dropped: pushed record, too soon after others"]
        assert 0 < len(lies) - too_soon <= PUSHES_BURST_S * PUSHES_PER_S + 1
        assert world.heard.record == lies[len(lies) - too_soon - 1]
        await asyncio.sleep(2 / PUSHES_PER_S)
        await world.push(world.lie(200))

    play(story)


def test_at_the_word_of_somebody_wanted_one_search_is_made_in_ten_seconds() -> None:
    """And nothing is lost by that: in the end it is the newest that is tried."""

    async def story(world: World) -> None:
        await world.want()
        began_s = world.now_s
        while world.now_s - began_s < 3.5 * HEARD_AGAIN_S:
            await world.push(world.lie(4000 + world.sequence % 1000))
            await asyncio.sleep(1.27 / PUSHES_PER_S)
        assert 3 <= len(world.dialled) <= 4
        newest = world.lie(77)
        await world.push(newest)
        assert len(world.dialled) <= 4
        await asyncio.sleep(HEARD_AGAIN_S + 2)
        assert world.dialled[-1] == newest.tcp[0].address
        assert len(world.dialled) <= 5
        await asyncio.sleep(60)
        assert len(world.dialled) <= 5

    play(story)


def test_so_many_searches_are_made_at_the_word_of_all_together() -> None:
    async def story(world: World) -> None:
        searching = world.engine.searching
        sought: list[Any] = []
        searching.seek_direct = sought.append
        peers = [Peer(NodeId(bytes([n]) * 20)) for n in range(200)]
        for peer in peers:
            peer.is_wanted, peer.hearsay = True, Contact.of_record(world.lie(1), 0.0)
            peer.relayed = cast("Path", object())
            searching.heard_where(peer)
        at_once = int(HEARD_PER_S * HEARD_BURST_S) + 1
        assert sought == peers[:at_once]
        assert set(peers) <= set(world.engine.book.watched), "the others have their turn"
        for peer in peers:
            searching._seek_direct_if_due(peer, searching._host.now() + HEARD_BURST_S)
        assert sought == peers[: 2 * at_once - 1]
        world.engine.book.watched.clear()
        del searching.seek_direct

    play(story)


def test_a_wanted_peer_that_can_be_reached_directly_from_now_on_is_dialled_at_once() -> None:
    async def story(world: World) -> None:
        await world.want()
        host = world.hosts[world.speaker]
        await host.run(world.speaker.listen(f"{host.addresses[0]}:4000"))
        await asyncio.sleep(10 * LATENCY_S)
        assert world.heard.direct is not None
        assert world.heard.direct.dialled

    play(story)


def test_nobody_is_connected_to_at_the_word_of_a_peer_after_it_was_disconnected() -> None:
    """Somebody listens there and keeps the listener waiting, to let itself in later."""

    async def story(world: World) -> None:
        taken = list[asyncio.StreamWriter]()  # kept: a writer that nobody keeps is closed
        victim = world.network.hosts["victim"]
        await victim.run(asyncio.start_server(lambda _, writer: taken.append(writer), VICTIM, 4000))
        await world.want()
        await world.push(world.lie(4000))
        await asyncio.sleep(10 * LATENCY_S)
        assert len(taken) == world.engine.channels.dialling == 1
        await world.hosts[world.listener].run(world.listener.disconnect(world.speaker.node_id))
        await asyncio.sleep(LATENCY_S)
        assert world.engine.channels.dialling == 0
        assert world.heard.direct_search is None
        taken[0].close()

    play(story)


def test_a_pushed_record_does_not_end_the_back_off_of_an_address() -> None:
    async def story(world: World) -> None:
        await world.want()
        backoff, now = world.engine.dialler.backoff, world.engine.now
        address = Address.parse(f"{VICTIM}:9")
        backoff.failed(address, now())
        await world.push(world.lie(9))
        assert backoff.remaining_s(address, now()) > 0
        assert world.dialled == []

    play(story)


def test_a_strangers_handshake_does_not_end_it_and_that_of_a_wanted_peer_does() -> None:
    async def story(world: World) -> None:
        address = Address.parse(f"{VICTIM}:9")
        backoff = world.engine.dialler.backoff
        backoff.failed(address, world.engine.now())
        await world.on(world.listener, lambda: world.engine.learned_record(world.lie(9)))
        assert backoff.remaining_s(address, world.engine.now()) > 0
        await world.want()
        await world.on(world.listener, lambda: world.engine.learned_record(world.lie(9)))
        assert backoff.remaining_s(address, world.engine.now()) == 0

    play(story)

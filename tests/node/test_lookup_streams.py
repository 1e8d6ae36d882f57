"""A lookup that tells what it finds while it goes on is dialled while it goes on (R7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from egtp import (
    AttemptReason,
    FastFail,
    Identity,
    LookupFailed,
    LookupFailure,
    MemoryLookup,
    Node,
    NodeId,
    SignedCommRecord,
)
from egtp.events import Dialling, Event
from egtp.reaching.shared_lookup import SharedLookups
from egtp.values.comm_record import CommRecord
from egtp.values.comm_strat import Address, RelayStrat, TCPStrat
from tests.lab import LATENCY_S, Lab, in_lab
from tests.node.at_hand import engine_of

WALK_S = 5.0


class Walking(MemoryLookup):
    """A lookup service that finds records one by one, and goes on for a while after the last."""

    def __init__(self, *found: tuple[float, SignedCommRecord]) -> None:
        """``found`` are records, and how long each takes to be found after the one before it."""
        super().__init__()
        self.found = found
        self.asked_for: list[int] = []
        """Above which sequence, each time."""
        self.walks_ended = 0
        """How often it has come to its own end."""
        self.open = 0

    async def resolve(
        self, peer_id: NodeId, *, newer_than: int = 0, fresh: bool = False
    ) -> SignedCommRecord:
        raise AssertionError("what streams is asked for a stream")

    async def resolve_stream(
        self, peer_id: NodeId, *, newer_than: int = 0
    ) -> AsyncGenerator[SignedCommRecord, None]:
        self.asked_for.append(newer_than)
        self.open += 1
        told = newer_than
        try:
            for after_s, record in self.found:
                await asyncio.sleep(after_s)
                if record.sequence > told:
                    told = record.sequence
                    yield record
            await asyncio.sleep(WALK_S)
            self.walks_ended += 1
        finally:
            self.open -= 1
        if told == newer_than:
            raise LookupFailed(LookupFailure.SUPERSEDED)


class World(Lab):
    """An asker that logs whom it dials, and a peer that has moved."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.dials: list[tuple[float, str]] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, Dialling):
            self.dials.append((round(self.now_s, 3), str(event.address)))

    async def seeker(self, lookup: Walking) -> Node:
        return await self.asker(lookup=lookup, observer=self.observe)

    async def moved(self) -> tuple[Node, SignedCommRecord]:
        """A peer, and an old record of it, of an address where nobody answers."""
        before = await self.node()
        old = self.records[before]
        self.hosts.pop(before).crash()
        after = await self.node(identity=before.identity)
        assert after.record.sequence > old.sequence
        return after, old


def play(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    in_lab(World, story)


def test_the_first_record_is_dialled_before_the_lookup_ends() -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        lookup = Walking((0.2, peer.record))
        asker = await world.seeker(lookup)
        began_s = world.now_s
        assert await world.query(asker, peer.node_id) == b"x"
        assert world.dials == [(round(began_s + 0.2, 3), peer.listening[0])]
        assert world.now_s - began_s == pytest.approx(0.2 + 6 * LATENCY_S, abs=0.01)
        assert (lookup.open, lookup.walks_ended) == (0, 0), "the search was ended with the need"

    play(story)


@pytest.mark.parametrize("newer_after_s", [0.1, 1.0])
def test_a_stale_first_record_costs_no_query_and_no_timeout(newer_after_s: float) -> None:
    """Its address is silent. The newer one is dialled as soon as it is found, beside it."""

    async def story(world: World) -> None:
        peer, old = await world.moved()
        lookup = Walking((0.2, old), (newer_after_s, peer.record))
        asker = await world.seeker(lookup)
        began_s = world.now_s
        assert await world.query(asker, peer.node_id) == b"x"
        stagger_s = asker.config.stagger_s
        found_s = began_s + 0.2 + max(newer_after_s, stagger_s + newer_after_s)
        assert world.dials[0] == (round(began_s + 0.2, 3), str(old.tcp[0].address))
        assert world.dials[1][1] == peer.listening[0]
        assert world.dials[1][0] <= found_s + 0.001
        assert world.now_s <= found_s + 6 * LATENCY_S + 0.01, "the old address was not waited for"
        assert lookup.asked_for == [0]

    play(story)


def test_what_is_right_at_once_is_not_asked_for_further() -> None:
    """A service that knows the answer by heart need not ask around for the sake of one dial."""

    async def story(world: World) -> None:
        peer = await world.node()

        class ByHeart(Walking):
            async def resolve_stream(
                self, peer_id: NodeId, *, newer_than: int = 0
            ) -> AsyncGenerator[SignedCommRecord, None]:
                yield peer.record
                raise AssertionError("nobody wanted more")

        asker = await world.seeker(ByHeart())
        assert await world.query(asker, peer.node_id) == b"x"

    play(story)


def test_a_known_address_that_is_silent_is_not_waited_for_before_a_newer_one_is_looked_up() -> None:
    async def story(world: World) -> None:
        peer, old = await world.moved()
        lookup = Walking((0.1, peer.record))
        asker = await world.seeker(lookup)
        asker.add_contact(old)
        began_s, stagger_s = world.now_s, asker.config.stagger_s
        assert await world.query(asker, peer.node_id) == b"x"
        assert world.dials == [
            (round(began_s, 3), str(old.tcp[0].address)),
            (round(began_s + stagger_s + 0.1, 3), peer.listening[0]),
        ]
        assert world.now_s - began_s == pytest.approx(stagger_s + 0.1 + 6 * LATENCY_S, abs=0.01)
        assert lookup.asked_for == [old.sequence]

    play(story)


def test_a_known_address_that_answers_in_its_stagger_is_not_looked_up() -> None:
    async def story(world: World) -> None:
        peer, lookup = await world.node(), Walking()
        asker = await world.seeker(lookup)
        asker.add_contact(peer.record)
        assert await world.query(asker, peer.node_id) == b"x"
        await asyncio.sleep(1)
        assert lookup.asked_for == []

    play(story)


def test_what_failed_is_looked_up_anew_and_only_newer_records_are_asked_for() -> None:
    async def story(world: World) -> None:
        peer, old = await world.moved()
        await world.close(peer)
        newest = world.records[peer]
        lookup = Walking((0.1, old), (0.1, newest))
        asker = await world.seeker(lookup)
        with pytest.raises(FastFail) as failed:
            await world.query(asker, peer.node_id)
        assert lookup.asked_for == [0, newest.sequence]
        assert [attempt.reason for attempt in failed.value.attempts] == [
            AttemptReason.REFUSED,
            AttemptReason.SILENT,
            AttemptReason.SUPERSEDED,
        ]
        assert lookup.open == 0

    play(story)


def test_a_lookup_that_finds_something_and_never_ends_is_bounded() -> None:
    async def story(world: World) -> None:
        peer = await world.gone()
        lookup = Walking((0.1, world.records[peer]), (1000.0, world.records[peer]))
        asker = await world.seeker(lookup)
        began_s = world.now_s
        with pytest.raises(FastFail) as failed:
            await world.query(asker, peer.node_id, hard_timeout_s=60)
        first, second = failed.value.attempts
        assert (first.reason, second.reason) == (
            AttemptReason.REFUSED,
            AttemptReason.LOOKUP_SILENT,
        )
        assert world.now_s - began_s == pytest.approx(2 * asker.config.lookup_timeout_s, abs=0.1)
        assert lookup.open == 0

    play(story)


def test_whoever_signs_ever_newer_records_has_few_addresses_dialled() -> None:
    """Each names eight addresses of somebody else; whoever owns the nodes of a DHT around his own
    peerId has each of them show another one."""

    async def story(world: World) -> None:
        victim = await world.gone()
        host = world.records[victim].tcp[0].address.ip
        who = Identity.generate(world.network.host("elsewhere", "9.0.0.1").entropy)

        def record(sequence: int) -> SignedCommRecord:
            ports = range(5000 + 8 * sequence, 5008 + 8 * sequence)
            victims = tuple(TCPStrat(Address(host, port)) for port in ports)
            expiry = int(world.network.story.unix_time()) + 600
            content = CommRecord(expiry, bytes(8), ((1, who.channel_key),), victims)
            return SignedCommRecord.sign(who, sequence, content)

        lookup = Walking(*((0.1, record(sequence)) for sequence in range(1, 121)))
        asker = await world.seeker(lookup)
        with pytest.raises(FastFail) as failed:
            await world.query(asker, who.node_id)
        assert 8 <= len(world.dials) <= 8 * 8
        assert {one.reason for one in failed.value.attempts} == {AttemptReason.REFUSED}
        assert lookup.open == 0

    play(story)


def test_cancelling_a_query_ends_the_lookup_and_the_dial() -> None:
    async def story(world: World) -> None:
        peer, old = await world.moved()
        lookup = Walking((0.1, old))
        asker = await world.seeker(lookup)
        query = asyncio.ensure_future(world.query(asker, peer.node_id))
        await asyncio.sleep(1)
        query.cancel()
        await asyncio.wait([query])
        await asyncio.sleep(0)
        engine = engine_of(asker)
        assert (lookup.open, len(engine.comms)) == (0, 0)

    play(story)


def behind(relay: Node, who: Identity, unix_s: float) -> SignedCommRecord:
    """A record that leads through a relay of which it says no address."""
    through = RelayStrat(relay.identity.key, 1, relay.identity.channel_key, ())
    content = CommRecord(int(unix_s) + 600, bytes(8), ((1, who.channel_key),), (through,))
    return SignedCommRecord.sign(who, 5, content)


def test_a_peer_that_is_searched_for_twice_at_once_is_looked_up_once() -> None:
    """As somebody to ask, and as the relay to somebody else; each gets on with what is found."""

    async def story(world: World) -> None:
        relay = await world.node()
        lookup = Walking((0.5, relay.record))
        asker = await world.seeker(lookup)
        who = Identity.generate(world.network.host("elsewhere", "9.0.0.1").entropy)
        asker.add_contact(behind(relay, who, world.network.story.unix_time()))

        async def through() -> str:
            with pytest.raises(FastFail) as failed:
                await world.query(asker, who.node_id)
            return str(failed.value.attempts[0].reason)

        began_s = world.now_s
        other = asyncio.ensure_future(through())
        assert await world.query(asker, relay.node_id) == b"x"
        assert world.now_s - began_s < 0.7
        assert lookup.asked_for == [0, 5], "of the relay once, and of who is behind it"
        await other
        assert lookup.open == 0

    play(story)


@pytest.mark.parametrize("who_goes_first", ["the one who began it", "the one who joined"])
def test_a_shared_lookup_goes_on_for_who_is_left_and_ends_with_the_last(
    who_goes_first: str,
) -> None:
    async def story(world: World) -> None:
        peer = await world.node()
        lookup = Walking((0.5, peer.record))
        learned: list[SignedCommRecord] = []
        lookups = SharedLookups(lookup, learned.append, 10.0)
        told: list[bool] = []

        async def seeks() -> None:
            async with lookups.of(peer.node_id, 0) as shared:
                told.append(await shared.more(0))
                await asyncio.sleep(60)

        first = asyncio.ensure_future(seeks())
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(seeks())
        await asyncio.sleep(0.1)
        gone, stays = (first, second) if "began" in who_goes_first else (second, first)
        gone.cancel()
        await asyncio.sleep(1.0)
        assert (told, learned, lookup.asked_for) == ([True], [peer.record], [0])
        assert (len(lookups), lookup.open) == (1, 1)
        stays.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert (len(lookups), lookup.open) == (0, 0)

    play(story)


def test_a_lookup_is_read_no_faster_than_somebody_wants_it() -> None:
    async def story(world: World) -> None:
        peer, old = await world.moved()
        learned: list[SignedCommRecord] = []
        lookups = SharedLookups(Walking((0.1, old), (0.1, peer.record)), learned.append, 60.0)
        async with lookups.of(peer.node_id, 0) as shared:
            await asyncio.sleep(1.0)
            assert learned == []
            assert await shared.more(0)
            await asyncio.sleep(1.0)
            assert learned == [old]
            assert await shared.more(1)
            assert learned == [old, peer.record]
            assert not await shared.more(2)

    play(story)

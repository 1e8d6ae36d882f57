"""A record that nobody stores is tried again, ever more slowly, and who runs the node is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

import pytest

from egtp import (
    CommRecord,
    Environment,
    Identity,
    LookupFailed,
    LookupRace,
    LookupService,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
    PublishFailed,
)
from egtp.errors import LookupFailure, NodeClosed
from egtp.events import Event, Observer, RecordNotPublished, RecordPublished
from egtp.lookup import Published
from egtp.values.comm_record import SignedCommRecord
from simulations.virtual import Network, simulate
from tests.lab import Lab, in_lab

FULL = PublishFailed("the table is full")


class Failing:
    """A lookup service that is told which publishes fail, and how; None hangs."""

    def __init__(self, *outcomes: BaseException | Published | str | None) -> None:
        self.outcomes = list(outcomes)
        self.tried_s: list[float] = []

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        raise LookupFailed(LookupFailure.NOT_FOUND)

    async def publish(self, record: SignedCommRecord) -> Published:
        self.tried_s.append(asyncio.get_running_loop().time())
        outcome = self.outcomes.pop(0) if self.outcomes else Published(8, 8)
        if outcome is None:
            await asyncio.Event().wait()
        if isinstance(outcome, BaseException):
            raise outcome
        return cast("Published", outcome)


def play(
    lookup: LookupService,
    for_s: float,
    observer: Observer | None = None,
    moves: Sequence[float] = (),
    bugs: int = 0,
) -> list[object]:
    """What the statistics say of the record after each ``moves`` seconds, and at the end; when the
    loop was told of so many bugs."""

    async def story(network: Network) -> list[object]:
        told: list[object] = []
        if bugs:
            network.loop.set_exception_handler(lambda _, context: told.append(context))
        host = network.host("host", "5.0.0.1")
        node = Node(
            Identity.generate(host.entropy),
            listen="5.0.0.1:4000",
            lookup=lookup,
            config=NodeConfig(lookup_timeout_s=4),
            observer=observer,
            environment=Environment(host.elapsed, host.unix_time, host.entropy),
        )
        await host.run(node.start())
        said, port = [], 4001
        for pause_s in moves:
            await asyncio.sleep(pause_s)
            said.append(node.statistics()["record_not_published"])
            await host.run(node.listen(f"5.0.0.1:{port}"))
            port += 1
        await asyncio.sleep(for_s)
        said.append(node.statistics()["record_not_published"])
        await host.run(node.close())
        assert len(told) == bugs
        return said

    return simulate(story).value


def test_the_pauses_grow_from_half_a_second_to_a_minute() -> None:
    events: list[Event] = []
    lookup = Failing(*[FULL] * 10)
    assert play(lookup, 300, events.append) == [None]
    told = [event for event in events if isinstance(event, RecordNotPublished)]
    pauses = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert [event.again_s for event in told] == pauses
    walked = [later - s for s, later in zip(lookup.tried_s, lookup.tried_s[1:], strict=False)]
    assert walked == pytest.approx(pauses, abs=0.01)
    assert {event.reason for event in told} == {"the table is full"}
    (stored,) = [event for event in events if isinstance(event, RecordPublished)]
    assert stored.record is told[-1].record


def test_after_a_success_the_pauses_begin_anew() -> None:
    events: list[Event] = []
    lookup = Failing(FULL, FULL, Published(8, 8), FULL)
    assert play(lookup, 60, events.append, moves=[30.0]) == [None, None]
    told = [event.again_s for event in events if isinstance(event, RecordNotPublished)]
    assert told == [0.5, 1.0, 0.5]


def test_what_one_of_several_services_has_not_stored_is_published_again_after_a_minute() -> None:
    """As in the DHT of IPv6, while that leads nowhere; and ever later, as long as it does."""
    lookup = Failing(*[Published(20, 20, failed=1)] * 2)
    assert play(lookup, 2000) == [None]
    first_s = lookup.tried_s[0]
    assert [s - first_s for s in lookup.tried_s] == pytest.approx([0, 60, 180], abs=0.01)


def test_a_change_is_published_without_the_pause() -> None:
    lookup = Failing(*[FULL] * 7)
    play(lookup, 10, moves=[40.0])
    assert lookup.tried_s[7] - lookup.tried_s[0] == pytest.approx(40.0, abs=0.01)


def test_a_service_that_hangs_does_not_keep_the_next_change_from_the_others() -> None:
    """As when a machine changes networks, where it has one address after the other."""
    hangs, works = Failing(*[None] * 4), Failing()
    play(LookupRace(hangs, works, publish_timeout_s=3.2), 10, moves=[30.0, 0.5])
    moved_s = [s - works.tried_s[0] for s in works.tried_s[1:]]
    assert moved_s[:2] == pytest.approx([30.0, 31.0], abs=0.01)


@pytest.mark.parametrize("back", [False, True])
def test_a_node_that_moves_all_the_time_says_so_ten_times_and_then_where_it_is_in_the_end(
    back: bool,
) -> None:
    async def story(network: Network) -> None:
        host = network.host("host", "5.0.0.1")
        node = Node(
            Identity.generate(host.entropy),
            listen="5.0.0.1:4000",
            lookup=MemoryLookup(host.unix_time),
            environment=Environment(host.elapsed, host.unix_time, host.entropy),
        )
        await host.run(node.start())
        said = {node.record.sequence}
        for port in range(4001, 4013):
            await host.run(node.listen(f"5.0.0.1:{port}"))
            said.add(node.record.sequence)
        assert len(said) == 11  # one of the start
        (before,) = node.record.tcp
        if back:  # Where its record says that it is: there is nothing to sign.
            await host.run(node.listen(str(before.address)))
        async with asyncio.timeout(12):
            await host.run(node.published())
        (way,) = node.record.tcp
        assert way.address.port == (before.address.port if back else 4012)
        await host.run(node.close())

    simulate(story)


def test_when_a_record_is_stored_again_the_relays_are_tried_again_without_the_pause() -> None:
    """Their pauses, too, have grown to a minute while the line was down; nothing on this machine
    shows that it is up again."""

    async def story(lab: Lab) -> None:
        relay, lookup = await lab.node(relay_server=True), Failing()
        hidden = await lab.hidden(relay, lookup=lookup)
        with lab.network.partition([lab.hosts[hidden]], [lab.hosts[relay]]):
            # The lease is lost on the way, and with it the record.
            lookup.outcomes += [FULL] * 10
            stored_again = len(lookup.tried_s) + 10
            await asyncio.sleep(240)
        async with asyncio.timeout(60):
            while not hidden.relays:
                await asyncio.sleep(0.1)
        assert lab.now_s - lookup.tried_s[stored_again] < 1

    in_lab(Lab, story)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (FULL, "the table is full"),
        (NodeClosed("start it first"), "start it first"),
        (None, "the lookup service did not answer in time"),
    ],
)
def test_without_an_observer_its_begin_and_end_are_logged_and_the_statistics_tell_meanwhile(
    outcome: Exception | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "egtp"):
        said = play(Failing(*[outcome] * 4), 120, moves=[4.25])
    assert said == [reason, None]
    failed, stored = [record.message for record in caplog.records if record.name == "egtp"]
    assert failed.endswith(f"others may not find it: {reason}; trying again")
    assert stored.endswith("is stored now")


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("forgotten", "TypeError: publish() must return a Published, not 'forgotten'"),
        (OSError("the database is gone"), "OSError: the database is gone"),
        (asyncio.CancelledError(), "RuntimeError: it was cancelled, but not by its caller"),
    ],
)
def test_a_service_with_a_bug_ends_nothing_and_the_loop_is_told(
    outcome: BaseException | str, reason: str
) -> None:
    events: list[Event] = []
    lookup = Failing(outcome)
    told = play(lookup, 60, events.append, bugs=1)
    assert told == [None]
    assert len(lookup.tried_s) == 2
    assert [e.reason for e in events if isinstance(e, RecordNotPublished)] == [reason]


def test_a_search_for_the_own_record_that_is_cancelled_from_within_ends_nothing() -> None:
    class CancelledOnce(Failing):
        async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
            raise asyncio.CancelledError

    lookup = CancelledOnce()
    assert play(lookup, 10) == [None]
    assert len(lookup.tried_s) == 1


def test_the_own_record_is_no_sign_of_a_copy() -> None:
    """A node that is alone in its network holds its record itself, and nobody else does."""

    class Alone(MemoryLookup):
        async def publish(self, record: SignedCommRecord) -> Published:
            await super().publish(record)
            raise PublishFailed("no node of the network answers")

    async def story(network: Network) -> tuple[dict[str, int], bool]:
        host = network.host("host", "5.0.0.1")
        environment = Environment(host.elapsed, host.unix_time, host.entropy)
        node = Node(
            Identity.generate(host.entropy),
            listen="5.0.0.1:4000",
            lookup=Alone(host.unix_time),
            environment=environment,
        )
        await host.run(node.start())
        before = node.record
        await asyncio.sleep(60)
        unchanged = node.record == before
        await host.run(node.close())
        return dict(node.counters), unchanged

    counters, unchanged = simulate(story).value
    assert (counters, unchanged) == ({"publish failed": 7}, True)


# What a user meets who waits for it


def test_a_cancelled_wait_for_a_publish_disturbs_no_other() -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node(lookup=Failing(FULL))
        first, second = (lab.hosts[node].spawn(node.published()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(4):
            assert (await second).stored == 8

    in_lab(Lab, story)


def test_a_higher_sequence_that_is_found_only_later_is_gone_above() -> None:
    """The lookup service could not be asked when the node started."""

    class LateToAnswer(MemoryLookup):
        asked = 0

        async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
            self.asked += 1
            if self.asked == 1:
                raise LookupFailed(LookupFailure.NO_RESPONSES)
            return await super().resolve(peer_id, newer_than=newer_than)

    async def story(lab: Lab) -> None:
        late = LateToAnswer(lab.network.story.unix_time)
        who = Identity.generate(lab.host().entropy)
        content = CommRecord(
            int(lab.network.story.unix_time()) + 3600, bytes(8), ((1, who.channel_key),)
        )
        await late.publish(SignedCommRecord.sign(who, 2**40, content))
        node = await lab.node(identity=who, lookup=late)
        async with asyncio.timeout(4):
            await lab.hosts[node].run(node.published())
        assert (await late.resolve(who.node_id)).encode() == node.record.encode()

    in_lab(Lab, story)


def test_a_record_signed_while_the_clock_was_ahead_is_signed_again_when_it_is_right() -> None:
    """As every node of the DHT, this service refuses what ends too late."""
    ahead_s = 30 * 86_400.0

    class Strict(MemoryLookup):
        refused = 0

        async def publish(self, record: SignedCommRecord) -> Published:
            if record.expiry_unix_s > self._unix_time() + 86_400:
                self.refused += 1
                raise PublishFailed("it ends too late")
            return await super().publish(record)

    async def story(lab: Lab) -> None:
        strict, host = Strict(lab.network.story.unix_time), lab.host()
        host.step_clock(ahead_s)
        node = await lab.node(on=host, lookup=strict)
        await asyncio.sleep(0.1)
        assert strict.refused == 1
        host.step_clock(-ahead_s)
        async with asyncio.timeout(4):
            await host.run(node.published())
        assert node.record.expiry_unix_s <= host.unix_time() + node.config.record_lifetime_s

    in_lab(Lab, story)

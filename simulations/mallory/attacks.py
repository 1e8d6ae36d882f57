"""Attacks: Mallory's deliberate attempts, by name.

An attack is a story in a small world. Its assertions check that it got as far as intended; the
judge decides whether Mallory has won by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, NamedTuple

from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import Identity
from simulations.checkers import Violation
from simulations.mallory.line import Recorded
from simulations.mallory.relay import CrookedRelay, Manner
from simulations.mallory.small_world import Conditions, SmallWorld
from simulations.mallory.xray import XRay
from simulations.virtual import Network, run_in

__all__ = ["ATTACKS", "Attack", "attack"]

HOURS_S: Final = 3 * 3600.0
RELAYED: Final = Conditions(bob_listens=False, relays=1)


class Attack(NamedTuple):
    conditions: Conditions
    story: Callable[[SmallWorld], Coroutine[Any, Any, None]]


def attack(name: str) -> list[Violation]:
    """Play one of :data:`ATTACKS`. Returns the violations that Mallory achieved."""
    conditions, story = ATTACKS[name]
    xray = XRay()
    network = Network(seed=1)

    async def whole() -> list[Violation]:
        async with SmallWorld.opened(network, conditions, xray) as world:
            watching = asyncio.create_task(_watch(world))
            await story(world)
            watching.cancel()
            world.check()
            return world.judge.violations

    with xray.looking():
        return run_in(network, whole(), limit_s=86_400.0, unreal=False).value


async def _watch(world: SmallWorld) -> None:
    while True:
        await asyncio.sleep(0.25)
        world.check()


# Late copies


async def _second_sealed_copy(world: SmallWorld) -> None:
    """The relay keeps the first copy of a query until everything is answered and acknowledged."""
    alice, bob, relay = *world.people, _relay(world)
    await _talk(world)
    relay.manner = Manner.HOLD
    question = world.ask(alice, bob, "echo", timeout_s=60)
    await asyncio.sleep(1)
    relay.manner = Manner.HONEST
    await asyncio.sleep(9)
    assert question.outcome == "reply"
    await _talk(world)
    relay.release()
    await asyncio.sleep(2)
    assert bob.node.counters["query not run: settled"] >= 1 or len(question.ran) > 1


async def _lost_answer(world: SmallWorld) -> None:
    """The answer is lost with its connection, and the query comes again over the next one."""
    alice, bob = world.people
    await _talk(world)
    for flow in world.line.live:
        if flow.stream.host is bob.host:
            world.line.hold(flow)
    question = world.ask(alice, bob, "echo")
    await asyncio.sleep(0.5)
    assert len(question.ran) == 1
    _kill_all(world)
    await asyncio.sleep(5)
    assert question.outcome == "reply"


async def _restarted_after_it_ran(world: SmallWorld) -> None:
    """The answer is lost, and a restart has made the responder forget it."""
    alice, bob = world.people
    await _talk(world)
    for flow in world.line.live:
        if flow.stream.host is bob.host:
            world.line.hold(flow)
    question = world.ask(alice, bob, "echo")
    await asyncio.sleep(0.5)
    assert len(question.ran) == 1
    _kill_all(world)
    await bob.restart(killed=False, clock_offset_s=-86_400.0)
    alice.add_contact(bob)
    await asyncio.sleep(15)
    assert question.outcome == "OutcomeUnknown" or len(question.ran) > 1


# Replayed initiations


async def _clock_ahead(world: SmallWorld) -> None:
    """Alice's clock is ahead by as much as Bob tolerates. So her initiation still looks fresh when
    he has forgotten that he accepted it: her query is past its lifetime, and his record is signed
    anew. Remembering it for as long as clocks may differ, then trusting them, was not enough."""
    alice, bob = world.people
    alice.host.step_clock(55)
    question = world.ask(alice, bob, "echo", early=True, timeout_s=5)
    await asyncio.sleep(1)
    assert question.outcome == "reply"
    assert bob.node.counters["early data accepted"] == 1
    first = _initiations(world)[-1]
    _kill_all(world)
    alice.host.crash()
    world.abandoned(alice)
    for _ in range(2):
        await _in_peace(world, 20)
        bob.sign_anew()
    await _in_peace(world, 60)
    world.mallory.visit(first.endpoint, [first.packet])
    await asyncio.sleep(2)
    assert bob.node.counters["early data challenged"] == 1 or len(question.ran) > 1


async def _kept_for_hours(world: SmallWorld) -> None:
    """An initiation with early data, replayed by a relay hours later."""
    alice, bob, relay = *world.people, _relay(world)
    question = world.ask(alice, bob, "echo", early=True)
    await asyncio.sleep(1)
    assert question.ran
    assert bob.node.counters["early data accepted"] == 1
    first = next(one for one in relay.recorded if one.is_initiation)
    alice.host.crash()
    world.abandoned(alice)
    await _in_peace(world, HOURS_S)
    # Even with his clock set back to then, it must not be accepted.
    bob.host.step_clock(-HOURS_S)
    relay.give(first)
    world.mallory.visit(bob.endpoint, [first.packet])
    await asyncio.sleep(2)
    assert bob.node.counters["early data challenged"] == 1 or len(question.ran) > 1


async def _data_kept_for_hours(world: SmallWorld) -> None:
    """Packets of a live session, delivered hours later, and those of dead ones."""
    alice, bob, relay = *world.people, _relay(world)
    await _talk(world)
    relay.manner = Manner.HOLD
    question = world.ask(alice, bob, "echo", timeout_s=5)
    await asyncio.sleep(6)
    relay.manner = Manner.HONEST
    for _ in range(180):
        await asyncio.sleep(HOURS_S / 180)
        await _talk(world)
    relay.release()
    await asyncio.sleep(2)
    assert question.ran == []
    for passed in list(relay.recorded):
        relay.give(passed)
    await asyncio.sleep(2)
    await _talk(world)


async def _against_live_sessions(world: SmallWorld) -> None:
    """More recorded initiations than a peer has places for, while both have a live session."""
    alice, bob = world.people
    for _ in range(3):
        question = world.ask(alice, bob, "echo", early=True)
        await asyncio.sleep(0.5)
        assert question.outcome == "reply"
        _kill_all(world)
        await asyncio.sleep(0.5)
    await _talk(world)
    engine = bob.node._engine
    peer = None if engine is None else engine.book.find(alice.node_id)
    assert peer is not None
    live = peer.direct
    assert live is not None
    for _ in range(3):
        for first in _initiations(world):
            world.mallory.visit(first.endpoint, [first.packet])
        await asyncio.sleep(0.2)
        world.check()
    await _talk(world)
    assert peer.direct is live or world.judge.violations
    await asyncio.sleep(8)


async def _first_from_her_own_socket(world: SmallWorld) -> None:
    """Bob gets Alice's packet from Mallory first, and from Alice afterwards."""
    alice, bob = world.people
    world.line.hold_new = True
    # One is answered at once, to Mallory; the other after Alice has asked again.
    questions = [
        world.ask(alice, bob, "echo", early=True),
        world.ask(alice, bob, "slow", b"\x14", early=True),
    ]
    await asyncio.sleep(0.3)
    world.mallory.visit(bob.endpoint, [_initiations(world)[-1].packet])
    await asyncio.sleep(0.3)
    assert [len(question.ran) for question in questions] == [1, 1]
    world.line.release_all()
    await asyncio.sleep(5)
    assert [question.outcome for question in questions] == ["reply", "reply"]


# Lies


async def _unknown_key_share(world: SmallWorld) -> None:
    """Mallory's own record names Bob's channel key and address: a query meant for her must not be
    answered by him."""
    alice, bob = world.people
    await _talk(world)
    mallory = Identity.generate(world.mallory.host.entropy)
    unix_s = int(world.network.story.unix_time())
    strategy = TCPStrat(Address.parse(f"{bob.endpoint[0]}:{bob.endpoint[1]}"))
    content = CommRecord(
        expiry_unix_s=unix_s + 3600,
        incarnation=bytes(8),
        channels=((SUITE_AESGCM, bob.identity.channel_key),),
        strategies=(strategy,),
    )
    record = SignedCommRecord.sign(mallory, unix_s, content)
    alice.tell(record)
    await asyncio.sleep(0)
    for early in (True, False):
        # Meant for Mallory: if it reaches Bob, or gets any reply, that is wrong.
        question = world.ask(
            alice, alice, "echo", early=early, timeout_s=5, peer_id=mallory.node_id
        )
        await asyncio.sleep(7)
        assert question.outcome
        assert question.outcome != "reply"
        assert question.ran == []


async def _forged_notes(world: SmallWorld) -> None:
    """Forged "I do not know this session" notes, quoting packets that were sent, and others."""
    alice, bob, relay = *world.people, _relay(world)
    await _talk(world)
    initiations = 0
    for number in range(40):
        data = [one for one in relay.recorded if one.is_data]
        # Of the newest session, in alternating directions.
        for quoting in (True, False):
            relay.deny(data[-1 - number % 2], quoting=quoting)
        question = world.ask(alice, bob, "echo")
        await asyncio.sleep(0.5)
        assert question.outcome == "reply"
        initiations = sum(one.is_initiation for one in relay.recorded)
    # In 20 s: the first handshake, then at most five at once and one every 5 s.
    assert initiations <= 1 + 5 + 20 // 5


async def _note_about_a_recording(world: SmallWorld) -> None:
    """An initiation from Mallory's relay, then "I do not know this session", as Alice would truly
    say. Bob has no proof that she is alive, so he must not look her up and dial her for that."""
    alice, bob, relay = *world.people, _relay(world)
    relay.manner = Manner.HOLD
    question = world.ask(alice, bob, "echo", early=True)
    await asyncio.sleep(0.5)
    first = relay.held[0]
    alice.host.crash()
    world.abandoned(alice)
    relay.give(first)
    await asyncio.sleep(0.5)
    assert len(question.ran) == 1
    answers = [one for one in relay.recorded if one.is_data]
    assert {one.sender for one in answers} == {bob.node_id}
    for answer in answers:
        relay.deny(answer)
    await asyncio.sleep(1)


# Building blocks


def _relay(world: SmallWorld) -> CrookedRelay:
    assert world.crooked is not None
    return world.crooked


async def _talk(world: SmallWorld) -> None:
    """Alice asks Bob, and gets an answer."""
    question = world.ask(world.alice, world.bob, "echo")
    await asyncio.sleep(1)
    assert question.outcome == "reply"


async def _in_peace(world: SmallWorld, seconds: float) -> None:
    """Time passes, and nobody sends anything."""
    for _ in range(60):
        await asyncio.sleep(seconds / 60)
        world.check()


def _kill_all(world: SmallWorld) -> None:
    for flow in world.line.live:
        world.line.kill(flow)


def _initiations(world: SmallWorld) -> list[Recorded]:
    return [one for one in world.line.recorded if one.is_initiation and one.target == "bob"]


ATTACKS: Final = {
    "a second sealed copy, after everything was acknowledged": Attack(RELAYED, _second_sealed_copy),
    "a lost answer": Attack(Conditions(), _lost_answer),
    "a restart after the query ran": Attack(Conditions(), _restarted_after_it_ran),
    "an initiation of a peer whose clock is ahead": Attack(Conditions(), _clock_ahead),
    "a relay that keeps an initiation for hours": Attack(RELAYED, _kept_for_hours),
    "a relay that keeps data packets for hours": Attack(RELAYED, _data_kept_for_hours),
    "replayed initiations against live sessions": Attack(Conditions(), _against_live_sessions),
    "a held packet, first from her own socket": Attack(Conditions(), _first_from_her_own_socket),
    "a record with the channel key of another": Attack(Conditions(), _unknown_key_share),
    "forged notes that a session is unknown": Attack(RELAYED, _forged_notes),
    "a note about a session that only a recording asked for": Attack(
        replace(RELAYED, bob_knows_alice=False), _note_about_a_recording
    ),
}

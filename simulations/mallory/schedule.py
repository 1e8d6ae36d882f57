"""Schedules: what people do, and what Mallory does to them, step by step.

A step is a verb and three numbers, and every step is valid in every world, since the numbers choose
among the options of the moment. So schedules can be drawn from a seed, and reduced to the steps
that matter when Mallory has won.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from simulations.checkers import Violation
from simulations.mallory.line import Flow, Recorded
from simulations.mallory.relay import Manner, Passed
from simulations.mallory.small_world import LARGE_BYTES, Conditions, Party, SmallWorld
from simulations.mallory.xray import XRay
from simulations.virtual import Network, run_in

__all__ = ["NUMBER_MAX", "STEPS", "VERBS", "Played", "Step", "draw", "play"]

_T = TypeVar("_T")

NUMBER_MAX: Final = 999
"""The highest number of a step."""
WAITS_S: Final = (0.0, 0.005, 0.03, 0.1, 0.3, 1.0, 2.5, 4.5, 6.0) * 2 + (12.0, 35.0, 70.0, 150.0)
TIMEOUTS_S: Final = (0.5, 4.0, 10.0, 10.0, 30.0)
CLOCK_STEPS_S: Final = (-86_400.0, -3600.0, -61.0, -5.0, 5.0, 61.0, 3600.0, 86_400.0)
KINDS: Final = ("echo", "echo", "echo", "slow", "slow", "large", "late", "again", "nothing")
STEPS: Final = 24
"""Steps per schedule."""
END_S: Final = 8.0
"""Time after the last query, with Mallory out of the way, after which nothing may be left over."""


class Step(NamedTuple):
    verb: str
    a: int = 0
    b: int = 0
    c: int = 0

    def __str__(self) -> str:
        return f"{self.verb} {self.a} {self.b} {self.c}"


@dataclass(frozen=True, slots=True)
class Played:
    """The result of a schedule."""

    violations: tuple[Violation, ...]
    outcomes: Counter[str]
    ran: int
    checks: int
    digest: str


def draw(seed: int, steps: int = STEPS) -> list[Step]:
    """Draw a schedule from a seed."""
    rng = random.Random(f"{seed}/mallory's steps")
    verbs = [verb for verb, weight in WEIGHTS.items() for _ in range(weight)]
    numbers = range(NUMBER_MAX + 1)
    return [
        Step(rng.choice(verbs), rng.choice(numbers), rng.choice(numbers), rng.choice(numbers))
        for _ in range(steps)
    ]


def play(conditions: Conditions, steps: Sequence[Step], seed: int = 0) -> Played:
    """Play the steps in a new world, and check all invariants after each."""
    xray = XRay()
    network = Network(seed)

    async def story() -> Played:
        async with SmallWorld.opened(network, conditions, xray) as world:
            for step in steps:
                await VERBS[step.verb](world, step)
                await asyncio.sleep(0.001)
                world.check()
                if world.judge.violations:
                    break
            else:
                world.line.release_all()
                if world.crooked is not None:
                    world.crooked.manner = Manner.HONEST
                    world.crooked.release()
                while any(not question.outcome for question in world.judge.questions.values()):
                    await asyncio.sleep(1)
                    world.check()
                await asyncio.sleep(END_S)
                world.check()
            return _played(world)

    with xray.looking():
        return run_in(network, story(), limit_s=86_400.0, unreal=False).value


def _played(world: SmallWorld) -> Played:
    judge, questions = world.judge, world.judge.questions.values()
    return Played(
        tuple(judge.violations),
        Counter(question.outcome for question in questions),
        sum(len(question.ran) for question in questions),
        judge.checks,
        world.network.trace.digest,
    )


# People's actions


async def _ask(world: SmallWorld, step: Step) -> None:
    asker, target = _pair(world, step.a)
    if not asker.is_up:
        return
    kind = _pick(KINDS, step.b)
    size = (0, 0, 0, 3000, LARGE_BYTES)[step.b // 10 % 5]
    world.ask(
        asker,
        target,
        kind,
        bytes((step.c % 90,)) + bytes(size),
        early=(None, True, False, True)[step.c % 4],
        timeout_s=_pick(TIMEOUTS_S, step.c // 4),
        idempotent=kind == "again" and step.c % 2 == 0,
    )


async def _send(world: SmallWorld, step: Step) -> None:
    asker, target = _pair(world, step.a)
    if asker.is_up:
        world.send(asker, target, bytes(_pick((0, 100, LARGE_BYTES), step.b)))


async def _wait(_: SmallWorld, step: Step) -> None:
    await asyncio.sleep(_pick(WAITS_S, step.a))


async def _sign(world: SmallWorld, step: Step) -> None:
    """Somebody signs their record anew."""
    party = _pick(world.people, step.a)
    if party.is_up:
        party.sign_anew()


async def _introduce(world: SmallWorld, step: Step) -> None:
    """Somebody learns the other's current record."""
    asker, target = _pair(world, step.a)
    if asker.is_up and target.is_up:
        asker.add_contact(target)


# Events of their machines


async def _restart(world: SmallWorld, step: Step) -> None:
    party = _pick(world.people, step.a)
    offset_s = _pick((None, None, -86_400.0, -30.0, 3600.0), step.c)
    world.abandoned(party)
    await party.restart(killed=step.b % 2 == 0, clock_offset_s=offset_s)


async def _clock(world: SmallWorld, step: Step) -> None:
    _pick(world.people, step.a).host.step_clock(_pick(CLOCK_STEPS_S, step.b))


# Mallory's actions on the lines


async def _hold(world: SmallWorld, step: Step) -> None:
    if (flow := _flow(world, step.a)) is not None:
        world.line.hold(flow)


async def _hold_new(world: SmallWorld, step: Step) -> None:
    world.line.hold_new = step.a % 2 == 0


async def _release(world: SmallWorld, step: Step) -> None:
    holding = [flow for flow in world.line.live if flow.held is not None]
    if holding:
        count = None if step.b % 2 else 1 + step.b // 2 % 3
        world.line.release(_pick(holding, step.a), count)


async def _disturb(world: SmallWorld, step: Step) -> None:
    flow = _flow(world, step.a)
    if flow is None:
        return
    match step.b % 3:
        case 0:
            flow.drop += 1 + step.c % 2
        case 1:
            flow.duplicate += 1
        case _:
            flow.swap += 1


async def _kill(world: SmallWorld, step: Step) -> None:
    if (flow := _flow(world, step.a)) is not None:
        world.line.kill(flow)


async def _kill_all(world: SmallWorld, _: Step) -> None:
    for flow in list(world.line.flows.values()):
        if flow.is_alive:
            world.line.kill(flow)


async def _replay(world: SmallWorld, step: Step) -> None:
    """Replay an initiation from Mallory's own socket, with some of the frames that followed it."""
    firsts = [one for one in world.line.recorded if one.is_initiation]
    if not firsts:
        return
    first = firsts[-1 - step.a % len(firsts)]
    target = world.parties[step.b % len(world.parties)].endpoint
    endpoint = target if step.b % 5 == 0 else first.endpoint
    packets = [one.packet for one in _following(world, first)][: 1 + step.c % 4]
    world.mallory.visit(endpoint, packets)


async def _replay_any(world: SmallWorld, step: Step) -> None:
    """Send any single frame to anybody, over a new connection or an open one."""
    if not world.line.recorded:
        return
    packet = world.line.recorded[-1 - step.a % len(world.line.recorded)].packet
    open_visits = [visit for visit in world.mallory.visits if visit.is_open]
    if open_visits and step.c % 2:
        _pick(open_visits, step.c // 2).write([packet])
    else:
        world.mallory.visit(_pick(world.parties, step.b).endpoint, [packet])


def _following(world: SmallWorld, first: Recorded) -> list[Recorded]:
    """A recorded frame, and those after it in the same direction of its connection."""
    way = (first.connection, first.upstream)
    recorded = list(world.line.recorded)
    at = next(n for n, one in enumerate(recorded) if one is first)
    return [one for one in recorded[at:] if (one.connection, one.upstream) == way]


# Mallory's actions as a relay


async def _manner(world: SmallWorld, step: Step) -> None:
    if world.crooked is not None:
        world.crooked.manner = _pick(tuple(Manner), step.a)


async def _give(world: SmallWorld, step: Step) -> None:
    """Release some of the packets that her relay holds, from either end."""
    if world.crooked is not None:
        count = None if step.a % 3 == 0 else 1 + step.a % 3
        world.crooked.release(count, newest_first=step.b % 2 == 1)


async def _give_again(world: SmallWorld, step: Step) -> None:
    """Deliver a packet that passed her relay again, to its recipient or to somebody else."""
    relay = world.crooked
    if relay is not None and relay.recorded:
        passed = relay.recorded[-1 - step.a % len(relay.recorded)]
        other = _pick(world.people, step.c).node_id
        relay.give(passed, other if step.b % 4 == 0 else None)


async def _cross_over(world: SmallWorld, step: Step) -> None:
    """Replay a packet from her relay over TCP, or one from a line through her relay."""
    relay = world.crooked
    if relay is None:
        return
    if step.b % 2 and relay.recorded:
        passed = relay.recorded[-1 - step.a % len(relay.recorded)]
        target = next((p for p in world.people if p.node_id == passed.recipient), world.bob)
        world.mallory.visit(target.endpoint, [passed.packet])
    elif firsts := [one for one in world.line.recorded if one.is_initiation]:
        first = firsts[-1 - step.a % len(firsts)]
        asker, target = _pair(world, step.c)
        relay.give(Passed(world.now, asker.node_id, target.node_id, first.packet))


async def _forge_note(world: SmallWorld, step: Step) -> None:
    """Send "I do not know this session" in the name of the recipient of a relayed packet."""
    relay = world.crooked
    if relay is None:
        return
    if data := [passed for passed in relay.recorded if passed.is_data]:
        relay.deny(data[-1 - step.a % len(data)], quoting=bool(step.b % 4))


async def _lie(world: SmallWorld, step: Step) -> None:
    """Tell a sender "I could not pass it on", whether or not that is true."""
    relay = world.crooked
    if relay is not None and relay.recorded:
        relay.hint(relay.recorded[-1 - step.a % len(relay.recorded)], 1 + step.b % 2)


# Choosing


def _pair(world: SmallWorld, number: int) -> tuple[Party, Party]:
    """Who asks whom; mostly Alice asks Bob."""
    return (world.bob, world.alice) if number % 4 == 3 else (world.alice, world.bob)


def _flow(world: SmallWorld, number: int) -> Flow | None:
    live = world.line.live
    return live[-1 - number % len(live)] if live else None


def _pick(choices: Sequence[_T], number: int) -> _T:
    return choices[number % len(choices)]


WEIGHTS: Final = {
    "ask": 22, "send": 3, "wait": 20, "sign": 2, "introduce": 3, "restart": 3, "clock": 3,
    "hold": 4, "hold_new": 3, "release": 6, "disturb": 4, "kill": 5, "kill_all": 3,
    "replay": 9, "replay_any": 4, "manner": 4, "give": 4, "give_again": 5, "cross_over": 3,
    "forge_note": 3, "lie": 1,
}  # fmt: skip
"""The relative frequency of each verb."""
VERBS: Final[dict[str, Callable[[SmallWorld, Step], Any]]] = {
    "ask": _ask, "send": _send, "wait": _wait, "sign": _sign, "introduce": _introduce,
    "restart": _restart, "clock": _clock, "hold": _hold, "hold_new": _hold_new,
    "release": _release, "disturb": _disturb, "kill": _kill, "kill_all": _kill_all,
    "replay": _replay, "replay_any": _replay_any, "manner": _manner, "give": _give,
    "give_again": _give_again, "cross_over": _cross_over, "forge_note": _forge_note, "lie": _lie,
}  # fmt: skip

"""Whatever happens, and whenever: after any packet that has gone over any line since a query was
begun. It ends as its outcome says, once, and all goes on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from egtp import FastFail, HardTimeout, Incoming, OutcomeUnknown
from simulations import Cluster, ClusterPlan, Member
from simulations.member import Role
from simulations.virtual import Session, Trace
from simulations.virtual.nat import Endpoint
from simulations.world import VirtualWorld

HARD_TIMEOUT_S: Final = 8.0
SETTLED_S: Final = 3.0
STEP: Final = 5
"""Not after every packet, for the sake of time."""


pytestmark = pytest.mark.reaches_in


class Alarm(Trace):
    """Calls somebody once so many packets have gone over the lines."""

    def __init__(self) -> None:
        super().__init__()
        self._left = -1
        self._call: Callable[[], object] = list

    def set(self, packets: int, call: Callable[[], object]) -> None:
        self._left, self._call = packets, call

    def stop(self) -> bool:
        """Whether it has rung."""
        has_rung, self._left = self._left < 0, -1
        return has_rung

    def packet(
        self, at_s: float, kind: str, source: Endpoint, target: Endpoint, data: bytes = b""
    ) -> None:
        super().packet(at_s, kind, source, target, data)
        if self._left >= 0:
            self._left -= 1
            if self._left < 0:
                outside = contextvars.Context()  # on no machine, since some stop it
                asyncio.get_running_loop().call_soon(self._call, context=outside)


class Case:
    """A member asks another one, both new to each other."""

    def __init__(self, cluster: Cluster, number: int, role: Role) -> None:
        self.cluster: Final = cluster
        self.asked: Final = self._member(f"asked {number}", role)
        self.asker: Final = self._member(f"asker {number}", Role.UNREACHABLE)
        self.query: asyncio.Task[bytes]
        self.ran: Final[list[int]] = []
        """How many bytes each query had that has run."""
        self._afterwards: Final[list[asyncio.Task[None]]] = []

    def _member(self, name: str, role: Role) -> Member:
        return self.cluster._make(name, role, self.cluster._discovery)

    async def slow(self, query: Incoming) -> bytes:
        self.ran.append(len(query.body))
        await asyncio.sleep(0.2)
        return query.body

    async def start(self) -> None:
        await asyncio.gather(self.asked.start(), self.asker.start())
        self.asked.node.handle("slow", self.slow)
        await asyncio.gather(self.asked.node.published(), self.asker.node.published())
        await asyncio.sleep(SETTLED_S)

    async def ask(self, body: bytes) -> bytes:
        return await self.asker.node.query(
            self.asked.node_id, "slow", body, hard_timeout_s=HARD_TIMEOUT_S
        )

    def begin(self) -> None:
        self.query = self.asker.machine.host.spawn(self.ask(b"x"))

    async def end(self) -> None:
        await asyncio.gather(*self._afterwards)
        await asyncio.gather(self.asked.close(), self.asker.close())
        for member in (self.asked, self.asker):
            self.cluster.members.remove(member)

    # What may happen

    def cancel(self) -> None:
        self.query.cancel()

    def drain(self) -> None:
        self.asker.machine.host.spawn(self.asker.node.close(drain_s=HARD_TIMEOUT_S))

    def cut_the_line(self) -> None:
        one, other = (member.machine.host for member in (self.asker, self.asked))
        self._later(3, self.cluster.network.partition([one], [other]).heal)

    def move(self) -> None:
        self._afterwards.append(asyncio.ensure_future(self.asked.move()))

    def fall_asleep(self) -> None:
        self.asked.machine.host.sleep()
        self._later(3, self.asked.machine.host.wake)

    def lose_power(self) -> None:
        self.asked.cut_power()
        self._restart(self.asked, 0.3)

    def lose_a_relay(self) -> None:
        relay = self.cluster.those(Role.RELAY)[0]
        relay.cut_power()
        self._restart(relay, 1)

    def _later(self, seconds: float, call: Callable[[], Any]) -> None:
        async def later() -> None:
            await asyncio.sleep(seconds)
            call()

        self._afterwards.append(asyncio.ensure_future(later()))

    def _restart(self, member: Member, after_s: float) -> None:
        async def restart() -> None:
            await asyncio.sleep(after_s)
            await member.restart()
            if member is self.asked:
                member.node.handle("slow", self.slow)

        self._afterwards.append(asyncio.ensure_future(restart()))


async def play(
    happens: Callable[[Case], None], role: Role, world: VirtualWorld, alarm: Alarm
) -> None:
    plan = ClusterPlan(nodes=8, relays=2, unreachable=2, bootstraps=1, seed=7)
    async with Cluster(plan, world) as cluster:
        packets = 0
        while True:
            case = Case(cluster, packets, role)
            await case.start()
            case.begin()
            alarm.set(packets, partial(happens, case))
            await asyncio.wait([case.query])
            has_happened = alarm.stop()
            check_outcome(case, happens)
            await asyncio.sleep(SETTLED_S)
            if happens is not Case.drain:
                assert case.asker.node.statistics()["queries_open"] == 0
                assert await case.asker.machine.run(case.ask(b"again")) == b"again"
            await case.end()
            if not has_happened:
                return
            packets += STEP


def check_outcome(case: Case, happens: Callable[[Case], None]) -> None:
    """It has run once at most, and not at all if its outcome says so."""
    assert len(case.ran) <= 1
    if case.query.cancelled():
        assert happens is Case.cancel
        return
    error = case.query.exception()
    if error is None:
        assert case.query.result() == b"x"
        return
    assert isinstance(error, FastFail | HardTimeout | OutcomeUnknown)
    assert happens in (Case.fall_asleep, Case.lose_power)  # In all else, there is a way.
    assert error.may_have_run or not case.ran


@pytest.mark.parametrize("role", [Role.UNREACHABLE, Role.REACHABLE])
@pytest.mark.parametrize(
    "happens",
    [
        Case.cancel, Case.drain, Case.cut_the_line, Case.move, Case.fall_asleep, Case.lose_power,
        Case.lose_a_relay,
    ],
    ids=lambda it: it.__name__,
)  # fmt: skip
def test_a_query_ends_as_it_says_whatever_happens(
    happens: Callable[[Case], None], role: Role
) -> None:
    alarm = Alarm()
    world = VirtualWorld(7, trace=alarm)
    with Session(world.network) as session:
        session.run(play(happens, role, world, alarm))

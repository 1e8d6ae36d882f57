"""Whatever happens to a network, in whatever order, it keeps its promises, and comes back to life.

Hypothesis draws a story: machines crash, sleep, move and start again, lines are cut in one
direction or both, and members ask each other all the while. Between two steps time stands still,
and nothing may be wrong then. At the end everything is mended; after a while of calm nobody has
anything left to do, everybody reaches everybody, and nothing is left of the closed cluster.
Stories that failed, made short, are told below by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import permutations
from typing import Any, Final

from hypothesis import settings, stateful
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, multiple, precondition, rule

from egtp import FastFail, HandlerFailed, HardTimeout, NodeClosed, OutcomeUnknown
from simulations import Cluster, ClusterPlan, Member, Role, Stopped
from simulations.virtual import Fault, HostDown, Link, LogNormal, Session
from simulations.world import OVERLAP_S, VirtualWorld

OUTCOMES: Final = (FastFail, HardTimeout, HandlerFailed, OutcomeUnknown, NodeClosed, HostDown)
LATE_S, WOKEN_S = 0.1, 1.1
"""How much later than its hard timeout an outcome may come, and that of one whose asker slept."""
ACT_S: Final = 90.0
"""No step takes longer, but those that let time pass."""
CALM_S: Final = 180.0
"""After this long nothing of a fault is left: kernels send again after two minutes at most, and
nobody waits longer than one before he tries again."""
PACKETS_MAX: Final = 200
"""Of each member in a minute without anything to do: five times as many as are sent."""
FEW: Final = 64
"""More than enough of anything for each peer."""
SIZES: Final = st.integers(0, 20_000)
TIMEOUTS: Final = st.integers(1, 10)


def _is_relay(name: str) -> bool:
    return name.startswith("relay-")


class NetworkMachine(stateful.RuleBasedStateMachine):
    """A member is in ``everybody``, and in the bundle of the state that it is in."""

    everybody = Bundle("everybody")
    awake = Bundle("awake")
    asleep = Bundle("asleep")
    down = Bundle("down")
    faults = Bundle("faults")

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[str, Member] = {}
        self.asking: dict[asyncio.Task[None], Member] = {}
        self.complaints: list[str] = []
        self.much_time_has_passed = False
        self.session: Session | None = None
        self.broken = False
        self.all_faults = ExitStack()
        self.world_ends = ExitStack()

    @initialize(targets=(everybody, awake), seed=st.integers(0), jitter=st.floats(0, 0.5))
    def begin(self, seed: int, jitter: float) -> Any:
        world = VirtualWorld(seed, link=Link(latency=LogNormal(0.02, jitter)))
        plan = ClusterPlan(nodes=8, relays=2, unreachable=2, bootstraps=1, seed=seed)
        self.network, self.cluster = world.network, Cluster(plan, world)
        self.session = self.world_ends.enter_context(Session(self.network))
        self.run(self.cluster.__aenter__())
        self.members = {member.name: member for member in self.cluster.members}
        return multiple(*self.members)

    # Who is there

    @precondition(lambda self: len(self.members) < 10)
    @rule(targets=(everybody, awake), hidden=st.booleans())
    def join(self, hidden: bool) -> str:
        name, role = (
            f"guest-{len(self.members) - 6}",
            Role.UNREACHABLE if hidden else Role.REACHABLE,
        )
        self.run(_if_it_can(self.cluster.join(name, role)))
        self.members[name] = self.cluster.members[-1]
        return name

    @rule(target=down, who=consumes(awake), how=st.sampled_from(["leave", "crash", "cut power"]))
    def end(self, who: str, how: str) -> str:
        member = self.members[who]
        if how == "cut power":
            member.cut_power()
        else:
            self.run(member.crash() if how == "crash" else member.close())
        return who

    @precondition(lambda self: self._a_relay_is_awake())
    @rule(target=down, relay=consumes(awake.filter(_is_relay)))
    def kill_relay(self, relay: str) -> str:
        """Whatever goes through it at the moment: more often than if it were anybody."""
        self.run(self.members[relay].crash())
        return relay

    @rule(target=awake, who=consumes(down), keep_disk=st.booleans(), back_s=st.integers(0, 1800))
    def restart(self, who: str, keep_disk: bool, back_s: int) -> str:
        member = self.members[who]
        # The file that tells of relays names them by their identity.
        keep_disk = keep_disk or member.role is Role.RELAY
        self.run(member.restart(keep_disk=keep_disk, clock_offset_s=-float(back_s)))
        return who

    @rule(target=asleep, who=consumes(awake))
    def sleep(self, who: str) -> str:
        self.members[who].machine.host.sleep()
        return who

    @rule(target=awake, who=consumes(asleep))
    def wake(self, who: str) -> str:
        self.members[who].machine.host.wake()
        return who

    @rule(target=down, who=consumes(asleep))
    def run_out_of_power(self, who: str) -> str:
        self.members[who].cut_power()
        return who

    @rule(who=awake)
    def move(self, who: str) -> None:
        self.run(self.members[who].move())
        self.run(asyncio.sleep(OVERLAP_S))

    # What goes wrong

    @rule(target=faults, some=st.lists(everybody, unique=True, min_size=1), one_way=st.booleans())
    def partition(self, some: list[str], one_way: bool) -> Fault:
        hosts = self.network.hosts
        there = [host for name, host in hosts.items() if name not in some]
        fault = self.network.partition([hosts[name] for name in some], there, one_way=one_way)
        return self.all_faults.enter_context(fault)

    @rule(target=faults, who=everybody, how=st.sampled_from(["drop", "refuse"]))
    def block_strangers(self, who: str, how: str) -> Any:
        host = self.members[who].machine.host
        return (
            multiple() if host.inbound else self.all_faults.enter_context(host.block_inbound(how))
        )

    @rule(fault=consumes(faults))
    def heal(self, fault: Fault) -> None:
        fault.heal()

    def _a_relay_is_awake(self) -> bool:
        return any(
            _is_relay(name) and not member.gone and not member.machine.host.is_asleep
            for name, member in self.members.items()
        )

    # What they do

    @rule(who=awake)
    def publish(self, who: str) -> None:
        self.run(_if_it_can(self.cluster.published(self.members[who])))

    @rule(asker=awake, other=everybody, size=SIZES, timeout_s=TIMEOUTS)
    def ask(self, asker: str, other: str, size: int, timeout_s: int) -> None:
        self.run(self._ask(self.members[asker], self.members[other], size, timeout_s))

    @rule(asker=awake, others=st.lists(everybody, min_size=1), size=SIZES, timeout_s=TIMEOUTS)
    def ask_many(self, asker: str, others: list[str], size: int, timeout_s: int) -> None:
        for other in others:
            one = self.members[asker]
            asking = self._ask(one, self.members[other], size, timeout_s)
            task: asyncio.Task[None] = self.network.loop.create_task(asking)
            self.asking[task] = one
            task.add_done_callback(self.asking.pop)

    @rule(seconds=st.floats(0.01, 60))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: not self.much_time_has_passed)
    @rule(minutes=st.integers(2, 180))
    def much_time_passes(self, minutes: int) -> None:
        """Once in a story, since an hour takes a second."""
        self.much_time_has_passed = True
        self.run(asyncio.sleep(60 * minutes), limit_s=60 * minutes + ACT_S)

    # What is true at any moment

    @stateful.invariant()
    def nothing_is_wrong(self) -> None:
        if self.session is not None:
            wrong = [*map(str, self.cluster.checkers.violations), *self.complaints]
            for member in self.members.values():
                wrong += [] if member.gone else self._too_much(member)
            self.broken = bool(wrong)
            assert not wrong, "\n".join(wrong)

    def _too_much(self, member: Member) -> list[str]:
        """What a member holds more of than what it does can explain."""
        engine = member.node._engine
        assert engine is not None
        listener = engine.relaying.listener
        asked = sum(asker is member for asker in self.asking.values())
        asked += len(listener._keepers) if listener else 0
        peers = engine.book.all()
        held = {
            "exchanges": (len(engine.exchanges), asked),
            "handlers": (len(engine.handlers), len(self.asking) + len(self.members)),
            "peers": (len(peers), FEW),
            "handshakes": (engine.channels.dialling, FEW * len(peers)),
            # Somebody who has not proven who he is, is no peer yet.
            "unproven sessions": (engine.channels.unconfirmed, FEW * len(self.members)),
            "connections": (len(engine.comms), FEW * len(self.members)),
            "paths": (sum(len(peer.paths) for peer in peers), FEW * len(peers)),
        }
        return [f"{member.name}: {n} {what}" for what, (n, most) in held.items() if n > most]

    # The end

    def teardown(self) -> None:
        if self.session is None:
            return
        self.all_faults.close()
        for member in self.members.values():
            if member.machine.host.is_asleep:
                member.machine.host.wake()
        with self.world_ends:
            try:
                if not self.broken:
                    self.run(self._come_back(), limit_s=10 * ACT_S)
                    self.nothing_is_wrong()
            finally:
                with suppress(Exception) if self.broken else nullcontext():
                    self.run(self._close())

    async def _come_back(self) -> None:
        everybody = list(self.members.values())
        for member in everybody:
            if member.gone:
                await member.restart(clock_offset_s=0.0)
        await asyncio.sleep(CALM_S)
        wrong = [text for member in everybody for text in self._left_to_do(member)]
        before = self.network.trace.entries
        await asyncio.sleep(60)
        if (packets := self.network.trace.entries - before) > PACKETS_MAX * len(everybody):
            wrong.append(f"{packets} packets in a minute in which there is nothing to do")
        pairs = list(permutations(everybody, 2))
        asked = [one.ask(other, b"still there?", 10.0) for one, other in pairs]
        replies = await asyncio.gather(*asked, return_exceptions=True)
        for (one, other), reply in zip(pairs, replies, strict=True):
            if isinstance(reply, BaseException):
                wrong.append(f"{one.name} asks {other.name}: {reply!r}: {reply}")
        assert not wrong, "\n".join(wrong)

    def _left_to_do(self, member: Member) -> list[str]:
        engine = member.node._engine
        assert engine is not None
        peers, published = engine.book.all(), engine.publisher._published
        relays = 0 if member.role is Role.RELAY else self.cluster.plan.relays
        left = {
            "relays missing": relays - len(member.node.relays),
            "record to publish": published is None or published[0] is not member.node.record,
            "handshakes": engine.channels.dialling,
            "handlers": len(engine.handlers),
            "messages": sum(len(peer.waiting) for peer in peers),
            "searches": sum(bool(peer.search or peer.direct_search) for peer in peers),
            "superseded paths": sum(len(peer.others) for peer in peers),
        }
        return [f"{member.name}: {count:d} {what}" for what, count in left.items() if count]

    async def _close(self) -> None:
        await asyncio.gather(*self.asking)
        await self.cluster.__aexit__(None, None, None)
        await asyncio.sleep(1)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, "\n".join(map(str, left))

    # How

    def run(self, act: Coroutine[Any, Any, Any], limit_s: float = ACT_S) -> Any:
        """Time goes on until ``act`` has ended. If it raises, the story is over."""
        assert self.session is not None
        self.broken = True
        value = self.session.run(act, limit_s=limit_s)
        self.broken = False
        return value

    async def _ask(self, one: Member, other: Member, size: int, timeout_s: int) -> None:
        host, loop = one.machine.host, self.network.loop
        began_s, asleep_s = loop.now, host.asleep_s
        try:
            with suppress(*OUTCOMES):
                await one.ask(other, bytes(size), timeout_s)
        except Exception as error:
            self.complaints.append(f"{one.name} asks {other.name}: {error!r}")
        slept_s = host.asleep_s - asleep_s
        late_s = loop.now - began_s - timeout_s - (slept_s + WOKEN_S if slept_s else LATE_S)
        if late_s > 0:
            self.complaints.append(f"{one.name} asks {other.name}: {late_s:g} s late")


async def _if_it_can(act: Coroutine[Any, Any, object]) -> None:
    """Relays may be down, or it is cut off: it then goes on trying by itself."""
    with suppress(Stopped):
        await act


def test_whatever_happens_to_a_network_it_keeps_its_promises_and_comes_back() -> None:
    # An example takes a second, so a short look has fewer of them than elsewhere.
    thorough = settings.get_current_profile_name() == "thorough"
    short = settings(max_examples=12, stateful_step_count=25)
    stateful.run_state_machine_as_test(NetworkMachine, settings=settings() if thorough else short)


# Stories that failed


@contextmanager
def story() -> Iterator[NetworkMachine]:
    """Told inside of it; its end is that of all stories."""
    machine = NetworkMachine()
    with ExitStack() as its_end:
        its_end.callback(machine.teardown)
        machine.begin(seed=0, jitter=0.0)
        yield machine
        machine.nothing_is_wrong()


def test_a_peer_behind_a_relay_that_starts_again_is_reached_by_those_who_reached_it() -> None:
    with story() as machine:
        machine.ask("alice", "hidden-1", 0, 5)
        machine.end("hidden-1", "cut power")


def test_a_record_whose_only_holder_vanished_is_found_again() -> None:
    with story() as machine:
        machine.partition(["relay-1", "bob"], one_way=False)
        machine.move("relay-1")
        machine.time_passes(5)
        machine.end("bob", "cut power")


def test_a_lookup_that_a_long_sleep_interrupts_returns_nothing_expired() -> None:
    with story() as machine:
        machine.move("relay-1")
        machine.sleep("hidden-2")
        machine.much_time_passes(125)
        machine.wake("hidden-2")
        machine.time_passes(2)


def test_a_hard_timeout_is_on_time_on_a_machine_that_slept() -> None:
    with story() as machine:
        machine.ask("alice", "bob", 0, 10)
        machine.sleep("alice")
        machine.sleep("bob")
        machine.time_passes(30)
        machine.wake("alice")
        machine.time_passes(1.7)
        machine.ask("alice", "bob", 0, 1)


def test_a_hard_timeout_is_on_time_though_a_timer_slept_that_was_set_for_another_one() -> None:
    with story() as machine:
        machine.ask("alice", "bob", 0, 5)
        machine.partition(["bob"], one_way=False)
        machine.sleep("alice")
        machine.time_passes(3)
        machine.wake("alice")
        machine.time_passes(0.7)
        machine.ask("alice", "bob", 0, 2)


def test_a_hard_timeout_set_in_the_moment_in_which_another_one_passes_is_on_time() -> None:
    with story() as machine:
        machine.ask("alice", "bob", 0, 5)
        machine.time_passes(10.7)
        machine.partition(["bob"], one_way=False)
        machine.ask("alice", "bob", 0, 2)
        machine.ask("alice", "bob", 0, 3)


def test_who_waits_for_a_sleeper_that_runs_out_of_power_hears_of_it() -> None:
    with story() as machine:
        machine.ask_many("alice", ["bob"], 0, 4)
        machine.sleep("alice")
        machine.time_passes(1)
        machine.run_out_of_power("alice")


def test_a_small_dht_that_was_cut_in_two_is_one_again_within_a_minute() -> None:
    """Else a record that is published in one half is not found from the other."""
    with story() as machine:
        machine.ask("carol", "relay-1", 927, 3)
        machine.partition(list(machine.members), one_way=False)
        machine.end("hidden-2", "crash")
        machine.move("relay-2")
        machine.end("hidden-1", "cut power")
        machine.end("relay-2", "crash")
        machine.ask("relay-1", "hidden-2", 1, 5)
        machine.move("relay-1")

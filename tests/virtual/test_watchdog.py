# ruff: noqa: PLW0108, DTZ002, DTZ003, DTZ005, DTZ007, DTZ011
# Names are looked up when they are called, and dates without a time zone are what is tested.
"""Whoever goes around the simulation is told, or is given what it is for his machine."""

from __future__ import annotations

import asyncio
import datetime
import os
import pickle
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import egtp
from egtp import Identity
from simulations.virtual import Blocked, Network, Session, Unreal, simulate, watchdog
from simulations.virtual.network import EPOCH_S

ALICE, BOB = "192.0.2.1", "198.51.100.1"
MODULES = (
    datetime, os, random, random.Random, secrets, socket, subprocess.Popen, threading.Thread, time,
    uuid,
)  # fmt: skip

REMEDIES = ("host.unix_time", "host.entropy", "await", "asyncio", "no other program")
UNREAL: list[Callable[[], object]] = [
    lambda: time.time(),
    lambda: time.time_ns(),
    lambda: time.monotonic(),
    lambda: time.monotonic_ns(),
    lambda: time.perf_counter(),
    lambda: time.clock_gettime(time.CLOCK_MONOTONIC),
    lambda: time.sleep(1),
    lambda: os.urandom(8),
    lambda: os.getrandom(8),
    lambda: random.random(),
    lambda: random.randrange(10),
    lambda: random.randint(1, 6),
    lambda: random.getrandbits(8),
    lambda: random.randbytes(8),
    lambda: random.choice("abc"),
    lambda: random.choices("abc", k=2),
    lambda: random.shuffle([1, 2]),
    lambda: random.sample([1, 2], 1),
    lambda: random.uniform(0, 1),
    lambda: random.gauss(0, 1),
    lambda: random.normalvariate(0, 1),
    lambda: random.triangular(),
    lambda: secrets.token_bytes(8),
    lambda: secrets.token_hex(8),
    lambda: secrets.token_urlsafe(8),
    lambda: secrets.randbelow(8),
    lambda: secrets.randbits(8),
    lambda: secrets.choice("abc"),
    lambda: uuid.uuid4(),
    lambda: uuid.uuid1(),
    lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC),
    lambda: time.localtime(),
    lambda: time.gmtime(None),
    lambda: time.ctime(),
    lambda: time.strftime("%Y"),
    lambda: datetime.datetime.now(),
    lambda: datetime.datetime.now(datetime.UTC),
    lambda: datetime.datetime.today(),
    lambda: datetime.datetime.utcnow(),
    lambda: datetime.date.today(),
    lambda: random.Random(),
    lambda: random.Random(7).seed(),
    lambda: random.seed(7),
    lambda: random.SystemRandom().random(),
    lambda: secrets.SystemRandom().randrange(5),
    lambda: socket.socket(),
    lambda: subprocess.run([sys.executable], check=True),
    lambda: urllib.request.urlopen("http://127.0.0.1:1"),
    lambda: socket.create_connection(("127.0.0.1", 1)),
]


IMPORTS = "import datetime, os, random, secrets, time, uuid\n"


def as_library(expression: str) -> Callable[[], Any]:
    """A function of an installed package, which returns what an expression gives there."""
    source = f"{IMPORTS}def function():\n    return {expression}\n"
    names: dict[str, Any] = {"__name__": "somebodys.library"}
    exec(compile(source, "/lib/site-packages/somebodys/library.py", "exec"), names)  # noqa: S102
    function: Callable[[], Any] = names["function"]
    return function


def everything_there_is() -> dict[tuple[str, str], object]:
    """What a run could leave in another place."""
    return {
        (module.__name__, name): getattr(module, name) for module in MODULES for name in dir(module)
    }


async def returned(function: Callable[[], Any]) -> Any:
    return function()


# A program's own code


@pytest.mark.parametrize("unreal", UNREAL)
@pytest.mark.parametrize("is_on_a_machine", [False, True])
def test_a_program_that_looks_at_the_real_world_is_told_where_and_what_to_do(
    unreal: Callable[[], object], is_on_a_machine: bool
) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        work = returned(unreal)
        await (alice.run(work) if is_on_a_machine else work)

    with pytest.raises(Unreal) as told:
        simulate(story)
    line = unreal.__code__.co_firstlineno
    assert f"virtual/test_watchdog.py:{line} in <lambda> calls" in str(told.value)
    assert any(what in str(told.value) for what in REMEDIES)


def test_a_run_can_be_allowed_to_look() -> None:
    async def story(_: Network) -> float:
        return time.time()

    assert simulate(story, unreal=False).value == pytest.approx(time.time(), abs=60)


def test_a_generator_of_ones_own_is_no_entropy() -> None:
    async def story(_: Network) -> float:
        return random.Random(7).random()

    assert simulate(story).value == random.Random(7).random()


# Libraries


def test_a_library_gets_the_clocks_of_its_machine() -> None:
    async def story(network: Network) -> None:
        await asyncio.sleep(100)
        alice = network.host("alice", ALICE)
        alice.step_clock(-3_600)
        await asyncio.sleep(5)

        async def clocks() -> tuple[Any, ...]:
            return tuple(
                as_library(f"time.{name}()")()
                for name in ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns")
            )

        wall_s = EPOCH_S + 105 - 3_600
        assert await alice.run(clocks()) == (wall_s, 5, 5, int(wall_s * 1e9), 5 * 10**9)
        # What runs on no machine has the clocks of the world.
        assert (await clocks())[:2] == (EPOCH_S + 105, 105)

    simulate(story)


@pytest.mark.parametrize(
    "expression",
    [
        "os.urandom(8)",
        "secrets.token_bytes(8)",
        "secrets.token_bytes()",
        "secrets.token_hex(8)",
        "secrets.randbits(64)",
        "random.random()",
        "random.randrange(10**9)",
        "random.sample(range(10**6), k=3)",
        "random.choice(range(10**9))",
        "secrets.choice(range(10**9))",
        "secrets.randbelow(10**9)",
        "str(uuid.uuid4())",
        "random.Random().random()",
        "random.SystemRandom().random()",
    ],
)
def test_a_library_gets_the_entropy_of_its_machine(expression: str) -> None:
    draw = as_library(expression)

    async def story(network: Network) -> list[Any]:
        alice, bob = network.host("alice", ALICE), network.host("bob", BOB)
        return [
            await alice.run(returned(draw)),
            await alice.run(returned(draw)),
            await bob.run(returned(draw)),
            draw(),
        ]

    drawn = simulate(story, seed=1).value
    assert drawn == simulate(story, seed=1).value
    assert len({str(one) for one in drawn}) == 4
    assert drawn != simulate(story, seed=2).value


def test_what_a_library_draws_looks_as_it_should() -> None:
    async def story(_: Network) -> None:
        assert len(as_library("os.urandom(11)")()) == 11
        assert len(as_library("secrets.token_hex(4)")()) == 8
        assert as_library("uuid.uuid4()")().version == 4
        assert 0 <= as_library("secrets.randbelow(3)")() < 3
        assert as_library("random.shuffle([1])")() is None

    simulate(story)


def test_a_library_gets_the_date_of_its_machine() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE, clock_offset_s=86_400)
        now = datetime.datetime.fromtimestamp(EPOCH_S + 86_400, datetime.UTC)
        for expression, expected in (
            ("datetime.datetime.now(datetime.UTC)", now),
            ("datetime.datetime.utcnow()", now.replace(tzinfo=None)),
            ("datetime.datetime.now().astimezone(datetime.UTC)", now),
            ("datetime.date.today()", now.astimezone().date()),
        ):
            date = await alice.run(returned(as_library(expression)))
            assert date == expected
            assert type(date) is type(expected)

    simulate(story)


def test_a_library_that_waits_for_real_is_told() -> None:
    async def story(_: Network) -> None:
        as_library("time.sleep(1)")()

    with pytest.raises(Unreal, match=r"library.py:3 in function calls time.sleep"):
        simulate(story)


# Names of one's own


OWN = """
import datetime, random
from datetime import date, datetime as Moment
from os import urandom
from random import Random, choice
from time import time, monotonic as now

class Clock:
    read = time
    def __init__(self, unix_time=time): self.unix_time = unix_time
    @staticmethod
    def at(*, unix_time=time): return unix_time()

def asked(*, entropy=urandom): return entropy(8)
"""


def a_module(monkeypatch: pytest.MonkeyPatch, file: str) -> dict[str, Any]:
    """One that somebody has imported before; returns its names."""
    module = types.ModuleType(f"somebodys_{len(file)}")
    exec(compile(OWN, file, "exec"), vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return vars(module)


OWN_NAMES = pytest.mark.parametrize(
    "expression",
    [
        "time()",
        "now()",
        "urandom(8)",
        "choice('abc')",
        "Random()",
        "Moment.now()",
        "Moment.today()",
        "date.today()",
        "datetime.datetime.now()",
        "Clock.read()",
        "Clock().read()",
        "Clock().unix_time()",
        "Clock.at()",
        "asked()",
    ],
)


@OWN_NAMES
def test_what_a_program_bound_to_a_name_of_its_own_before_is_told_as_well(
    monkeypatch: pytest.MonkeyPatch, expression: str
) -> None:
    names = a_module(monkeypatch, "/home/somebody/app.py")
    before = dict(names)
    call = eval(f"lambda: {expression}", names)  # noqa: S307

    async def story(_: Network) -> None:
        call()

    for _ in range(2):
        with pytest.raises(Unreal, match=r"calls \S+, which is not simulated: take"):
            simulate(story)
    assert names == before
    assert not isinstance(call(), Exception)
    assert names["Clock"]().unix_time is time.time


@OWN_NAMES
def test_what_a_library_bound_to_a_name_of_its_own_is_its_machines(
    monkeypatch: pytest.MonkeyPatch, expression: str
) -> None:
    names = a_module(monkeypatch, "/lib/site-packages/somebody/app.py")
    code = compile(f"lambda: {expression}", "/lib/site-packages/somebody/app.py", "eval")
    call = eval(code, names)  # noqa: S307

    async def story(network: Network) -> Any:
        value = await network.host("alice", ALICE).run(returned(call))
        return value.random() if isinstance(value, random.Random) else value

    assert simulate(story).value == simulate(story).value


def test_a_source_with_two_names_is_called_by_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = a_module(monkeypatch, "/home/somebody/app.py")

    async def story(_: Network) -> None:
        names["asked"]()

    with pytest.raises(Unreal, match=r"calls os\.urandom, which"):
        simulate(story)


def test_a_name_that_is_bound_during_a_run_is_told_in_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: dict[str, Any] = {}

    async def imports_late(_: Network) -> None:
        names.update(a_module(monkeypatch, "/home/somebody/app.py"))

    async def story(_: Network) -> None:
        names["time"]()

    simulate(imports_late)
    assert names["time"]() == pytest.approx(time.time(), abs=60)
    with pytest.raises(Unreal, match="calls time"):
        simulate(story)


def test_dates_are_what_they_are() -> None:
    real = (datetime.datetime, datetime.date)

    async def story(_: Network) -> None:
        moment = datetime.datetime(2027, 1, 2, 3, tzinfo=datetime.UTC)
        assert type(moment) is real[0]
        assert type(datetime.datetime.fromisoformat("2027-01-02")) is real[0]
        assert type(datetime.datetime.strptime("2027", "%Y")) is real[0]
        assert type(datetime.date(2027, 1, 2)) is real[1]
        assert isinstance(moment, datetime.datetime)
        assert isinstance(moment, datetime.date)
        assert not isinstance(datetime.date(2027, 1, 2), datetime.datetime)
        assert issubclass(datetime.datetime, datetime.date)
        assert issubclass(real[0], datetime.date)
        assert {datetime.datetime: 1}[type(moment)] == 1
        assert {real[0]: 1}[datetime.datetime] == 1
        assert datetime.datetime != datetime.date
        assert pickle.loads(pickle.dumps(moment)) == moment  # noqa: S301

        class Later(datetime.datetime):
            pass

        assert type(Later(2027, 1, 2)) is Later
        assert not isinstance(moment, Later)

    simulate(story)
    assert (datetime.datetime, datetime.date) == real


# Before, beside, after


def test_nothing_is_left_in_another_place() -> None:
    before = everything_there_is()
    handler = signal.getsignal(signal.SIGPROF)

    async def story(_: Network) -> None:
        assert everything_there_is() != before

    async def fails(_: Network) -> None:
        raise ValueError

    simulate(story)
    with pytest.raises(ValueError):  # noqa: PT011
        simulate(fails)
    with Session(Network()) as session:
        for _ in range(2):
            session.run(asyncio.sleep(1))
            assert everything_there_is() == before
    assert everything_there_is() == before
    assert signal.getsignal(signal.SIGPROF) == handler
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def test_other_threads_are_not_concerned() -> None:
    seen: list[object] = []
    runs = threading.Event()

    def look() -> None:
        runs.wait()
        seen.extend([time.time(), os.urandom(4)])

    thread = threading.Thread(target=look)
    thread.start()

    async def story(_: Network) -> None:
        runs.set()
        thread.join()

    simulate(story)
    assert seen[0] == pytest.approx(time.time(), abs=60)
    assert isinstance(seen[1], bytes)


def in_a_thread() -> None:
    threading.Thread(target=print).start()


def in_a_timer() -> None:
    threading.Timer(1, print).start()


def in_a_pool() -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(str, [1]))


@pytest.mark.parametrize("start", [in_a_thread, in_a_timer, in_a_pool])
def test_a_program_that_starts_a_thread_is_told_what_to_do(start: Callable[[], None]) -> None:
    async def story(network: Network) -> None:
        async def program() -> None:
            start()

        await network.host("a", "5.1.0.1").run(program())

    with pytest.raises(Unreal, match=r"test_watchdog\.py:\d+ in in_a_.*asyncio\.to_thread"):
        simulate(story)


def test_a_blocking_node_is_not_simulated() -> None:
    async def story(network: Network) -> None:
        async def program() -> None:
            egtp.blocking.Node(Identity.generate(network.host("a", "5.1.0.1").entropy)).start()

        await network.host("b", "5.2.0.1").run(program())

    with pytest.raises(Unreal, match=r"loop_thread\.py.*threading\.Thread\.start"):
        simulate(story)


def test_a_simulation_can_run_in_another_thread() -> None:
    values: list[float] = []

    async def story(network: Network) -> float:
        await asyncio.sleep(5)
        return network.loop.time()

    thread = threading.Thread(target=lambda: values.append(simulate(story).value))
    thread.start()
    thread.join()
    assert values == [5]


# Callbacks without end


def spin() -> None:
    while True:
        pass


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "BLOCKED_CPU_S", 0.1)


def test_a_task_that_does_not_let_others_run_is_told_where(short_patience: None) -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        await alice.run(returned(spin))

    line = spin.__code__.co_firstlineno
    with pytest.raises(Blocked, match=rf"test_watchdog.py:{line}|{line + 1}|{line + 2} in spin"):
        simulate(story)


def test_a_callback_that_does_not_end_fails_the_run(short_patience: None) -> None:
    async def story(network: Network) -> None:
        network.loop.call_soon(spin)
        await asyncio.sleep(1)

    with pytest.raises(Blocked, match="in spin: a callback keeps the event loop for"):
        simulate(story)


def test_a_program_that_spins_as_it_crashes_is_told_as_well(short_patience: None) -> None:
    async def program() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            spin()

    async def story(network: Network) -> None:
        alice = network.host("alice", ALICE)
        alice.spawn(program())
        await asyncio.sleep(1)
        alice.crash()

    with pytest.raises(Blocked, match="in spin"):
        simulate(story)


def test_work_in_many_small_pieces_is_no_mistake(short_patience: None) -> None:
    async def story(_: Network) -> None:
        end_s = time.process_time() + 0.5
        while time.process_time() < end_s:
            sum(range(1_000))
            await asyncio.sleep(0.001)

    simulate(story)

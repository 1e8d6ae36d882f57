"""One seed, one run: in this process, in any other one, and whatever was done before."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from simulations import Cluster, ClusterPlan, play
from simulations.scenarios import SCENARIOS
from simulations.virtual import (
    Fault,
    Host,
    Link,
    LogNormal,
    Nat,
    NatKind,
    Network,
    Trace,
    Uniform,
    run_in,
)
from simulations.world import VirtualWorld

MEMBERS = 6
LIVELY_S = 120.0
PLAN = ClusterPlan(nodes=8, relays=2, unreachable=2, bootstraps=1, seed=7)


# A world in which much happens


class Gossip(asyncio.DatagramProtocol):
    """Tells others what it heard, now and then."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) < 200 and self.host.rng.random() < 0.7:
            self.transport.sendto(data + self.host.entropy(8), addr)

    def error_received(self, exc: Exception) -> None:
        """Lost is lost."""


async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError):
        while word := await reader.read(1_000):
            writer.write(word[::-1])
            await writer.drain()


async def live(host: Host, others: list[Host]) -> None:
    """What each machine does until it is stopped."""
    loop, rng = asyncio.get_running_loop(), host.rng
    await asyncio.start_server(chat, host.addresses[0], 80)
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Gossip(host), (host.addresses[0], 500)
    )

    async def ask(other: Host) -> bytes:
        async with asyncio.timeout(rng.uniform(0.1, 20)):
            reader, writer = await asyncio.open_connection(other.addresses[0], 80)
            with contextlib.closing(writer):
                writer.write(host.entropy(rng.randrange(1, 200_000)))
                return await reader.read(rng.randrange(1, 5_000))

    while True:
        asked = {asyncio.create_task(ask(rng.choice(others))) for _ in range(rng.randrange(5))}
        # The order in which a set of tasks is gone through is part of what happens.
        for task in asked | {asyncio.create_task(asyncio.sleep(rng.random()))}:
            with contextlib.suppress(OSError, TimeoutError):
                await task
        transport.sendto(host.entropy(20), (rng.choice(others).addresses[0], 500))


def strike(network: Network, rng: random.Random, number: int, faults: list[Fault]) -> None:
    """Something goes wrong, or better again."""
    hosts = list(network.hosts.values())
    host, other = rng.sample(hosts, 2)
    what = rng.randrange(10)
    if what == 0:
        faults.append(network.partition([host], [other], one_way=rng.random() < 0.5))
    elif what == 1:
        faults.append(host.degrade(Link(latency=Uniform(0.1, 1), loss=0.5)))
    elif what == 2:
        faults.append(host.block_inbound(rng.choice(["drop", "refuse"])))
    elif what in {3, 4} and faults:
        faults.pop(rng.randrange(len(faults))).heal()
    elif what == 5 and host.is_up:
        (host.sleep if not host.is_asleep else host.wake)()
    elif what == 6 and host.is_up:
        host.kill()
        host.spawn(live(host, hosts))
    elif what == 7:
        (host.crash if host.is_up else host.restart)()
        if host.is_up:
            host.spawn(live(host, hosts))
    elif what == 8 and ":" not in host.addresses[0] and host.net is network.internet:
        host.change_ip(f"11.2.{number % 250}.1")
    elif what == 9:
        host.step_clock(rng.uniform(-100, 100))


async def lively(network: Network) -> None:
    rng = random.Random(f"{network.seed}/what goes wrong")
    router = network.gateway("router", Nat(NatKind.PORT_RESTRICTED, "11.1.0.1", udp_idle_s=20))
    hosts = [network.host(f"h{n}", f"11.0.{n}.1") for n in range(MEMBERS)]
    hosts.append(network.host("hidden", "192.168.0.2", behind=router))
    hosts[0].degrade(Link(latency=0.01, bandwidth_bytes_per_s=200_000, mtu_bytes=1_000))
    for host in hosts:
        host.spawn(live(host, hosts))
    faults: list[Fault] = []
    number = 0
    while network.loop.now < LIVELY_S:
        await asyncio.sleep(rng.expovariate(1.0))
        strike(network, rng, number, faults)
        number += 1


def live_through(seed: int) -> Trace:
    link = Link(latency=LogNormal(0.03), loss=0.05, duplicate=0.02, reorder=0.05)
    network = Network(seed, link=link, trace=Trace(keep=True))
    run_in(network, lively(network))
    return network.trace


def play_through(seed: int) -> Trace:
    """The same with a cluster of real nodes."""
    world = VirtualWorld(seed, trace=Trace(keep=True))
    outcome = run_in(world.network, play(SCENARIOS["ip-change"], Cluster(PLAN, world))).value
    assert outcome.held, outcome.failed
    return world.network.trace


RUNS: dict[str, Callable[[int], Trace]] = {"lively": live_through, "cluster": play_through}
EACH = pytest.mark.parametrize("name", list(RUNS))


# The same run


@EACH
def test_a_seed_gives_the_same_run_again_whatever_was_done_before(name: str) -> None:
    first = RUNS[name](1)
    assert first.entries > 500
    unrelated = [bytes(random.randrange(10_000)) for _ in range(random.randrange(5_000))]
    for number in range(random.randrange(100)):
        asyncio.run(asyncio.sleep(0, number))
    del unrelated[:: random.randrange(1, 5)]
    gc.collect()
    second = RUNS[name](1)
    assert second.lines == first.lines
    assert second.digest == first.digest


@EACH
def test_another_seed_gives_another_run(name: str) -> None:
    assert len({RUNS[name](seed).digest for seed in (1, 2)}) == 2


@EACH
def test_another_process_gives_the_same_run(name: str) -> None:
    digest = RUNS[name](3).digest
    for hash_seed in ("0", "1", "random"):
        assert in_another_process(name, 3, hash_seed) == digest


@EACH
def test_when_garbage_is_collected_makes_no_difference(name: str) -> None:
    digest = RUNS[name](4).digest
    former = gc.get_threshold()
    try:
        for threshold in (50, 100_000):
            gc.set_threshold(threshold)
            assert RUNS[name](4).digest == digest
    finally:
        gc.set_threshold(*former)


def in_another_process(name: str, seed: int, hash_seed: str) -> str:
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, name, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout.strip()


if __name__ == "__main__":
    print(RUNS[sys.argv[1]](int(sys.argv[2])).digest)  # noqa: T201

"""Whatever happens over it, asking for a connection comes to an end."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import Fault, Host, Link, Network, run_in

BOB = "198.51.100.1"
EVENTS = ("sleep", "wake", "crash", "restart", "kill", "move", "cut", "heal", "drop", "refuse")


@given(
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from(EVENTS), st.booleans()), max_size=8),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_attempt_comes_to_an_end_that_both_sides_agree_on(
    programs: Any, events: list[tuple[float, str, bool]], latency_s: float
) -> None:
    async def story(network: Network) -> None:
        alice, bob = programs.two(network)
        accepted = await programs.listen(bob)
        dialling = asyncio.create_task(programs.ends(programs.connect(alice, BOB), 10_000))
        faults: list[Fault] = []
        for number, (delay_s, what, is_alice) in enumerate(events):
            await asyncio.sleep(delay_s)
            host = alice if is_alice else bob
            happen(network, host, what, faults, f"203.0.113.{number + 1}")
        for fault in faults:
            fault.heal()
        for host in (alice, bob):
            if host.is_asleep:
                host.wake()
            if not host.is_up:
                host.restart()
        side = await dialling
        await asyncio.sleep(1)
        for one in [*accepted, side]:
            if not isinstance(one, Exception) and not one.is_lost:
                one.write(b"hello")
        await asyncio.sleep(5_000)
        for one in [*accepted, side]:
            if not isinstance(one, Exception):
                one.transport.abort()
        await asyncio.sleep(5_000)
        assert not alice.streams
        assert not bob.streams
        assert len(accepted) <= 1

    network = Network(link=Link(latency=latency_s))
    run_in(network, story(network), limit_s=30_000)


def happen(network: Network, host: Host, what: str, faults: list[Fault], address: str) -> None:
    other = network.hosts["bob" if host.name == "alice" else "alice"]
    match what:
        case "cut":
            faults.append(network.partition([host], [other], one_way=True))
        case "heal" if faults:
            faults.pop(0).heal()
        case "drop" | "refuse":
            faults.append(host.block_inbound(what))
        case "move":
            host.change_ip(address)
        case "wake" if host.is_asleep:
            host.wake()
        case "restart" if not host.is_up:
            host.restart()
        case "sleep" if host.is_up and not host.is_asleep:
            host.sleep()
        case "crash" | "kill" if host.is_up:
            getattr(host, what)()

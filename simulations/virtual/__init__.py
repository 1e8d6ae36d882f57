"""A network in a bottle: any asyncio program in virtual time, on machines that are not there.

::

    from simulations.virtual import Network, simulate

    async def story(network: Network) -> None:
        server = network.host("server", "5.1.0.1")
        client = network.host("client", "6.1.0.1")
        await server.run(start_my_server())
        with network.partition([client], [server]):
            ...

    simulate(story, seed=7)

The programs run unchanged and do not know that they are simulated. The clock of their event loop is
a plain number, and its sockets lead to other machines in the same process. Everything that happens
follows from the seed.
"""

from __future__ import annotations

from simulations.virtual.errors import (
    Blocked,
    HostDown,
    ImpossibleWorld,
    NotSimulated,
    Overdue,
    SimulationError,
    Stalled,
    Unhandled,
    Unreal,
)
from simulations.virtual.faults import Fault
from simulations.virtual.host import Host
from simulations.virtual.link import Fixed, Latency, Link, LogNormal, Uniform
from simulations.virtual.loop import VirtualLoop
from simulations.virtual.nat import Nat, NatKind
from simulations.virtual.network import Network
from simulations.virtual.routing import Gateway
from simulations.virtual.simulate import Run, Session, run_in, simulate
from simulations.virtual.tap import Tap
from simulations.virtual.trace import Trace

__all__ = [
    "Blocked",
    "Fault",
    "Fixed",
    "Gateway",
    "Host",
    "HostDown",
    "ImpossibleWorld",
    "Latency",
    "Link",
    "LogNormal",
    "Nat",
    "NatKind",
    "Network",
    "NotSimulated",
    "Overdue",
    "Run",
    "Session",
    "SimulationError",
    "Stalled",
    "Tap",
    "Trace",
    "Unhandled",
    "Uniform",
    "Unreal",
    "VirtualLoop",
    "run_in",
    "simulate",
]

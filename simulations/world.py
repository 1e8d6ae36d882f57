"""Worlds that a cluster can live in: machines, time and entropy.

:class:`LoopbackWorld` is this machine, with real sockets and real time. :class:`VirtualWorld` is a
simulated network, where everything follows from the seed. Nodes cannot tell one from the other.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from egtp import Environment, InvalidConfig
from egtp.values.identity import Entropy
from simulations.virtual import Gateway, Host, Link, LogNormal, Nat, NatKind, Network, Trace

__all__ = ["LoopbackWorld", "Machine", "VirtualWorld", "World"]

_T = TypeVar("_T")

_HOSTS_PER_ROUND: Final = 250
OVERLAP_S: Final = 0.2
"""How long a moving machine keeps its old address after its node has switched to the new one."""
INTERNET: Final = Link(latency=LogNormal(median_s=0.02, sigma=0.3))
"""The line between any two machines of a virtual world, as between cities of one continent."""


class Machine(Protocol):
    """The machine of a cluster's member."""

    @property
    def address(self) -> str:
        """Its current IP address."""

    @property
    def environment(self) -> Environment:
        """Its clocks and its entropy."""

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` on it."""

    async def end(self, work: Coroutine[Any, Any, object]) -> None:
        """End its program by ``work``; or without, if the machine is asleep or down."""

    def gain_address(self) -> str:
        """Give it a new address that nobody had before, besides its old one."""

    def lose_address(self) -> None:
        """Take away all addresses but the newest, at once or in a moment."""

    def kill(self) -> bool:
        """End its program; the system closes the sockets. False if that cannot be done without
        ending the story as well."""

    @property
    def disk(self) -> Path | None:
        """A folder that survives a restart; None if there are no restarts."""

    @property
    def host(self) -> Host:
        """The simulated machine. Raises :class:`InvalidConfig` for a real one."""


class World(Protocol):
    """A source of machines."""

    @property
    def elapsed(self) -> Callable[[], float]:
        """Seconds since any fixed moment."""

    @property
    def private_addresses(self) -> bool:
        """Whether its addresses are private ones, which nodes use only in labs."""

    def check(self) -> None:
        """Raises :class:`InvalidConfig` if this machine cannot have such a world."""

    def machine(self, name: str, *, reachable: bool = True) -> Machine:
        """A new machine. If not ``reachable``, it is behind a NAT, where the world has any."""

    def entropy(self, name: str) -> Entropy:
        """A source for ``name`` alone, so that what one node draws does not depend on the progress
        of others."""


class LoopbackWorld:
    """Real sockets and real time on the loopback interface, with randomness from a seed.

    The same seed gives the same keys, so that a run can be reported and repeated. Such keys are not
    secret: they are for simulations only.
    """

    private_addresses: Final = True

    def __init__(self, seed: int, elapsed: Callable[[], float] = time.perf_counter) -> None:
        self.elapsed: Final = elapsed
        self._seed = seed
        self._hosts_given = 0

    def check(self) -> None:
        """Raises :class:`InvalidConfig` on a machine whose loopback has a single address."""
        host = _host(0)
        try:
            with socket.socket() as probe:
                probe.bind((host, 0))
        except OSError as error:
            raise InvalidConfig(
                f"this machine cannot use {host} ({error.strerror}); a cluster needs all of "
                "127.0.0.0/8 on the loopback interface, as Linux has it"
            ) from None

    def new_host(self) -> str:
        """An address that nobody in this world has had before, each in its own /24 while there are
        any left, as if every machine were in another network."""
        host = _host(self._hosts_given)
        self._hosts_given += 1
        return host

    def machine(self, name: str, *, reachable: bool = True) -> Machine:  # noqa: ARG002
        return _LoopbackMachine(self, name)

    def entropy(self, name: str) -> Entropy:
        return random.Random(f"{self._seed}/{name}").randbytes


class _LoopbackMachine:
    def __init__(self, world: LoopbackWorld, name: str) -> None:
        self._world = world
        self.address = world.new_host()
        self.environment: Final = Environment(entropy=world.entropy(name))

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await work

    async def end(self, work: Coroutine[Any, Any, object]) -> None:
        await work

    def gain_address(self) -> str:
        self.address = self._world.new_host()
        return self.address

    def lose_address(self) -> None:
        """Nothing to do: on loopback, all addresses always exist."""

    def kill(self) -> bool:
        return False

    @property
    def disk(self) -> Path | None:
        return None

    @property
    def host(self) -> Host:
        raise InvalidConfig("that can happen in a virtual world only, not to this machine")


class VirtualWorld:
    """Machines of a :class:`Network`, each with an address in a /24 of its own."""

    private_addresses: Final = False

    def __init__(
        self,
        seed: int,
        *,
        link: Link = INTERNET,
        nat: NatKind = NatKind.PORT_RESTRICTED,
        trace: Trace | None = None,
    ) -> None:
        """``nat`` is the kind of NAT that unreachable machines are behind."""
        self.nat: Final = nat
        self.network: Final = Network(seed, link=link, trace=trace)
        self._hosts_given = 0

    @property
    def elapsed(self) -> Callable[[], float]:
        return lambda: self.network.loop.now

    def check(self) -> None:
        """Always possible."""

    def machine(self, name: str, *, reachable: bool = True) -> VirtualMachine:
        return VirtualMachine(self, name, reachable=reachable)

    def entropy(self, name: str) -> Entropy:
        return random.Random(f"{self.network.seed}/{name}").randbytes

    def new_address(self) -> str:
        number = self._hosts_given
        self._hosts_given += 1
        high, low = divmod(number, _HOSTS_PER_ROUND)
        return f"11.{high}.{low + 1}.1"


class VirtualMachine:
    """A machine, on the Internet or behind a NAT of its own."""

    def __init__(self, world: VirtualWorld, name: str, *, reachable: bool) -> None:
        self._world = world
        network = world.network
        self.gateway: Final = None if reachable else _home_router(world, name)
        address = world.new_address() if self.gateway is None else "192.168.1.2"
        self.host: Final[Host] = network.host(name, address, behind=self.gateway)
        self.environment: Final = Environment(
            elapsed=self.host.elapsed,
            unix_time=self.host.unix_time,
            entropy=world.entropy(name),
            local_addresses=lambda: self.host.addresses,
        )

    @property
    def address(self) -> str:
        return self.host.addresses[0]

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await self.host.run(work)

    async def end(self, work: Coroutine[Any, Any, object]) -> None:
        if self.host.is_up and not self.host.is_asleep:
            await self.host.run(work)
            return
        work.close()
        if self.host.is_up:
            self.host.kill()

    def gain_address(self) -> str:
        if self.gateway is None:
            self.host.change_ip(self._world.new_address(), *self.host.addresses)
        else:
            self.gateway.change_address(self._world.new_address())
        return self.address

    def lose_address(self) -> None:
        if self.gateway is None:
            # Networks overlap when a machine moves: goodbyes still leave by the old address.
            loop = self._world.network.loop
            loop.happen(loop.now + OVERLAP_S, self.host.change_ip, self.address)

    def kill(self) -> bool:
        self.host.kill()
        return True

    @property
    def disk(self) -> Path | None:
        return self.host.disk


def _home_router(world: VirtualWorld, name: str) -> Gateway:
    nat = Nat(world.nat, world.new_address())
    return world.network.gateway(f"router of {name}", nat)


def _host(number: int) -> str:
    round_, place = divmod(number, _HOSTS_PER_ROUND)
    return f"127.10.{1 + place}.{1 + round_}"

"""World: a DHT of many nodes that have all joined, in virtual time."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

from benchmarks.dht.members import Member
from benchmarks.dht.plane import Plane
from benchmarks.dht.traffic import Traffic
from benchmarks.dht.unmodified import quiet
from simulations.virtual import Host, Network, Session, Trace

__all__ = ["World", "random_address"]

_M = TypeVar("_M", bound=Member)
_T = TypeVar("_T")

Maker: TypeAlias = Callable[[Host, Sequence[str]], _M]
"""Makes a member on a machine, given the addresses of those to join through."""

SEEDS = 4
"""Members that all others join through."""
JOINS_PER_S = 20
SETTLE_S = 300.0
"""Between the last one that joins and the first thing that is measured."""


class World(Generic[_M]):
    """All that is in it follows from ``seed``. Use it with ``with``, then :meth:`boot`. A process
    that ends with it may :meth:`begin` it instead and leave it: to bury a thousand machines that
    are in the middle of a storm takes longer than the storm."""

    def __init__(
        self, makers: Sequence[Maker[_M]], seed: int, *, trace: Trace | None = None
    ) -> None:
        """One member of each of ``makers``, in random places."""
        quiet()
        self.seed = seed
        self.plane = Plane(seed)
        self.traffic = Traffic()
        self.network = Network(seed, link=self.plane, trace=trace or self.traffic)
        self.rng = random.Random(f"{seed}/world")  # noqa: S311
        self.members: list[_M] = []
        self.seeds: list[str] = []
        """Addresses of the first ones."""
        self.boot_datagrams = 0
        self._makers = makers
        self._session = Session(self.network)

    def __enter__(self) -> Self:
        return self.begin()

    def begin(self) -> Self:
        self._session.__enter__()
        # The package leaves exceptions of its tasks to nobody, and goes on.
        self.network.loop.set_exception_handler(lambda *_: None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.__exit__(kind, error, traceback)

    def run(self, story: Coroutine[Any, Any, _T]) -> _T:
        return self._session.run(story)

    def boot(self, settle_s: float = SETTLE_S) -> None:
        """Let all join, and give them ``settle_s`` of virtual time."""
        # Little of what is made here is garbage, and looking for it costs a third of the time.
        gc.set_threshold(100_000, 50, 100)
        self.run(self._boot(settle_s))
        self.boot_datagrams = self.traffic.datagrams
        gc.collect()
        gc.freeze()

    async def _boot(self, settle_s: float) -> None:
        first = [random_address(self.rng, self.network) for _ in range(SEEDS)]
        joining = []
        for number, make in enumerate(self._makers):
            address = first[number] if number < SEEDS else random_address(self.rng, self.network)
            member = make(self.machine(address), first[: min(number, SEEDS)])
            self.members.append(member)
            if number < SEEDS:
                await member.host.run(member.join())
                self.seeds.append(address)
            else:
                joining.append(member.host.spawn(member.join()))
                await asyncio.sleep(1 / JOINS_PER_S)
        await asyncio.gather(*joining)
        await asyncio.sleep(settle_s)

    def machine(self, address: str) -> Host:
        """The one with this address; a new one, if there is none."""
        owner = self.network.internet.owners.get(address)
        if isinstance(owner, Host):
            return owner
        return self.network.host(f"node-{len(self.network.hosts)}", address)


def random_address(rng: random.Random, network: Network) -> str:
    """A public one, of a /24 that is nobody's so far with overwhelming probability."""
    while True:
        first, last = rng.randrange(11, 100), rng.randrange(1, 255)
        address = ".".join(map(str, (first, *rng.randbytes(2), last)))
        if address not in network.internet.owners:
            return address

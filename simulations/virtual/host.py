"""Host: a machine of the simulated network, and what can happen to it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from simulations import virtual
from simulations.virtual.clocks import Clocks
from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.disk import Disk
from simulations.virtual.errors import HostDown, ImpossibleWorld, SimulationError
from simulations.virtual.faults import Fault, Faults
from simulations.virtual.flows import Flows
from simulations.virtual.link import Link
from simulations.virtual.process import Errand, Process, current_process
from simulations.virtual.routing import Net, canonical_ip, wildcard_like
from simulations.virtual.server import Listener
from simulations.virtual.stream import StreamTransport

__all__ = ["Host"]

_T = TypeVar("_T")

EPHEMERAL_PORTS: Final = range(32_768, 61_000)
"""Linux's range."""


class Host:
    """A machine with addresses, a clock that may be wrong, a disk, and one process at a time. Made
    by :meth:`Network.host`.

    Work is started on it with :meth:`run` or :meth:`spawn`; all tasks that the work starts belong
    to the machine as well.
    """

    def __init__(
        self,
        network: virtual.Network,
        name: str,
        addresses: tuple[str, ...],
        net: Net,
        *,
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
    ) -> None:
        self.network: Final = network
        self.name: Final = name
        self.net = net
        self.addresses: tuple[str, ...] = ()
        self.is_up = True
        self.is_asleep = False
        self.firewalls: Final[Faults[str]] = Faults()
        self.process: Process = Process(self)
        self.power_cuts: int = 0
        self.when_awake: list[Callable[[], None]] = []
        """What its kernel does as soon as it wakes up."""
        self.streams: dict[int, StreamTransport] = {}
        self.listeners: dict[tuple[str, int], Listener] = {}
        self.datagrams: dict[tuple[str, int], DatagramTransport] = {}
        self.flows: Final = Flows()
        self.clocks: Final = Clocks(
            network.epoch_s, network.loop.now, offset_s=clock_offset_s, rate=clock_rate
        )
        self._falls_asleep: asyncio.Future[None] = network.loop.create_future()
        self._ports_given = itertools.count()
        self._disk: Final = Disk(name)
        self.rng: Final = random.Random(f"{network.seed}/{name}")
        self._take(addresses)

    def __repr__(self) -> str:
        return f"Host({self.name!r}, {', '.join(self.addresses) or 'no address'})"

    # What runs on it

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` on this machine, and return its result.

        Raises what the work raises, or :class:`HostDown` if the machine is down or crashes
        meanwhile. Cancelling the call cancels the work and waits for its end. If the machine is
        asleep, the work is cancelled when it wakes up, and the call does not wait for that.
        """
        task = self.spawn(work)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            if not self.is_asleep:
                either: list[asyncio.Future[Any]] = [task, self._falls_asleep]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise
        return task.result()

    def spawn(self, work: Coroutine[Any, Any, _T], name: str | None = None) -> asyncio.Task[_T]:
        """Start ``work`` on this machine, and return its task.

        Raises :class:`HostDown` if the machine is down; the task raises it if the machine crashes
        meanwhile. Cancelling the task cancels the work; a machine that is asleep does so when it
        wakes up, which :meth:`run` does not wait for.
        """
        given: object = work
        if not isinstance(given, Coroutine):
            raise TypeError(f"a machine runs a coroutine, such as node.start(), not {given!r}")
        if not self.is_up:
            work.close()
            raise HostDown(f"{self.name} is down")
        process = self.process
        errand = Errand(process, work)
        task = self.network.loop.create_task(errand, name=name, context=process.context.copy())
        # Held here, so that the work goes on even if the caller drops the task.
        process.started.add(task)
        task.add_done_callback(process.started.discard)
        return task

    @property
    def disk(self) -> Path:
        """A folder that survives crashes, unless the disk is lost (see :meth:`restart`)."""
        return self._disk.folder

    # Its clocks and its entropy

    def elapsed(self) -> float:
        """Seconds since the machine was started, including time asleep (CLOCK_BOOTTIME)."""
        return self.clocks.elapsed(self.network.loop.now)

    def unix_time(self) -> float:
        """Its wall clock, in Unix seconds."""
        return self.clocks.wall(self.network.loop.now)

    @property
    def asleep_s(self) -> float:
        """The total seconds that it was asleep, up to when it last woke up."""
        return self.clocks.asleep_s

    def entropy(self, count: int) -> bytes:
        """Random bytes, which depend only on the seed, the name of the machine, and what it drew
        before."""
        return self.rng.randbytes(count)

    # Its addresses and ports

    @property
    def inbound(self) -> str | None:
        """What happens to packets from strangers: None if they get in, "drop" or "refuse"."""
        return self.firewalls.last

    def owns(self, address: str) -> bool:
        """Whether ``address`` leads to this machine, as loopback addresses do."""
        if address in self.addresses:
            return True
        is_loopback = address.startswith("127.") or address == "::1"
        return is_loopback and address not in self.net.owners

    def address(self, like: str) -> str:
        """The address to use towards ``like``: the first of the same family. Raises
        :class:`OSError` if there is none."""
        if self.owns(like):
            return like
        six = ":" in like
        for address in self.addresses:
            if (":" in address) == six:
                return address
        raise OSError(101, "Network is unreachable")

    def free_port(self, taken: dict[tuple[str, int], Any]) -> int:
        """An ephemeral port not in ``taken``. Raises :class:`OSError` if there is none."""
        used = {port for _, port in taken}
        for port in self._ports_in_turn():
            if port not in used:
                return port
        raise OSError(99, "Cannot assign requested address")

    def port_to_connect_from(self) -> int:
        """An ephemeral port that no stream or listener uses. Raises :class:`OSError` if there is
        none."""
        streams, listeners = self.streams.values(), self.listeners
        for port in self._ports_in_turn():
            if all(stream.local[1] != port for stream in streams) and all(
                port != number for _, number in listeners
            ):
                return port
        raise OSError(99, "Cannot assign requested address")

    def _ports_in_turn(self) -> Iterator[int]:
        for number in itertools.islice(self._ports_given, len(EPHEMERAL_PORTS)):
            yield EPHEMERAL_PORTS[number % len(EPHEMERAL_PORTS)]

    def listener(self, address: str, port: int) -> Listener | None:
        """The listener on a TCP port, at this address or the wildcard; None if there is none."""
        here = self.listeners.get((address, port))
        return here or self.listeners.get((wildcard_like(address), port))

    def datagram_socket(self, address: str, port: int) -> DatagramTransport | None:
        """The socket on a UDP port, at this address or the wildcard; None if there is none."""
        here = self.datagrams.get((address, port))
        return here or self.datagrams.get((wildcard_like(address), port))

    # What happens to it

    def change_ip(self, *addresses: str) -> None:
        """Give the machine these addresses and no others. Its programs are not told; what is sent
        from or to an old address is lost. Raises :class:`ImpossibleWorld`."""
        if not addresses:
            raise ImpossibleWorld(f"{self.name} needs an address")
        former = self.addresses
        for address in former:
            self.net.give_back(address)
        try:
            self._take(addresses)
        except ImpossibleWorld:
            self.addresses = ()
            self._take(former)
            raise
        self._note(f"{self.name} has address {', '.join(self.addresses)}", "address")
        self.probe_lines()

    def probe_lines(self) -> None:
        """Make both sides of every connection here that wait for room probe whether there is still
        a way."""
        for stream in list(self.streams.values()):
            stream.probe()
            stream.remote.probe()

    def crash(self) -> None:
        """Cut the power: the program is gone, and nobody is told."""
        process = self._stop("crashes")
        self.is_up = False
        self.power_cuts += 1
        for stream in list(self.streams.values()):
            stream.vanish()
        self._bury(process)

    def kill(self) -> None:
        """Kill the program. The machine goes on, and closes the program's sockets."""
        process = self._stop("is killed")
        for stream in list(self.streams.values()):
            stream.close_for_dead()
        self._bury(process)
        self.process = Process(self)

    def restart(self, *, keep_disk: bool = True, clock_offset_s: float | None = None) -> None:
        """Start the machine again, crashing it first if it is up. Nothing runs on it then.

        :param keep_disk: False if the disk is lost.
        :param clock_offset_s: by how many seconds the wall clock is ahead from now on; negative on
            a machine without a real-time clock. None to leave it.
        """
        if self.is_up:
            self.crash()
        if not keep_disk:
            self._disk.lose()
        if clock_offset_s is not None:
            self.clocks.set_offset(clock_offset_s)
        self.is_up = True
        self.clocks.boot(self.network.loop.now)
        self.process = Process(self)
        self._note(f"{self.name} starts again{'' if keep_disk else ' with an empty disk'}", "up")

    def sleep(self) -> None:
        """Suspend the machine, like a laptop whose lid is closed: it does nothing and answers
        nothing, and its monotonic clock stands still."""
        self._check_not_inside("sleep")
        if not self.is_up or self.is_asleep:
            raise ImpossibleWorld(f"{self.name} is {'already asleep' if self.is_up else 'down'}")
        self._note(f"{self.name} falls asleep", "asleep")
        self.is_asleep = True
        self.clocks.stop(self.network.loop.now)
        self._falls_asleep.set_result(None)
        self._falls_asleep = self.network.loop.create_future()
        self.network.loop.put_to_sleep(self.process)

    def wake(self) -> None:
        """Resume the machine where it was. Its wall clock and its elapsed time have gone on."""
        if not self.is_asleep:
            raise ImpossibleWorld(f"{self.name} is not asleep")
        self._end_sleep()
        self.network.loop.wake(self.process)
        self._note(f"{self.name} wakes up", "up")
        for stream in list(self.streams.values()):
            stream.wake()

    def step_clock(self, seconds: float) -> None:
        """Move the wall clock by ``seconds``, forward or backward."""
        self.clocks.step(seconds)
        self._note(f"the clock of {self.name} jumps by {seconds:g} s", "clock")

    def block_inbound(self, how: str = "drop") -> Fault:
        """Let no stranger in: new connections are dropped silently (``"drop"``) or refused
        (``"refuse"``), and datagrams pass only from those that were sent some in the last two
        minutes. Open connections stay."""
        return self.network.block_inbound(self, how)

    def degrade(self, link: Link) -> Fault:
        """See :meth:`Network.degrade`."""
        return self.network.degrade(self, link)

    def end(self) -> None:
        """The world ends: leave nothing behind, not even on the real disk."""
        self.process.alive = self.is_up = False
        for stream in list(self.streams.values()):
            stream.vanish()
        self._disk.discard()

    def _stop(self, how: str) -> Process:
        self._check_not_inside("crash")
        if not self.is_up:
            raise ImpossibleWorld(f"{self.name} is already down")
        self._note(f"{self.name} {how}", "down")
        if self.is_asleep:
            self._end_sleep()
        self.process.alive = False
        return self.process

    def _end_sleep(self) -> None:
        loop = self.network.loop
        self.is_asleep = False
        self.clocks.go_on(loop.now)
        due, self.when_awake = self.when_awake, []
        for callback in due:
            loop.happen(loop.now, callback)

    def _bury(self, process: Process) -> None:
        for listener in list(self.listeners.values()):
            listener.close()
        for socket in list(self.datagrams.values()):
            socket.vanish()
        self.flows.forget()
        kept = self._disk.copy()
        self.network.loop.bury(process)
        self._disk.restore(kept)

    def _take(self, addresses: tuple[str, ...]) -> None:
        taken: list[str] = []
        try:
            for address in map(canonical_ip, addresses):
                self.net.take(address, self)
                taken.append(address)
        except ImpossibleWorld:
            for address in taken:
                self.net.give_back(address)
            raise
        self.addresses = tuple(taken)

    def _check_not_inside(self, what: str) -> None:
        if current_process() is self.process:
            raise SimulationError(
                f"{self.name} cannot {what} from within: call it from the story, or from a task "
                "that does not run on this machine"
            )

    def _note(self, text: str, kind: str) -> None:
        self.network.note(text, self, kind=kind)

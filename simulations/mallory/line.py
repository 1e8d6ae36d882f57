"""Line: Mallory on every line of a virtual network.

She reads the frames of all TCP connections, keeps a copy of each, and decides whether it goes on,
when, in which order and how often. She has nobody's keys: frames are bytes with a length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from egtp.channel.frames import LENGTH_BYTES, frame
from egtp.channel.packet import INITIATION
from simulations.virtual import Network
from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.nat import Endpoint
from simulations.virtual.stream import StreamTransport

__all__ = ["Flow", "Line", "Recorded"]

RECORDED_MAX: Final = 20_000
RECORDED_BYTES_MAX: Final = 64 * 1024 * 1024
"""What Mallory keeps, the newest of it."""


class Recorded(NamedTuple):
    """A frame that passed, or did not."""

    at_s: float
    source: str
    """Host names."""
    target: str
    endpoint: Endpoint
    """Where the connection leads: what to dial to bring the frame there again. Of frames that go
    back to the one who dialled, the dialler's own port, which takes no connections."""
    upstream: bool
    """Whether it goes from the one who dialled to the one who listens."""
    connection: int
    packet: bytes

    @property
    def is_initiation(self) -> bool:
        return self.packet[:1] == bytes((INITIATION,))


@dataclass(slots=True, eq=False)
class Flow:
    """One direction of one connection."""

    stream: StreamTransport
    upstream: bool
    partial: bytes = b""
    """Of a frame whose rest has not come yet."""
    held: deque[object] | None = None
    """What Mallory holds back, in order, ends of streams included; None if she lets all pass."""
    drop: int = 0
    """How many of the next frames get lost."""
    duplicate: int = 0
    """How many of the next frames arrive twice."""
    swap: int = 0
    """How many of the next frames arrive after the one behind them."""
    swapped: bytes | None = None

    @property
    def is_alive(self) -> bool:
        return self.stream.is_open and self.stream.remote.is_open


class Line:
    """A tap on all lines. What Mallory's own machines write she does not disturb."""

    def __init__(self, network: Network, own: frozenset[str] = frozenset()) -> None:
        """``own`` are the names of Mallory's machines."""
        self._network = network
        self._own = own
        self.recorded: Final[deque[Recorded]] = deque()
        self._recorded_bytes = 0
        self.flows: Final[dict[int, Flow]] = {}
        """Live ones, by the number of their stream, oldest first."""
        self.hold_new = False
        """Whether connections made from now on are held from their first frame."""
        self.watch: Callable[[StreamTransport, bytes], None] | None = None
        """Told each frame that a program gives to a socket, before anything else happens to it."""
        self._written: dict[int, bytes] = {}
        network.tap = self

    # What passes (the tap)

    def wrote(self, stream: StreamTransport, data: bytes) -> None:
        if self.watch is None or stream.host.name in self._own:
            return
        packets, rest = _split(self._written.get(stream.number, b"") + data)
        self._written[stream.number] = rest
        for packet in packets:
            self.watch(stream, packet)

    def takes(self, stream: StreamTransport, piece: object) -> bool:
        if stream.host.name in self._own or stream.remote.host.name in self._own:
            return False
        flow = self._flow(stream)
        if not isinstance(piece, bytes):
            self._end(flow, piece)
        elif piece:
            packets, flow.partial = _split(flow.partial + piece)
            for packet in packets:
                self._record(flow, packet)
                self._pass(flow, frame(packet))
        else:
            return False
        return True

    def takes_datagram(self, _: DatagramTransport, __: bytes, ___: Endpoint) -> bool:
        """Datagrams are left to the lines, which lose, repeat and reorder them anyway."""
        return False

    def _pass(self, flow: Flow, data: bytes) -> None:
        if flow.held is not None:
            flow.held.append(data)
        elif flow.drop:
            flow.drop -= 1
        elif flow.swap and flow.swapped is None:
            flow.swap -= 1
            flow.swapped = data
        else:
            flow.stream.outflow.put_on_line(data)
            if flow.duplicate:
                flow.duplicate -= 1
                flow.stream.outflow.put_on_line(data)
            if flow.swapped is not None:
                flow.stream.outflow.put_on_line(flow.swapped)
                flow.swapped = None

    def _end(self, flow: Flow, end: object) -> None:
        for rest in (flow.swapped, flow.partial):
            if rest and flow.held is not None:
                flow.held.append(rest)
            elif rest:
                flow.stream.outflow.put_on_line(rest)
        flow.swapped, flow.partial = None, b""
        if flow.held is not None:
            flow.held.append(end)
        else:
            flow.stream.outflow.put_on_line(end)  # type: ignore[arg-type]

    def _flow(self, stream: StreamTransport) -> Flow:
        flow = self.flows.get(stream.number)
        if flow is None:
            if len(self.flows) > 64:
                self._forget_dead()
            # Of the two sides, the one that dialled was made first.
            flow = Flow(stream, stream.number < stream.remote.number)
            if self.hold_new:
                flow.held = deque()
            self.flows[stream.number] = flow
        return flow

    def _forget_dead(self) -> None:
        for number in [n for n, flow in self.flows.items() if not flow.is_alive and not flow.held]:
            del self.flows[number]
            self._written.pop(number, None)

    def _record(self, flow: Flow, packet: bytes) -> None:
        stream = flow.stream
        self.recorded.append(
            Recorded(
                self._network.loop.now,
                stream.host.name,
                stream.remote.host.name,
                stream.peername,
                flow.upstream,
                min(stream.number, stream.remote.number),
                packet,
            )
        )
        self._recorded_bytes += len(packet)
        while len(self.recorded) > RECORDED_MAX or self._recorded_bytes > RECORDED_BYTES_MAX:
            self._recorded_bytes -= len(self.recorded.popleft().packet)

    # What she does

    @property
    def live(self) -> list[Flow]:
        """The flows that she can still do something to, oldest first."""
        return [flow for flow in self.flows.values() if flow.is_alive or flow.held]

    def hold(self, flow: Flow) -> None:
        """Keep what comes from now on, until :meth:`release`."""
        if flow.held is None:
            flow.held = deque()

    def release(self, flow: Flow, count: int | None = None) -> None:
        """Let the first ``count`` held pieces go on; all of them, and what comes later, without."""
        held = flow.held
        if held is None:
            return
        for _ in range(len(held) if count is None else min(count, len(held))):
            flow.stream.outflow.put_on_line(held.popleft())  # type: ignore[arg-type]
        if count is None:
            flow.held = None

    def release_all(self) -> None:
        """Disturb nothing any more."""
        self.hold_new = False
        for flow in self.flows.values():
            flow.drop = flow.duplicate = flow.swap = 0
            self.release(flow)
            if flow.swapped is not None:
                flow.stream.outflow.put_on_line(flow.swapped)
                flow.swapped = None

    def kill(self, flow: Flow) -> None:
        """Reset the connection. What she held of it never arrives."""
        for number in (flow.stream.number, flow.stream.remote.number):
            if (other := self.flows.pop(number, None)) is not None:
                other.held = None
        flow.stream.reset_by_the_line()


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames' packets, and what is left."""
    packets, at = [], 0
    while len(data) - at >= LENGTH_BYTES:
        end = at + LENGTH_BYTES + int.from_bytes(data[at : at + LENGTH_BYTES], "big")
        if end > len(data):
            break
        packets.append(data[at + LENGTH_BYTES : end])
        at = end
    return packets, data[at:]

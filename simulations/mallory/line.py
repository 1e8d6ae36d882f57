"""Line: Mallory on every line of a virtual network.

She reads the frames of all TCP connections, keeps a copy of each, and decides whether, when, in
which order and how often it goes on. She has nobody's keys: to her, frames are bytes with a length.
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
"""How much Mallory keeps, the newest frames."""


class Recorded(NamedTuple):
    """A frame that passed, or did not."""

    at_s: float
    source: str
    """A host name, like ``target``."""
    target: str
    endpoint: Endpoint
    """The address to dial to deliver the frame again. For frames back to the dialler, the dialler's
    own port, which accepts no connections."""
    upstream: bool
    """Whether it goes from the dialler to the listener."""
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
    """The beginning of a frame whose rest has not come yet."""
    held: deque[object] | None = None
    """The pieces that Mallory holds back, in order, ends of streams included; None if all pass."""
    drop: int = 0
    """How many of the next frames to lose."""
    duplicate: int = 0
    """How many of the next frames to deliver twice."""
    swap: int = 0
    """How many of the next frames to deliver after their successor."""
    swapped: bytes | None = None

    @property
    def is_alive(self) -> bool:
        return self.stream.is_open and self.stream.remote.is_open


class Line:
    """A tap on all lines. Mallory leaves the traffic of her own machines alone."""

    def __init__(self, network: Network, own: frozenset[str] = frozenset()) -> None:
        """``own`` are the names of Mallory's machines."""
        self._network = network
        self._own = own
        self.recorded: Final[deque[Recorded]] = deque()
        self._recorded_bytes = 0
        self.flows: Final[dict[int, Flow]] = {}
        """The live flows by the number of their stream, oldest first."""
        self.hold_new = False
        """Whether connections made from now on are held from their first frame."""
        self.watch: Callable[[StreamTransport, bytes], None] | None = None
        """Called with each frame that a program gives to a socket, before anything else sees it."""
        self._written: dict[int, bytes] = {}
        network.tap = self

    # The tap

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
        """Never: the lines lose, repeat and reorder datagrams anyway."""
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
            # The dialler's side was created first.
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

    # Mallory's actions

    @property
    def live(self) -> list[Flow]:
        """The flows that she can still affect, oldest first."""
        return [flow for flow in self.flows.values() if flow.is_alive or flow.held]

    def hold(self, flow: Flow) -> None:
        """Hold back everything from now on, until :meth:`release`."""
        if flow.held is None:
            flow.held = deque()

    def release(self, flow: Flow, count: int | None = None) -> None:
        """Let the first ``count`` held pieces go on; if None, all of them and all later ones."""
        held = flow.held
        if held is None:
            return
        for _ in range(len(held) if count is None else min(count, len(held))):
            flow.stream.outflow.put_on_line(held.popleft())  # type: ignore[arg-type]
        if count is None:
            flow.held = None

    def release_all(self) -> None:
        """Let everything pass from now on."""
        self.hold_new = False
        for flow in self.flows.values():
            flow.drop = flow.duplicate = flow.swap = 0
            self.release(flow)
            if flow.swapped is not None:
                flow.stream.outflow.put_on_line(flow.swapped)
                flow.swapped = None

    def kill(self, flow: Flow) -> None:
        """Reset the connection. Pieces that she held of it never arrive."""
        for number in (flow.stream.number, flow.stream.remote.number):
            if (other := self.flows.pop(number, None)) is not None:
                other.held = None
        flow.stream.reset_by_the_line()


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The packets of all complete frames, and the remaining bytes."""
    packets, at = [], 0
    while len(data) - at >= LENGTH_BYTES:
        end = at + LENGTH_BYTES + int.from_bytes(data[at : at + LENGTH_BYTES], "big")
        if end > len(data):
            break
        packets.append(data[at + LENGTH_BYTES : end])
        at = end
    return packets, data[at:]

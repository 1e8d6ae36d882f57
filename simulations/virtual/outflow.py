"""Outflow: one direction of a connection, from the kernel that sends to the one that receives.

Data given to the kernel of a live machine arrives, in order, as soon as a way is open, or the
connection breaks. A kernel learns of the arrival only from the acknowledgement, which travels back
separately: if the line is cut in that direction, nothing is acknowledged, so the sender runs out of
room and at last gives up, although everything has arrived. Acknowledgements take no time unless
somebody waits for them.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, TypeAlias

from simulations.virtual.routing import Gateway, Route

if TYPE_CHECKING:
    from simulations.virtual.network import Network
    from simulations.virtual.stream import StreamTransport

__all__ = ["GIVE_UP_S", "WINDOW_BYTES", "End", "Outflow", "Piece"]

WINDOW_BYTES: Final = 256 * 1024
"""Bytes that may be under way in one direction, in the kernels of both sides together."""
CUT_SHARE: Final = 1 / 16
"""The share of segments that arrive in two pieces, cut anywhere, to expose programs that rely on
message boundaries."""
RETRY_MIN_S: Final = 0.2
RETRY_MAX_S: Final = 120.0
GIVE_UP_S: Final = 924.6
"""How long Linux retransmits without an acknowledgement (tcp_retries2 = 15)."""


class End(enum.Enum):
    """How the data of one direction can end."""

    FIN = "fin"
    RESET = "rst"


Piece: TypeAlias = "bytes | End"


class Outflow:
    """The direction from ``stream`` to its ``remote``."""

    def __init__(self, network: Network, stream: StreamTransport, way: Route) -> None:
        self._network = network
        self._loop = network.loop
        self._stream = stream
        self._way = way
        self._power_cuts = stream.host.power_cuts
        self.in_flight = 0
        """Bytes sent and not yet acknowledged as read."""
        self._unheard_of = 0
        """Those of them that were read, but not acknowledged, as nothing could come back."""
        self._last_arrival_s = 0.0
        self._told_of_room = False
        # While in trouble, the kernel retransmits, and gives up after a while.
        self._stuck: list[Piece] = []
        """Pieces that could not get through, in order."""
        self._unanswered = False
        """Whether something arrived, or the kernel probed, and no acknowledgement came back."""
        self._troubles = 0
        self._trouble_since_s = 0.0
        self._retry_s = RETRY_MIN_S

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return WINDOW_BYTES - self.in_flight

    @property
    def is_stuck(self) -> bool:
        return bool(self._stuck)

    def not_before(self, at_s: float) -> None:
        """Let nothing arrive before ``at_s``, when the other side learns of the connection."""
        self._last_arrival_s = at_s

    def send(self, piece: Piece) -> None:
        tap = self._network.tap
        if tap is None or not tap.takes(self._stream, piece):
            self.put_on_line(piece)

    def put_on_line(self, piece: Piece) -> None:
        """Send a piece to the other side, behind those sent before."""
        network, stream = self._network, self._stream
        now_s = self._loop.now
        name, data = ("tcp", piece) if isinstance(piece, bytes) else (piece.value, b"")
        self.in_flight += len(data)
        network.trace.packet(now_s, name, stream.local, stream.peername, data)
        there = stream.remote.host.name
        at_s = network.lines.segment(stream.host.name, there, len(data), now_s)
        self._last_arrival_s = max(at_s, self._last_arrival_s)
        self._loop.happen(self._last_arrival_s, self._arrive, piece)

    def wait_for_room(self) -> None:
        """The program has more to send than there is room. If acknowledgements are missing, probe
        for room."""
        if self._unheard_of and not self._is_in_trouble:
            self._unanswered = True
            self._begin_trouble()

    def read(self, size: int) -> None:
        """The program on the other side read ``size`` bytes from its kernel."""
        self._unheard_of += size
        if self._hears_back():
            self._hear()
        elif self._stream.has_unsent:
            self.wait_for_room()

    # Under way

    def _arrive(self, piece: Piece) -> None:
        """A segment would arrive now: it does if there is a way and nothing waits before it."""
        if self._stuck:
            self._stuck.append(piece)
        elif not self._gets_there():
            if not self._is_in_trouble:
                self._begin_trouble()
            self._stuck.append(piece)
        else:
            self._hand_over(piece)
            if self._hears_back():
                self._hear()
            elif self._stream.is_open and not self._unanswered:
                self._unanswered = True
                self._begin_trouble()

    def _hand_over(self, piece: Piece) -> None:
        stream, remote = self._stream, self._stream.remote
        if not remote.is_open or not remote.host.owns(remote.local[0]):
            # No kernel there knows this connection: it was closed, or the machine restarted.
            if piece is not End.RESET:
                stream.break_later(ConnectionResetError(104, "Connection reset by peer"))
            return
        rng = self._network.rng
        if isinstance(piece, bytes) and len(piece) > 1 and rng.random() < CUT_SHARE:
            cut = rng.randrange(1, len(piece))
            remote.take(piece[:cut])
            piece = piece[cut:]
        remote.take(piece)

    def _gets_there(self) -> bool:
        """Whether a packet gets from here to the other side now."""
        stream, remote = self._stream, self._stream.remote
        here, there = stream.host, remote.host
        if not there.is_up or there.is_asleep or not here.owns(stream.local[0]):
            return False
        is_open = self._network.lines.is_open
        # A closed connection is answered with a reset, which must be able to come back.
        answered = remote.is_open or is_open(there.name, here.name)
        if not answered or not is_open(here.name, there.name):
            return False
        if self._way.mappings:
            return self._way.is_live(self._loop.now) and there.owns(remote.local[0])
        if there.owns(remote.local[0]):
            return True
        # Its address may belong to another machine by now, which does not know the connection.
        owner = here.net.owners.get(remote.local[0])
        if owner is None or isinstance(owner, Gateway) or owner.inbound == "drop":
            return False
        return owner.is_up and not owner.is_asleep and is_open(here.name, owner.name)

    # What comes back

    def _hears_back(self) -> bool:
        """Whether answers of the other side's kernel get here."""
        stream = self._stream
        return self._network.lines.is_open(stream.remote.host.name, stream.host.name)

    def _hear(self) -> None:
        """An acknowledgement arrives: for everything before it, and with the room there is."""
        if self._unanswered:
            self._unanswered = False
            self._troubles += 1
        if not self._unheard_of:
            return
        self.in_flight -= self._unheard_of
        self._unheard_of = 0
        stream = self._stream
        if stream.has_unsent and stream.is_open and not self._told_of_room:
            self._told_of_room = True
            there, here = stream.remote.host.name, stream.host.name
            at_s = self._network.lines.segment(there, here, 0, self._loop.now)
            self._loop.happen(at_s, self._has_room)

    def _has_room(self) -> None:
        self._told_of_room = False
        self._stream.pumped()

    # Trouble

    @property
    def _is_in_trouble(self) -> bool:
        return self._unanswered or bool(self._stuck)

    def _begin_trouble(self) -> None:
        self._troubles += 1
        self._trouble_since_s = self._clock()
        self._retry_s = RETRY_MIN_S
        self._loop.happen(self._loop.now + self._retry_s, self._retry, self._troubles)

    def _retry(self, trouble: int) -> None:
        """Retransmit what could not get through, or was not acknowledged."""
        if trouble != self._troubles:
            return
        stream = self._stream
        if self._power_cuts != stream.host.power_cuts:
            # Keep what is stuck: nothing sent after it may arrive without it.
            stream.fall_silent()
            return
        if stream.host.is_asleep:
            stream.host.when_awake.append(lambda: self._retry(trouble))
            return
        if self._gets_there():
            while self._stuck:
                self._hand_over(self._stuck.pop(0))
            self._unanswered = True
            if self._hears_back():
                self._hear()
                return
            if not stream.is_open:
                return
        if self._clock() - self._trouble_since_s > GIVE_UP_S:
            self._give_up()
        else:
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
            self._loop.happen(self._loop.now + self._retry_s, self._retry, trouble)

    def _give_up(self) -> None:
        error = TimeoutError(110, "Connection timed out")
        stream = self._stream
        stream.break_off(error)
        stream.fall_silent()
        if End.RESET in self._stuck and stream.remote.outflow.in_flight:
            # The reset was the answer that the other side is waiting for.
            stream.remote.break_off(error)

    def _clock(self) -> float:
        """Time without the machine's sleep; valid only while it is awake."""
        return self._loop.now - self._stream.host.clocks.asleep_s

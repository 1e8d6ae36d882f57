"""StreamTransport: TCP as a program sees it through asyncio.

Data that waits in the program for room in its kernel is here, and so is data that waits in a kernel
for the program to read it; an :class:`Outflow` per direction carries what is in between.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from simulations.virtual.nat import Endpoint
from simulations.virtual.outflow import End, Outflow, Piece
from simulations.virtual.routing import Route, as_seen
from simulations.virtual.write_buffer import WriteBuffer

if TYPE_CHECKING:
    from simulations.virtual.host import Host
    from simulations.virtual.network import Network

__all__ = ["StreamTransport", "connect_pair"]

Buffer: TypeAlias = bytes | bytearray | memoryview


class StreamTransport(asyncio.Transport):
    """One side of a connection."""

    def __init__(
        self, network: Network, host: Host, local: Endpoint, peername: Endpoint, way: Route
    ) -> None:
        super().__init__({"peername": as_seen(peername), "sockname": as_seen(local)})
        self._extra["socket"] = self  # type: ignore[attr-defined]
        self._network = network
        self._loop = network.loop
        self.host: Final = host
        self.local: Final = local
        self.peername: Final = peername
        self.number: Final = network.loop.next_number()
        self.remote: StreamTransport = self
        """The other side; set before anything is sent."""
        self.outflow: Final = Outflow(network, self, way)
        self._context = contextvars.Context()
        self._protocol: Any = None
        # Sending
        self._unsent: Final = WriteBuffer(self.outflow)
        self._wrote_eof = False
        """Whether the program called write_eof."""
        self._said_end = False
        # Receiving
        self._unread: list[Piece] = []
        self._reading = True
        self._heard_end = False
        # Lifetime
        self._started = False
        self._closing = False
        self._ended = False
        """Whether connection_lost was called, or is about to be."""
        self.is_open = True
        """Whether the kernel knows the connection."""
        host.streams[self.number] = self

    # For protocols

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.happen(self._loop.now, self._read)

    def get_write_buffer_size(self) -> int:
        return self._unsent.size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._unsent.limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._unsent.set_limits(high, low)
        self._maybe_pause()

    def write(self, data: Buffer) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is bytes-like, not {type(data).__name__}")
        if self._wrote_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._ended or not self.is_open:
            return
        if self._network.tap is not None:
            self._network.tap.wrote(self, bytes(data))
        self._unsent.add(bytes(data))
        self._maybe_pause()

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._wrote_eof and not self._closing:
            self._wrote_eof = self._said_end = True
            self._unsent.add(End.FIN)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._reading = False
        if not self._unsent:
            self._finish(None)

    def abort(self) -> None:
        self._force_close(None)

    # The socket's own methods

    def getsockname(self) -> tuple[Any, ...]:
        return as_seen(self.local)

    def getpeername(self) -> tuple[Any, ...]:
        return as_seen(self.peername)

    def setsockopt(self, *_: Any) -> None:
        """Ignored: there are no options."""

    # Beginning

    def begin(self, protocol: Any, waiter: asyncio.Future[None] | None) -> None:
        """Must be called in the context that the protocol's callbacks are to run in."""
        self._context = contextvars.copy_context()
        self._protocol = protocol
        self._loop.call_soon(self._begun, waiter)

    def _begun(self, waiter: asyncio.Future[None] | None) -> None:
        if self._ended:
            if waiter is not None and not waiter.done():
                waiter.set_exception(ConnectionResetError(104, "Connection reset by peer"))
            return
        try:
            self._protocol.connection_made(self)
        finally:
            self._started = True
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            self._loop.happen(self._loop.now, self._read)

    def refuse(self) -> None:
        """Reset a connection that the other side takes for established, but nobody accepts."""
        self._ended = self._closing = True
        self._say_reset()
        self._forget()

    # Sending

    @property
    def has_unsent(self) -> bool:
        """Whether the program waits for room in its kernel."""
        return bool(self._unsent)

    def pumped(self) -> None:
        """The other side announced that there is room again."""
        if self._ended or not self.host.is_up or self.host.is_asleep:
            return
        self._unsent.pump()
        if self._unsent.resumes():
            self._context.run(self._call, self._protocol.resume_writing, harmless=True)
        if self._closing and not self._unsent and not self._ended:
            self._finish(None)

    def _maybe_pause(self) -> None:
        if self._unsent.pauses():
            self._call(self._protocol.pause_writing, harmless=True)

    def probe(self) -> None:
        """Probe for room, as a kernel does now and then: so a writer that waits for a reader that
        is gone finds out."""
        if not self._unsent or not self.is_open or self.outflow.is_stuck:
            return
        if self.host.is_asleep:
            self.host.when_awake.append(self.probe)
        else:
            self.outflow.send(b"")

    # Receiving

    def take(self, piece: Piece) -> None:
        """A piece arrived for this side."""
        # A program that neither reads nor writes does not notice a reset yet.
        unseen = self._started and not (self._reading or self._closing or self._unsent)
        if piece is End.RESET and not unseen:
            self.break_off(ConnectionResetError(104, "Connection reset by peer"))
            return
        if not piece:
            return
        self._unread.append(piece)
        if self._closing and self._ended:
            # Closed by the program, still open in the kernel: nobody will ever read this.
            self._unread.clear()
            if piece is not End.FIN:
                self._say_reset()
            self._forget()
        else:
            self._read()

    def _read(self) -> None:
        """Hand the program what its kernel has received."""
        while self._unread and self._reading and self._started and not self._ended:
            if self.host.is_asleep:
                return
            piece = self._unread.pop(0)
            if isinstance(piece, bytes):
                # A stream has no boundaries: data that has waited comes as one piece.
                while self._unread and isinstance(self._unread[0], bytes):
                    piece += self._unread.pop(0)  # type: ignore[operator]
                if isinstance(self._protocol, asyncio.BufferedProtocol):
                    self._context.run(self._fill_buffer, piece)
                    continue
                self.remote.outflow.read(len(piece))
                self._context.run(self._call, self._protocol.data_received, piece)
            elif piece is End.FIN:
                self._context.run(self._end_heard)
            else:
                self.break_off(ConnectionResetError(104, "Connection reset by peer"))

    def _fill_buffer(self, piece: bytes) -> None:
        """Fill the buffer of a BufferedProtocol with as much as fits."""
        buffer = self._call(self._protocol.get_buffer, -1)
        if buffer is None:
            return
        size = min(len(buffer), len(piece))
        memoryview(buffer)[:size] = piece[:size]
        if size < len(piece):
            self._unread.insert(0, piece[size:])
        self.remote.outflow.read(size)
        self._call(self._protocol.buffer_updated, size)

    def _end_heard(self) -> None:
        self._heard_end = True
        stays_open = self._call(self._protocol.eof_received)
        if not stays_open:
            self.close()

    # Ending

    def _finish(self, error: Exception | None) -> None:
        """The kernel has all of the program's data: close."""
        self._tell_lost(error)
        if any(isinstance(piece, bytes) for piece in self._unread):
            # Received data that will never be read is lost, which a reset tells the other side.
            self._unread.clear()
            self._say_reset()
            self._forget()
            return
        if not self._said_end:
            self._said_end = True
            self.outflow.send(End.FIN)
        if self._heard_end or End.FIN in self._unread or not self.remote.is_open:
            self._forget()

    def _force_close(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._drop_unsent()
        self._closing = True
        self._reading = False
        self._finish(error)

    def _drop_unsent(self) -> None:
        if self._unsent.drop():
            self._said_end = False

    def break_off(self, error: Exception) -> None:
        """This side's kernel finds out that the connection is gone."""
        if not self.is_open or not self.host.is_up:
            return
        self.fall_silent()
        self._drop_unsent()
        self._closing = True
        if not self._ended:
            self._tell_lost(error)

    def break_later(self, error: Exception) -> None:
        """The same, once the answer to what was sent has travelled back."""
        there, here = self.remote.host.name, self.host.name
        at_s = self._network.lines.segment(there, here, 0, self._loop.now)
        self._loop.happen(at_s, self.break_off, error)

    def _tell_lost(self, error: Exception | None) -> None:
        self._ended = True
        if self._protocol is not None:
            self._loop.call_soon(
                self._call, self._protocol.connection_lost, error, context=self._context
            )

    def _say_reset(self) -> None:
        self.outflow.send(End.RESET)

    def _forget(self) -> None:
        self.is_open = False
        self.host.streams.pop(self.number, None)

    def fall_silent(self) -> None:
        """This side sends nothing more. If the other side's program has closed too, its kernel
        forgets the connection now; a real one would keep it for another minute."""
        self._forget()
        if self.remote._ended:
            self.remote._forget()
        else:
            self.remote.probe()

    # Events of the machine

    def vanish(self) -> None:
        """The machine lost power."""
        self.fall_silent()
        self._ended = self._closing = True
        self._drop_unsent()

    def reset_by_the_line(self) -> None:
        """A device in between resets the connection for both sides."""
        for side in (self, self.remote):
            side.break_off(ConnectionResetError(104, "Connection reset by peer"))

    def close_for_dead(self) -> None:
        """The program was killed: its kernel closes the connection."""
        if not self._ended:
            self._protocol = None
            self._drop_unsent()
            self._closing = True
            self._finish(None)

    def wake(self) -> None:
        """The machine wakes up; data may have arrived while it slept."""
        self._loop.happen(self._loop.now, self._read)
        self._loop.happen(self._loop.now, self.pumped)

    def _call(self, callback: Callable[..., Any], *args: Any, harmless: bool = False) -> Any:
        """Call the protocol. As in asyncio, an exception breaks this connection only; one from a
        ``harmless`` callback, pause or resume, breaks nothing."""
        try:
            return callback(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {
                    "message": "Fatal error: a protocol's callback failed.",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
            if not harmless:
                self._force_close(error if isinstance(error, Exception) else None)
            return None


def connect_pair(
    network: Network, way: Route, back: Route, host: Host, local: Endpoint, asked: Endpoint
) -> tuple[StreamTransport, StreamTransport]:
    """The two sides of a new connection: the dialler's and the listener's."""
    asking = StreamTransport(network, host, local, asked, way)
    answering = StreamTransport(network, way.target, way.destination, way.source, back)
    asking.remote, answering.remote = answering, asking
    return asking, answering

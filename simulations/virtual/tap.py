"""Tap: somebody who sits on every line, reads what passes, and decides whether it does."""

from __future__ import annotations

from typing import Protocol

from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.nat import Endpoint
from simulations.virtual.stream import StreamTransport

__all__ = ["Tap"]


class Tap(Protocol):
    """Set as :attr:`Network.tap`. What she takes goes on only if she calls ``put_on_line`` of
    the stream's outflow or of the socket, then or later, with the same bytes or others."""

    def wrote(self, stream: StreamTransport, data: bytes) -> None:
        """A program has given these bytes to a stream. They may not have left it yet."""

    def takes(self, stream: StreamTransport, piece: object) -> bool:
        """A piece of a stream is about to go on the line: bytes, or how the stream ends."""

    def takes_datagram(self, socket: DatagramTransport, data: bytes, target: Endpoint) -> bool:
        """A datagram is about to go on the line."""

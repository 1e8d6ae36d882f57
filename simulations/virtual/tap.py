"""Tap: an attacker on every line, who reads what passes and decides whether it does."""

from __future__ import annotations

from typing import Protocol

from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.nat import Endpoint
from simulations.virtual.stream import StreamTransport

__all__ = ["Tap"]


class Tap(Protocol):
    """An attacker on every line, set as :attr:`Network.tap`. What it takes goes on only if it calls
    ``put_on_line`` of the stream's outflow or of the socket, then or later, with the same bytes or
    others."""

    def wrote(self, stream: StreamTransport, data: bytes) -> None:
        """Called when a program has written ``data`` to a stream, which it may not have left
        yet."""

    def takes(self, stream: StreamTransport, piece: object) -> bool:
        """Called when a piece of a stream is about to go on the line: bytes, or how the stream
        ends. Returns whether it is taken off the line."""

    def takes_datagram(self, socket: DatagramTransport, data: bytes, target: Endpoint) -> bool:
        """Called when a datagram is about to go on the line. Returns whether it is taken off the
        line."""

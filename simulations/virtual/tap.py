"""Tap: an attacker on every line, who reads all packets and decides which of them pass."""

from __future__ import annotations

from typing import Protocol

from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.nat import Endpoint
from simulations.virtual.stream import StreamTransport

__all__ = ["Tap"]


class Tap(Protocol):
    """An attacker or observer on every line, set as :attr:`Network.tap`. Whatever it takes goes on
    only if it calls ``stream.outflow.put_on_line(piece)`` or ``socket.put_on_line(data, target)``,
    at once or later, with the same bytes or others. ``stream.host`` and ``socket.host`` are the
    machine that sends."""

    def wrote(self, stream: StreamTransport, data: bytes) -> None:
        """Called when a program has written ``data`` to a stream; it may not be on the line
        yet."""

    def takes(self, stream: StreamTransport, piece: object) -> bool:
        """Called when a piece of a stream is about to go on the line: bytes, or how the stream
        ends. Returns whether it is taken off the line."""

    def takes_datagram(self, socket: DatagramTransport, data: bytes, target: Endpoint) -> bool:
        """Called when a datagram is about to go on the line. Returns whether it is taken off the
        line."""

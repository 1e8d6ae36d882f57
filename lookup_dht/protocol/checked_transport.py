"""A guard between the protocol and its socket, so that no datagram can close the socket."""

from __future__ import annotations

import asyncio
import collections
import errno
from typing import Any, Final

from lookup_dht.wire.contact import SocketAddress, pack_ip

__all__ = ["CheckedTransport"]

BUFFER_BYTES_MAX: Final = 256 * 1024
PASSING: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})
"""Errors after which sending again may help, as after a datagram that was lost."""


class CheckedTransport:
    """asyncio's datagram transport closes for good on a malformed address, resolves host names on
    the event loop, and queues without limit. This one drops and counts instead."""

    def __init__(
        self, transport: asyncio.DatagramTransport, counters: collections.Counter[str]
    ) -> None:
        # Typeshed lacks get_write_buffer_size; every loop's transport has it.
        self._transport: Any = transport
        self._counters = counters
        self._refused = False
        """Whether the system refused the datagram that is being sent."""

    def sendto(self, data: bytes, address: SocketAddress) -> bool:
        """Send a datagram. False if the system refused it, as it does without a network."""
        host, port = address
        self._refused = False
        if not isinstance(host, str) or pack_ip(host) is None:
            self._counters["send_to_no_ip_address"] += 1
        elif type(port) is not int or not 1 <= port <= 65535:
            self._counters["send_to_no_port"] += 1
        elif self._transport.is_closing():
            self._counters["send_after_close"] += 1
        elif self._transport.get_write_buffer_size() > BUFFER_BYTES_MAX:
            self._counters["send_buffer_full"] += 1
        else:
            try:
                self._transport.sendto(data, address)
            except OSError as error:
                self._counters["send_failed"] += 1
                self.error_received(error)
        return not self._refused

    def error_received(self, error: Exception) -> None:
        """The loops tell an error of a datagram within the call that sends it."""
        self._refused = getattr(error, "errno", None) not in PASSING

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())

"""How much may be in flight through relays to one peer (pure).

A relay takes whatever it is given, so only the peer itself can say that it cannot keep up. Each
side says in the handshake how many bytes it accepts in flight; a ping that says how much was sent
before it comes back as a pong once the peer has read that far.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["RelayedWindow"]

_TOTAL: Final = struct.Struct(">Q")
ASK_AGAIN_S: Final = 2.0
"""A ping or its pong may be lost; while the window is full, the ping is repeated this often."""
BYTES_MIN: Final = 65_536
"""Whatever a peer says, one packet may be in flight."""


class RelayedWindow:
    """Invariant: whenever :attr:`has_room` is true, what was sealed and, as far as is known, not
    yet read by the peer is below the limit."""

    __slots__ = ("_acknowledged", "_asked", "_asked_s", "_bytes_max", "_sent")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = max(bytes_max, BYTES_MIN)
        self._sent = self._acknowledged = self._asked = 0
        self._asked_s = float("-inf")

    @property
    def has_room(self) -> bool:
        return self._sent - self._acknowledged < self._bytes_max

    def sent(self, size: int) -> None:
        self._sent += size

    def ping(self, now_s: float) -> bytes | None:
        """The bytes of a ping if one is due: after each quarter of the window, and again while it
        is full."""
        overdue = not self.has_room and now_s - self._asked_s >= ASK_AGAIN_S
        if not overdue and self._sent - self._asked < self._bytes_max // 4:
            return None
        self._asked, self._asked_s = self._sent, now_s
        return _TOTAL.pack(self._sent)

    def pong(self, data: bytes) -> bool:
        """The peer has read as far as ``data`` says. True if more may be sent than before."""
        if len(data) != _TOTAL.size:
            return False
        (total,) = _TOTAL.unpack(data)
        if not self._acknowledged < total <= self._sent:
            return False
        self._acknowledged = total
        return True

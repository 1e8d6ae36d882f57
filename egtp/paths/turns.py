"""Work put off to the end of a turn, to be done once instead of once for each message."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Turns"]

ROUNDS: Final = 2
"""What a callback puts off is done in the same turn, too: a packet for a peer becomes a message to
a relay. Anything put off beyond that is left to the loop, so that every turn has an end."""


class Turns:
    """A turn is everything read from a socket at once, or else a turn of the event loop.

    What packets put off is done once the last one read has been taken. The loop's next turn would
    come later: it polls all sockets in between, which takes as long as some ten messages.
    """

    __slots__ = ("_call_soon", "_is_on", "_put_off")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._is_on = False
        self._put_off: deque[Callable[[], None]] = deque()

    def soon(self, callback: Callable[[], None], /) -> None:
        """Call back at the end of this turn."""
        if not self._is_on and not self._put_off:
            self._call_soon(self._end)
        self._put_off.append(callback)

    def at_once(self, callback: Callable[[], None], /) -> None:
        """Call back now. What that puts off is done before this returns or, within a turn, at its
        end."""
        if self._is_on:
            callback()
            return
        self._is_on = True
        try:
            callback()
        finally:
            self._end()

    def reading_begins(self) -> None:
        """A packet is about to be taken. Must be followed by :meth:`reading_ends`."""
        self._is_on = True

    def reading_ends(self) -> None:
        """Everything that was read at once has been taken."""
        if self._put_off:
            self._end()
        else:
            self._is_on = False

    def _end(self) -> None:
        self._is_on = True
        put_off = self._put_off
        try:
            for _ in range(ROUNDS):
                for _ in range(len(put_off)):
                    put_off.popleft()()
        finally:
            self._is_on = False
            if put_off:
                self._call_soon(self._end)

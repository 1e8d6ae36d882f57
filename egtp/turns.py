"""What is put off to the end of a turn, so that it is done once and not once for each message."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Turns"]


class Turns:
    """A turn is all that was read from a socket at once, or else one of the event loop's own.

    What a packet causes is done when the last one of that reading was taken. The loop's next turn
    would come later: it looks at all sockets in between, which takes as long as some ten messages.
    """

    __slots__ = ("_after_reading", "_call_soon", "_reading")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._reading = False
        self._after_reading: list[Callable[[], None]] = []

    def soon(self, callback: Callable[[], None], /) -> None:
        """Call back at the end of this turn."""
        if self._reading:
            self._after_reading.append(callback)
        else:
            self._call_soon(callback)

    def reading_begins(self) -> None:
        """A packet is about to be taken. Must be followed by :meth:`reading_ends`."""
        self._reading = True

    def reading_ends(self) -> None:
        """All is taken that was read at once. What a callback puts off is left to the loop."""
        self._reading = False
        if self._after_reading:
            after, self._after_reading = self._after_reading, []
            for callback in after:
                callback()

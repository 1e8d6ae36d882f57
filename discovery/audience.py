"""The listeners of a discovery service, and how they are called: later, and independently.

Every call is a loop callback of its own. So no listener is called back from inside its own call,
and if one raises, the loop's exception handler gets the exception and the others are still called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from egtp.discovery_service import Introduce, Introduction
from egtp.errors import WrongLoop

__all__ = ["Audience"]


class Audience:
    """The registered listeners, and the list they are called with."""

    def __init__(self, introductions: Sequence[Introduction] | None = None) -> None:
        """None means that nothing is known yet, not even that there are no relays."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[Introduce, asyncio.Handle | None] = {}
        self.introductions = None if introductions is None else tuple(introductions)

    def admit(self, introduce: Introduce) -> None:
        """Call ``introduce`` soon with the current list, and again with each later one.

        A listener that is already admitted is called once more, but not twice from now on.
        """
        loop = self.on_loop()
        self.dismiss(introduce)
        self._calls[introduce] = None
        if self.introductions is not None:
            # A tuple, so that no listener can change what the next one sees.
            self._calls[introduce] = loop.call_soon(introduce, self.introductions)

    def dismiss(self, introduce: Introduce) -> None:
        """Never call ``introduce`` again; a call already scheduled is cancelled."""
        self.on_loop()
        handle = self._calls.pop(introduce, None)
        if handle is not None:
            handle.cancel()

    def tell(self, introductions: tuple[Introduction, ...]) -> None:
        """Call every listener soon with a new list, which replaces any not yet delivered."""
        self.introductions = introductions
        for introduce in tuple(self._calls):
            self.admit(introduce)

    def close(self) -> None:
        """Forget the listeners, the list and the loop."""
        for handle in self._calls.values():
            if handle is not None:
                handle.cancel()
        self._calls.clear()
        self.introductions = None
        self._loop = None

    def on_loop(self) -> asyncio.AbstractEventLoop:
        """The running loop, which must always be the same one (R15). Raises :class:`WrongLoop`."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongLoop(
                "a discovery service must be called on its event loop, not from another thread"
            ) from None
        if self._loop is None:
            self._loop = running
        elif self._loop is not running:
            raise WrongLoop("this discovery service belongs to another event loop")
        return running

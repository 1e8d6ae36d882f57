"""Who may connect to a node, as the application says: ``Node(admit=...)``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from egtp.bug_reports import BugReports
from egtp.values.identity import NodeId

__all__ = ["Admit", "gate"]

Admit: TypeAlias = Callable[[NodeId], bool]
"""Asked about each peer that begins a session, on the event loop; it must be quick."""


def gate(admit: Admit | None, loop: asyncio.AbstractEventLoop) -> Admit:
    """Whom a node lets in; everybody if ``admit`` is None. While that raises, nobody, and the
    exception handler of ``loop`` is told: the same error once a minute at most."""
    if admit is None:
        return lambda _: True
    bugs = BugReports()

    def admits(peer_id: NodeId) -> bool:
        try:
            answer: object = admit(peer_id)
            if not isinstance(answer, bool):
                # A coroutine would be true.
                raise TypeError(f"admit must return True or False, not {answer!r}")
            return answer
        except Exception as error:
            bugs.report("admit raised an exception, so the peer is refused", error, loop)
            return False

    return admits

"""The Discovery Service: how a node meets relay servers (seed I.C, R10).

"Gee, I'd like to meet some nice new relay servers", says the node; later the service calls back
with their peerIds. It does not call back at once: it may have to ask around first, and may call
again whenever it learns of more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from egtp.values.comm_record import SignedCommRecord
from egtp.values.identity import NodeId

__all__ = ["DiscoveryService", "Introduce", "Introduction"]


@dataclass(frozen=True, slots=True)
class Introduction:
    """A relay server to use. With its record, it needs no lookup."""

    peer_id: NodeId
    record: SignedCommRecord | None = None


Introduce: TypeAlias = Callable[[Sequence[Introduction]], None]
"""Called on the event loop with *all* relay servers that the service knows now. Those of earlier
calls that are missing are no longer recommended."""


class DiscoveryService(Protocol):
    """Introduces relay servers (R10). Both methods are called on the node's event loop."""

    def meet_relay_servers(self, introduce: Introduce) -> None:
        """Ask to be introduced to relay servers. Returns at once. ``introduce`` is called later,
        each time the service has news, until :meth:`forget` is called with the same function."""

    def forget(self, introduce: Introduce) -> None:
        """Stop calling ``introduce``. Unknown functions are ignored."""

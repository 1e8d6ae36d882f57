"""Traffic: counts what crosses the simulated network, instead of hashing it."""

from __future__ import annotations

from collections import Counter
from typing import Final

from simulations.virtual import Trace

__all__ = ["Traffic"]

QUERY: Final = 0
NAME_AT: Final = slice(21, 48)
"""Where a query of rpcudp's framing, ours and the package's, has its method's name."""

Endpoint = tuple[str, int]


class Traffic(Trace):
    """A trace for worlds of which nobody needs the digest."""

    def __init__(self) -> None:
        super().__init__()
        self.datagrams = 0
        self.stores = 0
        """Queries that ask somebody to store something."""
        self.watched: Counter[str] = Counter()
        """Datagrams that are the doing of each of the addresses that :meth:`watch` named: its
        queries, the replies to them, and whoever pings it to learn whether it is there."""
        self._watching: set[str] = set()

    def watch(self, address: str) -> None:
        self._watching.add(address)

    def unwatch(self, address: str) -> int:
        """How many there were meanwhile, lost ones included."""
        self._watching.discard(address)
        return self.watched.pop(address, 0)

    def packet(
        self, at_s: float, kind: str, source: Endpoint, target: Endpoint, data: bytes = b""
    ) -> None:
        del at_s, kind
        self.entries += 1
        self.datagrams += 1
        is_query = data[0] == QUERY
        if is_query and b"store" in data[NAME_AT]:
            self.stores += 1
        if not self._watching:
            return
        asker, asked = (source[0], target[0]) if is_query else (target[0], source[0])
        if asker in self._watching:
            self.watched[asker] += 1
        elif asked in self._watching and is_query and b"ping" in data[NAME_AT]:
            self.watched[asked] += 2  # with its reply

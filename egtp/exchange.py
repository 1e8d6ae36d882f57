"""Exchanges: a query of ours that is in flight, with its reply to come (seed I.A, I.B).

The table associates replies with queries by reference (R3) and holds the two timeouts (R5, R6).
It is pure: the caller gives the time, and carries out what comes back. An exchange belongs to no
path: it survives a change of transport (R4).
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import Final, Generic, TypeVar

from egtp.deadlines import Deadlines
from egtp.identity import NodeId
from egtp.message import Query, Reply, reference_of

__all__ = ["Exchange", "ExchangeTable", "Passed"]

PEERS_NUMBERED_MAX: Final = 16_384
"""Peers without an open exchange whose next number is remembered by itself."""

Sink = TypeVar("Sink")


class Passed(enum.Enum):
    """Which timeout has passed."""

    SOFT = "soft"
    HARD = "hard"


class Exchange(Generic[Sink]):
    """One open query. ``sink`` is where its owner wants the outcome."""

    __slots__ = (
        "born_s",
        "given",
        "hard_deadline_s",
        "kind",
        "message",
        "number",
        "peer_id",
        "reference",
        "reply_bytes_max",
        "sink",
    )

    def __init__(
        self, peer_id: NodeId, query: Query, born_s: float, hard_deadline_s: float, sink: Sink
    ) -> None:
        self.peer_id: Final = peer_id
        self.kind: Final = query.kind
        self.number: Final = query.number
        self.message: Final = query.encode()
        self.reference: Final = reference_of(self.message)
        self.reply_bytes_max: Final = query.reply_bytes_max
        self.born_s: Final = born_s
        self.hard_deadline_s: Final = hard_deadline_s
        self.sink: Final = sink
        self.given = False
        """Whether any copy was ever given to a socket (R21). Never goes back to False."""


class _Numbers:
    """The numbers of the queries to one peer."""

    __slots__ = ("next", "open")

    def __init__(self, first: int) -> None:
        self.next = first
        self.open: dict[int, None] = {}


class ExchangeTable(Generic[Sink]):
    """All open exchanges of a node.

    Invariants: an exchange is in the table from :meth:`open` until its reply, its hard timeout
    or :meth:`close`, and nothing of it is in the table after that; a reply ends at most one
    exchange, and only one of the peer it came from.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._by_reference: dict[bytes, Exchange[Sink]] = {}
        self._deadlines: Deadlines[tuple[bytes, Passed]] = Deadlines()
        self._numbers: dict[NodeId, _Numbers] = {}
        """Those of peers that have open exchanges."""
        self._settled: dict[NodeId, _Numbers] = {}
        """Those of peers that have none, the one asked last at the end."""
        self._first_number = 0
        """Where peers begin that are not remembered: above all that was forgotten."""

    def __len__(self) -> int:
        return len(self._by_reference)

    def open(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes,
        *,
        nonce: bytes,
        reply_bytes_max: int,
        hard_timeout_s: float,
        soft_timeout_s: float | None,
        now_s: float,
        sink: Sink,
    ) -> Exchange[Sink]:
        """Begin an exchange. The soft timeout is noticed at most once, and never ends it."""
        numbers = self._numbers_of(peer_id) or _Numbers(self._first_number)
        number, lifetime_ms = numbers.next, int(hard_timeout_s * 1000)
        query = Query(nonce, number, kind, lifetime_ms, reply_bytes_max, body)
        exchange = Exchange(peer_id, query, now_s, now_s + hard_timeout_s, sink)
        numbers.next += 1
        numbers.open[number] = None
        self._settled.pop(peer_id, None)
        self._numbers[peer_id] = numbers
        self._by_reference[exchange.reference] = exchange
        self._deadlines.set((exchange.reference, Passed.HARD), exchange.hard_deadline_s)
        if soft_timeout_s is not None:
            self._deadlines.set((exchange.reference, Passed.SOFT), now_s + soft_timeout_s)
        return exchange

    def match(self, peer_id: NodeId, reply: Reply) -> Exchange[Sink] | None:
        """The exchange that ``reply`` from ``peer_id`` ends, which is then no longer open.

        A reply that ends none is counted, and leaves every exchange as it was (R3).
        """
        exchange = self._by_reference.get(reply.reference)
        if exchange is None:
            # Late, replayed, forged, or of an abandoned query: nothing tells them apart.
            self._counters["reply with unknown reference"] += 1
        elif exchange.peer_id != peer_id:
            self._counters["reply from the wrong peer"] += 1
        elif len(reply.body) > exchange.reply_bytes_max:
            self._counters["reply larger than asked for"] += 1
        else:
            self.close(exchange)
            return exchange
        return None

    def close(self, exchange: Exchange[Sink]) -> None:
        """Free everything about an exchange. A second time does nothing."""
        if self._by_reference.pop(exchange.reference, None) is None:
            return
        self._deadlines.discard((exchange.reference, Passed.HARD))
        self._deadlines.discard((exchange.reference, Passed.SOFT))
        numbers = self._numbers[exchange.peer_id]
        numbers.open.pop(exchange.number, None)
        if not numbers.open:
            self._settled[exchange.peer_id] = self._numbers.pop(exchange.peer_id)
            if len(self._settled) > PEERS_NUMBERED_MAX:
                forgotten = self._settled.pop(next(iter(self._settled)))
                self._first_number = max(self._first_number, forgotten.next)

    def _numbers_of(self, peer_id: NodeId) -> _Numbers | None:
        return self._numbers.get(peer_id) or self._settled.get(peer_id)

    def expire(self, now_s: float) -> list[tuple[Exchange[Sink], Passed]]:
        """The timeouts that have passed, each told once; past its hard one an exchange is gone."""
        passed = []
        for reference, which in self._deadlines.due(now_s):
            exchange = self._by_reference.get(reference)
            if exchange is not None:
                passed.append((exchange, which))
                if which is Passed.HARD:
                    self.close(exchange)
        return passed

    def next_deadline_s(self) -> float | None:
        """When :meth:`expire` wants to be called."""
        return self._deadlines.next_s()

    def settled(self, peer_id: NodeId) -> int:
        """All queries to the peer with a lower number are finished."""
        numbers = self._numbers_of(peer_id)
        return self._first_number if numbers is None else next(iter(numbers.open), numbers.next)

    def count_of(self, peer_id: NodeId) -> int:
        """How many exchanges with the peer are open."""
        numbers = self._numbers.get(peer_id)
        return 0 if numbers is None else len(numbers.open)

    def all(self) -> list[Exchange[Sink]]:
        return list(self._by_reference.values())

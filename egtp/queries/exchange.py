"""Exchanges: queries in flight, each with its reply still to come (R1-R7).

Pure: the clock and the nonces come in as arguments. The table knows which query a reply answers,
when a query has waited long enough, and which numbers are finished. An exchange belongs to no
path: it survives a change of transport (R4).
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from math import inf
from typing import Final, Generic, NamedTuple, TypeVar

from egtp.limits.deadlines import Bucket, Deadlines, take_out
from egtp.queries.large_message import LARGE_BYTES, LargeMessage
from egtp.queries.outgoing import Outgoing
from egtp.values.canonical import pack
from egtp.values.identity import NodeId
from egtp.values.message import Reply

__all__ = ["EXCEPTIONS_MAX", "Exchange", "ExchangeTable", "Passed", "SettledExcept"]

PEERS_NUMBERED_MAX: Final = 16_384
"""Peers without an open exchange whose next numbers are remembered individually."""
GAP_MAX: Final = 1024
"""After this many later queries, one that is still open is reported as an exception, so that the
peer need not remember all those: a quarter of what it remembers."""
EXCEPTIONS_MAX: Final = 1024
"""How many exceptions are reported at a time, those open longest. Reported once per as many
queries, they cost eight bytes per query."""

Sink = TypeVar("Sink")


class Passed(enum.Enum):
    """Which timeout has passed."""

    SOFT = "soft"
    HARD = "hard"


class SettledExcept(NamedTuple):
    """All numbers below ``upto`` are finished, except for these."""

    upto: int
    exceptions: tuple[int, ...]


class Exchange(Outgoing, Generic[Sink]):
    """An open query. ``sink`` is where its owner wants the outcome."""

    __slots__ = (
        "again_s",
        "bucket",
        "early",
        "handed_to",
        "hard_deadline_s",
        "idempotent",
        "kind",
        "number",
        "numbers",
        "on_soft_timeout",
        "peer_id",
        "reference",
        "reply_bytes_max",
        "resent",
        "riding",
        "sink",
        "soft_bucket",
        "working",
    )

    peer_id: NodeId
    kind: str
    number: int
    reference: bytes
    reply_bytes_max: int
    hard_deadline_s: float
    sink: Sink
    on_soft_timeout: Callable[[], object] | None
    idempotent: bool
    """The handler may run twice: the caller said that this does no harm."""
    early: bool | None
    """Whether it may travel with a dial, before the peer has proven that it is alive: True, False,
    or None for "if a copy was given away before"."""
    handed_to: bytes | None
    """The incarnation of the peer that the first copy was given to."""
    riding: bool
    """It is in the first packet of a dial that has not ended, and may leave at any moment."""
    working: bool
    """The peer has said on the current path that the handler is running."""
    resent: int
    """How often it was sent again on the current path."""
    again_s: float
    """When to send it again, unless something happens before."""
    numbers: _Numbers
    bucket: Bucket[Exchange[Sink]]
    soft_bucket: Bucket[Exchange[Sink]] | None

    def __init__(self) -> None:
        """:meth:`ExchangeTable.open` fills it in: passing arguments would double the time."""

    def may_be_given_to(self, incarnation: bytes, peer_started_s: float) -> bool:
        """Whether a copy may be given to the peer in ``incarnation``, which began at
        ``peer_started_s`` at the latest (on this node's elapsed clock).

        A query runs at most once *in the incarnation that it was first given to*. Another one knows
        nothing of that, and may be given a copy only if it already existed when the query was born,
        so that the first one cannot have run it; or if running twice does no harm.
        """
        return (
            not self.given
            or self.handed_to == incarnation
            or self.idempotent
            or peer_started_s < self.born_s
        )

    def is_lost_with(self, incarnation: bytes | None) -> bool:
        """Whether nobody will ever answer, since that incarnation of the peer has ended: it was
        given the query, and no later one may be."""
        return self.given and self.handed_to == incarnation and not self.idempotent

    @property
    def may_leave(self) -> bool:
        """Whether a copy was given to a socket, or may still be, whatever becomes of the query."""
        return self.given or self.riding


class _Numbers:
    """The numbers of the queries to one peer. Invariant: all below ``low`` are finished."""

    __slots__ = ("low", "next", "open", "told")

    def __init__(self, first: int) -> None:
        self.next = self.low = self.told = first
        self.open: dict[int, Exchange[object]] = {}

    def settled(self) -> int:
        open_numbers, low = self.open, self.low
        # Constant time, amortised: each number is passed once.
        while low < self.next and low not in open_numbers:
            low += 1
        self.low = low
        return low


class ExchangeTable(Generic[Sink]):
    """All open exchanges of a node.

    Invariants: an exchange is in the table from :meth:`open` until its reply, its hard timeout
    or :meth:`close`, and nothing of it is in the table after that; a reply ends at most one
    exchange, and only one with the peer it came from; no number is used twice for a peer.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._by_reference: dict[bytes, Exchange[Sink]] = {}
        """A large query has its nonce for a reference until it has left and its hash is known."""
        self._hard: Deadlines[Exchange[Sink]] = Deadlines()
        self._soft: Deadlines[Exchange[Sink]] = Deadlines()
        self._numbers: dict[NodeId, _Numbers] = {}
        """Of the peers with open exchanges."""
        self._settled: dict[NodeId, _Numbers] = {}
        """Of the peers without any, in the order in which their last one ended."""
        self._first_number = 0
        """The first number for a peer that is not remembered: above all that were forgotten."""

    def __len__(self) -> int:
        return len(self._by_reference)

    def open(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes,
        nonce: bytes,
        reply_bytes_max: int,
        hard_timeout_s: float,
        soft_timeout_s: float | None,
        now_s: float,
        sink: Sink,
        *,
        on_soft_timeout: Callable[[], object] | None = None,
        idempotent: bool = False,
        early: bool | None = None,
    ) -> Exchange[Sink]:
        """Begin an exchange. Its soft timeout is reported at most once, and never ends it."""
        numbers = self._numbers.get(peer_id)
        if numbers is None:
            numbers = self._settled.get(peer_id) or _Numbers(self._first_number)
        exchange: Exchange[Sink] = Exchange()
        exchange.number = number = numbers.next
        # As in Query.encode().
        fields = 1, nonce, None, number, kind, int(hard_timeout_s * 1000), reply_bytes_max, body
        if len(body) < LARGE_BYTES:
            exchange.message = message = pack(fields)
            reference = sha256(message).digest()
        else:
            exchange.message = LargeMessage(fields, partial(self._has_left, nonce))
            reference = nonce  # which no reply can name: it is shorter than a hash
        exchange.reference = reference
        exchange.peer_id = peer_id
        exchange.kind = kind
        exchange.reply_bytes_max = reply_bytes_max
        exchange.born_s = now_s
        exchange.hard_deadline_s = hard_deadline_s = now_s + hard_timeout_s
        exchange.sink = sink
        exchange.on_soft_timeout = on_soft_timeout
        exchange.idempotent = idempotent
        exchange.early = early
        exchange.path = exchange.handed_to = exchange.soft_bucket = None
        exchange.given = exchange.queued = exchange.riding = exchange.working = False
        exchange.resent = 0
        exchange.again_s = inf
        exchange.numbers = numbers
        exchange.bucket = self._hard.add(exchange, hard_deadline_s)
        # Nothing can fail from here on.
        if not numbers.open:
            self._settled.pop(peer_id, None)
            self._numbers[peer_id] = numbers
        numbers.next = number + 1
        numbers.open[number] = exchange  # type: ignore[assignment]
        self._by_reference[reference] = exchange
        if soft_timeout_s is not None:
            exchange.soft_bucket = self._soft.add(exchange, now_s + soft_timeout_s)
        return exchange

    def match(self, peer_id: NodeId, reply: Reply) -> Exchange[Sink] | None:
        """The exchange that ``reply`` from ``peer_id`` ends, which is then no longer open.

        A reply that ends none is counted, and leaves every exchange as it was (R3).
        """
        exchange = self._by_reference.get(reply.reference)
        if exchange is None:
            # Late, replayed, forged, or to an abandoned query: nothing tells these apart.
            self._counters["reply with unknown reference"] += 1
        elif exchange.peer_id != peer_id:
            self._counters["reply from the wrong peer"] += 1
        elif len(reply.body) > exchange.reply_bytes_max:
            self._counters["reply larger than asked for"] += 1
        else:
            self.close(exchange)
            return exchange
        return None

    def find(self, peer_id: NodeId, reference: bytes) -> Exchange[Sink] | None:
        """The open exchange with that reference, if it is with that peer."""
        exchange = self._by_reference.get(reference)
        return exchange if exchange is not None and exchange.peer_id == peer_id else None

    def _has_left(self, nonce: bytes, reference: bytes) -> None:
        """The last piece of a large query has been cut. Its exchange may have ended already."""
        exchange = self._by_reference.pop(nonce, None)
        if exchange is not None:
            exchange.reference = reference
            self._by_reference[reference] = exchange

    def close(self, exchange: Exchange[Sink]) -> None:
        """Free everything about an exchange. A second call does nothing."""
        if self._by_reference.pop(exchange.reference, None) is None:
            return
        take_out(exchange.bucket, exchange)
        if exchange.soft_bucket is not None:
            take_out(exchange.soft_bucket, exchange)
        numbers = exchange.numbers
        del numbers.open[exchange.number]
        if not numbers.open:
            numbers.low = numbers.next
            peer_id = exchange.peer_id
            self._settled[peer_id] = self._numbers.pop(peer_id)
            if len(self._settled) > PEERS_NUMBERED_MAX:
                forgotten = self._settled.pop(next(iter(self._settled)))
                self._first_number = max(self._first_number, forgotten.next)

    def is_open(self, exchange: Exchange[Sink]) -> bool:
        return self._by_reference.get(exchange.reference) is exchange

    def expire(self, now_s: float) -> list[tuple[Exchange[Sink], Passed]]:
        """The timeouts that have passed, each reported once. A hard one closes its exchange."""
        passed = [(exchange, Passed.SOFT) for exchange in self._soft.due(now_s)]
        for exchange in self._hard.due(now_s):
            self.close(exchange)
            passed.append((exchange, Passed.HARD))
        return passed

    def next_deadline_s(self) -> float | None:
        """When to call :meth:`expire` next; None if there is no deadline."""
        deadlines = [d for d in (self._hard.next_s(), self._soft.next_s()) if d is not None]
        return min(deadlines, default=None)

    def settled(self, peer_id: NodeId) -> int:
        """The settled mark: all queries to the peer with a lower number are finished."""
        numbers = self._numbers.get(peer_id) or self._settled.get(peer_id)
        return self._first_number if numbers is None else numbers.settled()

    def settled_except(self, peer_id: NodeId) -> SettledExcept | None:
        """News of numbers that are finished above one that is not; None if there are too few to
        report. Otherwise, a query that stays open for long would make the peer remember all later
        ones."""
        numbers = self._numbers.get(peer_id)
        if numbers is None or numbers.next - max(numbers.low, numbers.told) < GAP_MAX:
            return None
        still_open = list(numbers.open)
        # The open ones that do not fit must not count as finished.
        upto = still_open[EXCEPTIONS_MAX] if len(still_open) > EXCEPTIONS_MAX else numbers.next
        numbers.told = numbers.next
        return SettledExcept(upto, tuple(number for number in still_open if number < upto))

    def tell_again(self, peer_id: NodeId) -> None:
        """Report the exceptions again: older paths may have lost what they were given."""
        numbers = self._numbers.get(peer_id)
        if numbers is not None:
            numbers.told = numbers.low

    def count_of(self, peer_id: NodeId) -> int:
        """How many exchanges with the peer are open."""
        numbers = self._numbers.get(peer_id)
        return 0 if numbers is None else len(numbers.open)

    def of(self, peer_id: NodeId) -> list[Exchange[Sink]]:
        """The open exchanges with the peer, in the order of their numbers."""
        numbers = self._numbers.get(peer_id)
        return [] if numbers is None else list(numbers.open.values())  # type: ignore[arg-type]

    def peers(self) -> list[NodeId]:
        """The peers with open exchanges."""
        return list(self._numbers)

    def all(self) -> list[Exchange[Sink]]:
        return list(self._by_reference.values())

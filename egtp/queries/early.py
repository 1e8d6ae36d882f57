"""Early data: queries that travel with a dial, before the peer has proven that it is alive (pure).

It saves a round trip at a price: whoever steals the peer's channel key later can read it, and once
it was given to a socket there is no fast fail any more. So a query travels early only if its caller
wants that, or if a copy of it was given away before anyway.

:mod:`egtp.queries.answers` makes it safe from replay: an early query has a number like any other,
and a node refuses early data from senders that know only records older than what it has forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from egtp.channel.handshake import InitiationPayload
from egtp.channel.sealed import MESSAGE, Sealed, parse_sealed, write_message, write_sealed
from egtp.errors import RemoteProtocolError
from egtp.queries.exchange import Exchange
from egtp.values.contact import Contact
from egtp.values.message import Query, decode_message

__all__ = ["EARLY_BYTES_MAX", "TOO_LATE", "Early", "pack_early", "read_early"]

EARLY_BYTES_MAX: Final = 8 * 1024
"""An initiation with its record and its early data must fit into 16 KiB."""
EARLY_QUERIES_MAX: Final = 64
TOO_LATE: Final = "a query in it is past its hard timeout"
"""Why a dial is not sent, or not again: no relay may hold its early data for longer (R24)."""
CLOCKS_MS: Final = 60_000
"""How far apart the two wall clocks may be. If they differ by more, that is not unsafe, but costs a
round trip. The limit is there since an initiation that was held back for long carries queries that
nobody waits for any more."""


@dataclass(slots=True, eq=False)
class Early:
    """The early data of one dial."""

    incarnation: bytes
    """The incarnation of the peer that it is meant for."""
    exchanges: list[Exchange[Any]]
    plaintext: bytes

    @property
    def deadline_s(self) -> float:
        """When the first of its queries is past its hard timeout, on this node's elapsed clock."""
        return min(exchange.hard_deadline_s for exchange in self.exchanges)

    def given(self) -> None:
        """The dial is about to be given to a socket, or to a relay."""
        for exchange in self.exchanges:
            exchange.given = True
            exchange.handed_to = self.incarnation


def pack_early(
    contact: Contact, waiting: Iterable[object], settled: int, now_s: float
) -> Early | None:
    """The early data of a dial, taken from the messages that wait for a path; None if none of them
    may travel early."""
    if contact.incarnation is None or contact.expired or not contact.sequence:
        return None
    exchanges: list[Exchange[Any]] = []
    items: list[bytes] = []
    size = 0
    for outgoing in waiting:
        if (
            not isinstance(outgoing, Exchange)
            or outgoing.hard_deadline_s <= now_s
            or not _may_be_early(outgoing, contact.incarnation)
        ):
            continue
        size += len(outgoing.message)
        if size > EARLY_BYTES_MAX or len(items) == EARLY_QUERIES_MAX:
            break
        exchanges.append(outgoing)
        age_ms = max(0, int((now_s - outgoing.born_s) * 1000))
        items.append(write_message(age_ms, bytes(outgoing.message)))
    if not items:
        return None
    return Early(contact.incarnation, exchanges, write_sealed(0, settled, items))


def _may_be_early(exchange: Exchange[Any], incarnation: bytes) -> bool:
    if exchange.given:
        # Another incarnation may be given it only once it is known when that one began.
        return exchange.early is not False and exchange.handed_to == incarnation
    return exchange.early is True


def read_early(
    payload: InitiationPayload,
    incarnation: bytes,
    early_floor: int,
    unix_ms: int,
    takes: Callable[[str], bool],
) -> Sealed | None:
    """The early data of an initiation to this node, if it may be accepted; None to challenge the
    sender, which then sends it again inside the session. ``takes`` says whether a kind may run
    early."""
    if (
        payload.responder_incarnation != incarnation
        or payload.responder_sequence < max(1, early_floor)
        or abs(payload.time_ms - unix_ms) > CLOCKS_MS
    ):
        return None
    try:
        sealed = parse_sealed(payload.early)
        for kind, _, data in sealed.items:
            message = decode_message(data) if kind == MESSAGE else None
            if not isinstance(message, Query) or not takes(message.kind):
                return None
    except RemoteProtocolError:
        return None
    return sealed if 0 < len(sealed.items) <= EARLY_QUERIES_MAX else None

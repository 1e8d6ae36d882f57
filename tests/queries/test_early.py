"""What travels with a dial, and what of it is accepted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from egtp.channel.handshake import InitiationPayload, PeerLimits
from egtp.channel.sealed import ItemType, item, parse_sealed, write_message, write_sealed
from egtp.queries.early import (
    CLOCKS_MS,
    EARLY_BYTES_MAX,
    EARLY_QUERIES_MAX,
    Early,
    pack_early,
    read_early,
)
from egtp.queries.exchange import Exchange, ExchangeTable
from egtp.queries.outgoing import Outgoing
from egtp.values.contact import Contact
from egtp.values.identity import NodeId
from egtp.values.message import NONCE_BYTES, Query, Send

PEER = NodeId(bytes(20))
INCARNATION, OTHER = b"incarnat", b"another-"
CONTACT = Contact(PEER, bytes(32), bytes(32), 7, (), (), incarnation=INCARNATION)
QUERY = Query(bytes(NONCE_BYTES), 0, "kind", 1000, 1000, b"")
UNIX_MS = 1_800_000_000_000
PAYLOAD = InitiationPayload(
    b"", UNIX_MS, 7, INCARNATION, OTHER, PeerLimits(1, 1, 1, 1),
    early=write_sealed(0, 3, [write_message(5, QUERY.encode())]),
)  # fmt: skip


class Asker:
    def __init__(self) -> None:
        self.table: ExchangeTable[None] = ExchangeTable(Counter())

    def ask(
        self, size: int = 0, *, early: bool | None = True, now_s: float = 100.0
    ) -> Exchange[None]:
        nonce = len(self.table).to_bytes(NONCE_BYTES, "big")
        return self.table.open(
            PEER, "kind", bytes(size), nonce, 1000, 60.0, None, now_s, None, early=early
        )


def packed(*waiting: Outgoing, contact: Contact = CONTACT, now_s: float = 100.0) -> Early | None:
    return pack_early(contact, waiting, 3, now_s)


def test_a_query_travels_early_with_its_age_and_is_then_given_to_that_incarnation() -> None:
    exchange = Asker().ask(now_s=98.5)
    early = packed(exchange)
    assert early is not None
    assert parse_sealed(early.plaintext) == (
        0, 3, [(ItemType.MESSAGE, 1500, bytes(exchange.message))],
    )  # fmt: skip
    assert early.deadline_s == 158.5
    assert not exchange.given
    early.given()
    assert (exchange.given, exchange.handed_to) == (True, INCARNATION)


@pytest.mark.parametrize("early", [True, False, None])
@pytest.mark.parametrize("handed_to", [None, INCARNATION, OTHER])
def test_a_query_travels_early_if_its_caller_wants_it_or_a_copy_is_there_already(
    early: bool | None, handed_to: bytes | None
) -> None:
    exchange = Asker().ask(early=early)
    exchange.given, exchange.handed_to = handed_to is not None, handed_to
    travels = early is True if handed_to is None else early is not False
    assert (packed(exchange) is not None) == (travels and handed_to in (None, INCARNATION))


@pytest.mark.parametrize(
    "contact",
    [
        replace(CONTACT, incarnation=None),
        replace(CONTACT, expired=True),
        replace(CONTACT, sequence=0),
    ],
)
def test_nothing_travels_early_to_whom_no_record_of_his_own_is_known_that_holds(
    contact: Contact,
) -> None:
    assert packed(Asker().ask(), contact=contact) is None


def test_what_is_no_query_waits_for_a_path() -> None:
    asker = Asker()
    sent, query = Outgoing(Send(bytes(16), "kind", 1000, b"").encode(), 100.0), asker.ask()
    early = packed(sent, query)
    assert early is not None
    assert early.exchanges == [query]
    assert packed(sent) is None


def test_what_is_past_its_hard_timeout_travels_no_more_and_a_dial_ends_with_the_first() -> None:
    asker = Asker()
    first, second = asker.ask(now_s=100.0), asker.ask(now_s=110.0)
    early = packed(second, first, now_s=159.9)
    assert early is not None
    assert early.exchanges == [second, first]
    assert early.deadline_s == 160.0
    early = packed(second, first, now_s=160.0)
    assert early is not None
    assert early.exchanges == [second]
    assert packed(second, first, now_s=170.0) is None


def test_so_many_queries_travel_early_and_no_more() -> None:
    asker = Asker()
    early = packed(*(asker.ask() for _ in range(EARLY_QUERIES_MAX + 1)))
    assert early is not None
    assert len(early.exchanges) == EARLY_QUERIES_MAX
    first = asker.ask(1000)
    room = EARLY_BYTES_MAX - len(first.message)
    fits = asker.ask(room - (len(asker.ask(1000).message) - 1000))
    for last, number in ((fits, 2), (asker.ask(room), 1)):
        early = packed(first, last)
        assert early is not None
        assert len(early.exchanges) == number


def accepted(payload: InitiationPayload, early_floor: int = 0) -> bool:
    sealed = read_early(payload, INCARNATION, early_floor, UNIX_MS, lambda kind: kind == "kind")
    return sealed is not None


def test_early_data_is_for_the_incarnation_and_the_record_that_it_names() -> None:
    assert accepted(PAYLOAD, early_floor=7)
    assert not accepted(PAYLOAD, early_floor=8)
    assert not accepted(replace(PAYLOAD, responder_incarnation=OTHER))
    assert not accepted(replace(PAYLOAD, responder_incarnation=None))
    assert not accepted(replace(PAYLOAD, responder_sequence=0))


@pytest.mark.parametrize("sign", [1, -1])
def test_early_data_that_was_held_back_for_long_is_not_accepted(sign: int) -> None:
    assert accepted(replace(PAYLOAD, time_ms=UNIX_MS + sign * CLOCKS_MS))
    assert not accepted(replace(PAYLOAD, time_ms=UNIX_MS + sign * (CLOCKS_MS + 1)))


@pytest.mark.parametrize(
    "items",
    [
        [],
        [item(ItemType.PING)],
        [item(ItemType.PING, QUERY.encode())],
        [write_message(0, Send(bytes(16), "kind", 1000, b"").encode())],
        [write_message(0, QUERY._replace(kind="another").encode())],
        [write_message(0, b"nonsense")],
        [write_message(0, QUERY.encode()), item(ItemType.CANCEL, bytes(32))],
        [write_message(0, QUERY.encode())] * (EARLY_QUERIES_MAX + 1),
    ],
)
def test_early_data_is_accepted_whole_or_not_at_all(items: list[bytes]) -> None:
    assert not accepted(replace(PAYLOAD, early=write_sealed(0, 0, items)))
    assert accepted(
        replace(PAYLOAD, early=write_sealed(0, 0, [write_message(0, QUERY.encode())] * 64))
    )

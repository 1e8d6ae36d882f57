"""What a search has come upon: the newest wins, and how many hold it says when to stop."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord, supersedes
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import Identity
from lookup_dht.walks.findings import Findings, Holder
from lookup_dht.wire.contact import Contact
from tests.lookup_dht.at_hand import Sign


def contact(number: int) -> Contact:
    return Contact(number.to_bytes(20, "big"), bytes([8, 1, 1, number]), 9100)


def record_of(sequence: int, port: int) -> SignedCommRecord:
    identity = Identity.generate(random.Random(1).randbytes)
    strategy = TCPStrat(Address(b"\x7f\x00\x00\x01", port))
    content = CommRecord(2000, bytes(8), ((SUITE_AESGCM, identity.channel_key),), (strategy,))
    return SignedCommRecord.sign(identity, sequence, content)


RECORDS = [record_of(sequence, port) for sequence in (1, 2, 3) for port in (1, 2)]
"""Two of each sequence; of these one supersedes the other."""
READ_AGAIN = [SignedCommRecord.decode(record.encode()) for record in RECORDS]
"""Equal to them, for one who has forgotten that he has verified them."""


@given(st.lists(st.sampled_from(RECORDS + READ_AGAIN), max_size=30), st.integers(0, 4))
def test_whatever_the_order_the_newest_wins_and_its_copies_alone_are_counted(
    heard: list[SignedCommRecord], floor: int
) -> None:
    findings = Findings(None, floor)
    newest: SignedCommRecord | None = None
    for record in heard:
        newer = record.sequence >= floor and supersedes(record, newest)
        assert findings.add(record) == newer
        newest = record if newer else newest
        assert findings.record == newest
    copies = heard.count(newest) if newest is not None else 0
    sequence = newest.sequence if newest is not None else 0
    assert findings.below_floor == sum(record.sequence < floor for record in heard)
    for agreement in range(1, 32):
        assert findings.agreed(agreement, sequence - 1) == (agreement <= copies)
        assert not findings.agreed(agreement, sequence)


def test_the_newest_wins_and_agreement_starts_anew_with_it(identity: Identity, sign: Sign) -> None:
    old, new = sign(identity, 5), sign(identity, 6)
    findings = Findings(old, 0)
    assert not findings.agreed(2, 0)
    assert not findings.add(old)
    assert findings.agreed(2, 0)
    assert not findings.agreed(2, newer_than=5)
    assert findings.add(new)
    assert not findings.agreed(2, 0)
    assert not findings.add(old)
    assert findings.record == new
    findings.holders[b"a"] = Holder(contact(1), 5, b"")
    findings.holders[b"b"] = Holder(contact(2), 6, b"")
    findings.holders[b"c"] = Holder(contact(3), 0, b"")
    assert [it.contact for it in findings.lacking()] == [contact(1), contact(3)]


def test_who_has_a_newer_one_that_nobody_could_read_lacks_nothing() -> None:
    findings = Findings(RECORDS[0], 0)
    findings.holders[b"a"] = Holder(contact(1), 2, b"")
    assert findings.lacking() == []


def test_nothing_below_the_floor_is_believed(identity: Identity, sign: Sign) -> None:
    findings = Findings(sign(identity, 5), 6)
    assert findings.record is None
    assert not findings.add(sign(identity, 4))
    assert findings.below_floor == 2
    assert findings.lacking() == []
    assert findings.add(sign(identity, 6))


@pytest.mark.parametrize(("node", "token"), [(1, b"one"), (2, b"")])
def test_the_token_of_a_node_is_what_it_gave_or_nothing(node: int, token: bytes) -> None:
    findings = Findings(None, 0)
    findings.holders[contact(1).compact] = Holder(contact(1), 0, b"one")
    assert findings.token_of(contact(node)) == token

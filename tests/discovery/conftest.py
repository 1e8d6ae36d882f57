"""Relay servers to introduce: real identities with real signed records."""

from __future__ import annotations

import random

import pytest

from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.contact_link import ContactLink
from egtp.values.identity import Identity


@pytest.fixture(scope="session")
def links() -> list[ContactLink]:
    """Contact links of eight relays, those at even places with a record."""
    made = []
    for number in range(8):
        identity = Identity.generate(random.Random(number).randbytes)
        content = CommRecord(
            expiry_unix_s=2_000_000_000,
            incarnation=bytes(8),
            channels=((SUITE_AESGCM, identity.channel_key),),
            strategies=(TCPStrat(Address(bytes([192, 0, 2, number + 1]), 4000)),),
        )
        record = SignedCommRecord.sign(identity, 1, content) if number % 2 == 0 else None
        made.append(ContactLink(identity.node_id, record))
    return made

"""Records of owners, in versions: what is put into a DHT and got out of it."""

from __future__ import annotations

import random
from typing import Final

from egtp import Identity, NodeId, SignedCommRecord
from egtp.values.comm_record import SUITE_AESGCM, CommRecord
from egtp.values.comm_strat import Address, RelayStrat, TCPStrat

__all__ = ["Owner"]

LIFETIME_S: Final = 7200
"""As long as the records of an engine live."""


class Owner:
    """A peer, with two relays and one address of its own: the record of a typical node."""

    def __init__(self, rng: random.Random) -> None:
        self.identity = Identity.generate(rng.randbytes)
        self.peer_id: NodeId = self.identity.node_id
        relays = [Identity.generate(rng.randbytes) for _ in range(2)]
        self._relays = tuple(
            RelayStrat(
                relay.key,
                SUITE_AESGCM,
                relay.channel_key,
                (Address(bytes((11, *rng.randbytes(3))), 4000),),
            )
            for relay in relays
        )

    def record(
        self, sequence: int, unix_time: float, lifetime_s: float = LIFETIME_S
    ) -> SignedCommRecord:
        """The version ``sequence``, signed at a moment."""
        content = CommRecord(
            int(unix_time + lifetime_s),
            bytes(8),
            ((SUITE_AESGCM, self.identity.channel_key),),
            (TCPStrat(Address(b"\x0b\x01\x01\x01", 4000)), *self._relays),
        )
        return SignedCommRecord.sign(self.identity, sequence, content)

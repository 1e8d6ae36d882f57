"""A contact: what this node believes about a peer, enough to dial it (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from egtp.values.comm_record import SUITE_AESGCM, SignedCommRecord
from egtp.values.comm_strat import RelayStrat, TCPStrat
from egtp.values.identity import NodeId

__all__ = ["Contact"]


@dataclass(frozen=True, slots=True)
class Contact:
    """What this node believes about a peer, enough to dial it: taken from the peer's record, or
    from the strategy of somebody whose relay it is. The dial proves it, or fails."""

    peer_id: NodeId
    key: bytes
    channel_key: bytes
    sequence: int
    """The sequence of the peer's record; 0 if this does not come from its own record."""
    tcp: tuple[TCPStrat, ...]
    relays: tuple[RelayStrat, ...]
    expired: bool = False
    incarnation: bytes | None = None
    """The incarnation that the peer's own record names."""

    @classmethod
    def of_record(cls, record: SignedCommRecord, unix_s: float) -> Contact | None:
        """None if the record has no channel key that this version can use."""
        channel_key = record.channel_key()
        if channel_key is None:
            return None
        return cls(
            record.peer_id,
            record.key,
            channel_key,
            record.sequence,
            record.tcp,
            record.relays,
            record.expired(unix_s),
            record.incarnation,
        )

    @classmethod
    def of_relay(cls, relay: RelayStrat) -> Contact | None:
        if relay.suite != SUITE_AESGCM:
            return None
        tcp = tuple(TCPStrat(hint) for hint in relay.hints)
        return cls(relay.relay_id, relay.relay_key, relay.channel_key, 0, tcp, ())

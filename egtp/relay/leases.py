"""Who is registered at a relay, and what is kept for those who are away for a moment.

Pure. A lease without a connection has a mailbox: bounded in packets, bytes and time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from egtp.errors import InvalidConfig
from egtp.identity import NodeId

__all__ = ["Held", "Leases", "RelayLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """What a relay server gives away. Sizes in bytes, durations in seconds."""

    leases_max: int = 4096
    """Registered recipients."""
    lease_s_max: float = 300.0
    """How long a lease lasts at most without being renewed."""
    mailbox_packets_max: int = 64
    """Packets held for one recipient who is away."""
    mailbox_bytes_max: int = 256 * 1024
    """Bytes held for one recipient who is away."""
    mailboxes_bytes_max: int = 64 * 1024 * 1024
    """Bytes held for all of them."""
    mailbox_s_max: float = 600.0
    """How long anything is held, whatever lifetime it names."""
    queue_bytes_max: int = 4 * 1024 * 1024
    """Bytes waiting to be pushed down one recipient's connection."""

    def __post_init__(self) -> None:
        if not self.mailbox_s_max <= 600:
            raise InvalidConfig("mailbox_s_max is at most 600 s")
        if not all(
            limit > 0 for limit in (self.leases_max, self.lease_s_max, self.queue_bytes_max)
        ):
            raise InvalidConfig("a relay needs room for at least one lease and one packet")


class Held(NamedTuple):
    """A packet in a mailbox."""

    sender: NodeId
    packet: bytes
    deadline_s: float


class _Lease:
    __slots__ = ("held", "held_bytes", "until_s")

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.held: deque[Held] = deque()
        self.held_bytes = 0


class Leases:
    """Invariant: :attr:`held_bytes` is the sum over all mailboxes, and within its limit."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._leases: dict[NodeId, _Lease] = {}
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._leases)

    def grant(self, recipient: NodeId, wanted_s: float, now_s: float) -> float:
        """Register, or renew. Returns for how long; 0 if there is no room, or none was wanted."""
        self.expire(now_s)
        lease = self._leases.get(recipient)
        granted_s = min(wanted_s, self._limits.lease_s_max)
        if granted_s <= 0:
            self.end(recipient)
            return 0
        if lease is None:
            if len(self._leases) >= self._limits.leases_max:
                return 0
            lease = self._leases[recipient] = _Lease(0.0)
        lease.until_s = now_s + granted_s
        return granted_s

    def has(self, recipient: NodeId, now_s: float) -> bool:
        lease = self._leases.get(recipient)
        return lease is not None and now_s < lease.until_s

    def hold(
        self, recipient: NodeId, sender: NodeId, packet: bytes, lifetime_s: float, now_s: float
    ) -> bool:
        """Keep a packet for a recipient who is away. False if a quota is used up."""
        lease, limits = self._leases[recipient], self._limits
        self._drop_old(lease, now_s)
        if (
            len(lease.held) >= limits.mailbox_packets_max
            or lease.held_bytes + len(packet) > limits.mailbox_bytes_max
            or self.held_bytes + len(packet) > limits.mailboxes_bytes_max
        ):
            return False
        deadline_s = now_s + min(lifetime_s, limits.mailbox_s_max)
        lease.held.append(Held(sender, packet, deadline_s))
        lease.held_bytes += len(packet)
        self.held_bytes += len(packet)
        return True

    def collect(self, recipient: NodeId, now_s: float) -> list[Held]:
        """Empty the mailbox of a recipient who is back. What is too old is gone (R24)."""
        lease = self._leases.get(recipient)
        if lease is None:
            return []
        self._drop_old(lease, now_s)
        held = list(lease.held)
        self._drop(lease, held)
        return held

    def end(self, recipient: NodeId) -> None:
        """The recipient gives its lease back."""
        lease = self._leases.pop(recipient, None)
        if lease is not None:
            self._drop(lease, list(lease.held))

    def expire(self, now_s: float) -> None:
        """Forget leases that were not renewed, and packets whose lifetime is over."""
        for recipient, lease in list(self._leases.items()):
            if now_s >= lease.until_s:
                self.end(recipient)
            else:
                self._drop_old(lease, now_s)

    def _drop_old(self, lease: _Lease, now_s: float) -> None:
        # Lifetimes differ, so the oldest packet is not always the first to end.
        self._drop(lease, [held for held in lease.held if held.deadline_s <= now_s])

    def _drop(self, lease: _Lease, gone: list[Held]) -> None:
        for held in gone:
            lease.held.remove(held)
            lease.held_bytes -= len(held.packet)
            self.held_bytes -= len(held.packet)

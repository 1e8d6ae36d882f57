"""Who is registered at a relay, and what is kept for those who are away for a moment.

Pure. A lease without a connection has a mailbox, bounded in packets, bytes and time. Relays serve
strangers, who can make up as many identities as they like; so in a full relay, leases of strangers
that are not even connected make way, and connections are limited by where they come from. In a full
mailbox, the sender with most in it makes way; when all mailboxes together hold too much, the one
with most in the fullest.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from egtp.errors import InvalidConfig
from egtp.limits.shares import Shares, strangers_part
from egtp.values.identity import NodeId
from egtp.values.settings import check_settings

__all__ = ["Held", "Leases", "RelayLimits"]

ENDS_SPARE: Final = 64
"""So many ends that no longer count may be kept, beside as many as there are leases."""
MAY_BE_ZERO: Final = frozenset({
    "mailbox_packets_max", "mailbox_bytes_max", "mailbox_sender_packets_max",
    "mailboxes_bytes_max", "sender_bytes_max", "mailbox_s_max",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """What a relay server gives to others: durations in seconds, sizes in bytes.

    Raises :class:`InvalidConfig` for a value that cannot work.
    """

    leases_max: int = 4096
    """Registered recipients. An eighth is kept for peers that this node knows."""
    lease_s_max: float = 300.0
    """How long a lease lasts at most unless it is renewed."""
    mailbox_packets_max: int = 64
    """Packets held for one recipient that is away."""
    mailbox_bytes_max: int = 256 * 1024
    """Bytes held for one recipient that is away."""
    mailbox_sender_packets_max: int = 16
    """How many of these may be from one sender, so that nobody fills another's mailbox."""
    mailboxes_bytes_max: int = 64 * 1024 * 1024
    """Bytes held in all mailboxes together."""
    sender_bytes_max: int = 4 * 1024 * 1024
    """How many of these may be from one sender."""
    mailbox_s_max: float = 600.0
    """How long a packet is held at most, whatever its own lifetime."""
    queue_bytes_max: int = 4 * 1024 * 1024
    """Bytes waiting to be pushed down one recipient's connection. No sender may take more of this
    than it leaves free."""

    def __post_init__(self) -> None:
        # Mailboxes may be turned off; without leases, or packets to push, it would be no relay.
        check_settings(self, MAY_BE_ZERO)
        if self.mailbox_s_max > 600:
            raise InvalidConfig("mailbox_s_max must be at most 600")


class Held(NamedTuple):
    """A packet in a mailbox."""

    sender: NodeId
    packet: bytes
    deadline_s: float


class _Lease:
    __slots__ = ("held", "held_bytes", "stranger", "until_s")

    def __init__(self, stranger: bool) -> None:
        self.until_s = 0.0
        self.stranger = stranger
        self.held: deque[Held] = deque()
        self.held_bytes = 0


class Leases:
    """Invariants: :attr:`held_bytes` is the sum over all mailboxes, and each limit holds; every
    peer in ``_away`` has a lease, and every lease in ``_filled`` is that of a peer."""

    def __init__(self, limits: RelayLimits) -> None:
        self.limits: Final = limits
        self._leases: dict[NodeId, _Lease] = {}
        self._strangers = 0
        self._strangers_max = strangers_part(limits.leases_max)
        self._away: dict[NodeId, None] = {}
        """Strangers without a connection, those away for longest first."""
        self._filled: defaultdict[int, dict[_Lease, None]] = defaultdict(dict)
        """Mailboxes that hold something, by the bit length of their size."""
        self._ends: list[tuple[float, NodeId]] = []
        """A heap of when leases end, or would have if they had not been renewed since: whoever asks
        for a place must not cost a look at all leases."""
        whole = limits.mailboxes_bytes_max
        self._by_sender = Shares(
            whole, strangers_max=strangers_part(whole), peer_max=limits.sender_bytes_max
        )

    @property
    def held_bytes(self) -> int:
        return self._by_sender.taken

    def __len__(self) -> int:
        return len(self._leases)

    def grant(
        self,
        recipient: NodeId,
        wanted_s: float,
        now_s: float,
        *,
        is_here: bool,
        stranger: bool,
    ) -> float:
        """Register, or renew. Returns for how long; 0 if there is no room, or none was wanted.

        :param is_here: whether the recipient is connected.
        :param stranger: whether this node has nothing else to do with the recipient.
        """
        granted_s = min(wanted_s, self.limits.lease_s_max)
        lease = self._leases.get(recipient)
        if granted_s <= 0 or (lease is not None and now_s >= lease.until_s):
            self.end(recipient)
            lease = None
        if granted_s <= 0:
            return 0
        if lease is None:
            if not self._has_room(now_s, stranger=stranger):
                return 0
            lease = self._leases[recipient] = _Lease(stranger)
            self._strangers += stranger
        elif lease.stranger and not stranger:
            lease.stranger = False
            self._strangers -= 1
        elif stranger and not lease.stranger and self._strangers < self._strangers_max:
            # Otherwise it still counts as known: it has its place already.
            lease.stranger = True
            self._strangers += 1
        lease.until_s = now_s + granted_s
        heappush(self._ends, (lease.until_s, recipient))
        if len(self._ends) > 2 * len(self._leases) + ENDS_SPARE:
            self._ends = [(lease.until_s, one) for one, lease in self._leases.items()]
            heapify(self._ends)
        self._away.pop(recipient, None)
        if lease.stranger and not is_here:
            self._away[recipient] = None
        return granted_s

    def _has_room(self, now_s: float, *, stranger: bool) -> bool:
        if not self._is_full(stranger):
            return True
        self._end_those_past(now_s)
        if self._is_full(stranger) and self._away:
            self.end(next(iter(self._away)))
        return not self._is_full(stranger)

    def _is_full(self, stranger: bool) -> bool:
        return len(self._leases) >= self.limits.leases_max or (
            stranger and self._strangers >= self._strangers_max
        )

    def has(self, recipient: NodeId, now_s: float) -> bool:
        lease = self._leases.get(recipient)
        return lease is not None and now_s < lease.until_s

    def left(self, recipient: NodeId) -> None:
        """The recipient is no longer connected."""
        lease = self._leases.get(recipient)
        if lease is not None and lease.stranger:
            self._away[recipient] = None

    def hold(
        self,
        recipient: NodeId,
        sender: NodeId,
        packet: bytes,
        lifetime_s: float,
        now_s: float,
        *,
        stranger: bool,
    ) -> list[Held] | None:
        """Keep a packet for a recipient that is away. Returns the packets that made way for it;
        None if a quota is used up. ``stranger`` is about the sender."""
        lease, limits, size = self._leases[recipient], self.limits, len(packet)
        self._drop_old(lease, now_s)
        if sum(one.sender == sender for one in lease.held) >= limits.mailbox_sender_packets_max:
            return None
        gone = self._makes_way(lease, sender, size)
        if gone is None or self._by_sender.of(sender) + size > limits.sender_bytes_max:
            return None
        spared: list[Held] = []
        freed = sum(len(one.packet) for one in gone if self._by_sender.is_strangers(one.sender))
        needed = self._by_sender.lacking(sender, size, stranger=stranger) - freed
        if needed > 0:
            fullest = self._fullest()
            if fullest is not None and fullest.held_bytes > lease.held_bytes + size:
                spared = self._spared(fullest, needed)
            if fullest is None or not spared:
                return None
            self._drop(fullest, spared)
        self._drop(lease, gone)
        self._by_sender.take(sender, size, stranger=stranger)
        deadline_s = now_s + min(lifetime_s, limits.mailbox_s_max)
        lease.held.append(Held(sender, packet, deadline_s))
        self._resize(lease, size)
        return gone + spared

    def _makes_way(self, lease: _Lease, sender: NodeId, size: int) -> list[Held] | None:
        """Which packets make way in a mailbox: the oldest of the sender with most, in packets or in
        bytes, until there is room. None if that sender had no more than this one would then have.
        So a few senders cannot fill a mailbox, and nobody drives out those who have little."""
        gone: list[Held] = []
        left, left_bytes = list(lease.held), lease.held_bytes
        while (by_bytes := left_bytes + size > self.limits.mailbox_bytes_max) or (
            len(left) >= self.limits.mailbox_packets_max
        ):
            has = _shares_of(left, by_bytes=by_bytes)
            oldest = _oldest_of_the_greediest(left, has)
            most = 0 if oldest is None else has[oldest.sender]
            if oldest is None or has[sender] + (size if by_bytes else 1) >= most:
                return None
            left.remove(oldest)
            left_bytes -= len(oldest.packet)
            gone.append(oldest)
        return gone

    def _fullest(self) -> _Lease | None:
        """A mailbox with at least half of what the fullest has. Looking through all of them would
        cost many times what a stranger's packet does."""
        bits = max((bits for bits, filled in self._filled.items() if filled), default=0)
        return next(iter(self._filled[bits]), None)

    def _spared(self, fullest: _Lease, needed: int) -> list[Held]:
        """Which packets make way when all mailboxes together are full, in one that holds more than
        the one to be filled would: the oldest of the strangers with most in it, until ``needed``
        bytes are free. So nobody can keep all others out with mailboxes of their own."""
        spared: list[Held] = []
        left = [one for one in fullest.held if self._by_sender.is_strangers(one.sender)]
        while needed > 0:
            oldest = _oldest_of_the_greediest(left, _shares_of(left, by_bytes=True))
            if oldest is None:
                return []
            left.remove(oldest)
            needed -= len(oldest.packet)
            spared.append(oldest)
        return spared

    def collect(self, recipient: NodeId, now_s: float) -> list[Held]:
        """The recipient is back: empty its mailbox. Packets past their lifetime are gone (R24)."""
        self._away.pop(recipient, None)
        lease = self._leases.get(recipient)
        if lease is None:
            return []
        self._drop_old(lease, now_s)
        held = list(lease.held)
        self._drop(lease, held)
        return held

    def end(self, recipient: NodeId) -> None:
        """End a lease, and drop what was held for the recipient."""
        lease = self._leases.pop(recipient, None)
        if lease is not None:
            self._away.pop(recipient, None)
            self._strangers -= lease.stranger
            self._drop(lease, list(lease.held))

    def expire(self, now_s: float) -> None:
        """Forget leases that were not renewed, and packets whose lifetime is over."""
        self._end_those_past(now_s)
        for lease in self._leases.values():
            self._drop_old(lease, now_s)

    def _end_those_past(self, now_s: float) -> None:
        while self._ends and self._ends[0][0] <= now_s:
            _, recipient = heappop(self._ends)
            lease = self._leases.get(recipient)
            if lease is not None and lease.until_s <= now_s:
                self.end(recipient)

    def _drop_old(self, lease: _Lease, now_s: float) -> None:
        # Lifetimes differ, so the oldest packet is not always the first to expire.
        self._drop(lease, [held for held in lease.held if held.deadline_s <= now_s])

    def _drop(self, lease: _Lease, gone: list[Held]) -> None:
        for held in gone:
            lease.held.remove(held)
            self._resize(lease, -len(held.packet))
            self._by_sender.give_back(held.sender, len(held.packet))

    def _resize(self, lease: _Lease, more: int) -> None:
        before = lease.held_bytes.bit_length()
        lease.held_bytes += more
        after = lease.held_bytes.bit_length()
        if before != after:
            self._filled[before].pop(lease, None)
            if after:
                self._filled[after][lease] = None


def _shares_of(held: Iterable[Held], *, by_bytes: bool) -> Counter[NodeId]:
    """How much of it each sender has, in bytes or in packets."""
    has: Counter[NodeId] = Counter()
    for one in held:
        has[one.sender] += len(one.packet) if by_bytes else 1
    return has


def _oldest_of_the_greediest(held: Iterable[Held], has: Counter[NodeId]) -> Held | None:
    greediest = max(has, key=has.__getitem__, default=None)
    return next((one for one in held if one.sender == greediest), None)

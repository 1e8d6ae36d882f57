"""Shares: what all peers, all strangers, and each peer may use up of this node (pure).

An identity costs nothing, so a limit per peer does not limit a crowd; and a single limit for all
lets a crowd lock everybody else out. So there are three, and the one for strangers leaves room for
the peers that somebody here has queried or named.
"""

from __future__ import annotations

from typing import Final

from egtp.values.identity import NodeId

__all__ = ["Shares", "strangers_part"]


def strangers_part(whole: int) -> int:
    """What strangers may take of a table: all but an eighth, since they are many, and the peers
    that must always find room are few."""
    return whole - whole // 8


class _Held:
    __slots__ = ("amount", "stranger")

    def __init__(self, stranger: bool) -> None:
        self.amount = 0
        self.stranger = stranger


class Shares:
    """An amount that peers take and give back: bytes, or places.

    Invariants: :attr:`taken` is the sum over all peers and at most ``all_max``; strangers have at
    most ``strangers_max`` of it, a peer at most ``peer_max``; a peer that has none takes no memory.
    """

    __slots__ = ("_all_max", "_held", "_peer_max", "_strangers", "_strangers_max", "taken")

    def __init__(self, all_max: int, *, strangers_max: int, peer_max: int) -> None:
        self._all_max: Final = all_max
        self._strangers_max: Final = strangers_max
        self._peer_max: Final = peer_max
        self._held: dict[NodeId, _Held] = {}
        self._strangers = 0
        self.taken = 0

    def __len__(self) -> int:
        """How many peers have something."""
        return len(self._held)

    def of(self, peer_id: NodeId) -> int:
        """What a peer has."""
        held = self._held.get(peer_id)
        return 0 if held is None else held.amount

    def is_strangers(self, peer_id: NodeId) -> bool:
        """Whether a peer has something, and has it as a stranger."""
        held = self._held.get(peer_id)
        return held is not None and held.stranger

    def left(self, *, stranger: bool) -> int:
        """What another peer could take, apart from the limit per peer."""
        left = self._all_max - self.taken
        return min(left, self._strangers_max - self._strangers) if stranger else left

    def fits(self, peer_id: NodeId, amount: int, *, stranger: bool) -> bool:
        """Whether :meth:`take` would let the peer have this much more."""
        is_within_its_own = self.of(peer_id) + amount <= self._peer_max
        return is_within_its_own and self.lacking(peer_id, amount, stranger=stranger) <= 0

    def lacking(self, peer_id: NodeId, amount: int, *, stranger: bool) -> int:
        """How much strangers would have to give back before the peer could have this much more,
        apart from its own limit."""
        held = self._held.get(peer_id)
        lacking, strangers = self.taken + amount - self._all_max, self._strangers
        if held is not None and not held.stranger:
            strangers += held.amount
        return max(lacking, strangers + amount - self._strangers_max) if stranger else lacking

    def take(self, peer_id: NodeId, amount: int, *, stranger: bool) -> bool:
        """Let a peer have this much more. False, and nothing is taken, if that exceeds a limit.

        ``stranger`` is what the peer is now: everything that it has counts so from now on.
        """
        fits = self.fits(peer_id, amount, stranger=stranger)
        held = self._held.get(peer_id)
        if held is None:
            if not (fits and amount):
                return fits
            held = self._held[peer_id] = _Held(stranger)
        elif held.stranger != stranger:
            held.stranger = stranger
            self._strangers += held.amount if stranger else -held.amount
        if fits:
            held.amount += amount
            self.taken += amount
            self._strangers += amount if stranger else 0
        return fits

    def give_back(self, peer_id: NodeId, amount: int) -> None:
        """A peer gives back this much of what it has taken."""
        if not amount:
            return
        held = self._held[peer_id]
        held.amount -= amount
        self.taken -= amount
        if held.stranger:
            self._strangers -= amount
        if not held.amount:
            del self._held[peer_id]

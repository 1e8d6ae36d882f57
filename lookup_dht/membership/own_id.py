"""Which id this node should have: one that fits the address at which others see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from egtp.values.identity import Entropy
from lookup_dht.protocol.reachability import Reachability
from lookup_dht.wire.node_id import fits, is_public, new_node_id

__all__ = ["OwnId"]

VOTE_S: Final = 1200.0
"""How long a vote counts: by then each contact was asked again."""
LONE_VOTE_AFTER_S: Final = 60.0
"""How long only one network has to have told this node its address before that is believed. Where
there is but one bootstrap node, or all are in one network, nobody who listens on 0.0.0.0 could have
an id that others take, and all records would stay on the bootstrap nodes."""
LONE_VOTE_INTERVAL_S: Final = 3600.0
"""How soon such an address may change again: a liar must not have a node's id change all the time.
"""


class OwnId:
    """What a node believes of its own public address, and so of its id. Pure.

    On 0.0.0.0, it can only learn it from others. Only contacts have a vote, one per /16 (IPv6:
    /32): two networks, and more than half of all, have to agree, so that a few liars cannot make
    the node change its id. Where there is only one network, its word is the best that there is.
    """

    def __init__(
        self,
        sightings: Callable[[], Iterable[tuple[bytes, bytes, float]]],
        reachability: Reachability,
        entropy: Entropy,
        now_s: float,
    ) -> None:
        """``sightings`` returns which contacts see this node where, and when they said so."""
        self._sightings = sightings
        self._reachability = reachability
        self._entropy = entropy
        self._seen: bytes | None = None
        """The public address that others last saw this node at."""
        self._lone_vote_at = now_s + LONE_VOTE_AFTER_S
        self.disputed_since_s: float | None = None
        """Since when two networks have agreed on another address than the one believed."""

    def instead_of(self, node_id: bytes, now_s: float, bound: bytes | None = None) -> bytes | None:
        """The id to take if ``node_id`` does not fit this node's address: others take no node whose
        id does not. None if it does, or the address is in doubt. It is not if this node is
        ``bound`` to a public one, whatever others say."""
        seen = bound if bound is not None and is_public(bound) else self._address(now_s)
        if seen is None:
            return None
        if seen != self._seen:
            if self._seen is not None:
                self._reachability.moved()
            self._seen = seen
            self._lone_vote_at = now_s + LONE_VOTE_INTERVAL_S
        return None if fits(node_id, seen) else new_node_id(seen, self._entropy)

    def _address(self, now_s: float) -> bytes | None:
        """The address on which networks agree, or else that which the only one has told for long
        enough."""
        said = self._said_last()
        if len(said) == 1:
            return said[0][0] if now_s >= self._lone_vote_at else None
        self._lone_vote_at = max(self._lone_vote_at, now_s + LONE_VOTE_AFTER_S)
        votes = Counter(seen for seen, said_at_s in said if now_s - said_at_s < VOTE_S)
        agreed = [seen for seen, count in votes.items() if count > 1]
        winner = next((seen for seen in agreed if 2 * votes[seen] > votes.total()), None)
        if all(seen == (winner or self._seen) for seen in agreed):
            self.disputed_since_s = None
        elif self.disputed_since_s is None:
            self.disputed_since_s = now_s
        return winner

    def _said_last(self) -> list[tuple[bytes, float]]:
        """Where each network last saw this node, and when."""
        sightings = sorted(self._sightings(), key=lambda it: it[2])
        public = set(filter(is_public, {seen for _, seen, _ in sightings}))
        said = {
            voter[:2] if len(voter) == 4 else voter[:4]: (seen, said_at_s)
            for voter, seen, said_at_s in sightings
            if seen in public
        }
        return list(said.values())

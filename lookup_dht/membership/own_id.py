"""Which id this node should have: one that fits the address at which others see it."""

from __future__ import annotations

from typing import Final

from egtp.values.identity import Entropy
from lookup_dht.protocol.reachability import Reachability
from lookup_dht.wire.node_id import AddressVotes, fits, is_public, new_node_id

__all__ = ["OwnId"]

LONE_VOTE_AFTER_S: Final = 60.0
"""How long only one network has to have told this node its address before that is believed. Where
there is but one bootstrap node, or all are in one network, nobody who listens on 0.0.0.0 could have
an id that others take, and all records would stay on the bootstrap nodes."""
LONE_VOTE_INTERVAL_S: Final = 3600.0
"""How soon such an address may change again: a liar must not have a node's id change all the time.
"""


class OwnId:
    """What a node believes of its own public address, and so of its id. Pure."""

    def __init__(
        self, votes: AddressVotes, reachability: Reachability, entropy: Entropy, now_s: float
    ) -> None:
        self._votes = votes
        self._reachability = reachability
        self._entropy = entropy
        self._seen: bytes | None = None
        """The public address that others last saw this node at."""
        self._lone_vote_at = now_s + LONE_VOTE_AFTER_S

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
        agreed = self._votes.winner(now_s)
        if agreed is not None:
            return agreed
        lone = self._votes.only()
        if lone is None:
            self._lone_vote_at = now_s + LONE_VOTE_AFTER_S
        return lone if now_s >= self._lone_vote_at else None

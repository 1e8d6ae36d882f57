"""The peers that a node knows, and whom of them it forgets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from egtp.paths.path import Path
from egtp.reaching.peer import Peer
from egtp.values.identity import NodeId

__all__ = ["LOOKS", "PeerBook"]

LOOKS: Final = 16
"""Peers that are looked at to find one that may be forgotten, beside those that are. To look at all
of them would let strangers keep the node busy."""


class PeerBook:
    """The peers of a node, those least recently used first; bounded.

    Strangers have a share of it. Above that they make room for each other, so that no crowd of
    them makes this node forget where those are that somebody here has to do with. If all of them
    are in use, the book grows: those who let them in see to it that there are not too many.
    """

    def __init__(
        self, peers_max: int, strangers_max: int, is_needed: Callable[[NodeId], bool]
    ) -> None:
        self._peers_max = peers_max
        self._strangers_max = strangers_max
        self._is_needed = is_needed
        self._peers: dict[NodeId, Peer] = {}
        self._strangers: dict[NodeId, None] = {}
        """In order of use, too."""
        self.watched: Final[dict[Peer, None]] = {}
        """Those with whom something is going on that wants to be looked at."""
        self.find: Final[Callable[[NodeId], Peer | None]] = self._peers.get
        """The peer, if it is known."""

    def __len__(self) -> int:
        return len(self._peers)

    def best_path(self, peer_id: NodeId) -> Path | None:
        """Where to send to a peer now; None if it is not known, or there is no way to it."""
        peer = self.find(peer_id)
        return None if peer is None else peer.best_path

    def get(self, peer_id: NodeId) -> Peer:
        """The peer, made if it is not known yet, and now the one used last."""
        peer = self._peers.pop(peer_id, None)
        if peer is None:
            peer = Peer(peer_id)
            self._make_room()
        self._peers[peer_id] = peer
        if not peer.is_wanted:
            self._strangers.pop(peer_id, None)
            self._strangers[peer_id] = None
        return peer

    def want(self, peer: Peer) -> None:
        """Somebody here has to do with the peer: it is no stranger from now on."""
        peer.is_wanted = True
        self._strangers.pop(peer.peer_id, None)

    def watch(self, peer: Peer) -> None:
        """Have the peer looked at the next time, whatever else is known of it."""
        self.watched[peer] = None

    def all(self) -> list[Peer]:
        return list(self._peers.values())

    def _make_room(self) -> None:
        """For one more stranger."""
        too_many = len(self._peers) + 1 - self._peers_max
        if too_many > 0:
            above_share = min(too_many, max(0, self._strangers_above))
            self._forget(self._strangers, above_share)
            # Strangers above their share who are in use cost nobody else his place.
            self._forget(self._peers, too_many - above_share)

    def has_room_for_stranger(self, peer_id: NodeId) -> bool:
        """Whether a stranger may come and stay without the book growing for it."""
        if peer_id in self._peers or len(self._peers) < self._peers_max:
            return True
        self._forget(self._strangers, self._strangers_above)
        return self._strangers_above <= 0

    @property
    def _strangers_above(self) -> int:
        """How many strangers there are above their share, if one more comes."""
        return len(self._strangers) + 1 - self._strangers_max

    def _forget(self, those: dict[NodeId, Any], count: int) -> None:
        """Forget the first of those that are not in use. Those that are in use have just been
        used, and are looked at last the next time."""
        for peer_id in list(islice(those, LOOKS + count)) if count > 0 else ():
            if self._peers[peer_id].in_use or self._is_needed(peer_id):
                those[peer_id] = those.pop(peer_id)
                continue
            del self._peers[peer_id]
            self._strangers.pop(peer_id, None)
            count -= 1
            if not count:
                break

"""The peers that a node knows, and which of them it forgets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from egtp.paths.path import Path
from egtp.reaching.peer import Peer
from egtp.values.identity import NodeId

__all__ = ["LOOKS", "PeerBook"]

LOOKS: Final = 16
"""How many peers to look at, beyond those to be forgotten, to find enough that may be. Looking at
all of them each time would let strangers keep this node busy."""


class PeerBook:
    """The peers of a node, least recently used first; bounded.

    Strangers have a share of the book. Above it they make room for each other, so no crowd of
    strangers can make this node forget where the peers are that somebody here wants to reach. If
    all peers are in use, the book grows; whoever admits paths limits how many can be.
    """

    def __init__(
        self, peers_max: int, strangers_max: int, is_needed: Callable[[NodeId], bool]
    ) -> None:
        self._peers_max = peers_max
        self._strangers_max = strangers_max
        self._is_needed = is_needed
        self._peers: dict[NodeId, Peer] = {}
        self._strangers: dict[NodeId, None] = {}
        """Least recently used first, too."""
        self.watched: Final[dict[Peer, None]] = {}
        """Peers with whom something is going on: upkeep looks at them each time."""
        self.find: Final[Callable[[NodeId], Peer | None]] = self._peers.get
        """The peer, if it is known."""

    def __len__(self) -> int:
        return len(self._peers)

    def best_path(self, peer_id: NodeId) -> Path | None:
        """Where to send to a peer now; None if it is not known, or there is no way to it."""
        peer = self.find(peer_id)
        return None if peer is None else peer.best_path

    def paths_to(self, peer_id: NodeId) -> list[Path]:
        """All paths to a peer, including those that only receive."""
        peer = self.find(peer_id)
        return [] if peer is None else peer.paths

    def get(self, peer_id: NodeId) -> Peer:
        """The peer, created if it is not known yet, and now the most recently used."""
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
        """Somebody here wants to reach the peer: it is no stranger from now on."""
        peer.is_wanted = True
        self._strangers.pop(peer.peer_id, None)

    def watch(self, peer: Peer) -> None:
        """Have upkeep look at the peer the next time, whatever its state."""
        self.watched[peer] = None

    def all(self) -> list[Peer]:
        return list(self._peers.values())

    def _make_room(self) -> None:
        """Make room for one more peer, which begins as a stranger."""
        too_many = len(self._peers) + 1 - self._peers_max
        if too_many > 0:
            above_share = min(too_many, max(0, self._strangers_above))
            self._forget(self._strangers, above_share)
            # If strangers above their share are in use, nobody else is forgotten instead.
            self._forget(self._peers, too_many - above_share)

    def has_room_for_stranger(self, peer_id: NodeId) -> bool:
        """Whether the book can take a stranger without growing; may forget others for that."""
        if peer_id in self._peers or len(self._peers) < self._peers_max:
            return True
        self._forget(self._strangers, self._strangers_above)
        return self._strangers_above <= 0

    @property
    def _strangers_above(self) -> int:
        """How many strangers would be above their share with one more."""
        return len(self._strangers) + 1 - self._strangers_max

    def _forget(self, those: dict[NodeId, Any], count: int) -> None:
        """Forget the first ``count`` that are not in use. Those found in use count as just used, so
        the next time they are looked at last."""
        for peer_id in list(islice(those, LOOKS + count)) if count > 0 else ():
            if self._peers[peer_id].in_use or self._is_needed(peer_id):
                those[peer_id] = those.pop(peer_id)
                continue
            del self._peers[peer_id]
            self._strangers.pop(peer_id, None)
            count -= 1
            if not count:
                break

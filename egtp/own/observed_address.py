"""At which address others see this node: an election among the peers that it dialled.

Pure. A peer says in its handshake response where it sees us. One peer can lie, and whoever rents a
network can be many peers; so a whole network (a /16, or an IPv6 /32) has one vote, and an address
wins only if at least two networks, and more than half of all that voted, name it. The port does not
count: behind a NAT, each connection has a different one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["NETWORKS_MIN", "ObservedAddress", "network_of"]

NETWORKS_MIN: Final = 2
"""At least this many networks must agree, however few have voted."""
VOTES_MAX: Final = 64
"""Networks of observers that are remembered: more than a liar can easily rent."""
VOTE_S: Final = 3600.0
"""How long a vote counts after its observer was last heard from: home addresses change once a day.
"""


def network_of(ip: bytes) -> bytes:
    """The network in whose name an address (4 or 16 bytes) votes: its /16, or its IPv6 /32."""
    return ip[:2] if len(ip) == 4 else ip[:4]


@dataclass(slots=True)
class _Vote:
    observer: bytes
    ip: bytes
    heard_s: float


class ObservedAddress:
    """The election for one address family.

    Invariants: one vote per network of observers, and at most ``votes_max`` in all; those not heard
    from for longest give way. The winner stays until another one wins: silence is no reason to
    believe that the address has changed.
    """

    def __init__(self, votes_max: int = VOTES_MAX, vote_s: float = VOTE_S) -> None:
        """``vote_s`` is how long a vote counts after its observer was last heard from."""
        self._votes_max = votes_max
        self._vote_s = vote_s
        self._votes: dict[bytes, _Vote] = {}
        self.winner: bytes | None = None

    def __len__(self) -> int:
        return len(self._votes)

    def tell(self, observer: bytes, ip: bytes, now_s: float) -> bool:
        """An observer says that it sees us at ``ip``. True if that contradicts the winner."""
        network = network_of(observer)
        self._votes[network] = _Vote(observer, ip, now_s)
        if len(self._votes) > self._votes_max:
            del self._votes[min(self._votes, key=lambda one: self._votes[one].heard_s)]
        return self.winner is not None and ip != self.winner

    def heard(self, observers: Iterable[bytes], now_s: float) -> None:
        """These observers are alive: what they said still holds."""
        for observer in observers:
            vote = self._votes.get(network_of(observer))
            if vote is not None and vote.observer == observer:
                vote.heard_s = now_s

    def forget_before(self, heard_s: float) -> None:
        """Votes last heard before ``heard_s`` no longer count."""
        self._votes = {n: vote for n, vote in self._votes.items() if vote.heard_s >= heard_s}

    def elect(self, now_s: float) -> bytes | None:
        """Count the votes. Returns the winner: the previous one if nobody else has won."""
        self.forget_before(now_s - self._vote_s)
        counts = Counter(vote.ip for vote in self._votes.values())
        for ip, count in counts.most_common(1):
            if count >= NETWORKS_MIN and 2 * count > len(self._votes):
                self.winner = ip
        return self.winner

    def votes_for(self, ip: bytes) -> int:
        """How many networks name an address."""
        return sum(vote.ip == ip for vote in self._votes.values())

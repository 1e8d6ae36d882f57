"""How often a node dials an address at the request of others (pure)."""

from __future__ import annotations

from typing import Final

from egtp.limits.shares import strangers_part
from egtp.values.identity import NodeId

__all__ = ["CheckQuota"]

MINUTE_S: Final = 60.0


class CheckQuota:
    """Limits how often this node dials for others: once per interval for each peer and each IP
    address (for IPv6, each /64), and ``per_minute`` times for all together. Strangers get a little
    less than that, so that some dials are left for the peers that somebody here knows.

    Invariant: it remembers no more than the dials of the last interval or minute.
    """

    def __init__(self, per_minute: int, interval_s: float) -> None:
        self._per_minute = per_minute
        self._interval_s = interval_s
        self._dialled: list[float] = []
        self._last: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._last)

    def take(self, peer_id: NodeId, ip: bytes, now_s: float, *, stranger: bool) -> bool:
        """Whether a dial is allowed now; if so, it counts."""
        self._dialled = [at_s for at_s in self._dialled if now_s - at_s < MINUTE_S]
        # In the order of time, so the oldest come first.
        for key, last_s in list(self._last.items()):
            if now_s - last_s < self._interval_s:
                break
            del self._last[key]
        keys = (b"id" + peer_id, b"ip" + ip[:8])
        most = strangers_part(self._per_minute) if stranger else self._per_minute
        if len(self._dialled) >= most or any(key in self._last for key in keys):
            return False
        self._dialled.append(now_s)
        self._last |= dict.fromkeys(keys, now_s)
        return True

"""How often a node dials somebody because somebody asked it to (pure)."""

from __future__ import annotations

from typing import Final

from egtp.limits.shares import strangers_part
from egtp.values.identity import NodeId

__all__ = ["CheckQuota"]

MINUTE_S: Final = 60.0


class CheckQuota:
    """How often this node dials for others: each peer and each IP address (of IPv6 each /64) once
    in an interval, and all of them together so often in a minute; strangers a little less often, so
    that they leave some dials to those whom somebody here knows.

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
        """Whether there may be a dial now; if so, it counts."""
        self._dialled = [at_s for at_s in self._dialled if now_s - at_s < MINUTE_S]
        # In order of time, so the old ones are in front.
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

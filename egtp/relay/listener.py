"""RelayListener: keeps this node registered at relays, so that it can be reached through them.

It holds a lease at each of a few relays at once, renews them, and replaces a relay that dies. A
relay is published only while it confirms the lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Final, Protocol

from egtp.discovery_service import Introduction
from egtp.errors import EgtpError, FastFail, FastFailReason, InvalidMessage, NodeClosed
from egtp.events import LeaseNotGranted, Observer
from egtp.later import tell_of_mistake
from egtp.relay.wire import LEASE_KIND, decode_lease, encode_lease
from egtp.values.identity import NodeId

__all__ = ["ListenerHost", "RelayListener"]

log = logging.getLogger("egtp")

HUNG_UP: Final = "hung up at once"
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
HELD_S: Final = 5.0
"""If a connection ends later than this after its first lease, the relay is asked again at once: it
may just have restarted. If it ends sooner, that is done once, since it may be this node that has
moved; after that, the relay is left alone like one that refuses. So a relay that grants leases and
hangs up, whenever it does so, does not get this node to dial it all the time."""
LEASE_TIMEOUT_S: Final = 6.0
"""How long a relay may take to answer, including the time to find and dial it."""


class ListenerHost(Protocol):
    """What a relay listener needs from its node."""

    async def ask_directly(
        self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float
    ) -> bytes:
        """Query a peer over a direct path, dialled if need be, within ``timeout_s`` in all."""

    def meet(self, introduction: Introduction) -> None:
        """Take note of a relay's record."""

    def now(self) -> float:
        """Elapsed seconds."""

    def leases_changed(self) -> None:
        """The relays that hold a lease, or their strategies, may have changed: if so, publish."""


@dataclass(slots=True)
class _Candidate:
    relay_id: NodeId
    failures: int = 0
    retry_at_s: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have its lease, if any, asked for again at once."""
    has_moved: bool = False
    """Whether this machine has been in another network, or in none, since that was last done."""


class RelayListener:
    """Registers at ``wanted`` of the relays that it was introduced to, in this node's own order."""

    def __init__(
        self,
        host: ListenerHost,
        me: NodeId,
        wanted: int,
        lease_s: float,
        counters: Counter[str],
        observer: Observer | None,
    ) -> None:
        self._me = me
        self._host = host
        self._wanted = wanted
        self._lease_s = lease_s
        self._counters = counters
        self._observer = observer
        self._candidates: dict[NodeId, _Candidate] = {}
        self._keepers: dict[NodeId, asyncio.Task[None]] = {}
        self._confirmed: dict[NodeId, None] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def confirmed(self) -> tuple[NodeId, ...]:
        """The relays that hold a lease of ours now, those that have held it for longest first."""
        return tuple(self._confirmed)

    def chose(self, relay_id: NodeId) -> bool:
        """Whether deliveries from that relay are wanted: nobody becomes our relay by pushing."""
        return relay_id in self._keepers

    def introduce(self, introductions: Sequence[Introduction]) -> None:
        """The discovery service names the relays that it recommends now, replacing earlier ones."""
        candidates: dict[NodeId, _Candidate] = {}
        for introduction in introductions:
            relay_id = introduction.peer_id
            if relay_id != self._me:
                candidates[relay_id] = self._candidates.get(relay_id) or _Candidate(relay_id)
                self._host.meet(introduction)
        self._candidates = candidates
        for relay_id in self._keepers.keys() - candidates.keys():
            self._keepers[relay_id].cancel()
        self._fill()

    def connection_lost(self, relay_id: NodeId) -> None:
        """The path to a relay is gone: find out at once whether the relay is, too."""
        if relay_id in self._candidates:
            self._candidates[relay_id].wake.set()

    def network_changed(self) -> None:
        """This machine is in another network, or in one again: that a relay could not be reached
        before says nothing any more, nor that one could: even with the same address, the machine
        may be behind another NAT now."""
        for candidate in self._candidates.values():
            candidate.failures, candidate.retry_at_s = 0, 0.0
            candidate.has_moved = True
            candidate.wake.set()
        self._fill()

    def _fill(self) -> None:
        """Start keeping a lease at the most promising relays, up to the number wanted."""
        if self._closed:
            return
        now = self._host.now()
        free = [c for i, c in self._candidates.items() if i not in self._keepers]
        ready = sorted((c for c in free if c.retry_at_s <= now), key=self._preference)
        for candidate in ready[: max(0, self._wanted - len(self._keepers))]:
            relay_id = candidate.relay_id
            task = asyncio.get_running_loop().create_task(self._keep(candidate))
            self._keepers[relay_id] = task
            task.add_done_callback(partial(self._kept, relay_id))
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        later = [c.retry_at_s for c in free if c.retry_at_s > now]
        if later and len(self._keepers) < self._wanted:
            self._retry = asyncio.get_running_loop().call_later(min(later) - now, self._fill)

    def _preference(self, candidate: _Candidate) -> tuple[int, bytes]:
        """All nodes may know the same relays; each prefers different ones, to share the load."""
        return candidate.failures, sha256(self._me + candidate.relay_id).digest()

    async def _keep(self, candidate: _Candidate) -> None:
        """Hold a lease until the relay no longer confirms it."""
        relay_id, wake = candidate.relay_id, candidate.wake
        held_since_s: float | None = None
        may_be_us = not candidate.failures
        while True:
            wake.clear()
            candidate.has_moved = False
            try:
                granted_s = await self._ask_for_lease(relay_id)
            except (EgtpError, InvalidMessage) as error:
                if _is_the_nodes_own_end(error):
                    self._closed = True  # as the node says next
                    return
                self._failed(candidate, type(error).__name__, str(error))
                return
            if held_since_s is None:
                held_since_s = self._host.now()
            self._confirmed.setdefault(relay_id)
            # Even if it was confirmed before: it may have another address or channel key now.
            self._host.leases_changed()
            hung_up = True
            try:
                async with asyncio.timeout(granted_s / 3):
                    await wake.wait()
            except TimeoutError:
                hung_up = False
            if candidate.has_moved or self._host.now() - held_since_s >= HELD_S:
                candidate.failures, may_be_us = 0, True
            elif hung_up and not may_be_us:
                self._failed(candidate, HUNG_UP, HUNG_UP)
                return
            elif hung_up:
                may_be_us = False
            if hung_up:
                held_since_s = None

    def _failed(self, candidate: _Candidate, kind: str, reason: str) -> None:
        """Leave a relay alone for a while, for longer each time."""
        pause_s = min(RETRY_FIRST_S * 2 ** min(candidate.failures, 16), RETRY_MAX_S)
        pause_s *= self._share_of_pause(candidate)
        candidate.failures += 1
        candidate.retry_at_s = self._host.now() + pause_s
        self._counters[f"relay lease failed: {kind}"] += 1
        if candidate.failures == 1:
            event = LeaseNotGranted(candidate.relay_id, reason, pause_s)
            if self._observer is not None:
                self._observer(event)
            else:
                log.warning("%s", event)

    def _share_of_pause(self, candidate: _Candidate) -> float:
        """From a half to 1, different for each node and each time. All clients of a relay lose it
        at the same moment: if all of them tried again at the same moments, too, a relay that is
        back would have to turn many of them away."""
        seed = b"%b%b%d" % (self._me, candidate.relay_id, candidate.failures)
        return 0.5 + sha256(seed).digest()[0] / 510

    async def _ask_for_lease(self, relay_id: NodeId) -> int:
        body = encode_lease(int(self._lease_s))
        timeout_s = min(LEASE_TIMEOUT_S, self._lease_s)
        granted = await self._host.ask_directly(relay_id, LEASE_KIND, body, timeout_s)
        granted_s = decode_lease(granted)
        if granted_s < 1:
            raise InvalidMessage("a relay granted no time")
        # With a lease of decades, a relay that is gone, or lies, would never be asked again.
        return min(granted_s, max(1, int(self._lease_s)))

    def _kept(self, relay_id: NodeId, task: asyncio.Task[None]) -> None:
        del self._keepers[relay_id]
        if relay_id in self._confirmed:
            del self._confirmed[relay_id]
            if not self._closed:
                self._host.leases_changed()
        tell_of_mistake("keeping a relay lease failed", task)
        self._fill()

    async def close(self) -> None:
        """Stop. The leases at the relays expire by themselves."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        keepers = list(self._keepers.values())
        for task in keepers:
            task.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


def _is_the_nodes_own_end(error: Exception) -> bool:
    """Whether it is not the relay that the request failed at."""
    return isinstance(error, NodeClosed) or (
        isinstance(error, FastFail) and error.reason is FastFailReason.CLOSED
    )

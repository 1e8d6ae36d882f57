"""Searching: which peers to find a path to, when, and when again; which sessions to replace."""

from __future__ import annotations

import asyncio
import math
from copy import copy
from functools import partial
from typing import Any, Final, Protocol

from egtp.engine.asking import Asking
from egtp.errors import FastFail, FastFailReason
from egtp.events import Observer, SearchFailed
from egtp.later import tell_of_mistake
from egtp.limits.throttle import TokenBucket
from egtp.paths.path import Path
from egtp.reaching.peer import Peer, Search
from egtp.reaching.peers import PeerBook
from egtp.reaching.reaching import Reacher
from egtp.values.comm_strat import RelayStrat
from egtp.values.contact import Contact
from egtp.values.identity import NodeId

__all__ = ["Searching", "SearchingHost"]

SEEK_AGAIN_FIRST_S: Final = 1.0
SEEK_AGAIN_MAX_S: Final = 10.0
"""A peer is searched for again and again while queries wait that it may have been given before. The
pause between searches doubles, from the first of these up to the second."""
RENEW_AGAIN_S: Final = 60.0
"""The pause before another attempt to replace a session, or to find a path beside a silent one."""
HEARD_AGAIN_S: Final = 10.0
"""How long to wait before dialling a peer's addresses at its word again: a record costs its signer
nothing, and may name a third party. Meanwhile the peer is reached through its relays."""
HEARD_PER_S: Final = 10.0
"""Searches per second at the word of all peers together; each may dial eight addresses."""
HEARD_BURST_S: Final = 5.0
"""After an outage, many peers have news at once."""


class SearchingHost(Protocol):
    """What searching needs from its node."""

    @property
    def is_closed(self) -> bool: ...

    def now(self) -> float:
        """Elapsed seconds."""

    def is_welcome(self, peer_id: NodeId) -> bool:
        """Whether the application lets the peer begin a session."""


class Searching:
    """All searches of a node. Each is a task, and so is each renewal of a session."""

    def __init__(
        self,
        host: SearchingHost,
        book: PeerBook,
        reacher: Reacher,
        asking: Asking,
        observer: Observer | None,
    ) -> None:
        self._host = host
        self._book = book
        self._reacher = reacher
        self._asking = asking
        self._observer = observer
        self._heard = TokenBucket(HEARD_PER_S, HEARD_BURST_S, host.now())
        self._tasks: set[asyncio.Task[Any]] = set()
        """Searches and renewals that have not ended, whether still wanted or not."""

    def seek(self, peer: Peer) -> None:
        """Search for any path, unless a search is under way, or the last few paths ended so soon
        that it is better to wait a while."""
        self._book.watch(peer)
        if peer.search is None and not self._host.is_closed:
            if self._host.now() < peer.rests_until_s:
                peer.seek_again_s = peer.rests_until_s
                return
            peer.seek_again_s = math.inf
            peer.search = Search(partial(self._search, peer))
            self._keep(peer.search.task)

    def not_sought(self, peer: Peer) -> None:
        """Nobody waits for a path to the peer any more: end the search for one."""
        peer.seek_again_s = math.inf
        if peer.search is not None:
            peer.search.task.cancel()
            peer.search = None

    def disconnected(self, peer: Peer) -> None:
        """All paths to the peer were closed on purpose: nothing opens another one but what this
        node still has to say, which is no reply if the peer has been blocked."""
        if not self._host.is_welcome(peer.peer_id):
            self._asking.drop_waiting_replies(peer)
        if not (peer.waiting or self.is_asked(peer)):
            self.not_sought(peer)
        if peer.direct_search is not None:
            peer.direct_search.task.cancel()
            peer.direct_search = None
        if peer.renewal is not None:
            peer.renewal.cancel()

    async def _search(self, peer: Peer, found: asyncio.Future[None]) -> FastFail | None:
        failure = None
        try:
            await self._reacher.reach(peer, found)
            peer.attempts = ()
        except FastFail as error:
            failure = error
            peer.attempts = error.attempts
            if self._observer is not None:
                self._observer(SearchFailed(peer.peer_id, error.attempts))
        finally:
            if peer.search is not None and peer.search.found is found:
                peer.search = None
        if failure is not None:
            self._asking.search_failed(peer, failure)
            if peer.waiting:
                pause_s = min(SEEK_AGAIN_FIRST_S * 2**peer.failed_searches, SEEK_AGAIN_MAX_S)
                peer.failed_searches = min(peer.failed_searches + 1, 16)
                peer.seek_again_s = self._host.now() + pause_s
        elif peer.best_path is None and (peer.waiting or self.is_asked(peer)):
            # The path was lost again before this search ended.
            self.seek(peer)
        return failure

    async def connect(self, peer: Peer) -> None:
        """Return once there is a direct path to ``peer``. Raises :class:`FastFail`."""
        if peer.direct is not None:
            return
        if self._host.is_closed:
            raise FastFail("this node is closed", reason=FastFailReason.CLOSED)
        self.seek_direct(peer)
        assert peer.direct_search is not None  # noqa: S101 - there is no direct path yet
        # All callers share this search, so it goes on when one of them is cancelled.
        task = peer.direct_search.task
        await asyncio.wait([task])
        if task.cancelled():
            raise FastFail(f"{peer.peer_id} was disconnected while it was dialled")
        failure = task.result()
        if failure is not None:
            raise copy(failure)  # one for each of them

    def seek_direct(self, peer: Peer) -> None:
        """Search for a direct path, unless a search is under way."""
        if peer.direct_search is None and not self._host.is_closed:
            peer.direct_search = Search(partial(self._search_direct, peer))
            self._keep(peer.direct_search.task)

    def network_changed(self) -> None:
        """Search at the next look for every peer that something waits for."""
        for peer in self._book.all():
            peer.network_changed()
            if peer.waiting:
                peer.failed_searches, peer.seek_again_s = 0, self._host.now()
                peer.short_lives, peer.rests_until_s = 0, -math.inf

    def look(self, peer: Peer, now: float) -> None:
        """Begin the searches for a peer that are due."""
        if peer.search is None and peer.waiting and now >= peer.seek_again_s:
            self.seek(peer)
        self._seek_direct_if_due(peer, now)

    def heard_where(self, peer: Peer) -> None:
        """A peer that is reached through relays has said where else it may be: search there as soon
        as its turn comes. Nobody is dialled for a stranger."""
        if peer.is_wanted:
            peer.direct_due_s = max(self._host.now(), peer.direct_again_s)
            self._book.watch(peer)
            self._seek_direct_if_due(peer, self._host.now())

    def _seek_direct_if_due(self, peer: Peer, now: float) -> None:
        if peer.direct is not None or peer.relayed is None:
            # There is a direct path by now; or there is no path at all, and the next search tries
            # everything.
            peer.direct_due_s = math.inf
        elif now >= peer.direct_due_s and peer.direct_search is None and now >= self._heard.ready_s:
            peer.direct_due_s = math.inf
            if self._reacher.may_dial(peer):
                self._heard.take(1, now)
                peer.direct_again_s = now + HEARD_AGAIN_S
                self.seek_direct(peer)
            else:
                # Its address may have led nowhere while the peer was merely busy.
                peer.direct_due_s = peer.next_forgiven_s(now)

    async def _search_direct(self, peer: Peer, found: asyncio.Future[None]) -> FastFail | None:
        try:
            await self._reacher.reach(peer, found, with_relays=False)
        except FastFail as error:
            return error
        finally:
            if peer.direct_search is not None and peer.direct_search.found is found:
                peer.direct_search = None
        return None

    async def connect_relay(self, relay: RelayStrat) -> None:
        """Return once there is a direct path to a relay, found by what another peer's record says
        of it if the relay's own is not known. Raises :class:`FastFail`."""
        peer = self._book.get(relay.relay_id)
        peer.hearsay = Contact.of_relay(relay)
        await self.connect(peer)

    def is_asked(self, peer: Peer) -> bool:
        """Whether replies from the peer are awaited."""
        return self._asking.exchanges.count_of(peer.peer_id) > 0

    def seek_beside(self, peer: Peer, now: float, *, only_direct: bool) -> None:
        """Search for a path beside one that is silent, unless that was done lately: a peer that is
        merely slow goes silent again and again."""
        if now - peer.renewed_s > RENEW_AGAIN_S:
            peer.renewed_s = now
            if only_direct:
                self.seek_direct(peer)
            else:
                self.seek(peer)

    def renew(self, peer: Peer, path: Path, now: float) -> None:
        """Begin a session that replaces the one of ``path``, unless that was done lately. The old
        one stays until the new one is confirmed."""
        if peer.renewal is not None or now - peer.renewed_s <= RENEW_AGAIN_S:
            return
        peer.renewed_s = now
        renewal = self._reacher.renew(peer, path)
        peer.renewal = asyncio.get_running_loop().create_task(renewal)
        self._keep(peer.renewal)
        peer.renewal.add_done_callback(partial(self._renewed, peer))

    def _renewed(self, peer: Peer, task: asyncio.Task[None]) -> None:
        peer.renewal = None
        tell_of_mistake("renewing a session failed", task)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task until it has ended: once cancelled, it may still take a while."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel all searches and renewals, and wait for all, including those cancelled before."""
        tasks = list(self._tasks)
        for task in tasks:
            if not task.cancelling():  # a second time would disturb its clean-up
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

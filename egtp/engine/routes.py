"""Routes: the paths to peers, from the search for one to its end.

Which path is used, what happens when a better one is found or the last one is lost, and who has
gone silent. What waits for a path or is lost with it is the business of :mod:`egtp.engine.asking`.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from functools import partial
from typing import Any, Final, Protocol

from egtp.channel.session import COUNTER_LIMIT
from egtp.config import NodeConfig
from egtp.engine.asking import Asking
from egtp.errors import FastFail, FastFailReason
from egtp.events import Observer, PathLost, PathOpened, SearchFailed
from egtp.limits.idle_policy import Standing
from egtp.limits.relayed_paths import RelayedPaths
from egtp.limits.throttle import TokenBucket
from egtp.paths.channels import SecureChannels
from egtp.paths.path import Path
from egtp.paths.path_life import PathEvent
from egtp.paths.silence import Verdict
from egtp.reaching.peers import Peer, PeerBook, Search
from egtp.reaching.reaching import Reacher
from egtp.relay.relaying import Relaying
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.tcp.connection import TCPConnection
from egtp.values.comm_strat import RelayStrat, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import NodeId

__all__ = ["Routes", "RoutesHost"]

DRAIN_S: Final = 5.0
"""How long a superseded connection without work is kept: what is under way on it still arrives."""
NOTE_INTERVAL_S: Final = 5.0
"""A peer that says it does not know the session is answered by a new handshake this often."""
SEEK_AGAIN_FIRST_S: Final = 1.0
SEEK_AGAIN_MAX_S: Final = 30.0
"""A peer for whom something waits that it may have had before is searched for again and again."""
AWAY_MAX_S: Final = 600.0
"""No peer can ask to be left alone for longer."""
ALL_AGAIN_S: Final = 10.0
"""How often peers at rest are looked at, too."""
RENEW_AGAIN_S: Final = 60.0
"""A session that could not be replaced, or whose peer goes silent again, is tried again after this
long."""


HEARD_AGAIN_S: Final = 10.0
"""At a peer's word its addresses are dialled this often at most: a record costs its signer nothing,
and may name a third party. Until then the peer is reached through its relays."""
HEARD_PER_S: Final = 10.0
"""The same of all peers together; a search may dial eight addresses."""
HEARD_BURST_S: Final = 5.0
"""After an outage many have something to say."""


class RoutesHost(Protocol):
    """What routes need from their node."""

    @property
    def is_closed(self) -> bool: ...

    def now(self) -> float:
        """Elapsed seconds."""

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here has to do with the peer; others are strangers."""


class Routes:
    """All paths of a node."""

    def __init__(
        self,
        host: RoutesHost,
        me: NodeId,
        book: PeerBook,
        channels: SecureChannels,
        comms: TCPCommsHandler,
        reacher: Reacher,
        asking: Asking,
        relaying: Relaying,
        config: NodeConfig,
        counters: Counter[str],
        observer: Observer | None,
    ) -> None:
        self._host = host
        self._me = me
        self._book = book
        self._channels = channels
        self._comms = comms
        self._reacher = reacher
        self._asking = asking
        self._relaying = relaying
        self._config = config
        self._counters = counters
        self._observer = observer
        self._relayed: RelayedPaths[Path] = RelayedPaths(
            strangers_max=config.relayed_strangers_max,
            idle_timeout_s=config.idle_timeout_s,
            idle_timeout_max_s=config.idle_timeout_max_s,
            why_keep=self._why_keep,
        )
        self._watched: dict[Peer, None] = {}
        """Peers with whom something is going on that wants to be looked at."""
        self._at_rest: list[Peer] = []
        """Of whom else there is, those who have not been looked at in this round."""
        self._looked_at_s = float("-inf")
        self._heard = TokenBucket(HEARD_PER_S, HEARD_BURST_S, host.now())
        self._tasks: set[asyncio.Task[Any]] = set()
        """Searches and renewals that have not ended, wanted or not."""

    # Searching

    def seek(self, peer: Peer) -> None:
        """Search for any path, unless a search is under way."""
        self._watched[peer] = None
        if peer.search is None and not self._host.is_closed:
            peer.seek_again_s = float("inf")
            peer.search = Search(partial(self._search, peer))
            self._keep(peer.search.task)

    def not_sought(self, peer: Peer) -> None:
        """Nobody waits for a path to the peer any more."""
        peer.seek_again_s = float("inf")
        if peer.search is not None:
            peer.search.task.cancel()
            peer.search = None

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
        elif peer.best_path is None and (peer.waiting or self._is_asked(peer)):
            # The path was lost again before this search had come to its end.
            self.seek(peer)
        return failure

    async def connect(self, peer: Peer) -> None:
        """Have a direct path to ``peer``. Raises :class:`FastFail`."""
        if peer.direct is not None:
            return
        if self._host.is_closed:
            raise FastFail("this node is closed", reason=FastFailReason.CLOSED)
        self.seek_direct(peer)
        assert peer.direct_search is not None  # noqa: S101 - there is no direct path yet
        # Shared by all who need this relay, so it goes on when one of them is cancelled.
        failure = await asyncio.shield(peer.direct_search.task)
        if failure is not None:
            raise FastFail(failure.summary, failure.attempts, failure.reason)

    def seek_direct(self, peer: Peer) -> None:
        """Search for a direct path, unless there is one or a search is under way."""
        if peer.direct is None and peer.direct_search is None and not self._host.is_closed:
            peer.direct_search = Search(partial(self._search_direct, peer))
            self._keep(peer.direct_search.task)

    def heard_where(self, peer: Peer) -> None:
        """A peer that is reached through relays has said where else it may be: search there, as
        soon as its turn comes. For strangers nobody is dialled."""
        if peer.is_wanted:
            peer.direct_due_s = max(self._host.now(), peer.direct_again_s)
            self._watched[peer] = None
            self._seek_direct_when_due(peer, self._host.now())

    def _seek_direct_when_due(self, peer: Peer, now: float) -> None:
        if peer.direct is not None or peer.relayed is None:
            # There is a path by now; or there is none at all, and the next search tries everything.
            peer.direct_due_s = math.inf
        elif now >= peer.direct_due_s and peer.direct_search is None and now >= self._heard.ready_s:
            self._heard.take(1, now)
            peer.direct_due_s, peer.direct_again_s = math.inf, now + HEARD_AGAIN_S
            self.seek_direct(peer)

    async def _search_direct(self, peer: Peer, found: asyncio.Future[None]) -> FastFail | None:
        try:
            await self._reacher.reach(peer, found, with_relays=False)
        except FastFail as error:
            return error
        finally:
            peer.direct_search = None
        return None

    async def connect_relay(self, relay: RelayStrat) -> None:
        """Have a direct path to a relay, from what somebody's record says of it if need be."""
        peer = self._book.get(relay.relay_id)
        peer.hearsay = Contact.of_relay(relay)
        await self.connect(peer)

    def _is_asked(self, peer: Peer) -> bool:
        return self._asking.exchanges.count_of(peer.peer_id) > 0

    # Paths come

    def admits(self, path: Path) -> bool:
        """Whether there is room for a path that has just been proven. For connections there is
        :meth:`TCPCommsHandler.proven`; here is who needs none."""
        if not path.relayed:
            return True
        now, peer_id = self._host.now(), path.peer_id
        of_peer = self._relayed.of_peer(peer_id)
        if len(of_peer) >= self._config.peer_connections_max:
            peer = self._book.find(peer_id)
            used = None if peer is None else peer.relayed
            oldest = next(older for older in of_peer if older is not used)
            self._make_way(oldest, "its peer has newer ones")
        known = self._host.knows(peer_id)
        if not (known or self._has_room_for_stranger(peer_id, now)):
            # Without a word: whoever means it asks again, and need not do so at once.
            self._counters["relayed path refused: too many strangers"] += 1
            return False
        self._relayed.add(path, Standing.KNOWN if known else Standing.STRANGER, now)
        return True

    def want(self, peer_id: NodeId) -> None:
        """Somebody here has to do with the peer from now on: its paths are no stranger's."""
        self._relayed.want(peer_id, self._host.now())

    def _has_room_for_stranger(self, peer_id: NodeId, now: float) -> bool:
        if not self._relayed.is_full and self._book.has_room_for_stranger(peer_id):
            return True
        path = self._relayed.least_used(now)
        if path is not None:
            self._make_way(path, "another stranger needs the place")
        return path is not None

    def _make_way(self, path: Path, reason: str) -> None:
        self._counters[f"relayed path closed: {reason}"] += 1
        path.say_close()
        self.lose(path, reason)

    def confirmed(self, path: Path) -> None:
        """The peer at the other end of ``path`` is proven and lives."""
        peer = self._book.get(path.peer_id)
        peer.add_path(path, self._me, self._host.now())
        self._watched[peer] = None
        peer.failed_searches = 0
        peer.seek_again_s = float("inf")
        if self._observer is not None:
            self._observer(PathOpened(path.peer_id, path.strategy))
        strategy = path.strategy
        if isinstance(strategy, TCPStrat):
            connection = self._comms.connection(strategy.connection or 0)
            if connection is not None:
                self._comms.proven(connection, path.peer_id)
            if peer.direct_search is not None:
                peer.direct_search.path_opened()
        if peer.search is not None:
            peer.search.path_opened()
        self._asking.path_opened(peer, path)
        self._end_dead_others(peer, path)
        if path.closed:
            return
        path.flush()
        if not path.relayed:
            self._relaying.connected(peer)
            self._flush_through(peer.peer_id)
        elif path.dialled and path.record is not None and path.record.tcp:
            # The handshake brought a newer record, with addresses that were not tried yet.
            self.heard_where(peer)

    # Paths go

    def _end_dead_others(self, peer: Peer, path: Path) -> None:
        """There is proof by ``path`` that nobody is at the other end of some older ones."""
        for older in peer.others:
            if older.incarnation != path.incarnation:
                self.lose(older, "the peer was restarted")
            elif older.suspect:
                self.lose(older, "the peer does not know its session")
            elif older.silence.is_doubted:
                self.lose(older, "silent, and the peer is there by another way", at_once=True)

    def lose(self, path: Path, reason: str, *, at_once: bool = False) -> None:
        """A path is of no use any more. What had not left by it goes by another; what was written
        may still leave, unless it is to end ``at_once``."""
        self._channels.close(path)
        strategy = path.strategy
        if isinstance(strategy, TCPStrat):
            connection = self._comms.connection(strategy.connection or 0)
            if connection is not None and at_once:
                connection.abort(reason)
            elif connection is not None:
                connection.close(reason)
        self._is_gone(path, reason)

    def disconnect(self, peer_id: NodeId) -> None:
        """Close all paths to a peer, and tell it."""
        peer = self._book.find(peer_id)
        # Relayed paths first: their goodbye travels over the direct paths to the relays.
        paths = [] if peer is None else sorted(peer.paths, key=lambda path: not path.relayed)
        for path in paths:
            path.say_close()
            self.lose(path, "disconnected")

    def connection_closed(self, connection: TCPConnection, reason: str) -> None:
        path = self._channels.connection_lost(connection.number, reason)
        if path is not None:
            self._is_gone(path, reason)

    def _is_gone(self, path: Path, reason: str) -> None:
        path.on(PathEvent.END)
        if path.relayed:
            self._relayed.remove(path)
        peer = self._book.find(path.peer_id)
        if peer is None or path not in peer.paths:
            return
        was_direct = path is peer.direct
        peer.remove_path(path)
        if self._observer is not None:
            self._observer(PathLost(path.peer_id, path.strategy, reason))
        self._asking.path_is_gone(peer, path)
        if was_direct and peer.direct is None:
            self._relaying.disconnected(peer.peer_id)

    def session_unknown(self, path: Path) -> None:
        """The peer restarted, or somebody on the way would like us to think so. The session stays
        until there is a new one."""
        peer = self._book.get(path.peer_id)
        now = self._host.now()
        if now - peer.last_note_s < NOTE_INTERVAL_S:
            self._counters["unknown-session note: too soon after the last"] += 1
            return
        peer.last_note_s = now
        path.on(PathEvent.NOTE)
        self.seek(peer)

    def going_away(self, path: Path, retry_after_s: float) -> None:
        """The peer is about to close: what is under way on the path goes on, nothing new goes
        there, and nobody dials it for a while."""
        peer = self._book.get(path.peer_id)
        peer.away_until_s = self._host.now() + min(retry_after_s, AWAY_MAX_S)
        self._watched[peer] = None
        was_direct = path is peer.direct
        peer.retire(path)
        if was_direct and peer.direct is None:
            self._relaying.disconnected(peer.peer_id)

    def _renew_when_old(self, peer: Peer, now: float) -> None:
        """The side that dialled replaces a session after an hour: keys do not live for ever, and
        neither does the clock inside a session."""
        for path in (peer.direct, peer.relayed):
            if (
                path is not None
                and path.dialled
                and (
                    now - path.session.started_s > self._config.rekey_s
                    or path.session.sent > COUNTER_LIMIT
                )
            ):
                self._renew(peer, path, now)

    def _renew(self, peer: Peer, path: Path, now: float) -> None:
        """Begin a new session over the same route, unless one was begun lately. The old one stays
        until the new one is confirmed."""
        if peer.renewal is not None or now - peer.renewed_s <= RENEW_AGAIN_S:
            return
        peer.renewed_s = now
        renewal = self._reacher.renew(peer, path)
        peer.renewal = asyncio.get_running_loop().create_task(renewal)
        self._keep(peer.renewal)
        peer.renewal.add_done_callback(partial(self._renewed, peer))

    def _renewed(self, peer: Peer, task: asyncio.Task[None]) -> None:
        peer.renewal = None
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "renewing a session failed", "exception": error, "task": task}
            )

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Until it has ended: one that is cancelled may take its time."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all searches and renewals, and wait for those that were ended before."""
        tasks = list(self._tasks)
        for task in tasks:
            if not task.cancelling():  # a second time would disturb it as it cleans up
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Upkeep

    def watch(self, path: Path) -> None:
        """Look at the path next time, though nobody may wait for a reply on it."""
        peer = self._book.find(path.peer_id)
        if peer is not None:
            self._watched[peer] = None

    def writable(self, connection: TCPConnection) -> None:
        """A connection takes more again."""
        path = self._channels.path_of(connection.number)
        if path is None:
            return
        path.flush()
        self._flush_through(path.peer_id)

    def _flush_through(self, relay_id: NodeId) -> None:
        """If the peer is a relay: what waited for it goes on."""
        if self._relaying.is_relay(relay_id):
            for peer in self._book.all():
                if peer.relayed is not None and peer.relayed.outbox:
                    peer.relayed.flush()

    def why_keep(self, connection: TCPConnection) -> str | None:
        """Why a connection must stay though nothing went over it lately; None if it need not."""
        path = self._channels.path_of(connection.number)
        if path is None:
            return None
        why = self._why_keep(path)
        if why is None and self._relaying.keeps(path.peer_id):
            why = "this node is reached through it"
        return why

    def _why_keep(self, path: Path) -> str | None:
        if path.outbox:
            return "messages wait for it"
        if self._asking.exchanges.count_of(path.peer_id):
            return "replies are awaited"
        if path.asker is not None and path.asker.running:
            return "its queries are being answered"
        return None

    def look(self, now: float) -> None:
        """Now and then: silent peers, superseded paths without work, searches to repeat.

        Peers at rest are left at rest: each of them is looked at once in a while, a few at a time.
        """
        relays = self._relays_in_use()
        watched = self._watched
        for peer_id in (*self._asking.exchanges.peers(), *relays):
            asked = self._book.find(peer_id)
            if asked is not None:
                watched[asked] = None
        for peer in self._next_at_rest(now):
            if self._is_restless(peer):
                watched[peer] = None
            else:
                self._renew_when_old(peer, now)
        for peer in list(watched):
            self._look_at(peer, now, is_relay=peer.peer_id in relays)
            if not self._is_restless(peer):
                del watched[peer]
        for path in self._relayed.idle(now):
            path.say_close()
            self.lose(path, "idle")

    def _next_at_rest(self, now: float) -> list[Peer]:
        """As many as it takes to have seen all of them in ``ALL_AGAIN_S``: thousands at once would
        hold up the loop."""
        share = min(1.0, (now - self._looked_at_s) / ALL_AGAIN_S)
        self._looked_at_s = now
        if not self._at_rest:
            self._at_rest = self._book.all()
        count = math.ceil(share * len(self._book))
        some, self._at_rest = self._at_rest[:count], self._at_rest[count:]
        return some

    def _is_restless(self, peer: Peer) -> bool:
        if peer.waiting or peer.superseded or peer.retired or peer.direct_due_s < math.inf:
            return True
        for path in (peer.direct, peer.relayed):
            if path is not None and (path.outbox or path.silence.is_asked):
                return True
        return False

    def _look_at(self, peer: Peer, now: float, *, is_relay: bool) -> None:
        if peer.search is None and peer.waiting and now >= peer.seek_again_s:
            self.seek(peer)
        self._seek_direct_when_due(peer, now)
        self._listen(peer, now, is_relay=is_relay)
        self._renew_when_old(peer, now)
        for path in peer.paths:
            path.look(now)
        for path, since_s in list(peer.superseded.items()):
            if path.heard_s - since_s > DRAIN_S:
                peer.settle(path, self._me, now)
        for path in peer.others:
            if not path.outbox and now - path.used_s > DRAIN_S:
                self.lose(path, "superseded by another path")

    def _relays_in_use(self) -> set[NodeId]:
        """Relays that somebody waits for an answer through."""
        strategies = self._channels.relays_dialled()
        for peer_id in self._asking.exchanges.peers():
            peer = self._book.find(peer_id)
            if peer is not None and peer.relayed is not None:
                strategies.append(peer.relayed.strategy)
        return {one.relay_id for one in strategies if isinstance(one, RelayStrat)}

    def _listen(self, peer: Peer, now: float, *, is_relay: bool) -> None:
        """Notice that nobody is there any more, while somebody waits for a reply."""
        waited_for = self._is_asked(peer)
        for path in peer.paths:
            if not (waited_for or path.silence.is_asked or (is_relay and path is peer.direct)):
                continue
            match path.silence.look(now, path.heard_s, self._config.silent_path_s):
                case Verdict.ASK:
                    path.ask_for_sign_of_life()
                case Verdict.DOUBT:
                    if path is peer.direct and path.dialled:
                        self._renew(peer, path, now)
                case Verdict.GIVE_UP:
                    self._counters["path given up: silent"] += 1
                    self.lose(path, f"silent for {now - path.heard_s:.0f} s", at_once=True)
                case Verdict.FINE:
                    pass

"""Routes: the paths to peers, from their proof to their end.

This module decides which path is used, and what happens when a better one is found or the last one
is lost. Finding paths is up to :mod:`egtp.engine.searching`; what waits for a path or is lost with
one, to :mod:`egtp.engine.asking`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from egtp.channel.sealed import CLOSE_FOR_GOOD
from egtp.config import NodeConfig
from egtp.engine.asking import Asking, is_crowded
from egtp.engine.searching import Searching
from egtp.events import Observer, PathLost, PathOpened
from egtp.limits.idle_policy import Standing
from egtp.limits.throttle import TokenBucket
from egtp.paths.channels import SecureChannels
from egtp.paths.path import Path
from egtp.paths.path_life import PathEvent
from egtp.paths.relayed_paths import RelayedPaths
from egtp.reaching.peer import Peer
from egtp.reaching.peers import PeerBook
from egtp.relay.relaying import Relaying
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.tcp.connection import TCPConnection
from egtp.values.identity import NodeId

__all__ = ["ANOTHER_WAY", "Routes", "RoutesHost"]

NOTES_PER_S: Final = 0.2
NOTES_BURST_S: Final = 20.0
"""How often a peer's note that it does not know a session is answered by a new handshake: five
times at once, since a peer that keeps moving sends one each time; then every five seconds. There is
a limit since a relay may send such notes in the peer's name."""
AWAY_MAX_S: Final = 600.0
"""The longest that a peer can ask to be left alone."""
ANOTHER_WAY: Final = "silent, and the peer is there by another way"
IN_VAIN: Final = "the peer is there, and says nothing of what it is asked by it"


class RoutesHost(Protocol):
    """What routes need from their node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here has wanted to reach the peer; if not, it is a stranger."""


class Routes:
    """All paths of a node."""

    def __init__(
        self,
        host: RoutesHost,
        me: NodeId,
        book: PeerBook,
        channels: SecureChannels,
        comms: TCPCommsHandler,
        searching: Searching,
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
        self._searching = searching
        self._asking = asking
        self._relaying = relaying
        self._config = config
        self._counters = counters
        self._observer = observer
        self._relayed = RelayedPaths(
            strangers_max=config.relayed_strangers_max,
            idle_timeout_s=config.idle_timeout_s,
            idle_timeout_max_s=config.idle_timeout_max_s,
            why_keep=self._why_keep,
        )

    # Paths come

    def admits(self, path: Path) -> bool:
        """Whether there is room for a path that has just been proven. This limits relayed paths;
        :meth:`TCPCommsHandler.proven` limits connections."""
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
            # Silently: an honest peer tries again, and need not do so at once.
            self._counters["relayed path refused: too many strangers"] += 1
            return False
        self._relayed.add(path, Standing.KNOWN if known else Standing.STRANGER, now)
        return True

    def want(self, peer_id: NodeId) -> None:
        """Somebody here wants to reach the peer: from now on, its paths are not a stranger's."""
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
        """The peer at the other end of ``path`` is proven and alive."""
        peer = self._book.get(path.peer_id)
        peer.add_path(path, self._me, self._host.now())
        self._book.watch(peer)
        peer.failed_searches = 0
        peer.attempts = ()  # They say why there was no path.
        peer.seek_again_s = float("inf")
        if self._observer is not None:
            self._observer(PathOpened(path.peer_id, path.strategy))
        connection = self._comms.connection(path.strategy.connection)
        if connection is not None:
            self._comms.proven(connection, path.peer_id)
        if peer.direct_search is not None and not path.relayed:
            peer.direct_search.path_opened()
        if peer.search is not None:
            peer.search.path_opened()
        self._asking.path_opened(peer, path)
        self._end_dead_others(peer, path)
        self._end_too_many_others(peer)
        if path.closed:
            return
        path.flush()
        if not path.relayed:
            self._relaying.connected(peer)
            self._flush_through(peer.peer_id)
        elif path.dialled and peer.record is not None and peer.record.tcp:
            # A relay won the race, as one nearby does against a distant address; or the handshake
            # brought a newer record, with addresses that were not tried yet.
            self._searching.heard_where(peer)

    # Paths go

    def _end_dead_others(self, peer: Peer, path: Path) -> None:
        """End the older paths that the confirmation of ``path`` has shown to lead nowhere, or to a
        peer that does not read. What was given to them goes by the best path left."""
        now = self._host.now()
        for older in peer.paths:
            if older is path:
                continue
            if older.incarnation != path.incarnation:
                self.lose(older, "the peer was restarted")
            elif older.suspect:
                self.lose(older, "the peer does not know its session")
            elif older.silence.doubts(older.heard_s):
                # To search beside it was right, and may soon be again.
                peer.renewed_s = float("-inf")
                self.lose(older, ANOTHER_WAY, at_once=True)
            elif peer.was_asked_in_vain(older, now):
                self.lose(older, IN_VAIN)
            elif older not in (peer.direct, peer.relayed) and is_crowded(older):
                older.say_close()
                self.lose(older, "the peer has another path, and does not read this one")

    def asked_in_vain(self, path: Path) -> None:
        """The peer says nothing of a query that has left by a relayed path more than once, but
        gives signs of life there. Search for another path; this one stays until there is one."""
        peer, now = self._book.get(path.peer_id), self._host.now()
        peer.asked_in_vain(path, now)
        self._searching.seek_beside(peer, now, only_direct=False)

    def _end_too_many_others(self, peer: Peer) -> None:
        """A connection that makes way for newer ones of its peer is there until both ends have
        closed it. A peer that opens connections all the time and closes none would have each of its
        messages take as long as there are paths to it."""
        others = peer.others
        if len(others) > 2 * self._config.peer_connections_max:
            oldest = min(others, key=lambda other: other.session.started_s)
            self.lose(oldest, "its peer has newer ones", at_once=True)

    def lose(self, path: Path, reason: str, *, at_once: bool = False) -> None:
        """End a path that is no longer of use. What has not left by it goes by another; what was
        written may still leave, unless the path ends ``at_once``."""
        self._channels.close(path)
        connection = self._comms.connection(path.strategy.connection)
        if connection is not None and at_once:
            connection.abort(reason)
        elif connection is not None:
            connection.close(reason)
        self._is_gone(path, reason)

    def disconnect(self, peer_id: NodeId) -> None:
        """Close all paths to a peer, and tell it."""
        peer = self._book.find(peer_id)
        if peer is not None:
            for path in self.say_goodbye([peer]):
                self.lose(path, "disconnected")
            self._searching.disconnected(peer)
        self._relaying.end_lease(peer_id)

    def say_goodbye(self, peers: list[Peer], why: bytes = b"") -> list[Path]:
        """Say goodbye on all paths to these peers. Returns the paths."""
        # Relayed ones first: their goodbyes travel over the direct paths to the relays.
        paths = [path for peer in peers for path in peer.paths]
        paths.sort(key=lambda path: not path.relayed)
        for path in paths:
            path.say_close(why)
        return paths

    def closed_by_peer(self, path: Path, why: bytes) -> None:
        peer = self._book.find(path.peer_id)
        if peer is not None and why[:1] == CLOSE_FOR_GOOD:
            peer.ended = path.incarnation
        self.lose(path, "closed by the peer")
        if not path.relayed:
            self._relaying.end_lease(path.peer_id)

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
            self._relaying.relay_lost(peer.peer_id)
        if not path.relayed and peer.hears_by is None:
            self._relaying.disconnected(peer.peer_id)

    def end_idle(self, now: float) -> None:
        """End relayed paths that nobody has used for long. :class:`TCPCommsHandler` closes idle
        connections."""
        for path in self._relayed.idle(now):
            path.say_close()
            self.lose(path, "idle")

    def session_unknown(self, path: Path) -> None:
        """A note says that the peer does not know the session: it has restarted, or somebody on the
        way wants us to think so. The session stays until there is a new one."""
        if not self._host.knows(path.peer_id):
            # It can come back by itself; nobody is looked up and dialled at its word.
            self._counters["unknown-session note: of a stranger"] += 1
            return
        peer = self._book.get(path.peer_id)
        now = self._host.now()
        if peer.notes is None:
            peer.notes = TokenBucket(NOTES_PER_S, NOTES_BURST_S, now)
        if now < peer.notes.ready_s:
            self._counters["unknown-session note: too soon after the last"] += 1
            return
        peer.notes.take(1, now)
        path.on(PathEvent.NOTE)
        self._searching.seek(peer)

    def going_away(self, path: Path, retry_after_s: float) -> None:
        """The peer is about to close: what is under way on the path goes on, nothing new is sent
        there, and this node does not dial the peer for a while."""
        peer = self._book.get(path.peer_id)
        peer.away_until_s = self._host.now() + min(retry_after_s, AWAY_MAX_S)
        self._book.watch(peer)
        was_direct = path is peer.direct
        peer.retire(path)
        if was_direct and peer.direct is None:
            self._relaying.relay_lost(peer.peer_id)

    # What waits for paths, and what they are kept for

    def writable(self, connection: TCPConnection) -> None:
        """A connection takes data again."""
        path = self._channels.path_of(connection.number)
        if path is None:
            return
        path.flush()
        self._flush_through(path.peer_id)

    def _flush_through(self, relay_id: NodeId) -> None:
        """If the peer is a relay, what waits on relayed paths may leave now."""
        if self._relaying.is_relay(relay_id):
            for path in self._relayed.all():
                if path.outbox:
                    path.flush()

    def why_keep(self, connection: TCPConnection) -> str | None:
        """Why a connection must stay even if nothing went over it lately; None if it need not."""
        path = self._channels.path_of(connection.number)
        if path is None:
            return None
        why = self._why_keep(path)
        if why is None and self._relaying.keeps(path.peer_id):
            why = "this node is reached through it"
        return why

    def _why_keep(self, path: Path) -> str | None:
        if path.outbox and self._host.now() - path.wrote_s <= self._config.idle_timeout_s:
            return "messages wait for it"
        if self._asking.exchanges.count_of(path.peer_id):
            return "replies are awaited"
        if path.asker is not None and path.asker.running:
            return "its queries are being answered"
        return None

"""The sessions of a node: each is a path to a peer that is proven, or has yet to be."""

from __future__ import annotations

from typing import Final

from egtp.channel.handshake import InitiationPayload, PeerLimits, ResponsePayload, SessionKeys
from egtp.channel.session import InOrder, Session, SlidingWindow
from egtp.environment import Environment
from egtp.paths.arrival import Arrival, ChannelEvents
from egtp.paths.path import Path
from egtp.paths.path_life import PathEvent
from egtp.paths.unconfirmed import UnconfirmedSessions
from egtp.queries.answers import Answers
from egtp.values.identity import NodeId

__all__ = ["Sessions"]


class Sessions:
    """Finds the path that a packet belongs to, and ends a path in all tables at once."""

    def __init__(
        self, limits: PeerLimits, environment: Environment, events: ChannelEvents, answers: Answers
    ) -> None:
        self._limits: Final = limits
        self._environment: Final = environment
        self._events: Final = events
        self._answers: Final = answers
        self.by_index: Final[dict[int, Path]] = {}
        """All paths, by the index that this side chose."""
        self._by_connection: Final[dict[int, Path]] = {}
        self.by_remote: Final[dict[int, Path]] = {}
        """The confirmed relayed paths, by the index that the other side chose at random: if two are
        alike, one is made up. Only the newer path then gets notes."""
        self.unconfirmed: Final[UnconfirmedSessions[Path]] = UnconfirmedSessions()
        """Paths whose other end has not proven yet that it is alive."""

    def of_connection(self, connection: int) -> Path | None:
        return self._by_connection.get(connection)

    def new(
        self,
        peer_id: NodeId,
        index: int,
        remote_index: int,
        keys: SessionKeys,
        arrival: Arrival,
        said: InitiationPayload | ResponsePayload,
        *,
        dialled: bool,
        dialled_at_ms: int,
    ) -> Path:
        """A path with a new session of these keys. ``said`` is what the peer said in the
        handshake."""
        now = self._environment.elapsed()
        session = Session(
            index=index,
            remote_index=remote_index,
            send_key=keys.send,
            receive_key=keys.receive,
            window=SlidingWindow() if arrival.relayed else InOrder(),
            started_s=now,
        )
        path = Path(
            peer_id,
            session,
            arrival.strategy,
            arrival.carrier,
            self._events,
            dialled=dialled,
            dialled_at_ms=dialled_at_ms,
            theirs=said.limits,
            ours=self._limits,
            incarnation=said.incarnation,
            peer_started_s=now - said.uptime_ms / 1000,
            asker=self._answers.session_began(
                peer_id,
                said.incarnation,
                self._events.own_record().sequence,
                now,
                stranger=not self._events.knows(peer_id),
            ),
        )
        self.by_index[index] = path
        if arrival.connection is not None:
            self._by_connection[arrival.connection] = path
        return path

    def confirm(self, path: Path) -> bool:
        """The other end is proven. False if there is no room for it: the path is then closed."""
        path.on(PathEvent.PROOF)
        if not self._events.admits(path):
            self.close(path)
            return False
        if path.relayed:
            self.by_remote[path.session.remote_index] = path
        if path.record is not None:
            self._events.learned_record(path.record)
        self._events.confirmed(path)
        return True

    def close(self, path: Path) -> None:
        """End a path and forget it. Doing so again has no effect."""
        path.on(PathEvent.END)
        if self.by_index.pop(path.session.index, None) is not None:
            self.unconfirmed.remove(path)
            if self.by_remote.get(path.session.remote_index) is path:
                del self.by_remote[path.session.remote_index]
            if path.asker is not None:
                self._answers.session_ended(path.asker)
            if path.strategy.connection is not None:
                self._by_connection.pop(path.strategy.connection, None)

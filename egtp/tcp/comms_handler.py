"""TCPCommsHandler: all TCP connections of a node (seed III.B, R18).

Opens, accepts, keeps and closes connections. Two machines decide which may come in and which have
to go: :mod:`egtp.limits.accept_limits` and :mod:`egtp.limits.idle_policy`. The handler is called on
the event loop now and then to clean up, which costs next to nothing however many connections are
idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple, Protocol

from egtp.config import NodeConfig
from egtp.errors import NotSent, in_words
from egtp.events import Dialling, Observer
from egtp.later import begin_later
from egtp.limits.accept_limits import AcceptLimits, origin
from egtp.limits.idle_policy import IdlePolicy, Standing, Use
from egtp.tcp.connection import TCPConnection
from egtp.tcp.listening import Listeners
from egtp.tcp.throttling import Rates, Throttling
from egtp.values.attempts import AttemptReason
from egtp.values.comm_strat import Address, TCPStrat
from egtp.values.identity import NodeId

__all__ = ["CommsOwner", "TCPCommsHandler"]


CLOSE_TIMEOUT_S: Final = 0.5
"""How long closing a node waits for the other sides to take what was written."""


class CommsOwner(Protocol):
    """What the handler asks and tells its owner."""

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        """A packet arrived."""

    def read(self, connection: TCPConnection) -> None:
        """All packets of one read from a socket have been delivered."""

    def writable(self, connection: TCPConnection) -> None:
        """A connection takes data again."""

    def closed(self, connection: TCPConnection, reason: str) -> None:
        """A connection has ended; called once for each."""

    def why_keep(self, connection: TCPConnection) -> str | None:
        """Why a connection must stay even if nothing went over it lately; None if it need not."""

    def confirmed_on(self, connection: TCPConnection) -> float | None:
        """When something last came from or went to the peer on the connection (elapsed seconds);
        None if no peer has proven itself on it."""

    def held_back(self, connection: TCPConnection) -> None:
        """Receiving on the connection is throttled, so this node hears the other side late, and may
        seem dead to it. Told at each clean-up."""

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here has wanted to reach the peer; if not, it is a stranger."""


class Traffic(NamedTuple):
    """Bytes on sockets, including all that surrounds messages."""

    bytes_in: int
    bytes_out: int


class TCPCommsHandler:
    """Owns the listening sockets and every :class:`TCPConnection`."""

    def __init__(
        self,
        owner: CommsOwner,
        config: NodeConfig,
        elapsed: Callable[[], float],
        counters: Counter[str],
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._owner = owner
        # What connections tell that concerns the owner alone.
        self.received: Final = owner.received
        self.read: Final = owner.read
        self._config = config
        self._elapsed = elapsed
        self._counters = counters
        self._listeners = Listeners(lambda: self._make(None))
        self._accepts = AcceptLimits(
            per_s=config.accepts_per_s,
            per_origin_per_s=config.accepts_per_ip_per_s,
            per_origin_max=config.connections_per_ip_max,
            now_s=elapsed(),
        )
        self._policy: IdlePolicy[NodeId] = IdlePolicy(
            idle_timeout_s=config.idle_timeout_s, idle_timeout_max_s=config.idle_timeout_max_s
        )
        self._throttling = Throttling(
            elapsed,
            Rates(config.send_bytes_per_s, config.receive_bytes_per_s),
            Rates(config.peer_send_bytes_per_s, config.peer_receive_bytes_per_s),
        )
        self._connections: dict[int, TCPConnection] = {}
        self._closing_until_s: dict[int, float] = {}
        """In the order of the deadlines, since all get the same time."""
        self._openings: dict[int, asyncio.Task[None]] = {}
        self._bytes_before = Traffic(0, 0)
        """Of connections that are closed."""
        self._next_number = 1
        self._closed = False
        self._all_gone = asyncio.Event()
        self.dial_from: str | None = None
        """The local IP address to dial from; None lets the system choose."""

    # Listening

    async def listen(self, addresses: Iterable[Address]) -> list[Address]:
        """As :meth:`Listeners.listen`."""
        return await self._listeners.listen(addresses)

    @property
    def listening(self) -> list[Address]:
        """Where this node listens now."""
        return self._listeners.addresses

    # Connections

    def connection(self, number: int | None) -> TCPConnection | None:
        """The connection of that number, as strategies name it; None if it is gone."""
        return None if number is None else self._connections.get(number)

    def __len__(self) -> int:
        return len(self._connections)

    def all(self) -> list[TCPConnection]:
        return list(self._connections.values())

    @property
    def traffic(self) -> Traffic:
        """That of all connections there have ever been."""
        there = self._connections.values()
        return Traffic(
            self._bytes_before.bytes_in + sum(it.bytes_in for it in there),
            self._bytes_before.bytes_out + sum(it.bytes_out for it in there),
        )

    def open(self, strategy: TCPStrat) -> TCPConnection:
        """The connection that ``strategy`` names; for an address, a new one, which is still
        opening.

        Raises :class:`NotSent` if it is gone, or if there are too many.
        """
        if strategy.connection is not None:
            connection = self._connections.get(strategy.connection)
            if connection is None:
                raise NotSent("the connection is closed")
            return connection
        if self._closed:
            raise NotSent("this node is closed")
        if self._kept >= self._config.connections_max and not self._make_room(Standing.KNOWN):
            raise NotSent(AttemptReason.TOO_MANY_CONNECTIONS)
        if self._observer is not None:
            self._observer(Dialling(strategy.address))
        connection = self._make(strategy.address)
        self._enter(connection)
        self._policy.add(connection.number, Standing.OPENING, connection.started_s)
        number, open_it = connection.number, partial(self._open, connection, strategy.address)
        self._openings[number] = task = begin_later(open_it)
        # The task cannot do this itself: if cancelled before its first turn, it never runs.
        task.add_done_callback(lambda _: self._openings.pop(number))
        return connection

    async def _open(self, connection: TCPConnection, address: Address) -> None:
        local = None if self.dial_from is None else (self.dial_from, 0)
        loop = asyncio.get_running_loop()
        # Whatever ends the connection also ends this task.
        timer = loop.call_later(self._config.dial_timeout_s, connection.abort, AttemptReason.SILENT)
        try:
            await loop.create_connection(
                lambda: connection, address.host, address.port, local_addr=local
            )
        except TimeoutError:
            connection.abort(AttemptReason.SILENT)
        except OSError as error:
            # asyncio words a failed bind or connect in its own way; keep the cause alone.
            refused = error.errno == errno.ECONNREFUSED
            connection.abort(AttemptReason.REFUSED if refused else in_words(error))
        finally:
            timer.cancel()

    def _make(self, dialled: Address | None) -> TCPConnection:
        number = self._next_number
        self._next_number += 1
        return TCPConnection(
            number,
            self,
            dialled=dialled,
            held_bytes_max=self._config.connection_buffer_bytes_max,
            started_s=self._elapsed(),
        )

    def _enter(self, connection: TCPConnection) -> None:
        """From now on the connection counts, until it is closed."""
        self._connections[connection.number] = connection
        self._throttling.add(connection)

    # Limits

    @property
    def _kept(self) -> int:
        """How many connections there are, except those being closed."""
        return len(self._connections) - len(self._closing_until_s)

    def _admit(self, connection: TCPConnection) -> str | None:
        """Let an accepted connection in and return None, or return the reason not to."""
        assert connection.remote is not None  # noqa: S101 - it is open
        now, where = self._elapsed(), origin(connection.remote.ip)
        reason = self._accepts.enter(where, now)
        if reason is not None:
            return reason
        connection.origin = where
        oldest = self._policy.oldest(Standing.UNPROVEN)
        if oldest and self._policy.count(Standing.UNPROVEN) >= self._config.half_open_max:
            # An honest peer needs one round trip for its proof; the oldest has had most time.
            self._counters["connection refused: too many unproven"] += 1
            self._connections[oldest].abort("too many connections that prove nobody")
        elif self._kept > self._config.connections_max and not self._make_room(Standing.UNPROVEN):
            return "too many"
        self._policy.add(connection.number, Standing.UNPROVEN, now)
        return None

    def proven(self, connection: TCPConnection, peer_id: NodeId) -> None:
        """A peer has proven itself on the connection."""
        connection.lift_limit()
        if not self._policy.awaits_proof(connection.number):
            return
        others = self._policy.of_peer(peer_id)
        if len(others) >= self._config.peer_connections_max:
            self._make_way(others[0], "its peer has newer ones")
        if connection.dialled is not None or self._owner.knows(peer_id):
            standing = Standing.KNOWN
        elif self._has_room_for_stranger():
            standing = Standing.STRANGER
        else:
            self._counters["connection refused: too many strangers"] += 1
            connection.close("too many connections of strangers")
            return
        self._policy.prove(connection.number, peer_id, standing, self._elapsed())
        self._throttling.prove(connection, peer_id)

    def want(self, peer_id: NodeId) -> None:
        """Somebody here wants to reach the peer: its connections are no longer a stranger's."""
        self._policy.promote(peer_id, self._elapsed())

    def _has_room_for_stranger(self) -> bool:
        if self._policy.count(Standing.STRANGER) < self._config.strangers_max:
            return True
        number = self._policy.least_used(Standing.STRANGER, self._elapsed(), self._look)
        if number is not None:
            self._make_way(number, "another stranger needs the place")
        return number is not None

    def _make_room(self, up_to: Standing) -> bool:
        number = self._policy.make_room(up_to, self._elapsed(), self._look)
        if number is not None:
            self._make_way(number, "another one needs the place")
        return number is not None

    def _make_way(self, number: int, reason: str) -> None:
        self._counters[f"connection closed: {reason}"] += 1
        self._connections[number].drain(reason)

    def _look(self, number: int) -> Use:
        connection = self._connections[number]
        used_s = self._owner.confirmed_on(connection)
        if used_s is None:
            return Use(connection.started_s)
        return Use(used_s, self._owner.why_keep(connection))

    # Throttling

    def throttle(self, rates: Rates) -> None:
        """Limit all connections together from now on (R16)."""
        self._throttling.limit_all(rates, self._connections.values())

    def throttle_peer(self, peer_id: NodeId, rates: Rates) -> None:
        """Limit each connection to a peer from now on, in addition to the limit for all."""
        connections = [self._connections[number] for number in self._policy.of_peer(peer_id)]
        self._throttling.limit_peer(peer_id, rates, connections)

    # What connections tell

    def opened(self, connection: TCPConnection) -> None:
        if connection.dialled is not None:
            return
        # Enter it only now, not when accepted: if its listening socket is closed at that moment,
        # asyncio drops the connection and tells nobody.
        if self._closed:
            connection.abort("this node is closed")
            return
        self._enter(connection)
        reason = self._admit(connection)
        if reason is not None:
            self._counters[f"connection refused: {reason}"] += 1
            connection.abort(reason)

    def writable(self, connection: TCPConnection) -> None:
        self._owner.writable(connection)

    def garbage(self, reason: str) -> None:
        self._counters[f"dropped: {reason}"] += 1

    def closing(self, connection: TCPConnection) -> None:
        self._policy.remove(connection.number)
        self._closing_until_s[connection.number] = self._elapsed() + self._config.close_timeout_s
        if len(self._closing_until_s) > self._config.closing_max:
            self._end_closing(next(iter(self._closing_until_s)))

    def closed(self, connection: TCPConnection, reason: str) -> None:
        number = connection.number
        if self._connections.pop(number, None) is None:
            return  # accepted, but gone before it was open
        before = self._bytes_before
        self._bytes_before = Traffic(
            before.bytes_in + connection.bytes_in, before.bytes_out + connection.bytes_out
        )
        if not self._connections:
            self._all_gone.set()
        self._policy.remove(number)
        self._throttling.remove(connection)
        self._closing_until_s.pop(number, None)
        if connection.origin is not None:
            self._accepts.leave(connection.origin)
        opening = self._openings.get(number)
        if opening is not None:
            opening.cancel()
        self._owner.closed(connection, reason)

    # Cleaning up

    def clean_up(self) -> None:
        """Close the connections whose peers have not proven themselves in time, those idle for too
        long, and those that have taken too long to close."""
        config, now = self._config, self._elapsed()
        while self._closing_until_s and next(iter(self._closing_until_s.values())) <= now:
            self._end_closing(next(iter(self._closing_until_s)))
        unproven = self._policy.overdue(Standing.UNPROVEN, now - config.prove_timeout_s)
        opening_s = config.dial_timeout_s + config.prove_timeout_s
        for number in unproven + self._policy.overdue(Standing.OPENING, now - opening_s):
            self._counters["connection closed: proved nobody in time"] += 1
            self._connections[number].abort("no proof in time")
        for number in self._policy.idle(now, self._look):
            self._connections[number].drain("idle")
        for connection in self._throttling.held_back:
            self._owner.held_back(connection)

    def _end_closing(self, number: int) -> None:
        self._counters["connection closed: what it held did not leave in time"] += 1
        self._connections[number].abort("not closed in time")

    def drop_all(self, reason: str, *, begun_by_s: float = math.inf) -> None:
        """Close every connection at once that was begun until then."""
        for connection in self.all():
            if connection.started_s <= begun_by_s:
                connection.abort(reason)

    async def close(self) -> None:
        """Stop listening, let what was written leave, and close; returns when nothing is left. If
        cancelled, it waits no longer."""
        self._closed = True
        self._listeners.close()
        for connection in self.all():
            connection.close("this node is closed")
        if self._connections:
            self._all_gone.clear()
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._all_gone.wait()
        self.drop_all("this node is closed")
        self._throttling.close()
        openings = list(self._openings.values())
        for task in openings:
            task.cancel()
        await asyncio.gather(*openings, return_exceptions=True)

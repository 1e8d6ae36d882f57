"""A path: one session to one peer over one route, and the queue of what goes there.

A route is a TCP connection, or the relays to the peer taken together. The path gathers messages
and seals and writes them once per turn of the event loop, or as soon as a batch is full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from egtp.comm_record import SignedCommRecord
from egtp.comm_strat import Address, Carrier, CommStrat, CryptoStrat
from egtp.errors import InvalidPacket, NotSent
from egtp.handshake import PeerLimits
from egtp.identity import NodeId
from egtp.outbox import BATCH_BYTES, Batch, Outbox, Waiting
from egtp.packet import Data
from egtp.reassembly import Reassembly
from egtp.sealed import ItemType, Sealed, item, parse_chunk, parse_sealed, write_sealed
from egtp.session import Session
from egtp.silence import Silence

__all__ = ["MESSAGE_OVERHEAD_MAX", "Given", "Path", "PathOwner"]

MESSAGE_OVERHEAD_MAX: Final = 256
"""A message is at most this much larger than its body."""
TAILS_KEPT: Final = 64


class Given(Protocol):
    """What a queued message belongs to; told when a copy of it is given to a socket."""

    given: bool


class PathOwner(Protocol):
    """What a path needs from the node it belongs to."""

    def now(self) -> float:
        """Elapsed seconds."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back at the end of this turn of the event loop."""

    def settled(self, peer_id: NodeId) -> int:
        """All queries to the peer with a lower number are finished."""

    def path_is_writable(self, path: Path) -> bool:
        """Whether the transport below takes more now."""

    def path_failed(self, path: Path, reason: str) -> None:
        """The path is of no more use."""


class Path:
    """One way to one peer, with its own session."""

    def __init__(
        self,
        peer_id: NodeId,
        session: Session,
        strategy: CommStrat,
        carrier: Carrier,
        owner: PathOwner,
        *,
        relayed: bool,
        dialled: bool,
        theirs: PeerLimits,
        ours: PeerLimits,
        incarnation: bytes,
    ) -> None:
        self.peer_id: Final = peer_id
        self.session: Final = session
        self.relayed: Final = relayed
        self.dialled: Final = dialled
        """Whether this side sent the initiation."""
        self.limits: Final = theirs
        self.incarnation: Final = incarnation
        """The other side's, as of the handshake."""
        self.confirmed = False
        """Whether the other side has proven that it lives in this session, now."""
        self.closed = False
        self.suspect = False
        """The other side seems not to know this session any more."""
        self.record: SignedCommRecord | None = None
        """The peer's record as of the handshake: believed once the session is confirmed."""
        self.observed: Address | None = None
        """Where the other side sees us, if we dialled."""
        self.used_s = session.started_s
        """When something was last sent or received."""
        self.heard_s = session.started_s
        """When something was last received."""
        self.silence: Final = Silence()
        self.round_trip_s: float | None = None
        self.outbox: Final[Outbox[Given | None]] = Outbox(theirs.reassembly_bytes_max)
        self._strategy = CryptoStrat(strategy, self)
        self._carrier = carrier
        self._owner = owner
        self._reassembly = Reassembly(
            ours.reassembly_bytes_max + MESSAGE_OVERHEAD_MAX,
            ours.body_bytes_max + MESSAGE_OVERHEAD_MAX,
        )
        self._flush_is_due = False
        self._least_transit_ms: int | None = None
        self._tails: deque[bytes] = deque(maxlen=TAILS_KEPT if relayed else 0)

    @property
    def strategy(self) -> CommStrat:
        """The route that packets take now."""
        return self._strategy.lower

    def reroute(self, strategy: CommStrat) -> None:
        """Send by ``strategy`` from now on: another relay of the same peer."""
        self._strategy = CryptoStrat(strategy, self)

    def queue(self, waiting: Waiting[Given | None]) -> None:
        """Send a message, soon."""
        self.outbox.push(waiting)
        self._schedule()

    def queue_control(self, data: bytes) -> None:
        """Send an item of the engine's own, soon."""
        self.outbox.push_control(data)
        self._schedule()

    def _schedule(self) -> None:
        if self.outbox.waiting_bytes >= BATCH_BYTES:
            self.flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._owner.soon(self._flush_when_due)

    def _flush_when_due(self) -> None:
        self._flush_is_due = False
        self.flush()

    def flush(self) -> None:
        """Seal and write what waits, as far as the transport takes it."""
        while self.outbox and not self.closed and self._owner.path_is_writable(self):
            self._write(self.outbox.next_batch(self._owner.now()))

    def confirm(self) -> None:
        """Write an empty packet: it proves to the other side that we live, and is small enough
        for somebody who has not seen the proof yet. Then what waits."""
        if not self.closed:
            self._write(Batch())
            self.flush()

    def _write(self, batch: Batch[Given | None]) -> None:
        now = self._owner.now()
        for owner_of_message in batch.begun:
            # Set before the write: it may only ever be claimed too often that a copy left (R21).
            if owner_of_message is not None:
                owner_of_message.given = True
        t_ms = int((now - self.session.started_s) * 1000)
        plaintext = write_sealed(t_ms, self._owner.settled(self.peer_id), batch.items)
        self.used_s = now
        try:
            self._strategy.send(plaintext, self._carrier)
        except NotSent as error:
            self._owner.path_failed(self, str(error))

    def open(self, packet: Data) -> tuple[Sealed, int]:
        """What ``packet`` says, and how long it was under way, in ms, at least.

        Raises :class:`InvalidPacket`. The transit time is how much later than the fastest packet
        of this session it came: the two clocks need to agree on nothing but their speed.
        """
        plaintext = self.session.open(packet)
        try:
            sealed = parse_sealed(plaintext)
        except InvalidPacket as error:
            # It opened, so the peer itself sealed it: there is no understanding this peer.
            self._owner.path_failed(self, str(error))
            raise
        self.used_s = self.heard_s = now = self._owner.now()
        offset = int((now - self.session.started_s) * 1000) - sealed.t_ms
        if self._least_transit_ms is None or offset < self._least_transit_ms:
            self._least_transit_ms = offset
        return sealed, offset - self._least_transit_ms

    def reassemble(self, data: bytes) -> bytes | None:
        """The message item that a chunk completes, or None. Raises :class:`InvalidPacket`."""
        return self._reassembly.feed(parse_chunk(data))

    def seal(self, plaintext: bytes) -> bytes:
        """A data packet, of which what an honest "unknown session" note would say is kept."""
        packet = self.session.seal(plaintext)
        self._tails.append(packet[-16:])
        return packet

    def sent_lately(self, tail: bytes) -> bool:
        """Whether one of the last packets sent ended so."""
        return tail in self._tails

    def say_close(self) -> None:
        """Tell the other side that this path ends, after what is queued."""
        # Items of the engine's own overtake messages; this one must be the last.
        self.flush()
        self.queue_control(item(ItemType.CLOSE))
        self.flush()

    def __str__(self) -> str:
        return f"{self.strategy} to {self.peer_id}"

"""A path: one session to one peer over one route, and the queue of what goes there.

A route is a TCP connection, or the relays to the peer taken together. The path gathers messages
and seals and writes them once per turn of the event loop, or as soon as a batch is full; a message
that is alone does not wait.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from egtp.channel.frames import UNCONFIRMED_FRAME_BYTES_MAX
from egtp.channel.handshake import PeerLimits
from egtp.channel.packet import Data
from egtp.channel.sealed import (
    ItemType,
    Sealed,
    item,
    parse_chunk,
    parse_sealed,
    write_sealed,
    write_settled_except,
)
from egtp.channel.session import Session
from egtp.errors import InvalidPacket, NotSent
from egtp.paths.bulk_window import CHUNK_BYTES_FIRST, QUEUE_RELAYED_S, QUEUE_S, BulkWindow
from egtp.paths.outbox import BATCH_BYTES, BATCH_BYTES_MAX, Batch, Outbox
from egtp.paths.path_life import PATH_LIFE, PathEvent, PathState
from egtp.paths.reassembly import Reassembly
from egtp.paths.relayed_window import RelayedWindow
from egtp.paths.silence import Silence
from egtp.paths.uploads import Uploads
from egtp.queries.asker import Asker
from egtp.queries.exchange import SettledExcept
from egtp.queries.large_message import Arrived
from egtp.queries.outgoing import Outgoing, PassedOn
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import Address, Carrier, CommStrat, CryptoStrat, TCPStrat
from egtp.values.identity import NodeId
from egtp.values.message import Reply

__all__ = ["MESSAGE_OVERHEAD_MAX", "Path", "PathOwner"]

MESSAGE_OVERHEAD_MAX: Final = 256
"""A message is at most this much larger than its body."""
TAILS_KEPT: Final = 64
ANSWERS_BYTES_MAX: Final = 64 * 1024
"""Of pongs, and of notices that a handler still runs: what the peer asks for, and may not read."""
UNCONFIRMED_BYTES_MAX: Final = 16 * 1024
"""What is written to somebody who has not proven that he lives: answers to his early data. The rest
of them waits for the proof, which an honest peer sends at once."""
PROOF_BYTES_MAX: Final = UNCONFIRMED_FRAME_BYTES_MAX - 256
"""Of the plaintext of a first packet."""
_MILLISECONDS: Final = struct.Struct(">Q")
_OF_LIFE: Final = bytes(1)
_OF_BULK: Final = bytes(2)
"""Behind the eight bytes of pings, so that none is taken for another."""


class PathOwner(Protocol):
    """What a path needs from the node it belongs to."""

    @property
    def uploads(self) -> Uploads:
        """What comes in chunks, and the memory that there is for it."""

    def is_awaited(self, peer_id: NodeId, reference: bytes) -> bool:
        """Whether somebody here waits for the peer's reply to the query of that reference."""

    def now(self) -> float:
        """Elapsed seconds."""

    def soon(self, callback: Callable[[], None], /) -> object:
        """Call back when what is being read has been taken, or at the end of this turn of the event
        loop."""

    def at_once(self, callback: Callable[[], None], /) -> object:
        """Call back now, and what that puts off to the end of a turn as soon as it has returned."""

    def settled(self, peer_id: NodeId) -> int:
        """All queries to the peer with a lower number are finished."""

    def settled_except(self, peer_id: NodeId) -> SettledExcept | None:
        """What is to be told of numbers finished above the settled mark, if it is time for it."""

    def path_waits(self, path: Path) -> None:
        """The peer must say that it has read before more may be sent: look at the path again."""

    def path_failed(self, path: Path, reason: str) -> None:
        """The path is of no more use."""


class Tails:
    """Seals for a relayed path, and keeps what an honest "unknown session" note would say of it."""

    __slots__ = ("_session", "kept")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.kept: Final[deque[bytes]] = deque(maxlen=TAILS_KEPT)

    def seal(self, plaintext: bytes) -> bytes:
        packet = self._session.seal(plaintext)
        self.kept.append(packet[-16:])
        return packet


class Path:
    """One way to one peer, with its own session."""

    __slots__ = (
        "_batch_bytes",
        "_bulk",
        "_carrier",
        "_flush_is_due",
        "_goes_alone",
        "_least_offset_ms",
        "_ours",
        "_owner",
        "_reassembly",
        "_strategy",
        "_tails",
        "_unconfirmed_bytes",
        "_window",
        "asker",
        "closed",
        "confirmed",
        "dialled",
        "dialled_at_ms",
        "heard_s",
        "incarnation",
        "limits",
        "observed",
        "outbox",
        "peer_id",
        "peer_started_s",
        "record",
        "relayed",
        "round_trip_s",
        "session",
        "silence",
        "state",
        "suspect",
        "used_s",
        "wrote_s",
    )

    def __init__(
        self,
        peer_id: NodeId,
        session: Session,
        strategy: CommStrat,
        carrier: Carrier,
        owner: PathOwner,
        *,
        dialled: bool,
        dialled_at_ms: int = 0,
        theirs: PeerLimits,
        ours: PeerLimits,
        incarnation: bytes,
        peer_started_s: float = float("inf"),
        asker: Asker | None = None,
    ) -> None:
        self.peer_id: Final = peer_id
        self.session: Final = session
        self.relayed: Final = strategy.relayed
        self.dialled: Final = dialled
        """Whether this side sent the initiation."""
        self.dialled_at_ms: Final = dialled_at_ms
        """When the initiation was made, by the clock of who made it: both sides know it."""
        self.limits: Final = theirs
        self.incarnation: Final = incarnation
        """The other side's, as of the handshake."""
        self.peer_started_s: Final = peer_started_s
        """When that incarnation began, at the latest, on this node's elapsed clock."""
        self.asker: Final = asker
        """What is remembered of the other side's queries; None if there was no room for it."""
        self.state = PATH_LIFE.start
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
        self.wrote_s = session.started_s
        """When something was last given to the transport: of what waits for who reads nothing, none
        is."""
        self.silence: Final = Silence()
        self.round_trip_s: float | None = None
        """As last measured by a ping."""
        self.outbox: Final = Outbox(theirs.reassembly_bytes_max)
        self._tails = Tails(session) if self.relayed else None
        # Not the path itself: a path that is over is to leave no cycle for the garbage collector.
        self._strategy = CryptoStrat(strategy, self._tails or session)
        self._carrier = carrier
        self._owner = owner
        self._ours = ours
        self._reassembly: Reassembly | None = None
        self._flush_is_due = False
        self._batch_bytes = BATCH_BYTES
        self._goes_alone = True
        self._least_offset_ms: int | None = None
        self._bulk: BulkWindow | None = None
        """Of a path that has carried a large message, or what was passed on."""
        self._window = RelayedWindow(theirs.relayed_bytes_max) if self.relayed else None
        self._unconfirmed_bytes = UNCONFIRMED_BYTES_MAX

    def on(self, event: PathEvent) -> None:
        """The path becomes what the table says."""
        self.state = state = PATH_LIFE.after(self.state, event)
        # Attributes of their own: they are read for each packet.
        self.confirmed = self.confirmed or state is PathState.PROVEN
        self.suspect = state is PathState.SUSPECT
        self.closed = state is PathState.CLOSED
        if self.closed and self._reassembly is not None:
            self._reassembly.abandon_all()

    @property
    def strategy(self) -> CommStrat:
        """The route that packets take now."""
        return self._strategy.lower

    @property
    def bulk_round_trip_s(self) -> float:
        """How long the peer took lately to say that it had read of a large message; 0 if there was
        none."""
        return 0.0 if self._bulk is None else self._bulk.round_trip_s

    @property
    def seen_at(self) -> Address | None:
        """The address of the other side, on a connection that it opened."""
        if self.dialled or not isinstance(self.strategy, TCPStrat):
            return None
        return self.strategy.address

    @property
    def is_writable(self) -> bool:
        """Whether the transport below takes more now."""
        return self._carrier.takes_more(self._strategy.lower)

    def reroute(self, strategy: CommStrat) -> None:
        """Send by ``strategy`` from now on: another relay of the same peer."""
        known = self._strategy.lower
        # As a rule it is the very same; to compare two relays takes longer than all the rest.
        if strategy is not known and strategy != known:
            self._strategy = CryptoStrat(strategy, self._strategy.sealer)
            if self.outbox:
                # It may wait for the other relay, which will not say any more that it takes more.
                self._flush_soon()

    # Sending

    def queue(self, outgoing: Outgoing, *, alone: bool = False) -> None:
        """Send a message, soon: what else is queued in this turn goes with it. At once if it is
        ``alone``, and so were those before it."""
        outgoing.path = self
        outbox = self.outbox
        outbox.push(outgoing)
        if alone and self._goes_alone and not self._flush_is_due:
            if self.relayed:
                # The packet is a message to the relay, which is not to wait either.
                self._owner.at_once(self.flush)
            else:
                self.flush()
            return
        if not self._flush_is_due:
            self._flush_is_due = True
            self._owner.soon(self._flush_when_due)
        if outbox.waiting_bytes >= self._batch_bytes:
            self.flush()
            self._batch_bytes = min(2 * self._batch_bytes, BATCH_BYTES_MAX)

    def pass_on(self, packet: PassedOn) -> None:
        """Send a packet of somebody else, soon."""
        packet.path = self
        self.outbox.pass_on(packet)
        self._flush_soon()
        if self.outbox.waiting_bytes >= self._batch_bytes:
            self.flush()
            self._batch_bytes = min(2 * self._batch_bytes, BATCH_BYTES_MAX)

    def queue_control(self, data: bytes) -> None:
        """Send an item of the engine's own, soon."""
        self.outbox.push_control(data)
        self._flush_soon()
        if self.outbox.waiting_bytes >= self._batch_bytes:
            self.flush()

    def answer(self, data: bytes) -> bool:
        """Send an item that an item of the peer's has led to, soon. False if it is dropped: a peer
        that goes on asking and reads nothing has no more than so much waiting for it."""
        if self.outbox.control_bytes > ANSWERS_BYTES_MAX:
            return False
        self.queue_control(data)
        return True

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._owner.soon(self._flush_when_due)

    def _flush_when_due(self) -> None:
        self._flush_is_due = False
        # Where several go at a time, the first of them waits for the others the next time, too.
        self._goes_alone = self._batch_bytes == BATCH_BYTES and self.outbox.messages < 2
        self._batch_bytes = BATCH_BYTES
        self.flush()

    def flush(self) -> None:
        """Seal and write what waits, as far as the transport and the peer take it."""
        outbox, owner, carrier = self.outbox, self._owner, self._carrier
        while outbox.waiting_bytes and not self.closed and carrier.takes_more(self._strategy.lower):
            if not self.confirmed and self._unconfirmed_bytes <= 0:
                return
            now = owner.now()
            if self._window is not None and not self._window.has_room:
                # What says how far the peer has read must pass where messages must wait.
                if not outbox.control_bytes:
                    owner.path_waits(self)
                    return
                self._write(outbox.next_batch(now, only_control=True), now)
            else:
                chunks, chunk_bytes = 1, CHUNK_BYTES_FIRST
                if self._bulk is not None:
                    chunks, chunk_bytes = self._bulk.chunks(now), self._bulk.chunk_bytes
                    if not chunks and outbox.has_bulk_only:
                        owner.path_waits(self)
                        return
                    if chunks > 1 and (self.relayed or carrier.is_throttled(self._strategy.lower)):
                        # The window cannot see a limit: what has left at last is read soon. And
                        # what goes through a relay is in the way of others there.
                        chunks = 1
                batch = outbox.next_batch(
                    now, self._batch_bytes, chunks=chunks, chunk_bytes=chunk_bytes
                )
                if batch.parts:  # all that was left may have been taken back
                    self._write(batch, now)

    def prove(self) -> None:
        """Write what waits, or else an empty packet: the first one proves to the other side that
        we live."""
        self.flush()
        if not (self.closed or self.session.sent):
            self._write(Batch(), self._owner.now())

    def _write(self, batch: Batch, now: float) -> None:
        owner = self._owner
        for outgoing in batch.begun:
            # Set before the write: it may only ever be claimed too often that a copy left (R21).
            outgoing.leave()
        parts = batch.parts
        if batch.has_room:
            news = owner.settled_except(self.peer_id)
            if news is not None:
                parts.append(item(ItemType.SETTLED_EXCEPT, write_settled_except(*news)))
        total = None if self._window is None else self._window.ping(now)
        asks_again = batch.bulk_bytes > 0 and self._note_bulk(batch.bulk_bytes, parts, now)
        if self._bulk is not None and batch.has_small:
            self._bulk.small_one_passes(now)
        if total is not None:
            parts.append(item(ItemType.PING, total))
        t_ms = int((now - self.session.started_s) * 1000)
        plaintext = write_sealed(t_ms, owner.settled(self.peer_id), parts)
        if len(plaintext) > PROOF_BYTES_MAX and self.dialled and not self.session.sent:
            # Until it has the proof, the other side takes small frames only.
            self._write(Batch(), now)
        self.used_s = now
        if not asks_again:  # Who reads nothing is not to be kept for it.
            self.wrote_s = now
        if self._window is not None or not self.confirmed:
            self._count(len(plaintext))
        try:
            self._strategy.send(plaintext, self._carrier)
        except NotSent as error:
            owner.path_failed(self, str(error))

    def _note_bulk(self, size: int, parts: list[bytes | memoryview], now: float) -> bool:
        """So much of large messages is in a packet. Whether that only asks again who has not
        answered for long."""
        bulk = self._bulk
        if bulk is None:
            bulk = self._bulk = BulkWindow(QUEUE_RELAYED_S if self.relayed else QUEUE_S)
        asks_again = bulk.is_full
        total = bulk.sent(size, now)
        if total is not None:
            parts.append(item(ItemType.PING, total + _OF_BULK))
        return asks_again

    def _count(self, size: int) -> None:
        if self._window is not None:
            self._window.sent(size)
        if not self.confirmed:
            self._unconfirmed_bytes -= size

    def holds(self, outgoing: Outgoing) -> bool:
        """Whether any of a message waits here still."""
        return self.outbox.holds(outgoing)

    def take_back(self, outgoing: Outgoing) -> None:
        """A message is not wanted any more: free what of it has not left."""
        self.outbox.take_back(outgoing)
        self._flush_control()

    def drop_unread(self) -> int:
        """The peer does not read, and the memory is needed. Returns how many messages go."""
        dropped = self.outbox.drop_unread()
        self._flush_control()
        return dropped

    def _flush_control(self) -> None:
        if self.outbox.control_bytes:
            self._flush_soon()

    # Receiving

    def open(self, packet: Data) -> tuple[Sealed, int]:
        """What ``packet`` says, and how long it was under way, in ms, at least.

        Raises :class:`InvalidPacket`. The transit time is how much later than the fastest packet
        of this session it came: the two clocks need to agree on nothing but their speed. Whoever
        dialled knows more: the other side's time began before its own, so ``t`` behind its own
        elapsed time is transit, however long all packets were held back.
        """
        plaintext = self.session.open(packet)
        try:
            sealed = parse_sealed(plaintext)
        except InvalidPacket as error:
            # It opened, so the peer itself sealed it: there is no understanding this peer.
            self._owner.path_failed(self, str(error))
            raise
        self.used_s = self.heard_s = now = self._owner.now()
        offset_ms = int((now - self.session.started_s) * 1000) - sealed.t_ms
        least_ms = self._least_offset_ms
        if least_ms is None or offset_ms < least_ms:
            least_ms = self._least_offset_ms = min(offset_ms, 0) if self.dialled else offset_ms
        return sealed, offset_ms - least_ms

    def born_after_s(self, age_ms: int, *, at_once: bool) -> float:
        """What came of that age, transit included, was born then or later on the own clock, however
        long it was held back on the way. ``at_once``: all of it was in the packet opened last.

        It was sealed here, so not before this session began; and whoever dialled began its own time
        later than that, and says in each packet how much of it had passed. Of early data, which
        was sealed before, nothing is known.
        """
        if self._least_offset_ms is None:
            return -inf
        if self.dialled or not at_once:
            return self.session.started_s - age_ms / 1000
        return self.heard_s - (age_ms + self._least_offset_ms) / 1000

    def reassemble(self, data: bytes) -> bytes | bytearray | Arrived | None:
        """The message that a chunk completes, or None. Raises :class:`InvalidPacket`."""
        if self._reassembly is None:
            self._reassembly = Reassembly(
                self._ours.reassembly_bytes_max + MESSAGE_OVERHEAD_MAX,
                self._ours.body_bytes_max + MESSAGE_OVERHEAD_MAX,
                self,
            )
        whole = self._reassembly.feed(parse_chunk(data), self.heard_s)
        if whole is None:
            self._owner.uploads.goes_on(self._reassembly)
        return whole

    def brings_reply(self, reference: bytes, now_s: float) -> bool:
        """Whether a large reply to that query is coming."""
        return self._reassembly is not None and self._reassembly.is_bringing_reply(reference, now_s)

    def end_chunks(self, data: bytes) -> None:
        """The rest of a message will not come. Raises :class:`InvalidPacket`."""
        if len(data) != 4:
            raise InvalidPacket("no number of a chunked message")
        if self._reassembly is not None:
            self._reassembly.abandon(int.from_bytes(data, "big"))

    @property
    def is_strangers(self) -> bool:
        """Whether nobody here has to do with the peer, as far as is remembered of it."""
        return self.asker is None or self.asker.stranger

    def take_room(self, size: int) -> bool:
        uploads, now_s = self._owner.uploads, self.heard_s
        return uploads.take(self.peer_id, size, now_s, stranger=self.is_strangers)

    def give_room_back(self, size: int) -> None:
        self._owner.uploads.room.give_back(self.peer_id, size)

    def is_awaited(self, reply: Reply) -> bool:
        return self._owner.is_awaited(self.peer_id, reply.reference)

    # Pings

    def ask_for_sign_of_life(self) -> None:
        """A ping that measures the round trip."""
        now_ms = int((self._owner.now() - self.session.started_s) * 1000)
        self.queue_control(item(ItemType.PING, _MILLISECONDS.pack(now_ms) + _OF_LIFE))

    def pong(self, data: bytes) -> None:
        """The answer to one of our pings."""
        window, bulk, now = self._window, self._bulk, self._owner.now()
        if (window is not None and window.pong(data)) or (
            bulk is not None and data[8:] == _OF_BULK and bulk.pong(data[:8], now)
        ):
            self._flush_soon()
        elif len(data) == _MILLISECONDS.size + 1:
            (sent_ms,) = _MILLISECONDS.unpack_from(data)
            round_trip_s = now - self.session.started_s - sent_ms / 1000
            if round_trip_s >= 0:
                self.round_trip_s = round_trip_s

    def look(self, now_s: float) -> None:
        """Now and then: a ping or pong of the window may have been lost, or the connection to a
        relay replaced before it took more."""
        if self.outbox:
            self.flush()
        if self._window is not None and self.outbox and not self._window.has_room:
            total = self._window.ping(now_s)
            if total is not None:
                self.queue_control(item(ItemType.PING, total))

    def sent_lately(self, tail: bytes) -> bool:
        """Whether one of the last packets sent ended so."""
        return self._tails is not None and tail in self._tails.kept

    def say_close(self) -> None:
        """Tell the other side that this path ends, after what is queued."""
        # Items of the engine's own overtake messages; this one must be the last.
        self.flush()
        self.queue_control(item(ItemType.CLOSE))
        self.flush()

    def __str__(self) -> str:
        return f"{self.strategy} to {self.peer_id}"

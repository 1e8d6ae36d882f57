"""A path: one session with one peer over one route, and the queue of what goes there.

A route is a TCP connection, or all relays to the peer taken together. A path collects messages, and
seals and writes them once per turn of the event loop, or as soon as a batch is full; a lone message
does not wait.
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
"""How much of pongs, and of notices that a handler still runs, may wait: the peer causes them, and
may never read them."""
UNCONFIRMED_BYTES_MAX: Final = 16 * 1024
"""How much is written to a peer that has not proven that it is alive: answers to its early data.
The rest of them waits for the proof, which an honest peer sends at once."""
PROOF_BYTES_MAX: Final = UNCONFIRMED_FRAME_BYTES_MAX - 256
"""The largest plaintext of a dialler's first packet."""
_MILLISECONDS: Final = struct.Struct(">Q")
_OF_LIFE: Final = bytes(1)
_OF_BULK: Final = bytes(2)
"""These follow the eight bytes of a ping, so that no ping is taken for one of another kind."""


class PathOwner(Protocol):
    """What a path needs from the node it belongs to."""

    @property
    def uploads(self) -> Uploads:
        """What comes in chunks, and the memory for it."""

    def is_awaited(self, peer_id: NodeId, reference: bytes) -> bool:
        """Whether somebody here waits for the peer's reply to the query of that reference."""

    def now(self) -> float:
        """Elapsed seconds."""

    def soon(self, callback: Callable[[], None], /) -> object:
        """Call back once everything that was read at once has been taken, or else at the end of
        this turn of the event loop."""

    def at_once(self, callback: Callable[[], None], /) -> object:
        """Call back now. What that puts off is done before this returns or, within a turn, at its
        end."""

    def settled(self, peer_id: NodeId) -> int:
        """The number below which all queries to the peer are finished."""

    def settled_except(self, peer_id: NodeId) -> SettledExcept | None:
        """News of numbers that are finished above that; None if there is too little to report."""

    def path_waits(self, path: Path) -> None:
        """Look at the path again: before it may send more, the peer must say that it has read."""

    def lose_path(self, path: Path, reason: str) -> None:
        """End a path that is no longer of use."""


class Tails:
    """Seals for a relayed path, and keeps the last packets' tails: an honest unknown-session note
    quotes one of them."""

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
        "moved",
        "observed",
        "outbox",
        "passed_on_s",
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

    def __init__(  # noqa: PLR0915 - one line each
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
        """When the initiation was made, by the dialler's clock: both sides know it."""
        self.limits: Final = theirs
        self.incarnation: Final = incarnation
        """The other side's, as of the handshake."""
        self.peer_started_s: Final = peer_started_s
        """When that incarnation began at the latest, on this node's elapsed clock."""
        self.asker: Final = asker
        """What is remembered of the other side's queries; None if there was no room for it."""
        self.state = PATH_LIFE.start
        self.confirmed = False
        """Whether the other side has proven that it is alive in this session, now."""
        self.closed = False
        self.suspect = False
        """Whether the other side seems to have lost this session."""
        self.record: SignedCommRecord | None = None
        """The peer's record as of the handshake: believed once the session is confirmed."""
        self.observed: Address | None = None
        """Where the other side sees us, if we dialled."""
        self.used_s = session.started_s
        """When something was last sent or received."""
        self.heard_s = session.started_s
        """When something was last received."""
        self.wrote_s = session.started_s
        """When something was last given to the transport, not counting packets that only ask a
        silent peer again: messages that it never reads must not keep the path."""
        self.passed_on_s = session.started_s
        """When a packet of another peer's was last passed on by this path."""
        self.silence: Final = Silence()
        self.round_trip_s: float | None = None
        """As last measured by a ping."""
        self.outbox: Final = Outbox(theirs.reassembly_bytes_max)
        self.moved: frozenset[bytes] = frozenset()
        """To which queries the large replies were that another path cut off. Until the other side
        says so, it is not known whether it has given up waiting for them meanwhile."""
        self._tails = Tails(session) if self.relayed else None
        # The sealer is not the path itself: a path that is over must leave no reference cycle.
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
        """None until the path has carried a large message, or a packet passed on."""
        self._window = RelayedWindow(theirs.relayed_bytes_max) if self.relayed else None
        self._unconfirmed_bytes = UNCONFIRMED_BYTES_MAX

    def on(self, event: PathEvent) -> None:
        """Enter the state that the table says."""
        self.state = state = PATH_LIFE.after(self.state, event)
        # Attributes of their own, since each packet reads them.
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
        """How long the peer took lately to report that it had read part of a large message; 0 if
        there was none."""
        return 0.0 if self._bulk is None else self._bulk.round_trip_s

    @property
    def seen_at(self) -> Address | None:
        """The address of the other side, if this is a connection that it opened. Until it has
        proven that it is alive, somebody else may have opened it, with a recording."""
        if self.dialled or not self.confirmed or not isinstance(self.strategy, TCPStrat):
            return None
        return self.strategy.address

    @property
    def is_writable(self) -> bool:
        """Whether the transport below takes more now."""
        return self._carrier.takes_more(self._strategy.lower)

    def reroute(self, strategy: CommStrat) -> None:
        """Send by ``strategy`` from now on: another relay of the same peer."""
        known = self._strategy.lower
        # It is usually the same object, and comparing two relays takes longer than all the rest.
        if strategy is not known and strategy != known:
            self._strategy = CryptoStrat(strategy, self._strategy.sealer)
            if self.outbox:
                # What is queued may wait for the old relay, which may never say it takes more.
                self._flush_soon()

    # Sending

    def queue(self, outgoing: Outgoing, *, alone: bool = False) -> None:
        """Send a message soon, together with what else is queued in this turn; or at once, if it is
        ``alone`` and so were those before it."""
        outgoing.path = self
        outbox = self.outbox
        outbox.push(outgoing)
        if alone and self._goes_alone and not self._flush_is_due:
            if self.relayed:
                # The packet becomes a message to the relay, which must not wait either.
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
        """Send a packet soon that is on its way to or from a relay."""
        packet.path = self
        self.passed_on_s = packet.born_s
        self.outbox.pass_on(packet)
        self._flush_soon()
        if self.outbox.waiting_bytes >= self._batch_bytes:
            self.flush()
            self._batch_bytes = min(2 * self._batch_bytes, BATCH_BYTES_MAX)

    def queue_control(self, data: bytes) -> None:
        """Send an item of the engine's own soon."""
        self.outbox.push_control(data)
        self._flush_soon()
        if self.outbox.waiting_bytes >= self._batch_bytes:
            self.flush()

    def answer(self, data: bytes) -> bool:
        """Send the answer to an item of the peer's soon. False if it is dropped, since too much
        waits already: a peer might go on asking and never read."""
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
        # If several messages went together, the next one waits for company, too.
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
                # Messages must wait, but pings and pongs must pass: only they let messages go on.
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
                        # The window cannot see a rate limit: once something has left, it is read
                        # soon. And at a relay, a large packet holds up those of others.
                        chunks = 1
                batch = outbox.next_batch(
                    now, self._batch_bytes, chunks=chunks, chunk_bytes=chunk_bytes
                )
                if batch.parts:  # all that was left may have been taken back
                    self._write(batch, now)

    def prove(self) -> None:
        """Write what waits, or else an empty packet: the first packet proves to the other side that
        we are alive."""
        self.flush()
        if not (self.closed or self.session.sent):
            self._write(Batch(), self._owner.now())

    def _write(self, batch: Batch, now: float) -> None:
        owner = self._owner
        for outgoing in batch.begun:
            # Set before the write: claiming wrongly that a copy left is safe, the opposite is not
            # (R21).
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
            # Until it has our proof, the other side takes only small frames.
            self._write(Batch(), now)
        self.used_s = now
        if not asks_again:  # Asking again must not keep a path to a peer that never reads.
            self.wrote_s = now
        if self._window is not None or not self.confirmed:
            self._count(len(plaintext))
        try:
            self._strategy.send(plaintext, self._carrier)
        except NotSent as error:
            owner.lose_path(self, str(error))

    def _note_bulk(self, size: int, parts: list[bytes | memoryview], now: float) -> bool:
        """``size`` bytes of large messages are in a packet. True if that is sent only to ask again,
        because an answer is overdue."""
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
        """Whether any of a message still waits here."""
        return self.outbox.holds(outgoing)

    def take_back(self, outgoing: Outgoing) -> None:
        """A message is not wanted any more: free the part that has not left."""
        self.outbox.take_back(outgoing)
        self._flush_control()

    def drop_unread(self) -> int:
        """Drop what others made wait here: the peer does not read, and the memory is needed.
        Returns how many messages were dropped."""
        dropped = self.outbox.drop_unread()
        self._flush_control()
        return dropped

    def _flush_control(self) -> None:
        if self.outbox.control_bytes:
            self._flush_soon()

    # Receiving

    def open(self, packet: Data) -> tuple[Sealed, int]:
        """What ``packet`` says, and for how many ms at least it was under way.

        Raises :class:`InvalidPacket`. The transit time is how much later the packet came than the
        fastest one of this session: the two clocks need to agree only on their speed. The dialler
        knows more: the other side's session began before its own, so all that ``t`` lags behind its
        own elapsed time is transit, even if every packet was held back.
        """
        plaintext = self.session.open(packet)
        try:
            sealed = parse_sealed(plaintext)
        except InvalidPacket as error:
            # It opened, so the peer itself sealed it: we cannot understand this peer.
            self._owner.lose_path(self, str(error))
            raise
        self.used_s = self.heard_s = now = self._owner.now()
        offset_ms = int((now - self.session.started_s) * 1000) - sealed.t_ms
        least_ms = self._least_offset_ms
        if least_ms is None or offset_ms < least_ms:
            least_ms = self._least_offset_ms = min(offset_ms, 0) if self.dialled else offset_ms
        return sealed, offset_ms - least_ms

    def born_after_s(self, age_ms: int, *, at_once: bool) -> float:
        """The earliest that a message of this age, transit included, can have been born, on this
        node's clock and however long it was held back on the way. ``at_once``: all of it was in the
        packet opened last.

        It was sealed in this session, so not before that began. A dialler's time begins later
        still, and each of its packets says how much of it has passed. Of early data, which was
        sealed before the session, nothing is known.
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
        """Whether the peer is a stranger, or nothing is remembered of it."""
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
        """Send a ping, which also measures the round trip."""
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
        """To be called now and then: a ping or pong of the window may have been lost, or the
        connection to a relay replaced before it took more."""
        if self.outbox:
            self.flush()
        if self._window is not None and self.outbox and not self._window.has_room:
            total = self._window.ping(now_s)
            if total is not None:
                self.queue_control(item(ItemType.PING, total))

    def sent_lately(self, tail: bytes) -> bool:
        """Whether one of the last packets sent ended with ``tail``."""
        return self._tails is not None and tail in self._tails.kept

    def say_close(self, why: bytes = b"") -> None:
        """Tell the other side that this path ends, after what is queued."""
        # Items of the engine's own overtake messages; this one must come last.
        self.flush()
        self.queue_control(item(ItemType.CLOSE, why))
        self.flush()

    def __str__(self) -> str:
        return f"{self.strategy} to {self.peer_id}"

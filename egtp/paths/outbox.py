"""What waits to be sent on one path, and in what order it goes (pure).

Small messages go first come, first served. A message too large for one item is cut into chunks, and
a few large messages at a time take turns, a packet each, so a body of many megabytes delays a small
query by one packet, not by the whole body. (Whatever the kernels have accepted still goes first;
:mod:`egtp.paths.bulk_window` bounds that.) How many take turns is bounded by what the other side is
willing to reassemble at a time. Packets passed on for others are never cut, and so keep their
order; their senders share the path, behind this node's own small messages. Nothing here is sealed
yet: whatever is still here when a path dies can go by another.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from egtp.channel.sealed import (
    AGE_BYTES,
    CHUNK_BYTES_MAX,
    MESSAGE,
    U32_MAX,
    ItemType,
    chunk_head,
    item,
    message_head,
)
from egtp.paths.fair_queue import FairQueue
from egtp.queries.large_message import LargeMessage
from egtp.queries.outgoing import Outgoing, PassedOn
from egtp.values.identity import NodeId

__all__ = ["BATCH_BYTES", "BATCH_BYTES_MAX", "Batch", "Outbox", "is_caused_by_others"]

BATCH_BYTES: Final = 4096
"""A batch is sealed once this much is queued. Measured: smaller batches cost more seals, and with
larger ones the two sides work in turns when little is in flight."""
BATCH_BYTES_MAX: Final = 16_384
"""When much is queued in one turn, each batch is twice as large as the last, up to this: by then
the other side has enough to do, and fewer seals cost less."""

CHUNKS_MAX: Final = 3
"""In a packet: more do not fit into one that a relay can wrap."""
TURNS_MAX: Final = 16
"""How many large messages take turns at a time; the other side allows 64."""


MESSAGE_BYTES: Final = 160
"""The memory that a waiting message takes beside its bytes; a test measures that it is no more. For
a short reply, this is most of it."""

_NOTHING: Final[deque[Any]] = deque(maxlen=0)
"""An empty queue that stays empty. A deque takes more memory than all the rest of a path, so a path
at rest has none of its own."""
_NO_REPLIES: Final[dict[bytes, Outgoing]] = {}
"""The same for the large replies that wait."""


class Batch:
    """What goes into one packet, and the messages that begin to leave with it."""

    __slots__ = ("begun", "bulk_bytes", "has_room", "has_small", "parts")

    def __init__(self) -> None:
        self.bulk_bytes = 0
        """How much of it belongs to a large message, or is passed on."""
        self.has_small = False
        """Whether it has any other message."""
        self.has_room = True
        """Whether a chunk, and a little more, still fits."""
        self.parts: list[bytes | memoryview] = []
        """Items, one after the other; an item may span several parts."""
        self.begun: list[Outgoing] = []


class _Chunking:
    """A large message of which some chunks have left."""

    __slots__ = ("age", "chunk_id", "offset", "outgoing", "size")

    def __init__(self, outgoing: Outgoing, chunk_id: int, age: bytes) -> None:
        self.outgoing = outgoing
        self.chunk_id = chunk_id
        self.age = age
        self.size = AGE_BYTES + len(outgoing.message)
        """The bytes of the whole message item: the age, then the message."""
        self.offset = 0

    def next(self, size: int) -> bytes | memoryview:
        """The next piece of the item, which is never put together: it may be large."""
        start = self.offset - AGE_BYTES
        end = start + size
        self.offset = min(self.offset + size, self.size)
        message = self.outgoing.message
        return message[start:end] if start >= 0 else b"".join((self.age, message[:end]))


def is_caused_by_others(outgoing: Outgoing) -> bool:
    """Whether it is a reply or a packet to pass on, and not what this node itself asks or says."""
    return type(outgoing) is Outgoing or type(outgoing) is PassedOn


class Outbox:
    """Invariants: :attr:`waiting_bytes` is the sum of what has yet to leave the queues; the
    messages of which some chunks have left are together no larger than ``reassembly_bytes_max``,
    and at most :data:`TURNS_MAX`; an :class:`Outgoing` is ``queued`` exactly while nothing of it
    has left."""

    __slots__ = (
        "_begun",
        "_begun_bytes",
        "_chunked",
        "_control",
        "_large_replies",
        "_next_chunk_id",
        "_others_turn",
        "_passed_on",
        "_reassembly_bytes_max",
        "_small",
        "_taken_back",
        "control_bytes",
        "waiting_bytes",
    )

    def __init__(self, reassembly_bytes_max: int) -> None:
        self._reassembly_bytes_max = reassembly_bytes_max
        self._begun: deque[_Chunking] = _NOTHING
        self._begun_bytes = 0
        self._control: deque[bytes] = _NOTHING
        self.control_bytes = 0
        """How much waits of the engine's own items."""
        self._small: deque[Outgoing] = _NOTHING
        self._chunked: deque[Outgoing] = _NOTHING
        self._large_replies: dict[bytes, Outgoing] = _NO_REPLIES
        """Those that are wanted and have yet to leave, in whole or in part, by the references of
        their queries: the peer may name any number of references, so none may cost a look at all
        that waits, nor at all that has begun to leave."""
        self._passed_on: FairQueue | None = None
        """None for most paths, which do not lead to a client of a relay."""
        self._taken_back = 0
        """How many messages in the two queues are no longer wanted; they are skipped."""
        self._next_chunk_id = 0
        self._others_turn = False
        """The last packet held all of a large message: the next is for those that began earlier."""
        self.waiting_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._small or self._begun or self._chunked or self._control or self._passed_on)

    @property
    def messages(self) -> int:
        """How many messages wait of which nothing has left, including those taken back."""
        passed_on = 0 if self._passed_on is None else len(self._passed_on)
        return len(self._small) + len(self._chunked) + passed_on

    @property
    def caused_by_others(self) -> int:
        """How many of these are replies and packets to pass on."""
        passed_on = 0 if self._passed_on is None else len(self._passed_on)
        return passed_on + sum(map(is_caused_by_others, (*self._small, *self._chunked)))

    @property
    def memory_bytes(self) -> int:
        """The memory that everything waiting takes."""
        messages, queue = len(self._small) + len(self._chunked), self._passed_on
        passed_on = 0 if queue is None else len(queue) * MESSAGE_BYTES + queue.overhead_bytes
        return self.waiting_bytes + messages * MESSAGE_BYTES + passed_on

    @property
    def has_bulk_only(self) -> bool:
        """Whether nothing waits but large messages and packets to pass on."""
        return not (self._small or self._control)

    def push(self, outgoing: Outgoing) -> None:
        """Queue a message behind those that wait."""
        size = len(outgoing.message)
        self.waiting_bytes += size
        outgoing.queued = True
        if size <= CHUNK_BYTES_MAX or type(outgoing) is PassedOn:
            if self._small is _NOTHING:
                self._small = deque()
            self._small.append(outgoing)
        else:
            if self._chunked is _NOTHING:
                self._chunked = deque()
            self._chunked.append(outgoing)
            message = outgoing.message
            if type(message) is LargeMessage and message.refers_to is not None:
                if self._large_replies is _NO_REPLIES:
                    self._large_replies = {}
                self._large_replies[message.refers_to] = outgoing

    def _unlist(self, outgoing: Outgoing) -> None:
        """A message has left, or is no longer wanted."""
        message = outgoing.message
        if type(message) is not LargeMessage or message.refers_to is None:
            return
        if self._large_replies.get(message.refers_to) is outgoing:
            del self._large_replies[message.refers_to]
            if not self._large_replies:
                self._large_replies = _NO_REPLIES

    def pass_on(self, packet: PassedOn) -> None:
        """Queue a packet of somebody else's, behind those of the same sender."""
        self.waiting_bytes += len(packet.message)
        packet.queued = True
        if self._passed_on is None:
            self._passed_on = FairQueue()
        self._passed_on.append(packet)

    def waiting_of(self, sender: NodeId) -> int:
        """How many bytes of one sender wait to be passed on."""
        return 0 if self._passed_on is None else self._passed_on.bytes_of(sender)

    def push_control(self, item: bytes) -> None:
        """Queue an item of the engine's own, ahead of all messages."""
        self.waiting_bytes += len(item)
        self.control_bytes += len(item)
        if self._control is _NOTHING:
            self._control = deque()
        self._control.append(item)

    def next_batch(
        self,
        now_s: float,
        size_max: int = BATCH_BYTES,
        *,
        only_control: bool = False,
        chunks: int = 1,
        chunk_bytes: int = CHUNK_BYTES_MAX,
    ) -> Batch:
        """Take what goes into the next packet: at least one item if there is any, messages up to
        about ``size_max`` bytes, and chunks of a large message of up to ``chunk_bytes`` each: one
        beside other items; alone up to ``chunks``, and at most :data:`CHUNKS_MAX`. With ``chunks``
        at 0, large messages and packets to pass on stay."""
        batch = Batch()
        parts, size = batch.parts, 0
        while self._control and (not size or size + len(self._control[0]) <= BATCH_BYTES):
            control = self._control.popleft()
            size += len(control)
            parts.append(control)
        self.waiting_bytes -= size
        self.control_bytes -= size
        if not self._control:
            self._control = _NOTHING
        if only_control:
            batch.has_room = size < CHUNK_BYTES_MAX
            return batch
        small, begun, taken = self._small, batch.begun, 0
        while small and size < size_max:
            outgoing = small.popleft()
            if not outgoing.queued:
                self._taken_back -= 1
                continue
            message = outgoing.message  # bytes: a large one would be in the other queue
            if parts and len(message) > CHUNK_BYTES_MAX:
                small.appendleft(outgoing)  # it fills a packet of its own
                break
            outgoing.queued = False
            age_s = now_s - outgoing.born_s
            age_ms = 0 if age_s < 0.001 else int(age_s * 1000)
            if age_ms > U32_MAX:
                age_ms = U32_MAX
            length = len(message)
            taken += length
            size += length
            parts += (message_head(MESSAGE, length + AGE_BYTES, age_ms), message)  # type: ignore[arg-type]
            begun.append(outgoing)
        self.waiting_bytes -= taken
        if not small:
            self._small = _NOTHING
        batch.has_small = taken > 0
        if chunks and self._passed_on is not None:
            self._take_passed_on(batch, size, size_max, now_s)
            size += batch.bulk_bytes
        batch.has_room = size < CHUNK_BYTES_MAX
        if chunks and batch.has_room and (self._chunked or self._begun):
            self._begin_chunked(batch, now_s)
            if self._begun:
                self._take_chunks(batch, 1 if parts else min(chunks, CHUNKS_MAX), chunk_bytes)
            self._drop_empty()
        return batch

    def _take_passed_on(self, batch: Batch, size: int, size_max: int, now_s: float) -> None:
        """Add packets to pass on to the ``size`` bytes that the batch has."""
        queue, parts, taken = self._passed_on, batch.parts, 0
        while queue and size + taken < size_max:
            if parts and len(queue.next.message) > CHUNK_BYTES_MAX:
                break  # it fills a packet of its own
            packet = queue.popleft()
            message = packet.message
            packet.queued = False
            age_ms = min(max(0, int((now_s - packet.born_s) * 1000)), U32_MAX)
            parts += (message_head(MESSAGE, len(message) + AGE_BYTES, age_ms), message)  # type: ignore[arg-type]
            batch.begun.append(packet)
            taken += len(message)
        self.waiting_bytes -= taken
        batch.bulk_bytes = taken
        if not queue:
            self._passed_on = None

    def _begin_chunked(self, batch: Batch, now_s: float) -> None:
        """Let the next large message take its turns, if the other side has room for it."""
        while self._chunked and not self._chunked[0].queued:
            self._chunked.popleft()
            self._taken_back -= 1
        begun = len(self._begun)
        if not self._chunked or begun >= TURNS_MAX or (begun and self._others_turn):
            return
        size = len(self._chunked[0].message) + AGE_BYTES
        if begun and self._begun_bytes + size > self._reassembly_bytes_max:
            return
        outgoing = self._chunked.popleft()
        outgoing.queued = False
        self._next_chunk_id = (self._next_chunk_id + 1) & U32_MAX
        age_ms = min(max(0, int((now_s - outgoing.born_s) * 1000)), U32_MAX)
        age = age_ms.to_bytes(AGE_BYTES, "big")
        self.waiting_bytes += AGE_BYTES
        self._begun_bytes += size
        if self._begun is _NOTHING:
            self._begun = deque()
        # In front: the others have had their first turn already.
        self._begun.appendleft(_Chunking(outgoing, self._next_chunk_id, age))
        batch.begun.append(outgoing)

    def _take_chunks(self, batch: Batch, most: int, chunk_bytes: int) -> None:
        chunking = self._begun.popleft()
        before, size, parts = chunking.offset, chunking.size, batch.parts
        while most and (offset := chunking.offset) < size:
            data = chunking.next(chunk_bytes)
            parts += (chunk_head(chunking.chunk_id, size, offset, len(data)), data)
            most -= 1
        taken = chunking.offset - before
        batch.bulk_bytes += taken
        self.waiting_bytes -= taken
        # TURNS_MAX bounds newcomers that stay, but not those that leave whole in one packet.
        self._others_turn = taken == size
        if chunking.offset < size:
            self._begun.append(chunking)
        else:
            self._begun_bytes -= size
            self._unlist(chunking.outgoing)

    def _drop_empty(self) -> None:
        if not self._chunked:
            self._chunked = _NOTHING
        if not self._begun:
            self._begun = _NOTHING

    def take_back(self, outgoing: Outgoing) -> None:
        """A message is no longer wanted. One that has begun to leave is cut off, and the other side
        is told."""
        if outgoing.queued:
            outgoing.queued = False
            self._unlist(outgoing)
            self.waiting_bytes -= len(outgoing.message)
            self._taken_back += 1
            if 2 * self._taken_back > len(self._small) + len(self._chunked):
                self._sweep()
            return
        for chunking in self._begun:
            if chunking.outgoing is outgoing:
                self._begun.remove(chunking)
                self._unlist(outgoing)
                self._begun_bytes -= chunking.size
                self.waiting_bytes -= chunking.size - chunking.offset
                self._drop_empty()
                chunk_id = chunking.chunk_id.to_bytes(4, "big")
                self.push_control(item(ItemType.CHUNKS_END, chunk_id))
                return

    def _sweep(self) -> None:
        # Called once half of them are unwanted, so each message is moved once, on average.
        self._small = deque(one for one in self._small if one.queued) or _NOTHING
        self._chunked = deque(one for one in self._chunked if one.queued) or _NOTHING
        self._taken_back = 0

    def holds(self, outgoing: Outgoing) -> bool:
        """Whether any part of a message has yet to leave."""
        return outgoing.queued or any(one.outgoing is outgoing for one in self._begun)

    def large_reply(self, reference: bytes) -> Outgoing | None:
        """The large reply to the query of that reference; None unless any part of it has yet to
        leave."""
        return self._large_replies.get(reference)

    def drop_unread(self) -> int:
        """Take back what others made this node say or pass on: replies and packets. What this node
        itself asks stays. Returns how many were taken back."""
        waiting = self.unsent + [chunking.outgoing for chunking in self._begun]
        dropped = [one for one in waiting if is_caused_by_others(one)]
        for outgoing in dropped:
            self.take_back(outgoing)
        return len(dropped) + len(self._take_all_passed_on())

    def take_cut_off(self) -> list[Outgoing]:
        """Take out the replies of which some chunks have left, but not the last: the path is gone,
        so nobody has them."""
        cut_off = [one.outgoing for one in self._begun if type(one.outgoing) is Outgoing]
        for outgoing in cut_off:
            self.take_back(outgoing)
        return cut_off

    def _take_all_passed_on(self) -> list[PassedOn]:
        packets = [] if self._passed_on is None else list(self._passed_on)
        self._passed_on = None
        for packet in packets:
            packet.queued = False
            self.waiting_bytes -= len(packet.message)
        return packets

    @property
    def unsent(self) -> list[Outgoing]:
        """The messages of which nothing has left."""
        return [one for one in (*self._small, *self._chunked) if one.queued]

    def take_unsent(self) -> list[Outgoing]:
        """Take out the messages of which nothing has left, so that they can go by another path."""
        unsent = self.unsent
        for outgoing in unsent:
            outgoing.queued = False
            self.waiting_bytes -= len(outgoing.message)
            self._unlist(outgoing)
        self._small = self._chunked = _NOTHING
        self._taken_back = 0
        unsent += self._take_all_passed_on()
        return unsent

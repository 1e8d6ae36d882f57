"""What waits to be sent on one path, and in what order it goes.

Small messages go first come, first served. A message too large for one item is cut into chunks,
and a few large messages at a time take turns, one chunk per batch, so a body of many megabytes
delays a small query by a chunk *here*, and not by the body. What the socket and the kernel have
taken already goes first all the same. How many take turns is bounded by what the
other side is willing to put together at a time. Nothing here is sealed yet: whatever has not been
taken when a path dies can go by another.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from egtp.sealed import CHUNK_BYTES_MAX, U32_MAX, write_chunk, write_message

__all__ = ["BATCH_BYTES", "Batch", "Outbox", "Waiting"]

BATCH_BYTES: Final = 4096
"""A batch is sealed once this much is queued. Measured: smaller costs more seals, larger makes
the two sides work in turns."""

TURNS_MAX: Final = 16
"""How many large messages take turns at a time; the other side allows 64."""

Token = TypeVar("Token")


class Waiting(Generic[Token]):
    """A message that waits, when it was made, and what its sender knows it by."""

    __slots__ = ("born_s", "chunk_id", "message", "offset", "token")

    def __init__(self, message: bytes, born_s: float, token: Token) -> None:
        self.message = message
        self.born_s = born_s
        self.token = token
        self.chunk_id = 0
        self.offset = 0


class Batch(Generic[Token]):
    """What goes into one packet, and whose messages have thereby begun to leave."""

    __slots__ = ("begun", "items")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.begun: list[Token] = []


class Outbox(Generic[Token]):
    """Invariants: :attr:`waiting_bytes` is the sum of what the queues still have to give;
    the messages of which some chunks have left are together no larger than
    ``reassembly_bytes_max``, and at most :data:`TURNS_MAX`."""

    __slots__ = (
        "_begun",
        "_begun_bytes",
        "_chunked",
        "_control",
        "_next_chunk_id",
        "_reassembly_bytes_max",
        "_small",
        "waiting_bytes",
    )

    def __init__(self, reassembly_bytes_max: int) -> None:
        self._reassembly_bytes_max = reassembly_bytes_max
        self._begun: deque[Waiting[Token]] = deque()
        self._begun_bytes = 0
        self._control: deque[bytes] = deque()
        self._small: deque[Waiting[Token]] = deque()
        self._chunked: deque[Waiting[Token]] = deque()
        self._next_chunk_id = 0
        self.waiting_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._small or self._begun or self._chunked or self._control)

    def push(self, waiting: Waiting[Token]) -> None:
        """Queue a message behind those that wait."""
        self.waiting_bytes += len(waiting.message)
        if len(waiting.message) <= CHUNK_BYTES_MAX:
            self._small.append(waiting)
        else:
            waiting.offset = 0
            self._chunked.append(waiting)

    def push_control(self, item: bytes) -> None:
        """Queue an item of the engine's own; these go before all messages."""
        self.waiting_bytes += len(item)
        self._control.append(item)

    def next_batch(self, now_s: float) -> Batch[Token]:
        """Take what goes into the next packet: at least one item if there is any, and at most
        about two chunks' worth of bytes."""
        batch: Batch[Token] = Batch()
        size = 0
        while self._control and (not size or size + len(self._control[0]) <= BATCH_BYTES):
            control = self._control.popleft()
            size += len(control)
            self.waiting_bytes -= len(control)
            batch.items.append(control)
        while self._small and size < BATCH_BYTES:
            waiting = self._small.popleft()
            size += len(waiting.message)
            self.waiting_bytes -= len(waiting.message)
            batch.items.append(write_message(_age_ms(now_s, waiting), waiting.message))
            batch.begun.append(waiting.token)
        if size < CHUNK_BYTES_MAX:
            self._begin_chunked(batch, now_s)
            if self._begun:
                self._take_chunk(batch)
        return batch

    def _begin_chunked(self, batch: Batch[Token], now_s: float) -> None:
        """Let the next large message take its turns, if there is room for it at the other side."""
        if not self._chunked or len(self._begun) >= TURNS_MAX:
            return
        size = len(self._chunked[0].message) + 4
        if self._begun and self._begun_bytes + size > self._reassembly_bytes_max:
            return
        waiting = self._chunked.popleft()
        self._next_chunk_id = (self._next_chunk_id + 1) & U32_MAX
        waiting.chunk_id = self._next_chunk_id
        # What is chunked is the whole of a message item's bytes: the age, then the message.
        waiting.message = _age_ms(now_s, waiting).to_bytes(4, "big") + waiting.message
        self.waiting_bytes += 4
        self._begun_bytes += size
        # In front: what was there before it has had its first turn already.
        self._begun.appendleft(waiting)
        batch.begun.append(waiting.token)

    def _take_chunk(self, batch: Batch[Token]) -> None:
        waiting = self._begun.popleft()
        end = min(waiting.offset + CHUNK_BYTES_MAX, len(waiting.message))
        data = waiting.message[waiting.offset : end]
        total = len(waiting.message)
        batch.items.append(write_chunk(waiting.chunk_id, total, waiting.offset, data))
        self.waiting_bytes -= len(data)
        waiting.offset = end
        if end < total:
            self._begun.append(waiting)
        else:
            self._begun_bytes -= total

    def drop(self, token: Token) -> bool:
        """Take a message back. False if it is not here, or part of it has left already."""
        for queue in (self._small, self._chunked):
            for waiting in queue:
                if waiting.token is token:
                    queue.remove(waiting)
                    self.waiting_bytes -= len(waiting.message)
                    return True
        return False

    def take_unsent(self) -> list[Waiting[Token]]:
        """Take out the messages of which nothing has left: they can go by another path."""
        unsent = [*self._small, *self._chunked]
        self._small.clear()
        self._chunked.clear()
        self.waiting_bytes -= sum(len(waiting.message) for waiting in unsent)
        return unsent


def _age_ms(now_s: float, waiting: Waiting[Token]) -> int:
    return min(max(0, int((now_s - waiting.born_s) * 1000)), U32_MAX)

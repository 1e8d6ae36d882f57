"""The queries that wait for a reply, and when each is sent again or given up. Pure.

One table for a whole node, so that a node has one timer however many queries are open, and a reply
costs a look into a dict. When the timer goes off all are looked through: most are answered long
before they are due, so keeping them in order would cost more. There are a dozen as a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lookup_dht.wire.contact import Contact, SocketAddress
from lookup_dht.wire.datagram import Query, Reply

__all__ = ["OpenQueries", "OpenQuery"]


class OpenQuery:
    """A query under way. ``ended`` is called once, with the reply, or with None for failed."""

    __slots__ = (
        "address", "contact", "data", "due_at", "ended", "message_id", "open", "query", "sent_at",
        "tries_left",
    )  # fmt: skip

    def __init__(
        self,
        message_id: bytes,
        address: SocketAddress,
        contact: Contact | None,
        query: Query,
        data: bytes,
        ended: Callable[[Reply | None], None],
        tries: int,
    ) -> None:
        """``contact`` is None if nobody knows whom to expect at the address."""
        self.message_id: Final = message_id
        self.address: Final = address
        self.contact: Final = contact
        self.query = query
        self.data = data
        self.ended: Final = ended
        self.tries_left = tries
        self.sent_at: float | None = None
        """None once it was sent twice: nobody knows then which copy was answered."""
        self.due_at = 0.0
        self.open = True


class OpenQueries:
    """All of one node's. Every query in it is due at some time, so none stays for ever."""

    def __init__(self, queries_max: int) -> None:
        self._queries_max = queries_max
        self._open: dict[bytes, OpenQuery] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        return len(self._open) >= self._queries_max

    def get(self, message_id: bytes) -> OpenQuery | None:
        return self._open.get(message_id)

    def all(self) -> list[OpenQuery]:
        return list(self._open.values())

    def wait(self, query: OpenQuery, due_at: float) -> None:
        """``query`` was sent, and something has to happen at ``due_at`` if there is no reply."""
        self._open[query.message_id] = query
        query.due_at = due_at

    def close(self, query: OpenQuery) -> None:
        """It is over. Doing it twice is allowed."""
        if query.open:
            query.open = False
            del self._open[query.message_id]

    @property
    def next_due_at(self) -> float | None:
        return min([query.due_at for query in self._open.values()], default=None)

    def due(self, now: float) -> Iterator[OpenQuery]:
        """Those whose time has come. The caller sends each again, or closes it, and perhaps others
        with it."""
        for query in list(self._open.values()):
            if query.open and query.due_at <= now:
                yield query

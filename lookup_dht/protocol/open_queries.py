"""The queries that wait for a reply, and when each is sent again or given up. Pure.

One table per node, so that one timer serves all open queries, and matching a reply is a dict
lookup. When the timer goes off, all of them are scanned: most queries are answered long before they
are due, so keeping them sorted would cost more, and usually only a dozen are open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lookup_dht.wire.contact import Contact, SocketAddress
from lookup_dht.wire.datagram import Query, Reply

__all__ = ["OpenQueries", "OpenQuery"]


class OpenQuery:
    """A query under way. ``ended`` is called at most once, with the reply, or None if it failed."""

    __slots__ = (
        "address", "contact", "data", "due_at", "ended", "is_taken", "message_id", "open", "query",
        "sent_at", "tries_left",
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
        """``contact`` is None if it is not known who is at the address."""
        self.message_id: Final = message_id
        self.address: Final = address
        self.contact: Final = contact
        self.query = query
        self.data = data
        self.ended: Final = ended
        self.tries_left = tries
        self.sent_at: float | None = None
        """None once it was sent twice: a reply might then be to either copy (Karn's algorithm)."""
        self.due_at = 0.0
        self.is_taken = False
        """Whether the system took it when it was last sent."""
        self.open = True


class OpenQueries:
    """All open queries of one node. Each has a due time, so none stays for ever."""

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
        """``query`` was sent, and becomes due at ``due_at`` if there is no reply by then."""
        self._open[query.message_id] = query
        query.due_at = due_at

    def close(self, query: OpenQuery) -> None:
        """Remove a query that is over. Idempotent."""
        if query.open:
            query.open = False
            del self._open[query.message_id]

    @property
    def next_due_at(self) -> float | None:
        return min([query.due_at for query in self._open.values()], default=None)

    def due(self, now: float) -> Iterator[OpenQuery]:
        """The queries that are due. For each, the caller sends it again or closes it, and may close
        others in doing so."""
        for query in list(self._open.values()):
            if query.open and query.due_at <= now:
                yield query

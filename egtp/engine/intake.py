"""Intake: what comes in on paths, item by item, and who gets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from egtp.channel.sealed import (
    MESSAGE,
    ItemType,
    Sealed,
    item,
    parse_age,
    parse_goaway,
    parse_settled_except,
)
from egtp.engine.answering import Answering
from egtp.engine.asking import Asking
from egtp.engine.records import Records
from egtp.engine.routes import Routes
from egtp.errors import InvalidMessage, RemoteProtocolError
from egtp.paths.path import Path
from egtp.queries.exchange import EXCEPTIONS_MAX
from egtp.queries.large_message import Arrived
from egtp.queries.message_reader import MessageReader
from egtp.relay.relaying import Relaying
from egtp.values.identity import NodeId
from egtp.values.message import Message, Query, Reply, Send

__all__ = ["Intake"]


class Intake:
    """Hands each item of a sealed packet to the part of the engine that it is for."""

    def __init__(
        self,
        asking: Asking,
        answering: Answering,
        routes: Routes,
        relaying: Relaying,
        records: Records,
        counters: Counter[str],
    ) -> None:
        self._asking: Final = asking
        self._answering: Final = answering
        self._routes: Final = routes
        self._relaying: Final = relaying
        self._counters: Final = counters
        self._reader: Final = MessageReader()
        self._takers: Final[dict[int, Callable[[Path, bytes, int], None]]] = {
            ItemType.CHUNK: self._take_chunk,
            ItemType.CHUNKS_END: lambda path, data, _: path.end_chunks(data),
            ItemType.SETTLED_EXCEPT: self._take_settled_except,
            ItemType.WORKING: lambda path, data, _: asking.received_working(path.peer_id, data),
            ItemType.CANCEL: lambda path, data, _: answering.cancel(path, data),
            ItemType.PING: self._take_ping,
            ItemType.PONG: lambda path, data, _: path.pong(data),
            ItemType.RECORD: lambda path, data, _: records.came_pushed(path.peer_id, data),
            ItemType.GOAWAY: lambda path, data, _: routes.going_away(path, parse_goaway(data)[1]),
            ItemType.CLOSE: lambda path, data, _: routes.closed_by_peer(path, data),
        }
        """What takes each type of item: called with its path, its bytes and its transit in ms."""

    def opened(self, path: Path, sealed: Sealed, transit_ms: int) -> None:
        asker = path.asker
        if asker is not None and sealed.settled > asker.floor:
            self._answering.answers.settle(asker, sealed.settled)
            if path.moved:
                self._asking.drop_given_up(path, asker)
        peer_id, asking, answering = path.peer_id, self._asking, self._answering
        for kind, age_ms, data in sealed.items:
            try:
                if kind == MESSAGE:
                    # Like deliver(), but without its two calls for each message.
                    message = self._reader.read(data)
                    if type(message) is Reply:
                        asking.received_reply(peer_id, message)
                    elif type(message) is Query:
                        reference, old_ms = sha256(data).digest(), age_ms + transit_ms
                        answering.receive(path, peer_id, message, reference, old_ms, at_once=True)
                    else:
                        self._dispatch(path, peer_id, message, b"", age_ms + transit_ms)
                elif kind in self._takers:
                    self._takers[kind](path, data, transit_ms)
            except RemoteProtocolError as error:
                self._counters[f"dropped: {error}"] += 1
                if kind != MESSAGE and not isinstance(error, InvalidMessage):
                    # Both sides count chunks and know the items, so the path cannot go on. An
                    # invalid message, even one that came in chunks, disturbs nothing beside it.
                    self._routes.lose(path, str(error))
            if path.closed:
                return

    def deliver(self, path: Path | None, peer_id: NodeId, data: bytes, age_ms: int) -> None:
        message = self._reader.read(data)
        reference = sha256(data).digest() if type(message) is Query else b""
        self._dispatch(path, peer_id, message, reference, age_ms)

    def _take_chunk(self, path: Path, data: bytes, transit_ms: int) -> None:
        whole = path.reassemble(data)
        if isinstance(whole, Arrived) and whole.refused:
            self._refuse(path, whole, transit_ms)
        elif isinstance(whole, Arrived):
            age_ms, message, reference, _ = whole
            self._dispatch(path, path.peer_id, message, reference, age_ms + transit_ms)
        elif whole is not None:
            age_ms, data = parse_age(whole)
            self.deliver(path, path.peer_id, data, age_ms + transit_ms)

    def _refuse(self, path: Path, arrived: Arrived, transit_ms: int) -> None:
        """The body of a message was not kept: there was no room, or nobody waits for it."""
        message, age_ms = arrived.message, arrived.age_ms + transit_ms
        if isinstance(message, Reply):
            self._counters["dropped: large reply that nobody waits for"] += 1
        else:
            self._answering.receive(
                path, path.peer_id, message, arrived.reference, age_ms, refused=True
            )

    def _take_settled_except(self, path: Path, data: bytes, _: int) -> None:
        upto, exceptions = parse_settled_except(data, EXCEPTIONS_MAX)
        if path.asker is not None:
            self._answering.answers.settle_except(path.asker, upto, exceptions)

    def _take_ping(self, path: Path, data: bytes, _: int) -> None:
        if not path.answer(item(ItemType.PONG, data)):
            self._counters["pong dropped: too much waits for the peer"] += 1

    def _dispatch(
        self, path: Path | None, peer_id: NodeId, message: Message, reference: bytes, age_ms: int
    ) -> None:
        if type(message) is Reply:
            self._asking.received_reply(peer_id, message)
        elif type(message) is Query or (
            type(message) is Send
            and (path is None or not self._relaying.receive(path, message, age_ms))
        ):
            self._answering.receive(path, peer_id, message, reference, age_ms)

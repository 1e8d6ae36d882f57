"""Answering: queries and sends of others, from the packet to the reply.

:mod:`egtp.queries.answers` decides whether a query runs and :mod:`egtp.handling.handlers` runs it;
this module connects the two, and sends the replies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from egtp.channel.sealed import ItemType, item
from egtp.config import NodeConfig
from egtp.handling.handlers import RUNNING_BYTES, Handlers, Incoming, Kind
from egtp.limits.shares import Shares
from egtp.paths.path import MESSAGE_OVERHEAD_MAX, Path
from egtp.paths.unread import LITTLE_BYTES, Unread
from egtp.paths.uploads import Uploads
from egtp.queries.answers import DOUBTFUL, RUN, Answers, Verdict
from egtp.queries.asker import Answer, Asker
from egtp.queries.large_message import pack_message
from egtp.queries.outgoing import Outgoing
from egtp.values.canonical import pack
from egtp.values.identity import NodeId
from egtp.values.message import Query, ReplyCode, Send

__all__ = ["Answering", "AnsweringHost"]


class AnsweringHost(Protocol):
    """What answering needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def answer_by_another_path(self, gone: Path, reply: Outgoing) -> None:
        """The path that a query came by is gone: send its reply by another."""

    def best_path(self, peer_id: NodeId) -> Path | None:
        """Where to send to a peer now; None if there is no path to it."""

    def paths_to(self, peer_id: NodeId) -> list[Path]:
        """All paths to a peer, including those that only receive."""

    def answer_own(self, reply: bytes) -> None:
        """Deliver the reply to a query that this node sent to itself."""

    def unconfirmed_bytes(self) -> int:
        """How much waits in all for peers that have proven nothing yet."""

    def lose_path(self, path: Path, reason: str) -> None:
        """End a path that is no longer of use."""


class Answering:
    """The answering side of a node."""

    def __init__(
        self,
        host: AnsweringHost,
        me: NodeId,
        config: NodeConfig,
        counters: Counter[str],
        nonce: Callable[[], bytes],
    ) -> None:
        self._host = host
        self._config = config
        self._counters = counters
        self._nonce = nonce
        self.answers = Answers(config.answers)
        self.room: Final = Shares(
            config.queries_bytes_max,
            strangers_max=config.strangers_queries_bytes_max,
            peer_max=config.peer_queries_bytes_max,
        )
        """The memory that the queries and sends of others may take up."""
        self.uploads: Final = Uploads(self.room, config.strangers_queries_bytes_max, counters)
        self._roomy = config.peer_queries_bytes_max - config.body_bytes_max - RUNNING_BYTES
        """While no more than this is taken, there is room for another message from anybody."""
        self.unread: Final = Unread(
            config.unread_bytes_max, config.strangers_unread_bytes_max, self._relieve
        )
        self._little = min(LITTLE_BYTES, config.waiting_bytes_max)
        """This much may wait on any path without further checks."""
        self.handlers = Handlers(self._ended, counters, self.room)
        self._now = host.now
        self._open_queries_max = config.open_queries_max
        self._body_bytes_max = config.body_bytes_max
        self._age_ms_max = config.answers.lifetime_s_max * 1000
        self.own = Asker(me, b"")
        """This node, as the asker of its queries to itself."""
        self.refuses_new = False
        """Whether new queries and sends are refused, since the node is closing."""

    def receive(
        self,
        path: Path | None,
        peer_id: NodeId,
        message: Query | Send,
        reference: bytes,
        age_ms: int,
        *,
        refused: bool = False,
        at_once: bool = False,
    ) -> None:
        """Take a query, which has the given reference, or a send. ``age_ms`` is its age, transit
        included. ``path`` is None for messages of this node to itself. A ``refused`` one has no
        body, for want of room. ``at_once``: all of it came in the packet opened last."""
        left_ms = message.lifetime_ms - age_ms
        if left_ms < 0 or age_ms > self._age_ms_max:
            # Its sender has given up, so the work would be for nobody.
            self._counters["dropped: query past its lifetime"] += 1
            return
        now_s, left_s = self._now(), left_ms / 1000
        asker = self.own if path is None else path.asker
        query = message if type(message) is Query else None
        answer = None
        if query is not None:
            if asker is None:
                self._counters["busy: no room for one more asker"] += 1
                self._send(path, self._reply(reference, ReplyCode.BUSY, b""))
                return
            if path is not None:
                verdict, answer = self.answers.ask(asker, query.number, reference, left_s, now_s)
                if verdict is DOUBTFUL:
                    born_s = path.born_after_s(age_ms, at_once=at_once)
                    if self.answers.clears(asker, query.number, born_s, now_s):
                        verdict, answer = self.answers.ask(
                            asker, query.number, reference, left_s, now_s
                        )
                if verdict is not RUN:
                    self._seen_before(verdict, answer, path, reference)
                    return
        kind = self.handlers.find(message.kind)
        if (
            kind is None
            or self.refuses_new
            or refused
            or len(message.body) > self._body_bytes_max
            or (self.room.taken > self._roomy and not self._finds_room(path, message))
            or (kind.at_once_max is not None and kind.running >= kind.at_once_max)
            or (asker is not None and asker.running >= self._open_queries_max)
        ):
            self._refuse(path, message, reference, asker, answer, kind, refused=refused)
            return
        incoming = Incoming()
        incoming.peer_id = peer_id
        incoming.body = message.body
        incoming.wants_reply = query is not None
        incoming.reply_bytes_max = 0 if query is None else query.reply_bytes_max
        incoming.age_s = age_ms / 1000
        incoming._kind = kind
        incoming._path = path
        incoming._asker = asker
        incoming._answer = answer
        incoming._reference = reference
        incoming._came_s = now_s
        incoming._deadline_s = now_s + left_s
        incoming._asked_again = False
        incoming._worker = None
        self.handlers.run(incoming)

    def cancel(self, path: Path, reference: bytes) -> None:
        """The asker does not want the reply any more."""
        self.handlers.cancel(path.peer_id, reference)
        for one in self._host.paths_to(path.peer_id):
            reply = one.outbox.large_reply(reference)
            if reply is not None:
                # On a slow line, what the asker wants instead would wait beside it for minutes.
                self._counters["reply cut off: its asker gave up"] += 1
                one.take_back(reply)

    def _finds_room(self, path: Path | None, message: Query | Send) -> bool:
        if self._has_room(path, message):
            return True
        assert path is not None  # noqa: S101 - what this node asks itself needs no room
        size = RUNNING_BYTES + len(message.body)
        self.uploads.make_way(size, self._now(), stranger=path.is_strangers)
        return self._has_room(path, message)

    def _has_room(self, path: Path | None, message: Query | Send) -> bool:
        size = RUNNING_BYTES + len(message.body)
        return path is None or self.room.fits(path.peer_id, size, stranger=path.is_strangers)

    def _refuse(
        self,
        path: Path | None,
        message: Query | Send,
        reference: bytes,
        asker: Asker | None,
        answer: Answer | None,
        kind: Kind | None,
        *,
        refused: bool,
    ) -> None:
        """Run no handler for a message. For a query, the refusal is remembered as its answer."""
        code = ReplyCode.NO_SUCH_KIND if kind is None else ReplyCode.BUSY
        if kind is None:
            self._counters["no such kind"] += 1
        elif len(message.body) > self._body_bytes_max:
            code = ReplyCode.TOO_LARGE
            self._counters["too large for this node"] += 1
        elif self.refuses_new:
            self._counters["busy: this node is closing"] += 1
        elif refused or not self._has_room(path, message):
            self._counters["busy: no room for the queries of others"] += 1
        elif kind.at_once_max is not None and kind.running >= kind.at_once_max:
            self._counters["busy: too many of one kind"] += 1
        else:
            self._counters["busy: too many queries of one peer"] += 1
        if type(message) is Query:
            reply = self._reply(reference, code, b"")
            if answer is not None and asker is not None:
                self.answers.answered(asker, answer, reply)
            self._send(path, reply)

    def _seen_before(
        self, verdict: Verdict, answer: Answer | None, path: Path, reference: bytes
    ) -> None:
        """Respond to a copy of a query that must not run."""
        self._counters[f"query not run: {verdict.value}"] += 1
        if verdict is Verdict.WORKING:
            self.handlers.asked_again(path, reference)
            if not path.answer(item(ItemType.WORKING, reference)):
                self._counters["working not said: too much waits for the peer"] += 1
        elif verdict is Verdict.AGAIN and answer is not None and answer.reply is not None:
            self._send_again(path, answer, answer.reply)
        elif verdict is Verdict.GONE and self._send_what_waits(path, reference):
            pass
        elif verdict in (Verdict.GONE, DOUBTFUL):
            self._send(path, self._reply(reference, ReplyCode.RAN_REPLY_GONE, b""))
        elif verdict is Verdict.BUSY:
            self._send(path, self._reply(reference, ReplyCode.BUSY, b""))

    def _send_again(self, path: Path, answer: Answer, reply: Outgoing) -> None:
        """Send the same bytes, unless they are on their way by the same path and will arrive."""
        on = reply.path
        # A peer that asks on another path has lost the one that the answer went by; or the answer
        # went to somebody who replayed a recording and has proven nothing.
        if on is path and (not path.relayed or path.holds(reply)):
            self._counters["reply not sent again: it is under way"] += 1
            return
        if on is not None and on is not path and path.confirmed:
            # It is wanted here, and only here: free what has not left by the other path.
            on.take_back(reply)
        # From now on, this copy is the one that may be on its way.
        answer.reply = again = Outgoing(reply.message, reply.born_s)
        self._send(path, again)

    def _send_what_waits(self, path: Path, reference: bytes) -> bool:
        """A reply was not kept, but need not be while some of it has yet to leave. False if there
        is none."""
        if path.outbox.large_reply(reference) is not None:
            self._counters["reply not sent again: it is under way"] += 1
            return True
        for other in self._host.paths_to(path.peer_id):
            reply = other.outbox.large_reply(reference)
            if reply is not None:
                if path.confirmed:
                    other.take_back(reply)
                self._send(path, Outgoing(reply.message, reply.born_s))
                return True
        return False

    # Replies

    def _ended(self, incoming: Incoming, code: int, body: bytes) -> None:
        """A handler has ended: send its reply, unless nobody waits for it."""
        if not incoming.wants_reply:
            return
        answer, asker = incoming._answer, incoming._asker
        if incoming._cancelled and code == ReplyCode.EXPIRED:
            # Nobody waits for an answer any more; that the query ran is not forgotten.
            if answer is not None:
                self.answers.ended(answer)
            return
        path = incoming._path
        if len(body) > incoming.reply_bytes_max or (
            # The limit that the peer gave in the handshake may be lower than that in its query.
            path is not None and len(body) > path.limits.body_bytes_max
        ):
            self._counters["reply too large for its asker"] += 1
            code, body = ReplyCode.TOO_LARGE, b""
        # A handler that never waited let nothing else happen: the clock need not be read again.
        made_s = incoming._came_s if incoming._worker is None else self._now()
        fields = 2, self._nonce(), incoming._reference, code, body
        reply = Outgoing(pack_message(fields), made_s)
        if answer is not None and asker is not None:
            if incoming._kind.idempotent:
                self.answers.forget(asker, answer)
            else:
                self.answers.answered(asker, answer, reply)
        if incoming._asked_again:
            path = self._host.best_path(incoming.peer_id) or path
        self._send(path, reply)

    def _reply(self, reference: bytes, code: int, body: bytes) -> Outgoing:
        return Outgoing(pack((2, self._nonce(), reference, int(code), body)), self._now())

    def _send(self, path: Path | None, reply: Outgoing) -> None:
        if path is None:
            self._host.answer_own(bytes(reply.message))
            return
        if path.closed:
            self._host.answer_by_another_path(path, reply)
            return
        size = len(reply.message)
        if path.outbox.waiting_bytes + size > self._little and not self._may_wait(path, size):
            return
        if size > path.limits.body_bytes_max + MESSAGE_OVERHEAD_MAX:
            self._counters["reply dropped: it could not be sent"] += 1
        elif not path.confirmed and not self._may_wait_for_proof(reply):
            # An asker that is there asks again by another path; recordings must not fill memory.
            self._counters["reply dropped: too much waits for who has proven nothing"] += 1
            self._host.lose_path(path, "too much waits for its proof")
        else:
            path.queue(reply)

    def _may_wait(self, path: Path, size: int) -> bool:
        """Whether a reply may wait: a peer that asks on and on but never reads must not fill our
        memory."""
        if path.outbox.memory_bytes + size > self._config.waiting_bytes_max:
            self._counters["reply dropped: too much waits for the peer"] += 1
        elif not self.unread.admits(path, size, self._now()):
            self._counters["reply dropped: too much waits for all who do not read"] += 1
        else:
            return True
        return False

    def _relieve(self, path: Path) -> None:
        dropped = path.drop_unread()
        self._counters["dropped: its reader is too slow, and others need the room"] += dropped

    def _may_wait_for_proof(self, reply: Outgoing) -> bool:
        waiting = self._host.unconfirmed_bytes() + len(reply.message)
        return waiting <= self._config.waiting_bytes_max

    def look(self, now_s: float, sequence: int) -> None:
        """Call this now and then. It cancels handlers that work for nobody, and frees what nobody
        can ask for any more."""
        self.handlers.expire(now_s)
        if self.uploads.is_short:
            self.handlers.end_for_the_gone()
        self.unread.look(now_s)
        self.uploads.look(now_s)
        self.answers.look(now_s, sequence)

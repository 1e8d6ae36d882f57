"""Asking: this node's own messages, from the call to their outcome.

This module decides what may be given to a path, when it is given again, and what became of it. A
query belongs to the incarnation of the peer that it was first given to. That one never runs it
twice (see :mod:`egtp.queries.answers`), so the query is given again as soon as its path is gone. It
is given to a later incarnation only if that one began before the query was born, or if running
twice does no harm; otherwise nobody can know whether it ran.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from copy import copy
from math import inf
from typing import Any, Final, Protocol

from egtp.channel.sealed import CHUNK_BYTES_MAX, ItemType, item
from egtp.config import NodeConfig
from egtp.errors import (
    EgtpError,
    FastFail,
    FastFailReason,
    HandlerFailed,
    HardTimeout,
    NodeClosed,
    OutcomeUnknown,
)
from egtp.open_query import PeerExchange, Sending
from egtp.paths.outbox import is_caused_by_others
from egtp.paths.path import Path
from egtp.queries.asker import Asker
from egtp.queries.checks import check_body, check_promises, check_soft_timeout, check_timeout
from egtp.queries.early import Early, pack_early
from egtp.queries.exchange import Exchange, ExchangeTable, Passed
from egtp.queries.large_message import LargeMessage, body_bytes
from egtp.queries.outgoing import Outgoing, PassedOn
from egtp.reaching.peer import Peer
from egtp.reaching.peers import PeerBook
from egtp.values.contact import Contact
from egtp.values.identity import NodeId
from egtp.values.message import Reply, ReplyCode, check_kind

__all__ = ["Asking", "AskingHost", "is_crowded"]

KINDS_KEPT: Final = 1024
AGAIN_FIRST_S: Final = 2.0
"""The first pause before an unanswered query is given to a relayed path again: some round trips."""
AGAIN_MAX_S: Final = 30.0
"""The longest such pause, and the one after the peer has said that it is working on the query."""
IN_VAIN_AFTER: Final = 2
"""So many times a query is given to a relayed path again before the path is doubted: if nobody on
the way drops it, the peer answers each copy, at least that it is working on it."""
MOVED_MAX: Final = 256
"""How many replies and packets passed on go by another path when theirs is gone. A peer that does
not read may have hundreds of thousands waiting, and each connection that it opens or closes would
have them moved. Whoever wants the rest asks again."""


class AskingHost(Protocol):
    """What asking needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def seek(self, peer: Peer) -> None:
        """Search for a path to the peer, unless a search is under way."""

    def want(self, peer_id: NodeId) -> Peer:
        """Somebody here wants to reach the peer: from now on, it is no stranger."""

    def not_sought(self, peer: Peer) -> None:
        """Nobody waits for a path to the peer any more."""

    def deliver_to_self(self, exchange: PeerExchange | Sending) -> None:
        """Deliver a message that is for this node itself."""

    def cancel_own(self, reference: bytes) -> None:
        """A query that this node sent to itself is no longer wanted."""

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here has wanted to reach the peer; if not, it is a stranger."""

    def is_welcome(self, peer_id: NodeId) -> bool:
        """Whether the application lets the peer begin a session."""

    def asked_in_vain(self, path: Path) -> None:
        """A query has left by a relayed path several times, without a word of it from the peer."""

    def arm_timer(self) -> None:
        """Set the timer anew: a new deadline may be earlier than all others."""


class Asking:
    """The asking side of a node."""

    def __init__(
        self,
        host: AskingHost,
        me: NodeId,
        book: PeerBook,
        config: NodeConfig,
        counters: Counter[str],
        nonce: Callable[[], bytes],
    ) -> None:
        self._host = host
        self._me = me
        self._book = book
        self._counters = counters
        self._nonce = nonce
        self._body_bytes_max = config.body_bytes_max
        self._hard_timeout_s = config.hard_timeout_s
        self._exchanges_max = config.exchanges_max
        self._waiting_bytes_max = config.waiting_bytes_max
        self._kinds_asked: set[str] = set()
        """Kinds already found valid."""
        self._last_bucket: object = None
        self._last_timeout_s = 0.0
        """The bucket of the last query's deadline, and its timeout. If a new query has the same
        ones, no time has passed since the timer was armed, so it need not be armed again."""
        self.exchanges: Final[ExchangeTable[asyncio.Future[bytes]]] = ExchangeTable(counters)

    # Beginning

    def ask(
        self,
        peer_id: Any,
        kind: Any,
        body: Any,
        hard_timeout_s: Any,
        soft_timeout_s: Any,
        outcome: asyncio.Future[bytes],
        on_soft_timeout: Callable[[], object] | None,
        idempotent: Any,
        early: Any,
    ) -> PeerExchange | None:
        """Do what :meth:`Node.query` documents. The arguments have not been checked yet, so they
        are typed Any: compiled code would trust other types. Returns the exchange, or None if it
        has failed already, as ``outcome`` says.

        Raises :class:`LocalProtocolError` for arguments that no query can have.
        """
        if type(kind) is not str or kind not in self._kinds_asked:
            self._check_kind(kind)
        if hard_timeout_s is None:
            hard_timeout_s = self._hard_timeout_s
        else:
            check_timeout(hard_timeout_s)
        if soft_timeout_s is not None:
            check_soft_timeout(soft_timeout_s, hard_timeout_s)
        if idempotent is not False or early is not None:
            check_promises(idempotent, early)
        if type(body) is not bytes or len(body) > self._body_bytes_max:
            try:
                body = check_body(body, self._body_bytes_max)
            except FastFail as error:
                outcome.set_exception(error)
                return None
        if type(peer_id) is not NodeId:
            peer_id = NodeId(peer_id)
        return self.begin(
            peer_id,
            kind,
            body,
            hard_timeout_s,
            soft_timeout_s,
            outcome,
            on_soft_timeout,
            idempotent,
            early,
        )

    def _check_kind(self, kind: Any) -> None:
        check_kind(kind)
        if len(self._kinds_asked) < KINDS_KEPT:
            self._kinds_asked.add(kind)

    def begin(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes,
        hard_timeout_s: float,
        soft_timeout_s: float | None,
        outcome: asyncio.Future[bytes],
        on_soft_timeout: Callable[[], object] | None = None,
        idempotent: bool = False,
        early: bool | None = None,
    ) -> PeerExchange | None:
        """Open an exchange and give its query to a path as soon as there is one. Returns None if it
        has failed already."""
        exchanges, host = self.exchanges, self._host
        if len(exchanges) >= self._exchanges_max:
            too_many = f"{self._exchanges_max} queries are open already (exchanges_max)"
            outcome.set_exception(FastFail(too_many, reason=FastFailReason.TOO_MANY_OPEN))
            return None
        now_s = host.now()
        exchange = exchanges.open(
            peer_id,
            kind,
            body,
            self._nonce(),
            self._body_bytes_max,
            hard_timeout_s,
            soft_timeout_s,
            now_s,
            outcome,
            on_soft_timeout=on_soft_timeout,
            idempotent=idempotent,
            early=early,
        )
        if (
            exchange.bucket is not self._last_bucket
            or hard_timeout_s != self._last_timeout_s
            or soft_timeout_s is not None
        ):
            self._last_bucket, self._last_timeout_s = exchange.bucket, hard_timeout_s
            host.arm_timer()
        if peer_id == self._me:
            exchange.given = True
            host.deliver_to_self(exchange)
        else:
            peer = self._book.find(peer_id)
            if peer is None or not peer.is_wanted:
                peer = host.want(peer_id)
            self.post(peer, exchange)
        return exchange

    def tell(self, peer_id: NodeId, sending: Sending) -> None:
        """Send a message that wants no reply."""
        if peer_id == self._me:
            sending.leave()
            self._host.deliver_to_self(sending)
        else:
            self.post(self._host.want(peer_id), sending)

    # Giving to paths

    def post(self, peer: Peer, outgoing: Outgoing) -> None:
        """Give a message to the best path, or let it wait for one."""
        path = peer.direct
        if path is None or path.suspect:  # usually neither, and then it is the best
            path = peer.best_path
        if path is not None:
            self._give(path, outgoing)
        elif (
            not outgoing.given
            and peer.waiting_bytes + len(outgoing.message) > self._waiting_bytes_max
        ):
            too_much = f"too many bytes wait for {peer.peer_id} (waiting_bytes_max)"
            self._fail(outgoing, FastFail(too_much, reason=FastFailReason.TOO_MUCH_WAITS))
        else:
            peer.wait(outgoing)
            self._host.seek(peer)

    def _give(self, path: Path, outgoing: Outgoing) -> None:
        size, limits = len(outgoing.message), path.limits
        if size > limits.body_bytes_max and body_bytes(outgoing.message) > limits.body_bytes_max:
            too_large = (
                f"the body is too large: {path.peer_id} takes at most {limits.body_bytes_max} bytes"
            )
            self._fail(outgoing, FastFail(too_large, reason=FastFailReason.TOO_LARGE))
            return
        alone = False
        if outgoing.given and type(outgoing) is Exchange:
            # It got its place when it was first given, and may have run: no limit ends it now.
            if not self._may_run_there(outgoing, path):
                return
            outgoing.working = False
            outgoing.resent = 0
        elif path.outbox.waiting_bytes + size > self._waiting_bytes_max:
            too_much = f"too many bytes wait for {path.peer_id} (waiting_bytes_max)"
            self._fail(outgoing, FastFail(too_much, reason=FastFailReason.TOO_MUCH_WAITS))
            return
        elif type(outgoing) is Exchange:
            open_queries = len(outgoing.numbers.open)
            if open_queries > limits.open_queries_max:
                most = limits.open_queries_max
                too_many = f"too many queries are open for {path.peer_id}: it takes at most {most}"
                self._fail(outgoing, FastFail(too_many, reason=FastFailReason.TOO_MANY_OPEN))
                return
            # As in TCP (RFC 896): while nothing is under way, there is nothing to wait for.
            alone = open_queries == 1
        if type(outgoing) is Exchange:
            outgoing.handed_to = path.incarnation
            outgoing.again_s = self._host.now() + AGAIN_FIRST_S if path.relayed else inf
        elif type(outgoing) is PassedOn and outgoing.sender is not None:
            path.pass_on(outgoing)
            return
        path.queue(outgoing, alone=alone)

    def _may_run_there(self, exchange: PeerExchange, path: Path) -> bool:
        """Whether a query that was given before may be given to the incarnation at the other end of
        a path. If not, it ends here."""
        if exchange.may_be_given_to(path.incarnation, path.peer_started_s):
            if exchange.handed_to != path.incarnation:
                self._counters["query given to a later incarnation"] += 1
            return True
        lost = f"{path.peer_id} was restarted after it had been given {exchange.kind!r}"
        self._end(exchange, OutcomeUnknown(f"{lost}; it may have run"))
        return False

    def _end_with_its_peer(self, exchange: PeerExchange) -> None:
        closed = f"{exchange.peer_id} was closed after it had been given {exchange.kind!r}"
        self.exchanges.close(exchange)
        self.take_back(exchange.peer_id, exchange)
        _end_in(exchange, OutcomeUnknown(f"{closed}; it may have run"))

    def _fail(self, outgoing: Outgoing, error: FastFail) -> None:
        """End a message that cannot be given to anybody."""
        if isinstance(outgoing, Exchange):
            if outgoing.may_leave:
                # An earlier copy may have run: the truth is that nobody knows.
                self._end(outgoing, OutcomeUnknown(f"{error.summary}; it may have run"))
            else:
                self._end(outgoing, error)
        elif isinstance(outgoing, Sending):
            outgoing.fail(error)
        else:
            self._counters["reply dropped: it could not be sent"] += 1

    def _end(self, exchange: PeerExchange, error: EgtpError) -> None:
        self.exchanges.close(exchange)
        self._free(exchange.peer_id, exchange)
        _end_in(exchange, error)

    # Paths

    def path_opened(self, peer: Peer, path: Path) -> None:
        """A path was confirmed: what waits for one, and what older ones still hold, goes by
        the best one, unless they are crowded: those are about to end."""
        best = peer.best_path or path
        self.exchanges.tell_again(peer.peer_id)
        for older in peer.others:
            if is_crowded(older):
                continue
            for outgoing in older.outbox.take_unsent():
                self._give_or_post(best, peer, outgoing)
        for outgoing in peer.take_waiting():
            self._give_or_post(best, peer, outgoing)

    def _give_or_post(self, path: Path, peer: Peer, outgoing: Outgoing) -> None:
        """Give one of many messages to a path, which may break at any of them."""
        if path.closed:
            self.post(peer, outgoing)
        else:
            self._give(path, outgoing)

    def path_is_gone(self, peer: Peer, path: Path) -> None:
        """A path is gone: the queries given to it, and what still waited there, go by another."""
        unsent = path.outbox.take_unsent()
        if path.dialled and peer.best_path is None:
            now_s, open_ones = self._host.now(), self.exchanges.of(peer.peer_id)
            had_work = bool(unsent) or any(one.path is path for one in open_ones)
            peer.path_ended(now_s - path.session.started_s, now_s, had_work=had_work)
        others = 0
        for outgoing in unsent:
            if is_caused_by_others(outgoing):
                others += 1
                if others > MOVED_MAX:
                    continue
            if type(outgoing) is PassedOn and peer.direct is None:
                # Nobody is dialled for packets between others; their sender sends them again.
                self._counters["dropped: the connection to pass it on by is gone"] += 1
            elif type(outgoing) is Outgoing:
                self.answer_by_another_path(path, outgoing)
            else:
                self.post(peer, outgoing)
        if others > MOVED_MAX:
            self._counters["dropped: much waited where nobody read"] += others - MOVED_MAX
        self._answer_in_full(peer, path)
        for exchange in self.exchanges.of(peer.peer_id):
            was_on_it = exchange.path is path and not exchange.queued
            if (was_on_it or exchange in peer.waiting) and exchange.is_lost_with(peer.ended):
                self._end_with_its_peer(exchange)
            elif was_on_it:
                self._counters["query sent again: its path is gone"] += 1
                self.post(peer, exchange)

    def _answer_in_full(self, peer: Peer, gone: Path) -> None:
        """Send large replies that were cut off by the path that the peer has now: where there are
        many, they are not kept, and if it asks for one again, none would be there."""
        cut_off, best, asker = gone.outbox.take_cut_off(), peer.best_path, gone.asker
        if not cut_off or best is None or asker is None or best.asker is not asker:
            return
        wanted = _unsettled(asker)
        for reply in cut_off:
            message = reply.message
            if isinstance(message, LargeMessage) and message.refers_to in wanted:
                best.moved |= {message.refers_to}
                self.post(peer, reply)

    def drop_given_up(self, path: Path, asker: Asker) -> None:
        """The asker has said what it has given up, perhaps while it had no path: on a slow line,
        what it wants instead would wait beside that."""
        given_up, path.moved = path.moved - _unsettled(asker), frozenset()
        for reference in given_up:
            reply = path.outbox.large_reply(reference)
            if reply is not None:
                path.take_back(reply)

    def answer_by_another_path(self, gone: Path, reply: Outgoing) -> None:
        """The path that a query came by is gone: send its reply by another."""
        peer_id, host = gone.peer_id, self._host
        has_another = self._book.best_path(peer_id) is not None
        if has_another or (gone.confirmed and host.knows(peer_id) and host.is_welcome(peer_id)):
            self.post(self._book.get(peer_id), reply)
        else:
            # The query may have been a recording, and the address that a stranger claims may be a
            # third party's, so nobody is looked up and dialled. An honest asker asks again. And who
            # has been blocked must not be connected to because it had asked before.
            self._counters["reply kept until its asker comes"] += 1

    def search_failed(self, peer: Peer, error: FastFail) -> None:
        """A search has failed. If there is still no path, messages never given to anybody fail. A
        query that was given may still be answered, so it waits: for the peer to come back, for
        another search, or for its hard timeout."""
        path = peer.best_path
        for outgoing in peer.take_waiting():
            if path is not None:
                self._give_or_post(path, peer, outgoing)
            elif isinstance(outgoing, Exchange) and outgoing.given:
                peer.wait(outgoing)
            elif isinstance(outgoing, Exchange | Sending):
                self._fail(outgoing, copy(error))  # Each has one of its own to raise.
            else:
                # A reply: its asker comes and fetches it, if it still wants it.
                self._counters["reply kept until its asker comes"] += 1

    def drop_waiting_replies(self, peer: Peer) -> None:
        """No path is searched for to bring the peer what it asked."""
        for outgoing in list(peer.waiting):
            if type(outgoing) is Outgoing:
                peer.drop_waiting(outgoing)
                self._counters["reply kept until its asker comes"] += 1

    # Early data

    def early_for(self, contact: Contact) -> Early | None:
        """The early data for a dial: queries that wait for a path. None if there is none."""
        peer = self._book.find(contact.peer_id)
        if peer is None or peer.early is not None or not peer.waiting:
            return None
        settled = self.exchanges.settled(contact.peer_id)
        # Only one dial at a time carries it, until that dial has ended.
        peer.early = pack_early(contact, peer.waiting, settled, self._host.now())
        if peer.early is not None:
            for exchange in peer.early.exchanges:
                exchange.riding = True
        return peer.early

    def early_is_over(self, contact: Contact, early: Early) -> None:
        """The dial that carried early data has ended, whatever came of it."""
        for exchange in early.exchanges:
            exchange.riding = False
        peer = self._book.find(contact.peer_id)
        if peer is not None and peer.early is early:
            peer.early = None

    def early_accepted(self, path: Path, early: Early) -> None:
        """The peer has accepted the early data of a dial, and answers on ``path``."""
        peer = self._book.get(path.peer_id)
        for exchange in early.exchanges:
            if exchange in peer.waiting:
                peer.drop_waiting(exchange)
                exchange.path = path
                if path.relayed:
                    exchange.again_s = self._host.now() + AGAIN_FIRST_S

    # What comes back

    def received_reply(self, peer_id: NodeId, reply: Reply) -> None:
        exchange = self.exchanges.match(peer_id, reply)
        if exchange is not None:
            if exchange.queued or len(exchange.message) > CHUNK_BYTES_MAX:
                # It may have been given again, with part of that copy yet to leave.
                self._free(exchange.peer_id, exchange)
            if reply.code:
                _end_in(exchange, _handler_failed(exchange, reply))
            elif not exchange.sink.done():  # it may be cancelled without anybody having noticed yet
                exchange.sink.set_result(reply.body)

    def received_working(self, peer_id: NodeId, reference: bytes) -> None:
        """The peer has the query and is working on it."""
        exchange = self.exchanges.find(peer_id, reference)
        if exchange is not None and not exchange.working:
            exchange.working = True
            if exchange.path is not None and exchange.path.relayed:
                exchange.again_s = self._host.now() + AGAIN_MAX_S

    # Time

    def expire(self, now_s: float) -> None:
        """Report the timeouts that have passed."""
        self._last_bucket = None
        for exchange, passed in self.exchanges.expire(now_s):
            if passed is Passed.SOFT:
                if exchange.on_soft_timeout is not None:
                    exchange.on_soft_timeout()
                continue
            self._free(exchange.peer_id, exchange)
            if exchange.given:
                # The peer knows when time is up, but not whether a large reply has arrived by then.
                self._cancel_there(exchange)
            summary = f"no reply to {exchange.kind!r} from {exchange.peer_id} in time"
            told = f"{summary}; {self._how_it_stands(exchange, now_s)}"
            _end_in(exchange, HardTimeout(told, may_have_run=exchange.may_leave))

    def _how_it_stands(self, exchange: PeerExchange, now_s: float) -> str:
        """Whether the handler is slow or the peer is gone, as far as this node can tell."""
        if not exchange.may_leave:
            return "it has not left this machine"
        path = self._book.best_path(exchange.peer_id)
        if path is None:
            return "it may have run; there is no longer a path to the peer"
        return f"it may have run; the peer was last heard from {now_s - path.heard_s:.1f} s ago"

    def look(self, now_s: float) -> None:
        """Call this now and then: relays lose packets, so what went through them is given again."""
        for peer_id in self.exchanges.peers():
            peer = self._book.find(peer_id)
            if peer is None or not any(path.relayed for path in peer.paths):
                continue
            for exchange in self.exchanges.of(peer_id):
                on, path = exchange.path, peer.best_path  # either may break meanwhile
                if path is None:
                    break
                if on is None:
                    continue
                if on.holds(exchange):
                    # The pause begins when all of it has left.
                    exchange.again_s = max(exchange.again_s, now_s + AGAIN_FIRST_S)
                    continue
                if now_s < exchange.again_s + 2 * on.bulk_round_trip_s:
                    continue
                reference = exchange.reference
                if any(bringing.brings_reply(reference, now_s) for bringing in peer.paths):
                    exchange.again_s = now_s + AGAIN_FIRST_S
                    continue
                self._counters["query sent again: no answer through relays"] += 1
                if not path.relayed:
                    self._give(path, exchange)
                    continue
                exchange.resent += 1
                pause_s = min(AGAIN_FIRST_S * 2 ** min(exchange.resent, 16), AGAIN_MAX_S)
                exchange.again_s = now_s + (AGAIN_MAX_S if exchange.working else pause_s)
                if self._may_run_there(exchange, path):
                    exchange.handed_to = path.incarnation
                    path.queue(exchange)
                if path is on and exchange.resent >= IN_VAIN_AFTER and not exchange.working:
                    self._host.asked_in_vain(path)

    # The end

    def take_back(self, peer_id: NodeId, outgoing: Outgoing) -> None:
        """A message is no longer wanted: free the part that has not left, and end the search for a
        path if nothing else needs one."""
        self._free(peer_id, outgoing)
        peer = self._book.find(peer_id)
        if peer is not None and not peer.waiting and not self.exchanges.count_of(peer_id):
            self._host.not_sought(peer)

    def _free(self, peer_id: NodeId, outgoing: Outgoing) -> None:
        path = outgoing.path
        if path is not None:
            path.take_back(outgoing)
        elif outgoing.queued:
            peer = self._book.find(peer_id)
            if peer is not None:
                peer.drop_waiting(outgoing)

    def abandon(self, exchange: PeerExchange) -> None:
        """The caller no longer wants the outcome of a query. Does nothing if it has one."""
        if not self.exchanges.is_open(exchange):
            return
        self.exchanges.close(exchange)
        self.take_back(exchange.peer_id, exchange)
        if not exchange.given:
            return
        if exchange.peer_id == self._me:
            self._host.cancel_own(exchange.reference)
            return
        self._cancel_there(exchange)

    def _cancel_there(self, exchange: PeerExchange) -> None:
        path = self._book.best_path(exchange.peer_id)
        if path is not None:
            path.queue_control(item(ItemType.CANCEL, exchange.reference))

    def close(self) -> None:
        """End all exchanges, and all sends of which nothing has left, with :class:`NodeClosed`.
        None of them leaves after that."""
        for peer in self._book.all():
            unsent = peer.take_waiting()
            for path in peer.paths:
                unsent += path.outbox.unsent
            for outgoing in unsent:
                if type(outgoing) is Sending:
                    self._free(peer.peer_id, outgoing)
                    outgoing.fail(NodeClosed())
        for exchange in self.exchanges.all():
            self._end(exchange, NodeClosed(may_have_run=exchange.may_leave))
            if exchange.given:
                self._cancel_there(exchange)


def is_crowded(path: Path) -> bool:
    """Whether more waits there of what others caused than would be given to another path."""
    return path.outbox.messages > MOVED_MAX and path.outbox.caused_by_others > MOVED_MAX


def _unsettled(asker: Asker) -> set[bytes]:
    """The queries whose replies the asker still wants, as far as is known."""
    return {answer.reference for answer in asker.answers.values()}


def _end_in(exchange: PeerExchange, error: EgtpError) -> None:
    if not exchange.sink.done():
        exchange.sink.set_exception(error)


def _handler_failed(exchange: PeerExchange, reply: Reply) -> HandlerFailed:
    said = f"{exchange.peer_id} answered {exchange.kind!r} with code"
    if reply.code >= 64:
        # As bytes: nothing that a peer answers may look like another line of a log.
        words = f": {reply.body[:80]!r}" if reply.body else ""
        error = HandlerFailed(reply.code, reply.body, f"{said} {reply.code}{words}")
    else:
        # Unknown codes, of later versions, mean at least that the handler failed.
        known = reply.code in ReplyCode._value2member_map_
        code = ReplyCode(reply.code) if known else ReplyCode.HANDLER_ERROR
        phrase = code.name.lower().replace("_", " ")
        error = HandlerFailed(code, reply.body, f"{said} {code:d}, {phrase}")
    error.peer_id = exchange.peer_id
    return error

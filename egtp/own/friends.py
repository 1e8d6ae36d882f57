"""Friends: a lookup service without a DHT (seed I.C, R9).

A node tells its record to a few friends whenever it changes; those who know its friends ask them. A
friend answers from what it was told and never looks further, so a question costs each friend one
message, and cannot go round in circles.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from math import inf
from typing import Final, Protocol

from egtp.errors import (
    CanonicalError,
    EgtpError,
    InvalidConfig,
    InvalidRecord,
    LookupFailed,
    LookupFailure,
    PublishFailed,
    Refusal,
)
from egtp.handling.handlers import Incoming
from egtp.limits.accept_limits import ArrivalRates
from egtp.lookup import Published
from egtp.own.friend_store import FriendStore
from egtp.values import canonical
from egtp.values.comm_record import FRIENDS_MAX, SignedCommRecord, claims_of
from egtp.values.identity import NodeId
from egtp.values.message import ReplyCode
from egtp.values.settings import check_count, check_seconds, check_yes_or_no

__all__ = ["ASKED_MAX", "FIND_KIND", "STORE_KIND", "Friends", "FriendsHost"]

FIND_KIND: Final = "egtp.friend.find"
STORE_KIND: Final = "egtp.friend.store"
ASKED_MAX: Final = 16
"""At most how many friends are asked for one record: a peer names up to eight, and the user may
name others."""
RECORDS_PER_S: Final = 1.0
"""New records of one peer that are taken; six at once. Honest peers have one in ten seconds."""


class FriendsHost(Protocol):
    """What friends need from the node."""

    @property
    def counters(self) -> Counter[str]: ...

    def now(self) -> float:
        """Elapsed seconds."""

    def unix_time(self) -> float: ...

    def known_record(self, peer_id: NodeId) -> SignedCommRecord | None:
        """The newest record known of a peer, even if it has expired."""

    async def ask_peer(self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float) -> bytes:
        """Send a query of the engine's own kinds, by any path. Raises :class:`EgtpError`."""


class Friends:
    """Friends as a lookup service, for ``Node(friends=...)``: it asks the friends of a peer for its
    record, tells this node's record to the node's friends, and keeps theirs. It needs no
    ``lookup``; with one, both are asked. Each node needs a ``Friends`` of its own;
    :meth:`Node.change_friends` gives it other friends while it runs. See ``examples/friends.py``.
    """

    def __init__(
        self,
        tell: Iterable[NodeId] = (),
        *,
        keep_for: Iterable[NodeId] = (),
        strangers_max: int = 256,
        friends_of: Mapping[NodeId, Iterable[NodeId]] | None = None,
        announce: bool = False,
        timeout_s: float = 5.0,
    ) -> None:
        """
        :param tell: the friends: up to eight peers that are told this node's record.
        :param keep_for: peers whose records this node keeps in any case, in addition to those of
            its friends.
        :param strangers_max: for how many other peers it keeps records; one is about a kilobyte.
        :param friends_of: who the friends of a peer are, where its record does not say so.
        :param announce: whether to name the friends in this node's record, so that everybody knows
            whom to ask. This publishes who is whose friend.
        :param timeout_s: seconds that one friend may take, including the time to find and dial it.

        Raises :class:`InvalidConfig`, or :class:`LocalProtocolError` for what is not a peerId.
        """
        check_yes_or_no(announce=announce)
        check_count(0, strangers_max=strangers_max)
        check_seconds(timeout_s=timeout_s)
        self._announce = announce
        self._timeout_s = timeout_s
        self._told: tuple[NodeId, ...] = ()
        self._kept_for: frozenset[NodeId] = frozenset()
        self._friends_of: dict[NodeId, tuple[NodeId, ...]] = {}
        self._store = FriendStore(strangers_max)
        self.change(tell, keep_for, {} if friends_of is None else friends_of)
        self._rates = ArrivalRates(per_s=inf, per_origin_per_s=RECORDS_PER_S, now_s=0.0)
        self._asking: Counter[NodeId] = Counter()
        self._host: FriendsHost | None = None

    def attach(self, host: FriendsHost) -> None:
        """Called by the node as it starts."""
        self._host = host

    @property
    def told(self) -> tuple[NodeId, ...]:
        """The friends that are told this node's record."""
        return self._told

    @property
    def announced(self) -> tuple[NodeId, ...]:
        """Those of them that this node's record names."""
        return self._told if self._announce else ()

    def change(
        self,
        tell: Iterable[NodeId] | None,
        keep_for: Iterable[NodeId] | None,
        friends_of: Mapping[NodeId, Iterable[NodeId]] | None,
    ) -> None:
        """See :meth:`Node.change_friends`, which also tells the new friends."""
        told, kept_for, known = self._told, self._kept_for, self._friends_of
        if tell is not None:
            told = tuple(dict.fromkeys(map(NodeId, tell)))
            if len(told) > FRIENDS_MAX:
                raise InvalidConfig(f"a node can have at most {FRIENDS_MAX} friends")
        if keep_for is not None:
            kept_for = frozenset(map(NodeId, keep_for))
        if friends_of is not None:
            known = {NodeId(one): tuple(map(NodeId, its)) for one, its in friends_of.items()}
        # All of it is good: nothing can fail from here on.
        self._told, self._kept_for, self._friends_of = told, kept_for, known
        self._store.keep_for({*told, *kept_for})

    @property
    def _node(self) -> FriendsHost:
        assert self._host is not None  # noqa: S101 - nothing asks for it before attach()
        return self._host

    # Asking friends

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        """Ask all friends of a peer at the same time, each once. Returns the first good record, and
        cancels the other questions.

        Raises :class:`LookupFailed`.
        """
        friends = self._whom_to_ask(peer_id)
        if self._asking[peer_id]:
            # A friend that is looked up in order to be asked. Its own friends are not asked for it:
            # such questions could go round in circles.
            friends = []
        if not friends:
            raise LookupFailed(LookupFailure.NO_NODES)
        question = canonical.encode((peer_id, newer_than))
        tasks = [
            asyncio.ensure_future(self._ask(friend, peer_id, newer_than, question))
            for friend in friends
        ]
        failure = LookupFailure.NO_RESPONSES
        try:
            for next_one in asyncio.as_completed(tasks):
                found = await next_one
                if isinstance(found, SignedCommRecord):
                    return found
                if found is not LookupFailure.NO_RESPONSES:
                    failure = found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise LookupFailed(failure)

    def _whom_to_ask(self, peer_id: NodeId) -> list[NodeId]:
        record = self._node.known_record(peer_id)
        named = () if record is None or record.content is None else record.content.friends
        both = dict.fromkeys((*self._friends_of.get(peer_id, ()), *named))
        return [friend for friend in both if friend != peer_id][:ASKED_MAX]

    async def _ask(
        self, friend: NodeId, peer_id: NodeId, newer_than: int, question: bytes
    ) -> SignedCommRecord | LookupFailure:
        self._asking[friend] += 1
        try:
            answer = await self._query(friend, FIND_KIND, question)
        finally:
            self._asking[friend] -= 1
            if not self._asking[friend]:
                del self._asking[friend]
        if not answer:
            none_there = answer is not None
            return LookupFailure.NOT_FOUND if none_there else LookupFailure.NO_RESPONSES
        try:
            record = SignedCommRecord.decode(answer)
        except InvalidRecord:
            return LookupFailure.INVALID
        if record.peer_id != peer_id or record.expired(self._node.unix_time()):
            return LookupFailure.INVALID
        return record if record.sequence > newer_than else LookupFailure.SUPERSEDED

    # Telling friends

    async def publish(self, record: SignedCommRecord) -> Published:
        """Tell the record to all friends at the same time. Raises :class:`PublishFailed` if none
        keeps it."""
        body = record.encode()
        answers = await asyncio.gather(
            *(self._query(friend, STORE_KIND, body) for friend in self.told)
        )
        stored = sum(answer is not None for answer in answers)
        if not stored:
            raise PublishFailed("no friend stored the record")
        return Published(stored, len(answers))

    async def _query(self, friend: NodeId, kind: str, body: bytes) -> bytes | None:
        """The friend's answer; None if there was none."""
        try:
            return await self._node.ask_peer(friend, kind, body, self._timeout_s)
        except EgtpError as error:
            self._node.counters[f"friend without an answer: {type(error).__name__}"] += 1
            return None

    # Being a friend

    async def keep(self, incoming: Incoming) -> bytes:
        """The handler of :data:`STORE_KIND`: a record is taken from its owner only."""
        try:
            record = self._verified(incoming.peer_id, incoming.body)
        except InvalidRecord:
            raise self._refusal("no record") from None
        reason = self._store.put(record, self._node.unix_time())
        if reason is not None:
            raise self._refusal(reason)
        return b""

    def _verified(self, owner: NodeId, data: bytes) -> SignedCommRecord:
        """The record in ``data``, which must be of that peer. Verifying costs far more than what
        else a query takes, so it is done when there is news, and not for each of a flood."""
        if claims_of(data)[0] != owner:
            raise self._refusal("the record of somebody else")
        kept = self._store.get(owner, self._node.unix_time())
        if kept is not None and kept.encode() == data:
            return kept
        if self._rates.take(owner, self._node.now()) is not None:
            self._node.counters["as a friend, busy: too many records of one peer"] += 1
            raise Refusal(ReplyCode.BUSY)
        return SignedCommRecord.decode(data)

    async def find(self, incoming: Incoming) -> bytes:
        """The handler of :data:`FIND_KIND`: what is kept, or nothing."""
        try:
            fields = canonical.decode(incoming.body)
        except CanonicalError:
            fields = None
        match fields:
            case [bytes(peer_id), int(newer_than), *_] if (
                len(peer_id) == 20 and type(newer_than) is int
            ):
                record = self._store.get(NodeId(peer_id), self._node.unix_time())
                is_news = record is not None and record.sequence > newer_than
                return record.encode() if record is not None and is_news else b""
        raise self._refusal("not a question for a record")

    def _refusal(self, reason: str) -> Refusal:
        self._node.counters[f"as a friend, refused: {reason}"] += 1
        return Refusal(ReplyCode.REFUSED, reason.encode("ascii"))

"""Hedging: one question to several peers, any of whom could answer it (the seed's "impatience
action", R6).

The first peer is asked. When its soft timeout passes, or its query fails, the next peer is asked as
well, while the first query stays open: if its reply comes after all, it counts as if it had been on
time. The first reply wins, and the other queries are abandoned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from egtp.errors import EgtpError, HedgeFailed, LocalProtocolError, NodeClosed
from egtp.node import Node
from egtp.open_query import OpenQuery
from egtp.queries.checks import check_soft_timeout, check_timeout
from egtp.values.identity import NodeId

__all__ = ["HedgedReply", "hedge"]


class HedgedReply(NamedTuple):
    """What :func:`hedge` returns: ``body, peer_id = await hedge(...)``."""

    body: bytes
    peer_id: NodeId
    """The peer that replied."""


async def hedge(
    node: Node,
    peer_ids: Iterable[NodeId],
    kind: str,
    body: bytes | Callable[[NodeId], bytes] = b"",
    *,
    soft_timeout_s: float,
    hard_timeout_s: float | None = None,
    idempotent: bool = False,
    early: bool | None = None,
) -> HedgedReply:
    """Ask peers one after another, each when the one before it fails or is slow. The first reply
    wins, whichever peer it is from.

    :param node: the node that asks.
    :param peer_ids: the peers to ask, the most promising first. One that is named twice is asked
        once.
    :param body: the body of the query, or a function that makes it for each peer that is asked.
    :param soft_timeout_s: seconds to wait for each peer before the next one is asked as well.
    :param hard_timeout_s: seconds from now until all of it ends; if None, those of the node's
        configuration. A peer that is asked later gets what is left.
    :param idempotent: as for :meth:`Node.query`, like ``kind`` and ``early``.

    "At most once" holds for each peer: several of them may run the query, including those whose
    replies are no longer waited for. When this returns, raises or is cancelled, every other query
    has been abandoned: its storage is free and its peer is told, as when a query is cancelled.

    Raises :class:`HedgeFailed` with every peer's outcome if none replies, :class:`NodeClosed`, or
    :class:`LocalProtocolError` for arguments that no query can have.
    """
    given: object = peer_ids  # a peerId is iterable, too
    if isinstance(given, bytes | str):
        raise LocalProtocolError("hedge takes several peers, such as a list of peerIds, not one")
    to_ask = list(dict.fromkeys(map(NodeId, peer_ids)))
    if not to_ask:
        raise LocalProtocolError("hedge needs at least one peer")
    if hard_timeout_s is None:
        hard_timeout_s = node.config.hard_timeout_s
    check_timeout(hard_timeout_s)
    check_soft_timeout(soft_timeout_s, hard_timeout_s)
    loop, ends_s = asyncio.get_running_loop(), node.elapsed_s + hard_timeout_s
    asked: dict[NodeId, OpenQuery] = {}
    newest: OpenQuery | None = None
    impatient: asyncio.Future[None] = loop.create_future()
    try:
        while True:
            if (reply := _first_reply(asked)) is not None:
                return reply
            if any(isinstance(error, NodeClosed) for _, error in _errors(asked)):
                raise NodeClosed
            left_s = ends_s - node.elapsed_s
            one_more = bool(to_ask) and (left_s > 0 or not asked)
            if one_more and (newest is None or newest.done() or impatient.done()):
                peer_id, impatient = to_ask.pop(0), loop.create_future()
                is_timed = soft_timeout_s < left_s or not asked
                newest = asked[peer_id] = node.open_query(
                    peer_id,
                    kind,
                    body(peer_id) if callable(body) else body,
                    hard_timeout_s=left_s,
                    soft_timeout_s=soft_timeout_s if is_timed else None,
                    on_soft_timeout=partial(impatient.set_result, None) if is_timed else None,
                    idempotent=idempotent,
                    early=early,
                )
                continue
            waits: list[asyncio.Future[Any]] = [
                query._outcome for query in asked.values() if not query.done()
            ]
            if not waits:
                raise HedgeFailed(_errors(asked), tuple(to_ask))
            if one_more:
                waits.append(impatient)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    except NodeClosed as closed:
        # Perhaps by asking one more peer, after others have run it.
        closed.may_have_run = HedgeFailed(_errors(asked)).may_have_run
        raise
    finally:
        for query in asked.values():
            _abandon(query)


def _first_reply(asked: dict[NodeId, OpenQuery]) -> HedgedReply | None:
    """Of several that have come in one turn, the reply of the peer that was asked first."""
    for peer_id, query in asked.items():
        if query.done() and query.exception() is None:
            return HedgedReply(query.result(), peer_id)
    return None


def _errors(asked: dict[NodeId, OpenQuery]) -> tuple[tuple[NodeId, EgtpError], ...]:
    """What the queries that have failed so far ended in."""
    return tuple(
        (peer_id, error)
        for peer_id, query in asked.items()
        if query.done() and isinstance(error := query.exception(), EgtpError)
    )


def _abandon(query: OpenQuery) -> None:
    query.cancel()
    if not query.cancelled():
        query.exception()  # it is known now, and nobody is to be told that it was not asked for

"""Node: a peer of the network, and the public API of the engine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from egtp.admission import Admit, gate
from egtp.arguments import (
    check_dial_from,
    check_parts,
    parse_addresses,
    parse_announced,
    parse_rates,
)
from egtp.config import NodeConfig
from egtp.discovery_service import DiscoveryService, Introduction
from egtp.engine.engine import Engine
from egtp.environment import (
    Environment,
    give_way,
    local_addresses,
    open_files_max,
    process_id,
)
from egtp.errors import (
    FORKED,
    FastFail,
    FastFailReason,
    LocalProtocolError,
    NodeClosed,
    WrongLoop,
)
from egtp.events import Observer, guarded
from egtp.handling.handlers import Handler
from egtp.identity_file import IdentityFile
from egtp.lookup import LookupRace, LookupService, Published
from egtp.open_query import OpenQuery, Sending
from egtp.own.friends import Friends
from egtp.own.own_addresses import OwnAddress
from egtp.own.own_record import MemorySequence, SequenceStore
from egtp.queries.checks import check_body, check_notice, check_timeout
from egtp.queries.large_message import pack_message
from egtp.reaching.peer import Explanation, Peer
from egtp.relay.leases import RelayLimits
from egtp.relay.listener import RelayListener
from egtp.relay.server import RelayServer
from egtp.relay.wire import LEASE_KIND
from egtp.values.comm_record import SignedCommRecord
from egtp.values.contact_link import ContactLink
from egtp.values.identity import Identity, NodeId
from egtp.values.message import NONCE_BYTES, check_kind
from egtp.values.settings import check_count, check_seconds, check_yes_or_no

__all__ = ["Node"]

H = TypeVar("H", bound=Handler)
"""What is decorated stays what it is."""


class Node:
    """A peer of the network, which talks to other nodes by their peerId.

    ::

        async with Node(identity, listen="0.0.0.0:4000", lookup=lookup) as node:
            reply = await node.query(peer_id, "greet", b"hello")

    A node belongs to the event loop that it was started on: a call from another thread or loop, or
    in a process that was forked from the node's, raises :class:`WrongLoop` (R15). Before the start
    and after the end, calls raise :class:`NodeClosed`.
    """

    def __init__(
        self,
        identity: Identity | IdentityFile,
        *,
        listen: str | Sequence[str] = (),
        announce: str | Sequence[str] | None = None,
        dial_from: str | None = None,
        lookup: LookupService | None = None,
        friends: Friends | None = None,
        discovery: DiscoveryService | None = None,
        relay_server: RelayLimits | bool = False,
        config: NodeConfig | None = None,
        environment: Environment | None = None,
        observer: Observer | None = None,
        admit: Admit | None = None,
    ) -> None:
        """
        :param identity: who this node is. An :class:`IdentityFile` also keeps the sequence of its
            records across restarts.
        :param listen: one or more addresses ``IP:PORT`` to accept connections on; none for a node
            that only dials. Port 0 picks a free one. ``0.0.0.0`` and ``[::]`` stand for
            all that the machine has of that family, now and later; any other address is listened
            on and published even when the machine has lost it.
        :param announce: one or more addresses to publish, and no others. Without it, the node
            publishes those it listens on (for ``0.0.0.0`` and ``::`` those of the machine), and
            those that peers have observed and confirmed.
        :param dial_from: the local IP address to dial from, for machines with several. Addresses of
            the other version of IP are then not reached.
        :param lookup: finds the records of others and stores this node's. Without one, the node
            reaches only peers whose contact was added, or that connect to it.
        :param friends: peers that are asked for records as well, and are told this node's. This
            node keeps records for its friends in turn.
        :param discovery: introduces relay servers through which this node can be reached.
        :param relay_server: whether to serve others as a relay; True for the default limits.
        :param config: limits and timings; the defaults if None.
        :param environment: time and entropy, of a simulation for example; the machine's own if
            None.
        :param observer: called with each turning point; see :mod:`egtp.events`. What it is told is
            not logged: without one, the problems among these are.
        :param admit: called with the peerId of each peer that connects, directly or through a
            relay, and again once the peer has proven to be there now; False refuses it, with
            everything that it may have sent already. It must be quick. Who is connected stays so
            until it is disconnected, and it is not called for whom this node connects to in order
            to ask something. Everybody is admitted if None.

        Raises :class:`InvalidConfig` for a part of the wrong kind, or an address that cannot work.
        """
        check_parts(
            identity,
            lookup=lookup,
            friends=friends,
            discovery=discovery,
            relay_server=relay_server,
            config=config,
            environment=environment,
            observer=observer,
            admit=admit,
        )
        check_dial_from(dial_from)
        self._identity_file = identity if isinstance(identity, IdentityFile) else None
        self.identity: Final = identity.identity if isinstance(identity, IdentityFile) else identity
        """The keys of this node."""
        self.config: Final = config or NodeConfig()
        """The settings of this node."""
        self._environment = environment or Environment(
            local_addresses=local_addresses, open_files_max=open_files_max, give_way=give_way
        )
        self._observer = observer
        self._admit = admit
        self._listen = parse_addresses(listen)
        self._announce = None if announce is None else parse_announced(announce)
        self._dial_from = dial_from
        self._friends = friends
        self._lookup = lookup
        self._lookup_and_friends = _several(lookup, friends, self.config.lookup_timeout_s)
        self._discovery = discovery
        self._relay_limits = RelayLimits() if relay_server is True else relay_server or None
        self._handlers: dict[str, tuple[Handler, dict[str, Any]]] = {}
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        """The thread of that loop..."""
        self._process = 0
        """...and its process."""
        self._introduce: Callable[[Sequence[Introduction]], None] | None = None

    def __repr__(self) -> str:
        return f"Node({self.node_id})"

    # Life

    async def start(self) -> None:
        """Listen, and begin to publish and to look for relays. ``async with`` does this.

        Raises :class:`InvalidConfig` if an address cannot be listened on, :class:`NodeClosed` if
        the node is closed meanwhile, or what its services raise. Nothing is left running then, nor
        after a cancellation. Raises :class:`LocalProtocolError` if the node was started before.
        """
        if self._engine is not None:
            raise LocalProtocolError("this node was already started; create a new one")
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        self._process = process_id()
        sequences: SequenceStore = self._identity_file or MemorySequence()
        look = self._environment.open_files_max
        config = self.config.within(None if look is None else look())
        observer = None if self._observer is None else guarded(self._observer, self._loop)
        engine = Engine(
            self.identity,
            sequences,
            self._lookup_and_friends,
            self._publishes_to,
            config,
            self._environment,
            observer,
            self._friends,
            gate(self._admit, self._loop),
        )
        self._engine = engine
        try:
            if config != self.config:
                engine.counters["connections_max is less: too few files may be open"] += 1
            engine.comms.dial_from = self._dial_from
            for kind, (handler, options) in self._handlers.items():
                engine.handlers.add(kind, handler, **options)
            if self._relay_limits is not None:
                engine.relaying.server = RelayServer(engine.relaying, self._relay_limits)
                engine.handlers.add(LEASE_KIND, engine.relaying.lease, reserved=True)
            await engine.comms.listen(self._listen)
            if engine.is_closed:
                raise NodeClosed
            engine.addresses.listen(engine.comms.listening, self._announce)
            engine.start()
            self._meet_relays(engine, observer)
        except BaseException:
            await self.close()
            raise

    def _publishes_to(self) -> LookupService | None:
        """Where this node's record is stored: friends that are told nothing cannot fail to."""
        told = self._friends is not None and self._friends.told
        return self._lookup_and_friends if told else self._lookup

    def _meet_relays(self, engine: Engine, observer: Observer | None) -> None:
        if self._discovery is None or not self.config.relays_wanted:
            return
        listener = RelayListener(
            engine,
            self.node_id,
            self.config.relays_wanted,
            self.config.relay_lease_s,
            engine.counters,
            observer,
        )
        engine.relaying.listener = listener
        self._introduce = listener.introduce
        self._discovery.meet_relay_servers(self._introduce)

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Close the node: open queries raise :class:`NodeClosed`, peers are told, and no task,
        timer or socket is left. Messages that were already accepted have half a second to leave.

        Once begun, closing runs to its end, even if this call is cancelled. Further calls wait for
        the same end; one without ``drain_s`` cuts the draining of an earlier one short. A handler
        may close its own node: everything but that handler is closed then. It does not wait if the
        node is being closed already.

        :param drain_s: for how many seconds at most to let what is under way end first. Peers are
            asked to send nothing more and to come back later, new queries are refused as "busy",
            and every accepted query is answered.

        Raises :class:`InvalidConfig` if ``drain_s`` is not a number of seconds, 0 or more.
        """
        check_seconds(drain_s=drain_s, or_0=True)
        if self._engine is None:
            return
        self._check_loop()
        try:
            if self._discovery is not None and self._introduce is not None:
                self._discovery.forget(self._introduce)
        finally:
            await self._engine.close(drain_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # Talking

    async def query(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes = b"",
        *,
        hard_timeout_s: float | None = None,
        soft_timeout_s: float | None = None,
        on_soft_timeout: Callable[[], None] | None = None,
        idempotent: bool = False,
        early: bool | None = None,
    ) -> bytes:
        """Ask a peer, wherever it is now, and return the body of its reply.

        The query reaches the peer's handler at most once, however often it has to be sent: when its
        path is lost, the node sends it again by itself (R23). Cancelling the call frees everything
        at once and tells the peer.

        :param peer_id: the peer to ask.
        :param kind: what is asked; it selects the peer's handler. 1-64 of ``a-z 0-9 . _ -``.
        :param body: at most ``body_bytes_max`` of this node and of the peer.
        :param hard_timeout_s: seconds until the query ends at the latest (R5); if None, those of
            :attr:`config`.
        :param soft_timeout_s: seconds until ``on_soft_timeout`` is called, at most once, on the
            event loop (R6). The query goes on after it.
        :param idempotent: running the query twice does no harm. It is then sent even to a peer that
            was restarted meanwhile, and may have run it before.
        :param early: True lets the query travel in the first packet to a peer. This saves a round
            trip, but there is no fast fail once anybody has taken that packet, and whoever steals
            the peer's channel key later can read it. A query that does not fit into 8 KiB waits for
            the path. By default, only a query that was given to a socket before travels like this,
            when its path was lost; False forbids that too.

        Raises :class:`FastFail` if nothing left this machine (R20), :class:`HardTimeout`,
        :class:`HandlerFailed` with the code that the peer answered, :class:`OutcomeUnknown` if the
        peer was closed or restarted after it had been given the query, :class:`NodeClosed`, or
        :class:`LocalProtocolError` for arguments that no query can have. See ``docs/outcomes.md``.
        """
        engine = self._running()
        on_soft: Callable[[], object] | None = None
        if on_soft_timeout is not None:
            check_notice(on_soft_timeout, soft_timeout_s)
            # In a turn of its own: what it raises is the application's affair.
            on_soft = partial(engine.loop.call_soon, on_soft_timeout)
        outcome: asyncio.Future[bytes] = engine.loop.create_future()
        exchange = engine.ask(
            peer_id,
            kind,
            body,
            hard_timeout_s,
            soft_timeout_s,
            outcome,
            on_soft,
            idempotent,
            early,
        )
        try:
            return await outcome
        except asyncio.CancelledError:
            if exchange is not None:
                engine.asking.abandon(exchange)
            raise

    def open_query(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes = b"",
        *,
        hard_timeout_s: float | None = None,
        soft_timeout_s: float | None = None,
        on_soft_timeout: Callable[[], None] | None = None,
        idempotent: bool = False,
        early: bool | None = None,
    ) -> OpenQuery:
        """As :meth:`query`, but returns at once. Await the result for the reply, and its
        ``soft_timeout()`` for the soft timeout.

        Raises :class:`LocalProtocolError` for arguments that no query can have, and
        :class:`NodeClosed`. All other outcomes are those of the :class:`OpenQuery`.
        """
        engine = self._running()
        if on_soft_timeout is not None:
            check_notice(on_soft_timeout, soft_timeout_s)
        query = OpenQuery(engine.loop.create_future(), engine.asking.abandon, on_soft_timeout)
        query._exchange = engine.ask(
            peer_id,
            kind,
            body,
            hard_timeout_s,
            soft_timeout_s,
            query._outcome,
            query._pass_soft_timeout,
            idempotent,
            early,
        )
        return query

    async def send(
        self, peer_id: NodeId, kind: str, body: bytes = b"", *, hard_timeout_s: float | None = None
    ) -> None:
        """Send a peer a message without a reply.

        Returns when the message was given to a socket, which does not mean that it arrived. It is
        given to a socket at most once, and never again. Cancelling the call takes back a message
        that was not given to any.

        Raises :class:`FastFail` if it could not be given to a socket within ``hard_timeout_s``
        seconds (if None, those of :attr:`config`), :class:`NodeClosed`, or
        :class:`LocalProtocolError` for arguments that no message can have.
        """
        engine = self._running()
        check_kind(kind)
        hard_s = self.config.hard_timeout_s if hard_timeout_s is None else hard_timeout_s
        check_timeout(hard_s)
        if type(body) is not bytes or len(body) > self.config.body_bytes_max:
            body = check_body(body, self.config.body_bytes_max)
        peer_id = NodeId(peer_id)
        nonce = self._environment.entropy(NONCE_BYTES)
        message = pack_message((3, nonce, None, kind, int(hard_s * 1000), body))
        sending = Sending(message, engine.now(), engine.loop)
        engine.asking.tell(peer_id, sending)
        try:
            async with asyncio.timeout(hard_s):
                await sending.left
        except BaseException as error:
            engine.asking.take_back(peer_id, sending)
            if isinstance(error, TimeoutError):
                raise FastFail(
                    f"no way to reach {peer_id} within {hard_s:g} s", reason=FastFailReason.NO_TIME
                ) from None
            raise

    def handle(
        self,
        kind: str,
        handler: Handler,
        *,
        at_once_max: int | None = None,
        idempotent: bool = False,
        early: bool = True,
    ) -> None:
        """Answer queries and sends of ``kind`` with ``handler``, before or after the start.

        :param handler: an async function that takes the :class:`Incoming` and returns the body of
            the reply, or None for an empty one. It raises :class:`HandlerFailed` to answer with a
            code of its own; any other exception is answered "handler error". It runs on the event
            loop and holds up everything until it awaits: use ``asyncio.to_thread`` for slow work.
            It is cancelled when its asker gives up. Its context variables are those of the node's
            start.
        :param at_once_max: how many may run at a time; further queries are answered "busy".
        :param idempotent: running twice for one query does no harm, so its replies need not be
            remembered.
        :param early: whether queries may run before their asker has proven that it is alive, which
            saves a round trip. With False, they are asked for again inside the session.

        Raises :class:`LocalProtocolError` for a kind that is malformed, reserved or taken, or a
        handler that is not a function; :class:`InvalidConfig` for options that cannot work; and
        :class:`NodeClosed` after the end.
        """
        check_kind(kind)
        if not callable(handler):
            raise LocalProtocolError(f"the handler of {kind!r} must be a function, not {handler!r}")
        if kind in self._handlers:
            raise LocalProtocolError(
                f"kind {kind!r} already has a handler: call remove_handler() first"
            )
        if at_once_max is not None:
            check_count(1, at_once_max=at_once_max)
        check_yes_or_no(idempotent=idempotent, early=early)
        options = {"at_once_max": at_once_max, "idempotent": idempotent, "early": early}
        if self._engine is not None:
            self._running().handlers.add(kind, handler, **options)  # type: ignore[arg-type]
        self._handlers[kind] = handler, options

    def handler(
        self,
        kind: str,
        *,
        at_once_max: int | None = None,
        idempotent: bool = False,
        early: bool = True,
    ) -> Callable[[H], H]:
        """:meth:`handle` as a decorator, with the same options and errors:
        ``@node.handler("greet")``."""
        check_kind(kind)  # at once: without its parentheses it would be given the function

        def decorate(handler: H) -> H:
            self.handle(kind, handler, at_once_max=at_once_max, idempotent=idempotent, early=early)
            return handler

        return decorate

    def remove_handler(self, kind: str) -> None:
        """Take away the handler of ``kind``: from now on, queries are answered "no such kind", so
        their askers know that nothing has run.

        What the handler has begun, it goes on with, and its replies are sent. To put another one in
        its place, give that one at once: while nothing is awaited in between, no query comes.

        ::

            node.remove_handler("greet")
            node.handle("greet", greet_anew)

        A query still runs at most once: a copy of one that the old handler was given is not given
        to the new one, unless the old one was ``idempotent``. What the old one goes on with does
        not count for ``at_once_max`` of the new one. Can be called after the end, too.

        Raises :class:`LocalProtocolError` for a kind that is malformed, reserved or has no handler.
        """
        check_kind(kind)
        if kind not in self._handlers:
            raise LocalProtocolError(f"kind {kind!r} has no handler")
        if self._engine is not None:
            self._started().handlers.remove(kind)
        del self._handlers[kind]

    # Peers

    def add_contact(self, contact: SignedCommRecord | ContactLink | str) -> NodeId:
        """Add a peer by its record or contact link, and return its peerId.

        Raises :class:`LocalProtocolError` for what is not a contact, and :class:`InvalidRecord` for
        a link with an invalid record.
        """
        engine = self._running()
        if isinstance(contact, str):
            contact = ContactLink.parse(contact)
        record = contact.record if isinstance(contact, ContactLink) else contact
        if not isinstance(record, SignedCommRecord | None) or contact is None:
            raise LocalProtocolError(
                f"a contact must be a record or a contact link, not {contact!r}"
            )
        engine.want(contact.peer_id)
        if record is not None:
            engine.learn(record, "contact")
        return contact.peer_id

    def change_friends(
        self,
        *,
        tell: Iterable[NodeId] | None = None,
        keep_for: Iterable[NodeId] | None = None,
        friends_of: Mapping[NodeId, Iterable[NodeId]] | None = None,
    ) -> None:
        """Have other friends from now on: each of the parameters replaces what :class:`Friends` was
        given as such, and None leaves it as it is. To add one, name the others as well:
        ``node.change_friends(tell=[*friends.told, peer_id])``.

        If others are to be told than before, all of them get a new record of this node, and
        :meth:`published` waits for that. Who is told no more may keep the last one until it expires
        (``record_lifetime_s``).

        Raises :class:`LocalProtocolError` if this node was made without ``friends``, or for what is
        not a peerId, and :class:`InvalidConfig` for more than eight friends. All is then as it was.
        """
        engine = self._running()
        if self._friends is None:
            raise LocalProtocolError("this node has no friends: create it with friends=Friends()")
        before = self._friends.told
        self._friends.change(tell, keep_for, friends_of)
        if self._friends.told != before:
            engine.publisher.friends_changed()

    @property
    def connected(self) -> tuple[NodeId, ...]:
        """The peers to which there is a path now; :meth:`why` tells more about each. One that asked
        to be left alone is among them until it has closed, since it may still ask; and one that
        vanished without a word until it is asked something, or for minutes."""
        return tuple(peer.peer_id for peer in self._running().book.all() if peer.paths)

    async def disconnect(self, peer_id: NodeId) -> None:
        """Close the paths to a peer, and tell the peer: once what was accepted has left, or after
        ``close_timeout_s``. If the call is cancelled, everything stays as it was.

        Idle connections are closed without it; this is for callers who know that nothing more will
        be said. What is known of the peer is kept, so the next message connects again. So does a
        query that is still open: it is sent again. The peer may connect again as well, unless
        ``admit`` refuses it: then nothing but what this node asks connects the two again.

        Raises :class:`LocalProtocolError` for what is not a peerId.
        """
        await self._running().disconnect(NodeId(peer_id))

    def why(self, peer_id: NodeId) -> Explanation:
        """What is known of a peer, how it is reached now, and which attempts failed. Can be asked
        after the end, too; ``print()`` shows it in words.

        Raises :class:`LocalProtocolError` for what is not a peerId.
        """
        engine, peer_id = self._started(), NodeId(peer_id)
        peer = engine.book.find(peer_id) or Peer(peer_id)
        age_s = None if peer.record is None else engine.now() - peer.learned_s
        best = peer.best_path
        return Explanation(
            peer_id,
            peer.record,
            peer.source,
            age_s,
            tuple(str(path.strategy) for path in sorted(peer.paths, key=lambda it: it is not best)),
            None if best is None else best.round_trip_s,
            None if best is None else engine.now() - best.heard_s,
            engine.exchanges.count_of(peer_id),
            peer.attempts,
            peer.runs_twice,
            max(0.0, peer.rests_until_s - engine.now()),
        )

    # This node

    @property
    def node_id(self) -> NodeId:
        """The nodeId of this node. For others, it is the peerId to ask."""
        return self.identity.node_id

    @property
    def elapsed_s(self) -> float:
        """The clock that this node's timeouts go by: seconds since any fixed moment."""
        return self._environment.elapsed()

    @property
    def record(self) -> SignedCommRecord:
        """This node's own record, as last signed. Can be read after the end, too."""
        return self._started().own.current

    @property
    def link(self) -> str:
        """A contact link that contains the record, to give to somebody."""
        return str(ContactLink(self.node_id, self.record))

    @property
    def listening(self) -> tuple[str, ...]:
        """The addresses on which this node accepts connections now, as ``IP:PORT``."""
        return tuple(map(str, self._running().comms.listening))

    @property
    def own_addresses(self) -> tuple[OwnAddress, ...]:
        """The addresses where others may reach this node, how each is known, and whether it is in
        the record; see ``docs/own-address.md``."""
        return self._running().addresses.explain()

    @property
    def relays(self) -> tuple[NodeId, ...]:
        """The relays through which this node can be reached now."""
        listener = self._running().relaying.listener
        return () if listener is None else listener.confirmed

    @property
    def relay_server(self) -> RelayServer | None:
        """The relay server that this node is for others, with its counters; None if it is none."""
        return self._started().relaying.server

    @property
    def counters(self) -> Counter[str]:
        """How often something was dropped, refused or closed, by reason: every silent drop is
        counted here. Can be read after the end, too."""
        return self._started().counters

    def statistics(self) -> dict[str, Any]:
        """The state of the node as values by name, which JSON can represent: for people and for
        monitoring. Names may change with any version. ``counters`` are those of :attr:`counters`,
        and of the relay server if the node is one. Can be read after the end, too."""
        engine = self._started()
        answers, server = engine.answering.answers, engine.relaying.server
        listener, traffic = engine.relaying.listener, engine.comms.traffic
        statistics: dict[str, Any] = {
            "peer_id": str(self.node_id),
            "record_sequence": engine.own.current.sequence,
            "record_not_published": engine.publisher.failure,
            "connections": len(engine.comms),
            "connections_max": engine.config.connections_max,
            "bytes_received": traffic.bytes_in,
            "bytes_sent": traffic.bytes_out,
            "unproven_sessions": engine.channels.unconfirmed,
            "peers": len(engine.book),
            "queries_open": len(engine.exchanges),
            "handlers_running": len(engine.handlers),
            "queries_bytes": engine.answering.room.taken,
            "queries_bytes_max": engine.config.queries_bytes_max,
            "unread_bytes": engine.answering.unread.waiting_bytes,
            "unread_bytes_max": engine.config.unread_bytes_max,
            "askers_remembered": len(answers),
            "queries_remembered": answers.entries,
            "replies_remembered_bytes": answers.bytes,
            "relays": list(map(str, () if listener is None else listener.confirmed)),
            "counters": dict(engine.counters),
        }
        if server is not None:
            leases = server.leases
            statistics["leases"] = len(leases)
            statistics["leases_max"] = leases.limits.leases_max
            statistics["mailboxes_bytes"] = leases.held_bytes
            statistics["mailboxes_bytes_max"] = leases.limits.mailboxes_bytes_max
            statistics["counters"] |= {f"relay: {name}": n for name, n in server.counters.items()}
        return statistics

    async def published(self) -> Published:
        """Wait until a lookup service has stored this node's record as it is now.

        That record may still name no way to reach this node; see :meth:`reachable`. While nobody
        stores the record, this waits: the event :class:`egtp.events.RecordNotPublished` and
        ``record_not_published`` in :meth:`statistics` say why. Cancelling it ends the wait only.

        Raises :class:`PublishFailed` if the node has neither a lookup service nor friends to tell,
        or is closed.
        """
        return await self._running().publisher.published()

    async def reachable(self) -> Published:
        """Wait until a record is stored that names a way to reach this node: an address, or a relay
        that has granted a lease. From then on, as far as this node knows, others find it by its
        peerId. For a node with a ``discovery`` service, a private address is no such way (unless
        ``private_addresses`` is set): it is to be reached from other networks, too.

        A node that neither listens nor has a relay waits for ever: ``async with
        asyncio.timeout(...)`` ends that. Raises :class:`PublishFailed` as :meth:`published` does.
        """
        return await self._running().publisher.published(reachable=True)

    async def listen(self, addresses: str | Sequence[str]) -> None:
        """Accept connections on these addresses ``IP:PORT`` and no others, and say so in a new
        record. Open connections stay.

        Raises :class:`InvalidConfig` if an address cannot be used, and all is then as it was; or
        :class:`NodeClosed` if the node is closed meanwhile.
        """
        engine = self._running()
        wanted = parse_addresses(addresses)
        await engine.comms.listen(wanted)
        if engine.is_closed:
            raise NodeClosed
        self._listen = wanted
        engine.addresses.listen(engine.comms.listening, self._announce)

    async def move(self, addresses: str | Sequence[str], *, dial_from: str | None = None) -> None:
        """Tell the node that this machine has other addresses now. It listens on ``addresses``,
        dials from ``dial_from``, and drops every connection, since both ends of it are named by an
        address that is gone.

        Raises :class:`InvalidConfig` and :class:`NodeClosed` as :meth:`listen` does.
        """
        engine = self._running()
        check_dial_from(dial_from)
        await self.listen(addresses)
        engine.comms.dial_from = dial_from
        engine.comms.drop_all("this node moved to another address")
        engine.network_changed()

    def throttle(
        self,
        *,
        send_bytes_per_s: float | None = None,
        receive_bytes_per_s: float | None = None,
    ) -> None:
        """Limit what all connections together send and receive from now on, in bytes per second;
        None for no limit.

        Nothing is lost: what may not be sent yet is held, and what may not be read yet waits at the
        other side (R16). Raises :class:`LocalProtocolError` for a rate that is not above 0.
        """
        rates = parse_rates(send_bytes_per_s, receive_bytes_per_s)
        self._running().comms.throttle(rates)

    def throttle_peer(
        self,
        peer_id: NodeId,
        *,
        send_bytes_per_s: float | None = None,
        receive_bytes_per_s: float | None = None,
    ) -> None:
        """As :meth:`throttle`, for each TCP connection to one peer, now and later. It applies in
        addition to the limit of all connections, and instead of the configured limit of each peer.
        What goes through a relay counts for the connection to the relay.

        Raises :class:`LocalProtocolError` for a rate that is not above 0, and when too many peers
        have one.
        """
        rates = parse_rates(send_bytes_per_s, receive_bytes_per_s)
        self._running().comms.throttle_peer(NodeId(peer_id), rates)

    # Inside

    def _running(self) -> Engine:
        """The engine, if the node is running and this is its thread and loop (R15)."""
        engine = self._engine
        # At half the price of asyncio.get_running_loop(), which asks the system for the process.
        if (
            engine is not None
            and not engine.is_closed
            and get_ident() == self._thread
            and engine.loop.is_running()
            and process_id() == self._process
        ):
            return engine
        self._check_loop()
        if engine is None:
            raise NodeClosed("this node was not started: use `async with node:` or start()")
        raise NodeClosed()

    def _started(self) -> Engine:
        """The engine, for what may be read after the end, too."""
        engine = self._engine
        return engine if engine is not None and engine.is_closed else self._running()

    def _check_loop(self) -> None:
        if self._loop is None:
            return
        if process_id() != self._process:
            raise WrongLoop(FORKED)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            how = (
                "from another thread, use asyncio.run_coroutine_threadsafe(node.query(...), loop)"
                if self._loop.is_running()
                else "that loop does not run now: start, use and close a node in one "
                "asyncio.run(), or use egtp.blocking.Node"
            )
            raise WrongLoop(f"a node must be used on the event loop it was started on; {how}")


def _several(
    lookup: LookupService | None, friends: Friends | None, timeout_s: float
) -> LookupService | None:
    if lookup is None:
        return friends
    if friends is None:
        return lookup
    # Less than all of them have, so that what one stored counts though the other one hangs.
    # And more than each of several may take.
    return LookupRace(lookup, friends, publish_timeout_s=0.9 * timeout_s)

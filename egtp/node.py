"""Node: a peer of the network, and the whole public API of the engine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Self, TypeVar

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
from egtp.environment import Environment, give_way, local_addresses, open_files_max
from egtp.errors import (
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
from egtp.queries.checks import check_notice, check_timeout, too_large
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
    """Talks to other nodes by their peerId.

    ::

        async with Node(identity, listen="192.0.2.7:4000", lookup=lookup) as node:
            reply = await node.query(peer_id, "greet", b"hello")

    A node belongs to the event loop that it was started on. Calling it from another thread or
    loop raises :class:`WrongLoop` (R15).
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
    ) -> None:
        """
        :param identity: who this node is. With an :class:`IdentityFile`, sequences survive too.
        :param listen: addresses ``IP:PORT`` to accept connections on; none for a node that only
            dials. Port 0 takes a free one.
        :param announce: addresses to publish, and no others. Without it: those listened on, for
            ``0.0.0.0`` and ``::`` those of the machine, and what peers observe and confirmed.
        :param dial_from: the local IP address to dial from, for machines with several.
        :param lookup: finds records of others, stores ours. Without one, peers are reached whose
            contact was added, or that connect to us.
        :param friends: asked besides, and told this node's record; this node is one of theirs.
        :param discovery: introduces relay servers to be reached through.
        :param relay_server: serve others as a relay; True for the default limits.
        :param config: limits and timings; the defaults if None.
        :param environment: time and entropy, of a simulation say; the machine's own if None.
        :param observer: told the turning points; see :mod:`egtp.events`.

        Raises :class:`InvalidConfig`.
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
        )
        check_dial_from(dial_from)
        self._identity_file = identity if isinstance(identity, IdentityFile) else None
        self.identity: Final = identity.identity if isinstance(identity, IdentityFile) else identity
        self.config: Final = config or NodeConfig()
        self._environment = environment or Environment(
            local_addresses=local_addresses, open_files_max=open_files_max, give_way=give_way
        )
        self._observer = observer
        self._listen = parse_addresses(listen)
        self._announce = None if announce is None else parse_announced(announce)
        self._dial_from = dial_from
        self._friends = friends
        self._lookup = _several(lookup, friends, self.config.lookup_timeout_s)
        self._discovery = discovery
        self._relay_limits = RelayLimits() if relay_server is True else relay_server or None
        self._handlers: dict[str, tuple[Handler, dict[str, Any]]] = {}
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        """The thread of that loop."""
        self._introduce: Callable[[Sequence[Introduction]], None] | None = None

    def __repr__(self) -> str:
        return f"Node({self.node_id})"

    # Life

    async def start(self) -> None:
        """Listen, publish, and look for relays.

        Raises :class:`InvalidConfig` if an address cannot be listened on, :class:`NodeClosed` if
        the node is closed meanwhile, or what its services raise; nothing is left then.
        """
        if self._engine is not None:
            raise LocalProtocolError("this node was already started; create a new one")
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        sequences: SequenceStore = self._identity_file or MemorySequence()
        look = self._environment.open_files_max
        config = self.config.within(None if look is None else look())
        engine = Engine(
            self.identity,
            sequences,
            self._lookup,
            config,
            self._environment,
            None if self._observer is None else guarded(self._observer, self._loop),
            self._friends,
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
            self._meet_relays(engine)
        except BaseException:
            await self.close()
            raise

    def _meet_relays(self, engine: Engine) -> None:
        if self._discovery is None or not self.config.relays_wanted:
            return
        listener = RelayListener(
            engine,
            self.node_id,
            self.config.relays_wanted,
            self.config.relay_lease_s,
            engine.counters,
        )
        engine.relaying.listener = listener
        self._introduce = listener.introduce
        self._discovery.meet_relay_servers(self._introduce)

    async def close(self, *, drain_s: float = 0.0) -> None:
        """End everything. Open queries raise :class:`NodeClosed`; peers are told; no task, timer
        or socket is left. What was accepted has half a second to leave.

        Once begun it comes to its end, even if this call is cancelled; further calls wait for the
        same end, and one without ``drain_s`` does not give what is under way any more time. A
        handler may close its node: all is closed but the handler itself. One that does so while the
        node is being closed already does not wait.

        With ``drain_s``, what is under way may end first, for that many seconds at most: peers are
        asked to send nothing more and to come back later, what is new is refused as "busy", and
        everything that was accepted is answered. Raises :class:`InvalidConfig` for seconds that
        cannot be meant.
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

        The query reaches the peer's handler at most once, however often it has to be sent: it is
        sent again by itself when its path is lost. Cancelling it frees everything at once and tells
        the peer.

        :param hard_timeout_s: when it ends at the latest; the configuration's if None.
        :param soft_timeout_s: when ``on_soft_timeout`` is called, at most once, on the event loop;
            the query goes on after it.
        :param idempotent: running twice does no harm; then it is also sent to a peer that was
            restarted meanwhile.
        :param early: True lets it travel in the first packet to a peer: a round trip less, but no
            fast fail once anybody has taken that packet, and whoever steals the peer's channel key
            later can read it; what does not fit into 8 KiB waits for the path. By default only what
            was given to a socket before travels so, when its path was lost; False forbids that too.

        Raises :class:`FastFail` if nothing left this machine, :class:`HardTimeout`,
        :class:`HandlerFailed` with the code that the peer answered, :class:`OutcomeUnknown` if the
        peer was restarted after it had been given the query, :class:`NodeClosed`, or
        :class:`LocalProtocolError` for arguments that no query can have.
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
        """As :meth:`query`, but returns at once; await the result for the reply, and its
        ``soft_timeout()`` for the soft timeout. Raises :class:`LocalProtocolError` for arguments
        that no query can have."""
        engine = self._running()
        if on_soft_timeout is not None:
            check_notice(on_soft_timeout, soft_timeout_s)
        query = OpenQuery(engine.loop.create_future(), engine.asking.abandon, on_soft_timeout)
        return query._is_asked_by(
            engine.ask(
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
        )

    async def send(
        self, peer_id: NodeId, kind: str, body: bytes = b"", *, hard_timeout_s: float | None = None
    ) -> None:
        """Tell a peer something, without an answer. Returns when the message was given to a
        socket, which does not say that it arrived. It is given at most once, never again.

        Raises :class:`FastFail` if it could not be given to any within the hard timeout.
        """
        engine = self._running()
        check_kind(kind)
        hard_s = self.config.hard_timeout_s if hard_timeout_s is None else hard_timeout_s
        check_timeout(hard_s)
        if type(body) is not bytes or len(body) > self.config.body_bytes_max:
            raise too_large(body, self.config.body_bytes_max)
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

        :param handler: an async function that is given the :class:`Incoming` and returns the body
            of the reply, None for an empty one. Raises :class:`HandlerFailed` to answer with a
            code of its own. It is on the event loop, and holds up everything while it does not
            await: ``asyncio.to_thread`` is for what takes long. Cancelled when its asker gives up.
        :param at_once_max: how many may run at a time; more are answered "busy".
        :param idempotent: running twice for one query does no harm, so answers need not be kept.
        :param early: queries may be run before their asker has proven that it lives, which saves a
            round trip; with False they are asked for again inside the session.

        Raises :class:`LocalProtocolError` for a kind that is wrong, reserved or taken,
        :class:`InvalidConfig` for options that are, and :class:`NodeClosed` after the end.
        """
        check_kind(kind)
        if not callable(handler):
            raise LocalProtocolError(f"the handler of {kind!r} must be a function, not {handler!r}")
        if kind in self._handlers:
            raise LocalProtocolError(f"kind {kind!r} already has a handler")
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
        """:meth:`handle` as a decorator: ``@node.handler("greet")``, with the same options."""
        check_kind(kind)  # at once: without its parentheses it would be given the function

        def decorate(handler: H) -> H:
            self.handle(kind, handler, at_once_max=at_once_max, idempotent=idempotent, early=early)
            return handler

        return decorate

    # Peers

    def add_contact(self, contact: SignedCommRecord | ContactLink | str) -> NodeId:
        """Take note of a peer from its record or contact link, and return its peerId.

        Raises :class:`LocalProtocolError` or :class:`InvalidRecord` for what is no contact.
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

    @property
    def connected(self) -> tuple[NodeId, ...]:
        """The peers that there is a way to at this moment; :meth:`why` tells more of each."""
        peers = self._running().book.all()
        return tuple(peer.peer_id for peer in peers if peer.best_path is not None)

    async def disconnect(self, peer_id: NodeId) -> None:
        """Close what leads to a peer once what was accepted has left, or after
        ``close_timeout_s``, and tell the peer. Cancelled, it leaves everything as it was.

        Idle connections are closed by themselves; this is for who knows that there will be nothing
        more to say. What is known of the peer stays, and the next message connects anew; so does a
        query that is still open, which is given again. The peer may connect as well.
        """
        await self._running().disconnect(NodeId(peer_id))

    def why(self, peer_id: NodeId) -> Explanation:
        """What is known of a peer, how it is reached now, and what was tried in vain.

        Raises :class:`LocalProtocolError` for what is no peerId.
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
        )

    # This node

    @property
    def node_id(self) -> NodeId:
        """Who this node is; for others, its peerId."""
        return self.identity.node_id

    @property
    def elapsed_s(self) -> float:
        """This node's clock, by which its timeouts pass: seconds since any fixed moment."""
        return self._environment.elapsed()

    @property
    def record(self) -> SignedCommRecord:
        """This node's own record, as last signed."""
        return self._started().own.current

    @property
    def link(self) -> str:
        """A contact link with the record in it, to paste to somebody."""
        return str(ContactLink(self.node_id, self.record))

    @property
    def listening(self) -> tuple[str, ...]:
        """Where this node accepts connections now, as ``IP:PORT``."""
        return tuple(map(str, self._running().comms.listening))

    @property
    def own_addresses(self) -> tuple[OwnAddress, ...]:
        """Where others may reach this node, what each address is known from, and whether it is in
        the record; see ``docs/own-address.md``."""
        return self._running().addresses.explain()

    @property
    def relays(self) -> tuple[NodeId, ...]:
        """The relays through which this node can be reached now."""
        listener = self._running().relaying.listener
        return () if listener is None else listener.confirmed

    @property
    def relay_server(self) -> RelayServer | None:
        """This node as a relay of others, with its counters; None if it is none."""
        return self._started().relaying.server

    @property
    def remembered(self) -> tuple[int, int, int]:
        """What is remembered of the queries of others, so that none runs twice: askers, queries,
        and bytes of replies. Bounded by :class:`AnswerLimits`."""
        answers = self._started().answering.answers
        return len(answers), answers.entries, answers.bytes

    @property
    def counters(self) -> Counter[str]:
        """What was dropped, refused or closed, by reason. Every silent drop is counted here. They
        can be read after the end, too, as :meth:`statistics`, :attr:`record` and :meth:`why`."""
        return self._started().counters

    def statistics(self) -> dict[str, Any]:
        """How the node is, as numbers by name: for people and for what watches it. Names may change
        with any version; ``counters`` are those of :attr:`counters`, and of the relay if it is
        one."""
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
            "queries_bytes": engine.room.taken,
            "unread_bytes": engine.answering.unread.waiting_bytes,
            "askers_remembered": len(answers),
            "queries_remembered": answers.entries,
            "replies_remembered_bytes": answers.bytes,
            "relays": list(map(str, () if listener is None else listener.confirmed)),
            "counters": dict(engine.counters),
        }
        if server is not None:
            statistics["leases"] = len(server.leases)
            statistics["mailboxes_bytes"] = server.leases.held_bytes
            statistics["counters"] |= {f"relay: {name}": n for name, n in server.counters.items()}
        return statistics

    async def published(self) -> Published:
        """Wait until the lookup service has stored this node's record as it is now. It may still
        name no way to this node; see :meth:`reachable`. While nobody stores it, this waits: the
        event :class:`egtp.events.RecordNotPublished` and ``record_not_published`` of
        :meth:`statistics` say why.

        Raises :class:`PublishFailed` without a lookup service or friends to be told, or when the
        node is closed.
        """
        return await self._running().publisher.published()

    async def reachable(self) -> Published:
        """Wait until a record is stored that names a way to this node: an address, or a relay that
        has granted a lease. From then on others find it by its peerId, as far as this node knows.

        Raises :class:`PublishFailed` as :meth:`published` does. A node that neither listens nor has
        a relay waits for ever: ``async with asyncio.timeout(...)`` ends that.
        """
        return await self._running().publisher.published(reachable=True)

    async def listen(self, addresses: str | Sequence[str]) -> None:
        """Accept connections on these addresses and no others, and say so in a new record.

        Open connections stay. Raises :class:`InvalidConfig` if one cannot be used; then all is
        as it was. Raises :class:`NodeClosed` if the node is closed meanwhile.
        """
        engine = self._running()
        wanted = parse_addresses(addresses)
        await engine.comms.listen(wanted)
        if engine.is_closed:
            raise NodeClosed
        self._listen = wanted
        engine.addresses.listen(engine.comms.listening, self._announce)

    async def move(self, addresses: str | Sequence[str], *, dial_from: str | None = None) -> None:
        """This machine has other addresses now: listen on these, dial from ``dial_from``, and
        drop every connection, since both ends of it are named by an address that is gone.

        Raises :class:`InvalidConfig` as :meth:`listen` does.
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
        """Limit what all connections together send and receive, from now on; None for no limit.

        Nothing is lost: what may not be sent yet is held, and what may not be read yet waits at
        the other side (R16). Raises :class:`LocalProtocolError` for a rate that is none.
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
        """As :meth:`throttle`, for each TCP connection to one peer, now and later: beside the limit
        of all, and instead of the configured one of each peer. What goes through a relay counts
        for the connection to the relay."""
        rates = parse_rates(send_bytes_per_s, receive_bytes_per_s)
        self._running().comms.throttle_peer(NodeId(peer_id), rates)

    # Inside

    def _running(self) -> Engine:
        """The engine, if the node runs and is used where it runs (R15)."""
        engine = self._engine
        # At half the price of asyncio.get_running_loop(), which asks the system for the process.
        if (
            engine is not None
            and not engine.is_closed
            and get_ident() == self._thread
            and engine.loop.is_running()
        ):
            return engine
        self._check_loop()
        if engine is None:
            raise NodeClosed("this node was not started: use `async with node:` or start()")
        raise NodeClosed()

    def _started(self) -> Engine:
        """The engine, for what may be read when the node is closed, too."""
        engine = self._engine
        return engine if engine is not None and engine.is_closed else self._running()

    def _check_loop(self) -> None:
        if self._loop is None:
            return
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise WrongLoop(
                "a node must be used on the event loop it was started on; from another thread, use "
                "asyncio.run_coroutine_threadsafe(node.query(...), loop)"
            )


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

"""A running node: kademlia's server, with every lookup, store and refresh replaced by a hardened
one.

Records are stored under the raw peerId, where upstream would hash the key once more. Nothing here
republishes a record: its signer does so in time, and the record itself says when it expires.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any, NoReturn

from kademlia.network import Server

from egtp.errors import InvalidConfig, InvalidRecord, in_words
from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.records.record_file import RecordFile
from lookup_dht.settings import NodeSettings
from lookup_dht.walks.record_walks import RecordWalks
from lookup_dht.wire.contact import LAB_HINT, Contact, SocketAddress, pack_ip
from lookup_dht.wire.node_id import fits, new_node_id

__all__ = ["LookupServer"]

log = logging.getLogger("lookup_dht")

PROOF_HELPERS = 3
"""This many contacts suffice to ask, in turn, for the proof that this node can be reached."""
JOIN_PATIENCE_S = 0.5
"""How long a node that joins waits for others once one has answered: they may be down, or a name
server silent."""
JOIN_TIMEOUT_S = 3.0
"""How long it waits if nobody answers: longer than any ping takes, and shorter than a lookup, which
then can still say that there is nobody to ask. A silent name server holds up a name for ten seconds
or more."""
LONE_VOTE_AFTER_S = 60.0
"""How long only one network has to have told this node its address before that is believed. Where
there is but one bootstrap node, or all are in one network, nobody who listens on 0.0.0.0 could have
an id that others take, and all records would stay on the bootstrap nodes."""
LONE_VOTE_INTERVAL_S = 3600.0
"""How soon such an address may change again: a liar must not have a node's id change all the time.
"""
SEED_ADDRESSES_MAX = 8
"""Addresses used per name: one that resolves to hundreds would cost as many pings."""


class LookupServer(Server):  # type: ignore[misc]
    """Upstream's life cycle: ``listen``, ``bootstrap``, find and store through ``walks``, then
    ``close``, which leaves no task, timer or socket behind."""

    protocol_class = LookupProtocol

    def __init__(
        self,
        settings: NodeSettings,
        node_id: bytes,
        seeds: Iterable[SocketAddress] = (),
        file: RecordFile | None = None,
        counters: collections.Counter[str] | None = None,
    ) -> None:
        """The hosts of ``seeds`` are IP addresses, or names if the settings can resolve them."""
        # Not counters or Counter(): an empty Counter is false, but shared with the record file.
        self.counters: collections.Counter[str] = (
            collections.Counter() if counters is None else counters
        )
        self._settings = settings
        self._limits = settings.limits
        self._seeds = tuple(seeds)
        self._named: dict[SocketAddress, list[SocketAddress]] = {}
        """What each seed name stood for when it last resolved."""
        self._resolving: dict[SocketAddress, asyncio.Task[Any]] = {}
        self._refused_names: set[SocketAddress] = set()
        """Names whose refused addresses have been reported."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep_task: asyncio.Task[None] | None = None
        self._joining: asyncio.Task[list[Contact]] | None = None
        self._rejoin_at = 0.0
        self._listening = asyncio.Lock()
        """Held while the socket is replaced: by a join, or because somebody asked for it."""
        self._asked_for: tuple[str, int]
        """Where to listen; the port is 0 if any will do."""
        self._was_cut_off = False
        """Whether this machine had no network when it last sent something: those who answered
        before may be gone by the time that it has one again."""
        self._looked_around_serving: bool | None = None
        self._proof_asked = 0
        self._seen: bytes | None = None
        """The public address that others last saw this node at."""
        self._lone_vote_at = settings.elapsed() + LONE_VOTE_AFTER_S
        self._greeted = 0
        self._greet_at = 0.0
        self._rejoin_delay_s = self._limits.rejoin_delay_min_s
        super().__init__(
            ksize=self._limits.replication,
            alpha=self._limits.parallel_queries,
            node_id=node_id,
            storage=RecordStore(node_id, settings, self.counters, file),
        )
        self.node: Any
        self.storage: RecordStore
        self.transport: Any
        # One protocol for life: open queries, table and records survive a change of sockets.
        self.protocol: LookupProtocol = self.protocol_class(
            self.node, self.storage, self.ksize, settings, self.counters
        )
        self.protocol.acquaintances.seeds.update(
            (seed, None) for seed in self._seeds if pack_ip(seed[0]) is not None
        )
        self.protocol.router.on_newcomer = self._met_newcomer
        self.walks = RecordWalks(self.protocol, self.storage, settings, self.counters)

    # Life cycle.

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:  # noqa: S104
        """Bind the socket and start the upkeep of the table. A node that is already listening
        moves to the new address. Raises :class:`InvalidConfig`."""
        async with self._listening:
            await self._move(port, interface)
            self._asked_for = interface, port

    async def _move(self, port: int, interface: str) -> None:
        old = self.transport
        try:
            # Not as upstream does it, which also logs an address where it may not listen at all.
            if ":" in interface and self._settings.ipv6_socket is not None:
                await self._open_socket(sock=self._settings.ipv6_socket(interface, port))
            else:
                await self._open_socket(local_addr=(interface, port))
        except asyncio.CancelledError:
            # The protocol may have switched to the new socket.
            self.protocol.take_back(old)
            raise
        except OSError as error:
            # The loops' messages repeat the address as a tuple, so take the text from errno, which
            # uvloop has in the cause only.
            number = error.errno or getattr(error.__cause__, "errno", None)
            why = OSError(number, os.strerror(number)) if number else error
            raise InvalidConfig(
                f"cannot listen on UDP {interface}:{port}: {in_words(why)}"
            ) from why
        if old is not None:
            self.protocol.reachability.moved()
            old.close()

    async def _open_socket(self, **where: Any) -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(self._create_protocol, **where)
        self.refresh_table()

    def _create_protocol(self) -> LookupProtocol:
        return self.protocol

    @property
    def bound(self) -> SocketAddress:
        """Where the node listens."""
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port

    def stop(self) -> None:
        """Cancel every task and close the socket; :meth:`close` waits until all have ended."""
        for task in self._tasks:
            task.cancel()
        super().stop()

    async def close(self) -> None:
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.protocol.close()
        self.storage.close()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Joining and upkeep.

    @property
    def is_first(self) -> bool:
        """Whether this node knows of no other and never did: others can only join through it."""
        router = self.protocol.router
        return not (self._seeds or router.former or len(router))

    async def bootstrap(self, addrs: Iterable[SocketAddress] = ()) -> list[Contact]:
        """Ping ``addrs``, the seeds and all known contacts, then look up this node's own id, so
        that its neighbours meet it. Returns the neighbours, or an empty list if nobody answered.
        Concurrent calls share one run."""
        if self._joining is None or self._joining.done():
            self._joining = self._spawn(self._join(tuple(addrs)))
        return await asyncio.shield(self._joining)

    async def _join(self, addrs: tuple[SocketAddress, ...]) -> list[Contact]:
        router, asker = self.protocol.router, self.protocol.asker
        taken_before = asker.taken
        if self._may_be_lost_in_a_router():
            with contextlib.suppress(InvalidConfig):
                await self.listen(0, self._asked_for[0])
                self.counters["port_changed"] += 1
        known = self.bootstrappable_neighbors()
        seeds = self.protocol.acquaintances.seeds
        addresses = dict.fromkeys((*seeds, *addrs, *known, *router.former))
        greetings = {self._spawn(self.bootstrap_node(address)) for address in addresses}
        await self._until_joined(greetings | self._greet_names())
        self._was_cut_off = asker.took_nothing_since(taken_before)
        self._adopt_fitting_id()
        self._schedule_rejoin(bool(len(router)))
        return await self.walks.find_nodes(self.node.id)

    def _may_be_lost_in_a_router(self) -> bool:
        """Whether nobody has answered for so long that another port is worth a try. A router may
        hold on to where it once sent the packets of this one, such as a captive portal, or an
        uplink that is gone; and it goes on to do so for as long as packets come. Nobody minds if
        a client has another port."""
        has_failed = self._rejoin_delay_s >= self._limits.upkeep_interval_s
        is_client = not self.protocol.reachability.proven
        return has_failed and is_client and not len(self.protocol.router) and not self._asked_for[1]

    async def _until_joined(self, greetings: set[asyncio.Task[Any]]) -> None:
        """Wait for all answers, or for the first and a little longer; but not for ever. Others may
        still come."""
        has_joined = False
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                while greetings and not has_joined:
                    done, greetings = await asyncio.wait(
                        greetings, return_when=asyncio.FIRST_COMPLETED
                    )
                    has_joined = any(greeting.result() for greeting in done)
        except TimeoutError:
            return
        if greetings:
            await asyncio.wait(greetings, timeout=JOIN_PATIENCE_S)

    def _greet_names(self) -> set[asyncio.Task[Any]]:
        """Resolve the seed names, and ping what they stand for: at every join, since their
        addresses may have changed. A name that an earlier join still waits for is not asked again.
        """
        names = [seed for seed in self._seeds if pack_ip(seed[0]) is None]
        resolve = self._settings.resolve_name
        for name in names if resolve is not None else ():
            if name not in self._resolving:
                self._resolving[name] = task = self._spawn(self._greet_name(name))
                task.add_done_callback(partial(self._greeted_name, name))
        return set(self._resolving.values())

    async def _greet_name(self, name: SocketAddress) -> bool:
        """Whether anybody answered at what a seed name stands for."""
        assert self._settings.resolve_name is not None  # noqa: S101
        try:
            found = await self._settings.resolve_name(*name)
        except Exception:
            # Whatever a resolver raises. What the name last stood for may still be right.
            self.counters["seed_name_not_resolved"] += 1
            return False
        self._named[name] = self._allowed(name, found)[:SEED_ADDRESSES_MAX]
        literal = (seed for seed in self._seeds if pack_ip(seed[0]) is not None)
        named = (address for addresses in self._named.values() for address in addresses)
        self.protocol.acquaintances.seeds = dict.fromkeys((*literal, *named))
        return any(await asyncio.gather(*map(self.bootstrap_node, self._named[name])))

    @property
    def why_no_nodes(self) -> str:
        """What may be the reason if there is nobody to ask, in words; empty if none is known."""
        names = (seed for seed in self._seeds if pack_ip(seed[0]) is None)
        missing = dict.fromkeys(name[0] for name in names if name not in self._named)
        if not missing:
            return ""
        return f"{', '.join(missing)} {'does' if len(missing) == 1 else 'do'} not resolve"

    def _greeted_name(self, name: SocketAddress, _: asyncio.Task[bool]) -> None:
        del self._resolving[name]

    def _allowed(self, name: SocketAddress, found: list[SocketAddress]) -> list[SocketAddress]:
        """The addresses of ``name`` at which a node may be. The first one refused is logged, once
        per name; a literal address would have been rejected at construction."""
        may_be_node = self.protocol.acquaintances.may_be_node
        refused = [address for address in found if not may_be_node(pack_ip(address[0]))]
        if refused:
            self.counters["seed_address_refused"] += len(refused)
        if refused and name not in self._refused_names:
            self._refused_names.add(name)
            lab = "" if self._settings.private_addresses else LAB_HINT
            log.warning(
                "%s:%d resolves to %s, which cannot be the address of a node on the Internet%s",
                *name,
                refused[0][0],
                lab,
            )
        return [address for address in found if address not in refused]

    async def bootstrap_node(self, addr: SocketAddress) -> Contact | None:
        """Ping an address whose node id is not known yet."""
        packed = pack_ip(addr[0])
        if packed is None or not self.protocol.acquaintances.may_be_node(packed):
            return None
        happened, reply = await self.protocol.ping(addr, self.node.id)
        if not happened or reply is None or reply.sender == self.node.id:
            return None
        contact = Contact(reply.sender, packed, addr[1])
        self.protocol.handle_call_response((True, reply), contact)
        return contact

    def bootstrappable_neighbors(self) -> list[SocketAddress]:
        return [contact.address for contact in self.protocol.router.closest(self.node.long_id)]

    def refresh_table(self) -> None:
        """Called by ``listen``. Replaces upstream's timer, which refreshes every bucket at once,
        at the same time on all nodes."""
        if self._upkeep_task is None:
            self._upkeep_task = self._spawn(self._upkeep())

    async def _upkeep(self) -> None:
        interval_s = self._limits.upkeep_interval_s
        while True:
            wait_s = interval_s if len(self.protocol.router) else self._rejoin_delay_s
            began_at = self._settings.elapsed()
            await asyncio.sleep(self._settings.jitter(wait_s))
            if self._settings.elapsed() - began_at > 10 * interval_s:
                # This machine slept while the network went on: every contact is in doubt.
                self.counters["overslept"] += 1
                self._rejoin_at = 0.0
                await self.bootstrap()
            await self._refresh_table()

    async def _refresh_table(self) -> None:
        """One round of upkeep: a little of each periodic duty. A STORE goes only to a node that is
        known to lack the record."""
        router, asker = self.protocol.router, self.protocol.asker
        taken_before = asker.taken
        self.storage.drop_expired()
        for _ in self.storage.catch_up():
            await asyncio.sleep(0)
        self._adopt_fitting_id()
        few = len(router) < self.ksize // 2 and not self.is_first
        # With nobody left, at once, however well the last join went.
        is_due = not len(router) or self._settings.elapsed() >= self._rejoin_at
        if self._was_cut_off or (few and is_due):
            await self.bootstrap()
        is_nearly_alone = len(router) < self.alpha
        greets = is_nearly_alone or self._settings.elapsed() >= self._greet_at
        if len(router) and greets:  # Otherwise all of them have just been greeted in vain.
            self._greet_at = self._settings.elapsed() + self._limits.greet_interval_s
            await self._greet_lost_ones(self.alpha if is_nearly_alone else 1)
        if self._looked_around_serving is not self.protocol.reachability.proven and len(router):
            # Once after joining, for nodes that joined at the same moment and were not there yet;
            # and once after becoming a server, so that the neighbours meet it.
            self._looked_around_serving = self.protocol.reachability.proven
            await self.walks.find_nodes(self.node.id)
        self._ask_for_proof()
        for contact in router.silent_contacts(self.alpha):
            self.protocol.check(contact)
        for target in self.protocol.get_refresh_ids()[:1]:
            await self.walks.find_nodes(target)
            self.counters["bucket_refreshed"] += 1
        self._spawn(self.walks.hand_over_again())  # A task: it waits for the answers of others.
        await self.walks.look_after_one()
        self._was_cut_off |= asker.took_nothing_since(taken_before)

    def _ask_for_proof(self) -> None:
        """Ping a contact if it is in doubt whether strangers can reach this node: every ping then
        asks for the proof. Another contact each time, since some cannot, or will not, arrange
        it."""
        reachability, now = self.protocol.reachability, self._settings.elapsed()
        reachability.time_passed(now)
        contacts = list(self.protocol.router)
        if not reachability.open or not contacts:
            return
        host_of = self._settings.host_of
        # Ask contacts that are no strangers: the others, left alone, stay able to give the proof.
        others = [it for it in contacts if not reachability.is_stranger(host_of(it.address), now)]
        strangers = 1 - len(others) / len(contacts)
        if reachability.proven and not strangers:
            return  # Nobody could prove it now; only contacts left alone become strangers again.
        if len(others) < PROOF_HELPERS:
            others = contacts
        self._proof_asked += 1
        self.protocol.check(others[self._proof_asked % len(others)])
        if not self.protocol.asker.has_network:
            return  # The request has not left this machine.
        if reachability.requested(strangers):
            self.counters["not_reachable_any_more"] += 1
            log.warning(
                "no stranger can reach the UDP port of this node; it serves nobody until one can"
            )

    def _met_newcomer(self) -> None:
        """Newcomers arrive in groups, so the hand-over of records waits a little."""
        delay_s = self._settings.jitter(self._limits.hand_over_delay_s)
        self._spawn(self._hand_over_after(delay_s))

    async def _hand_over_after(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self.walks.hand_over()

    async def _greet_lost_ones(self, most: int) -> None:
        """Ping that many seeds or former contacts that are not in the table.

        A network that was cut in two heals only if a node of one half asks a node of the other:
        each half has dropped the other, and may be too large to notice that anybody is missing. In
        a small one every node counts, and a few pings reach them all.
        """
        known = dict.fromkeys((*self.protocol.acquaintances.seeds, *self.protocol.router.former))
        lost = [address for address in known if not self.protocol.router.has_address(address)]
        if not lost:
            return
        greeted = [lost[(self._greeted + i) % len(lost)] for i in range(min(most, len(lost)))]
        self._greeted += len(greeted)
        met = await asyncio.gather(*map(self.bootstrap_node, greeted))
        if any(met):
            self.counters["lost_node_met_again"] += sum(map(bool, met))
            await self.walks.find_nodes(self.node.id)

    def _schedule_rejoin(self, joined: bool) -> None:
        """An empty table is a reason to try again soon; a small one is not, since the whole network
        may be small."""
        limits = self._limits
        if joined:
            self._rejoin_delay_s = limits.rejoin_delay_min_s
            delay_s = limits.refresh_interval_s
        else:
            delay_s = self._rejoin_delay_s
            self._rejoin_delay_s = min(2 * delay_s, limits.upkeep_interval_s)
        self._rejoin_at = self._settings.elapsed() + delay_s / 2

    def _adopt_fitting_id(self) -> None:
        """Adopt an id that fits the address at which others see this node: they take no node whose
        id does not."""
        votes, now_s = self.protocol.acquaintances.votes, self._settings.elapsed()
        seen = votes.winner()
        if seen is None:
            lone = votes.only()
            if lone is None:
                self._lone_vote_at = max(self._lone_vote_at, now_s + LONE_VOTE_AFTER_S)
            elif now_s >= self._lone_vote_at:
                seen = lone
        if seen is not None and seen != self._seen:
            if self._seen is not None:
                self.protocol.reachability.moved()
            self._seen = seen
            self._lone_vote_at = now_s + LONE_VOTE_INTERVAL_S
        if seen is None or fits(self.node.id, seen) or self._settings.server is False:
            return
        node_id = new_node_id(seen, self._settings.entropy)
        self.node = type(self.node)(node_id)
        self.protocol.source_node = self.node
        self.protocol.router.recenter(self.node)
        self.storage.center = node_id
        self.counters["node_id_changed"] += 1
        # From now on, others take this node.
        self._rejoin_at = now_s

    async def ensure_contacts(self) -> None:
        """Join if the table is empty, or nobody in it may be left."""
        if self._was_cut_off or not len(self.protocol.router):
            await self.bootstrap()

    # Upstream's API. Its keys are strings, which it hashes; these are raw peerIds.

    async def get(self, key: bytes) -> bytes | None:
        """The newest record of the peer ``key``."""
        await self.ensure_contacts()
        search = self.walks.new_search(key, 0)
        await self.walks.search(search)
        record = search.findings.record
        return None if record is None else record.encode()

    async def set(self, key: bytes, value: bytes) -> bool:
        """Store the record ``value`` under the peerId ``key``, both bytes."""
        return await self.set_digest(key, value)

    async def set_digest(self, dkey: bytes, value: bytes) -> bool:
        await self.ensure_contacts()
        try:
            record = self.storage.verify(dkey, value)
        except InvalidRecord:
            return False
        return (await self.walks.put(dkey, record)).stored > 0

    def save_state(self, fname: str) -> NoReturn:
        """Disabled: upstream pickles. Use :mod:`lookup_dht.state.state_file`."""
        raise NotImplementedError("a node's state is written by lookup_dht.state.state_file")

    @classmethod
    async def load_state(cls, fname: str, port: int, interface: str = "") -> NoReturn:
        raise NotImplementedError("a node's state is read by lookup_dht.state.state_file")

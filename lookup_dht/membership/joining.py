"""Coming into the network: at the start, after a loss, and into the other half of one that was cut
in two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final, TypeAlias

from lookup_dht.membership.own_id import OwnId
from lookup_dht.membership.seed_names import SeedNames
from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.settings import NodeSettings
from lookup_dht.walks.record_walks import RecordWalks
from lookup_dht.wire.contact import Contact, SocketAddress, pack_ip

__all__ = ["Joining", "Spawn"]

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]
"""Runs a coroutine as a task that ends with the node at the latest."""

PATIENCE_S: Final = 0.5
"""How long a node that joins waits for others once one has answered: they may be down, or a name
server silent."""
TIMEOUT_S: Final = 3.0
"""How long it waits if nobody answers: longer than any ping takes, and shorter than a lookup, which
then can still say that there is nobody to ask. A silent name server holds up a name for ten seconds
or more."""

ASKED_AGAIN_AT_ONCE: Final = 16
"""A node in a large network has about a hundred contacts, which are so asked in three minutes."""


class Joining:
    """How one node joins, and when it does so again."""

    def __init__(
        self,
        protocol: LookupProtocol,
        walks: RecordWalks,
        seeds: Iterable[SocketAddress],
        settings: NodeSettings,
        spawn: Spawn,
        change_port: Callable[[], Awaitable[None]],
    ) -> None:
        """:param change_port: may do nothing."""
        self._protocol = protocol
        self._router = protocol.router
        self._acquaintances = protocol.acquaintances
        self._walks = walks
        self._settings = settings
        self._limits = settings.limits
        self._spawn = spawn
        self._change_port = change_port
        self.seeds: Final = SeedNames(seeds, self._acquaintances, settings, protocol.counters)
        self._own_id = OwnId(
            self._router.sightings, protocol.reachability, settings.entropy, settings.elapsed()
        )
        self._running: asyncio.Task[list[Contact]] | None = None
        self._resolving: dict[SocketAddress, asyncio.Task[bool]] = {}
        self._greeted = 0
        self._was_cut_off = False
        """Whether this machine had no network when it last sent something: those who answered
        before may be gone by the time that it has one again."""
        self._again_at = 0.0
        self._delay_s = self._limits.rejoin_delay_min_s

    @property
    def is_first(self) -> bool:
        """Whether this node knows of no other and never did: others can only join through it."""
        return self.seeds.is_empty and not self._router.former and not len(self._router)

    # When to join.

    @property
    def retry_s(self) -> float:
        """How long a node without contacts waits until it tries again."""
        return self._delay_s

    @property
    def is_due(self) -> bool:
        """Whether to join again now. With nobody left, at once, however well the last time went."""
        if self._was_cut_off:
            return True
        few = len(self._router) < self._limits.replication // 2 and not self.is_first
        return few and (not len(self._router) or self._settings.elapsed() >= self._again_at)

    def note_cut_off(self, taken_before: int) -> None:
        """Whether what was sent since then has left this machine."""
        self._was_cut_off |= self._protocol.asker.took_nothing_since(taken_before)

    def _schedule(self) -> None:
        """An empty table is a reason to try again soon; a small one is not, since the whole network
        may be small."""
        if len(self._router):
            self._delay_s = self._limits.rejoin_delay_min_s
            delay_s = self._limits.refresh_interval_s
        else:
            delay_s = self._delay_s
            self._delay_s = min(2 * delay_s, self._limits.upkeep_interval_s)
        self._again_at = self._settings.elapsed() + delay_s / 2

    # Joining.

    async def join(self, addresses: Iterable[SocketAddress] = ()) -> list[Contact]:
        """Ping ``addresses``, the seeds and all known contacts, then look up this node's own id, so
        that its neighbours meet it. Returns the neighbours, or an empty list if nobody answered.
        Concurrent calls share one run."""
        if self._running is None or self._running.done():
            self._running = self._spawn(self._join(tuple(addresses)))
        return await asyncio.shield(self._running)

    async def ensure_contacts(self) -> None:
        """Join if the table is empty, or nobody in it may be left."""
        if self._was_cut_off or not len(self._router):
            await self.join()

    async def _join(self, addresses: tuple[SocketAddress, ...]) -> list[Contact]:
        taken_before = self._protocol.asker.taken
        if self._may_be_lost_in_a_router():
            await self._change_port()
        known = (contact.address for contact in self._router.closest(self._router.node.long_id))
        everybody = (*self._acquaintances.seeds, *addresses, *known, *self._router.former)
        greetings = {self._spawn(self._met(address)) for address in dict.fromkeys(everybody)}
        await self._until_joined(greetings | self._greet_names())
        self._was_cut_off = self._protocol.asker.took_nothing_since(taken_before)
        self.adopt_fitting_id()
        self._schedule()
        return await self._walks.find_nodes(self._protocol.source_node.id)

    def _may_be_lost_in_a_router(self) -> bool:
        """Whether nobody has answered for so long that another port is worth a try. A router may
        hold on to where it once sent the packets of this one, such as a captive portal, or an
        uplink that is gone; and it goes on to do so for as long as packets come. Nobody minds if
        a client has another port."""
        has_failed = self._delay_s >= self._limits.upkeep_interval_s
        return has_failed and not self._protocol.reachability.proven and not len(self._router)

    async def _until_joined(self, greetings: set[asyncio.Task[bool]]) -> None:
        """Wait for all answers, or for the first and a little longer; but not for ever. Others may
        still come."""
        has_joined = False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while greetings and not has_joined:
                    done, greetings = await asyncio.wait(
                        greetings, return_when=asyncio.FIRST_COMPLETED
                    )
                    has_joined = any(greeting.result() for greeting in done)
        except TimeoutError:
            return
        if greetings:
            await asyncio.wait(greetings, timeout=PATIENCE_S)

    def adopt_fitting_id(self) -> None:
        """Adopt an id that fits the address at which others see this node, if it is to serve."""
        now_s = self._settings.elapsed()
        bound = pack_ip(self._protocol.host)
        node_id = self._own_id.instead_of(self._protocol.source_node.id, now_s, bound)
        if node_id is not None and self._settings.server is not False:
            self._protocol.take_id(node_id)
            # From now on, others take this node.
            self._again_at = now_s

    def count_again(self) -> None:
        """Ask contacts anew where they see this node, if some of them say that it has moved: most
        others would say so in a quarter of an hour only."""
        since_s = self._own_id.disputed_since_s
        if since_s is not None and self._settings.server is not False:
            for contact in self._router.silent_since(since_s, ASKED_AGAIN_AT_ONCE):
                self._acquaintances.check(contact)

    # Greeting.

    async def greet(self, address: SocketAddress) -> Contact | None:
        """Ping an address whose node id is not known yet."""
        packed = pack_ip(address[0])
        if packed is None or not self._acquaintances.may_be_node(packed):
            return None
        node = self._protocol.source_node
        happened, reply = await self._protocol.ping(address, node.id)
        if not happened or reply is None or reply.sender == node.id:
            return None
        contact = Contact(reply.sender, packed, address[1])
        self._protocol.handle_call_response((True, reply), contact)
        return contact

    async def _met(self, address: SocketAddress) -> bool:
        return await self.greet(address) is not None

    def _greet_names(self) -> set[asyncio.Task[bool]]:
        """Resolve the seed names, and ping what they stand for: at every join, since their
        addresses may have changed. A name that an earlier join still waits for is not asked again.
        """
        for name in self.seeds.names:
            if name not in self._resolving:
                self._resolving[name] = task = self._spawn(self._met_by_name(name))
                task.add_done_callback(partial(self._resolved, name))
        return set(self._resolving.values())

    async def _met_by_name(self, name: SocketAddress) -> bool:
        return any(await asyncio.gather(*map(self._met, await self.seeds.resolve(name))))

    def _resolved(self, name: SocketAddress, _: asyncio.Task[bool]) -> None:
        del self._resolving[name]

    async def greet_lost_ones(self, most: int) -> None:
        """Ping that many seeds or former contacts that are not in the table.

        A network that was cut in two heals only if a node of one half asks a node of the other:
        each half has dropped the other, and may be too large to notice that anybody is missing. In
        a small one every node counts, and a few pings reach them all.
        """
        known = dict.fromkeys((*self._acquaintances.seeds, *self._router.former))
        lost = [address for address in known if not self._router.has_address(address)]
        if not lost:
            return
        greeted = [lost[(self._greeted + i) % len(lost)] for i in range(min(most, len(lost)))]
        self._greeted += len(greeted)
        met = await asyncio.gather(*map(self._met, greeted))
        if any(met):
            self._protocol.counters["lost_node_met_again"] += sum(met)
            await self._walks.find_nodes(self._protocol.source_node.id)

"""Finding, storing and looking after records: everything that walks towards a peerId.

A record's owner publishes it again in time; nothing here prolongs one. Records of others are kept
where lookups go: nodes found to lack the newest one get it, new neighbours inherit records, and a
record that nobody has stored or walked for in an hour is looked after.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from egtp.errors import InvalidRecord
from egtp.values.comm_record import SignedCommRecord
from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.settings import NodeSettings
from lookup_dht.table.kademlia_table import NEWCOMERS_MAX
from lookup_dht.walks.findings import Findings, Holder
from lookup_dht.walks.inheritance import RANK_LIKELY, inheritances, is_among
from lookup_dht.walks.kademlia_crawl import LookupCrawl, OnReply
from lookup_dht.walks.network_size import CROWDING_MIN, SAMPLES_SURE, NetworkSize
from lookup_dht.walks.newcomers import Newcomers
from lookup_dht.walks.search import Search
from lookup_dht.walks.store_round import StoreRound
from lookup_dht.wire.contact import Contact, SocketAddress
from lookup_dht.wire.datagram import Method, Reply

__all__ = ["RecordWalks", "Stored"]


PUBLISHED_MAX: Final = 64
"""Peers whose records are published through this node: usually just its own."""
LOOKED_THROUGH_AT_ONCE: Final = 256
"""Records examined in one go for those that a newcomer should have..."""
LOOK_PAUSE_S: Final = 0.01
"""...and the pause after that, much longer than it takes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How many nodes were asked to store a record, and what they answered."""

    asked: int
    stored: int
    newer_held: int
    networks: int = 0
    """How many different /24 (IPv6: /48) stored it."""
    refused: int = 0
    crowding: float = 1.0
    """How many times as dense as elsewhere the nodes around the key are."""


class RecordWalks:
    """The walks of one node."""

    def __init__(
        self,
        protocol: LookupProtocol,
        storage: RecordStore,
        settings: NodeSettings,
        counters: Counter[str],
    ) -> None:
        self._protocol = protocol
        self._storage = storage
        self._settings = settings
        self._limits = settings.limits
        self._counters = counters
        self._newcomers = Newcomers(self._limits.hand_over_interval_s, NEWCOMERS_MAX)
        self._looking = asyncio.Lock()
        self._stored_by: dict[bytes, dict[SocketAddress, Contact]] = {}
        """By peerId and address: the nodes that stored the record last published from here."""
        self._last_search: tuple[Search, float] | None = None
        """The last search that ran to its end, and when it did."""
        self.size: Final = NetworkSize(self._limits.replication, self._surroundings)

    # Walking

    async def find_nodes(self, target: bytes) -> list[Contact]:
        """The k nodes closest to ``target``."""
        return await self._walk(self._crawl(target))

    def _crawl(
        self, target: bytes, on_reply: OnReply | None = None, *, whole_region: bool = False
    ) -> LookupCrawl:
        router = self._protocol.router
        node = type(self._protocol.source_node)(target)
        router.touch(node)
        radius = self.size.radius(target, self._settings.elapsed()) if whole_region else 0
        peers = router.closest(node.long_id)
        witnesses = router.spread(self._limits.witnesses) if whole_region else []
        return LookupCrawl(
            self._protocol, node, peers, self._settings, on_reply,
            radius=radius, witnesses=witnesses,
        )  # fmt: skip

    async def _walk(self, crawl: LookupCrawl, sequence: int | None = None) -> list[Contact]:
        find = crawl.find() if sequence is None else crawl.find_value(sequence)
        nodes = await find
        if crawl.node.id != self._protocol.source_node.id:
            distances = [contact.long_id ^ crawl.node.long_id for contact in nodes]
            self.size.note(crawl.node.id, distances, self._settings.elapsed())
        return nodes

    def _surroundings(self) -> list[int]:
        own_id = self._protocol.source_node.long_id
        return [contact.long_id ^ own_id for contact in self._protocol.router.closest(own_id)]

    # Finding

    def new_search(self, peer_id: bytes, floor: int) -> Search:
        """A search for :meth:`search` to carry out. No record below ``floor`` is accepted."""
        return self._search_for(peer_id, Findings(self._storage.record(peer_id), floor))

    def _search_for(self, peer_id: bytes, findings: Findings) -> Search:
        return Search(peer_id, findings, self._protocol.asker.taken)

    async def search(self, search: Search, known: int = 0) -> None:
        """Ask all nodes in the neighbourhood of the peerId, unless cancelled. Records up to the
        sequence ``known`` need not be sent."""
        findings = search.findings

        def on_reply(contact: Contact, reply: Reply) -> None:
            search.heard += 1
            record = self._record_in(reply, search.peer_id, findings)
            sequence = reply.sequence if record is None else record.sequence
            findings.holders[contact.compact] = Holder(contact, sequence, reply.token)
            if record is not None:
                findings.add(record)
                search.tell()

        crawl = self._crawl(search.peer_id, on_reply, whole_region=True)
        try:
            search.closest = await self._walk(crawl, known)
        finally:
            search.asked = crawl.walk.asked
        search.over = True
        self._last_search = search, self._settings.elapsed()
        search.tell()

    def _found_nothing(self, peer_id: bytes) -> Search | None:
        """A search of a moment ago that found no record of the peer, if there was one; returned
        once.

        A node that starts first looks its own record up. After that it knows the neighbourhood and
        has the tokens, so publishing needs no second walk.
        """
        last, self._last_search = self._last_search, None
        if last is None:
            return None
        search, ended_at = last
        findings = search.findings
        empty = (
            search.peer_id == peer_id
            and self._settings.elapsed() < ended_at + self._limits.absent_cache_s
            and findings.record is None
            and not findings.invalid
            and not findings.expired
            and not any(holder.sequence for holder in findings.holders.values())
        )
        return search if empty and search.closest else None

    def _record_in(
        self, reply: Reply, peer_id: bytes, findings: Findings
    ) -> SignedCommRecord | None:
        if not reply.record:
            return None
        try:
            record = self._storage.verify(peer_id, reply.record)
        except InvalidRecord:
            findings.invalid += 1
            return None
        if record.expired(self._settings.unix_time()):
            self._counters["record_expired"] += 1
            findings.expired += 1
            return None
        return record

    def repair(self, search: Search) -> None:
        """Give the newest record to nodes that were asked and lack it, without waiting.

        If the search ended early, the neighbourhood is unknown: then only nodes with an older
        record get it.
        """
        record = search.findings.record
        if record is None or record.expired(self._settings.unix_time()):
            return
        data = record.encode()
        own = self._storage.held(search.peer_id)
        if own is not None and own[0] < record.sequence:
            self._storage.put(search.peer_id, data)
        target = int.from_bytes(search.peer_id, "big")
        closest, own_distance = search.closest, self._protocol.source_node.long_id ^ target
        places = self._limits.replication
        if own is not None and len(closest) >= places:
            # If this node is itself one of the k, there are only k - 1 places for others.
            places -= own_distance < closest[places - 1].long_id ^ target
        near = {contact.compact for contact in closest[:places]}
        lacking = [
            holder
            for holder in search.findings.lacking()
            if holder.sequence or holder.contact.compact in near
        ]
        # Any of them: those that answer first may be liars, who always lack it.
        lacking.sort(key=lambda _: self._settings.entropy(4))
        for holder in lacking[: self._limits.repairs_max]:
            self._counters["record_repaired"] += 1
            self._give(holder, search.peer_id, data)

    def _give(self, holder: Holder, peer_id: bytes, data: bytes) -> None:
        self._protocol.ask(
            holder.contact, Method.STORE, _ignore, key=peer_id, record=data, token=holder.token
        )

    # Storing

    async def put(self, peer_id: bytes, record: SignedCommRecord) -> Stored:
        """Store on all nodes in the neighbourhood of the peerId, and here if this node is in it;
        that copy does not count.

        Also on nodes known to hold an older record. The size of the network is an estimate, and so
        is where the neighbourhood ends: a few nodes just outside, left with the older record, would
        agree on it when a walk comes in from that side.
        """
        search = self._found_nothing(peer_id)
        if search is None:
            search = self._search_for(peer_id, Findings(None, record.sequence + 1))
            await self.search(search, record.sequence)
            self._last_search = None  # Not for reuse: there is about to be a record.
        nodes, findings = search.closest, search.findings
        if findings.record is not None:
            return Stored(len(nodes), 0, 1, 0)
        outdated = {
            **self._stored_by.get(peer_id, {}),
            **{
                holder.contact.address: holder.contact
                for holder in findings.holders.values()
                if 0 < holder.sequence < record.sequence
            },
        }
        data = record.encode()
        self._keep_if_close(peer_id, data, nodes)
        store_round = StoreRound(self._protocol, peer_id, data, self._limits)
        # By address: a node that restarted with another id is still one node.
        targets = list({**outdated, **{node.address: node for node in nodes}}.values())
        crowding, _ = await asyncio.gather(
            self._crowding(peer_id, nodes),
            store_round.run([(node, findings.token_of(node)) for node in targets]),
        )
        self._note_stored(peer_id, store_round.stored_by)
        return Stored(
            asked=len(targets),
            stored=len(store_round.stored_by),
            newer_held=store_round.newer_held,
            refused=store_round.refused,
            networks=len({contact.group for contact in store_round.stored_by}),
            crowding=crowding,
        )

    def _note_stored(self, peer_id: bytes, nodes: Iterable[Contact]) -> None:
        target = int.from_bytes(peer_id, "big")
        nearest = sorted(nodes, key=lambda node: node.long_id ^ target)
        # As a network grows, the farthest are soon far outside: leave them the record until it
        # expires.
        kept = nearest[: 2 * self._limits.region_nodes_max]
        self._stored_by.pop(peer_id, None)
        self._stored_by[peer_id] = {node.address: node for node in kept}
        if len(self._stored_by) > PUBLISHED_MAX:
            del self._stored_by[next(iter(self._stored_by))]

    async def _crowding(self, key: bytes, nodes: Iterable[Contact]) -> float:
        """How many times as dense as elsewhere the nodes around ``key`` are. Takes new samples
        elsewhere before it returns a suspicious value."""
        target = int.from_bytes(key, "big")
        distances = [it.long_id ^ target for it in nodes]
        began_at = self._settings.elapsed()
        crowding = self.size.crowding(key, distances, began_at)
        if crowding < CROWDING_MIN:
            return crowding
        self._counters["crowding_looked_into"] += 1
        elsewhere = [self._settings.entropy(len(key)) for _ in range(SAMPLES_SURE)]
        await asyncio.gather(*map(self.find_nodes, elsewhere))
        return self.size.crowding(key, distances, self._settings.elapsed(), since=began_at)

    def _keep_if_close(self, peer_id: bytes, data: bytes, nodes: list[Contact]) -> None:
        if not self._protocol.reachability.proven:
            return
        target = int.from_bytes(peer_id, "big")
        own_distance = self._protocol.source_node.long_id ^ target
        closer = sum(node.long_id ^ target < own_distance for node in nodes)
        # Not k alone: the whole region stores it, and neighbours would give it to this node.
        near = closer < max(self._limits.replication, len(nodes))
        if near or self._storage.held(peer_id) is not None:  # Replace an older copy in any case.
            self._storage.put(peer_id, data)

    # Looking after

    async def hand_over(self) -> None:
        """Give records to new contacts of the table that are closer to their keys."""
        router, host_of = self._protocol.router, self._settings.host_of
        newcomers, router.newcomers = router.newcomers, {}
        # Of an address, the latest only: a node that has just learned where it is has another id.
        latest = {newcomer.address: newcomer for newcomer in newcomers.values()}
        met = [(host_of(address), newcomer) for address, newcomer in latest.items()]
        await self._give_to_all(self._newcomers.met(met, self._settings.elapsed()))

    async def hand_over_again(self) -> None:
        """Examine newcomers a second time, or those for the first that had to wait."""
        await self._give_to_all(self._newcomers.again(self._settings.elapsed()))

    async def _give_to_all(self, newcomers: Iterable[Contact]) -> None:
        for newcomer in newcomers:
            async with self._looking:  # However many come, examine one at a time.
                due = await self._due_to(newcomer)
            if due:
                await self._offer(newcomer, due[: self._limits.hand_over_max])

    async def _due_to(self, newcomer: Contact) -> list[bytes]:
        """Keys of records that this node should give to ``newcomer``: as many as it is given at a
        time, or a few more. Yields to the loop in between, as there may be thousands of records."""
        router, replication = self._protocol.router, self._limits.replication
        reach = self.size.reach(RANK_LIKELY * replication, self._settings.elapsed())
        keys, due = list(self._storage.keys()), list[bytes]()
        for first in range(0, len(keys), LOOKED_THROUGH_AT_ONCE):
            if router.is_new_node(newcomer) or len(due) >= self._limits.hand_over_max:
                break  # The newcomer is gone already, or has enough to take.
            due += inheritances(
                newcomer,
                keys[first : first + LOOKED_THROUGH_AT_ONCE],
                self._protocol.source_node.long_id,
                router.closest,
                router.surveyed,
                replication,
                reach,
            )
            await asyncio.sleep(LOOK_PAUSE_S)
        return due

    async def _offer(self, newcomer: Contact, keys: Iterable[bytes]) -> None:
        """Ask the newcomer for each record, which also brings the token, and give it those that it
        lacks; a few at once."""
        asker, places = self._protocol.asker, asyncio.Semaphore(self._limits.parallel_queries)

        async def offer(key: bytes) -> None:
            async with places:
                held = self._storage.held(key)
                # After two unanswered queries the newcomer is gone from the table: stop.
                if held is None or self._protocol.router.is_new_node(newcomer):
                    return
                query = asker.query(Method.FIND_VALUE, key, sequence=held[0])
                _, reply = await asker.ask_and_wait(newcomer.address, query, newcomer)
                if reply is None or not reply.server or reply.sequence >= held[0]:
                    return
                if is_among(newcomer, key, reply.nodes, self._limits.replication):
                    self._counters["record_handed_over"] += 1
                    self._give(Holder(newcomer, reply.sequence, reply.token), key, held[1])

        await asyncio.gather(*map(offer, keys))

    async def look_after_one(self) -> None:
        """Walk the neighbourhood of the record most overdue for care, if any, and give it to the
        nodes that lack it."""
        key = self._storage.untended()
        if key is None:
            return
        self._storage.looked_after(key)
        search = self.new_search(key, 0)
        record = search.findings.record
        # The sequence tells other holders not to send the record, and that they need not walk too.
        await self.search(search, 0 if record is None else record.sequence)
        self._counters["record_looked_after"] += 1
        self.repair(search)


def _ignore(_: Reply | None) -> None:
    """Whether it was stored does not matter: the record will be looked after again."""

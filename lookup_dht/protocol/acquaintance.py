"""Whom a node believes, and how a stranger becomes a contact: by answering, never by asking.

A contact enters the table only after it has answered a query of ours at its address. So a stranger
who asks is pinged once, if the table has room for it. A node that wants to know whether strangers
can reach it is pinged on our behalf, under the same rate limit: by one of our contacts, or by
another node that wants to know. In a young network the asker talks to each of the few servers all
the time, so that a ping from none of them would prove anything.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable
from typing import Final

from egtp.values.identity import NODE_ID_BYTES
from lookup_dht.protocol.asking import Asker
from lookup_dht.protocol.rate_limit import Bucket, SourceLimit
from lookup_dht.settings import NodeSettings
from lookup_dht.table.kademlia_table import LookupTable
from lookup_dht.wire.contact import AddressPolicy, Contact, SocketAddress
from lookup_dht.wire.datagram import Method, Reply
from lookup_dht.wire.node_id import fits, fits_public

__all__ = ["Acquaintances"]

SEEKERS_MAX: Final = 8
"""So many of those who asked for proof are remembered; with hundreds of contacts they are few."""
SEEKER_S: Final = 60.0
"""For so long: their routers still let this node in."""


class Acquaintances:
    """The acquaintances of one node."""

    def __init__(self, router: LookupTable, settings: NodeSettings, counters: Counter[str]) -> None:
        self.asker: Asker
        self.seeds: dict[SocketAddress, None] = {}
        """Addresses that the user named. Their ids need not fit them: a seed that listens on
        0.0.0.0 learns its address from the first nodes that join."""
        self.family_bytes = 4
        """4 or 16: the length of the addresses that the socket can send to."""
        self.probes: set[SocketAddress] = set()
        """Addresses with a ping under way."""
        self._router = router
        self._settings = settings
        self._counters = counters
        self._fits = fits if settings.private_addresses else fits_public
        self._policy = AddressPolicy(private_addresses=settings.private_addresses)
        self._probes_for = SourceLimit(1.0)
        self._probes_in_all = Bucket(settings.limits.probes_per_s)
        self._seekers: dict[Hashable, tuple[float, Contact]] = {}
        """Who asked for proof lately, and when, by host; the latest last."""

    # Whom to believe.

    def may_be_node(self, packed: bytes | None) -> bool:
        """Whether a node can be at this IP address, as seen from this one."""
        return (
            packed is not None and len(packed) == self.family_bytes and self._policy.allows(packed)
        )

    def believe(self, compact: bytes) -> bool:
        """Whether a node that another suggested may be asked at all. It is given in compact form,
        since most suggestions are never asked, and so never become a Contact."""
        node_id, packed = compact[:NODE_ID_BYTES], compact[NODE_ID_BYTES:-2]
        if node_id == self._router.node.id or len(packed) != self.family_bytes:
            return False
        if not self._policy.allows(packed):
            self._counters["contact_at_refused_address"] += 1
            return False
        if not self._fits(node_id, packed) and Contact.unpack(compact).address not in self.seeds:
            self._counters["contact_id_does_not_fit"] += 1
            return False
        return True

    # Answers, and their absence.

    def answered(self, contact: Contact, reply: Reply | None) -> None:
        """Update the table: a contact that answers enters or stays, a silent one gets a strike."""
        router = self._router
        if reply is None:
            router.strike(contact)
            return
        answered = contact
        if reply.sender != contact.id:
            self._counters["reply_of_another_id"] += 1
            router.remove_contact(contact)
            answered = Contact(reply.sender, contact.packed, contact.port)
        if not reply.server:
            router.remove_contact(answered)
        elif not router.heard(answered) and not (
            self.believe(answered.compact) and router.add_contact(answered)
        ):
            return
        elif not self._settings.private_addresses:  # In a lab, an address identifies nobody.
            router.is_seen(answered, reply.observed[:-2])

    # Queries of others.

    def asked(self, asker: Contact, *, known: bool, server: bool, prove: bool) -> None:
        """A query was answered. At most one more datagram follows to its source address, which may
        be forged."""
        if known and not server:
            # It became a client, or somebody claims so in its name.
            if self._may_ping_for(asker):
                self._probe(asker, tries=1)
        elif prove:
            self._have_reached(asker)
        elif server and not known:
            self._welcome(asker)

    def _welcome(self, stranger: Contact) -> None:
        """Ping a stranger once at its apparent address, if the table has room for it; it enters
        when it answers."""
        if (
            self._router.wants(stranger)
            and self.believe(stranger.compact)
            and self._may_ping_for(stranger)
        ):
            self._probe(stranger, tries=1)

    def check(self, contact: Contact) -> None:
        """Ping a contact in the background, to learn whether it deserves its place."""
        self._probe(contact, tries=2)

    def _have_reached(self, asker: Contact) -> None:
        """Have somebody ping the asker, who wants to know if strangers can reach it."""
        if not self._may_ping_for(asker):
            return
        now, host_of = self._settings.elapsed(), self._settings.host_of
        host = host_of(asker.address)
        self._seekers.pop(host, None)
        seekers = [it for asked_at, it in self._seekers.values() if now - asked_at < SEEKER_S]
        self._seekers[host] = now, asker
        if len(self._seekers) > SEEKERS_MAX:
            del self._seekers[next(iter(self._seekers))]
        number = int.from_bytes(self._settings.entropy(NODE_ID_BYTES), "big")
        contacts = [it for it in self._router.closest(number) if host_of(it.address) != host]
        helpers = contacts + seekers
        if helpers:
            query = self.asker.query(Method.REACH)._replace(address=asker.home)
            self.asker.tell(helpers[number % len(helpers)].address, query)

    def reach(self, asker: Contact, address: bytes) -> None:
        """A contact asks us to ping an address. A forged request makes us send one datagram."""
        self._counters["query_reach"] += 1
        packed, port = address[:-2], int.from_bytes(address[-2:], "big")
        if self._router.is_new_node(asker) or not self.may_be_node(packed) or port == 0:
            self._counters["reach_refused"] += 1
        elif self._may_ping_for(asker):
            somebody = Contact(bytes(NODE_ID_BYTES), packed, port)
            self.asker.ask(somebody.address, self.asker.query(Method.PING), _ignore, None, 1)

    def _may_ping_for(self, asker: Contact) -> bool:
        """Limits what an asker can make this node send to others."""
        host, now = self._settings.host_of(asker.address), self._settings.elapsed()
        if self._probes_for.allow(host, now) and self._probes_in_all.take(now):
            return True
        self._counters["probe_over_rate"] += 1
        return False

    def _probe(self, contact: Contact, tries: int) -> None:
        address = contact.address
        if address in self.probes or len(self.probes) >= self._settings.limits.probes_max:
            return
        ended = functools.partial(self._probe_ended, address)
        query = self.asker.query(Method.PING)
        if self.asker.ask(address, query, ended, contact, tries) is not None:
            self.probes.add(address)

    def _probe_ended(self, address: SocketAddress, _: Reply | None) -> None:
        self.probes.discard(address)


def _ignore(_: Reply | None) -> None:
    """The reply is ignored: the pinged node draws the conclusion, not this one."""

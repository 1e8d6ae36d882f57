"""The settings of a DHT node: its network, its role, its clocks and its limits."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from egtp.values.identity import Entropy
from egtp.values.settings import check_settings

__all__ = ["Clock", "DHTLimits", "NameResolver", "NodeSettings", "SocketOpener"]

Clock = Callable[[], float]
"""Seconds: Unix time, or time since any fixed moment that never runs backward."""

NameResolver = Callable[[str, int], Awaitable[list[tuple[str, int]]]]
"""Turns a host name and a port into (IP address, port) pairs. May raise :class:`OSError`."""

SocketOpener = Callable[[str, int], Any]
"""Opens a UDP socket bound to an IP address and a port. May raise :class:`OSError`."""


MAY_BE_ZERO: Final = frozenset({
    "witnesses", "cache_s", "absent_cache_s", "repairs_max", "hand_over_delay_s", "hand_over_max",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class DHTLimits:
    """The limits and timings of a DHT node: durations in seconds. The defaults suit a network of
    strangers.

    Raises :class:`egtp.InvalidConfig` for a value that cannot work.
    """

    replication: int = 20
    """k: how many nodes hold a record, and how many contacts a bucket holds."""
    parallel_queries: int = 5
    """alpha: how many queries of one walk wait for a reply at a time."""
    soft_timeout_s: float = 0.35
    """An unanswered query gives its place in a walk to another after this long, until round trips
    have been measured; from then on after the time that most of them take, between
    ``soft_timeout_min_s`` and ``reply_timeout_max_s``."""
    soft_timeout_min_s: float = 0.1
    """The least value of that measured time: a busy process answers this late."""
    reply_timeout_min_s: float = 0.3
    """A query is sent again after this long at the earliest."""
    reply_timeout_max_s: float = 0.7
    """A query is sent again after this long at the latest. The second try waits half as long again;
    then the query has failed."""
    walk_queries_max: int = 120
    """Queries of one walk: all that a tar pit, which invents ever closer nodes, can cost."""
    walk_timeout_s: float = 6.0
    """How long a walk may take, whoever is asked. Publishing takes a walk and then the stores, and
    all of it less than ``NodeConfig.lookup_timeout_s``."""
    searches_at_once: int = 32
    """Lookups and publications under way at a time, of different peers; others wait for their turn.
    A node that began hundreds at once would lose the replies in its own socket."""
    searches_per_s: float = 100.0
    """Lookups begun, sustained; two seconds' worth may come at once, and a publication counts for
    two. In a small network each of them asks every node, which answers ``source_queries_per_s``."""
    pending_queries_max: int = 1024
    """Queries waiting for a reply, in all."""
    strikes_max: int = 2
    """Queries in a row that a contact may leave unanswered before it is dropped."""
    group_contacts_per_bucket: int = 2
    """Contacts of one /24 (IPv6: /48) in a bucket, so that the owner of one network cannot fill
    it."""
    group_contacts_max: int = 10
    """The same for the whole table."""
    group_candidates_per_walk: int = 2
    """Nodes of one /24 (IPv6: /48) among those that answer in a walk."""
    group_queries_per_walk: int = 8
    """Nodes of one /24 (IPv6: /48) that a walk was told of and asks, silent ones included.
    Otherwise a node that invents many at one address could have every walk send that address a
    datagram for each."""
    address_queries_per_walk: int = 4
    """How many of these may be at one IP address."""
    region_nodes_max: int = 40
    """How many nodes at most a walk of the whole neighbourhood of a key asks, and a record is
    stored on; about thirty are usual."""
    witnesses: int = 8
    """How many contacts from all over the table such a walk asks as well: the nodes closest to the
    key may all belong to one party that has put itself there."""
    agreement: int = 3
    """An ordinary lookup ends when this many nodes hold the same newest record. A single one is too
    easily stale; ``fresh`` asks all."""
    source_queries_per_s: float = 100.0
    """Queries answered per source (an IPv4 address or IPv6 /64), sustained; four seconds' worth may
    come at once."""
    queries_per_s: float = 2000.0
    """Queries answered in all, sustained: about a tenth of a core; many times as much if all are
    stores of new records, each of which costs a signature check and a write. Half of the burst is
    for those who show that their addresses are not forged; four times as many of the others get
    no more than a way to show it."""
    probes_per_s: float = 20.0
    """Strangers pinged to learn whether they can be reached, sustained. This bounds what a forger
    of source addresses can make this node send."""
    probes_max: int = 64
    """Such pings under way at a time."""
    records_max: int = 10_000
    """Records stored for others, up to about 12 MB."""
    records_per_source: int = 256
    """The same from one /24 (IPv6: /48) while more than half of the store is taken, so that the
    owner of one network cannot fill it."""
    verified_records_max: int = 1024
    """Records whose signature is remembered to be valid."""
    sequences_max: int = 16_384
    """Peers whose highest sequence is remembered after their record is gone."""
    sequence_ahead_max_s: int = 24 * 3600
    """How far a sequence may be ahead of Unix time, which it roughly equals: one further ahead
    would block its owner's later records."""
    lifetime_max_s: int = 24 * 3600 + 600
    """A record with a longer life is not stored; ten minutes allow for clocks that differ."""
    cache_s: float = 60.0
    """How long a record that was found answers later lookups, except those with ``fresh`` or
    ``newer_than``."""
    absent_cache_s: float = 1.0
    """The same for a peer of whom the neighbourhood held no record."""
    cached_max: int = 1024
    """Answers remembered, of either kind."""
    repairs_max: int = 8
    """Stores after one lookup, on nodes that were found to lack the newest record."""
    hand_over_delay_s: float = 1.0
    """How long after meeting a new neighbour it is given records: several arrive together."""
    hand_over_max: int = 64
    """Records handed to one new neighbour at a time."""
    hand_over_interval_s: float = 300.0
    """A host that comes back as new, with another id, is given records again after this long at the
    earliest."""
    care_interval_s: float = 3600.0
    """A record that nobody has stored or looked up nearby for this long is looked after: its
    neighbourhood is walked, and nodes that lack it are given it."""
    care_interval_max_s: float = 8 * 3600.0
    """A record that others keep storing or looking up is looked after too: each holder draws a time
    between ``care_interval_s`` and this."""
    upkeep_interval_s: float = 30.0
    """How often a node looks after its table, plus or minus a random quarter, so that nodes started
    together do not act together."""
    refresh_interval_s: float = 3600.0
    """A bucket without a lookup for this long gets one."""
    refresh_full_interval_s: float = 4 * 3600.0
    """The same for a bucket that is full of contacts that answer pings."""
    check_after_s: float = 900.0
    """A contact that has been silent for this long is pinged; a new one sooner, once it has been
    silent for as long as it had been there, and at least a minute."""
    stranger_after_s: float = 600.0
    """A host that was sent nothing for this long is a stranger, whose query proves that this node
    can be reached: routers forget a UDP flow after two to five minutes (RFC 4787)."""
    proof_holds_s: float = 1200.0
    """How long a node believes that it can be reached after a stranger last asked it something."""
    proofs_missed_max: float = 10.0
    """A node in doubt becomes a client again once it has asked to be pinged in vain so often that
    this many of those who were to do so must have been strangers."""
    greet_interval_s: float = 120.0
    """How often one of the lost nodes is greeted, so that a network that was cut in two heals. A
    node with fewer contacts than ``parallel_queries`` greets several in each
    ``upkeep_interval_s``."""
    rejoin_delay_min_s: float = 1.0
    """A node without contacts tries to join again after this long, and then doubles it each time,
    up to ``upkeep_interval_s``."""

    def __post_init__(self) -> None:
        check_settings(self, MAY_BE_ZERO)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the layers of one DHT node share. Two nodes in one process share nothing."""

    unix_time: Clock
    elapsed: Clock
    entropy: Entropy
    network: str = "main"
    """Nodes of other networks are ignored. The name is part of every datagram."""
    server: bool | None = True
    """False for a node that cannot be reached: it asks, is not asked, and stays out of tables. None
    for a node that does so until a stranger is seen to reach it. True for one that serves until
    strangers could have reached it and none did."""
    private_addresses: bool = False
    """Whether loopback and private addresses may be nodes: in a lab yes, on the Internet never."""
    limits: DHTLimits = field(default_factory=DHTLimits)
    ipv6_socket: SocketOpener | None = None
    """Opens the socket of an IPv6 node. None leaves it to the loop, which may take the IPv4 port
    too."""
    resolve_name: NameResolver | None = None
    """Turns the host names of seeds into addresses. None if seeds have no names."""

    def host_of(self, address: tuple[str, int]) -> tuple[str, int] | str | bytes:
        """What counts as one sender: an IPv4 address, or an IPv6 /64, since whoever has one address
        of that has all of them. On one machine, ports stand for hosts."""
        if self.private_addresses:
            return address
        host = address[0]
        if ":" not in host:
            return host
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]

    def jitter(self, seconds: float) -> float:
        """``seconds``, plus or minus up to a quarter, at random."""
        return seconds * (0.75 + self._chance() / 2)

    def between(self, least: float, most: float) -> float:
        """A random number between the two."""
        return least + (most - least) * self._chance()

    def _chance(self) -> float:
        return int.from_bytes(self.entropy(2), "big") / 2**16

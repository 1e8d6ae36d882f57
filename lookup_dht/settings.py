"""What a DHT node is told when it is made: its network, its role, its clocks and its limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from egtp.values.identity import Entropy
from egtp.values.settings import check_settings

__all__ = ["Clock", "DHTLimits", "NameResolver", "NodeSettings", "SocketOpener"]

Clock = Callable[[], float]
"""Seconds: unix seconds, or seconds since an arbitrary moment that never run backward."""

NameResolver = Callable[[str, int], Awaitable[list[tuple[str, int]]]]
"""From a host name and a port to (IP address, port) pairs. May raise OSError."""

SocketOpener = Callable[[str, int], Any]
"""From an IP address and a port to a bound UDP socket. May raise OSError."""


MAY_BE_ZERO: Final = frozenset({
    "witnesses", "cache_s", "absent_cache_s", "repairs_max", "hand_over_delay_s", "hand_over_max",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class DHTLimits:
    """Every limit of a node. The defaults suit a network of strangers."""

    replication: int = 20
    """k: how many nodes hold a record, and how many contacts a bucket holds."""
    parallel_queries: int = 5
    """alpha: how many queries of one walk wait for an answer at a time."""
    soft_timeout_s: float = 0.35
    """A query unanswered for this long gives its place to another. Once round trips have been
    measured, the time that most of them take is used instead, up to ``reply_timeout_max_s``..."""
    soft_timeout_min_s: float = 0.1
    """...and at least this: a busy process may be that late."""
    reply_timeout_min_s: float = 0.3
    """A query is sent again after this long at the earliest..."""
    reply_timeout_max_s: float = 0.7
    """...and at the latest. The second try waits half as long again, and then has failed."""
    walk_queries_max: int = 120
    """A tar pit that invents ever closer nodes costs a walk this many queries."""
    walk_timeout_s: float = 6.0
    """No walk takes longer, whoever is asked: publishing takes a walk and then the stores, and all
    of it less than ``NodeConfig.lookup_timeout_s``."""
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
    """Contacts of one /24 (IPv6: /48) in a bucket: the owner of one network cannot fill it."""
    group_contacts_max: int = 10
    """The same for the whole table."""
    group_candidates_per_walk: int = 2
    """The same for the nodes that answer in a walk..."""
    group_queries_per_walk: int = 8
    """...for the nodes that a walk was told of and asks, silent ones included: otherwise a node
    that invents many at one address could have every walk send it a datagram for each..."""
    address_queries_per_walk: int = 4
    """...and for those of them at one IP address."""
    region_nodes_max: int = 40
    """A walk of the whole neighbourhood of a key asks at most this many nodes, and a record is
    stored on at most this many; about thirty are usual."""
    witnesses: int = 8
    """Such a walk also asks this many contacts from all over the table: the nodes closest to the
    key may all belong to one party that placed itself there."""
    agreement: int = 3
    """An ordinary lookup ends when this many nodes hold the same newest record. A single one is too
    easily stale; ``fresh`` asks all."""
    source_queries_per_s: float = 100.0
    """Queries answered per source, sustained; four seconds' worth may come at once."""
    queries_per_s: float = 2000.0
    """Queries answered in all, sustained: about a tenth of a core."""
    probes_per_s: float = 20.0
    """Strangers pinged to learn whether they can be reached, sustained. This bounds what a
    forger of source addresses can make this node send."""
    probes_max: int = 64
    """Such pings under way at a time."""
    records_max: int = 10_000
    """Records stored for others, up to about 12 MB."""
    records_per_source: int = 256
    """The same from one /24 (IPv6: /48): the owner of one network cannot fill the store."""
    verified_records_max: int = 1024
    """Records whose signature is remembered to be valid."""
    sequences_max: int = 16_384
    """Peers whose highest sequence is remembered after their record is gone."""
    sequence_ahead_max_s: int = 24 * 3600
    """A sequence is about unix time; one further ahead would block its owner's later records."""
    lifetime_max_s: int = 24 * 3600 + 600
    """A record that lives longer is not stored; ten minutes allow for clocks that differ."""
    cache_s: float = 60.0
    """How long a record, once found, is not looked up again, except for ``fresh`` or
    ``newer_than``."""
    absent_cache_s: float = 1.0
    """The same for a peer of which the neighbourhood held nothing."""
    cached_max: int = 1024
    """Answers remembered, of either kind."""
    repairs_max: int = 8
    """Stores that follow one lookup, to nodes found to lack the newest record."""
    hand_over_delay_s: float = 1.0
    """How long after meeting a new neighbour records are handed over: several come together."""
    hand_over_max: int = 64
    """Records handed to one new neighbour at a time."""
    hand_over_interval_s: float = 300.0
    """A host that comes back as new, with another id, is handed none until this long has passed."""
    care_interval_s: float = 3600.0
    """A record that nobody has stored or asked around for this long is looked after: its
    neighbourhood is walked, and nodes that lack it get it..."""
    care_interval_max_s: float = 8 * 3600.0
    """...and so is one that somebody claims to store or ask around for all the time: each holder
    draws a time between the two."""
    upkeep_interval_s: float = 30.0
    """How often a node looks after its table, give or take a quarter at random, so that nodes
    started together do not act together."""
    refresh_interval_s: float = 3600.0
    """A bucket without a lookup for this long gets one..."""
    refresh_full_interval_s: float = 4 * 3600.0
    """...and one full of contacts that answer pings, after this."""
    check_after_s: float = 900.0
    """A contact silent for this long is pinged."""
    stranger_after_s: float = 600.0
    """A host to which nothing was sent for this long is a stranger. A stranger's query proves that
    this node can be reached: routers forget a UDP flow after two to five minutes (RFC 4787)."""
    proof_holds_s: float = 1200.0
    """How long a node that found out that it can be reached believes it while no stranger asks it
    anything..."""
    proofs_missed_max: float = 10.0
    """...after that it asks to be pinged, and becomes a client again when it has asked in vain so
    often that this many of the nodes chosen to ping it must have been strangers."""
    greet_interval_s: float = 120.0
    """How often one of the lost nodes is greeted, so that a network that was cut heals."""
    rejoin_delay_min_s: float = 1.0
    """A node without contacts tries to join again after this long, then doubles it..."""
    rejoin_delay_max_s: float = 60.0
    """...up to this."""

    def __post_init__(self) -> None:
        """Raises :class:`egtp.InvalidConfig` for a limit that no node can have."""
        check_settings(self, MAY_BE_ZERO)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the layers of one node share. Two nodes in one process share nothing."""

    unix_time: Clock
    elapsed: Clock
    entropy: Entropy
    network: str = "main"
    """Nodes of another network are not heard; frozen into every datagram."""
    server: bool | None = True
    """False for a node that cannot be reached: it asks, is not asked, and stays out of tables.
    None to be that until a stranger is seen to reach it. True to serve until strangers could have
    reached it and none did."""
    private_addresses: bool = False
    """Whether loopback and private addresses are nodes: in a lab yes, on the internet never."""
    limits: DHTLimits = field(default_factory=DHTLimits)
    ipv6_socket: SocketOpener | None = None
    """What opens the socket of a node on IPv6. None leaves it to the loop, which may take the port
    of IPv4 too."""
    resolve_name: NameResolver | None = None
    """What turns the host names of seeds into addresses. None: there are none."""

    def host_of(self, address: tuple[str, int]) -> tuple[str, int] | str:
        """Who counts as one sender. On one machine the ports are the hosts."""
        return address if self.private_addresses else address[0]

    def jitter(self, seconds: float) -> float:
        """``seconds``, give or take a quarter."""
        return seconds * (0.75 + self._chance() / 2)

    def between(self, least: float, most: float) -> float:
        """Anything between the two, at random."""
        return least + (most - least) * self._chance()

    def _chance(self) -> float:
        return int.from_bytes(self.entropy(2), "big") / 2**16

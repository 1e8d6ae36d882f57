"""What a DHT node is told when it is made: its network, its role, its clocks and its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from egtp.identity import Entropy

__all__ = ["Clock", "DHTLimits", "NodeSettings"]

Clock = Callable[[], float]
"""Seconds: unix seconds, or seconds since an arbitrary moment that never run backward."""


@dataclass(frozen=True, slots=True)
class DHTLimits:
    """Every limit of a node. The defaults suit a network of strangers."""

    replication: int = 20
    """k: how many nodes hold a record, and how many contacts a bucket holds."""
    parallel_queries: int = 5
    """alpha: how many queries of one walk wait for an answer at a time."""
    soft_timeout_s: float = 0.35
    """A query unanswered for this long gives its place to another; a late answer still counts.
    Longer, up to ``reply_timeout_max_s``, where the round trips measured are long."""
    reply_timeout_min_s: float = 0.5
    """A query is sent again after this long at the earliest..."""
    reply_timeout_max_s: float = 0.7
    """...and at the latest, whatever round trips were measured. After the second try it failed."""
    walk_queries_max: int = 120
    """A tar pit that invents ever closer nodes costs a walk this many queries."""
    walk_timeout_s: float = 10.0
    """No walk takes longer, whoever is asked."""
    pending_queries_max: int = 1024
    """Queries waiting for a reply, in all."""
    strikes_max: int = 2
    """Queries in a row that a contact may leave unanswered before it is dropped."""
    group_contacts_per_bucket: int = 2
    """Contacts of one /24 (IPv6: /48) in a bucket: whoever owns one network cannot fill it."""
    group_contacts_max: int = 10
    """The same for the whole table."""
    group_candidates_per_walk: int = 4
    """The same for the nodes that one walk asks."""
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
    """Records stored for others, up to about 30 MB."""
    verified_records_max: int = 1024
    """Records whose signature is remembered to be good."""
    sequences_max: int = 16_384
    """Peers whose highest sequence is remembered after their record is gone."""
    sequence_ahead_max_s: int = 24 * 3600
    """A sequence is about unix time; one further ahead would block its owner's later records."""
    lifetime_max_s: int = 24 * 3600 + 600
    """A record that lives longer is not stored; ten minutes are for clocks that differ."""
    upkeep_interval_s: float = 30.0
    """How often a node looks after its table, give or take a quarter at random, so that nodes
    that were started together do not act together."""
    refresh_interval_s: float = 900.0
    """A bucket without a lookup for this long gets one."""
    check_after_s: float = 600.0
    """A contact silent for this long is pinged."""
    rejoin_delay_min_s: float = 1.0
    """A node without contacts tries to join again after this long, then doubles it..."""
    rejoin_delay_max_s: float = 60.0
    """...up to this."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the layers of one node share. Two nodes in one process share nothing."""

    unix_time: Clock
    elapsed: Clock
    entropy: Entropy
    network: str = "main"
    """Nodes of another network are not heard; frozen into every datagram."""
    server: bool = True
    """False for a node that cannot be reached: it asks, is not asked, and stays out of tables."""
    private_addresses: bool = False
    """Whether loopback and private addresses are nodes: in a lab yes, on the internet never."""
    limits: DHTLimits = field(default_factory=DHTLimits)

    def jitter(self, seconds: float) -> float:
        """``seconds``, give or take a quarter."""
        return seconds * (0.75 + int.from_bytes(self.entropy(2), "big") / 2**17)

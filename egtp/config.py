"""Every limit and timing of a node, with its reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from egtp.channel.handshake import PeerLimits
from egtp.errors import InvalidConfig
from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.checks import TIMEOUT_S_MAX
from egtp.values.message import U64_LIMIT
from egtp.values.settings import check_settings

__all__ = ["NodeConfig", "check_network"]

MIB = 1024 * 1024
BUSY_POLL_LIMIT_S = 0.01
"""To fall asleep and wake up takes about a hundredth of that."""
BODY_BYTES_LIMIT = 2**32 - 1024
"""Sizes are 32 bits on the wire, and a message is a little larger than its body."""
CLOSING_MIN = 16
"""So many connections may be closing, however few others there are."""
FILES_SPARE = 64
"""What a process has open beside connections: the event loop, a DHT node, a database, its own."""
_NETWORK = re.compile(r"[a-z0-9._-]{1,32}")
MAY_BE_ZERO = frozenset({
    "relays_wanted", "lookups_max", "stagger_s", "address_checks_per_minute", "busy_poll_s",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """The settings of a node: durations in seconds, sizes in bytes.

    Raises :class:`InvalidConfig` for a value that cannot work.
    """

    network: str = "main"
    """Nodes of different networks cannot talk to each other. 1-32 of a-z 0-9 . _ -"""

    private_addresses: bool = False
    """Dial loopback and private addresses that strangers name. For tests and labs only: on the
    Internet, a record could make this node connect to services of its own machine."""

    # Outcomes
    hard_timeout_s: float = 30.0
    """When a query ends at the latest, unless its caller sets another timeout."""

    # Reaching
    dial_timeout_s: float = 3.0
    """How long to wait for an address that does not answer; a healthy one answers within a round
    trip."""
    stagger_s: float = 0.25
    """How long one address is tried before the next is raced against it (RFC 8305)."""
    relay_timeout_s: float = 3.0
    """How long a relay may take to bring back the peer's side of the handshake."""
    lookup_timeout_s: float = 10.0
    """How long a lookup may take, and storing this node's record."""
    lookups_max: int = 2
    """How many times a query may look up new strategies before it fails."""

    silent_path_s: float = 8.0
    """How long a peer may stay silent while a query waits for its reply, before the path is given
    up and another one is tried: a few round trips on a bad line."""

    rekey_s: float = 3600.0
    """How long a session lives before the side that dialled replaces it."""

    # TCP: see docs/connections.md
    connections_max: int = 10_000
    """All connections, except those being closed."""
    strangers_share: float = 0.5
    """The share that strangers may hold of all connections, of all remembered peers, and of the
    memory that others may take up. Strangers are peers that nobody here has queried or named. The
    rest is kept for the peers that are wanted."""
    connections_per_peer_max: int = 4
    """Connections of one peer. It needs one, and a second while it moves from one to another."""
    connections_per_ip_max: int = 256
    """Connections accepted from one IPv4 address or IPv6 /64: many peers may be behind one NAT."""
    half_open_max: int = 512
    """Accepted connections whose peer has not proven its identity yet. Beyond it, a new one
    replaces the oldest."""
    accepts_per_s: float = 500.0
    """Connections accepted per second: their handshakes take about an eighth of a core."""
    accepts_per_ip_per_s: float = 50.0
    """The same, from one IPv4 address or IPv6 /64."""
    relayed_initiations_per_s: float = 200.0
    """Handshakes per second that others may begin through relays: the same work, without a
    connection."""
    prove_timeout_s: float = 5.0
    """How long the peer of an accepted connection may take to prove its identity."""
    idle_timeout_s: float = 120.0
    """How long an unused connection is kept: long enough for a conversation to resume."""
    idle_timeout_max_s: float = 900.0
    """The same for a peer that has come back each time after its connection was closed. NATs and
    firewalls may not remember a connection for longer."""
    close_timeout_s: float = 5.0
    """How long a connection being closed may take to send what it still holds: a peer that does not
    read must not keep it open."""
    connection_buffer_bytes_max: int = 1 * MIB
    """What a connection may hold while it is being opened, is throttled, or its socket is full."""
    send_bytes_per_s: float | None = None
    """What all connections together may send; None for no limit. Can be changed at run time."""
    receive_bytes_per_s: float | None = None
    """What all connections together may receive; None for no limit. Can be changed at run time."""
    peer_send_bytes_per_s: float | None = None
    """What each connection to a peer may send, in addition to the limit for all, so that no peer
    takes all of it; None for no limit. Can be changed for single peers at run time."""
    peer_receive_bytes_per_s: float | None = None
    """What each connection to a peer may receive, in the same way; None for no limit."""

    # What this node takes from others, told to them in the handshake
    body_bytes_max: int = 16 * MIB
    """The largest body of a message."""
    reassembly_bytes_max: int = 32 * MIB
    """What one peer may have under way in chunks: one body of the largest size, and another beside
    it."""
    open_queries_max: int = 4096
    """Queries of one peer that may run at a time; further ones are answered "busy"."""
    relayed_bytes_max: int = 256 * 1024
    """What may be in flight to this node over relays."""

    # What waits here
    waiting_bytes_max: int = 64 * MIB
    """What may wait for one peer, either for a path or for room on one. The same limit applies to
    the replies that wait for all those peers together whose queries came with a dial, and who have
    not yet proven that they are alive."""
    queries_bytes_max: int = 512 * MIB
    """What the queries and sends of all others together may take up here: those still arriving in
    chunks, and those whose handlers are waiting. Further ones are answered "busy"."""
    unread_bytes_max: int = 512 * MIB
    """What may wait for others who do not read it, all together: replies, and what this node passes
    on as a relay. Beyond it, whatever waits for those with the most waiting is dropped. Up to 16
    KiB on each connection do not count."""
    peers_max: int = 20_000
    """Peers that are remembered. The least recently used are forgotten first, and strangers above
    their share before them."""
    exchanges_max: int = 200_000
    """Queries of this node that may be open at a time."""

    answers: AnswerLimits = field(default_factory=AnswerLimits)
    """What is remembered of the queries of others, so that none runs twice."""

    # Own record
    record_lifetime_s: float = 2 * 3600.0
    """How long a record is valid: as long as BEP 44 nodes keep one, and as long as a vanished
    address is still believed. It is published again at half of this time."""

    # Own address, unless it is told with ``announce``
    observe_address: bool = True
    """Find out where this node can be reached: from the machine's interfaces if it listens on a
    wildcard, and from what peers observe, once one of them has dialled that address."""
    lan_addresses: bool = True
    """Announce private addresses of this machine if it listens on a wildcard, and dial those of
    peers in the same local network: peers behind one NAT often have no other direct way."""
    address_poll_s: float = 0.5
    """How often the machine is asked for its addresses: a change should be announced within a
    second, and asking costs a few microseconds."""
    address_recheck_s: float = 600.0
    """How often a peer is asked to dial a confirmed address again."""
    address_retry_s: float = 60.0
    """When the next peer is asked to dial an address that turned out to be unreachable: somebody
    may be setting up their router. Doubles each time, up to ``address_recheck_s``."""
    address_checks_per_minute: int = 30
    """How many peers this node dials at their request; 0 dials nobody. Each costs a connection and
    a handshake, and whoever asks has been through both."""
    address_check_interval_s: float = 10.0
    """How often the same peer, or the same IP address, is dialled at its request."""

    # Relays
    relays_wanted: int = 3
    """How many relays to stay registered at; 0 never uses any."""
    relay_lease_s: float = 60.0
    """How long a relay may take this node to be there without a renewal; renewed at a third of
    it."""

    # The event loop
    busy_poll_s: float = 0.0
    """How long to poll instead of sleeping, after something came or left; 0 never does. Where peers
    answer each other within this time, a query takes about a third of the time, and the loop a
    whole core; where they do not, nothing changes. See docs/operations.md."""

    # Clean-up
    clean_up_interval_s: float = 1.0
    """How often to look for idle and unproven connections."""

    def __post_init__(self) -> None:
        check_settings(self, MAY_BE_ZERO)
        check_network(self.network)
        if not isinstance(self.answers, AnswerLimits):
            raise InvalidConfig(f"answers must be AnswerLimits, not {self.answers!r}")
        self._check_what_travels()
        if self.record_lifetime_s > 24 * 3600:
            raise InvalidConfig("record_lifetime_s must be at most a day: DHT nodes refuse more")
        if self.relay_lease_s < 1:
            raise InvalidConfig("relay_lease_s must be at least 1: leases are counted in seconds")
        if self.strangers_share > 1:
            raise InvalidConfig("strangers_share must be at most 1: it is a share of all")
        if self.busy_poll_s > BUSY_POLL_LIMIT_S:
            raise InvalidConfig(
                f"busy_poll_s must be at most {BUSY_POLL_LIMIT_S}: it keeps a core busy"
            )
        if self.body_bytes_max > BODY_BYTES_LIMIT:
            raise InvalidConfig(f"body_bytes_max must be at most {BODY_BYTES_LIMIT}")
        if self.body_bytes_max > self.reassembly_bytes_max:
            raise InvalidConfig("reassembly_bytes_max must be at least body_bytes_max")
        if self.body_bytes_max > self.queries_bytes_max // 4:
            raise InvalidConfig("queries_bytes_max must be at least four times body_bytes_max")

    def _check_what_travels(self) -> None:
        """Others could not be told more."""
        if self.hard_timeout_s > TIMEOUT_S_MAX:
            raise InvalidConfig(
                f"hard_timeout_s must be at most {TIMEOUT_S_MAX:.0f}, about seven weeks"
            )
        for name in ("reassembly_bytes_max", "open_queries_max", "relayed_bytes_max"):
            if getattr(self, name) >= U64_LIMIT:
                raise InvalidConfig(f"{name} must be less than 2**64, since peers are told it")

    @property
    def strangers_max(self) -> int:
        """How many proven connections strangers may have: no more than :attr:`known_strangers_max`,
        since a peer is not forgotten while it is connected."""
        return min(
            max(1, int(self.connections_max * self.strangers_share)), self.known_strangers_max
        )

    @property
    def relayed_strangers_max(self) -> int:
        """How many paths strangers may have through relays: half as many as connections, since they
        cost a stranger less."""
        return max(1, self.strangers_max // 2)

    @property
    def known_strangers_max(self) -> int:
        """How many strangers are remembered."""
        return max(1, int(self.peers_max * self.strangers_share))

    @property
    def peer_queries_bytes_max(self) -> int:
        """One peer's part of :attr:`queries_bytes_max`, in bytes: a quarter."""
        return self.queries_bytes_max // 4

    @property
    def strangers_queries_bytes_max(self) -> int:
        """The part of all strangers in :attr:`queries_bytes_max`, in bytes: their share, but no
        less than one peer's part."""
        share = int(self.queries_bytes_max * self.strangers_share)
        return max(self.peer_queries_bytes_max, share)

    @property
    def strangers_unread_bytes_max(self) -> int:
        """The part of :attr:`unread_bytes_max` that may wait for strangers, in bytes."""
        return int(self.unread_bytes_max * self.strangers_share)

    @property
    def peer_connections_max(self) -> int:
        """How many connections one peer may have: :attr:`connections_per_peer_max`, but at most
        1/16 of all, and never less than two."""
        return max(2, min(self.connections_per_peer_max, self.connections_max // 16))

    def within(self, open_files: int | None) -> NodeConfig:
        """These settings with no more connections than ``open_files`` allow; None for no limit. A
        system that runs out of files accepts connections and drops them, whereas the limits here
        say which connection makes way."""
        if open_files is None:
            return self
        left = open_files - FILES_SPARE
        most = max(1, min(left - CLOSING_MIN, left * 16 // 17))
        return replace(self, connections_max=most) if most < self.connections_max else self

    @property
    def closing_max(self) -> int:
        """How many connections may be closing, in addition to all others."""
        return max(CLOSING_MIN, self.connections_max // 16)

    @property
    def limits(self) -> PeerLimits:
        """The limits that peers are told in the handshake."""
        return PeerLimits(
            self.body_bytes_max,
            self.reassembly_bytes_max,
            self.open_queries_max,
            self.relayed_bytes_max,
        )


def check_network(name: str) -> None:
    """Raise :class:`InvalidConfig` unless ``name`` can be the network of a node or of the DHT."""
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        raise InvalidConfig(f"a network name must be 1-32 of a-z 0-9 . _ -, not {name!r}")

"""Every limit and timing of a node, in one place, with its reason."""

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
"""Connections may be on their way out beside however few others."""
FILES_SPARE = 64
"""What a process has open beside connections: the event loop, a DHT node, a database, its own."""
_NETWORK = re.compile(r"[a-z0-9._-]{1,32}")
MAY_BE_ZERO = frozenset({
    "relays_wanted", "lookups_max", "stagger_s", "address_checks_per_minute", "busy_poll_s",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """How a node behaves. All durations are seconds, all sizes bytes.

    Raises :class:`InvalidConfig` for values that cannot work.
    """

    network: str = "main"
    """Nodes of different networks cannot talk; 1-32 of a-z 0-9 . _ -"""

    private_addresses: bool = False
    """Dial loopback and private addresses that strangers name. For tests and labs: on the internet,
    a record could make this node connect to the machine's own services."""

    # Outcomes
    hard_timeout_s: float = 30.0
    """When a query ends at the latest, unless its caller names another time."""

    # Reaching
    dial_timeout_s: float = 3.0
    """How long to wait for a silent address; a healthy one answers within a round trip."""
    stagger_s: float = 0.25
    """The head start that one address has before the next is raced against it (RFC 8305)."""
    relay_timeout_s: float = 3.0
    """How long a relay may take to bring back the peer's side of the handshake."""
    lookup_timeout_s: float = 10.0
    """How long a lookup may take."""
    lookups_max: int = 2
    """How many more times the strategies are looked up before a query fails."""

    silent_path_s: float = 8.0
    """How long a peer may stay silent while somebody waits for its reply, before the path to it is
    given up and another one tried: several round trips of a bad line."""

    rekey_s: float = 3600.0
    """How long a session lives before the side that dialled replaces it."""

    # TCP: see docs/connections.md
    connections_max: int = 10_000
    """All connections, except those that are being closed."""
    strangers_share: float = 0.5
    """The part that strangers (peers that nobody here has asked or named) may hold of all
    connections, of all remembered peers, and of the memory that others may take up. The rest is
    left to wanted peers."""
    connections_per_peer_max: int = 4
    """Connections of one peer: it needs one, and a second while it changes over."""
    connections_per_ip_max: int = 256
    """Accepted from one IPv4 address or IPv6 /64: many peers may be behind one NAT."""
    half_open_max: int = 512
    """Accepted connections whose other end has proven nothing yet. A newer one takes the place of
    the oldest."""
    accepts_per_s: float = 500.0
    """Connections accepted: their handshakes take about an eighth of a core."""
    accepts_per_ip_per_s: float = 50.0
    """The same, from one IPv4 address or IPv6 /64."""
    relayed_initiations_per_s: float = 200.0
    """Handshakes that others may begin through relays: the same work, without a connection."""
    prove_timeout_s: float = 5.0
    """How long an accepted connection may stay unproven."""
    idle_timeout_s: float = 120.0
    """How long an unused connection is kept: long enough for a conversation to go on."""
    idle_timeout_max_s: float = 900.0
    """The same for a peer that came back each time after its connection was closed: NATs and
    firewalls may not remember a connection for longer."""
    close_timeout_s: float = 5.0
    """How long a connection that is being closed may take to write what it holds: the other side
    may not be reading, and must not keep it open that way."""
    connection_buffer_bytes_max: int = 1 * MIB
    """What a connection holds while it is being opened or throttled, or its socket is full."""
    send_bytes_per_s: float | None = None
    """What all connections together may send; None for no limit. Can be changed while running."""
    receive_bytes_per_s: float | None = None
    """What all connections together may receive; None for no limit."""
    peer_send_bytes_per_s: float | None = None
    """What each connection to a peer may send within that, so that none takes everything; None for
    no limit. Can be set differently for single peers while running."""
    peer_receive_bytes_per_s: float | None = None
    """What each connection to a peer may receive within that; None for no limit."""

    # What this node takes from others, told to them in the handshake
    body_bytes_max: int = 16 * MIB
    """The largest body of a message."""
    reassembly_bytes_max: int = 32 * MIB
    """What one peer may have under way in chunks: a largest body, and another beside it."""
    open_queries_max: int = 4096
    """Queries of one peer that run at a time; more are answered "busy"."""
    relayed_bytes_max: int = 256 * 1024
    """What may be in flight to this node over relays."""

    # What waits here
    waiting_bytes_max: int = 64 * MIB
    """What may wait for one peer: for a path to it, or for the path to take more. Also what may
    wait for all peers together that sent a query with their dial and are not confirmed yet."""
    queries_bytes_max: int = 512 * MIB
    """The memory that queries and sends of all others together may take up here: those arriving in
    chunks, and those whose handlers wait for something. More are answered "busy"."""
    unread_bytes_max: int = 512 * MIB
    """What may wait for all others together that do not read it: replies, and what this node
    forwards as a relay. Beyond it, the peers with most waiting for them lose it. Up to 16 KiB on
    each connection do not count."""
    peers_max: int = 20_000
    """Peers that are remembered. The least recently used are forgotten first, but strangers above
    their share go before them."""
    exchanges_max: int = 200_000
    """Queries of this node that are open at a time."""

    answers: AnswerLimits = field(default_factory=AnswerLimits)
    """What is remembered of the queries of others, so that none runs twice."""

    # Own record
    record_lifetime_s: float = 2 * 3600.0
    """How long a record is valid: as long as BEP 44 nodes keep it, and as long as a vanished
    address is still believed. Published again at half of it."""

    # Own address, unless it is told with ``announce``
    observe_address: bool = True
    """Find out where this node can be reached: from the machine's interfaces if it listens on a
    wildcard, and from what peers observe, once one of them has dialled it."""
    lan_addresses: bool = True
    """Announce private addresses of this machine if it listens on a wildcard, and dial those of
    others in the same local network: peers behind one NAT often have no other direct way."""
    address_poll_s: float = 0.5
    """How often the machine is asked for its addresses: a change should be announced within a
    second, and asking costs a few microseconds."""
    address_settle_s: float = 0.7
    """When a peer sees this node at a new address, how long those that saw the old one have to show
    that they still do: some round trips, and less than a second."""
    address_vote_s: float = 3600.0
    """How long a peer's observation counts after the peer was last heard of: addresses at home
    change once a day."""
    address_votes_max: int = 64
    """Networks of observers that are remembered: more than a liar can easily rent."""
    address_recheck_s: float = 600.0
    """How often a peer is asked to dial an observed address that was confirmed."""
    address_retry_s: float = 60.0
    """How soon the next peer is asked after an address was found unreachable, at first: somebody
    may be setting up a router. Doubles up to ``address_recheck_s``."""
    address_checks_per_minute: int = 30
    """How many others are dialled at their request; 0 dials nobody. Each dial costs a connection
    and a handshake, which its asker has paid as well."""
    address_check_interval_s: float = 10.0
    """How often the same peer, or the same IP address, is dialled at its request."""

    # Relays
    relays_wanted: int = 3
    """Relays at which this node stays registered at a time; 0 never uses any."""
    relay_lease_s: float = 60.0
    """How long a relay may believe that this node is there; renewed at a third of it."""

    # The event loop
    busy_poll_s: float = 0.0
    """How long to poll for more instead of sleeping, after something came or left; 0 never polls.
    If peers answer each other within this time, a query takes about a third of the time, and the
    loop takes a whole core; if they do not, nothing changes. See docs/operations.md."""

    # Clean-up
    clean_up_interval_s: float = 1.0
    """How often to look for idle and unproven connections."""

    def __post_init__(self) -> None:
        check_settings(self, MAY_BE_ZERO)
        check_network(self.network)
        if not isinstance(self.answers, AnswerLimits):
            raise InvalidConfig(f"answers are AnswerLimits, not {self.answers!r}")
        self._check_what_travels()
        if self.record_lifetime_s > 24 * 3600:
            raise InvalidConfig("record_lifetime_s is at most a day: DHT nodes refuse more")
        if self.relay_lease_s < 1:
            raise InvalidConfig("relay_lease_s is at least 1: leases are counted in seconds")
        if self.strangers_share > 1:
            raise InvalidConfig("strangers_share is a share of all: at most 1")
        if self.busy_poll_s > BUSY_POLL_LIMIT_S:
            raise InvalidConfig(f"busy_poll_s is at most {BUSY_POLL_LIMIT_S}: it keeps a core busy")
        if self.body_bytes_max > BODY_BYTES_LIMIT:
            raise InvalidConfig(f"body_bytes_max is at most {BODY_BYTES_LIMIT}")
        if self.body_bytes_max > self.reassembly_bytes_max:
            raise InvalidConfig("reassembly_bytes_max must be at least body_bytes_max")
        if self.body_bytes_max > self.queries_bytes_max // 4:
            raise InvalidConfig("queries_bytes_max must be at least four times body_bytes_max")

    def _check_what_travels(self) -> None:
        """Others could not be told more."""
        if self.hard_timeout_s > TIMEOUT_S_MAX:
            raise InvalidConfig(f"hard_timeout_s is at most {TIMEOUT_S_MAX:.0f}: about seven weeks")
        for name in ("reassembly_bytes_max", "open_queries_max", "relayed_bytes_max"):
            if getattr(self, name) >= U64_LIMIT:
                raise InvalidConfig(f"{name} is less than 2**64, since peers are told it")

    @property
    def strangers_max(self) -> int:
        """Proven connections of peers whom nobody here has asked for. No more than such peers are
        remembered: each connection keeps its peer from being forgotten."""
        return min(
            max(1, int(self.connections_max * self.strangers_share)), self.known_strangers_max
        )

    @property
    def relayed_strangers_max(self) -> int:
        """Paths of strangers through relays: half as many as connections, since they cost whoever
        makes them less."""
        return max(1, self.strangers_max // 2)

    @property
    def known_strangers_max(self) -> int:
        """Peers that are remembered though nobody here has to do with them."""
        return max(1, int(self.peers_max * self.strangers_share))

    @property
    def peer_queries_bytes_max(self) -> int:
        """Of :attr:`queries_bytes_max`, what one peer may take up: a quarter."""
        return self.queries_bytes_max // 4

    @property
    def strangers_queries_bytes_max(self) -> int:
        """What strangers may take up of it: their share, and as much as one of them may."""
        share = int(self.queries_bytes_max * self.strangers_share)
        return max(self.peer_queries_bytes_max, share)

    @property
    def strangers_unread_bytes_max(self) -> int:
        """Of :attr:`unread_bytes_max`, what may wait for strangers."""
        return int(self.unread_bytes_max * self.strangers_share)

    @property
    def peer_connections_max(self) -> int:
        """Connections of one peer: at most 1/16 of all, but two if need be."""
        return max(2, min(self.connections_per_peer_max, self.connections_max // 16))

    def within(self, open_files: int | None) -> NodeConfig:
        """The same, but with no more connections than so many open files allow. When they have run
        out, a system takes connections and drops them; here each limit says who makes way."""
        if open_files is None:
            return self
        left = open_files - FILES_SPARE
        most = max(1, min(left - CLOSING_MIN, left * 16 // 17))
        return replace(self, connections_max=most) if most < self.connections_max else self

    @property
    def closing_max(self) -> int:
        """Connections that are being closed, beside all others."""
        return max(CLOSING_MIN, self.connections_max // 16)

    @property
    def limits(self) -> PeerLimits:
        """What peers are told in the handshake."""
        return PeerLimits(
            self.body_bytes_max,
            self.reassembly_bytes_max,
            self.open_queries_max,
            self.relayed_bytes_max,
        )


def check_network(name: str) -> None:
    """Raises :class:`InvalidConfig` for what names no network, neither of nodes nor of a DHT."""
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        raise InvalidConfig(f"a network is named by 1-32 of a-z 0-9 . _ -, not {name!r}")

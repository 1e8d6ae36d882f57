"""The contestants: which suites they take part in, and which of EGTP's features they lack."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CONTESTANTS", "REFERENCE", "SUITES", "TLS", "Contestant", "Suite", "Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """One measurement; see :mod:`benchmarks.stations`."""

    name: str
    kind: str = "query"
    at_once: int = 1
    bytes: int = 100

    def order(self, warm_up_s: float, seconds: float) -> dict[str, Any]:
        """What to tell the client."""
        timing = {"work": self.kind, "warm_up_s": warm_up_s, "seconds": seconds}
        return asdict(self) | timing


@dataclass(frozen=True, slots=True)
class Suite:
    works: tuple[Work, ...]
    reference: str
    """The contestant measured right beside each of the others."""
    reference_works: tuple[Work, ...]


@dataclass(frozen=True, slots=True)
class Contestant:
    name: str
    module: str
    """A module of :mod:`benchmarks.contestants`, or a Node script there."""
    suites: frozenset[str]
    lacks: str
    package: str = ""
    """The distribution that it needs, by its name on PyPI."""
    form: str = ""
    compiled: bool = False
    """Runs on the package that ``make test-compiled`` builds, not on the sources."""
    held: int = 5000
    """How many connections it is asked to hold."""

    @property
    def version(self) -> str:
        try:
            return importlib.metadata.version(self.package) if self.package else ""
        except importlib.metadata.PackageNotFoundError:
            return "not installed"


ONE = Work("one at a time")
R = Work("64 in flight", at_once=64)
THOUSAND = Work("1,000 in flight", at_once=1000)
BULK = Work("64 KiB, 64 in flight", at_once=64, bytes=65536)
NEW = Work("new sessions, 16 at a time", "sessions", at_once=16)
LARGE = Work("100 B beside 16 MiB", "mixed", bytes=16 * 2**20)
HOLD = Work("idle connections held", "hold")

REFERENCE, TLS = "bare echo", "uvloop TLS, protocol"

SUITES = {
    "query": Suite((ONE, R, THOUSAND), REFERENCE, (ONE, R)),
    "bulk": Suite((BULK,), REFERENCE, (BULK,)),
    "sessions": Suite((NEW,), TLS, (NEW,)),
    "idle": Suite((HOLD,), "", ()),
    "mixed": Suite((LARGE,), "", ()),
    "relay": Suite((ONE, R, THOUSAND), REFERENCE, (ONE, R)),
    "deadline": Suite((R, THOUSAND), "EGTP, no deadlines", (R, THOUSAND)),
}

_ALL = frozenset({"query", "bulk", "sessions", "idle"})
_TALK = frozenset({"query", "bulk"})
_POLLING = frozenset({"query", "relay"})

CONTESTANTS = (
    Contestant("EGTP", "egtp_node", _ALL | {"mixed", "relay", "deadline"}, "nothing: all is on"),
    Contestant(
        "EGTP, compiled",
        "egtp_node",
        _ALL | {"mixed", "relay"},
        "nothing: all is on; its busiest modules went through a C compiler",
        compiled=True,
    ),
    Contestant(
        "EGTP, busy polling",
        "egtp_node",
        _POLLING,
        "nothing: all is on; every node looks for more for 0.5 ms before it sleeps",
        form="busy polling",
    ),
    Contestant(
        "EGTP, compiled, busy polling",
        "egtp_node",
        _POLLING,
        "nothing: all is on; both of the above",
        form="busy polling",
        compiled=True,
    ),
    Contestant(
        "EGTP, no deadlines",
        "egtp_node",
        frozenset({"deadline"}),
        "timeouts of any kind: only to see what they cost",
        form="without deadlines",
    ),
    Contestant(
        REFERENCE,
        "bare",
        _ALL | {"mixed", "relay"},
        "encryption, identity, reference, nonce, timeouts: the reference R",
        "uvloop",
    ),
    Contestant(
        TLS,
        "tls",
        _ALL,
        "reference, nonce of a message, timeouts, reaching by key",
        "uvloop",
        "protocol",
    ),
    Contestant(
        "uvloop TLS, streams",
        "tls",
        _TALK,
        "reference, nonce of a message, timeouts, reaching by key",
        "uvloop",
        "streams",
    ),
    Contestant(
        "aiofastnet TLS",
        "tls",
        _ALL,
        "reference, nonce of a message, timeouts, reaching by key",
        "aiofastnet",
        "aiofastnet",
    ),
    Contestant(
        "picows wss",
        "picows_wss",
        _ALL,
        "reference, nonce of a message, timeouts, replies",
        "picows",
    ),
    Contestant(
        "websockets wss",
        "websockets_wss",
        _ALL,
        "reference, nonce of a message, timeouts, replies",
        "websockets",
    ),
    Contestant(
        "pyzmq CURVE, blocking",
        "zeromq",
        _TALK,
        "reference, timeouts, replies, detecting an absent peer, futures",
        "pyzmq",
        "blocking",
    ),
    Contestant(
        "pyzmq CURVE, asyncio",
        "zeromq",
        _ALL,
        "reference, timeouts, replies, detecting an absent peer",
        "pyzmq",
        "asyncio",
    ),
    Contestant(
        "grpcio, one stream",
        "grpc_aio",
        _TALK,
        "reference, nonce of a message, soft timeout",
        "grpcio",
        "bidi",
    ),
    Contestant(
        "grpcio, unary",
        "grpc_aio",
        _ALL,
        "reference, nonce of a message, soft timeout",
        "grpcio",
        "unary",
        held=1000,
    ),
    Contestant(
        "aiohttp https",
        "aiohttp_https",
        frozenset({"query", "bulk", "sessions"}),
        "reference, nonce of a message, soft timeout, reaching by key",
        "aiohttp",
    ),
    Contestant(
        "NATS",
        "nats_broker",
        _ALL | {"relay"},
        "encryption end to end (to the broker only), reference, soft timeout",
        "nats-py",
        held=1000,
    ),
    Contestant(
        "iroh, one stream",
        "iroh_quic",
        frozenset({"query", "bulk", "sessions"}),
        "reference, replies, soft timeout",
        "iroh",
    ),
    Contestant(
        "py-libp2p, one stream", "libp2p_noise", _TALK, "reference, replies, timeouts", "libp2p"
    ),
    Contestant("Foolscap", "foolscap_tub", _TALK, "reference, nonce, timeouts", "foolscap"),
    Contestant(
        "hyperdht (Node)",
        "hyperdht.cjs",
        _ALL,
        "reference, replies, timeouts: a raw echo",
        held=1000,
    ),
)

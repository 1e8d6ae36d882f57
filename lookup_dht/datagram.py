"""The datagrams between DHT nodes: a pure codec.

The framing is that of ``rpcudp``: one byte of type (0 query, 1 reply), twenty random bytes that
pair a reply with its query, and msgpack ``[method, arguments]``. The methods have names of their
own, so that unmodified nodes ignore ours and we theirs. Everything is canonical::

    query  ping        [network, sender id, flags]
           find_node   [network, sender id, flags, target, padding]
           find_value  [network, sender id, flags, peerId, padding]
           store       [network, sender id, flags, peerId, record]
    reply  ping        [network, sender id, flags, observed]
           find_node   [network, sender id, flags, observed, [node...]]
           find_value  [network, sender id, flags, observed, [node...], record or empty]
           store       [network, sender id, flags, observed, status]

A node is 26 bytes (id, IPv4 address, port) or 38; ``observed`` is where the query was seen to
come from, packed the same way without the id. Flag 1 says that the sender is a server. Later
versions may append arguments, which are skipped.

**Return routability.** Queries whose replies are long are padded, and whatever a query makes a
node send back, the ping that probes a stranger included, is at most three times as long as the
query. So a forged source address cannot turn a node into an amplifier, and neither cookie nor
state nor round trip is needed for that.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from egtp import canonical
from egtp.canonical import Value
from egtp.errors import CanonicalError, RemoteProtocolError
from egtp.identity import NODE_ID_BYTES
from lookup_dht.contact import Contact

__all__ = [
    "AMPLIFICATION_MAX",
    "BYTES_IN_MAX",
    "BYTES_OUT_MAX",
    "DatagramError",
    "MESSAGE_ID_BYTES",
    "Method",
    "NODES_MAX",
    "Query",
    "Reply",
    "StoreStatus",
    "decode_query",
    "decode_reply",
    "encode_query",
    "encode_reply",
    "reply_bytes_max",
]

MESSAGE_ID_BYTES: Final = 20
HEADER_BYTES: Final = 1 + MESSAGE_ID_BYTES
BYTES_IN_MIN: Final = HEADER_BYTES + 1
BYTES_IN_MAX: Final = 1400
BYTES_OUT_MAX: Final = 1200
"""Fits into one packet on every path of the internet; a fragment lost is a datagram lost."""
NODES_MAX: Final = 20
AMPLIFICATION_MAX: Final = 3
PROBE_BYTES_MAX: Final = 96
"""A ping in the network with the longest name."""
RECORD_BYTES_MAX: Final = 920
SERVER_FLAG: Final = 1

QUERY_TYPE: Final = 0
REPLY_TYPE: Final = 1


class DatagramError(RemoteProtocolError):
    """A datagram that is none of ours; ``str()`` is the name it is counted under."""


class Method(enum.Enum):
    PING = "egtp1.ping"
    FIND_NODE = "egtp1.find_node"
    FIND_VALUE = "egtp1.find_value"
    STORE = "egtp1.store"


_QUERY_BYTES_MIN: Final = {
    Method.PING: 0,
    Method.FIND_NODE: 360,  # twenty IPv6 nodes are 800 bytes, and the probe comes on top
    Method.FIND_VALUE: -(-(BYTES_OUT_MAX + PROBE_BYTES_MAX) // AMPLIFICATION_MAX),
    Method.STORE: 0,
}


class StoreStatus(enum.IntEnum):
    """What became of a record that a node was asked to store."""

    STORED = 0
    """The node holds it now."""
    NEWER_HELD = 1
    """The node has, or has seen, a newer one."""
    REFUSED = 2
    """Invalid, expired, too far in the future, or no room for it."""


@dataclass(frozen=True, slots=True)
class Query:
    """One of the four questions."""

    method: Method
    network: str
    sender: bytes
    server: bool
    key: bytes = b""
    """The id or peerId that the query is about; empty for a ping."""
    record: bytes = b""
    """To store."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a :class:`Query` of the same method."""

    method: Method
    network: str
    sender: bytes
    server: bool
    observed: bytes
    """Packed address and port that the query came from."""
    nodes: tuple[Contact, ...] = field(default=(), repr=False)
    record: bytes = b""
    status: StoreStatus = StoreStatus.REFUSED


def reply_bytes_max(query_bytes: int) -> int:
    """How long the reply to a query of this length may be, to leave room for a probe."""
    return min(BYTES_OUT_MAX, AMPLIFICATION_MAX * query_bytes - PROBE_BYTES_MAX)


def encode_query(message_id: bytes, query: Query) -> bytes:
    """Raises :class:`LocalProtocolError` for what has no canonical form."""
    arguments: list[Value] = [query.network, query.sender, int(query.server) * SERVER_FLAG]
    if query.method is Method.STORE:
        arguments += [query.key, query.record]
    elif query.method is not Method.PING:
        arguments += [query.key, b""]
        data = _frame(QUERY_TYPE, message_id, query.method, arguments)
        # The length of a byte string above 255 takes one byte more to say.
        arguments[-1] = bytes(max(0, _QUERY_BYTES_MIN[query.method] - len(data)))
    return _frame(QUERY_TYPE, message_id, query.method, arguments)


def encode_reply(message_id: bytes, reply: Reply, bytes_max: int) -> bytes | None:
    """At most ``bytes_max`` bytes: the farthest nodes are left out first, then the record.

    None if not even the rest fits: then the query was too short to deserve a reply.
    """
    nodes: list[Value] = [node.pack() for node in reply.nodes]
    arguments: list[Value] = [
        reply.network,
        reply.sender,
        int(reply.server) * SERVER_FLAG,
        reply.observed,
    ]
    if reply.method is Method.STORE:
        arguments.append(int(reply.status))
    elif reply.method is Method.FIND_NODE:
        arguments.append(nodes)
    elif reply.method is Method.FIND_VALUE:
        arguments += [nodes, reply.record]
    data = _frame(REPLY_TYPE, message_id, reply.method, arguments)
    excess = len(data) - bytes_max
    if excess > 0 and nodes:
        while nodes and excess > 0:
            nodes.pop()
            excess -= len(reply.nodes[len(nodes)].pack()) + 2
        data = _frame(REPLY_TYPE, message_id, reply.method, arguments)
    if len(data) > bytes_max and reply.record:
        arguments[-1] = b""
        data = _frame(REPLY_TYPE, message_id, reply.method, arguments)
    return data if len(data) <= bytes_max else None


def decode_query(data: bytes) -> Query:
    """Raises :class:`DatagramError`, and nothing else, for anything but a query."""
    method, arguments = _arguments(data)
    match arguments:
        case [str(network), bytes(sender), int(flags), *rest] if _header_valid(sender, flags):
            server = bool(flags & SERVER_FLAG)
        case _:
            raise DatagramError("datagram_fields")
    if method is Method.PING:
        return Query(method, network, sender, server)
    match rest:
        case [bytes(key), bytes(record), *_] if len(key) == NODE_ID_BYTES:
            if method is not Method.STORE:
                return Query(method, network, sender, server, key)
            if 0 < len(record) <= RECORD_BYTES_MAX:
                return Query(method, network, sender, server, key, record)
    raise DatagramError("datagram_fields")


def decode_reply(data: bytes) -> Reply:
    """Raises :class:`DatagramError`, and nothing else, for anything but a reply."""
    method, arguments = _arguments(data)
    match arguments:
        case [str(network), bytes(sender), int(flags), bytes(observed), *rest] if _header_valid(
            sender, flags
        ) and len(observed) in (6, 18):
            head = (method, network, sender, bool(flags & SERVER_FLAG), observed)
        case _:
            raise DatagramError("datagram_fields")
    match method, rest:
        case Method.PING, _:
            return Reply(*head)
        case Method.STORE, [int(status), *_] if type(status) is int and status in (0, 1, 2):
            return Reply(*head, status=StoreStatus(status))
        case Method.FIND_NODE, [list(nodes), *_]:
            return Reply(*head, _nodes(nodes))
        case Method.FIND_VALUE, [list(nodes), bytes(record), *_] if len(record) <= RECORD_BYTES_MAX:
            return Reply(*head, _nodes(nodes), record)
    raise DatagramError("datagram_fields")


def _frame(kind: int, message_id: bytes, method: Method, arguments: list[Value]) -> bytes:
    return bytes((kind,)) + message_id + canonical.encode([method.value, arguments])


def _arguments(data: bytes) -> tuple[Method, list[Value]]:
    if not BYTES_IN_MIN <= len(data) <= BYTES_IN_MAX:
        raise DatagramError("datagram_size")
    try:
        body = canonical.decode(data[HEADER_BYTES:])
    except CanonicalError:
        raise DatagramError("datagram_not_canonical") from None
    match body:
        case [str(name), list(arguments)]:
            try:
                return Method(name), arguments
            except ValueError:
                raise DatagramError("datagram_method") from None
    raise DatagramError("datagram_fields")


def _header_valid(sender: bytes, flags: int) -> bool:
    return len(sender) == NODE_ID_BYTES and type(flags) is int and 0 <= flags < 256


def _nodes(packed: list[Value]) -> tuple[Contact, ...]:
    if len(packed) > NODES_MAX:
        raise DatagramError("datagram_fields")
    nodes = []
    for compact in packed:
        if not isinstance(compact, bytes) or len(compact) not in (26, 38):
            raise DatagramError("datagram_fields")
        try:
            nodes.append(Contact.unpack(compact))
        except ValueError:
            raise DatagramError("datagram_fields") from None
    return tuple(nodes)

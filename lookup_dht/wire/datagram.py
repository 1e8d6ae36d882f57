"""The datagrams between DHT nodes: a pure codec. ``docs/dht.md`` has the grammar with its reasons.

The framing is that of ``rpcudp``: one byte of type (0 query, 1 reply), twenty random bytes that
pair a reply with its query, and msgpack ``[method, arguments]``. The method names differ from
upstream's, so that unmodified nodes and ours ignore each other. All values are encoded in their
shortest form::

    query  ping        [network, sender id, flags, padding]
           find_node   [network, sender id, flags, target, token, padding]
           find_value  [network, sender id, flags, peerId, token, sequence known, padding]
           store       [network, sender id, flags, peerId, token, record]
           reach       [network, sender id, flags, address]           (without a reply)
    reply  ping        [network, sender id, flags, observed]
           find_node   [network, sender id, flags, observed, token, nodes]
           find_value  [network, sender id, flags, observed, token, nodes, sequence, record]
           store       [network, sender id, flags, observed, token, status]

``observed`` is the address and port that the query came from. ``nodes`` is a concatenation of
nodes: an id, then an address and port packed as in ``observed``, whose length tells whether a node
takes 26 bytes (IPv4) or 38 (IPv6). Later versions may append arguments, which are skipped.

**Return routability.** Queries with long replies are padded. Whatever a query makes a node send
back, including the ping that probes a stranger, is at most three times as long as the query: a
forged source address cannot turn a node into an amplifier. A node under strain answers a query
without a valid token by a reply with the flag ``AGAIN``, shorter than the query, which contains
only the token to ask again with.
"""

from __future__ import annotations

import enum
import struct
from typing import Any, Final, NamedTuple

import msgpack

from egtp.errors import LocalProtocolError, RemoteProtocolError
from egtp.values.canonical import pack
from egtp.values.identity import NODE_ID_BYTES

__all__ = [
    "AGAIN_FLAG",
    "AMPLIFICATION_MAX",
    "BYTES_IN_MAX",
    "BYTES_OUT_MAX",
    "DatagramError",
    "MESSAGE_ID_BYTES",
    "Method",
    "NODES_MAX",
    "PROVE_FLAG",
    "Query",
    "Reply",
    "SERVER_FLAG",
    "STATISTICS_QUERY_TYPE",
    "STATISTICS_REPLY_TYPE",
    "StoreStatus",
    "decode_query",
    "decode_reply",
    "encode_query",
    "encode_reply",
    "query_body",
    "query_datagram",
    "reply_bytes_max",
]

MESSAGE_ID_BYTES: Final = 20
HEADER_BYTES: Final = 1 + MESSAGE_ID_BYTES
BYTES_IN_MIN: Final = HEADER_BYTES + 1
BYTES_IN_MAX: Final = 1400
BYTES_OUT_MAX: Final = 1200
"""Fits into one packet on every path of the Internet: one lost fragment loses the datagram."""
NODES_MAX: Final = 20
NODE_BYTES_V4: Final = 26
NODE_BYTES_V6: Final = 38
AMPLIFICATION_MAX: Final = 3
RECORD_BYTES_MAX: Final = 920
TOKEN_BYTES_MAX: Final = 32
"""How a token is made is up to the node that issues it."""
NETWORK_BYTES_MAX: Final = 32
SEQUENCE_LIMIT: Final = 2**48

PROVE_FLAG: Final = 2
"""In a ping: have a node ping me that I have never heard of."""
SERVER_FLAG: Final = 1
"""The sender answers queries."""
AGAIN_FLAG: Final = 2
"""In a reply: not an answer yet; ask again with the token."""

QUERY_TYPE: Final = 0
REPLY_TYPE: Final = 1
STATISTICS_QUERY_TYPE: Final = 2
"""Followed by the twenty random bytes that every datagram has, and at least one more. Answered
within this machine only, by type 3, the same twenty bytes, and JSON."""
STATISTICS_REPLY_TYPE: Final = 3
_QUERY_HEAD: Final = bytes((QUERY_TYPE,))
_REPLY_HEAD: Final = bytes((REPLY_TYPE,))

PING_PADDING: Final = 20
"""Makes a ping longer than its reply."""
PROBE_BYTES_MAX: Final = HEADER_BYTES + 2 + 11 + (NETWORK_BYTES_MAX + 2) + 22 + 1 + 22
"""The length of a ping in a network with the longest possible name."""


class DatagramError(RemoteProtocolError):
    """An invalid datagram; ``str()`` is the counter's name for the reason."""


class Method(enum.Enum):
    PING = "egtp1.ping"
    FIND_NODE = "egtp1.find_node"
    FIND_VALUE = "egtp1.find_value"
    STORE = "egtp1.store"
    REACH = "egtp1.reach"

    # Hash by identity, as they are compared; Enum's own hash costs as much as a msgpack call.
    __hash__ = object.__hash__


_NAMES: Final = {method: method.value for method in Method}
_METHODS: Final = {method.value: method for method in Method}
"""Tables, as ``method.value`` and ``Method(name)`` are slow too."""

_QUERY_BYTES_MIN: Final = {
    Method.PING: 0,
    Method.FIND_NODE: 360,  # twenty IPv6 nodes are 763 bytes, and the probe comes on top
    Method.FIND_VALUE: -(-(BYTES_OUT_MAX + PROBE_BYTES_MAX) // AMPLIFICATION_MAX),
    Method.STORE: 0,
    Method.REACH: 0,
}


_QUERY_TYPES: Final[dict[Method, tuple[type, ...]]] = {
    Method.PING: (str, bytes, int),
    Method.FIND_NODE: (str, bytes, int, bytes, bytes, bytes),
    Method.FIND_VALUE: (str, bytes, int, bytes, bytes, int, bytes),
    Method.STORE: (str, bytes, int, bytes, bytes, bytes),
    Method.REACH: (str, bytes, int, bytes),
}
_REPLY_TYPES: Final[dict[Method, tuple[type, ...]]] = {
    Method.PING: (str, bytes, int, bytes),
    Method.FIND_NODE: (str, bytes, int, bytes, bytes, bytes),
    Method.FIND_VALUE: (str, bytes, int, bytes, bytes, bytes, int, bytes),
    Method.STORE: (str, bytes, int, bytes, bytes, int),
}


class StoreStatus(enum.IntEnum):
    """What became of a record that a node was asked to store."""

    STORED = 0
    """The node holds it now."""
    NEWER_HELD = 1
    """The node holds, or has seen, a newer one."""
    REFUSED = 2
    """Invalid, expired, too far in the future, or no room for it."""
    TOKEN = 3
    """The token is not valid, or no longer: try again with the one in the reply."""


_NO_PORT: Final = bytes(2)
_SPLIT: Final = {
    each: [struct.Struct(f"{each}s" * count).unpack for count in range(NODES_MAX + 1)]
    for each in (NODE_BYTES_V4, NODE_BYTES_V6)
}
"""By node size and count, splits concatenated nodes: six times as fast as slicing."""
_STATUSES: Final = {int(status): status for status in StoreStatus}


class Query(NamedTuple):
    """A query of any method."""

    method: Method
    network: str
    sender: bytes
    server: bool
    key: bytes = b""
    """The id or peerId that the query is about; empty in a ping or reach."""
    record: bytes = b""
    """The record to store."""
    token: bytes = b""
    """The token from the asked node's last answer about the same key; may be empty."""
    sequence: int = 0
    """Records up to this sequence are known and need not be sent."""
    prove: bool = False
    """In a ping: whether the sender wants to know if strangers can reach it."""
    address: bytes = b""
    """In a reach: the packed address and port to ping."""


class Reply(NamedTuple):
    """The answer to a :class:`Query` of the same method."""

    method: Method
    network: str
    sender: bytes
    server: bool
    observed: bytes
    """Packed address and port that the query came from."""
    nodes: tuple[bytes, ...] = ()
    """In compact form: see :class:`lookup_dht.wire.contact.Contact`."""
    record: bytes = b""
    status: StoreStatus = StoreStatus.REFUSED
    token: bytes = b""
    sequence: int = 0
    """The sequence of the record that the node holds, sent or not; 0 if it holds none."""
    again: bool = False


def reply_bytes_max(query_bytes: int) -> int:
    """How long the reply to a query of this length may be, leaving room for a probe."""
    return min(BYTES_OUT_MAX, AMPLIFICATION_MAX * query_bytes - PROBE_BYTES_MAX)


def encode_query(message_id: bytes, query: Query) -> bytes:
    """Raises :class:`LocalProtocolError` for what a datagram cannot carry."""
    return query_datagram(message_id, query_body(query))


def query_datagram(message_id: bytes, body: bytes) -> bytes:
    """The datagram of a :func:`query_body`."""
    return _QUERY_HEAD + message_id + body


def query_body(query: Query) -> bytes:
    """The part of a query after the message id, which a walk encodes once for all nodes.

    Raises :class:`LocalProtocolError` for what a datagram cannot carry."""
    method = query.method
    flags = (SERVER_FLAG if query.server else 0) | (PROVE_FLAG if query.prove else 0)
    arguments: list[object] = [query.network, query.sender, flags]
    if method is Method.REACH:
        arguments.append(query.address)
    elif method is Method.PING:
        arguments.append(bytes(PING_PADDING))
    elif method is Method.STORE:
        arguments += (query.key, query.token, query.record)
    else:
        arguments += (query.key, query.token)
        if method is Method.FIND_VALUE:
            arguments.append(query.sequence)
        arguments.append(b"")
        return _padded(_body(method, arguments), _QUERY_BYTES_MIN[method] - HEADER_BYTES)
    return _body(method, arguments)


def _padded(data: bytes, bytes_min: int) -> bytes:
    """``data`` with its last argument, an empty byte string, extended to reach ``bytes_min``."""
    padding = bytes_min - len(data)
    if padding <= 0:
        return data
    if padding < 256:
        return data[:-1] + bytes((padding,)) + bytes(padding)
    # The length of a byte string above 255 takes one more byte.
    return data[:-2] + b"\xc5" + padding.to_bytes(2, "big") + bytes(padding)


def encode_reply(message_id: bytes, reply: Reply, bytes_max: int) -> bytes | None:
    """Encode at most :data:`NODES_MAX` nodes in at most ``bytes_max`` bytes, leaving out first the
    farthest nodes, then the record.

    None if the rest does not fit either: the query was too short to deserve a reply.
    """
    method, nodes = reply.method, reply.nodes[:NODES_MAX]
    flags = (SERVER_FLAG if reply.server else 0) | (AGAIN_FLAG if reply.again else 0)
    arguments: list[object] = [reply.network, reply.sender, flags, reply.observed]
    if method is not Method.PING:
        arguments.append(reply.token)
    if method is Method.STORE:
        arguments.append(int(reply.status))
    elif method is Method.FIND_NODE:
        arguments.append(b"".join(nodes))
    elif method is Method.FIND_VALUE:
        arguments += (b"".join(nodes), reply.sequence, reply.record)
    data = _REPLY_HEAD + message_id + _body(method, arguments)
    excess = len(data) - bytes_max
    if excess > 0 and nodes:
        fitting = max(0, len(nodes) - -(-excess // len(nodes[0])))
        arguments[5] = b"".join(nodes[:fitting])
        data = _REPLY_HEAD + message_id + _body(method, arguments)
    if len(data) > bytes_max and reply.record:
        arguments[7] = b""
        data = _REPLY_HEAD + message_id + _body(method, arguments)
    return data if len(data) <= bytes_max else None


def decode_query(data: bytes) -> Query:
    """Raises :class:`DatagramError`, and nothing else, for anything but a valid query."""
    method, arguments = _arguments(data, _QUERY_TYPES)
    network, sender, flags = arguments[:3]
    server = bool(flags & SERVER_FLAG)
    if method is Method.PING:
        return Query(method, network, sender, server, prove=bool(flags & PROVE_FLAG))
    if method is Method.REACH:
        address = arguments[3]
        if len(address) not in (6, 18):
            raise DatagramError("datagram_fields")
        return Query(method, network, sender, server, address=address)
    key, token = arguments[3:5]
    if len(key) != NODE_ID_BYTES or len(token) > TOKEN_BYTES_MAX:
        raise DatagramError("datagram_fields")
    if method is Method.FIND_NODE:
        return Query(method, network, sender, server, key, b"", token)
    if method is Method.FIND_VALUE:
        sequence = arguments[5]
        if not 0 <= sequence < SEQUENCE_LIMIT:
            raise DatagramError("datagram_fields")
        return Query(method, network, sender, server, key, b"", token, sequence)
    record = arguments[5]
    if not 0 < len(record) <= RECORD_BYTES_MAX:
        raise DatagramError("datagram_fields")
    return Query(method, network, sender, server, key, record, token)


def decode_reply(data: bytes) -> Reply:
    """Raises :class:`DatagramError`, and nothing else, for anything but a valid reply."""
    method, arguments = _arguments(data, _REPLY_TYPES)
    network, sender, flags, observed = arguments[:4]
    server = bool(flags & SERVER_FLAG)
    if len(observed) not in (6, 18):
        raise DatagramError("datagram_fields")
    if method is Method.PING:
        return Reply(method, network, sender, server, observed)
    token, content = arguments[4:6]
    if len(token) > TOKEN_BYTES_MAX:
        raise DatagramError("datagram_fields")
    if method is Method.STORE:
        status = _STATUSES.get(content)
        if status is None:
            raise DatagramError("datagram_fields")
        return Reply(method, network, sender, server, observed, (), b"", status, token)
    nodes, again = _nodes(content, observed), bool(flags & AGAIN_FLAG)
    record, sequence = b"", 0
    if method is Method.FIND_VALUE:
        sequence, record = arguments[6:8]
        if not 0 <= sequence < SEQUENCE_LIMIT or len(record) > RECORD_BYTES_MAX:
            raise DatagramError("datagram_fields")
    return Reply(
        method, network, sender, server, observed, nodes, record, StoreStatus.REFUSED, token,
        sequence, again,
    )  # fmt: skip


def _body(method: Method, arguments: list[object]) -> bytes:
    try:
        return pack([_NAMES[method], arguments])
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"no datagram can carry this: {error}") from None


def _arguments(data: bytes, types: dict[Method, tuple[type, ...]]) -> tuple[Method, list[Any]]:
    """The method and its arguments, which have the types in ``types`` and may be followed by those
    of a later version. The sender and flags, which all methods share, are validated here."""
    if not BYTES_IN_MIN <= len(data) <= BYTES_IN_MAX:
        raise DatagramError("datagram_size")
    encoded = data[HEADER_BYTES:]
    try:
        # msgpack allocates the declared length before reading, so lengths are limited too.
        body = msgpack.unpackb(
            encoded, max_array_len=32, max_map_len=0, max_ext_len=0, max_str_len=64
        )
        shortest = pack(body) == encoded
    except (ValueError, OverflowError, RecursionError):
        # msgpack's own errors and UnicodeDecodeError are all ValueErrors.
        raise DatagramError("datagram_not_canonical") from None
    if not shortest:
        raise DatagramError("datagram_not_canonical")
    if type(body) is not list or len(body) != 2 or type(body[0]) is not str:
        raise DatagramError("datagram_fields")
    name, arguments = body
    method = _METHODS.get(name)
    if method is None:
        raise DatagramError("datagram_method")
    expected = types.get(method)
    if expected is None:
        raise DatagramError("datagram_method")  # A reach has no reply.
    if type(arguments) is not list or tuple(map(type, arguments[: len(expected)])) != expected:
        raise DatagramError("datagram_fields")
    if len(arguments[1]) != NODE_ID_BYTES or not 0 <= arguments[2] < 256:
        raise DatagramError("datagram_fields")
    return method, arguments


def _nodes(joined: bytes, observed: bytes) -> tuple[bytes, ...]:
    each = NODE_BYTES_V4 if len(observed) == 6 else NODE_BYTES_V6
    if len(joined) % each or len(joined) > NODES_MAX * each:
        raise DatagramError("datagram_fields")
    nodes = _SPLIT[each][len(joined) // each](joined)
    # Port 0 is invalid. Ports below 256 are rare, so most replies need no scan of each node.
    if 0 in joined[each - 2 :: each] and any(node.endswith(_NO_PORT) for node in nodes):
        raise DatagramError("datagram_fields")
    return nodes

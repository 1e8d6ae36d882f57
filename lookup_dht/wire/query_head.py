"""What a query shows before it is decoded: enough to tell who is to be answered under strain.

Reading it costs less than decoding, and the same for whatever is sent; a datagram can be made to
take dozens of times as long to decode as a query. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egtp.values.canonical import pack
from egtp.values.identity import NODE_ID_BYTES
from lookup_dht.wire.datagram import HEADER_BYTES, Method

__all__ = ["QueryHead", "network_field", "read_head"]

_METHODS: Final = {method.value.encode(): method for method in Method}
_NAME_AT: Final = HEADER_BYTES + 2
"""Behind the heads of the array of two and of the method's name."""
_ARRAY16: Final = 0xDC
_UINT8: Final = 0xCC
_ID_BYTES: Final = 2 + NODE_ID_BYTES
"""With the head of a byte string."""


class QueryHead(NamedTuple):
    """The same as in the :class:`lookup_dht.wire.datagram.Query`, if that can be decoded."""

    method: Method
    key: bytes
    token: bytes


def network_field(network: str) -> bytes:
    """The name as it is encoded in each datagram."""
    return pack(network)


def read_head(data: bytes, network: bytes) -> QueryHead | None:
    """None for what is no query in the network of this :func:`network_field`. What follows may
    still be malformed."""
    try:
        arguments_at = _NAME_AT + (data[_NAME_AT - 1] & 0x1F)
        method = _METHODS.get(data[_NAME_AT:arguments_at])
        # Later versions may append arguments, and use more flags.
        at = arguments_at + (3 if data[arguments_at] == _ARRAY16 else 1)
        sender_at = at + len(network)
        if method is None or data[at:sender_at] != network:
            return None
        if method is Method.PING or method is Method.REACH:
            return QueryHead(method, b"", b"")
        at = sender_at + _ID_BYTES
        at += 2 if data[at] == _UINT8 else 1
        token_at = at + _ID_BYTES + 2
        token = data[token_at : token_at + data[token_at - 1]]
        return QueryHead(method, data[at + 2 : at + _ID_BYTES], token)
    except IndexError:
        return None

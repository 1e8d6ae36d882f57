"""The request "dial me at this port", and its possible results (pure)."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from egtp.channel.handshake import CHECK_TOKEN_BYTES
from egtp.errors import CanonicalError, InvalidMessage
from egtp.values import canonical

__all__ = ["CHECK_KIND", "REASON_BYTES_MAX", "Checked", "Outcome", "decode_check", "encode_check"]

CHECK_KIND: Final = "egtp.address.check"
REASON_BYTES_MAX: Final = 100
"""Of the text in which a peer says why its dial failed."""


def encode_check(port: int, token: bytes) -> bytes:
    """``[port, token]``: dial me at that port, and show the token."""
    return canonical.encode((port, token))


def decode_check(body: bytes) -> tuple[int, bytes]:
    """The port and the token. Raises :class:`InvalidMessage`."""
    try:
        fields = canonical.decode(body)
    except CanonicalError as error:
        raise InvalidMessage(str(error)) from None
    match fields:
        case [int(port), bytes(token), *_] if (
            type(port) is int and 1 <= port <= 65535 and len(token) == CHECK_TOKEN_BYTES
        ):
            return port, token
    raise InvalidMessage("not a question to be dialled back")


class Outcome(enum.Enum):
    REACHED = "reached"
    UNREACHABLE = "dialled, but not reached"
    UNKNOWN = "not dialled"


class Checked(NamedTuple):
    """The result of asking one peer."""

    outcome: Outcome
    reason: str = ""

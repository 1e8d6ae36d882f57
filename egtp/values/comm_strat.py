"""Ways to reach a peer: the seed's CommStrat, which generalises an address (R17).

A strategy is a value. It *chooses* how a packet travels; the :class:`Carrier` passed to ``send``
*moves* the packet. :class:`TCPStrat` names an address or an open connection, :class:`RelayStrat` a
relay server that pushes packets down to the peer. :class:`CryptoStrat` wraps another strategy and
seals what is sent. It is always the outermost, and a record never lists it beside the transports
(the seed regrets having given it the same role).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import ClassVar, Final, Protocol, TypeAlias

from egtp.errors import InvalidConfig, InvalidRecord
from egtp.values.canonical import Value
from egtp.values.identity import KEY_BYTES, NodeId, check_key

__all__ = [
    "Address",
    "Carrier",
    "CommStrat",
    "CryptoStrat",
    "RelayStrat",
    "Sealer",
    "TCPStrat",
    "in_turns",
    "parse_strategy",
]

TCP_TYPE: Final = 1  # parse_strategy matches these two as literals
RELAY_TYPE: Final = 2
HINTS_MAX: Final = 4


_ADDRESS: Final = re.compile(
    r"(?:(?P<four>[0-9.]{1,15})|\[(?P<six>[0-9a-fA-F:.]{1,45})\]):(?P<port>[0-9]{1,5})", re.ASCII
)
_V4_MAPPED: Final = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An IP address (4 or 16 bytes, network order) and a port, 1-65535."""

    ip: bytes
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``127.0.0.1:4000`` or ``[::1]:4000``. ``[::ffff:192.0.2.7]:4000`` is the IPv4
        address in it: to a socket of IPv6 alone, as ours are, it is none. Raises
        :class:`InvalidConfig`."""
        match = _ADDRESS.fullmatch(text)
        try:
            if match is None:
                raise ValueError("neither form")
            address = cls.of(match["four"] or match["six"], int(match["port"]))
        except ValueError:
            raise InvalidConfig(
                f"an address must be IP:PORT, such as 192.0.2.7:4000 or [2001:db8::7]:4000, "
                f"not {text!r}"
            ) from None
        if address.port > 65535:
            raise InvalidConfig(f"a port must be between 0 and 65535, not {address.port}")
        return cls(address.ip.removeprefix(_V4_MAPPED), address.port)

    @classmethod
    def of(cls, host: str, port: int) -> Address:
        """An address from the host and port that a socket gives. A scope (``fe80::1%eth0``) is left
        out, since it means something on this machine only. Raises :class:`ValueError` if ``host``
        is not an IP address."""
        return cls(ipaddress.ip_address(host.partition("%")[0]).packed, port)

    @property
    def host(self) -> str:
        """The IP address as text, for socket calls."""
        if len(self.ip) == 4:
            return "{}.{}.{}.{}".format(*self.ip)
        return str(ipaddress.ip_address(self.ip))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if len(self.ip) == 16 else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        # This must also show an invalid address, to somebody who is debugging one.
        return f"<{self}>" if len(self.ip) in (4, 16) else f"<{self.ip!r}, {self.port}>"


def in_turns(addresses: Iterable[Address]) -> list[Address]:
    """IPv4 and IPv6 alternating, that of the first address first, each in its own order: where only
    a few have room, both are among them."""
    by_version: dict[int, list[Address]] = {}
    for address in addresses:
        by_version.setdefault(len(address.ip), []).append(address)
    rows = zip_longest(*by_version.values())
    return [address for row in rows for address in row if address is not None]


class Carrier(Protocol):
    """Moves packets to one peer, for the strategies that send with it.

    Sending raises :class:`egtp.errors.NotSent` if the packet cannot leave that way.
    """

    def takes_more(self, strategy: CommStrat) -> bool:
        """Whether a packet sent now would leave at once. Also true if the connection is gone: the
        write then fails."""

    def is_throttled(self, strategy: CommStrat) -> bool:
        """Whether the rate is limited, so that a large packet holds up what follows it."""

    def send_tcp(self, strategy: TCPStrat, packet: bytes) -> None:
        """Put ``packet`` into a connection's buffer, opening a connection if there is none."""

    def send_relay(self, strategy: RelayStrat, packet: bytes) -> None:
        """Ask the relay that ``strategy`` names to hand ``packet`` to the peer."""


class Sealer(Protocol):
    """Turns plaintext into a packet that only the peer can read and nobody can replay."""

    def seal(self, plaintext: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class TCPStrat:
    """A TCP address, or an open connection if ``connection`` has its number.

    An open connection means something in this process only, while it lasts; it is never encoded.
    """

    relayed: ClassVar[bool] = False
    address: Address
    connection: int | None = None

    def send(self, packet: bytes, carrier: Carrier) -> None:
        """Send ``packet`` over the open connection, or over one to the address."""
        carrier.send_tcp(self, packet)

    def fields(self) -> tuple[Value, ...]:
        """The fields that describe it in a record."""
        return (TCP_TYPE, self.address.ip, self.address.port)

    def __str__(self) -> str:
        return f"tcp {self.address}" + ("" if self.connection is None else " (open)")


@dataclass(frozen=True, slots=True)
class RelayStrat:
    """A relay server that has promised to push packets down to the peer.

    It has all that a first contact with the relay needs, without a lookup: both keys of the relay,
    and the addresses where it was last seen. These are hints only; the relay proves itself when
    dialled.
    """

    relayed: ClassVar[bool] = True
    connection: ClassVar[int | None] = None
    relay_key: bytes
    """The relay's Ed25519 public key, from which its nodeId follows."""
    suite: int
    channel_key: bytes
    hints: tuple[Address, ...] = ()
    relay_id: NodeId = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "relay_id", NodeId.of_key(self.relay_key))

    def send(self, packet: bytes, carrier: Carrier) -> None:
        """Send ``packet`` as a message to the relay (R13)."""
        carrier.send_relay(self, packet)

    def fields(self) -> tuple[Value, ...]:
        """The fields that describe it in a record."""
        hints = tuple((hint.ip, hint.port) for hint in self.hints)
        return (RELAY_TYPE, self.relay_key, self.suite, self.channel_key, *hints)

    def __str__(self) -> str:
        return f"relay {self.relay_id}"

    def __repr__(self) -> str:
        return f"<{self}>"


CommStrat: TypeAlias = TCPStrat | RelayStrat
"""A way to reach a peer, as records list them."""


@dataclass(frozen=True, slots=True)
class CryptoStrat:
    """Seals what is sent, and has a lower strategy deliver it (seed III.A)."""

    lower: CommStrat
    sealer: Sealer

    def send(self, plaintext: bytes, carrier: Carrier) -> None:
        """Seal ``plaintext``, and send it by the lower strategy."""
        self.lower.send(self.sealer.seal(plaintext), carrier)

    def __str__(self) -> str:
        return str(self.lower)


def parse_strategy(fields: Value) -> CommStrat | None:
    """The strategy that ``fields`` of a record describe; None for a type of a later version.

    Elements after the known ones are skipped. Raises :class:`InvalidRecord` for a known type
    with wrong fields.
    """
    if not isinstance(fields, list) or not fields or type(fields[0]) is not int:
        raise InvalidRecord("a strategy starts with its type")
    match fields:
        case [1, bytes(ip), int(port), *_]:
            return TCPStrat(_parse_address(ip, port))
        case [2, bytes(key), int(suite), bytes(channel_key), *hints] if (
            type(suite) is int and suite > 0 and len(channel_key) == KEY_BYTES
        ):
            check_key(key)
            return RelayStrat(key, suite, channel_key, _parse_hints(hints))
        case [1 | 2, *_]:
            raise InvalidRecord("a strategy with wrong fields")
    return None


def _parse_hints(hints: Sequence[Value]) -> tuple[Address, ...]:
    addresses = []
    for hint in hints[:HINTS_MAX]:
        match hint:
            case [bytes(ip), int(port), *_]:
                addresses.append(_parse_address(ip, port))
            case _:
                raise InvalidRecord("a relay hint is [ip, port]")
    return tuple(addresses)


def _parse_address(ip: bytes, port: int) -> Address:
    if len(ip) not in (4, 16) or type(port) is not int or not 1 <= port <= 65535:
        raise InvalidRecord("an address is 4 or 16 bytes and a port")
    return Address(ip, port)

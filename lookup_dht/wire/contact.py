"""A node of the DHT as others see it: an id and an address. And which addresses may be nodes.

A :class:`Contact` has the attributes of ``kademlia.node.Node`` and can replace it anywhere; unlike
a Node, it is validated, comparable and hashable. A host name, a port of 70,000 or an id of 19 bytes
never becomes a Contact.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from egtp.values.identity import NODE_ID_BYTES

__all__ = ["LAB_HINT", "AddressPolicy", "Contact", "SocketAddress", "group_of", "pack_ip"]

LAB_HINT: Final = "; for a lab, allow private addresses (--private-addresses)"
"""Appended to messages about refused addresses, in case the user meant them."""
SocketAddress = tuple[str, int]

_PRIVATE_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24",
    )
)  # fmt: skip
_PRIVATE_V4_BY_FIRST: Final = {
    first: [
        (network.network_address.packed, network.broadcast_address.packed)
        for network in _PRIVATE_V4
        if network.network_address.packed[0] == first
    ]
    for first in {network.network_address.packed[0] for network in _PRIVATE_V4}
}
"""By first byte, which is enough to let most addresses through."""
_V4_IN_V6_PREFIXES: Final = (
    bytes(12),  # ::a.b.c.d, ::1 and :: among them
    bytes(10) + b"\xff\xff",  # v4-mapped
    bytes.fromhex("0064ff9b"),  # NAT64
    bytes.fromhex("2002"),  # 6to4
    bytes.fromhex("20010000"),  # Teredo
)
_LOOPBACK_V6: Final = bytes(15) + b"\x01"


class Contact:
    """A 20-byte id, an IP address and a port. Immutable by convention."""

    # A node has about a hundred; what is cheap to derive is not stored.
    __slots__ = ("address", "compact", "long_id")

    def __init__(self, node_id: bytes, packed: bytes, port: int) -> None:
        """``packed`` is the IP address in 4 or 16 bytes. Raises ValueError for anything that cannot
        be a node."""
        if len(node_id) != NODE_ID_BYTES or type(port) is not int or not 1 <= port <= 65535:
            raise ValueError("a contact is 20 bytes of id, an IP address and a port")
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        self.address: Final[SocketAddress] = socket.inet_ntop(family, packed), port
        self.compact: Final = node_id + packed + port.to_bytes(2, "big")
        """Its 26 or 38 bytes in a datagram."""
        self.long_id: Final = int.from_bytes(node_id, "big")

    @staticmethod
    @lru_cache(16_384)
    def unpack(compact: bytes) -> Contact:
        """Decode 26 or 38 bytes from a datagram. Raises ValueError.

        Nodes hear of the same ones again and again; and where there are many nodes in one process,
        contacts would be most of what they keep of each other.
        """
        return Contact(
            compact[:NODE_ID_BYTES],
            compact[NODE_ID_BYTES:-2],
            int.from_bytes(compact[-2:], "big"),
        )

    @property
    def id(self) -> bytes:
        return self.compact[:NODE_ID_BYTES]

    @property
    def packed(self) -> bytes:
        """The 4 or 16 bytes of the IP address."""
        return self.compact[NODE_ID_BYTES:-2]

    @property
    def home(self) -> bytes:
        """The 6 or 18 bytes of the IP address and port."""
        return self.compact[NODE_ID_BYTES:]

    @property
    def ip(self) -> str:
        return self.address[0]

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def group(self) -> bytes:
        """Its /24 (IPv6: /48): addresses in one group probably have one owner."""
        return group_of(self.packed)

    def same_home_as(self, other: Contact) -> bool:
        return self.address == other.address

    def distance_to(self, other: Contact) -> int:
        return self.long_id ^ other.long_id

    def __iter__(self) -> Iterator[object]:
        return iter((self.id, self.ip, self.port))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contact) and self.compact == other.compact

    def __hash__(self) -> int:
        return hash(self.compact)

    def __repr__(self) -> str:
        return f"Contact({self.id.hex()}, {self.ip}, {self.port})"


def group_of(packed: bytes) -> bytes:
    """The /24 of an IPv4 address, the /48 of an IPv6 one."""
    return packed[:3] if len(packed) == 4 else packed[:6]


class AddressPolicy:
    """Which addresses may be nodes. Without it, a stranger's answer could make this node send
    datagrams into its own private network."""

    def __init__(self, *, private_addresses: bool) -> None:
        self._private_addresses = private_addresses

    def allows(self, packed: bytes) -> bool:
        if len(packed) == 4:
            if self._private_addresses or packed[0] not in _PRIVATE_V4_BY_FIRST:
                return 0 < packed[0] < 224  # not unspecified, multicast, reserved, broadcast
            for low, high in _PRIVATE_V4_BY_FIRST[packed[0]]:  # noqa: SIM110  (a generator costs more)
                if low <= packed <= high:
                    return False
            return True
        # Multicast, and link-local: nothing can be sent to that without the interface, which no
        # contact names.
        if packed[0] == 0xFF or (packed[0] == 0xFE and packed[1] & 0xC0 == 0x80):
            return False
        if packed.startswith(_V4_IN_V6_PREFIXES):
            return self._private_addresses and packed == _LOOPBACK_V6
        # Only 2000::/3 is the Internet; unique local addresses are outside.
        public = packed[0] & 0xE0 == 0x20 and not packed.startswith(b"\x20\x01\x0d\xb8")
        return public or self._private_addresses


def pack_ip(host: str) -> bytes | None:
    """The 4 or 16 bytes of an IP address in text; None for anything else, names included."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, ValueError):
        return None

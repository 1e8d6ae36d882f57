"""The id of a DHT node: its prefix is derived from its IP address, its tail is random (BEP 42).

It is independent of the peerId of whoever runs the node: otherwise it would tie an identity to an
IP address, and an attacker could generate keys until their peerIds surround a victim's. With the
prefix bound to the masked address, one machine can choose among only eight places in the network.
https://www.bittorrent.org/beps/bep_0042.html
"""

from __future__ import annotations

from typing import Final

from egtp.values.identity import Entropy
from lookup_dht.wire.contact import AddressPolicy

__all__ = ["fits", "fits_public", "is_public", "new_node_id"]

_MASK_V6: Final = bytes.fromhex("0103070f1f3f7fff")
_PUBLIC: Final = AddressPolicy(private_addresses=False)


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC32C: Final = _crc32c_table()


def _prefix(packed: bytes, choice: int) -> int:
    """The checksum whose first 21 bits begin the id."""
    table, crc = _CRC32C, 0xFFFFFFFF
    first = (choice & 7) << 5
    if len(packed) == 4:
        # The loop below, unrolled: half the time, as every suggested node is checked.
        crc = 0xFFFFFF ^ table[0xFF ^ (packed[0] & 0x03 | first)]
        crc = crc >> 8 ^ table[(crc ^ packed[1] & 0x0F) & 0xFF]
        crc = crc >> 8 ^ table[(crc ^ packed[2] & 0x3F) & 0xFF]
        return crc >> 8 ^ table[(crc ^ packed[3]) & 0xFF] ^ 0xFFFFFFFF
    for byte, mask in zip(packed, _MASK_V6, strict=False):
        crc = crc >> 8 ^ table[(crc ^ (byte & mask | first)) & 0xFF]
        first = 0
    return crc ^ 0xFFFFFFFF


def is_public(packed: bytes) -> bool:
    """Whether this is an address on the Internet, which the id of a node has to fit."""
    return _PUBLIC.allows(packed)


def new_node_id(packed: bytes | None, entropy: Entropy) -> bytes:
    """An id for a node at this public address; entirely random for a private or unknown one."""
    node_id = bytearray(entropy(20))
    if packed is not None and _PUBLIC.allows(packed):
        crc = _prefix(packed, node_id[19])
        node_id[:3] = (crc >> 24, crc >> 16 & 0xFF, crc >> 8 & 0xF8 | node_id[2] & 7)
    return bytes(node_id)


def fits(node_id: bytes, packed: bytes) -> bool:
    """Whether a node at this address may have this id. Private addresses are exempt: there is no
    public one to bind the id to."""
    return not _PUBLIC.allows(packed) or fits_public(node_id, packed)


def fits_public(node_id: bytes, packed: bytes) -> bool:
    """The same for an address known to be public."""
    crc = _prefix(packed, node_id[19])
    return int.from_bytes(node_id[:3], "big") >> 3 == crc >> 11

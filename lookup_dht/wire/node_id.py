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

__all__ = ["AddressVotes", "fits", "fits_public", "is_public", "new_node_id"]

VOTERS_MAX: Final = 256
"""More than there are networks among the contacts of a node, so that nobody loses his vote because
others are asked more often."""
VOTE_S: Final = 1200.0
"""How long a vote counts: by then each contact was asked again."""
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


class AddressVotes:
    """The public address at which others see us: the only way for a node on 0.0.0.0 to learn it.

    Only contacts have a vote, one per /16 (IPv6: /32): two networks, and more than half of all,
    have to agree, so that a few liars cannot make us change our id. Where there is only one
    network, its word is the best that there is.
    """

    def __init__(self) -> None:
        self._votes: dict[bytes, tuple[bytes, float]] = {}
        """By network: what it sees, and when it said so; the latest last."""

    def cast(self, voter: bytes, seen: bytes, now: float) -> None:
        """``voter`` sees us at ``seen``; both are packed addresses."""
        group = voter[:2] if len(voter) == 4 else voter[:4]
        if not _PUBLIC.allows(seen):
            return
        self._votes.pop(group, None)
        self._votes[group] = seen, now
        if len(self._votes) > VOTERS_MAX:
            del self._votes[next(iter(self._votes))]

    def winner(self, now: float) -> bytes | None:
        """The address on which at least two voters, and more than half of them, agree."""
        votes = [seen for seen, cast_at in self._votes.values() if now - cast_at < VOTE_S]
        for seen in set(votes):
            if votes.count(seen) >= 2 and votes.count(seen) * 2 > len(votes):
                return seen
        return None

    def only(self) -> bytes | None:
        """The address seen by the one network that has ever voted; None if there are more."""
        return next(iter(self._votes.values()))[0] if len(self._votes) == 1 else None

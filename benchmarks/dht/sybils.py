"""Where sybils have to be: addresses whose ids may begin as a given key does.

An id's first 21 bits follow from 20 bits of the address and 3 of free choice (BEP 42), by a
checksum that is linear. So for any key there are some ten thousand addresses on the Internet that
fit it exactly, each in a /24 of its own. An attacker who can rent where he likes rents these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from lookup_dht.wire.node_id import new_node_id

__all__ = ["Place", "places_near"]


@dataclass(frozen=True, slots=True)
class Place:
    """An address, and the three bits that an id there must end with."""

    address: str
    choice: int

    def node_id(self, key: bytes, rng: random.Random) -> bytes:
        """An id that shares its first 32 bits with ``key``."""
        tail = bytearray(rng.randbytes(16))
        tail[-1] = tail[-1] & 0xF8 | self.choice
        return key[:4] + bytes(tail)


def places_near(key: bytes, rng: random.Random) -> Iterator[Place]:
    """Addresses whose ids may begin with the first 21 bits of ``key``, in random order, each in
    another /24."""
    target, zero = int.from_bytes(key[:3], "big") >> 3, _prefix(0, 0, 0, 0, 0)
    low = {
        _prefix(0, 0, 0, last, choice): (last, choice)
        for last, choice in product(range(256), range(8))
    }
    fitting = []
    for one, two, three in product(range(4), range(16), range(64)):
        found = low.get(target ^ zero ^ _prefix(one, two, three, 0, 0))
        if found is not None:
            fitting.append((one, two, three, *found))
    seen = set()
    while fitting:
        one, two, three, last, choice = rng.choice(fitting)
        # Bits that the mask leaves out are free.
        first = rng.choice([octet for octet in range(11, 100) if octet & 3 == one])
        second, third = two | rng.randrange(16) << 4, three | rng.randrange(4) << 6
        address = f"{first}.{second}.{third}.{last}"
        if address not in seen:
            seen.add(address)
            yield Place(address, choice)


def _prefix(one: int, two: int, three: int, last: int, choice: int) -> int:
    """The 21 bits. The ``one`` to ``last`` are octets of an address."""
    # 12 to 15 are public, and the mask leaves nothing of the 12.
    packed = bytes((12 | one, two, three, last))
    return (
        int.from_bytes(new_node_id(packed, lambda count: bytes((choice,)) * count)[:3], "big") >> 3
    )

"""Which records a node gives to nodes that it has just met. Pure.

Upstream gives every record to every node that it meets, for ever. Here a newcomer gets a record
from one node, or two: those that are next after it in the order of distance to the key. So a
record stays with the closest nodes while a network grows manyfold, and nobody else says a word.

A node knows few of those around a key that is far from it, and would take a newcomer of rank 26 for
one of the closest. So the newcomer's rank must also be likely by the size of the network; and it
is asked, before it is given anything, whom it knows there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from egtp.values.identity import NODE_ID_BYTES
from lookup_dht.wire.contact import Contact

__all__ = ["GIVERS", "RANK_LIKELY", "inheritances", "is_among"]

GIVERS: Final = 2
"""How many of the nodes next after the newcomer give it a record: one may be gone, or lie."""
RANK_LIKELY: Final = 1.25
"""A newcomer's expected rank may be this many times the replication: the size of a network is
known to a fifth, and who is missed at the edge is not missed by those who look for the record."""


def inheritances(
    newcomer: Contact,
    keys: Iterable[bytes],
    own_id: int,
    closest: Callable[[int, int], list[Contact]],
    surveyed: Callable[[int], bool],
    replication: int,
    reach: int,
) -> list[bytes]:
    """The ``keys`` of records held here that ``newcomer`` should have, and that are this node's
    to give. ``closest`` gives the contacts closest to a number, as many as told; ``surveyed`` says
    whether there are hardly others there: elsewhere, this node cannot judge who is close.
    ``reach`` is the distance within which there are :data:`RANK_LIKELY` times ``replication``
    nodes, by the size of the network.

    A newcomer farther from the key than this node gets nothing from it: there is somebody closer
    to the newcomer's rank to do that, or it is not among the closest at all.
    """
    found = []
    newcomer_id = newcomer.long_id
    for key in keys:
        target = int.from_bytes(key, "big")
        distance, own_distance = newcomer_id ^ target, own_id ^ target
        if distance >= own_distance or distance > reach or not surveyed(target):
            continue
        near = [contact.long_id ^ target for contact in closest(target, replication + GIVERS + 1)]
        closer = sum(it < distance for it in near)
        between = sum(distance < it < own_distance for it in near)
        if closer < replication and between < GIVERS:
            found.append(key)
    return found


def is_among(newcomer: Contact, key: bytes, known: Iterable[bytes], replication: int) -> bool:
    """Whether ``newcomer`` is one of the ``replication`` closest to the key by what it knows
    itself: ``known`` are the closest nodes that it tells of, in compact form.

    Where ids happen to be dense, the size of the network does not tell. Who lies about it gets
    less, or what it would have got without this.
    """
    target = int.from_bytes(key, "big")
    distance = newcomer.long_id ^ target
    closer = sum(int.from_bytes(it[:NODE_ID_BYTES], "big") ^ target < distance for it in known)
    return closer < replication

"""Which records a node gives to nodes that it has just met. Pure.

Upstream gives every record to every node that it meets, for ever. Here a newcomer gets a record
from one node, or two: those that are next after it in the order of distance to the key. So a
record stays with the closest nodes while a network grows manyfold, and nobody else says a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lookup_dht.contact import Contact

__all__ = ["GIVERS", "inheritances"]

GIVERS = 2
"""How many of the nodes next after the newcomer give it a record: one may be gone, or lie."""


def inheritances(
    newcomer: Contact,
    keys: Iterable[bytes],
    own_id: int,
    closest: Callable[[int, int], list[Contact]],
    surveyed: Callable[[int], bool],
    replication: int,
) -> list[bytes]:
    """The ``keys`` of records held here that ``newcomer`` should have, and that are this node's
    to give. ``closest`` gives the contacts closest to a number, as many as told; ``surveyed`` says
    whether there are hardly others there: elsewhere, this node cannot judge who is close.

    A newcomer farther from the key than this node gets nothing from it: there is somebody closer
    to the newcomer's rank to do that, or it is not among the closest at all.
    """
    found = []
    for key in keys:
        target = int.from_bytes(key, "big")
        distance, own_distance = newcomer.long_id ^ target, own_id ^ target
        if distance >= own_distance or not surveyed(target):
            continue
        near = [contact.long_id ^ target for contact in closest(target, replication + GIVERS + 1)]
        closer = sum(it < distance for it in near)
        between = sum(distance < it < own_distance for it in near)
        if closer < replication and between < GIVERS:
            found.append(key)
    return found

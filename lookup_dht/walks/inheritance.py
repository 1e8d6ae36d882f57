"""Which records a node hands over to nodes that it has just met. Pure.

Upstream gives every record to every node that it ever meets. Here, a newcomer gets a record from
the one or two nodes that follow it in the order of distance to the key. So records stay on the
closest nodes however much the network grows, and no other node sends anything.

A node knows few of the nodes around a key far from it, and might take a newcomer of rank 26 for one
of the closest. So the newcomer's rank must also be plausible by the size of the network; and before
it is given anything, the newcomer is asked whom it knows there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from egtp.values.identity import NODE_ID_BYTES
from lookup_dht.wire.contact import Contact

__all__ = ["GIVERS", "RANK_LIKELY", "inheritances", "is_among"]

GIVERS: Final = 2
"""How many of the nodes that follow the newcomer give it a record: one may be gone, or lie."""
RANK_LIKELY: Final = 1.25
"""A newcomer's expected rank may be this many times the replication: the size of the network is
known to within a fifth, and a lookup does not depend on a node missed at the edge."""


def inheritances(
    newcomer: Contact,
    keys: Iterable[bytes],
    own_id: int,
    closest: Callable[[int, int], list[Contact]],
    surveyed: Callable[[int], bool],
    replication: int,
    reach: int,
) -> list[bytes]:
    """Those of ``keys``, of records held here, that this node should give to ``newcomer``.

    ``closest`` returns the contacts closest to a number, as many as wanted; ``surveyed`` whether
    this node knows nearly all nodes there: elsewhere it cannot judge who is close. ``reach`` is the
    distance within which there are :data:`RANK_LIKELY` times ``replication`` nodes, by the
    estimated size of the network.

    A newcomer farther from the key than this node gets nothing from it: either a node that follows
    the newcomer gives it the record, or the newcomer is not among the closest at all.
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
    """Whether ``newcomer`` is one of the ``replication`` closest to the key, judging by the nodes
    that it knows itself: ``known`` are the closest ones that it returned, in compact form.

    Needed where ids happen to be dense, which the size of the network does not reveal. By lying, a
    newcomer gets fewer records, or those it would have got without this check.
    """
    target = int.from_bytes(key, "big")
    distance = newcomer.long_id ^ target
    closer = sum(int.from_bytes(it[:NODE_ID_BYTES], "big") ^ target < distance for it in known)
    return closer < replication

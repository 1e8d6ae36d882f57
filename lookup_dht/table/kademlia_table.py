"""The routing table: kademlia's contract, with buckets that a stranger cannot split or fill.

Upstream splits buckets by range, endlessly if ids are crafted for it, and answers with the first k
contacts it comes across rather than the k closest. Here, a contact's bucket is the number of
leading bits that its id shares with this node's, so there are at most 160, and the k closest are
exact.
"""

from __future__ import annotations

import collections
import heapq
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from kademlia.routing import RoutingTable

from lookup_dht.settings import NodeSettings
from lookup_dht.table.bucket import ID_BITS, Bucket, Entry
from lookup_dht.wire.contact import Contact, SocketAddress

__all__ = ["NEWCOMERS_MAX", "LookupTable"]

FORMER_MAX: Final = 64
NEWCOMERS_MAX: Final = 256
"""More than a node meets between two hand-overs, unless somebody invents them."""
CHECK_AFTER_MIN_S: Final = 60.0
"""No contact, however new, is pinged before it has been silent for this long."""
_COMPACT: Final = operator.attrgetter("contact.compact")
"""Of an entry."""


class LookupTable(RoutingTable):  # type: ignore[misc]
    """Holds only contacts that have answered a query of ours.

    One contact per id and one per address, and few per network group unless private addresses are
    allowed. A known id at a new address waits until the old address has been asked and is silent:
    otherwise anybody could take over an id.
    """

    def __init__(
        self,
        protocol: Any,
        ksize: int,
        node: Any,
        settings: NodeSettings,
        counters: collections.Counter[str],
    ) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._counters = counters
        self._seen_at = b""
        self.newcomers: dict[bytes, Contact] = {}
        """Contacts that entered the table since the last hand-over, by compact form."""
        self.on_newcomer: Callable[[], None] = _ignore_newcomer
        """Called when the first newcomer enters ``newcomers``."""
        self.former: dict[SocketAddress, Contact] = {}
        """The contacts dropped last, and those of an earlier run: not trusted, never suggested to
        others, but greeted when joining. After this machine was offline, they are all there is."""
        super().__init__(protocol, ksize, node)

    def flush(self) -> None:
        self.buckets: dict[int, Bucket] = {}
        """By index and in its order: the farthest first."""
        self._bits = 0
        """The ``bit`` of every bucket, combined."""
        self._at: dict[SocketAddress, Entry] = {}
        self._groups: collections.Counter[bytes] = collections.Counter()

    def has_address(self, address: SocketAddress) -> bool:
        """Whether a contact at that address is in the table."""
        return address in self._at

    def at(self, address: SocketAddress) -> Contact | None:
        """The contact at that address, if any."""
        entry = self._at.get(address)
        return None if entry is None else entry.contact

    def __len__(self) -> int:
        return len(self._at)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Contact]:
        for entry in self._entries():
            yield entry.contact

    def sort_again(self) -> None:
        """This node has a new id: sort the contacts into buckets anew."""
        entries = list(self._entries())
        self.flush()
        for entry in entries:
            self.add_contact(entry.contact)
            self.is_seen(entry.contact, entry.sees)

    def get_bucket_for(self, node: Any) -> int:
        """The bucket's index: how many leading bits the id shares with ours."""
        return ID_BITS - int(node.long_id ^ self.node.long_id).bit_length()

    def is_new_node(self, node: Contact) -> bool:
        """Whether the table lacks this contact at this address."""
        entry = self._at.get(node.address)
        return entry is None or entry.contact.long_id != node.long_id

    def heard(self, contact: Contact) -> bool:
        """The contact has answered. False if it is not in the table."""
        entry = self._at.get(contact.address)
        number = contact.long_id
        if entry is None or entry.contact.long_id != number:
            return False
        entry.answered_at = self._settings.elapsed()
        bucket = entry.bucket
        bucket.entries[number] = bucket.entries.pop(number)
        if entry.strikes:
            entry.strikes, bucket.live = 0, None
        # A contact elsewhere with the same id was waiting for this one to fall silent.
        bucket.replacements.pop(number, None)
        return True

    def is_seen(self, by: Contact, at: bytes) -> None:
        """The contact has just said at which packed address it sees this node."""
        entry = self._at.get(by.address)
        if entry is not None:
            # Nearly all say the same, so they share it.
            entry.sees = self._seen_at = self._seen_at if at == self._seen_at else at

    def sightings(self) -> Iterator[tuple[bytes, bytes, float]]:
        """Who sees this node, where, and when they said so; addresses are packed."""
        for entry in self._entries():
            if entry.sees:
                yield entry.contact.packed, entry.sees, entry.answered_at

    def wants(self, contact: Contact) -> bool:
        """Whether a stranger is worth a ping to learn if it answers."""
        number = contact.long_id
        if number == self.node.long_id or not self.is_new_node(contact):
            return False
        bucket = self.buckets.get(self.get_bucket_for(contact))
        if bucket is None:
            return True
        if number in bucket.entries or number in bucket.replacements:
            return bucket.replacements.get(number) != contact
        # The rest of the bucket is filled by this node's own walks, at no extra cost.
        few = len(bucket.entries) < max(1, self.ksize // 2)
        return few and not self._group_full(bucket, contact)

    def add_contact(self, node: Contact) -> bool:
        """Add a contact that has just answered. False if there is no place for it now."""
        if node.long_id == self.node.long_id:
            self._counters["contact_with_own_id"] += 1
            return False
        if self.heard(node):
            return True
        at_address = self._at.get(node.address)
        if at_address is not None:
            self._remove(at_address.contact.long_id)  # The node there has another id now.
        bucket = self._bucket(self.get_bucket_for(node))
        elsewhere = bucket.entries.get(node.long_id)
        if elsewhere is not None:
            self._wait_for_place(bucket, node)
            self.protocol.check(elsewhere.contact)
            return False
        if len(bucket.entries) >= self.ksize:
            self._wait_for_place(bucket, node)
            longest_silent = next(iter(bucket.entries.values()))
            if self._silent_for_long(longest_silent):
                self.protocol.check(longest_silent.contact)
            return False
        if self._group_full(bucket, node):
            self._counters["contact_group_full"] += 1
            return False
        self._place(bucket, node)
        return True

    def remove_contact(self, node: Contact) -> None:
        """Drop this contact at this address; one that was waiting takes its place."""
        if self.is_new_node(node):
            return
        self._remove(node.long_id)
        self.remember(node)
        self._promote(self._bucket(self.get_bucket_for(node)), node.long_id)

    def remember(self, node: Contact) -> None:
        """Keep a contact to be greeted when this node joins again."""
        self.former.pop(node.address, None)
        self.former[node.address] = node
        if len(self.former) > FORMER_MAX:
            del self.former[next(iter(self.former))]

    def strike(self, node: Contact) -> None:
        """The contact left a query unanswered, repetitions included."""
        if self.is_new_node(node):
            return
        bucket = self._bucket(self.get_bucket_for(node))
        entry = bucket.entries[node.long_id]
        entry.strikes += 1
        bucket.live = None
        # One strike is enough if its successor at another address has already answered.
        if entry.strikes >= self._limits.strikes_max or node.long_id in bucket.replacements:
            self.remove_contact(node)

    def find_neighbors(self, node: Any, k: int | None = None, exclude: Any = None) -> list[Contact]:
        """Upstream's form of :meth:`closest`; ``exclude`` is left out."""
        wanted = k or self.ksize
        near = self.closest(node.long_id, wanted + (exclude is not None))
        return [it for it in near if exclude is None or not it.same_home_as(exclude)][:wanted]

    def closest(self, target: int, k: int | None = None) -> list[Contact]:
        """Exactly the k contacts closest to a number, closest first; one with that very id is
        included."""
        wanted = k or self.ksize
        near: dict[int, Contact] = {}
        for bucket in self._by_distance(target):
            for entry in bucket.entries.values():
                near[entry.contact.long_id ^ target] = entry.contact
            if len(near) >= wanted:
                break
        return [near[distance] for distance in sorted(near)[:wanted]]

    def spread(self, count: int) -> list[Contact]:
        """Up to ``count`` contacts from all over the table, near and far."""
        contacts = list(self)
        step = max(1, len(contacts) // max(1, count))
        return contacts[::step][:count]

    def suggestions(self, target: int, asker: SocketAddress) -> tuple[bytes, ...]:
        """The k contacts closest to a number to suggest to ``asker``, in compact form: without
        itself, and without contacts that have a strike."""
        known = self._at.get(asker)
        near: list[bytes] = []
        wanted = self.ksize + 1
        for bucket in self._by_distance(target):
            numbers = sorted(bucket.live or bucket.live_ones(), key=target.__xor__)
            near += map(_COMPACT, map(bucket.entries.__getitem__, numbers[: wanted - len(near)]))
            if len(near) == wanted:
                break
        if known is not None and known.contact.compact in near:
            near.remove(known.contact.compact)
        return tuple(near[: self.ksize])

    def _by_distance(self, target: int) -> Iterator[Bucket]:
        """The buckets by distance to the target: every contact of one is closer than any of the
        next, so few contacts have to be sorted to find the closest.

        The ids in a bucket differ from ours in its bit first. If the target differs from ours in
        that bit too, they are on its side, closer than all contacts of later buckets; if not, they
        are farther.
        """
        buckets = self.buckets
        differing = (target ^ self.node.long_id) & self._bits
        same = self._bits ^ differing
        while differing:
            bucket = buckets[ID_BITS - differing.bit_length()]
            yield bucket
            differing ^= bucket.bit
        while same:
            lowest = same & -same
            yield buckets[ID_BITS - lowest.bit_length()]
            same ^= lowest

    def surveyed(self, target: int) -> bool:
        """Whether the table has room around ``target``, so that it left out nobody there."""
        bucket = self.buckets.get(ID_BITS - (target ^ self.node.long_id).bit_length())
        return bucket is None or len(bucket.entries) < self.ksize

    def touch(self, node: Any) -> None:
        """A lookup towards ``node`` begins, which refreshes its bucket. One towards this node
        itself finds the k closest, and so everybody in the nearest buckets."""
        index = self.get_bucket_for(node)
        near = self._near_from if index == ID_BITS else ID_BITS
        for bucket in self.buckets.values():
            if bucket.index == index or bucket.index >= near:
                bucket.refreshed_at = self._settings.elapsed()

    @property
    def _near_from(self) -> int:
        """From this index on, the buckets together hold at most k contacts."""
        index, count = ID_BITS, 0
        for bucket in sorted(self.buckets.values(), key=lambda it: it.index, reverse=True):
            count += len(bucket.entries)
            if count > self.ksize:
                break
            index = bucket.index
        return index

    def lonely_buckets(self) -> list[Bucket]:
        """The buckets due for a refresh, the longest unvisited first. A bucket full of contacts
        that answer has nobody to look for, so it waits longer."""
        now, limits = self._settings.elapsed(), self._limits
        lonely = [
            bucket
            for bucket in self.buckets.values()
            if now - bucket.refreshed_at
            > (
                limits.refresh_full_interval_s
                if len(bucket.live_ones()) >= self.ksize
                else limits.refresh_interval_s
            )
        ]
        return sorted(lonely, key=lambda bucket: bucket.refreshed_at)

    def refresh_id(self, bucket: Bucket) -> bytes:
        """What to look up to refresh ``bucket``; one lookup serves all of the nearest buckets."""
        if bucket.index >= self._near_from:
            return bytes(self.node.id)
        return self.random_id_in(bucket)

    def random_id_in(self, bucket: Bucket) -> bytes:
        """A random id that belongs in ``bucket``."""
        tail_bits = ID_BITS - 1 - bucket.index
        entropy = int.from_bytes(self._settings.entropy(ID_BITS // 8), "big")
        prefix = (self.node.long_id >> tail_bits ^ 1) << tail_bits
        return int(prefix | entropy & (1 << tail_bits) - 1).to_bytes(ID_BITS // 8, "big")

    def silent_contacts(self, count: int) -> list[Contact]:
        """Up to ``count`` contacts due for a ping, the longest silent first."""
        return _longest_silent(count, filter(self._silent_for_long, self._entries()))

    def silent_since(self, moment_s: float, count: int) -> list[Contact]:
        """Up to ``count`` contacts that have not answered since then, the longest silent first."""
        return _longest_silent(count, (it for it in self._entries() if it.answered_at < moment_s))

    def _entries(self) -> Iterator[Entry]:
        for bucket in self.buckets.values():
            yield from bucket.entries.values()

    def _silent_for_long(self, entry: Entry) -> bool:
        """Whether a contact has been silent for as long as it is known to have lived. A node that
        has stayed for long usually goes on to stay; and where nodes live for minutes, dead contacts
        are soon found out instead of being asked by every walk."""
        stayed_s = max(CHECK_AFTER_MIN_S, entry.answered_at - entry.met_at)
        silent_s = self._settings.elapsed() - entry.answered_at
        return silent_s > min(stayed_s, self._limits.check_after_s)

    def _bucket(self, index: int) -> Bucket:
        bucket = self.buckets.get(index)
        if bucket is None:
            bucket = self.buckets[index] = Bucket(index, self._settings.elapsed())
            self.buckets = dict(sorted(self.buckets.items()))
            self._bits |= bucket.bit
        return bucket

    def _group_full(self, bucket: Bucket, contact: Contact) -> bool:
        if self._settings.private_addresses:
            return False
        group = contact.group
        in_table = self._groups.get(group, 0)
        if in_table >= self._limits.group_contacts_max:
            return True
        if in_table < self._limits.group_contacts_per_bucket:
            return False  # The usual case, which spares a scan of the bucket.
        here = sum(entry.contact.group == group for entry in bucket.entries.values())
        return here >= self._limits.group_contacts_per_bucket

    def _place(self, bucket: Bucket, contact: Contact) -> None:
        now = self._settings.elapsed()
        entry = Entry(contact, bucket, met_at=now, answered_at=now)
        bucket.entries[contact.long_id] = self._at[contact.address] = entry
        bucket.live = None
        bucket.replacements.pop(contact.long_id, None)
        self._groups[contact.group] += 1
        self.former.pop(contact.address, None)
        if len(self.newcomers) < NEWCOMERS_MAX:
            self.newcomers[contact.compact] = contact
            if len(self.newcomers) == 1:
                self.on_newcomer()

    def _wait_for_place(self, bucket: Bucket, contact: Contact) -> None:
        bucket.replacements.pop(contact.long_id, None)
        bucket.replacements[contact.long_id] = contact
        if len(bucket.replacements) > self.ksize:
            del bucket.replacements[next(iter(bucket.replacements))]

    def _remove(self, number: int) -> None:
        shared = ID_BITS - (number ^ self.node.long_id).bit_length()
        contact = self.buckets[shared].entries.pop(number).contact
        self.buckets[shared].live = None
        del self._at[contact.address]
        self._groups[contact.group] -= 1
        if not self._groups[contact.group]:
            del self._groups[contact.group]

    def _promote(self, bucket: Bucket, removed: int) -> None:
        waiting = list(reversed(bucket.replacements.values()))
        waiting.sort(key=lambda contact: contact.long_id != removed)  # its own successor first
        for contact in waiting:
            taken = contact.long_id in bucket.entries or contact.address in self._at
            if not taken and not self._group_full(bucket, contact):
                self._place(bucket, contact)
                return


def _ignore_newcomer() -> None:
    pass


def _longest_silent(count: int, entries: Iterable[Entry]) -> list[Contact]:
    chosen = heapq.nsmallest(count, entries, key=lambda entry: entry.answered_at)
    return [entry.contact for entry in chosen]

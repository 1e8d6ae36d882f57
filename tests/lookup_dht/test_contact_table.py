"""The routing table: exact, bounded, and not to be taken over by strangers."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kademlia.node import Node

from lookup_dht.settings import DHTLimits, NodeSettings
from lookup_dht.table.bucket import Bucket
from lookup_dht.table.kademlia_table import FORMER_MAX, NEWCOMERS_MAX, LookupTable
from lookup_dht.wire.contact import Contact

OWN = bytes(20)


class Checks:
    """Stands where the protocol is: notes whom the table wants to be pinged."""

    def __init__(self) -> None:
        self.contacts: list[Contact] = []

    def check(self, contact: Contact) -> None:
        self.contacts.append(contact)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def table_of(
    private: bool = True,
    k: int = 20,
    clock: Clock | None = None,
    own: bytes = OWN,
    entropy: bytes = bytes(range(20)),
) -> tuple[LookupTable, Checks]:
    checks, clock = Checks(), clock or Clock()
    settings = NodeSettings(
        clock, clock, lambda count: entropy[:count], private_addresses=private,
        limits=DHTLimits(replication=k),
    )  # fmt: skip
    return LookupTable(checks, k, Node(own), settings, collections.Counter()), checks


def contact(node_id: bytes, number: int = 0, ip: bytes | None = None) -> Contact:
    return Contact(node_id, ip or b"\x7f\x01" + number.to_bytes(2, "big"), 1000 + number)


@given(
    st.lists(st.binary(min_size=20, max_size=20), unique=True, max_size=60),
    st.binary(min_size=20, max_size=20),
    st.integers(1, 30),
)
def test_find_neighbors_gives_exactly_the_closest(
    node_ids: list[bytes], target: bytes, k: int
) -> None:
    table, _ = table_of(k=200)
    for number, node_id in enumerate(node_ids):
        table.add_contact(contact(node_id, number))
    node_ids = [node_id for node_id in node_ids if node_id != OWN]
    by_distance = sorted(
        node_ids, key=lambda it: int.from_bytes(it, "big") ^ int.from_bytes(target, "big")
    )
    found = table.find_neighbors(Node(target), k)
    assert [it.id for it in found] == by_distance[:k]
    assert len(table) == len(node_ids) == len(set(table))


def test_ever_longer_shared_prefixes_make_at_most_160_buckets() -> None:
    table, _ = table_of()
    for bit in range(160):
        table.add_contact(contact((1 << bit).to_bytes(20, "big"), bit))
    assert len(table.buckets) == 160
    assert len(table) == 160


def test_its_own_id_is_no_contact() -> None:
    table, _ = table_of()
    assert not table.add_contact(contact(OWN))
    assert not table.wants(contact(OWN))
    assert len(table) == 0


def test_an_address_has_one_id(ids: Iterator[bytes]) -> None:
    table, _ = table_of()
    for node_id, _ in zip(ids, range(100), strict=False):
        table.add_contact(contact(node_id))
    assert len(list(table)) == len(table) == 1


def test_an_id_is_not_taken_over_while_its_owner_answers(ids: Iterator[bytes]) -> None:
    table, checks = table_of()
    owner = contact(next(ids), 1)
    squatter = contact(owner.id, 2)
    table.add_contact(owner)
    assert table.wants(squatter)
    assert not table.add_contact(squatter)
    assert checks.contacts == [owner]
    table.add_contact(owner)  # it answered
    table.strike(owner)
    assert list(table) == [owner]


def test_a_contact_that_moved_takes_its_own_place_when_the_old_address_is_silent(
    ids: Iterator[bytes],
) -> None:
    table, _ = table_of()
    before = contact(next(ids), 1)
    after = contact(before.id, 2)
    table.add_contact(before)
    table.add_contact(after)
    table.strike(before)
    assert list(table) == [after]


def test_two_strikes_drop_a_contact_and_an_answer_forgives_one(ids: Iterator[bytes]) -> None:
    table, _ = table_of()
    node = contact(next(ids), 1)
    table.add_contact(node)
    table.strike(node)
    assert table.suggestions(0, ("127.0.0.1", 1)) == ()
    assert table.closest(0) == [node]
    table.add_contact(node)
    assert table.suggestions(0, ("127.0.0.1", 1)) == (node.compact,)
    table.strike(node)
    assert list(table) == [node]
    table.strike(node)
    assert list(table) == []
    assert list(table.former.values()) == [node]
    table.strike(node)
    table.remove_contact(node)
    table.add_contact(node)
    assert not table.former


def test_a_full_bucket_keeps_who_was_there_and_checks_the_longest_silent() -> None:
    clock = Clock()
    table, checks = table_of(k=3, clock=clock)
    nodes = [contact(bytes([128, number]) + bytes(18), number) for number in range(8)]
    for node in nodes[:3]:
        assert table.add_contact(node)
    assert not table.add_contact(nodes[3])
    assert checks.contacts == []  # all were heard of a moment ago
    clock.now += DHTLimits().check_after_s + 1
    table.add_contact(nodes[0])
    assert not table.add_contact(nodes[4])
    assert checks.contacts == [nodes[1]]
    assert table.silent_contacts(5) == nodes[1:3]
    assert table.silent_since(clock.now, 5) == nodes[1:3]
    assert table.silent_since(clock.now, 1) == nodes[1:2]
    assert table.silent_since(0.0, 5) == []
    table.strike(nodes[1])
    table.strike(nodes[1])
    assert set(table) == {nodes[0], nodes[2], nodes[4]}  # the latest one that waited


def test_a_contact_is_checked_when_it_was_silent_for_as_long_as_it_had_been_there() -> None:
    """Who is new may be gone in minutes; who has been there for hours mostly stays."""
    clock = Clock()
    table, _ = table_of(clock=clock)
    node = contact(b"\x80" + bytes(19))
    table.add_contact(node)
    checked_after: list[float] = []
    for _ in range(8):
        silent_s = 0
        while not table.silent_contacts(5):
            clock.now += 1
            silent_s += 1
        checked_after.append(silent_s - 1)
        table.heard(node)
    assert checked_after == [60, 61, 123, 247, 495, 900, 900, 900]


def test_one_network_group_gets_two_places_in_a_bucket_and_ten_in_all() -> None:
    table, _ = table_of(private=False)
    for bucket in range(20):
        for host in range(1, 11):
            node_id = (1 << 159 - bucket | host).to_bytes(20, "big")
            table.add_contact(Contact(node_id, bytes([8, 8, 8, bucket * 10 + host]), 9100))
    assert len(table) == 10
    assert all(len(bucket.entries) <= 2 for bucket in table.buckets.values())
    assert table.add_contact(contact(b"\xff" + bytes(19), ip=b"\x09\x09\x09\x09"))
    table.remove_contact(next(iter(table)))
    for place, fits in ((1, True), (2, False)):
        more = Contact(b"\x00\x00\x00" + bytes((place,)) * 17, bytes((8, 8, 8, 253 + place)), 1)
        assert table.add_contact(more) == fits
    for node in list(table):
        table.remove_contact(node)
    assert not table._groups


def test_who_waits_for_a_place_gets_none_that_his_network_or_his_address_has_lost() -> None:
    def far(number: int, ip: bytes) -> Contact:
        return Contact(bytes([128, number]) + bytes(18), ip, 9100)

    table, _ = table_of(private=False, k=3)
    other = far(9, b"\x09\x09\x09\x09")
    same_24 = [far(number, bytes((8, 8, 8, number))) for number in range(1, 4)]
    for node in (other, *same_24):
        table.add_contact(node)
    table.remove_contact(other)
    assert set(table) == set(same_24[:2])

    table, _ = table_of(private=False, k=1)
    first, waiting = far(1, b"\x08\x01\x01\x01"), far(2, b"\x08\x02\x02\x02")
    table.add_contact(first)
    table.add_contact(waiting)
    restarted = Contact(b"\x40" + bytes(19), waiting.packed, waiting.port)
    assert table.add_contact(restarted)
    table.remove_contact(first)
    assert list(table) == [restarted]


def test_the_place_of_a_contact_that_is_gone_is_for_itself_at_its_new_address_first() -> None:
    table, _ = table_of(k=3)
    nodes = [contact(bytes([128, number]) + bytes(18), number) for number in range(5)]
    moved = contact(nodes[0].id, 9)
    for node in (*nodes[:3], moved, *nodes[3:]):
        table.add_contact(node)
    table.strike(nodes[0])
    assert set(table) == {*nodes[1:3], moved}
    table.add_contact(nodes[3])  # It answered again, and so waits as the latest.
    table.remove_contact(moved)
    assert set(table) == set(nodes[1:4])


def test_a_bucket_without_lookups_is_refreshed_with_an_id_of_its_own_range() -> None:
    clock = Clock()
    table, _ = table_of(clock=clock)
    for bit in (159, 100, 0):
        table.add_contact(contact((1 << bit).to_bytes(20, "big"), bit))
    assert table.lonely_buckets() == []
    clock.now += DHTLimits().refresh_interval_s + 1
    table.touch(Node((1 << 100).to_bytes(20, "big")))
    lonely = table.lonely_buckets()
    assert [bucket.index for bucket in lonely] == [0, 159]
    for bucket in lonely:
        assert table.get_bucket_for(Node(table.random_id_in(bucket))) == bucket.index


def test_one_lookup_of_itself_refreshes_all_buckets_that_it_surveys() -> None:
    clock = Clock()
    table, _ = table_of(clock=clock)
    for bucket, contacts in enumerate([20, 12, 13, 5, 2]):
        for tail in range(contacts):
            node_id = (1 << 159 - bucket | tail + 1).to_bytes(20, "big")
            table.add_contact(contact(node_id, 100 * bucket + tail + 1))
    clock.now += DHTLimits().refresh_interval_s + 1
    refresh = {it.index: table.refresh_id(it) for it in table.lonely_buckets()}
    assert list(refresh) == [1, 2, 3, 4]  # and not 0, which is full
    assert refresh[2] == refresh[3] == refresh[4] == table.node.id
    assert table.get_bucket_for(Node(refresh[1])) == 1
    table.touch(table.node)
    assert [it.index for it in table.lonely_buckets()] == [1]
    clock.now += DHTLimits().refresh_full_interval_s
    assert {it.index for it in table.lonely_buckets()} == {0, 1, 2, 3, 4}


def test_another_own_id_sorts_the_contacts_anew(ids: Iterator[bytes]) -> None:
    table, _ = table_of()
    nodes = [contact(next(ids), number) for number in range(10)]
    for node in nodes:
        table.add_contact(node)
    table.node.id, table.node.long_id = b"\xff" * 20, 2**160 - 1
    table.sort_again()
    assert set(table) == set(nodes)
    assert all(
        table.get_bucket_for(entry.contact) == index
        for index, bucket in table.buckets.items()
        for entry in bucket.entries.values()
    )


@pytest.mark.parametrize(
    ("node_id", "packed", "port"),
    [(bytes(19), bytes(4), 1), (bytes(21), bytes(4), 1), (bytes(20), bytes(5), 1),
     (bytes(20), bytes(4), 0), (bytes(20), bytes(4), 70000), (bytes(20), bytes(4), -1),
     (bytes(20), bytes(4), 1.5), (b"", bytes(4), 1)],
)  # fmt: skip
def test_what_cannot_be_a_node_is_no_contact(node_id: bytes, packed: bytes, port: int) -> None:
    with pytest.raises(ValueError, match=r"contact|packed"):
        Contact(node_id, packed, port)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["answers", "answers", "answers", "strike", "leaves"]),
            st.integers(0, 2),
            st.integers(1, 6),
            st.integers(0, 15),
        ),
        max_size=80,
    )
)
def test_whatever_comes_and_goes_an_address_has_one_contact_and_no_limit_is_passed(
    steps: list[tuple[str, int, int, int]],
) -> None:
    table, _ = table_of(private=False, k=3)
    for what, bucket, tail, host in steps:
        node_id = (1 << 159 - bucket | tail).to_bytes(20, "big")
        node = Contact(node_id, bytes([8, 8, host % 3, host]), 9100)
        if what == "answers":
            table.add_contact(node)
        elif what == "strike":
            table.strike(node)
        else:
            table.remove_contact(node)
        contacts = list(table)
        assert len({it.address for it in contacts}) == len(contacts) == len(table)
        assert len({it.id for it in contacts}) == len(contacts)
        for index, there in table.buckets.items():
            assert len(there.entries) <= 3
            assert len(there.replacements) <= 3
            groups = collections.Counter(entry.contact.group for entry in there.entries.values())
            assert max(groups.values(), default=0) <= 2
            assert all(table.get_bucket_for(one.contact) == index for one in there.entries.values())


def test_a_stranger_is_worth_a_ping_while_his_bucket_is_less_than_half_full() -> None:
    table, _ = table_of(k=4)
    nodes = [contact(bytes([128, number]) + bytes(18), number) for number in range(3)]
    for node in nodes[:2]:
        assert table.wants(node)
        table.add_contact(node)
    assert not table.wants(nodes[2])
    assert table.wants(contact(b"\x40" + bytes(19), 9))
    smallest, _ = table_of(k=1)
    smallest.add_contact(nodes[0])
    assert not smallest.wants(nodes[1])
    smallest.remove_contact(nodes[0])
    assert smallest.wants(nodes[1])


def test_a_stranger_of_a_group_that_has_its_places_is_not_worth_a_ping() -> None:
    table, _ = table_of(private=False)
    hosts = [Contact(bytes([128, n]) + bytes(18), bytes([8, 8, 8, n]), 9100) for n in range(3)]
    for host in hosts[:2]:
        assert table.wants(host)
        table.add_contact(host)
    assert not table.wants(hosts[2])


def test_who_is_in_the_table_or_waits_for_a_place_is_not_worth_a_ping(ids: Iterator[bytes]) -> None:
    table, _ = table_of(k=8)
    owner = contact(next(ids), 1)
    table.add_contact(owner)
    assert not table.wants(owner)
    moved, other = contact(owner.id, 2), contact(owner.id, 3)
    for number in range(4, 8):  # However few strangers its bucket has room for.
        table.add_contact(contact(owner.id[:19] + bytes((owner.id[19] ^ number,)), number))
    assert table.wants(moved)
    table.add_contact(moved)
    assert not table.wants(moved)
    assert table.wants(other)


def test_who_answers_again_is_no_newcomer(ids: Iterator[bytes]) -> None:
    table, _ = table_of()
    told: list[int] = []
    table.on_newcomer = lambda: told.append(len(table.newcomers))
    nodes = [contact(next(ids), number) for number in range(1, 4)]
    for node in nodes:
        table.add_contact(node)
    assert list(table.newcomers.values()) == nodes
    assert told == [1]  # Once for all of them.
    table.newcomers.clear()
    table.add_contact(node)
    assert not table.newcomers


def test_who_came_and_who_was_dropped_is_remembered_within_limits() -> None:
    table, _ = table_of(k=2 * NEWCOMERS_MAX)
    nodes = [contact(bytes([128]) + n.to_bytes(19, "big"), n) for n in range(NEWCOMERS_MAX + 9)]
    for node in nodes:
        table.add_contact(node)
    assert list(table.newcomers.values()) == nodes[:NEWCOMERS_MAX]
    for node in nodes:
        table.remove_contact(node)
    assert list(table.former.values()) == nodes[-FORMER_MAX:]


def test_the_witnesses_of_a_search_are_from_all_over_the_table() -> None:
    table, _ = table_of()
    for bit in range(10):
        table.add_contact(contact((1 << bit).to_bytes(20, "big"), bit))
    contacts = list(table)
    assert table.spread(5) == contacts[::2]
    assert table.spread(3) == [contacts[0], contacts[3], contacts[6]]
    assert table.spread(100) == contacts
    assert table.spread(0) == []


def test_a_place_is_surveyed_while_nobody_was_left_out_there() -> None:
    table, _ = table_of(k=2, own=b"\xff" * 20)
    for number in range(3):
        assert table.surveyed(0) == (number < 2)
        table.add_contact(contact(bytes([0, number]) + bytes(18), number))
    assert table.surveyed(1 << 159)


@given(
    st.binary(min_size=20, max_size=20),
    st.binary(min_size=20, max_size=20),
    st.integers(0, 159),
)
def test_an_id_made_up_for_a_bucket_is_of_its_range_whoever_this_node_is(
    own: bytes, entropy: bytes, index: int
) -> None:
    table, _ = table_of(own=own, entropy=entropy)
    made_up = table.random_id_in(Bucket(index, 0.0))
    assert table.get_bucket_for(Node(made_up)) == index


@given(
    st.binary(min_size=20, max_size=20),
    st.lists(st.binary(min_size=20, max_size=20), unique=True, max_size=60),
    st.binary(min_size=20, max_size=20),
    st.integers(0, 59),
    st.integers(0, 59),
)
def test_the_quick_ways_to_the_closest_agree_with_the_plain_one(
    own: bytes, node_ids: list[bytes], target: bytes, struck: int, asker: int
) -> None:
    table, _ = table_of(k=7, own=own)
    for number, node_id in enumerate(node_ids):
        table.add_contact(contact(node_id, number))
        table.suggestions(number, ("127.0.0.1", 1))  # what it remembers must not grow old
    contacts = list(table)
    number = int.from_bytes(target, "big")

    def nearest(*left_out: Contact) -> list[Contact]:
        others = [it for it in table if it not in left_out]
        return sorted(others, key=lambda it: it.long_id ^ number)[: table.ksize]

    assert table.closest(number) == nearest()
    assert table.closest(number, 3) == nearest()[:3]
    if not contacts:
        assert table.suggestions(number, contact(OWN).address) == ()
        return
    asking, silent = contacts[asker % len(contacts)], contacts[struck % len(contacts)]
    assert table.find_neighbors(Node(target), exclude=asking) == nearest(asking)
    table.strike(silent)
    told = tuple(it.compact for it in nearest(asking, silent))
    assert table.suggestions(number, asking.address) == told
    table.add_contact(silent)
    table.remove_contact(asking)
    told = tuple(it.compact for it in nearest())
    assert table.suggestions(number, ("127.0.0.1", 1)) == told

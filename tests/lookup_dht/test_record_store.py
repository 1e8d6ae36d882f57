"""What a node keeps for others: verified, newest, not expired; the rest is dropped and counted."""

from __future__ import annotations

import collections
import random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.errors import InvalidRecord
from egtp.values import canonical
from egtp.values.comm_record import SignedCommRecord, supersedes
from egtp.values.identity import Identity, NodeId
from egtp.values.mutable_item import MutableItem
from lookup_dht.records.kademlia_storage import RecordStore
from lookup_dht.records.record_file import RecordFile
from lookup_dht.records.record_verifier import RecordVerifier, SequenceFloor
from lookup_dht.settings import DHTLimits, NodeSettings
from lookup_dht.wire.datagram import StoreStatus
from tests.lookup_dht.at_hand import Sign

NOW = 1_800_000_000
DAY = 24 * 3600


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters() -> collections.Counter[str]:
    return collections.Counter()


@pytest.fixture
def store(clock: Clock, counters: collections.Counter[str]) -> RecordStore:
    settings = NodeSettings(clock, clock, bytes, limits=DHTLimits(records_max=100))
    return RecordStore(bytes(20), settings, counters)


def with_quota(
    clock: Clock, counters: collections.Counter[str], per_source: int, center: bytes = bytes(20)
) -> RecordStore:
    """A store with room for a hundred records."""
    limits = DHTLimits(records_per_source=per_source, records_max=100)
    return RecordStore(center, NodeSettings(clock, clock, bytes, limits=limits), counters)


def half_full(
    clock: Clock, counters: collections.Counter[str], sign: Sign, *, per_source: int, center: bytes
) -> RecordStore:
    """The same, of which half is taken, by one record each of fifty networks."""
    store = with_quota(clock, counters, per_source, center)
    for number in range(50):
        identity = Identity.generate(random.Random(f"network {number}").randbytes)
        record = sign(identity, NOW, expiry=NOW + DAY)
        store.put(bytes(record.peer_id), record.encode(), b"network %d" % number)
    assert len(store) == 50
    return store


def put(store: RecordStore, record: SignedCommRecord) -> StoreStatus:
    return store.put(bytes(record.peer_id), record.encode())


def test_a_valid_record_is_kept_under_the_raw_peer_id(
    store: RecordStore, identity: Identity, sign: Sign
) -> None:
    record = sign(identity, NOW, expiry=NOW + 60)
    assert put(store, record) is StoreStatus.STORED
    assert store.record(bytes(identity.node_id)) == record
    assert store[bytes(identity.node_id)] == record.encode()
    assert list(store) == [(bytes(identity.node_id), record.encode())]
    assert store.get(bytes(20), b"none") == b"none"
    with pytest.raises(KeyError):
        store[bytes(20)]


def test_an_empty_store_is_true() -> None:
    """Upstream's server would silently replace one that is false."""
    settings = NodeSettings(lambda: 0.0, lambda: 0.0, bytes)
    store = RecordStore(bytes(20), settings, collections.Counter())
    assert len(store) == 0
    assert store


def test_a_record_under_a_wrong_key_is_dropped_and_counted(
    store: RecordStore, counters: collections.Counter[str], identity: Identity, sign: Sign
) -> None:
    record = sign(identity, NOW, expiry=NOW + 60)
    assert store.put(bytes(20), record.encode()) is StoreStatus.REFUSED
    assert store.put(record.peer_id[:19], record.encode()) is StoreStatus.REFUSED
    assert counters["record_of_another_peer"] == 2
    assert len(store) == 0


def test_a_record_with_a_wrong_signature_is_dropped_and_counted(
    store: RecordStore, counters: collections.Counter[str], identity: Identity, sign: Sign
) -> None:
    data = bytearray(sign(identity, NOW, expiry=NOW + 60).encode())
    data[-1] ^= 1
    assert store.put(bytes(identity.node_id), bytes(data)) is StoreStatus.REFUSED
    assert counters["record_invalid"] == 1
    assert len(store) == 0


def test_what_a_record_says_is_for_its_readers_and_it_is_kept_for_them_until_its_end(
    store: RecordStore, clock: Clock, identity: Identity
) -> None:
    """A node of this version stores records of the next one."""
    for sequence, value in enumerate(((2, NOW + 60, "new"), (1, NOW + 60, "unreadable")), 1):
        data = MutableItem.sign(identity, sequence, canonical.encode(value)).encode()
        assert store.put(identity.node_id, data) is StoreStatus.STORED
        assert store.held(identity.node_id) == (sequence, data)
    assert store.record(identity.node_id) is None
    clock.now += 60
    assert store.held(identity.node_id) is None


def test_an_older_sequence_is_dropped_and_counted(
    store: RecordStore, counters: collections.Counter[str], identity: Identity, sign: Sign
) -> None:
    newer, older = (sign(identity, NOW + by, expiry=NOW + 60) for by in (1, 0))
    put(store, newer)
    assert put(store, older) is StoreStatus.NEWER_HELD
    assert counters["record_older"] == 1
    assert store.record(newer.peer_id) == newer


def test_an_expired_record_is_dropped_and_counted(
    store: RecordStore, counters: collections.Counter[str], identity: Identity, sign: Sign
) -> None:
    assert put(store, sign(identity, NOW, expiry=NOW)) is StoreStatus.REFUSED
    assert counters["record_expired"] == 1


def test_a_sequence_too_far_in_the_future_is_dropped_and_counted(
    store: RecordStore, counters: collections.Counter[str], identity: Identity, sign: Sign
) -> None:
    assert put(store, sign(identity, NOW + DAY + 1, expiry=NOW + 60)) is StoreStatus.REFUSED
    assert counters["record_sequence_too_high"] == 1
    assert put(store, sign(identity, NOW + DAY, expiry=NOW + 60)) is StoreStatus.STORED


def test_an_expiry_too_far_in_the_future_is_dropped_and_counted(
    store: RecordStore, counters: collections.Counter[str], identity: Identity, sign: Sign
) -> None:
    assert put(store, sign(identity, NOW, expiry=NOW + DAY + 601)) is StoreStatus.REFUSED
    assert counters["record_expiry_too_far"] == 1
    assert put(store, sign(identity, NOW, expiry=NOW + DAY + 600)) is StoreStatus.STORED


def test_storing_again_does_not_prolong_a_record(
    store: RecordStore, clock: Clock, identity: Identity, sign: Sign
) -> None:
    record = sign(identity, NOW, expiry=NOW + 60)
    put(store, record)
    clock.now += 59
    assert put(store, record) is StoreStatus.STORED
    clock.now += 1
    assert put(store, record) is StoreStatus.REFUSED
    assert store.record(record.peer_id) is None
    assert store.get(record.peer_id) is None
    assert list(store.iter_older_than(0)) == []


def test_an_old_recording_is_refused_after_the_newer_record_has_expired(
    store: RecordStore, clock: Clock, identity: Identity, sign: Sign
) -> None:
    put(store, sign(identity, NOW + 1, expiry=NOW + 60))
    clock.now += 60
    assert list(store) == []
    assert put(store, sign(identity, NOW, expiry=NOW + 3600)) is StoreStatus.NEWER_HELD


def test_of_two_records_with_one_sequence_everybody_keeps_the_same(
    store: RecordStore, identity: Identity, sign: Sign
) -> None:
    one, two = (sign(identity, NOW, expiry=NOW + 60, port=port) for port in (1, 2))
    winner, loser = (one, two) if supersedes(one, two) else (two, one)
    assert put(store, loser) is StoreStatus.STORED
    assert put(store, winner) is StoreStatus.STORED
    assert put(store, loser) is StoreStatus.NEWER_HELD
    assert store.record(winner.peer_id) == winner


def test_a_full_store_drops_the_records_farthest_from_its_own_id(
    store: RecordStore, counters: collections.Counter[str], sign: Sign
) -> None:
    randbytes = random.Random(7).randbytes
    records = [sign(Identity.generate(randbytes), NOW, expiry=NOW + 60) for _ in range(150)]
    statuses = [put(store, record) for record in records]
    closest = sorted(bytes(record.peer_id) for record in records)[:100]
    assert sorted(key for key, _ in store) == closest
    assert statuses.count(StoreStatus.REFUSED) > 0
    assert counters["record_evicted"] == 50


@pytest.mark.parametrize("most", [1, 99, 300])
def test_a_store_of_any_size_never_holds_more_than_it_may(
    clock: Clock, counters: collections.Counter[str], sign: Sign, most: int
) -> None:
    settings = NodeSettings(clock, clock, bytes, limits=DHTLimits(records_max=most))
    store, randbytes = RecordStore(bytes(20), settings, counters), random.Random(7).randbytes
    held = []
    for _ in range(most + 10):
        put(store, sign(Identity.generate(randbytes), NOW, expiry=NOW + 60))
        held.append(len(store))
    assert max(held) == most


@pytest.mark.parametrize("expired", [1, 50])
def test_what_has_expired_makes_room_before_anything_else_does(
    store: RecordStore,
    clock: Clock,
    counters: collections.Counter[str],
    sign: Sign,
    expired: int,
) -> None:
    randbytes = random.Random(7).randbytes
    for number in range(100):
        expiry = NOW + (60 if number < expired else DAY)
        put(store, sign(Identity.generate(randbytes), NOW, expiry=expiry))
    clock.now += 60
    assert put(store, sign(Identity.generate(randbytes), NOW, expiry=NOW + DAY)).name == "STORED"
    assert counters["record_evicted"] == 0
    assert len(store) == 101 - expired


def test_setting_an_item_refuses_loudly(store: RecordStore, identity: Identity, sign: Sign) -> None:
    record = sign(identity, NOW, expiry=NOW + 60)
    store[bytes(identity.node_id)] = record.encode()
    assert store.get(bytes(identity.node_id)) == record.encode()
    with pytest.raises(InvalidRecord):
        store[bytes(identity.node_id)] = b"junk"


def test_a_record_is_verified_once_and_the_memory_of_it_is_bounded(
    counters: collections.Counter[str], sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = RecordVerifier(2, counters)
    randbytes = random.Random(3).randbytes
    records = [sign(Identity.generate(randbytes), NOW) for _ in range(3)]
    calls = collections.Counter[bytes]()
    decode = SignedCommRecord.decode

    def counting(data: bytes) -> SignedCommRecord:
        calls[data] += 1
        return decode(data)

    monkeypatch.setattr(SignedCommRecord, "decode", counting)
    for _ in range(5):
        assert verifier.verify(records[0].peer_id, records[0].encode()) == records[0]
    assert calls[records[0].encode()] == 1
    for record in records[1:]:
        verifier.verify(record.peer_id, record.encode())
    verifier.verify(records[0].peer_id, records[0].encode())
    assert calls[records[0].encode()] == 2


def test_what_was_read_lately_is_remembered_and_not_what_was_verified_first(
    counters: collections.Counter[str], sign: Sign
) -> None:
    verifier = RecordVerifier(2, counters)
    randbytes = random.Random(3).randbytes
    one, two, three = [sign(Identity.generate(randbytes), NOW) for _ in range(3)]
    read = [verifier.verify(it.peer_id, it.encode()) for it in (one, two, one, three, one, two)]
    assert [it is read[0] for it in read] == [True, False, True, False, True, False]
    assert read[5] is not read[1]


def test_a_record_that_was_verified_is_still_not_one_of_another_peer(
    counters: collections.Counter[str], sign: Sign
) -> None:
    verifier = RecordVerifier(2, counters)
    record, other = (sign(Identity.generate(random.Random(seed).randbytes), NOW) for seed in (3, 4))
    assert verifier.verify(record.peer_id, record.encode()) == record
    for refused in (verifier.verify, verifier.check):
        with pytest.raises(InvalidRecord):
            refused(other.peer_id, record.encode())
    assert counters == {"record_of_another_peer": 2}


VALID = MutableItem.sign(
    Identity.generate(random.Random(5).randbytes), 7, canonical.encode((2, NOW, "later"))
)
OWNER = NodeId.of_key(VALID.key)


@given(st.integers(0, len(VALID.encode()) - 1), st.integers(1, 255), st.booleans(), st.booleans())
def test_no_record_with_a_byte_changed_or_cut_off_is_taken_and_each_is_counted_once(
    at: int, change: int, cut: bool, keep: bool
) -> None:
    data = bytearray(VALID.encode())
    data[at] ^= change
    if cut:
        del data[at:]
    counted = collections.Counter[str]()
    verifier = RecordVerifier(2, counted)
    with pytest.raises(InvalidRecord):
        (verifier.check if keep else verifier.verify)(OWNER, bytes(data))
    of_another = at < 35 and (cut or at >= 3)
    assert counted == {"record_of_another_peer" if of_another else "record_invalid": 1}


def test_who_keeps_a_record_for_others_is_told_its_sequence_and_its_end(
    counters: collections.Counter[str],
) -> None:
    assert RecordVerifier(2, counters).check(OWNER, VALID.encode()) == (7, NOW)


def test_the_floor_never_sinks_and_is_bounded() -> None:
    floor = SequenceFloor(2)
    assert floor[b"a"] == 0
    floor.note(b"a", 5)
    floor.note(b"a", 3)
    assert floor[b"a"] == 5
    floor.note(b"b", 1)
    floor.note(b"a", 4)
    floor.note(b"c", 1)
    assert (floor[b"a"], floor[b"b"], len(floor)) == (5, 0, 2)


def test_the_file_of_a_floor_is_told_what_is_new_and_what_is_forgotten() -> None:
    class File:
        """Stands where the record file is."""

        def __init__(self) -> None:
            self.told: list[tuple[object, ...]] = []

        def sequences(self, kind: str) -> list[tuple[bytes, int]]:
            return [(b"%b %d" % (kind.encode(), number), 5) for number in range(2)]

        def note(self, *noted: object) -> None:
            self.told.append(noted)

        def forget(self, *forgotten: object) -> None:
            self.told.append(forgotten)

    file = File()
    floor = SequenceFloor(2, "seen", cast("RecordFile", file))
    assert (floor[b"seen 0"], floor[b"seen 1"]) == (5, 5)
    for sequence in (4, 5):
        floor.note(b"seen 0", sequence)
    assert file.told == []
    floor.note(b"seen 0", 6)
    floor.note(b"new", 1)
    assert file.told == [("seen", b"seen 0", 6), ("seen", b"new", 1), ("seen", b"seen 1")]


def test_one_source_network_has_its_quota_and_pays_with_its_own_farthest(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    store = half_full(clock, counters, sign, per_source=10, center=bytes(20))
    randbytes = random.Random(7).randbytes
    records = [sign(Identity.generate(randbytes), NOW, expiry=NOW + 60) for _ in range(40)]
    for record in records[:10]:
        store.put(record.peer_id, record.encode(), b"honest")
    for record in records[10:]:
        store.put(record.peer_id, record.encode(), b"greedy")
    kept = set(store.keys())
    assert {bytes(record.peer_id) for record in records[:10]} <= kept
    greedy = sorted(bytes(record.peer_id) for record in records[10:])
    assert kept & set(greedy) == set(greedy[:10])


def test_while_there_is_room_a_fleet_behind_one_nat_is_kept_and_then_makes_room(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    store = with_quota(clock, counters, 10)
    randbytes = random.Random(7).randbytes
    records = [sign(Identity.generate(randbytes), NOW, expiry=NOW + 60) for _ in range(130)]
    fleet, others = records[:60], records[60:]
    for number, record in enumerate(fleet):
        store.put(record.peer_id, record.encode(), b"fleet")
        assert len(store) == min(number + 1, 50)
    for number, record in enumerate(others):
        store.put(record.peer_id, record.encode(), b"network %d" % number)
    kept = set(store.keys())
    assert {bytes(record.peer_id) for record in others} <= kept
    of_fleet = sorted(bytes(record.peer_id) for record in fleet)
    assert kept & set(of_fleet) == set(of_fleet[:10])


def test_of_two_networks_over_their_quotas_the_greedier_makes_room(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    store = with_quota(clock, counters, 5)
    randbytes = random.Random(7).randbytes
    sources = [b"greedy"] * 10 + [b"greedier"] * 30 + [b"network %d" % it for it in range(30)]
    of_source = collections.defaultdict(set)
    for source in sources:
        record = sign(Identity.generate(randbytes), NOW, expiry=NOW + 60)
        store.put(record.peer_id, record.encode(), source)
        of_source[source].add(bytes(record.peer_id))
    kept = set(store.keys())
    assert of_source[b"greedy"] <= kept
    assert len(kept & of_source[b"greedier"]) == 10
    assert len(kept) == 50


@pytest.mark.parametrize("times", [1, 5])
def test_storing_anothers_record_does_not_make_it_a_part_of_ones_own_quota(
    clock: Clock, counters: collections.Counter[str], sign: Sign, times: int
) -> None:
    store = half_full(clock, counters, sign, per_source=3, center=b"\xff" * 20)
    randbytes = random.Random(7).randbytes
    records = sorted(
        (sign(Identity.generate(randbytes), NOW, expiry=NOW + 60) for _ in range(6)),
        key=lambda it: it.peer_id,
    )
    victim = records[0]  # the farthest of all
    for _ in range(times):
        store.put(victim.peer_id, victim.encode(), b"thief")
    store.put(records[1].peer_id, records[1].encode(), b"thief")
    store.put(victim.peer_id, victim.encode(), b"owner")
    for record in records[2:]:
        store.put(record.peer_id, record.encode(), b"thief")
    assert store.record(victim.peer_id) == victim
    # Nor does it spare the thief: he keeps three of his own.
    assert [it for it in records[1:] if it.peer_id in set(store.keys())] == records[3:]


def test_who_publishes_again_and_again_takes_one_place_of_the_quota(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    store = half_full(clock, counters, sign, per_source=2, center=b"\xff" * 20)
    identities = [Identity.generate(random.Random(number).randbytes) for number in range(2)]
    for sequence in range(NOW, NOW + 5):
        for identity in identities:
            record = sign(identity, sequence, expiry=NOW + DAY)
            assert store.put(record.peer_id, record.encode(), b"owners") is StoreStatus.STORED
    assert len(store) == 52


def test_a_network_loses_no_more_than_what_is_over_its_quota(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    limits = DHTLimits(records_per_source=20, records_max=400)
    store = RecordStore(bytes(20), NodeSettings(clock, clock, bytes, limits=limits), counters)
    randbytes = random.Random(7).randbytes
    sources = [b"network %d" % number for number in range(200)] + [b"fleet"] * 30
    for source in sources:
        record = sign(Identity.generate(randbytes), NOW, expiry=NOW + 60)
        store.put(record.peer_id, record.encode(), source)
    assert (len(store), counters["record_evicted"]) == (220, 10)


def test_in_a_lab_everybody_is_in_one_network_and_has_no_quota(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    limits = DHTLimits(records_per_source=1, records_max=10)
    settings = NodeSettings(clock, clock, bytes, private_addresses=True, limits=limits)
    store, randbytes = RecordStore(bytes(20), settings, counters), random.Random(7).randbytes
    for _ in range(10):
        record = sign(Identity.generate(randbytes), NOW, expiry=NOW + 60)
        assert store.put(record.peer_id, record.encode(), b"lab") is StoreStatus.STORED
    assert len(store) == 10


def test_what_is_remembered_of_where_records_came_from_is_bounded_and_goes_with_them(
    clock: Clock, counters: collections.Counter[str], identity: Identity, sign: Sign
) -> None:
    store, record = with_quota(clock, counters, 10), sign(identity, NOW, expiry=NOW + 60)
    for number in range(100):
        store.put(record.peer_id, record.encode(), b"network %d" % number)
    [held] = store._records.values()
    assert held.others == (b"network 1", b"network 2", b"network 3")
    clock.now += 60
    store.drop_expired()
    assert (store._of_source, store._over_quota) == ({}, {})


@pytest.mark.parametrize("networks", [1, 4])
def test_storing_anothers_record_later_does_not_have_it_thrown_out(
    clock: Clock, counters: collections.Counter[str], sign: Sign, networks: int
) -> None:
    store = half_full(clock, counters, sign, per_source=3, center=b"\xff" * 20)
    randbytes = random.Random(7).randbytes
    victim, honest, *records = sorted(
        (sign(Identity.generate(randbytes), NOW, expiry=NOW + 60) for _ in range(3 + 3 * networks)),
        key=lambda it: it.peer_id,
    )  # the victim's is the farthest of all
    for record in (honest, victim):
        store.put(record.peer_id, record.encode(), b"owner")
    for number in range(networks):
        thief = b"thief %d" % number
        store.put(victim.peer_id, victim.encode(), thief)
        for record in records[3 * number :][:3]:
            store.put(record.peer_id, record.encode(), thief)
    assert store.record(victim.peer_id) == victim


def test_a_record_goes_with_the_quotas_of_all_whom_it_came_from(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    store = half_full(clock, counters, sign, per_source=1, center=b"\xff" * 20)
    randbytes = random.Random(7).randbytes
    farthest, *records = sorted(
        (sign(Identity.generate(randbytes), NOW, expiry=NOW + 60) for _ in range(3)),
        key=lambda it: it.peer_id,
    )
    for source in (b"one", b"two"):
        store.put(farthest.peer_id, farthest.encode(), source)
    for source, record in zip((b"one", b"two"), records, strict=True):
        assert store.record(farthest.peer_id) == farthest
        store.put(record.peer_id, record.encode(), source)
    assert farthest.peer_id not in set(store.keys())
    assert {bytes(record.peer_id) for record in records} <= set(store.keys())
    assert len(store) == 50 + len(records)


def test_a_record_that_a_network_may_not_keep_any_more_counts_for_the_one_with_the_most_room(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    store = half_full(clock, counters, sign, per_source=2, center=b"\xff" * 20)
    randbytes = random.Random(7).randbytes
    shared, *records = sorted(
        (sign(Identity.generate(randbytes), NOW, expiry=NOW + 60) for _ in range(5)),
        key=lambda it: it.peer_id,
    )  # the shared one is the farthest
    for source in (b"one", b"full", b"free"):
        store.put(shared.peer_id, shared.encode(), source)
    for source, record in zip((b"full", b"full", b"one", b"one"), records, strict=True):
        store.put(record.peer_id, record.encode(), source)
    assert {bytes(it.peer_id) for it in (shared, *records)} <= set(store.keys())


def test_what_this_node_stores_itself_counts_for_nobody_from_then_on(
    clock: Clock, counters: collections.Counter[str], sign: Sign
) -> None:
    store = half_full(clock, counters, sign, per_source=1, center=b"\xff" * 20)
    randbytes = random.Random(7).randbytes
    own, others = sorted(
        (sign(Identity.generate(randbytes), NOW, expiry=NOW + 60) for _ in range(2)),
        key=lambda it: it.peer_id,
    )  # its own is the farthest
    for source in (b"one", b"two", b"three", b"four"):
        store.put(own.peer_id, own.encode(), source)
    for number, source in enumerate((b"two", b"three", b"four")):
        taken = sign(Identity.generate(random.Random(number).randbytes), NOW, expiry=NOW + 60)
        store.put(taken.peer_id, taken.encode(), source)
    put(store, own)
    store.put(others.peer_id, others.encode(), b"one")
    assert store.record(own.peer_id) == own


def test_a_record_left_alone_for_an_hour_wants_care(
    store: RecordStore, clock: Clock, identity: Identity, sign: Sign
) -> None:
    put(store, sign(identity, NOW, expiry=NOW + DAY))
    earliest_s = 0.75 * DHTLimits().care_interval_s  # its entropy is all zeros
    clock.now += earliest_s - 1
    assert store.untended() is None
    store.looked_after(bytes(identity.node_id))
    clock.now += earliest_s - 1
    assert store.untended() is None
    clock.now += 1
    assert store.untended() == bytes(identity.node_id)


@pytest.mark.parametrize("how", ["asked around", "stored again"])
def test_a_record_that_others_look_after_is_left_to_them_at_first(
    store: RecordStore, clock: Clock, identity: Identity, sign: Sign, how: str
) -> None:
    record = sign(identity, NOW, expiry=NOW + DAY)
    put(store, record)
    clock.now += 1800
    if how == "asked around":
        store.asked_around(bytes(identity.node_id))
    else:
        put(store, record)
    clock.now += 1799  # Its entropy is all zeros, so it draws an hour to act in any case.
    assert store.untended() is None
    clock.now += 1
    assert store.untended() == bytes(identity.node_id)


def test_the_record_that_was_left_alone_for_longest_is_looked_after_first(
    store: RecordStore, clock: Clock, sign: Sign
) -> None:
    keys = []
    for number in (3, 1, 2):
        record = sign(Identity.generate(random.Random(number).randbytes), NOW, expiry=NOW + DAY)
        put(store, record)
        keys.append(bytes(record.peer_id))
        clock.now += 60
    clock.now += 3600
    found = []
    for _ in keys:
        found.append(store.untended())
        store.looked_after(found[-1] or b"")
    assert found == keys
    assert store.untended() is None


def test_if_all_holders_are_told_that_others_ask_around_they_act_one_after_another(
    clock: Clock, counters: collections.Counter[str], identity: Identity, sign: Sign
) -> None:
    record, key = sign(identity, NOW, expiry=NOW + DAY), bytes(identity.node_id)
    holders = [
        RecordStore(bytes(20), NodeSettings(clock, clock, random.Random(it).randbytes), counters)
        for it in range(20)
    ]
    for store in holders:
        put(store, record)
    acted: list[int] = []
    for minute in range(0, 8 * 60 + 10, 10):
        for store in holders:
            store.asked_around(key)
            if store.untended() is not None:
                store.looked_after(key)
                acted.append(minute)
        clock.now += 600
    assert acted[0] >= 60
    assert len(set(acted[:20])) > 10


def test_however_often_others_ask_around_or_store_a_record_it_gets_care_in_the_end(
    store: RecordStore, clock: Clock, identity: Identity, sign: Sign
) -> None:
    key = bytes(identity.node_id)
    for sequence in (NOW, NOW + 1):  # A newer one says that its owner is there.
        record = sign(identity, sequence, expiry=NOW + DAY)
        put(store, record)
        for _ in range(5):
            clock.now += 600
            store.asked_around(key)
            put(store, record)
        assert store.untended() is None
    clock.now += 600
    assert store.untended() == key
    store.looked_after(key)
    assert store.untended() is None

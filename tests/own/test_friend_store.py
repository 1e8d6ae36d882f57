"""What a friend keeps for others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from egtp.own.friend_store import EXPIRY_S_MAX, SEQUENCE_AHEAD_MAX, FriendStore
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.identity import Identity, NodeId

NOW_S = 1_800_000_000
LIFE_S = 7200


@cache
def somebody(number: int) -> Identity:
    parts = iter((b"signing", b"channel"))
    return Identity.generate(lambda _: hashlib.sha256(b"%d" % number + next(parts)).digest())


@cache
def record(number: int, sequence: int = 1, expiry_s: int = NOW_S + LIFE_S) -> SignedCommRecord:
    who = somebody(number)
    content = CommRecord(expiry_s, bytes(8), ((1, who.channel_key),), ())
    return SignedCommRecord.sign(who, sequence, content)


def peer(number: int) -> NodeId:
    return somebody(number).node_id


def store_for(listed: Iterable[NodeId], strangers_max: int) -> FriendStore:
    store = FriendStore(strangers_max)
    store.keep_for(listed)
    return store


def test_a_record_is_kept_until_it_expires() -> None:
    store = store_for([], 1)
    assert store.put(record(1), NOW_S) is None
    assert store.get(peer(1), NOW_S + LIFE_S - 1) == record(1)
    assert store.get(peer(1), NOW_S + LIFE_S) is None
    store.expire(NOW_S + LIFE_S)
    assert len(store) == 0


def test_a_newer_record_replaces_an_older_one_and_never_the_other_way_round() -> None:
    store = store_for([], 1)
    assert store.put(record(1, 2), NOW_S) is None
    assert store.put(record(1, 1), NOW_S) == "a newer one is kept"
    assert store.put(record(1, 2), NOW_S) is None, "the same again"
    assert store.put(record(1, 3), NOW_S) is None
    assert store.get(peer(1), NOW_S) == record(1, 3)


def test_a_record_numbered_a_day_ahead_is_kept_and_one_beyond_that_is_not() -> None:
    store, most = store_for([], 1), NOW_S + SEQUENCE_AHEAD_MAX
    assert store.put(record(1, most + 1), NOW_S) == "numbered too far ahead"
    assert store.put(record(1, most), NOW_S) is None


def test_those_who_are_listed_have_a_place_however_many_strangers_there_are() -> None:
    store = store_for([peer(1)], 2)
    assert store.put(record(2), NOW_S) is None
    assert store.put(record(3), NOW_S) is None
    assert store.put(record(4), NOW_S) == "no room for one more stranger"
    assert store.put(record(2, 2), NOW_S) is None
    assert store.put(record(1), NOW_S) is None
    assert len(store) == 3


def test_what_has_expired_makes_room() -> None:
    store = store_for([], 1)
    store.put(record(1), NOW_S)
    later = record(2, expiry_s=NOW_S + 2 * LIFE_S)
    assert store.put(later, NOW_S + LIFE_S) is None


def test_what_would_stay_too_long_or_lock_its_owner_out_is_not_kept() -> None:
    store = store_for([peer(1)], 1)
    assert store.put(record(1, expiry_s=NOW_S), NOW_S) == "expired"
    late = record(1, expiry_s=NOW_S + int(EXPIRY_S_MAX) + 1)
    assert store.put(late, NOW_S) == "expires too late"
    ahead = record(1, NOW_S + SEQUENCE_AHEAD_MAX + 1)
    assert store.put(ahead, NOW_S) == "numbered too far ahead"
    assert len(store) == 0


def test_who_is_listed_no_more_keeps_a_place_only_as_a_stranger() -> None:
    store = store_for(map(peer, range(9)), 3)
    for number in range(9):
        assert store.put(record(number), NOW_S) is None
    store.keep_for([peer(0)])
    kept = [number for number in range(9) if store.get(peer(number), NOW_S) is not None]
    assert kept == [0, 6, 7, 8], "whatever their hashes are, so that a simulated run is exact"
    store.keep_for([peer(9)])
    assert store.put(record(9), NOW_S) is None
    assert len(store) == 4


gifts = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.integers(1, 4),
        st.integers(0, 3000),
        st.none() | st.sets(st.integers(0, 4), max_size=3),
    ),
    max_size=60,
)


@given(gifts, st.integers(0, 4))
def test_it_never_holds_more_than_it_may_and_never_goes_back(
    given_to_it: list[tuple[int, int, int, set[int] | None]], strangers_max: int
) -> None:
    listed = {peer(0), peer(1)}
    store, now_s, best = store_for(listed, strangers_max), NOW_S, dict[NodeId, int]()
    for number, sequence, pause_s, others in given_to_it:
        if others is not None:
            held, listed = set(store._records), {peer(other) for other in others}
            store.keep_for(listed)
            gone = held - store._records.keys()
            assert not gone & listed
            assert not gone or len(store._records.keys() - listed) == strangers_max
            for peer_id in gone:
                del best[peer_id]
        now_s += pause_s
        one = record(number, sequence)
        refused = store.put(one, now_s)
        if refused is None:
            assert sequence >= best.get(one.peer_id, 0)
            best[one.peer_id] = sequence
            assert store.get(one.peer_id, now_s) == one
        assert len(store._records.keys() - listed) <= strangers_max
        if now_s >= NOW_S + LIFE_S:
            assert refused == "expired"
            assert len(store) == 0

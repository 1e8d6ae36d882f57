"""Accept limits: nobody gets more than his part, and what is remembered is bounded."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.limits.accept_limits import (
    BURST_S,
    NEWCOMER_S,
    ORIGINS_MAX,
    AcceptLimits,
    RelayedInitiations,
    origin,
)
from egtp.values.identity import NodeId


def limits(per_s: float = 1e6, per_origin_per_s: float = 1e6, most: int = 10**6) -> AcceptLimits:
    return AcceptLimits(
        per_s=per_s, per_origin_per_s=per_origin_per_s, per_origin_max=most, now_s=0.0
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::1", "::2", True),
    ],
)
def test_connections_are_counted_by_ipv4_address_and_by_ipv6_64(
    one: str, other: str, same: bool
) -> None:
    origins = [origin(ipaddress.ip_address(text).packed) for text in (one, other)]
    assert (origins[0] == origins[1]) == same


def test_one_origin_has_so_many_at_a_time_and_no_more() -> None:
    accepts = limits(most=3)
    assert [accepts.enter(b"a", 0.0) for _ in range(4)] == [None] * 3 + [
        "too many from one address"
    ]
    assert accepts.enter(b"b", 0.0) is None
    accepts.leave(b"a")
    assert accepts.enter(b"a", 0.0) is None
    assert accepts.enter(b"a", 0.0) == "too many from one address"


def test_one_origin_comes_so_fast_and_no_faster() -> None:
    accepts = limits(per_origin_per_s=2.0)
    burst = [accepts.enter(b"a", 0.0) for _ in range(20)]
    assert burst == [None] * (int(2 * BURST_S) + 1) + ["too fast from one address"] * 9
    assert accepts.enter(b"b", 0.0) is None
    refused = [accepts.enter(b"a", 0.01 * turn) for turn in range(1, 1001)]
    assert refused.count(None) == pytest.approx(2.0 * 10, abs=1)


def test_all_together_come_so_fast_and_no_faster() -> None:
    accepts = limits(per_s=4.0)
    results = [accepts.enter(bytes([number]), 0.0) for number in range(200)]
    assert results.count(None) == 4 * BURST_S + 1
    assert set(results[21:]) == {"too fast"}


def test_who_is_refused_takes_nothing_from_the_others() -> None:
    accepts = limits(per_s=4.0, per_origin_per_s=1.0)
    for _ in range(1000):
        accepts.enter(b"greedy", 0.0)
    results = [accepts.enter(bytes([number]), 0.0) for number in range(14)]
    assert results == [None] * 14


def test_addresses_that_come_again_and_again_leave_half_to_newcomers() -> None:
    """Ten of them, none above its own rate, take all that there is otherwise."""
    accepts, now, again, newcomers = limits(per_s=100.0, per_origin_per_s=10.0), 0.0, 0, 0
    for turn in range(60_000):
        now = turn / 1000
        again += accepts.enter(bytes([turn % 20]), now) is None
        if turn % 100 == 99:
            newcomers += accepts.enter(turn.to_bytes(4, "big"), now) is None
    assert newcomers == 600
    assert again == pytest.approx(100 / 2 * (BURST_S + now), rel=0.02)


def test_whoever_has_not_come_for_a_minute_is_a_newcomer_again() -> None:
    accepts = limits(per_s=2.0)
    assert accepts.enter(b"long ago", 0.0) is None
    assert accepts.enter(b"lately", 1.0) is None
    while accepts.enter(b"again and again", NEWCOMER_S) is None:
        pass
    assert accepts.enter(b"lately", NEWCOMER_S) == "too fast"
    assert accepts.enter(b"long ago", NEWCOMER_S) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.floats(0.0, 1.0)), min_size=1, max_size=200
    )
)
def test_counts_are_right_whatever_comes_and_goes(
    events: list[tuple[int, bool, float]],
) -> None:
    accepts, inside, now = limits(per_s=20.0, per_origin_per_s=5.0, most=4), [0] * 6, 0.0
    for number, comes, gap_s in events:
        now += gap_s
        if comes:
            reason = accepts.enter(bytes([number]), now)
            assert (reason == "too many from one address") == (inside[number] == 4)
            inside[number] += reason is None
        elif inside[number]:
            accepts.leave(bytes([number]))
            inside[number] -= 1
        assert all(count <= 4 for count in inside)


def test_what_is_remembered_is_bounded_however_many_addresses_somebody_has() -> None:
    accepts, now = limits(), 0.0
    for number in range(3 * ORIGINS_MAX):
        where = number.to_bytes(8, "big")
        assert accepts.enter(where, now) is None
        accepts.leave(where)
        now += 0.001
    assert accepts.remembered == 2 * ORIGINS_MAX


def test_when_too_many_are_remembered_those_who_came_last_are_not_the_ones_forgotten() -> None:
    accepts = limits(per_s=10_000.0, per_origin_per_s=2.0)
    for number in range(ORIGINS_MAX + 1):
        assert accepts.enter(number.to_bytes(8, "big"), 0.0) is None
    for number in range(100):
        accepts.enter(b"a", 0.0)
        accepts.enter(number.to_bytes(8, "little"), 0.0)
    assert accepts.enter(b"a", 0.0) == "too fast from one address"
    assert not accepts._lately.is_new(b"a", 0.0)


def peer(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def test_a_sender_behind_a_relay_is_held_up_and_the_next_is_not() -> None:
    initiations = RelayedInitiations(160.0, 0.0)
    relay = peer(0)
    admitted = sum(initiations.admit(relay, peer(1), 0.0) for _ in range(1000))
    assert admitted == 160 / 16 * BURST_S + 1
    assert initiations.admit(relay, peer(2), 0.0)


def test_a_relay_that_makes_up_senders_leaves_half_to_the_other_relays() -> None:
    initiations = RelayedInitiations(160.0, 0.0)
    admitted = sum(initiations.admit(peer(0), peer(10 + n), 0.001 * n) for n in range(20_000))
    assert admitted == pytest.approx(160 / 2 * (BURST_S + 20), rel=0.01)
    assert initiations.admit(peer(1), peer(9), 20.0)


def test_strangers_who_come_again_and_again_leave_half_of_a_relay_to_newcomers() -> None:
    initiations, relay, now = RelayedInitiations(160.0, 0.0), peer(0), 0.0
    admitted = newcomers = 0
    for turn in range(20_000):
        now = 0.001 * turn
        admitted += initiations.admit(relay, peer(10 + turn % 100), now)
        if turn % 100 == 99:
            newcomers += initiations.admit(relay, peer(1000 + turn), now)
    assert newcomers == 200
    assert admitted == pytest.approx(160 / 4 * (BURST_S + now), rel=0.15)


def test_crowds_behind_many_relays_leave_half_of_all_to_newcomers() -> None:
    initiations, newcomers = RelayedInitiations(160.0, 0.0), 0
    for turn in range(20_000):
        now = 0.001 * turn
        initiations.admit(peer(turn % 5), peer(10 + turn % 100), now)
        if turn % 100 == 99:
            newcomers += initiations.admit(peer(9), peer(1000 + turn), now)
    assert newcomers == 200


def test_who_was_not_let_in_is_a_newcomer_still_and_who_stayed_away_is_one_again() -> None:
    initiations, relay = RelayedInitiations(160.0, 0.0), peer(0)
    assert initiations.admit(relay, peer(1), 0.0)
    crowd = [peer(10 + number) for number in range(500)]
    for one in crowd:
        initiations.admit(relay, one, 0.0)
    assert not initiations.admit(relay, peer(2), 0.0)
    # Those who came first come again, and take what is theirs.
    for second in range(1, int(NEWCOMER_S)):
        for one in crowd:
            initiations.admit(relay, one, float(second))
    assert not initiations.admit(relay, peer(1), NEWCOMER_S - 1)
    assert initiations.admit(relay, peer(2), NEWCOMER_S - 1)
    assert initiations.admit(relay, peer(1), NEWCOMER_S)


def test_a_relay_that_names_somebody_as_the_sender_does_not_hold_him_up_at_another() -> None:
    initiations = RelayedInitiations(160.0, 0.0)
    for _ in range(1000):
        initiations.admit(peer(0), peer(9), 0.0)
    assert not initiations.admit(peer(0), peer(9), 0.0)
    assert initiations.admit(peer(1), peer(9), 0.0)


def test_what_is_remembered_of_senders_is_bounded_however_many_a_relay_makes_up() -> None:
    initiations = RelayedInitiations(1e6, 0.0)
    for number in range(3 * ORIGINS_MAX):
        assert initiations.admit(peer(0), peer(number), 0.001 * number)
    assert len(initiations._lately) == ORIGINS_MAX

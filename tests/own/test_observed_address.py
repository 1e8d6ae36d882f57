"""The election of an observed address: who can win it, and who can not."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from egtp.own.observed_address import ObservedAddress, network_of

OURS, OTHER, THIRD = bytes([9, 9, 9, 9]), bytes([9, 8, 8, 8]), bytes([9, 7, 7, 7])


def observer(network: int, host: int = 1) -> bytes:
    return bytes([5, network, 0, host])


def election(votes_max: int = 64, vote_s: float = 3600.0) -> ObservedAddress:
    return ObservedAddress(votes_max, vote_s)


def elected(votes: dict[int, bytes], now_s: float = 0.0) -> ObservedAddress:
    made = election()
    for network, ip in votes.items():
        made.tell(observer(network), ip, now_s)
    made.elect(now_s)
    return made


def test_two_networks_elect_and_one_does_not() -> None:
    made = election()
    for host in range(9):
        made.tell(observer(1, host), OURS, 0.0)
        assert made.elect(0.0) is None
    made.tell(observer(2), OURS, 0.0)
    assert made.elect(0.0) == OURS
    assert made.votes_for(OURS) == 2


def test_only_another_address_contradicts_the_winner_and_only_who_voted_renews_its_vote() -> None:
    made = elected({1: OURS, 2: OURS})
    assert not made.tell(observer(3), OURS, 0.0)
    assert made.tell(observer(4), OTHER, 0.0)
    made.heard([observer(1), observer(2, host=2), observer(5)], 3000.0)
    assert made.elect(4000.0) == OURS
    assert made.votes_for(OURS) == len(made) == 1


def test_half_is_no_majority() -> None:
    assert elected({1: OURS, 2: OURS, 3: OTHER, 4: THIRD}).winner is None
    assert elected({1: OURS, 2: OURS, 3: OTHER}).winner == OURS


def test_ipv6_observers_vote_by_their_32() -> None:
    made, seen = election(), bytes(15) + b"\1"
    for tail in range(5):
        made.tell(bytes.fromhex("2a000001") + bytes([tail]) * 12, seen, 0.0)
    assert made.elect(0.0) is None
    made.tell(bytes.fromhex("2a000002") + bytes(12), seen, 0.0)
    assert made.elect(0.0) == seen


def test_a_winner_stays_until_another_one_wins() -> None:
    made = elected({1: OURS, 2: OURS})
    assert made.elect(10_000.0) == OURS
    assert len(made) == 0, "its votes have expired"
    assert made.tell(observer(3), OTHER, 10_000.0)
    assert made.elect(10_000.0) == OURS
    made.tell(observer(4), OTHER, 10_000.0)
    assert made.elect(10_000.0) == OTHER


def test_a_majority_that_changed_its_mind_elects_another_one() -> None:
    made = elected({1: OURS, 2: OURS, 3: OURS})
    assert made.tell(observer(1), OTHER, 1.0)
    assert made.elect(1.0) == OURS
    made.tell(observer(2), OTHER, 1.0)
    assert made.elect(1.0) == OTHER


def test_nothing_contradicts_before_there_is_a_winner() -> None:
    made = election()
    assert not made.tell(observer(1), OURS, 0.0)
    assert not made.tell(observer(2), OTHER, 0.0)


def test_a_vote_lasts_as_long_as_its_observer_is_heard_of() -> None:
    made = election(vote_s=100.0)
    made.tell(observer(1), OURS, 0.0)
    made.heard([observer(1)], 90.0)
    made.heard([observer(1, 2)], 180.0)  # Another one of the same network.
    made.tell(observer(2), OURS, 150.0)
    assert made.elect(190.0) == OURS
    assert election(vote_s=100.0).elect(0.0) is None


def test_votes_of_those_who_are_silent_now_do_not_count() -> None:
    made = elected({1: OURS, 2: OURS, 3: OURS})
    made.tell(observer(4), OTHER, 50.0)
    made.tell(observer(5), OTHER, 50.0)
    assert made.elect(50.0) == OURS
    made.heard([observer(1)], 50.5)
    made.forget_before(50.0)
    assert made.elect(50.7) == OTHER


@given(
    honest=st.integers(2, 30),
    words=st.lists(st.tuples(st.integers(0, 255), st.binary(min_size=4, max_size=4)), max_size=300),
    data=st.data(),
)
def test_a_liar_minority_never_wins_whatever_one_network_says_and_however_often(
    honest: int, words: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """The liars own a /16, in which an honest peer may live, too."""
    made = election()
    steps = [(observer(n), OURS) for n in range(1, honest + 1)]
    lies = [(observer(200, host), ip) for host, ip in words]
    for number, step in enumerate(data.draw(st.permutations(steps + lies))):
        made.tell(*step, float(number))
        assert made.elect(float(number)) in (None, OURS)
    assert honest == 2 or made.winner == OURS


votes = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 3), st.sampled_from([OURS, OTHER, THIRD])),
    max_size=80,
)


@given(votes, st.integers(2, 12))
def test_the_winner_is_whom_a_model_that_remembers_everything_elects(
    told: list[tuple[int, int, bytes]], votes_max: int
) -> None:
    made = election(votes_max=votes_max, vote_s=20.0)
    log: dict[bytes, tuple[float, bytes]] = {}
    winner = None
    for now_s, (network, host, ip) in enumerate(told):
        made.tell(observer(network, host), ip, float(now_s))
        log.pop(network_of(observer(network)), None)
        log[network_of(observer(network))] = (now_s, ip)
        lasting = [ip for at_s, ip in list(log.values())[-votes_max:] if now_s - at_s <= 20]
        for one, count in Counter(lasting).items():
            if count >= 2 and count > len(lasting) / 2:
                winner = one
        assert made.elect(float(now_s)) == winner
        assert len(made) <= votes_max


def test_the_table_keeps_those_who_were_heard_of_last() -> None:
    made = election(votes_max=10)
    for network in range(100):
        made.tell(observer(network), OURS, float(network))
        made.heard([observer(0)], float(network))
    assert len(made) == 10
    assert made.votes_for(OURS) == 10
    assert made.tell(observer(0), OTHER, 100.0) is False
    assert len(made) == 10, "the first one was still there"

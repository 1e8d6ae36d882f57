"""The id that a node takes follows the address at which others see it, and no single liar."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_dht.membership.own_id import (
    LONE_VOTE_AFTER_S,
    LONE_VOTE_INTERVAL_S,
    VOTE_S,
    OwnId,
)
from lookup_dht.protocol.reachability import Reachability
from lookup_dht.settings import DHTLimits
from lookup_dht.wire.node_id import fits

ADDRESSES = [bytes((93, 184, 216, last)) for last in (1, 2, 3)]
VOTERS = [bytes((8, 8, 8, 8)), bytes((9, 9, 9, 9)), bytes((77, 7, 7, 7))]


class Believer:
    """A node, as far as its id is concerned."""

    def __init__(self, seed: int = 1) -> None:
        entropy = random.Random(seed).randbytes
        self.now_s = 1000.0
        self.sightings: list[tuple[bytes, bytes, float]] = []
        self.reachability = Reachability(None, DHTLimits())
        self.own_id = OwnId(self.heard, self.reachability, entropy, self.now_s)
        self.node_id = entropy(20)

    def heard(self) -> list[tuple[bytes, bytes, float]]:
        return self.sightings

    def hear(self, voter: bytes, seen: bytes, after_s: float = 0.0) -> None:
        """A contact says where it sees this node."""
        self.sightings.append((voter, seen, self.now_s + after_s))

    def look(self, after_s: float = 0.0) -> bool:
        """Whether the id has changed."""
        self.now_s += after_s
        node_id = self.own_id.instead_of(self.node_id, self.now_s)
        self.node_id = node_id or self.node_id
        return node_id is not None

    def disputed_since_s(self) -> float | None:
        return self.own_id.disputed_since_s

    def prove(self) -> None:
        """A stranger reaches the node at its present address."""
        self.reachability.heard_from("a stranger", self.now_s)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3000), st.sampled_from(VOTERS) | st.none(), st.sampled_from(ADDRESSES)
        ),
        max_size=40,
    )
)
def test_an_id_changes_for_two_networks_or_for_the_only_one_and_then_seldom(
    events: list[tuple[float, bytes | None, bytes]],
) -> None:
    node = Believer()
    first_look_s, heard = node.now_s, dict[bytes, tuple[bytes, float]]()
    changed_s: list[float] = []
    for after_s, voter, seen in events:
        if voter is not None:
            node.hear(voter, seen)
            heard[voter] = seen, node.now_s
        before = node.node_id
        changed = node.look(after_s)
        votes = [it for it, cast_s in heard.values() if node.now_s - cast_s < VOTE_S]
        agreed = [it for it, count in Counter(votes).items() if count >= 2]
        if not changed:
            assert node.node_id == before
            assert all(fits(node.node_id, it) for it in agreed)
            continue
        assert any(fits(node.node_id, it) for it, _ in heard.values())
        if len(heard) == 1:
            assert node.now_s >= first_look_s + LONE_VOTE_AFTER_S
            assert all(node.now_s >= it + LONE_VOTE_INTERVAL_S for it in changed_s)
        else:
            assert [fits(node.node_id, it) for it in agreed] == [True]
        changed_s.append(node.now_s)


def test_an_id_that_fits_is_kept() -> None:
    node = Believer()
    for voter in VOTERS:
        node.hear(voter, ADDRESSES[0])
    assert node.look()
    assert not node.look()
    assert not node.look(after_s=10_000)


def test_a_minute_of_only_one_network_begins_when_the_others_are_silent() -> None:
    """Before anybody has answered, nobody is alone."""
    node = Believer()
    assert not node.look(after_s=10_000)
    node.hear(VOTERS[0], ADDRESSES[0])
    assert not node.look(after_s=LONE_VOTE_AFTER_S - 1)
    assert node.look(after_s=1)


def test_what_was_proven_at_another_address_is_not_proven_here() -> None:
    node = Believer()
    node.prove()
    for voter in VOTERS[:2]:
        node.hear(voter, ADDRESSES[0])
    node.look()
    assert node.reachability.proven  # It has not moved: it only learned where it is.
    node.look()
    assert node.reachability.proven
    for voter in VOTERS[:2]:
        node.hear(voter, ADDRESSES[1])
    node.look()
    assert not node.reachability.proven


def test_who_listens_on_a_public_address_believes_no_other_but_behind_a_router_does() -> None:
    node = Believer()
    for voter in VOTERS:
        node.hear(voter, ADDRESSES[0])
    own_id = node.own_id.instead_of(node.node_id, node.now_s, ADDRESSES[1])
    assert own_id is not None
    assert fits(own_id, ADDRESSES[1])
    assert node.own_id.instead_of(own_id, node.now_s, ADDRESSES[1]) is None
    behind_a_router = node.own_id.instead_of(own_id, node.now_s, bytes((192, 168, 0, 2)))
    assert behind_a_router is not None
    assert fits(behind_a_router, ADDRESSES[0])


def test_what_was_said_long_ago_of_an_address_holds_up_no_change() -> None:
    node = Believer()
    for number in range(20):
        node.hear(bytes((80 + number, 7, 7, 7)), ADDRESSES[0])
    assert node.look()
    for voter in VOTERS[:2]:
        node.hear(voter, ADDRESSES[1], after_s=VOTE_S - 1)
    assert not node.look(after_s=VOTE_S - 1)
    assert node.look(after_s=1)
    assert fits(node.node_id, ADDRESSES[1])


def test_two_networks_have_to_agree_and_nobody_is_on_the_internet_at_a_private_address() -> None:
    node = Believer()
    for host in range(50):
        node.hear(bytes((8, 8, 0, host)), ADDRESSES[0])  # all of one /16: one vote
    for voter in VOTERS[1:]:
        node.hear(voter, bytes((127, 0, 0, 1)))
    assert not node.look()
    node.hear(VOTERS[1], ADDRESSES[0])
    assert node.look()
    assert fits(node.node_id, ADDRESSES[0])


@pytest.mark.parametrize(
    ("named", "wins"),
    [
        ("AA", True), ("AAB", True), ("AABB", False), ("AABC", False), ("AABCD", False),
        ("AAAB", True), ("AAABC", True), ("AAABBB", False), ("AAABBC", False),
    ],
)  # fmt: skip
def test_more_than_half_of_those_who_say_where_a_node_is_must_agree(named: str, wins: bool) -> None:
    node = Believer()
    for number, name in enumerate(named):
        node.hear(bytes((8, number, 1, 1)), bytes((93, ord(name), 1, 1)))
    assert node.look() == wins
    assert fits(node.node_id, bytes((93, ord("A"), 1, 1))) == wins


def test_who_wakes_up_does_not_believe_the_first_who_answers() -> None:
    node = Believer()
    for voter in VOTERS:
        node.hear(voter, ADDRESSES[0])
    assert node.look()
    node.now_s += 30_000
    node.hear(VOTERS[0], ADDRESSES[1])
    assert not node.look()
    node.hear(VOTERS[1], ADDRESSES[1])
    assert node.look()


def test_an_address_is_in_dispute_while_two_networks_agree_on_another() -> None:
    node = Believer()
    for number in range(5):
        node.hear(bytes((80 + number, 7, 7, 7)), ADDRESSES[0])
    assert node.look()
    assert node.disputed_since_s() is None
    node.hear(VOTERS[0], ADDRESSES[1])
    node.look(after_s=10)
    assert node.disputed_since_s() is None
    node.hear(VOTERS[1], ADDRESSES[1])
    node.look(after_s=10)
    since_s = node.disputed_since_s()
    assert since_s == node.now_s
    assert not node.look(after_s=10)
    assert node.disputed_since_s() == since_s
    for number in range(5):
        node.hear(bytes((80 + number, 7, 7, 7)), ADDRESSES[1])
    assert node.look(after_s=10)
    node.look()
    assert node.disputed_since_s() is None

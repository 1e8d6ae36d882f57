"""The id that a node takes follows the address at which others see it, and no single liar."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lookup_dht.membership.own_id import LONE_VOTE_AFTER_S, LONE_VOTE_INTERVAL_S, OwnId
from lookup_dht.protocol.reachability import Reachability
from lookup_dht.settings import DHTLimits
from lookup_dht.wire.node_id import AddressVotes, fits

ADDRESSES = [bytes((93, 184, 216, last)) for last in (1, 2, 3)]
VOTERS = [bytes((8, 8, 8, 8)), bytes((9, 9, 9, 9)), bytes((77, 7, 7, 7))]


class Believer:
    """A node, as far as its id is concerned."""

    def __init__(self, seed: int = 1) -> None:
        entropy = random.Random(seed).randbytes
        self.now_s = 1000.0
        self.votes = AddressVotes()
        self.reachability = Reachability(None, DHTLimits())
        self.own_id = OwnId(self.votes, self.reachability, entropy, self.now_s)
        self.node_id = entropy(20)

    def look(self, after_s: float = 0.0) -> bool:
        """Whether the id has changed."""
        self.now_s += after_s
        node_id = self.own_id.instead_of(self.node_id, self.now_s)
        self.node_id = node_id or self.node_id
        return node_id is not None

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
    first_look_s, heard = node.now_s, dict[bytes, bytes]()
    changed_s: list[float] = []
    for after_s, voter, seen in events:
        if voter is not None:
            node.votes.cast(voter, seen)
            heard[voter] = seen
        before = node.node_id
        if not node.look(after_s):
            assert node.node_id == before
            agreed = [it for it in ADDRESSES if list(heard.values()).count(it) >= 2]
            assert all(fits(node.node_id, it) for it in agreed)
            continue
        assert any(fits(node.node_id, it) for it in heard.values())
        if len(heard) == 1:
            assert node.now_s >= first_look_s + LONE_VOTE_AFTER_S
            assert all(node.now_s >= it + LONE_VOTE_INTERVAL_S for it in changed_s)
        else:
            agreed = [it for it in ADDRESSES if list(heard.values()).count(it) >= 2]
            assert [fits(node.node_id, it) for it in agreed] == [True]
        changed_s.append(node.now_s)


def test_an_id_that_fits_is_kept() -> None:
    node = Believer()
    for voter in VOTERS:
        node.votes.cast(voter, ADDRESSES[0])
    assert node.look()
    assert not node.look()
    assert not node.look(after_s=10_000)


def test_a_minute_of_only_one_network_begins_when_the_others_are_silent() -> None:
    """Before anybody has answered, nobody is alone."""
    node = Believer()
    assert not node.look(after_s=10_000)
    node.votes.cast(VOTERS[0], ADDRESSES[0])
    assert not node.look(after_s=LONE_VOTE_AFTER_S - 1)
    assert node.look(after_s=1)


def test_what_was_proven_at_another_address_is_not_proven_here() -> None:
    node = Believer()
    node.prove()
    for voter in VOTERS[:2]:
        node.votes.cast(voter, ADDRESSES[0])
    node.look()
    assert node.reachability.proven  # It has not moved: it only learned where it is.
    node.look()
    assert node.reachability.proven
    for voter in VOTERS[:2]:
        node.votes.cast(voter, ADDRESSES[1])
    node.look()
    assert not node.reachability.proven

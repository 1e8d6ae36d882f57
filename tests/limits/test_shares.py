"""Shares: nobody has more than his part, and what is given back is there for others."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from egtp.limits.shares import Shares, strangers_part
from egtp.values.identity import NodeId

PEERS = [NodeId(bytes([number]) * 20) for number in range(6)]
ALL_MAX, STRANGERS_MAX, PEER_MAX = 100, 70, 40


class SharesMachine(RuleBasedStateMachine):
    """The model adds up from the beginning, each time."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = Shares(ALL_MAX, strangers_max=STRANGERS_MAX, peer_max=PEER_MAX)
        self.has: Counter[NodeId] = Counter()
        self.strange: set[NodeId] = set()

    @rule(
        peer_id=st.sampled_from(PEERS),
        amount=st.sampled_from([0, 1, 10, 39, 40, 41]),
        stranger=st.booleans(),
    )
    def take(self, peer_id: NodeId, amount: int, stranger: bool) -> None:
        if stranger:
            self.strange.add(peer_id)
        else:
            self.strange.discard(peer_id)
        # Who has become a stranger may have more than strangers may: he gets no more then.
        fits = (
            self.has[peer_id] + amount <= PEER_MAX
            and self.has.total() + amount <= ALL_MAX
            and (not stranger or self._strangers() + amount <= STRANGERS_MAX)
        )
        assert self.shares.take(peer_id, amount, stranger=stranger) == fits
        if fits:
            self.has[peer_id] += amount

    def _strangers(self) -> int:
        return sum(self.has[peer_id] for peer_id in self.strange)

    @rule(peer_id=st.sampled_from(PEERS), part=st.sampled_from([1, 2, 3]))
    def give_back(self, peer_id: NodeId, part: int) -> None:
        amount = self.has[peer_id] // part
        self.shares.give_back(peer_id, amount)
        self.has[peer_id] -= amount

    @invariant()
    def all_is_accounted_for(self) -> None:
        assert self.shares.taken == self.has.total() <= ALL_MAX
        left = ALL_MAX - self.has.total()
        assert self.shares.left(stranger=False) == left
        assert self.shares.left(stranger=True) == min(left, STRANGERS_MAX - self._strangers())
        for peer_id in PEERS:
            assert self.shares.of(peer_id) == self.has[peer_id] <= PEER_MAX
            strange = self.has[peer_id] > 0 and peer_id in self.strange
            assert self.shares.is_strangers(peer_id) == strange
        assert len(self.shares) == sum(amount > 0 for amount in self.has.values())


def test_shares_are_what_a_plain_sum_says() -> None:
    run_state_machine_as_test(SharesMachine)


@pytest.mark.parametrize(("whole", "part"), [(1, 1), (7, 7), (8, 7), (4096, 3584)])
def test_strangers_have_all_but_an_eighth_and_at_least_a_place(whole: int, part: int) -> None:
    assert strangers_part(whole) == part

"""Which numbers are finished: what an asker says, and what whoever answers makes of it.

Both ends are the real ones. What the asker still waits for is never taken for finished; and what is
finished does not have to be remembered for long, though some queries stay open for ever.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.channel.sealed import parse_settled_except, write_settled_except
from egtp.queries.answer_limits import AnswerLimits
from egtp.queries.answers import Answers, Verdict
from egtp.queries.exchange import EXCEPTIONS_MAX, GAP_MAX, Exchange, ExchangeTable
from egtp.values.identity import NodeId
from egtp.values.message import NONCE_BYTES

ME, PEER = NodeId(bytes(20)), NodeId(bytes(19) + b"\1")


class Ends:
    """An asker, and whoever answers it. A packet says what is finished, and may be lost."""

    def __init__(self) -> None:
        self.table: ExchangeTable[None] = ExchangeTable(Counter())
        self.answers = Answers(AnswerLimits())
        memory = self.answers.session_began(ME, b"incarnat", 1, 0.0)
        assert memory is not None
        self.asker = memory
        self.asked = 0
        self.told = 0

    def ask(self) -> Exchange[None]:
        nonce = self.asked.to_bytes(NONCE_BYTES, "big")
        self.asked += 1
        return self.table.open(PEER, "kind", b"", nonce, 1000, 60.0, None, 0.0, None)

    def packet(self, *queries: Exchange[None], lost: bool = False) -> list[Verdict]:
        """A packet with these queries leaves, and arrives unless it is lost."""
        news = self.table.settled_except(PEER)
        settled = self.table.settled(PEER)
        if lost:
            return []
        self.answers.settle(self.asker, settled)
        if news is not None:
            self.told += 1
            data = write_settled_except(*news)
            self.answers.settle_except(self.asker, *parse_settled_except(data, EXCEPTIONS_MAX))
        self.check()
        return [
            self.answers.ask(self.asker, one.number, one.reference, 60.0, 0.0)[0] for one in queries
        ]

    def check(self) -> None:
        for exchange in self.table.of(PEER):
            assert not self.asker.is_settled(exchange.number)


@given(
    st.integers(0, 2**32),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0, 1, 3, 60]),
)
def test_nothing_that_is_open_is_ever_taken_for_finished(
    seed: int, ends: float, lost: float, long_ones: int
) -> None:
    rng = random.Random(seed)
    both = Ends()
    for _ in range(long_ones):
        both.packet(both.ask())
    mine = set(both.table.of(PEER))
    for _ in range(GAP_MAX + 200):
        both.packet(both.ask(), lost=rng.random() < lost / 10)
        others = [one for one in both.table.of(PEER) if one not in mine]
        while others and rng.random() < ends and len(others) > 0:
            both.table.close(others.pop(rng.randrange(len(others))))
        if len(others) > 100:
            both.table.close(others[0])
    both.packet()


@pytest.mark.parametrize("long_ones", [0, 1, 65, EXCEPTIONS_MAX - 4])
def test_queries_that_stay_open_do_not_make_the_other_side_remember_all_later_ones(
    long_ones: int,
) -> None:
    both = Ends()
    for _ in range(long_ones):
        assert both.packet(both.ask()) == [Verdict.RUN]
    most = 0
    for _ in range(3 * AnswerLimits().window):
        exchange = both.ask()
        assert both.packet(exchange) == [Verdict.RUN]
        both.table.close(exchange)
        most = max(most, both.answers.entries)
    # Each that is told of as an exception counts once more.
    assert most <= 2 * long_ones + GAP_MAX + 2
    assert both.told == (3 * AnswerLimits().window // GAP_MAX if long_ones else 0)


def test_of_more_open_queries_than_can_be_told_those_that_are_open_longest_are() -> None:
    both = Ends()
    for _ in range(GAP_MAX + EXCEPTIONS_MAX + 100):
        assert both.packet(both.ask()) == [Verdict.RUN]
    assert both.told > 1
    assert both.asker.exceptions == frozenset(range(EXCEPTIONS_MAX))
    assert both.asker.upto == EXCEPTIONS_MAX


def test_one_packet_that_is_lost_is_made_up_for_by_the_next_that_tells() -> None:
    both = Ends()
    both.packet(both.ask())
    for number in range(2 * GAP_MAX + 2):
        exchange = both.ask()
        both.packet(exchange, lost=number == GAP_MAX - 1)
        both.table.close(exchange)
    both.packet()
    assert both.answers.entries <= GAP_MAX + 2


def test_a_new_path_tells_what_may_have_been_lost_with_the_one_before() -> None:
    both = Ends()
    both.packet(both.ask())
    for _ in range(AnswerLimits().window):
        exchange = both.ask()
        both.packet(exchange, lost=True)
        both.table.close(exchange)
    both.table.tell_again(PEER)
    both.packet()
    for _ in range(GAP_MAX):
        exchange = both.ask()
        assert both.packet(exchange) == [Verdict.RUN]
        both.table.close(exchange)

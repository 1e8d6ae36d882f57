"""A walk: asks the closest, waits for nobody in particular, and ends."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_dht.settings import DHTLimits
from lookup_dht.walks.walk import CANDIDATES_MAX, Walk
from lookup_dht.wire.contact import Contact

SOFT_S = 0.35


def contact(number: int, address: int | None = None) -> Contact:
    """Number n is at distance n from the target, which is 0."""
    host = number if address is None else address
    return Contact(number.to_bytes(20, "big"), b"\x08" + (host % 2**24).to_bytes(3, "big"), 9100)


def _believed(_: bytes) -> bool:
    return True


def walk_from(*numbers: int, groups_limited: bool = False, radius: int = 0) -> Walk:
    return Walk(
        0, [contact(number) for number in numbers], DHTLimits(), soft_timeout_s=SOFT_S,
        believe=_believed, groups_limited=groups_limited, radius=radius,
    )  # fmt: skip


def ask(walk: Walk, now: float = 0.0) -> list[Contact]:
    """Whom it asks at a moment."""
    return walk.step(now)[0]


def is_over(walk: Walk, now: float = 0.0) -> bool:
    """Whether it is at its end, at a moment when it asks nobody."""
    chosen, over = walk.step(now)
    assert not chosen
    return over


def hear(walk: Walk, node: Contact, *nodes: Contact) -> None:
    walk.answered(node, node, [it.compact for it in nodes])


def test_at_most_alpha_queries_are_open_and_the_closest_go_first() -> None:
    walk = walk_from(*range(30, 0, -1))
    assert [it.long_id for it in ask(walk)] == [1, 2, 3, 4, 5]
    assert ask(walk, 0.1) == []
    hear(walk, contact(3))
    assert ask(walk, 0.1) == [contact(6)]


def test_a_slow_query_gives_its_place_away_and_a_late_answer_still_counts() -> None:
    walk = walk_from(*range(1, 8))
    first = ask(walk)
    assert walk.deadline() == SOFT_S
    assert [it.long_id for it in ask(walk, SOFT_S)] == [6, 7]
    hear(walk, first[0], contact(100))
    assert first[0] in walk.closest()
    assert ask(walk, SOFT_S) == [contact(100)]


def test_a_late_answer_while_all_places_are_taken_does_not_end_it() -> None:
    walk = walk_from(*range(1, 12))
    late = ask(walk)[0]
    assert len(ask(walk, SOFT_S)) == 5
    hear(walk, late)
    assert not is_over(walk, SOFT_S)
    assert ask(walk, 2 * SOFT_S) == [contact(11)]


def test_it_is_over_when_the_k_closest_have_answered() -> None:
    walk = walk_from(*range(1, 41))
    while chosen := ask(walk):
        for node in chosen:
            hear(walk, node)
    assert is_over(walk)
    assert walk.asked == 20
    assert [it.long_id for it in walk.closest()] == list(range(1, 21))


def test_failed_and_slow_nodes_do_not_hold_it_up() -> None:
    walk = walk_from(1, 2, 3)
    one, two, three = ask(walk)
    walk.failed(one)
    hear(walk, two)
    assert not is_over(walk, 0.1)
    assert is_over(walk, SOFT_S)
    hear(walk, three)
    assert walk.closest() == [two, three]


def test_however_many_of_the_closest_are_slow_others_are_asked_instead() -> None:
    walk = walk_from(*range(1, 31))
    asked = [it.long_id for turn in range(10) for it in ask(walk, turn * SOFT_S)]
    assert asked == list(range(1, 31))


def test_slow_nodes_are_waited_for_while_nobody_else_is_there() -> None:
    walk = walk_from(1)
    (one,) = ask(walk)
    assert not is_over(walk, 5.0)
    assert walk.deadline() is None
    walk.failed(one)
    assert is_over(walk, 5.0)
    assert walk.closest() == []


def test_it_is_over_at_once_when_there_is_nobody_to_ask() -> None:
    assert is_over(walk_from())


def test_a_tar_pit_that_invents_ever_closer_nodes_costs_120_queries() -> None:
    walk = walk_from(2**150)
    closer = 2**150
    while chosen := ask(walk):
        for node in chosen:
            closer -= 1000
            hear(walk, node, *(contact(closer + step, closer * 50 + step) for step in range(20)))
    assert walk.asked == 120
    assert len(walk._nearest) <= CANDIDATES_MAX + 120


def test_a_tar_pit_at_one_address_is_asked_once() -> None:
    walk = walk_from(2**150)
    while chosen := ask(walk):
        for node in chosen:
            hear(walk, node, *(contact(node.long_id - step, 7) for step in range(1, 21)))
    assert walk.asked == 2


def test_a_node_cannot_be_hidden_by_suggesting_its_address_under_another_id() -> None:
    walk = walk_from(50)
    (liar,) = ask(walk)
    hidden, suggested = contact(5), contact(1, 5)
    hear(walk, liar, suggested)
    assert ask(walk) == [suggested]
    walk.answered(suggested, hidden, [contact(9).compact])
    assert ask(walk) == [contact(9)]
    assert walk.closest() == [hidden, liar]


def test_few_of_one_network_group_are_asked_and_failed_ones_do_not_count() -> None:
    walk = walk_from(*range(1, 51), groups_limited=True)
    asked = ask(walk)
    assert len(asked) == 2
    walk.failed(asked[0])
    assert len(ask(walk)) == 1
    hear(walk, asked[1])
    hear(walk, contact(3))
    assert is_over(walk)


def _ask_in_vain(walk: Walk) -> list[Contact]:
    """Whom it asks until it is over, if nobody answers: one fails, the next is slow."""
    asked: list[Contact] = []
    now = 0.0
    while True:
        chosen, over = walk.step(now)
        if over:
            return asked
        for node in chosen[::2]:
            walk.failed(node)
        asked += chosen
        now += SOFT_S


def _invented(number: int, ip: int, port: int) -> Contact:
    return Contact(number.to_bytes(20, "big"), b"\x4d\x07\x07" + bytes((ip,)), port)


def test_many_nodes_invented_at_one_address_cost_it_few_queries() -> None:
    walk = walk_from(1000, groups_limited=True)
    (liar,) = ask(walk)
    hear(walk, liar, *(_invented(number, 7, 1024 + number) for number in range(1, 21)))
    assert len(_ask_in_vain(walk)) == 4
    assert walk.closest() == [liar]


def test_many_nodes_invented_in_one_network_cost_it_few_queries() -> None:
    walk = walk_from(1000, groups_limited=True)
    (liar,) = ask(walk)
    hear(walk, liar, *(_invented(number, number, 9100) for number in range(1, 21)))
    assert len(_ask_in_vain(walk)) == 8


def test_those_that_are_chosen_together_count_for_their_address_too() -> None:
    walk = walk_from(1000, groups_limited=True)
    (liar,) = ask(walk)
    hear(walk, liar, *(_invented(number, 7, 1024 + number) for number in range(1, 21)))
    one, other = ask(walk)
    walk.failed(one)
    (third,) = ask(walk)
    walk.failed(other)
    walk.failed(third)
    (fourth,) = ask(walk)
    walk.failed(fourth)
    assert is_over(walk)


def test_who_is_known_is_asked_however_many_are_invented_at_its_address() -> None:
    known = _invented(900, 7, 9100)
    start = [*(contact(number, number << 8) for number in range(100, 105)), known]
    walk = Walk(
        0, start, DHTLimits(), soft_timeout_s=SOFT_S, believe=_believed, groups_limited=True
    )
    for liar in ask(walk):
        assert liar != known
        hear(walk, liar, *(_invented(number, 7, 1024 + number) for number in range(1, 21)))
    asked = _ask_in_vain(walk)
    assert known in asked
    assert len(asked) == 5


def test_on_one_machine_many_are_asked_at_one_address() -> None:
    walk = walk_from(1000)
    (first,) = ask(walk)
    hear(walk, first, *(_invented(number, 7, 1024 + number) for number in range(1, 21)))
    assert len(_ask_in_vain(walk)) == 20


def test_within_its_radius_everybody_is_asked_though_k_are_closer() -> None:
    walk = walk_from(*range(1, 61), radius=30)
    while chosen := ask(walk):
        for node in chosen:
            hear(walk, node)
    assert walk.asked == 30
    assert walk.closest() == [contact(number) for number in range(1, 31)]
    huge = walk_from(*range(1, 61), radius=2**160 - 1)
    while chosen := ask(huge):
        for node in chosen:
            hear(huge, node)
    assert huge.asked == len(huge.closest()) == DHTLimits().region_nodes_max


@pytest.mark.parametrize(("within", "asked"), [(15, 20), (14, DHTLimits().region_nodes_max)])
def test_with_far_fewer_in_its_radius_than_there_must_be_it_looks_farther(
    within: int, asked: int
) -> None:
    walk = walk_from(*range(1, within + 1), *range(100, 300), radius=50)
    while chosen := ask(walk):
        for node in chosen:
            hear(walk, node)
    assert walk.asked == asked


def test_a_witness_is_asked_once_however_many_are_closer() -> None:
    witness = contact(1000)
    walk = Walk(
        0, [contact(number) for number in range(1, 41)], DHTLimits(), soft_timeout_s=SOFT_S,
        believe=_believed, groups_limited=False, witnesses=[witness],
    )  # fmt: skip
    asked = []
    while chosen := ask(walk):
        asked += chosen
        for node in chosen:
            hear(walk, node)
    assert asked == [*(contact(number) for number in range(1, 21)), witness]


def test_who_was_asked_is_still_awaited_when_so_many_are_closer_that_the_far_are_forgotten() -> (
    None
):
    walk = walk_from(2000, 3000)
    near, far = ask(walk)
    hear(walk, near, *(contact(number) for number in range(1, 2 * CANDIDATES_MAX)))
    assert len(ask(walk)) == DHTLimits().parallel_queries - 1
    hear(walk, far)
    assert len(ask(walk)) == 1


def test_in_a_full_walk_whoever_is_closer_is_asked_whatever_the_target() -> None:
    target = 2**160 - 1
    start = [contact(target ^ 1000 + number, number) for number in range(1, CANDIDATES_MAX + 1)]
    walk = Walk(
        target, start, DHTLimits(), soft_timeout_s=SOFT_S, believe=_believed, groups_limited=False
    )
    first, *_ = ask(walk)
    closest = contact(target ^ 1, CANDIDATES_MAX + 1)
    hear(walk, first, closest)
    assert ask(walk) == [closest]


def test_what_is_not_believed_is_looked_at_once() -> None:
    looked_at = []

    def refuse(compact: bytes) -> bool:
        looked_at.append(compact)
        return False

    walk = Walk(
        0, [contact(number) for number in (5, 6)], DHTLimits(), soft_timeout_s=SOFT_S,
        believe=refuse, groups_limited=False,
    )  # fmt: skip
    for node in ask(walk):
        hear(walk, node, contact(1), contact(2))
    assert is_over(walk)
    assert looked_at == [contact(1).compact, contact(2).compact]


@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.5), st.booleans())
def test_every_walk_ends_and_asks_nobody_twice(
    seed: int, loss: float, lies: float, groups_limited: bool
) -> None:
    rng = random.Random(seed)
    nodes = [contact(rng.getrandbits(160), number) for number in range(1, 100)]
    walk = Walk(
        0, nodes[:3], DHTLimits(), soft_timeout_s=SOFT_S, believe=_believed,
        groups_limited=groups_limited,
    )  # fmt: skip
    now, asked, pending = 0.0, [], []
    for _ in range(1000):
        new, over = walk.step(now)
        if over:
            break
        asked += new
        pending += new
        if pending and rng.random() > 0.2:
            node = pending.pop(rng.randrange(len(pending)))
            if rng.random() < loss:
                walk.failed(node)
            elif rng.random() < lies:
                walk.answered(node, contact(rng.getrandbits(160), node.long_id), [])
            else:
                hear(walk, node, *rng.sample(nodes, 20))
        else:
            now += SOFT_S / 4
    assert is_over(walk, now)
    addresses = [node.address for node in asked]
    assert len(addresses) == len(set(addresses)) == walk.asked <= 120


def test_colluders_who_know_only_each_other_do_not_hide_the_others() -> None:
    """A third of 300 nodes collude, and are all that the walk begins with but for its witnesses,
    half of whom are theirs too. An honest node knows some of those half as far away as it is."""
    step = 1 << 150
    nodes = [contact((number + 1) * step, address=number + 1) for number in range(300)]
    colluders = nodes[::3]
    honest = [node for node in nodes if node not in colluders]
    walk = Walk(
        0, colluders[:20], DHTLimits(), soft_timeout_s=SOFT_S, believe=_believed,
        groups_limited=False, radius=29 * step,
        witnesses=[*colluders[-4:], *honest[-4:]],
    )  # fmt: skip
    over = False
    while not over:
        asked, over = walk.step(0.0)
        for node in asked:
            number = nodes.index(node)
            known = nodes[max(0, number // 2 - 10) :][:20]
            hear(walk, node, *(colluders[:20] if node in colluders else known))
    assert set(honest[:15]) <= set(walk.closest())
    assert walk.asked < 60


def test_liars_who_invent_closer_nodes_do_not_use_up_a_walk() -> None:
    """A third of those that it begins with, and of all others. Each invents twenty nodes closer to
    the target than there are, where nobody answers."""
    step = 1 << 150
    nodes = [contact((number + 1) * step, address=number << 8) for number in range(300)]
    liars, invented = nodes[::3], itertools.count(1)
    walk = Walk(
        0, nodes[100:120], DHTLimits(), soft_timeout_s=SOFT_S, believe=_believed,
        groups_limited=True,
    )  # fmt: skip
    now, over = 0.0, False
    while not over:
        asked, over = walk.step(now)
        for node in asked:
            if node in liars:
                numbers = itertools.islice(invented, 20)
                hear(walk, node, *(contact(it, 1000 + it << 8) for it in numbers))
            elif node in nodes:
                number = nodes.index(node)
                hear(walk, node, *nodes[max(0, number // 2 - 10) :][:20])
        now += SOFT_S
    heard = walk.closest()
    assert all(node in heard for node in nodes[:15] if node not in liars)
    assert walk.asked <= DHTLimits().walk_queries_max


def test_who_is_named_by_somebody_else_too_does_not_suffer_for_a_liar() -> None:
    liar, honest, named = contact(900), contact(901), contact(500)
    silent = [contact(number) for number in range(1, 20)]
    walk = walk_from(900, 901)
    ask(walk)
    hear(walk, liar, *silent, named)
    assert len(ask(walk)) == 4  # One place is taken: by the honest one, who has not answered yet.
    hear(walk, honest, named)
    assert ask(walk) == [named]
    assert ask(walk, SOFT_S) == silent[4:9]  # When there is nobody else, the doubted have a turn.


def test_who_answers_does_not_count_against_those_who_named_it() -> None:
    named = [contact(number) for number in range(1, 21)]
    walk = walk_from(900)
    ask(walk)
    hear(walk, contact(900), *named)
    asked = []
    while chosen := ask(walk):
        asked += chosen
        for node in chosen:
            hear(walk, node)
    assert asked == named


def test_of_one_network_two_count_though_more_were_asked_since_the_first_were_slow() -> None:
    walk = walk_from(*range(1, 9), groups_limited=True)
    asked = [node for turn in range(4) for node in ask(walk, turn * SOFT_S)]
    assert len(asked) == 8
    for node in asked:
        hear(walk, node)
    assert walk.closest() == [contact(1), contact(2)]

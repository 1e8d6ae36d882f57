"""Idle policy: what is in use stays, and the rest goes in the order that is documented (R18)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from egtp.limits.idle_policy import JUST_USED_S, LOOKS, RETURNS_MAX, IdlePolicy, Standing, Use

IDLE_S = 100.0
MOST_S = 800.0


class World:
    """Connections, what is known of them, and how often each was looked at."""

    def __init__(self, *, idle_timeout_s: float = IDLE_S) -> None:
        self.policy: IdlePolicy[str] = IdlePolicy(
            idle_timeout_s=idle_timeout_s, idle_timeout_max_s=MOST_S
        )
        self.now = 1000.0
        self.used: dict[int, float] = {}
        self.busy: set[int] = set()
        self.looked: Counter[int] = Counter()
        self._next = 1

    def look(self, number: int) -> Use:
        self.looked[number] += 1
        return Use(self.used[number], "in use" if number in self.busy else None)

    def add(self, standing: Standing = Standing.UNPROVEN) -> int:
        number, self._next = self._next, self._next + 1
        self.used[number] = self.now
        self.policy.add(number, standing, self.now)
        return number

    def proven(self, standing: Standing = Standing.KNOWN, peer: str | None = None) -> int:
        number = self.add()
        self.policy.prove(number, peer or f"peer {number}", standing, self.now)
        return number

    def clean_up(self) -> list[int]:
        gone = self.policy.idle(self.now, self.look)
        for number in gone:
            self.policy.remove(number)
        return gone

    def pass_time(self, seconds: float, step_s: float = 1.0) -> dict[int, float]:
        """When each connection was closed for idleness meanwhile."""
        closed: dict[int, float] = {}
        until_s = self.now + seconds
        while self.now < until_s:
            self.now += step_s
            closed |= dict.fromkeys(self.clean_up(), self.now)
        return closed

    def room(self, up_to: Standing) -> int | None:
        number = self.policy.make_room(up_to, self.now, self.look)
        if number is not None:
            self.policy.remove(number)
        return number


# Idleness


def test_an_unused_connection_goes_after_the_idle_timeout_and_not_much_later() -> None:
    world = World()
    number, began_s = world.proven(), world.now
    closed = world.pass_time(2 * IDLE_S)
    assert IDLE_S < closed[number] - began_s <= IDLE_S * 1.25 + 1


def test_a_connection_that_is_used_now_and_then_stays() -> None:
    world = World()
    number = world.proven()
    for _ in range(20):
        assert world.pass_time(IDLE_S * 0.9) == {}
        world.used[number] = world.now


def test_a_connection_that_somebody_needs_stays_and_goes_when_nobody_does_any_more() -> None:
    world = World()
    number = world.proven()
    world.busy.add(number)
    assert world.pass_time(20 * IDLE_S) == {}
    world.busy.clear()
    assert list(world.pass_time(IDLE_S / 2)) == [number]


def test_each_of_thousands_is_looked_at_some_times_per_timeout_and_not_each_second() -> None:
    world = World()
    numbers = [world.proven() for _ in range(1000)]
    world.busy.update(numbers)
    world.pass_time(10 * IDLE_S)
    assert max(world.looked.values()) <= 10 * 4 + 1
    assert min(world.looked.values()) >= 10 * 4 - 2


def test_a_peer_that_comes_back_each_time_is_given_longer_and_longer_up_to_a_limit() -> None:
    world, kept_s = World(), []
    for _ in range(6):
        number, began_s = world.proven(peer="comes back"), world.now
        (closed_s,) = world.pass_time(2 * MOST_S, step_s=0.5).values() or [0.0]
        kept_s.append(closed_s - began_s)
        assert number not in world.policy.of_peer("comes back")
        world.now = closed_s + 1
    for kept, allowed in zip(kept_s, [100, 200, 400, 800, 800, 800], strict=True):
        assert allowed < kept <= allowed + IDLE_S / 4 + 1


def test_a_peer_that_stays_away_longer_than_its_time_is_given_less_again() -> None:
    world = World()
    for away_s, expected_s in [(0, 100), (1, 200), (1, 400), (401, 200), (10_000, 100)]:
        world.now += away_s
        number, began_s = world.proven(peer="seldom"), world.now
        closed = world.pass_time(2 * MOST_S, step_s=0.5)[number]
        assert closed - began_s == pytest.approx(expected_s + IDLE_S / 8, abs=IDLE_S / 8 + 1)
        world.now = closed


def test_nobody_is_given_less_than_the_idle_timeout_however_long_it_stays_away() -> None:
    world = World()
    for _ in range(3):
        number, began_s = world.proven(peer="seldom"), world.now
        closed_s = world.pass_time(2 * IDLE_S)[number]
        assert closed_s - began_s > IDLE_S
        world.now = closed_s + 10 * IDLE_S


def test_a_peer_whose_connection_was_not_closed_for_idleness_is_given_the_usual_time() -> None:
    world = World()
    for _ in range(3):
        world.policy.remove(world.proven(peer="cut off"))
    number, began_s = world.proven(peer="cut off"), world.now
    assert world.pass_time(3 * IDLE_S)[number] - began_s < 1.3 * IDLE_S


def test_the_peers_of_whom_something_is_remembered_are_bounded() -> None:
    world = World(idle_timeout_s=1.0)
    for _ in range(3):
        for _ in range(RETURNS_MAX // 2):
            world.proven()
        world.pass_time(5.0)
    assert len(world.policy._returns) == RETURNS_MAX
    assert "peer 1" not in world.policy._returns, "the least recently closed are forgotten"


# Proof


def test_who_proves_nothing_is_overdue_in_the_order_of_coming() -> None:
    world = World()
    first = world.add()
    world.now += 1
    second = world.add()
    dialled = world.add(Standing.OPENING)
    world.now += 1
    assert world.policy.overdue(Standing.UNPROVEN, world.now - 3) == []
    assert world.policy.overdue(Standing.UNPROVEN, world.now - 2) == [first]
    assert world.policy.overdue(Standing.UNPROVEN, world.now - 1) == [first, second]
    assert world.policy.overdue(Standing.OPENING, world.now) == [dialled]
    assert world.policy.awaits_proof(first)
    world.policy.prove(first, "peer", Standing.STRANGER, world.now)
    assert not world.policy.awaits_proof(first)
    assert not world.policy.awaits_proof(99), "whoever is gone"
    assert world.policy.overdue(Standing.UNPROVEN, world.now) == [second]


def test_the_connections_of_a_peer_are_known_the_oldest_first() -> None:
    world = World()
    numbers = [world.proven(peer="same") for _ in range(3)]
    world.proven(peer="other")
    assert world.policy.of_peer("same") == tuple(numbers)
    world.policy.remove(numbers[1])
    assert world.policy.of_peer("same") == (numbers[0], numbers[2])
    for number in numbers:
        world.policy.remove(number)
    assert world.policy.of_peer("same") == ()
    assert list(world.policy._of_peer) == ["other"], "nothing is kept of peers without any"


# Making room


def test_room_is_made_in_the_documented_order() -> None:
    world = World()
    known = [world.proven(Standing.KNOWN) for _ in range(2)]
    unproven = [world.add() for _ in range(2)]
    strangers = [world.proven(Standing.STRANGER) for _ in range(2)]
    opening = world.add(Standing.OPENING)
    world.now += 10
    world.used[strangers[0]] = world.used[known[0]] = world.now - 5
    order = [strangers[1], strangers[0], *unproven, known[1], known[0]]
    assert [world.room(Standing.KNOWN) for _ in range(7)] == [*order, None]
    assert world.policy.awaits_proof(opening)


@pytest.mark.parametrize("up_to", [Standing.STRANGER, Standing.UNPROVEN, Standing.KNOWN])
def test_only_what_stands_no_higher_makes_room(up_to: Standing) -> None:
    world = World()
    numbers = {
        Standing.STRANGER: world.proven(Standing.STRANGER),
        Standing.UNPROVEN: world.add(),
        Standing.KNOWN: world.proven(Standing.KNOWN),
    }
    world.now += 10
    gone = []
    while (number := world.room(up_to)) is not None:
        gone.append(number)
    assert gone == [number for standing, number in numbers.items() if standing <= up_to]


@pytest.mark.parametrize("standing", [Standing.STRANGER, Standing.KNOWN])
def test_what_is_busy_or_was_just_used_never_makes_room(standing: Standing) -> None:
    world = World()
    busy, just_used, idle = (world.proven(standing) for _ in range(3))
    world.now += 50
    world.busy.add(busy)
    world.used[just_used] = world.now - JUST_USED_S / 2
    assert world.room(Standing.KNOWN) == idle
    assert world.room(Standing.KNOWN) is None
    world.busy.clear()
    assert world.room(Standing.KNOWN) == busy


def test_of_a_few_the_least_recently_used_goes_and_of_many_one_of_those_looked_at() -> None:
    world = World()
    numbers = [world.proven(Standing.STRANGER) for _ in range(10 * LOOKS)]
    world.now += 1000
    for number in numbers:
        world.used[number] = world.now - 10 - (number * 7919) % 500
    gone: list[int] = []
    while (number_or_none := world.room(Standing.STRANGER)) is not None:
        looks = sum(world.looked.values())
        gone.append(number_or_none)
        assert looks <= LOOKS * len(gone)
    assert sorted(gone) == numbers
    last = [world.used[number] for number in gone[-LOOKS:]]
    assert last == sorted(last), "a table that small is in order"
    early = [world.used[number] for number in gone[: 5 * LOOKS]]
    late = [world.used[number] for number in gone[5 * LOOKS :]]
    assert sum(early) / len(early) < sum(late) / len(late) - 100


def test_a_table_full_of_busy_ones_is_gone_through_little_by_little() -> None:
    world = World()
    numbers = [world.proven(Standing.STRANGER) for _ in range(3 * LOOKS)]
    world.now += 10
    idle = numbers[-1]
    world.busy.update(numbers[:-1])
    results = [world.room(Standing.STRANGER) for _ in range(3)]
    assert results == [None, None, idle]


# Anything


def test_a_stranger_that_is_wanted_makes_room_as_a_known_one_does() -> None:
    world = World()
    wanted = world.proven(Standing.STRANGER, "wanted")
    stranger = world.proven(Standing.STRANGER)
    world.now += 100
    world.policy.promote("wanted", world.now)
    world.policy.promote("nobody", world.now)
    assert world.room(Standing.KNOWN) == stranger
    assert world.room(Standing.UNPROVEN) is None
    assert world.room(Standing.KNOWN) == wanted


class AnyHistory(RuleBasedStateMachine):
    """Against a model: a dict of connections."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.model: dict[int, tuple[Standing, str | None]] = {}

    @rule(standing=st.sampled_from([Standing.UNPROVEN, Standing.OPENING]))
    def add(self, standing: Standing) -> None:
        self.model[self.world.add(standing)] = (standing, None)

    @rule(
        data=st.data(),
        standing=st.sampled_from([Standing.STRANGER, Standing.KNOWN]),
        peer=st.sampled_from(["a", "b", "c"]),
    )
    def prove(self, data: st.DataObject, standing: Standing, peer: str) -> None:
        waiting = [number for number in self.model if self.world.policy.awaits_proof(number)]
        if waiting:
            number = data.draw(st.sampled_from(waiting))
            self.world.policy.prove(number, peer, standing, self.world.now)
            self.model[number] = (standing, peer)

    @rule(peer=st.sampled_from(["a", "b", "c"]))
    def promote(self, peer: str) -> None:
        self.world.policy.promote(peer, self.world.now)
        for number, (_, owner) in self.model.items():
            if owner == peer:
                self.model[number] = (Standing.KNOWN, peer)

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        if self.model:
            self.world.used[data.draw(st.sampled_from(sorted(self.model)))] = self.world.now

    @rule(data=st.data())
    def turn_busy(self, data: st.DataObject) -> None:
        if self.model:
            self.world.busy ^= {data.draw(st.sampled_from(sorted(self.model)))}

    @rule(number=st.integers(1, 50))
    def remove(self, number: int) -> None:
        self.world.policy.remove(number)
        self.model.pop(number, None)

    @rule(seconds=st.floats(0.0, 2 * IDLE_S))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def clean_up(self) -> None:
        for number in self.world.clean_up():
            standing, _ = self.model.pop(number)
            assert standing in {Standing.STRANGER, Standing.KNOWN}
            assert number not in self.world.busy
            assert self.world.now - self.world.used[number] > IDLE_S

    @rule(up_to=st.sampled_from([Standing.STRANGER, Standing.UNPROVEN, Standing.KNOWN]))
    def make_room(self, up_to: Standing) -> None:
        number = self.world.room(up_to)
        may_go = [
            n
            for n, (standing, _) in self.model.items()
            if standing <= up_to
            and (
                standing is Standing.UNPROVEN
                or (n not in self.world.busy and self.world.now - self.world.used[n] >= JUST_USED_S)
            )
        ]
        if number is None:
            assert may_go == [] or len(self.model) > LOOKS
            return
        standing, _ = self.model.pop(number)
        assert number in may_go
        lower = [n for n in may_go if n in self.model and self.model[n][0] < standing]
        assert lower == [] or len(self.model) > LOOKS

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        policy = self.world.policy
        for standing in Standing:
            expected = sum(1 for kind, _ in self.model.values() if kind is standing)
            assert policy.count(standing) == expected
        for peer in "abc":
            of_peer = {number for number, (_, owner) in self.model.items() if owner == peer}
            assert set(policy.of_peer(peer)) == of_peer
        assert len(policy._residents) == len(self.model)
        for numbers in policy._lists.values():
            seen = [policy._residents[number].seen_s for number in numbers]
            assert seen == sorted(seen)


TestAnyHistory = AnyHistory.TestCase


@given(st.floats(0.0, 10.0))
def test_the_first_moments_of_a_clock_are_like_all_others(now: float) -> None:
    world = World()
    world.now = now
    number = world.proven()
    assert world.pass_time(IDLE_S * 0.9) == {}
    assert list(world.pass_time(IDLE_S)) == [number]

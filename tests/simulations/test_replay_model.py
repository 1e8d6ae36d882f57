"""All interleavings of a small world are well, and each tempting mistake makes some that are not.

A larger world takes longer: ``python -m simulations.replay_model`` explores it, and CI does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from egtp.queries.answers import NEVER, Answers
from egtp.queries.asker import Answer, Asker
from egtp.queries.early import CLOCKS_MS
from egtp.queries.exchange import Exchange
from egtp.queries.outgoing import Outgoing
from egtp.values.identity import NodeId
from simulations.replay_model import ANSWER_LIMITS, Bounds, Explored, State, explore


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(queries=1, dials=2, losses=1, jumps=1, signatures=0, restarts=0, sessions=2),
        Bounds(queries=2, dials=1, losses=1, jumps=1, signatures=1, restarts=0, sessions=2),
        Bounds(queries=1, dials=2, losses=1, jumps=0, signatures=0, restarts=1, sessions=2),
        Bounds(queries=1, dials=1, losses=1, jumps=2, signatures=1, restarts=0, clock_ahead_s=100),
        Bounds(
            queries=1,
            dials=2,
            losses=1,
            jumps=1,
            moments=0,
            signatures=0,
            restarts=0,
            forced=1,
            sessions=2,
        ),
        Bounds(
            queries=1,
            dials=2,
            losses=1,
            jumps=0,
            moments=1,
            signatures=0,
            restarts=0,
            forced=1,
            sessions=2,
        ),
        Bounds(queries=1, dials=1, losses=1, signatures=1, restarts=0, crowded=1, sessions=3),
    ],
    ids=[
        "resent",
        "two queries",
        "restarted",
        "a clock ahead",
        "forgotten by force",
        "and asked again",
        "too many lives",
    ],
)
def test_whatever_happens_in_whatever_order_no_query_runs_twice(
    bounds: Bounds, record_property: Callable[[str, object], None]
) -> None:
    explored = explore(bounds)
    record_property("states", explored.states)
    print(f"{explored.states:,} states, {explored.depth} steps deep")  # noqa: T201 - pytest -s
    assert explored.complete, explored.counterexample
    assert explored.states > 1_000


# What is tempting to leave out, one thing at a time


class FloorNotRaised(Answers):
    def _forget_below(self, sequence: int) -> None:
        super()._forget_below(sequence)
        self.early_floor = 0


class PeersFloorNotRaised(Answers):
    def make_room_of(self, peer_id: NodeId) -> int:
        forgotten = super().make_room_of(peer_id)
        self._floors.clear()
        return forgotten


class SettledIgnored(Answers):
    def settle(self, asker: Asker, settled: int) -> None:
        super().settle(asker, settled)
        asker.floor = 0


class FreedWhenAnswered(Answers):
    def answered(self, asker: Asker, answer: Answer, reply: Outgoing) -> None:
        super().answered(asker, answer, reply)
        self.forget(asker, answer)


class DoubtsNothing(Answers):
    def clears(self, asker: Asker, number: int, born_s: float, now_s: float) -> bool:
        return super().clears(asker, number, now_s, now_s)


class DoubtsNoEarlyData(Answers):
    def look(self, now_s: float, sequence: int) -> None:
        refused = self.early_floor == NEVER
        super().look(now_s, sequence)
        if refused and self.early_floor != NEVER:
            # Above the sequence that there was at the forgetting, and not the one of now.
            self.early_floor = 2


class ForgetsAnAskerAtOnce(Answers):
    def look(self, now_s: float, sequence: int) -> None:
        super().look(now_s, sequence)
        self.make_room(sequence)
        self.early_floor = 0


def world_with(answers: type[Answers]) -> type[State]:
    class World(State):
        def __init__(self, bounds: Bounds) -> None:
            super().__init__(bounds, answers=answers(ANSWER_LIMITS))

    # Found again by name when a state is thawed.
    World.__qualname__ = World.__name__ = f"World{answers.__name__}"
    globals()[World.__name__] = World
    return World


class RoutesWithoutProof(State):
    def _take_initiation(
        self, number: int, dial: int, early: bytes, named: bytes, sequence: int, time_ms: int
    ) -> None:
        super()._take_initiation(number, dial, early, named, sequence, time_ms)
        self.route = self.made


def found(world: type[State], bounds: Bounds) -> Explored:
    explored = explore(bounds, world=world)
    assert explored.counterexample, f"not found in {explored.states:,} states"
    return explored


def test_an_early_floor_that_is_not_raised_when_an_asker_is_forgotten_is_found() -> None:
    bounds = Bounds(queries=1, dials=1, restarts=0)
    assert found(world_with(FloorNotRaised), bounds).wrong == "a query has run twice"


def test_a_floor_of_a_peer_that_is_not_raised_when_its_lives_are_forgotten_is_found() -> None:
    bounds = Bounds(queries=1, dials=1, restarts=0, crowded=1)
    assert found(world_with(PeersFloorNotRaised), bounds).wrong == "a query has run twice"


def test_a_settled_mark_that_is_ignored_is_found() -> None:
    bounds = Bounds(queries=2, dials=2, restarts=0, jumps=0, signatures=0)
    assert found(world_with(SettledIgnored), bounds).wrong == "a query has run twice"


FORCED = Bounds(
    queries=1, dials=1, sessions=2, losses=1, jumps=0, signatures=0, restarts=0, forced=1
)


def test_that_every_query_of_a_forgotten_stranger_is_taken_for_a_new_one_is_found() -> None:
    bounds = replace(FORCED, moments=1)
    assert found(world_with(DoubtsNothing), bounds).wrong == "a query has run twice"


def test_early_data_that_is_accepted_too_soon_after_a_forgetting_by_force_is_found() -> None:
    bounds = replace(FORCED, jumps=1, signatures=1)
    assert found(world_with(DoubtsNoEarlyData), bounds).wrong == "a query has run twice"


def test_a_query_that_is_younger_than_a_forgetting_by_force_runs() -> None:
    """Or else the rule would be sound since nothing runs at all."""

    class NothingRunsAfterwards(State):
        @property
        def wrong(self) -> str:
            cleared = [
                asker
                for asker in self.answers._askers.values()
                if 0 < asker.doubtful_below < NEVER and asker.answers
            ]
            return super().wrong or ("one has run" if cleared else "")

    NothingRunsAfterwards.__qualname__ = NothingRunsAfterwards.__name__
    globals()[NothingRunsAfterwards.__name__] = NothingRunsAfterwards
    bounds = replace(FORCED, queries=2, moments=1)
    assert found(NothingRunsAfterwards, bounds).wrong == "one has run"


def test_an_answer_that_is_forgotten_when_it_was_given_is_found() -> None:
    bounds = Bounds(queries=1, dials=2, restarts=0, jumps=0, signatures=0)
    assert found(world_with(FreedWhenAnswered), bounds).wrong == "a query has run twice"


def test_a_later_incarnation_that_is_given_everything_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Exchange, "may_be_given_to", lambda *_: True)
    bounds = Bounds(queries=1, dials=2, jumps=0, signatures=0)
    assert found(State, bounds).wrong == "a query has run twice"


def test_an_unconfirmed_session_that_becomes_the_route_is_found() -> None:
    wrong = "a route was learned from a session that nobody has confirmed"
    assert found(RoutesWithoutProof, Bounds(restarts=0)).wrong == wrong


def test_a_floor_of_times_instead_of_sequences_is_not_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it was designed at first: forget an asker once a floor of wall-clock times has passed its
    last activity by a minute, and refuse early data from before that floor. An asker whose clock is
    ahead by more than a minute defeats it, with an initiation that was held back."""
    began_s = State(Bounds()).now_s
    floor_ms = int(began_s * 1000) + CLOCKS_MS
    bounds = Bounds(queries=1, dials=1, restarts=0, losses=2, jumps=2, clock_ahead_s=100)

    class FloorOfTimes(State):
        def _take_initiation(
            self, number: int, dial: int, early: bytes, named: bytes, sequence: int, time_ms: int
        ) -> None:
            refused = self.now_s > began_s and time_ms <= floor_ms
            early = b"" if refused else early
            super()._take_initiation(number, dial, early, named, sequence, time_ms)

    FloorOfTimes.__qualname__ = FloorOfTimes.__name__
    monkeypatch.setitem(globals(), "FloorOfTimes", FloorOfTimes)
    original = State.__init__

    def forgetful(self: State, *args: object, **options: object) -> None:
        original(self, *args, **options)  # type: ignore[arg-type]
        self.answers = ForgetsAnAskerAtOnce()

    monkeypatch.setattr(State, "__init__", forgetful)
    assert found(FloorOfTimes, bounds).wrong == "a query has run twice"

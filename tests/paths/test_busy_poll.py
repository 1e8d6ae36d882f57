"""While traffic is lively the loop is kept turning; else, and soon after, it may sleep."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from egtp.paths.busy_poll import BusyPoll, PollingTurns

FOR_S = 0.5


class Loop:
    """An event loop that can be asked whether it would sleep now."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.soon: list[Callable[[], None]] = []
        self.gave_way = 0
        self.poll = BusyPoll(FOR_S, lambda: self.now_s, self.soon.append, self.give_way)

    def give_way(self) -> None:
        self.gave_way += 1

    def is_awake(self) -> bool:
        return bool(self.soon)

    def turn(self) -> None:
        callbacks, self.soon[:] = self.soon[:], []
        for callback in callbacks:
            callback()

    def after(self, seconds: float) -> Loop:
        self.now_s += seconds
        self.turn()
        return self


def test_what_comes_soon_after_something_has_left_keeps_the_loop_awake() -> None:
    loop = Loop()
    loop.poll.left()
    assert not loop.is_awake(), "nothing has ever come: it may be for long"
    loop.after(0.1).poll.came()
    assert loop.is_awake()
    assert loop.after(0.4).is_awake()
    assert not loop.after(0.2).is_awake()


def test_what_comes_late_lets_the_loop_sleep_at_once() -> None:
    loop = Loop()
    loop.poll.left()
    loop.after(0.1).poll.came()
    loop.poll.left()
    assert loop.is_awake()
    loop.after(0.6).poll.came()
    assert not loop.is_awake()
    loop.poll.left()
    assert not loop.is_awake(), "the last reply took too long, and so may the next"


def test_who_asks_now_and_then_is_awake_for_the_reply_if_the_last_one_was_quick() -> None:
    loop = Loop()
    loop.poll.left()
    loop.after(0.1).poll.came()
    assert not loop.after(1000.0).is_awake()
    loop.poll.left()
    assert loop.is_awake()


def test_others_have_the_processor_first_in_each_turn() -> None:
    loop = Loop()
    loop.poll.left()
    loop.after(0.1).poll.came()
    for turns in range(1, 4):
        loop.turn()
        assert loop.gave_way == turns


def test_turns_tell_what_was_read_before_what_it_caused() -> None:
    loop = Loop()
    turns = PollingTurns(loop.soon.append, loop.poll)
    done: list[str] = []
    turns.soon(lambda: done.append("asked"))
    loop.turn()
    assert done == ["asked"]
    assert not loop.is_awake()
    loop.now_s += 0.6
    turns.reading_begins()
    turns.soon(lambda: done.append("answered"))
    turns.reading_ends()
    assert done == ["asked", "answered"]
    assert not loop.is_awake(), "what came was late, however soon the answer to it has left"
    loop.now_s += 0.4
    turns.reading_begins()
    turns.reading_ends()
    assert loop.is_awake()


STEPS = st.lists(st.tuples(st.sampled_from(["came", "left", "nothing"]), st.floats(0, 2 * FOR_S)))


@given(STEPS)
def test_at_any_time_the_loop_is_kept_awake_once_and_no_longer_than_said(
    steps: list[tuple[str, float]],
) -> None:
    loop = Loop()
    last_s, is_lively = float("-inf"), False
    for what, seconds in steps:
        loop.after(seconds)
        if what == "came":
            is_lively = loop.now_s - last_s <= FOR_S
            loop.poll.came()
        elif what == "left":
            loop.poll.left()
        if what != "nothing":
            last_s = loop.now_s
        loop.turn()
        assert len(loop.soon) == (is_lively and loop.now_s - last_s < FOR_S)


@given(st.lists(st.floats(FOR_S * 1.01, 1e6)))
def test_peers_who_take_longer_never_keep_the_loop_awake(round_trips: list[float]) -> None:
    loop = Loop()
    for seconds in round_trips:
        loop.poll.left()
        assert not loop.is_awake()
        loop.after(seconds).poll.came()
        assert not loop.is_awake()
    assert loop.gave_way == 0

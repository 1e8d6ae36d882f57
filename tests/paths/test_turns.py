"""What is put off is done once, at the end of the reading, or else of the loop's turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from egtp.paths.turns import ROUNDS, Turns


class Told:
    def __init__(self) -> None:
        self.left_to_the_loop: list[Callable[[], None]] = []
        self.turns = Turns(self.left_to_the_loop.append)
        self.done: list[str] = []

    def run_the_loop(self) -> int:
        """One turn of the loop; how many callbacks it had."""
        callbacks, self.left_to_the_loop[:] = self.left_to_the_loop[:], []
        for callback in callbacks:
            callback()
        return len(callbacks)

    def put_off(self, name: str) -> None:
        self.turns.soon(lambda: self.done.append(name))


def test_what_a_packet_causes_is_done_when_all_that_was_read_is_taken() -> None:
    told = Told()
    for name in ("one", "two"):
        told.turns.reading_begins()
        told.put_off(name)
    assert told.done == []
    told.turns.reading_ends()
    assert told.done == ["one", "two"]
    assert not told.left_to_the_loop
    told.turns.reading_ends()
    assert told.done == ["one", "two"]


def test_outside_of_a_reading_it_is_left_to_the_loop_and_done_there_together() -> None:
    told = Told()
    told.put_off("one")
    told.put_off("two")
    assert told.done == []
    assert told.run_the_loop() == 1
    assert told.done == ["one", "two"]
    told.put_off("three")
    assert told.run_the_loop() == 1
    assert told.done == ["one", "two", "three"]


def test_a_reading_takes_along_what_was_left_to_the_loop() -> None:
    told = Told()
    told.put_off("before")
    told.turns.reading_begins()
    told.put_off("during")
    told.turns.reading_ends()
    assert told.done == ["before", "during"]
    told.run_the_loop()
    assert told.done == ["before", "during"]


def test_what_is_put_off_at_the_end_of_a_turn_is_still_done_in_it() -> None:
    told = Told()
    told.turns.reading_begins()
    told.turns.soon(lambda: told.put_off("of a reading"))
    told.turns.reading_ends()
    assert told.done == ["of a reading"]
    told.turns.soon(lambda: told.put_off("of the loop"))
    told.run_the_loop()
    assert told.done == ["of a reading", "of the loop"]
    assert not told.left_to_the_loop


def test_a_callback_that_puts_itself_off_again_and_again_lets_the_loop_go_on() -> None:
    told = Told()

    def again() -> None:
        told.done.append("again")
        told.turns.soon(again)

    told.turns.reading_begins()
    told.turns.soon(again)
    told.turns.reading_ends()
    assert len(told.done) == ROUNDS
    assert told.run_the_loop() == 1
    assert len(told.done) == 2 * ROUNDS


def test_what_is_done_at_once_is_a_turn_of_its_own() -> None:
    told = Told()
    told.turns.at_once(lambda: told.put_off("put off"))
    assert told.done == ["put off"]
    assert not told.left_to_the_loop


def test_within_a_turn_what_is_done_at_once_ends_with_it() -> None:
    told = Told()
    told.turns.reading_begins()
    told.turns.at_once(lambda: told.put_off("put off"))
    assert told.done == []
    told.turns.reading_ends()
    assert told.done == ["put off"]


@pytest.mark.parametrize("how", ["at once", "reading", "loop"])
def test_a_callback_that_raises_stops_none_of_the_others(how: str) -> None:
    told = Told()

    def fail() -> None:
        raise ZeroDivisionError

    def put_off() -> None:
        told.turns.soon(fail)
        told.put_off("after it")

    if how == "reading":
        told.turns.reading_begins()
        put_off()
        with pytest.raises(ZeroDivisionError):
            told.turns.reading_ends()
    elif how == "loop":
        put_off()
        with pytest.raises(ZeroDivisionError):
            told.run_the_loop()
    else:
        with pytest.raises(ZeroDivisionError):
            told.turns.at_once(put_off)
    told.run_the_loop()
    assert told.done == ["after it"]
    told.put_off("later")
    told.run_the_loop()
    assert told.done == ["after it", "later"]

"""What is put off is done once, at the end of the reading, or else of the loop's turn."""

from __future__ import annotations

from collections.abc import Callable

from egtp.turns import Turns


class Told:
    def __init__(self) -> None:
        self.left_to_the_loop: list[Callable[[], None]] = []
        self.turns = Turns(self.left_to_the_loop.append)
        self.done: list[str] = []

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


def test_outside_of_a_reading_it_is_left_to_the_loop() -> None:
    told = Told()
    told.put_off("before")
    told.turns.reading_begins()
    told.turns.reading_ends()
    told.put_off("after")
    assert told.done == []
    assert len(told.left_to_the_loop) == 2


def test_what_is_put_off_at_the_end_of_a_reading_is_left_to_the_loop() -> None:
    told = Told()
    told.turns.reading_begins()
    told.turns.soon(lambda: told.put_off("later"))
    told.turns.reading_ends()
    assert told.done == []
    assert len(told.left_to_the_loop) == 1

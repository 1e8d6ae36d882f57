"""What could not be written to a record file, until it can be. Pure."""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

__all__ = ["Backlog", "Change"]

DELETIONS_MAX: Final = 16_384


class Change(NamedTuple):
    """Of one row of a file."""

    row: tuple[str, bytes]
    """The table, or part of one, and the peerId."""
    statement: str
    values: tuple[object, ...]
    deletes: bool = False


class Backlog:
    """The last change of each row. Those that write are no more than what the node has in memory,
    since what goes from there is deleted here. Of deletions the latest are kept: a row that stays
    is one more that the next run checks."""

    def __init__(self) -> None:
        self._writes: dict[tuple[str, bytes], Change] = {}
        self._deletions: dict[tuple[str, bytes], Change] = {}

    def __len__(self) -> int:
        return len(self._writes) + len(self._deletions)

    def add(self, change: Change) -> None:
        self._remove(change)
        changes = self._deletions if change.deletes else self._writes
        changes[change.row] = change
        if len(self._deletions) > DELETIONS_MAX:
            del self._deletions[next(iter(self._deletions))]

    def first(self, count: int) -> list[Change]:
        """Deletions first: they make room."""
        changes = itertools.chain(self._deletions.values(), self._writes.values())
        return list(itertools.islice(changes, count))

    def written(self, changes: list[Change]) -> None:
        """These are in the file; nothing was added meanwhile."""
        for change in changes:
            self._remove(change)

    def _remove(self, change: Change) -> None:
        self._writes.pop(change.row, None)
        self._deletions.pop(change.row, None)

"""Changes that could not yet be written to a record file. Pure."""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

__all__ = ["Backlog", "Change"]

DELETIONS_MAX: Final = 16_384


class Change(NamedTuple):
    """A change of one row."""

    row: tuple[str, bytes]
    """The table, or the kind within one, and the peerId."""
    statement: str
    values: tuple[object, ...]
    deletes: bool = False


class Backlog:
    """The last change of each row. The writes are bounded by what the node holds in memory, since
    whatever leaves memory is deleted here too. Only the latest deletions are kept: a row that
    should be gone costs the next run one more check."""

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
        """The next ``count`` changes, deletions first, since they make room."""
        changes = itertools.chain(self._deletions.values(), self._writes.values())
        return list(itertools.islice(changes, count))

    def written(self, changes: list[Change]) -> None:
        """``changes`` are in the file now. Nothing may have been added since :meth:`first`."""
        for change in changes:
            self._remove(change)

    def _remove(self, change: Change) -> None:
        self._writes.pop(change.row, None)
        self._deletions.pop(change.row, None)

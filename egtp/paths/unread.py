"""Unread: how much may wait for peers that do not read, all together (pure).

What others made this node say, or asked it to pass on, waits on the path to its recipient. Each
path has a limit, but there are thousands of paths. A path on which little waits costs nothing here;
most never have more. For the others, what waits is recorded when something is added; what has left
since is noted now and then, or when there seems to be no room.

If there is none, the peers with the most waiting make way, strangers first, so that a crowd that
does not read cannot keep those who do from being answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egtp.paths.path import Path

__all__ = ["LITTLE_BYTES", "Unread"]

LITTLE_BYTES: Final = 16 * 1024
"""What may wait on each path in any case."""
LOOK_AGAIN_S: Final = 0.05
"""Looking through all paths takes time, so it is done at most this often for peers that already
have much waiting."""
ROOM_KEPT: Final = 7 / 8
"""The fraction that may stay when somebody has to make way."""


class Unread:
    """Invariant: whatever was admitted to paths with more than a little waiting was within the
    limits at that moment."""

    def __init__(
        self, bytes_max: int, strangers_max: int, relieve: Callable[[Path], object]
    ) -> None:
        """:param relieve: drops what others made wait on a path."""
        self._bytes_max = bytes_max
        self._strangers_max = strangers_max
        self._relieve = relieve
        self._waiting: dict[Path, int] = {}
        self._of_all = self._of_strangers = 0
        self._looked_s = float("-inf")

    def __len__(self) -> int:
        """How many paths have more than a little waiting."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """An upper bound on what waits there."""
        return self._of_all

    def admits(self, path: Path, size: int, now_s: float) -> bool:
        """Whether ``size`` more may wait on a path; it is then assumed to do so."""
        before = path.outbox.memory_bytes
        waits = before + size
        if waits <= LITTLE_BYTES:
            return True
        if not self._has_room(path, waits):
            has_much = before > LITTLE_BYTES
            if has_much and now_s - self._looked_s < LOOK_AGAIN_S:
                return False
            self.look(now_s)
            self._make_room(path, waits)
            if not self._has_room(path, waits):
                return False
        self._note(path, waits)
        return True

    def _has_room(self, path: Path, waits: int, kept: float = 1.0) -> bool:
        more = waits - self._waiting.get(path, 0)
        return self._of_all + more <= self._bytes_max * kept and (
            not path.is_strangers or self._of_strangers + more <= self._strangers_max * kept
        )

    def _make_room(self, path: Path, waits: int) -> None:
        """Let others make way until ``waits`` bytes may wait on a path: strangers for known peers,
        and among equals those with more waiting."""

        def rank(one: Path) -> tuple[bool, int]:
            return not one.is_strangers, -self._waiting[one]

        before = path.outbox.memory_bytes
        for other in sorted(self._waiting, key=rank):
            if self._has_room(path, waits, ROOM_KEPT):
                return
            is_stranger_for_known = other.is_strangers and not path.is_strangers
            is_alike = other.is_strangers == path.is_strangers
            if is_stranger_for_known or (is_alike and self._waiting[other] > before):
                self._relieve(other)
                self._note(other, other.outbox.memory_bytes)

    def _note(self, path: Path, waits: int) -> None:
        more = waits - self._waiting.get(path, 0)
        self._of_all += more
        if path.is_strangers:
            self._of_strangers += more
        self._waiting[path] = waits

    def look(self, now_s: float) -> None:
        """Take note of what has left."""
        self._looked_s = now_s
        paths, self._waiting = list(self._waiting), {}
        self._of_all = self._of_strangers = 0
        for path in paths:
            waits = path.outbox.memory_bytes
            if waits > LITTLE_BYTES and not path.closed:
                self._note(path, waits)

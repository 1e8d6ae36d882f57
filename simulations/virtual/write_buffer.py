"""WriteBuffer: what a program wrote and its kernel has no room for."""

from __future__ import annotations

from typing import Final

from simulations.virtual.outflow import End, Outflow, Piece

__all__ = ["WriteBuffer"]

HIGH_WATER_BYTES: Final = 64 * 1024
"""asyncio's own default."""


class WriteBuffer:
    """Knows as well when the program is to be paused, and when it may go on."""

    def __init__(self, outflow: Outflow) -> None:
        self._outflow = outflow
        self._pieces: list[Piece] = []
        """Few at a time as a rule, and none for most of a life: a deque has room for 64."""
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        self._is_paused = False
        self.size = 0
        """Bytes."""

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def limits(self) -> tuple[int, int]:
        """The low one and the high one."""
        return self._low, self._high

    def set_limits(self, high: int | None, low: int | None) -> None:
        """As asyncio has it. Raises :class:`ValueError`."""
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    def pauses(self) -> bool:
        """Whether the program is to be told, now, that this is too much."""
        if self._is_paused or self.size <= self._high:
            return False
        self._is_paused = True
        return True

    def resumes(self) -> bool:
        """Whether the program is to be told, now, that it may go on."""
        if not self._is_paused or self.size > self._low:
            return False
        self._is_paused = False
        return True

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.size += len(piece) if isinstance(piece, bytes) else 0
        self.pump()

    def pump(self) -> None:
        """Give to the kernel what it has room for."""
        pieces, outflow = self._pieces, self._outflow
        while pieces:
            piece = pieces[0]
            if isinstance(piece, End):
                pieces.pop(0)
                outflow.send(piece)
                continue
            room = outflow.room
            if room <= 0:
                outflow.wait_for_room()
                return
            if len(piece) <= room:
                pieces.pop(0)
            else:
                pieces[0], piece = piece[room:], piece[:room]
            self.size -= len(piece)
            outflow.send(piece)

    def drop(self) -> bool:
        """Throw it away. Returns whether the end of the data was in it, which nobody hears now."""
        had_end = bool(self._pieces) and self._pieces[-1] is End.FIN
        self._pieces.clear()
        self.size = 0
        return had_end

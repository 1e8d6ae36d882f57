"""WriteBuffer: data that a program wrote and its kernel has no room for yet."""

from __future__ import annotations

from typing import Final

from simulations.virtual.outflow import End, Outflow, Piece

__all__ = ["WriteBuffer"]

HIGH_WATER_BYTES: Final = 64 * 1024
"""asyncio's own default."""


class WriteBuffer:
    """Also decides when the program must pause, and when it may resume."""

    def __init__(self, outflow: Outflow) -> None:
        self._outflow = outflow
        self._pieces: list[Piece] = []
        """A list, as it is mostly empty and otherwise short: a deque allocates room for 64."""
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        self._is_paused = False
        self.size = 0
        """In bytes."""

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def limits(self) -> tuple[int, int]:
        """The low and high water marks."""
        return self._low, self._high

    def set_limits(self, high: int | None, low: int | None) -> None:
        """Set the water marks, with asyncio's defaults. Raises :class:`ValueError`."""
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    def pauses(self) -> bool:
        """Whether the program must now be told to pause."""
        if self._is_paused or self.size <= self._high:
            return False
        self._is_paused = True
        return True

    def resumes(self) -> bool:
        """Whether the program must now be told to resume."""
        if not self._is_paused or self.size > self._low:
            return False
        self._is_paused = False
        return True

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.size += len(piece) if isinstance(piece, bytes) else 0
        self.pump()

    def pump(self) -> None:
        """Hand the kernel as much as it has room for."""
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
        """Discard everything. Returns whether that included the end of the data."""
        had_end = bool(self._pieces) and self._pieces[-1] is End.FIN
        self._pieces.clear()
        self.size = 0
        return had_end

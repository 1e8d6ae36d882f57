"""Program: a real process and its output."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

__all__ = ["Program"]

LINE_TIMEOUT_S: Final = 20.0
"""How long to wait for a line. No expected line comes near it."""


class Program:
    """A process whose output is read as it comes, so that it never blocks on a full pipe."""

    def __init__(self, command: Sequence[str], cwd: Path | None = None) -> None:
        self._lines: Final[queue.SimpleQueue[str | None]] = queue.SimpleQueue()
        self._printed: Final[list[str]] = []
        self._process: Final = subprocess.Popen(  # noqa: S603
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        self._reader: Final = threading.Thread(
            target=self._read, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()

    @property
    def printed(self) -> str:
        """All lines taken so far."""
        return "\n".join(self._printed)

    def line(self, with_text: str = "", timeout_s: float = LINE_TIMEOUT_S) -> str:
        """Wait for the next line that contains ``with_text``.

        Raises :class:`AssertionError` with everything printed if it does not come."""
        ends_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.001, ends_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"no {with_text!r} in {timeout_s:g} s after:\n{self.printed}"
                ) from None
            if line is None:
                self._lines.put(None)
                raise AssertionError(f"no {with_text!r} to the end of:\n{self.printed}")
            self._printed.append(line)
            if with_text in line:
                return line

    def ended(self, timeout_s: float = LINE_TIMEOUT_S) -> tuple[int, str]:
        """Wait for the process to end. Returns its exit status and all that it printed."""
        status = self._process.wait(timeout_s)
        self._reader.join()
        while (line := self._lines.get()) is not None:
            self._printed.append(line)
        self._lines.put(None)
        return status, self.printed

    def kill(self) -> None:
        """Send SIGKILL if it still runs, so that it cannot say goodbye to anybody."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._reader.join()

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

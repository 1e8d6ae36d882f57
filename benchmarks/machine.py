"""What the machine did in a window, from ``/proc``: who used how much processor time and memory."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Moment", "describe", "processor", "pss_bytes"]

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LOAD_COLUMNS = (0, 1, 2, 7)
"""user, nice, system, steal. No interrupts: loopback's are caused by the measured processes."""


def _tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def _cpu_s(pid: int) -> float:
    """Processor seconds, user and system, of all threads of a process and its descendants."""
    ticks = 0
    for one in _tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def pss_bytes(pid: int) -> int:
    """The proportional set size of a process and its descendants: shared pages are divided."""
    total = 0
    for one in _tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


@dataclass(frozen=True, slots=True)
class Moment:
    """The counters at one moment; two of them make a window."""

    at_s: float
    busy_s: float
    """Processor seconds of the whole machine."""
    own_s: tuple[float, ...]
    """Processor seconds of each measured process."""
    harness_s: float

    @classmethod
    def now(cls, pids: list[int]) -> Self:
        load = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        busy_s = sum(int(load[column]) for column in LOAD_COLUMNS) / TICKS_PER_S
        own_s = tuple(_cpu_s(pid) for pid in pids)
        return cls(time.monotonic(), busy_s, own_s, time.process_time())

    def own_since(self, begin: Self) -> list[float]:
        """Processor seconds of each measured process in the window from ``begin`` to here."""
        return [after - before for before, after in zip(begin.own_s, self.own_s, strict=True)]

    def others_since(self, begin: Self) -> float:
        """How many cores everybody else used since ``begin``."""
        others_s = (
            self.busy_s
            - begin.busy_s
            - sum(self.own_since(begin))
            - (self.harness_s - begin.harness_s)
        )
        return max(0.0, others_s / (self.at_s - begin.at_s))


def processor() -> str:
    """The name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def describe() -> dict[str, object]:
    """The machine, in words for a table."""
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }

"""A contestant's two processes, each on a core of its own; with a relay, three on two cores."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.contest import Contestant
from benchmarks.machine import Moment, pss_bytes

__all__ = ["QUIET_CORES", "Absent", "Pair", "cpu_us"]

HERE = Path(__file__).parent
COMPILED = HERE.parent / ".compiled"
CLIENT_CORE, SERVER_CORE = 0, 1
START_S, WINDOW_S = 30.0, 400.0
QUIET_CORES = 0.2
"""A window is disturbed if others used more cores than this."""


class Absent(Exception):
    """The contestant does not run here; the message says why."""


def _environment(contestant: Contestant) -> dict[str, str]:
    if not contestant.compiled:
        return dict(os.environ)
    if not (COMPILED / "egtp").exists():
        raise Absent("not compiled here: no C compiler, or no make")
    # The process runs in a folder with the sources, which must not be imported first.
    return os.environ | {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join((str(COMPILED), str(HERE.parent))),
    }


class _Station:
    """One process. A thread reads what it says, so that every wait can time out."""

    def __init__(self, contestant: Contestant, role: str, settings: dict[str, Any], core: int):
        node = contestant.module.endswith("cjs")
        program = (
            ["node", str(HERE / "contestants" / contestant.module)]
            if node
            else [sys.executable, "-m", f"benchmarks.contestants.{contestant.module}"]
        )
        cores, environment = sorted(os.sched_getaffinity(0)), _environment(contestant)
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as the process does
        try:
            self.process = subprocess.Popen(  # noqa: S603
                [*program, role, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
                cwd=HERE.parent,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {cores[min(core, len(cores) - 1)]}),  # noqa: PLW1509
            )
        except FileNotFoundError:
            self._complaints.close()
            raise Absent(f"no {program[0]} on this machine") from None
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{"say"'):
                self._said.put(json.loads(line))
        self._said.put({"say": "failed", "reason": self._last_words()})

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "its process ended")[:300]

    def hear(self, word: str, timeout_s: float) -> dict[str, Any]:
        try:
            said = self._said.get(timeout=timeout_s)
        except queue.Empty:
            raise Absent(f"no {word!r} within {timeout_s:.0f} s") from None
        if said["say"] != word:
            raise Absent(str(said.get("reason", said["say"])))
        return said

    def tell(self, work: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(work) + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill the process with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self._complaints.close()


class Pair:
    """A contestant's server and client, running. Raises :class:`Absent` if they do not run."""

    def __init__(
        self, contestant: Contestant, certificates: str = "", *, relayed: bool = False, **more: Any
    ) -> None:
        """``more`` holds settings of the contestant's own."""
        settings = {"form": contestant.form, "certificates": certificates} | more
        self._stations: list[_Station] = []
        self.relay: _Station | None = None
        try:
            if relayed:
                # Both ends share the client's core; the relay has the other one for itself.
                self.relay = self._start(contestant, "relay", settings, SERVER_CORE)
                settings["relay"] = self.relay.hear("ready", START_S)["address"]
            self.server = self._start(
                contestant, "serve", settings, CLIENT_CORE if relayed else SERVER_CORE
            )
            settings["address"] = self.server.hear("ready", START_S)["address"]
            self._settings = settings
            self.client = self.another_client(contestant)
        except BaseException:
            self.end()
            raise

    def another_client(self, contestant: Contestant) -> _Station:
        """One more client of the same server."""
        client = self._start(contestant, "client", self._settings, CLIENT_CORE)
        client.hear("ready", START_S)
        return client

    def _start(
        self, contestant: Contestant, role: str, settings: dict[str, Any], core: int
    ) -> _Station:
        self._stations.append(_Station(contestant, role, settings, core))
        return self._stations[-1]

    def measure(self, work: dict[str, Any]) -> dict[str, Any]:
        """Have the client do ``work``. Returns what it measured, the processor seconds of each
        process, and how many cores everybody else used meanwhile."""
        pids = [station.process.pid for station in (self.client, self.server)]
        if self.relay is not None:
            pids.append(self.relay.process.pid)
        self.client.tell(work)
        self.client.hear("begin", WINDOW_S)
        begin = Moment.now(pids)
        weight = {"client_pss": pss_bytes(self.client.process.pid)} if work.get("weigh") else {}
        facts = self.client.hear("end", WINDOW_S)
        end = Moment.now(pids)
        del facts["say"]
        names = ("client_cpu_s", "server_cpu_s", "relay_cpu_s")
        used = dict(zip(names, end.own_since(begin), strict=False))
        return facts | used | weight | {"others": end.others_since(begin)}

    def hold(self, count: int, settle_s: float) -> tuple[int, float]:
        """Have the client hold ``count`` connections. Returns how many it holds, and how many bytes
        of the server's memory each takes once that had ``settle_s`` to settle."""
        time.sleep(settle_s)
        before = pss_bytes(self.server.process.pid)
        held: int = self.measure({"work": "hold", "count": count})["held"]
        time.sleep(settle_s)
        return held, (pss_bytes(self.server.process.pid) - before) / held

    def server_cpu_share(self, seconds: float) -> float:
        """The share of a core that the server uses while nothing happens."""
        begin = Moment.now([self.server.process.pid])
        time.sleep(seconds)
        end = Moment.now([self.server.process.pid])
        return end.own_since(begin)[0] / (end.at_s - begin.at_s)

    def end(self) -> None:
        for station in reversed(self._stations):
            station.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()


def cpu_us(facts: dict[str, Any]) -> float:
    """Processor time per query, both sides together, from what :meth:`Pair.measure` returned."""
    return float((facts["client_cpu_s"] + facts["server_cpu_s"]) / facts["done"] * 1e6)

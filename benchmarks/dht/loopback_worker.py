"""One system's network for the loopback figures, in a process of its own. Reads commands as lines
of JSON, and answers each with one."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.dht.loopback_systems import SYSTEMS, System

__all__ = ["main"]


class Meter:
    """What a phase cost this process."""

    def __init__(self) -> None:
        self.began = (time.perf_counter(), time.process_time(), datagrams_in())

    def figures(self) -> dict[str, float]:
        wall_s, cpu_s, datagrams = self.began
        return {
            "wall_s": time.perf_counter() - wall_s,
            "cpu_s": time.process_time() - cpu_s,
            "datagrams": datagrams_in() - datagrams,
        }


def datagrams_in() -> int:
    """UDP datagrams that were delivered in this network namespace so far."""
    lines = Path("/proc/net/snmp").read_text(encoding="ascii").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("InDatagrams")])


def rss_kib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1024


async def obey(system: System) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        meter, answer = Meter(), {}
        match request["command"]:
            case "boot":
                before = rss_kib()
                await system.boot(request["nodes"])
                answer["rss_kib"] = rss_kib() - before
                # Two hundred nodes are not one's garbage: a node alone has little to look through.
                gc.collect()
                gc.freeze()
            case "idle":
                await asyncio.sleep(request["seconds"])
            case "publish":
                answer = await publish(system, request["first"], request["count"])
            case "resolve":
                answer = await resolve(system, request["first"], request["count"])
            case "walk":
                answer = await walk(system, request["first"], request["count"])
        print(json.dumps(answer | meter.figures()), flush=True)


async def publish(system: System, first: int, count: int) -> dict[str, Any]:
    done, succeeded = [], 0
    for number in range(first, first + count):
        began = time.perf_counter()
        succeeded += await system.put(number)
        done.append(time.perf_counter() - began)
    return {"done": done, "succeeded": succeeded, "asked": count}


async def resolve(system: System, first: int, count: int) -> dict[str, Any]:
    times = [await system.get(number) for number in range(first, first + count)]
    return {
        "first": [it for it, _ in times],
        "newest": [it for _, it in times],
        "succeeded": sum(it != (None, None) for it in times),
        "asked": count,
    }


async def walk(system: System, first: int, count: int) -> dict[str, Any]:
    found = [await system.walk(number) for number in range(first, first + count)]
    return {"succeeded": sum(it is not None for it in found), "asked": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    system_type = SYSTEMS[parser.parse_args().system]
    try:
        importlib.import_module(system_type.package)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    print(json.dumps({"version": version(system_type.package)}), flush=True)
    uvloop.run(obey(system_type()))


if __name__ == "__main__":
    main()
    os._exit(0)  # Other systems' threads are not waited for.

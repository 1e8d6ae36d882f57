"""First figures: query latency and pipelined throughput between two processes on loopback.

``python benchmarks/first_figures.py [--rounds N] [--json FILE]``

Beside it, in the same rounds, a bare echo: length prefix, id and 100 bytes, one write per message
and one future per request, no encryption. Absolute figures belong to the machine and the minute;
the ratios are what to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from egtp import ContactLink, Identity, Incoming, MemoryLookup, Node, NodeConfig, NodeId

BODY = bytes(100)
CONFIG = NodeConfig(private_addresses=True)
Call = Callable[[], Awaitable[object]]


# The bare echo


class EchoServer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        start = 0
        while len(self.buffer) - start >= 4:
            (length,) = struct.unpack_from(">I", self.buffer, start)
            if len(self.buffer) - start < 4 + length:
                break
            self.transport.write(self.buffer[start : start + 4 + length])  # type: ignore[attr-defined]
            start += 4 + length
        self.buffer = self.buffer[start:]


class EchoClient(EchoServer):
    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.next = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        start = 0
        while len(self.buffer) - start >= 4:
            (length,) = struct.unpack_from(">I", self.buffer, start)
            if len(self.buffer) - start < 4 + length:
                break
            (number,) = struct.unpack_from(">Q", self.buffer, start + 4)
            self.waiting.pop(number).set_result(self.buffer[start + 12 : start + 4 + length])
            start += 4 + length
        self.buffer = self.buffer[start:]

    def call(self) -> asyncio.Future[bytes]:
        self.next += 1
        future = self.waiting[self.next] = asyncio.get_running_loop().create_future()
        message = struct.pack(">IQ", 8 + len(BODY), self.next) + BODY
        self.transport.write(message)  # type: ignore[attr-defined]
        return future


# The two servers, each a process of its own


async def serve(which: str) -> None:
    if which == "bare":
        server = await asyncio.get_running_loop().create_server(EchoServer, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()
    node = Node(
        Identity.generate(os.urandom), listen="127.0.0.1:0", lookup=MemoryLookup(), config=CONFIG
    )

    async def echo(query: Incoming) -> bytes:
        return query.body

    node.handle("echo", echo)
    async with node:
        print(node.link, flush=True)
        await asyncio.Event().wait()


def start(which: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, __file__, "--serve", which]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


# The client


async def measure(call: Call, seconds: float) -> dict[str, float]:
    async def worker(deadline: float) -> int:
        done = 0
        while time.perf_counter() < deadline:
            await call()
            done += 1
        return done

    figures = {}
    times = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    figures["p50_us"] = statistics.median(times) * 1e6
    for at_once in (64, 1000):
        began = time.perf_counter()
        counts = await asyncio.gather(*(worker(began + seconds) for _ in range(at_once)))
        figures[f"per_s_{at_once}"] = sum(counts) / (time.perf_counter() - began)
    return figures


async def compare(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    bare_process, port = start("bare")
    egtp_process, link = start("egtp")
    rows: dict[str, list[dict[str, float]]] = {"bare": [], "egtp": []}
    try:
        loop = asyncio.get_running_loop()
        _, bare = await loop.create_connection(EchoClient, "127.0.0.1", int(port))
        node = Node(Identity.generate(os.urandom), lookup=MemoryLookup(), config=CONFIG)
        async with node:
            peer_id: NodeId = node.add_contact(ContactLink.parse(link))

            async def ask() -> bytes:
                return await node.query(peer_id, "echo", BODY)

            assert await ask() == BODY
            for _ in range(rounds):
                rows["bare"].append(await measure(bare.call, seconds))
                rows["egtp"].append(await measure(ask, seconds))
    finally:
        for process in (bare_process, egtp_process):
            process.kill()
            process.wait()
    return {
        name: {key: statistics.median(row[key] for row in measured) for key in measured[0]}
        for name, measured in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7, help="for each figure of a round")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve))
        return
    figures = uvloop.run(compare(options.rounds, options.seconds))
    bare, ours = figures["bare"], figures["egtp"]
    print(f"medians of {options.rounds} rounds; {os.cpu_count()} cores, {sys.version.split()[0]}")
    print(f"{'':24}{'bare echo':>14}{'EGTP':>14}{'EGTP / bare':>14}")
    for key, title in (
        ("p50_us", "one at a time, p50 µs"),
        ("per_s_64", "64 in flight, per s"),
        ("per_s_1000", "1,000 in flight, per s"),
    ):
        print(f"{title:24}{bare[key]:14,.0f}{ours[key]:14,.0f}{ours[key] / bare[key]:14.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()

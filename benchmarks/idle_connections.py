"""What a held idle connection costs: memory and processor time of the server.

``python benchmarks/idle_connections.py [--count N] [--seconds S]``

A server node in a process of its own; another process has ``N`` nodes that each ask it once over a
connection of their own, and then all are silent. Memory is the server's proportional set size
(PSS) after that, less before, per connection; kernel socket memory is not in it. Processor time is
what the server uses while nothing happens.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from egtp import ContactLink, Identity, Incoming, Node, NodeConfig

AT_A_TIME = 16
CONFIG = NodeConfig(
    private_addresses=True,
    connections_max=100_000,
    connections_per_ip_max=100_000,
    accepts_per_s=1e6,
    accepts_per_ip_per_s=1e6,
    strangers_share=1.0,
    idle_timeout_s=3600.0,
    idle_timeout_max_s=3600.0,
)


def raise_files_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def pss_kib() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def serve() -> None:
    node = Node(Identity.generate(os.urandom), listen="127.0.0.1:0", config=CONFIG)

    @node.handler("echo")
    async def echo(query: Incoming) -> bytes:
        return query.body

    async with node:
        print(node.link, flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while what := (await reader.readline()).strip():
            if what == b"memory":
                gc.collect()
                print(pss_kib(), flush=True)
            else:
                print(time.process_time(), flush=True)


def ask(server: subprocess.Popen[str], what: str) -> float:
    """The server's ``memory`` in KiB, or its ``seconds`` of processor time so far."""
    assert server.stdin is not None
    assert server.stdout is not None
    print(what, file=server.stdin, flush=True)
    return float(server.stdout.readline())


async def hold(server: subprocess.Popen[str], count: int, seconds: float) -> None:
    assert server.stdout is not None
    contact = ContactLink.parse((await asyncio.to_thread(server.stdout.readline)).strip())
    nodes = [Node(Identity.generate(os.urandom), config=CONFIG) for _ in range(count)]
    places = asyncio.Semaphore(AT_A_TIME)

    async def connect(node: Node) -> None:
        async with places:
            await node.start()
            node.add_contact(contact)
            assert await node.query(contact.peer_id, "echo", b"x") == b"x"

    await connect(nodes[0])
    before_kib = await asyncio.to_thread(ask, server, "memory")
    await asyncio.gather(*map(connect, nodes[1:]))
    await asyncio.sleep(5)  # for what is cleaned up now and then
    after_kib = await asyncio.to_thread(ask, server, "memory")
    before_s = await asyncio.to_thread(ask, server, "seconds")
    await asyncio.sleep(seconds)
    after_s = await asyncio.to_thread(ask, server, "seconds")
    print(f"{count} connections held")
    print(f"  {(after_kib - before_kib) / (count - 1):.1f} KiB each (PSS of the server)")
    print(f"  {100 * (after_s - before_s) / seconds:.2f} % of a core while nothing happens")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a held idle connection costs.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    raise_files_limit()
    if arguments.serve:
        uvloop.run(serve())
        return
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(  # noqa: S603 - this very file
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            uvloop.run(hold(server, arguments.count, arguments.seconds))
        finally:
            server.kill()


if __name__ == "__main__":
    main()

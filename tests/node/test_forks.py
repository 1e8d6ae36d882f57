"""A node whose process is forked: it stays where it is, and the child is told so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, os, sys, warnings
from egtp import Identity, Node, NodeConfig, WrongLoop

warnings.simplefilter("ignore")  # From 3.12 on, of forking a process with threads.

async def main():
    here = NodeConfig(private_addresses=True)
    greeter = Node(Identity.generate(os.urandom), listen="127.0.0.1:0", config=here)
    asker = Node(Identity.generate(os.urandom), config=here)
    async with greeter, asker:
        bodies = []

        @greeter.handler("greet")
        async def greet(query):
            bodies.append(query.body)

        peer_id = asker.add_contact(greeter.link)
        await asker.query(peer_id, "greet", b"before")
        child = os.fork()
        if child == 0:
            status = 0
            try:
                for call in CALLS:
                    try:
                        call(asker, peer_id)
                    except WrongLoop as error:
                        status += "forked" in str(error)
            finally:
                os._exit(status)
        _, waited = await asyncio.to_thread(os.waitpid, child, 0)
        await asker.query(peer_id, "greet", b"after")
        assert bodies == [b"before", b"after"]
        assert not greeter.counters and not asker.counters
        return os.waitstatus_to_exitcode(waited)

CALLS = [
    lambda node, peer_id: asyncio.run(node.query(peer_id, "greet", b"of the child")),
    lambda node, peer_id: asyncio.run(node.close()),
    lambda node, peer_id: node.open_query(peer_id, "greet", b"of the child"),
]
assert asyncio.run(main()) == len(CALLS)
print("told")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_r15_a_child_forked_by_a_coroutine_is_told_so_and_disturbs_nothing() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("told\n", "")

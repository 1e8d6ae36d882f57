"""docs/protocol.md is enough: a client written from it, which has nothing of ours, is answered."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from egtp import HandlerFailed, Identity, Incoming, Node, NodeConfig

CLIENT = Path(__file__).parents[2] / "examples" / "without_egtp.py"


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    identity = Identity.generate(os.urandom)
    config = NodeConfig(private_addresses=True)
    async with Node(identity, listen="127.0.0.1:0", config=config) as node:

        @node.handler("echo")
        async def echo(query: Incoming) -> bytes:
            return query.body

        @node.handler("fail")
        async def fail(query: Incoming) -> bytes:
            raise HandlerFailed(77)

        yield node


async def ask(link: str, *arguments: str, body: bytes = b"") -> tuple[int, bytes, bytes]:
    """Its exit status, and what it has written."""
    # Nothing of this folder is on its path: -P leaves out that of the script, -I the current one.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-W", "error", str(CLIENT), link, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, errors = await process.communicate(body)
    assert process.returncode is not None
    return process.returncode, out, errors


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 1_000_000])
async def test_it_is_answered_whatever_the_size(node: Node, size: int) -> None:
    body = os.urandom(size)
    assert await ask(str(node.link), "echo", "-", body=body) == (0, body, b"")
    assert not node.counters


async def test_it_is_told_a_code(node: Node) -> None:
    for kind, code in (("fail", 77), ("no-such-kind", 1)):
        said = f"the peer answered with code {code}\n"
        assert await ask(str(node.link), kind) == (1, b"", said.encode())


async def test_it_takes_no_record_of_somebody_else(node: Node) -> None:
    _, _, record = str(node.link).partition(".")
    status, _, errors = await ask(f"egtp:{Identity.generate(os.urandom).node_id}.{record}")
    assert (status, b"the record is of another peer" in errors) == (1, True)


async def test_it_says_what_it_cannot_do() -> None:
    hidden = Identity.generate(os.urandom)
    async with Node(hidden) as node:
        link = str(node.link)
    for told, reason in ((link.partition(".")[0], b"looks nobody up"), (link, b"no TCP address")):
        status, _, errors = await ask(told)
        assert (status, reason in errors, b"Traceback" in errors) == (1, True, False)


def test_it_has_nothing_of_ours() -> None:
    imported = [line for line in CLIENT.read_text().splitlines() if "import" in line]
    assert imported
    assert not [line for line in imported if "egtp" in line]

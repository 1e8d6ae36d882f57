"""What a peer answers does nothing to the terminal of whoever asks it, but show."""

from __future__ import annotations

import asyncio
import os
import pty
import sys

from egtp import HandlerFailed, Identity, Incoming, Node, NodeConfig
from lookup_dht import DHTLookup
from tests.programs.at_hand import HANGS_S, ROOT

NAUGHTY = "two\nlines\t\x1b]0;title\x07 \x9b31m red \u202e bidi é"
SHOWN = "two\nlines\t\\x1b]0;title\\x07 \\x9b31m red \\u202e bidi é"
IN_A_LINE = SHOWN.replace("\n", "\\n").replace("\t", "\\t")


async def ask(node: Node, bootstrap: str, kind: str, *, in_terminal: bool) -> tuple[bytes, bytes]:
    """What the program writes to stdout and stderr."""
    ours, theirs = pty.openpty()
    arguments = ("-m", "egtp", "ask", str(node.node_id), kind, "", "--bootstrap", bootstrap)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT,
        stdout=theirs if in_terminal else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(HANGS_S):
        written, errors = await process.communicate()
    if in_terminal and not process.returncode:
        written = os.read(ours, 1000)
    for end in (ours, theirs):
        os.close(end)
    return written or b"", errors


async def test_control_characters_of_a_peer_reach_programs_but_no_terminal() -> None:
    async with DHTLookup("127.0.0.1:0", private_addresses=True) as seed:
        config = NodeConfig(private_addresses=True)
        node = Node(Identity.generate(os.urandom), listen="127.0.0.1:0", lookup=seed, config=config)

        @node.handler("draw")
        async def draw(_: Incoming) -> bytes:
            return NAUGHTY.encode()

        @node.handler("refuse")
        async def refuse(_: Incoming) -> bytes:
            raise HandlerFailed(77, NAUGHTY.encode())

        async with node:
            await node.published()
            address = str(seed.address)
            written, _ = await ask(node, address, "draw", in_terminal=False)
            assert written == NAUGHTY.encode()
            written, _ = await ask(node, address, "draw", in_terminal=True)
            assert written.replace(b"\r\n", b"\n") == SHOWN.encode() + b"\n"
            _, errors = await ask(node, address, "refuse", in_terminal=False)
            (line,) = errors.decode().splitlines()
            assert line.endswith(f": {IN_A_LINE}")

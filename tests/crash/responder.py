"""Responders for the crash test: ``responder.py FOLDER``.

Starts a new one for each line on its standard input, and prints its process id. A child of a
process that has imported everything already is there within a few milliseconds. Each is the same
peer, and writes down what it was asked before it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from egtp import EgtpError, IdentityFile, Incoming, Node, NodeConfig
from egtp.values.comm_record import SignedCommRecord


async def respond(folder: Path) -> None:
    executed = os.open(folder / "executed", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    node = Node(
        IdentityFile.open(folder / "responder.pem"),
        listen="127.0.0.1:0",
        config=NodeConfig(private_addresses=True),
    )

    async def execute(query: Incoming) -> bytes:
        mark, milliseconds, size = query.body.split(b" ")[:3]
        os.write(executed, mark + b"\n")
        if int(milliseconds):
            await asyncio.sleep(int(milliseconds) / 1000)
        return mark + bytes(int(size))

    node.handle("execute", execute)
    await node.start()
    fresh = folder / "record.new"
    fresh.write_bytes(node.record.encode())
    fresh.replace(folder / "record")
    asker = SignedCommRecord.decode((folder / "asker").read_bytes())
    node.add_contact(asker)
    with contextlib.suppress(EgtpError):
        # Whoever waits for an answer hears that there is somebody again.
        await node.query(asker.peer_id, "here")
    await asyncio.Event().wait()


def main() -> None:
    folder = Path(sys.argv[1])
    # Nobody waits for children that were killed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(respond(folder))
            finally:
                os._exit(1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

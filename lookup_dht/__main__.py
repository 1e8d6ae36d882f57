"""``python -m lookup_dht``: a DHT node for others to join through."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from egtp.comm_strat import Address
from egtp.errors import EgtpError, InvalidConfig
from egtp.program_loop import program_loop
from lookup_dht.service import DHTLookup
from lookup_dht.state_file import CorruptState, NodeState, read_state, set_aside, write_state

STATE_INTERVAL_S = 60.0
USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 after a signal, 2 for what the user has to mend."""
    try:
        options = _parser().parse_args(arguments)
        with asyncio.Runner(loop_factory=program_loop()) as runner:
            runner.run(_serve(options))
    except EgtpError as error:
        _complain(str(error))
        return USAGE_ERROR
    except KeyboardInterrupt:  # before the loop could take the signal
        return 0
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(USAGE_ERROR, f"lookup_dht: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m lookup_dht",
        description="Run a node of the EGTP lookup DHT, for others to join through. "
        "It stops on ctrl-C or SIGTERM.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--listen",
        metavar="IP:PORT",
        default="0.0.0.0:9100",
        help="UDP address to listen on (default %(default)s); a loopback address implies "
        "--private-addresses",
    )
    parser.add_argument(
        "--bootstrap",
        metavar="IP:PORT",
        action="append",
        default=[],
        help="a node to join through; may be given several times; without one, others join us",
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        type=Path,
        help="keep the node id, contacts and records in FILE; without it each start is a new node",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        default="main",
        help="nodes hear those of the same network only (default %(default)s)",
    )
    parser.add_argument(
        "--private-addresses",
        action="store_true",
        help="let loopback and private addresses be nodes: for a lab or a local network",
    )
    return parser


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    main_task = asyncio.current_task()
    assert main_task is not None  # noqa: S101  (a coroutine that runs has a task)
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            main_task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await _run_node(options)


async def _run_node(options: argparse.Namespace) -> None:
    loopback = ipaddress.ip_address(Address.parse(options.listen).ip).is_loopback
    lookup = DHTLookup(
        options.listen,
        options.bootstrap,
        network=options.network,
        private_addresses=options.private_addresses or loopback,
        state=None if options.state is None else _read_state(options.state),
    )
    async with lookup:
        if options.state is not None:
            # Before the id is told to anybody, and to find out now whether it can be written.
            write_state(options.state, lookup.state)
        # In one write, so that who waits for the first line has the second.
        print(f"listening on {lookup.address}\nnode id {lookup.node_id.hex()}", flush=True)
        if options.state is None:
            await asyncio.get_running_loop().create_future()
        else:
            await _keep_state(options.state, lookup)


def _read_state(path: Path) -> NodeState | None:
    try:
        return read_state(path)
    except CorruptState as error:
        aside = set_aside(path)
        _complain(f"{path} is corrupt ({error}); kept as {aside}, starting as a new node")
        return None


async def _keep_state(path: Path, lookup: DHTLookup) -> None:
    """Write the state now and then, and when this is cancelled, last."""
    writing = None
    try:
        while True:
            await asyncio.sleep(STATE_INTERVAL_S)
            writing = asyncio.ensure_future(_write_state_aside(path, lookup.state))
            await asyncio.shield(writing)
    finally:
        if writing is not None:
            await asyncio.wait([writing])  # or the older state would replace the last one
        write_state(path, lookup.state)


async def _write_state_aside(path: Path, state: NodeState) -> None:
    """In another thread, which sees nothing but the immutable ``state``: fsync may take long."""
    try:
        await asyncio.to_thread(write_state, path, state)
    except InvalidConfig as error:
        _complain(f"{error}; trying again in {STATE_INTERVAL_S:.0f} s")


def _complain(text: str) -> None:
    print(f"lookup_dht: {' '.join(text.split())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

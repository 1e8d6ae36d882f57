"""``python -m lookup_dht``: a DHT node for others to join through.

``python -m lookup_dht stats IP:PORT`` asks one that runs on this machine how it is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from egtp.errors import EgtpError, InvalidConfig
from egtp.program_loop import interval_s, program_loop
from egtp.values.comm_strat import Address
from lookup_dht.kept_state import KeptState
from lookup_dht.service import DHTLookup
from lookup_dht.statistics import STATISTICS_BYTES_MAX, overview
from lookup_dht.wire.datagram import HEADER_BYTES, MESSAGE_ID_BYTES, STATISTICS_QUERY_TYPE

USAGE_ERROR = 2
ANSWER_TIMEOUT_S = 3.0
"""How long a node of this machine may take to say how it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 after a signal, 2 for what the user has to mend."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["stats"]:
            print(overview(_ask_statistics(arguments[1:])))
            return 0
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
        "It stops on ctrl-C or SIGTERM, and says how it is on SIGUSR1, on stderr, and when "
        "'python -m lookup_dht stats IP:PORT' asks it on the same machine.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--listen",
        metavar="IP:PORT",
        action="append",
        help="UDP address to listen on (default 0.0.0.0:9100); a loopback address implies "
        "--private-addresses; may be given once for IPv4 and once for IPv6, which are two networks",
    )
    parser.add_argument(
        "--bootstrap",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="a node to join through, by address or name; may be given several times; without "
        "one, others join us",
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        type=Path,
        help="keep the node id and contacts in FILE and records in FILE.records, for IPv6 in "
        "FILE.v6 and FILE.v6.records; without it each start is a new node",
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
    parser.add_argument(
        "--stats-every",
        metavar="SECONDS",
        type=interval_s,
        help="print statistics, a line of JSON for each node, so often",
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
        await _run_nodes(options)


async def _run_nodes(options: argparse.Namespace) -> None:
    """One for each address. The first that cannot run ends all."""
    listen = [Address.parse(text) for text in options.listen or ["0.0.0.0:9100"]]
    if len({len(address.ip) for address in listen}) < len(listen):
        raise InvalidConfig("listen on one IPv4 and one IPv6 address at most")
    nodes = [_Node(address, options, alone=len(listen) == 1) for address in listen]

    def tell() -> None:
        for node in nodes:
            node.tell(sys.stderr)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
    async with contextlib.AsyncExitStack() as running:
        for node in nodes:
            await running.enter_async_context(node.lookup)
            if node.kept is not None:
                await running.enter_async_context(node.kept.of(node.lookup))
            node.began()
        await asyncio.gather(*(node.go_on(options.stats_every) for node in nodes))


class _Node:
    """A node with its files."""

    def __init__(self, listen: Address, options: argparse.Namespace, *, alone: bool) -> None:
        """With ``alone``, a bootstrap address of the other family is a mistake."""
        path = _path_of(options.state, listen)
        self.kept = None if path is None else KeptState(path, _complain)
        loopback = ipaddress.ip_address(listen.ip).is_loopback
        self.lookup = DHTLookup(
            str(listen),
            [it for it in options.bootstrap if alone or _of_family(it, listen)],
            network=options.network,
            private_addresses=options.private_addresses or loopback,
            state=None if self.kept is None else self.kept.read(),
            store=None if self.kept is None else self.kept.records,
        )

    def began(self) -> None:
        # In one write, so that who waits for the first line has the second.
        print(
            f"listening on {self.lookup.address}\nnode id {self.lookup.node_id.hex()}", flush=True
        )

    async def go_on(self, stats_every_s: float | None) -> None:
        async with asyncio.TaskGroup() as group:
            if stats_every_s is not None:
                group.create_task(self._tell_regularly(stats_every_s))
            await asyncio.get_running_loop().create_future()

    def tell(self, file: Any) -> None:
        print(json.dumps(self.lookup.statistics()), file=file, flush=True)

    async def _tell_regularly(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self.tell(sys.stdout)


def _path_of(path: Path | None, listen: Address) -> Path | None:
    if path is None or len(listen.ip) == 4:
        return path
    return path.with_name(f"{path.name}.v6")


def _of_family(seed: str, listen: Address) -> bool:
    """Names are of both; what is neither is complained about by who uses it."""
    try:
        return len(Address.parse(seed).ip) == len(listen.ip)
    except InvalidConfig:
        return True


def _ask_statistics(arguments: Sequence[str]) -> dict[str, Any]:
    """Of a node on this machine. Raises :class:`InvalidConfig` if it does not say."""
    if len(arguments) != 1:
        raise InvalidConfig("stats needs the IP:PORT that a node on this machine listens on")
    address = Address.parse(arguments[0])
    family = socket.AF_INET if len(address.ip) == 4 else socket.AF_INET6
    host = address.host
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
    message_id = os.urandom(MESSAGE_ID_BYTES)
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        asker.settimeout(ANSWER_TIMEOUT_S)
        try:
            asker.connect((host, address.port))
            asker.send(bytes((STATISTICS_QUERY_TYPE,)) + message_id + b"\0")
            data = asker.recv(HEADER_BYTES + STATISTICS_BYTES_MAX)
            statistics = json.loads(data[HEADER_BYTES:])
        except (OSError, ValueError) as error:
            raise InvalidConfig(
                f"no node at {address} says how it is ({error}); it answers loopback only"
            ) from None
    return dict(statistics)


def _complain(text: str) -> None:
    print(f"lookup_dht: {' '.join(text.split())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

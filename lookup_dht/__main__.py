"""``python -m lookup_dht``: a DHT node for others to join through.

``python -m lookup_dht stats IP:PORT`` shows the statistics of a node that runs on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from egtp.errors import InvalidConfig, NodeClosed, in_words
from egtp.metrics import Part, of_dht
from egtp.metrics_server import serving_metrics
from egtp.option_types import OptionParser, add_metrics_option, interval_s, path
from egtp.program import complain, getaddrinfo, on_question, run_program, say
from egtp.values.comm_strat import Address
from lookup_dht.kept_state import KeptState
from lookup_dht.names import system_names
from lookup_dht.service import DHTLookup
from lookup_dht.statistics import STATISTICS_BYTES_MAX, overview
from lookup_dht.wire.datagram import HEADER_BYTES, MESSAGE_ID_BYTES, STATISTICS_QUERY_TYPE

DAY_S = 86_400.0
_complain = partial(complain, "lookup_dht")
ANSWER_TIMEOUT_S = 3.0
"""How long a node on this machine may take to send its statistics."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` and return the exit status; see
    :func:`egtp.program.run_program`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["stats"]:
        address = _stats_parser().parse_args(arguments[1:]).address
        return run_program("lookup_dht", lambda: _tell_statistics(address), serves=False)
    options = _parser().parse_args(arguments)
    return run_program("lookup_dht", lambda: _run_nodes(options), serves=True)


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="python -m lookup_dht",
        description="Run a node of the EGTP lookup DHT for others to join through. It stops on "
        "ctrl-C, SIGTERM or SIGHUP. It prints its statistics to stderr on SIGUSR1, and gives them "
        "to 'python -m lookup_dht stats IP:PORT' on the same machine.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--listen",
        metavar="IP:PORT",
        action="append",
        help="UDP address to listen on (default: 0.0.0.0:9100); a loopback address implies "
        "--private-addresses; may be given once for IPv4 and once for IPv6, which are two networks",
    )
    parser.add_argument(
        "--bootstrap",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="a node to join through, by address or host name; may be given several times; without "
        "it, others join through this node",
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        type=path,
        help="keep the node id and contacts in FILE and the records in FILE.records (for IPv6: "
        "FILE.v6 and FILE.v6.records); without it, each start is a new node",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        default="main",
        help="nodes of other networks are ignored (default: %(default)s)",
    )
    parser.add_argument(
        "--private-addresses",
        action="store_true",
        help="allow nodes at loopback and private addresses: for a lab or a local network",
    )
    parser.add_argument(
        "--stats-every",
        metavar="SECONDS",
        type=interval_s,
        help="how often to print statistics, as a line of JSON per node (default: never)",
    )
    add_metrics_option(parser)
    return parser


def _stats_parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="python -m lookup_dht stats",
        description="Show the statistics of a DHT node that runs on this machine.",
        allow_abbrev=False,
    )
    parser.add_argument("address", metavar="IP:PORT", help="the address that the node listens on")
    return parser


async def _run_nodes(options: argparse.Namespace) -> None:
    """Run one node per address. If one cannot run, all of them stop."""
    listen = [Address.parse(text) for text in options.listen or ["0.0.0.0:9100"]]
    if len({len(address.ip) for address in listen}) < len(listen):
        raise InvalidConfig("--listen can be given at most once for IPv4 and once for IPv6")
    nodes = [_Node(address, options, alone=len(listen) == 1) for address in listen]

    def tell() -> None:
        for node in nodes:
            with contextlib.suppress(NodeClosed):  # Not running yet, or no longer.
                node.tell(sys.stderr)

    def parts() -> Iterator[Part]:
        for node in nodes:
            with contextlib.suppress(NodeClosed):
                yield of_dht(node.lookup.statistics(rates=False))

    on_question(tell)
    async with contextlib.AsyncExitStack() as running:
        metrics = serving_metrics(options.metrics, parts)
        more_lines = await running.enter_async_context(metrics)
        for node in nodes:
            await running.enter_async_context(node.lookup)
            if node.kept is not None:
                await running.enter_async_context(node.kept.of(node.lookup))
            node.began()
        for text in more_lines:
            say(text, sys.stdout)
        await asyncio.gather(*(node.go_on(options.stats_every) for node in nodes))


class _Node:
    """A node and its files."""

    def __init__(self, listen: Address, options: argparse.Namespace, *, alone: bool) -> None:
        """If ``alone``, a bootstrap address of the other family is an error."""
        path = _path_of(options.state, listen)
        self.kept = None if path is None else KeptState(path, _complain)
        loopback = ipaddress.ip_address(listen.ip).is_loopback
        seeds = [it for it in options.bootstrap if alone or _of_family(it, listen)]
        self._joins = bool(seeds)
        self.lookup = DHTLookup(
            str(listen),
            seeds,
            network=options.network,
            private_addresses=options.private_addresses or loopback,
            resolve_name=system_names(listen, _complain, getaddrinfo),
            state=None if self.kept is None else self.kept.read(),
            store=None if self.kept is None else self.kept.records,
        )

    def began(self) -> None:
        # In one write, so that a reader who waits for the first line also gets the second.
        say(f"listening on {self.lookup.address}\nnode id {self.lookup.node_id.hex()}", sys.stdout)
        if self._joins and not self.lookup.contacts:
            _complain("no DHT node has answered yet; still trying")

    async def go_on(self, stats_every_s: float | None) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(stats_every_s or DAY_S)
            if stats_every_s is not None:
                self.tell(sys.stdout)

    def tell(self, file: Any) -> None:
        say(json.dumps(self.lookup.statistics()), file)


def _path_of(path: Path | None, listen: Address) -> Path | None:
    if path is None or len(listen.ip) == 4:
        return path
    return path.with_name(f"{path.name}.v6")


def _of_family(seed: str, listen: Address) -> bool:
    """Whether the seed may be used at ``listen``. A name fits both families, and malformed text
    passes too: :class:`DHTLookup` reports it."""
    try:
        return len(Address.parse(seed).ip) == len(listen.ip)
    except InvalidConfig:
        return True


async def _tell_statistics(text: str) -> None:
    print(overview(_ask_statistics(Address.parse(text))))


def _ask_statistics(address: Address) -> dict[str, Any]:
    """Ask a node on this machine for its statistics. Raises :class:`InvalidConfig` if it sends
    none."""
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
                f"no node at {address} gives its statistics ({in_words(error)}); "
                "it answers loopback only"
            ) from None
    return dict(statistics)


if __name__ == "__main__":
    sys.exit(main())

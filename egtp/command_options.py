"""The options of ``python -m egtp``."""

from __future__ import annotations

import argparse
from typing import Any

from egtp import NodeConfig, RelayLimits, __version__
from egtp.option_types import (
    OptionParser,
    add_metrics_option,
    bytes_per_s,
    duration_s,
    interval_s,
    named,
    path,
)

__all__ = ["command_parser", "given_settings", "parse"]

SETTINGS = {
    "connections": ["connections_max"],
    "connections_per_ip": ["connections_per_ip_max"],
    "rate": ["send_bytes_per_s", "receive_bytes_per_s"],
    "peer_rate": ["peer_send_bytes_per_s", "peer_receive_bytes_per_s"],
    "busy_poll": ["busy_poll_s"],
}
"""Which settings of a node the options of a server stand for."""


def command_parser() -> argparse.ArgumentParser:
    """The parser of all commands. ``command`` is the name of the one that was given."""
    parser = OptionParser(
        prog="python -m egtp",
        description="Run a peer or a relay server, or send one query.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"egtp {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    relay = _command(commands, "relay", "run a relay server, for peers that nobody can connect to")
    _add_node_options(relay, listen="0.0.0.0:4000")
    _add_server_options(relay)
    relay.add_argument(
        "--leases",
        metavar="N",
        type=int,
        default=RelayLimits().leases_max,
        help="how many peers can be reached through it at a time (default: %(default)s)",
    )
    relay.add_argument(
        "--admit",
        metavar="FILE",
        type=path,
        help="text file with the peers that may connect, one peerId or contact link a line, which "
        "may be edited meanwhile (default: everybody)",
    )

    echo = _command(commands, "echo", 'run a peer that answers "echo" queries with their body')
    _add_node_options(echo, listen=None)
    _add_server_options(echo)
    echo.add_argument(
        "--relays",
        metavar="FILE",
        type=path,
        help="TOML file that lists the relay servers to be reached through",
    )

    renew = _command(
        commands, "renew-key", "give a peer a new channel key, in use from its next start"
    )
    renew.add_argument(
        "--identity", metavar="FILE", type=path, help="the file of the peer's private keys"
    )
    renew.add_argument(
        "--state", metavar="DIR", type=path, help="the folder that holds them, as identity.pem"
    )
    _add_passphrase_option(renew)

    ask = _command(commands, "ask", "send one query and write the reply to stdout")
    _add_node_options(ask, listen=None)
    ask.add_argument("peer", metavar="PEER", help="a peerId or a contact link (egtp:...)")
    ask.add_argument("kind", metavar="KIND", nargs="?", help="default: echo")
    ask.add_argument(
        "body", metavar="BODY", nargs="?", help="default: empty; - reads it from stdin"
    )
    ask.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=30.0, help="default: %(default)s"
    )
    return parser


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of one command. KIND and BODY may stand behind other options as well, where
    argparse takes no argument that may be left out."""
    parser = command_parser()
    options, left = parser.parse_known_args(arguments)
    if options.command == "ask":
        for name, default in (("kind", "echo"), ("body", "")):
            if getattr(options, name) is None:
                is_there = left and (left[0] == "-" or not left[0].startswith("-"))
                setattr(options, name, left.pop(0) if is_there else default)
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def _command(
    commands: argparse._SubParsersAction[OptionParser], name: str, summary: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.set_defaults(command=name, serves=False)
    return parser


def _add_node_options(parser: argparse.ArgumentParser, *, listen: str | None) -> None:
    parser.add_argument(
        "--listen",
        metavar="IP:PORT",
        action="append",
        help="TCP address to accept connections on; may be given several times "
        f"(default: {listen or 'none'})",
    )
    parser.set_defaults(listen_by_default=[] if listen is None else [listen])
    parser.add_argument(
        "--announce",
        metavar="IP:PORT",
        action="append",
        help="address to publish, instead of those that the node finds out by itself; may be given "
        "several times",
    )
    parser.add_argument(
        "--bootstrap",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="a DHT node to join through; may be given several times, for IPv4 and for IPv6, which "
        "are two networks; not needed once --state knows DHT nodes",
    )
    parser.add_argument(
        "--dht-listen",
        metavar="IP:PORT",
        action="append",
        default=[],
        type=named,
        help="UDP address of this node's own DHT node, which then serves others too; may be given "
        "once for IPv4 and once for IPv6",
    )
    parser.add_argument(
        "--identity",
        metavar="FILE",
        type=path,
        help="file of the private keys, created if it does not exist (default: the one in --state, "
        "or new keys at each start)",
    )
    _add_passphrase_option(parser)
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=path,
        help="folder for what must survive a restart: private keys, DHT contacts and records, and "
        "the highest sequence seen of each peer's record; created if it does not exist",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        default="main",
        help="nodes of different networks cannot talk to each other (default: %(default)s)",
    )
    parser.add_argument(
        "--private-addresses",
        action="store_true",
        help="dial loopback and private addresses too: for a lab or a local network "
        "(implied by a loopback --listen or --bootstrap)",
    )


def _add_passphrase_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=path,
        help="the first line of FILE is the passphrase that encrypts the private keys on disk",
    )


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(serves=True)
    parser.add_argument(
        "--connections",
        metavar="N",
        type=int,
        help=f"how many connections at a time (default: {NodeConfig().connections_max}, or as many "
        "as the limit of open files allows)",
    )
    parser.add_argument(
        "--connections-per-ip",
        metavar="N",
        type=int,
        help="how many of these from one IPv4 address or IPv6 /64: more if a large fleet is behind "
        f"one NAT (default: {NodeConfig().connections_per_ip_max})",
    )
    parser.add_argument(
        "--drain",
        metavar="SECONDS",
        type=duration_s,
        default=5.0,
        help="how long to finish what is under way when stopped, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        metavar="BYTES",
        type=bytes_per_s,
        help="bytes per second that all peers together may send and receive (default: no limit)",
    )
    parser.add_argument(
        "--peer-rate",
        metavar="BYTES",
        type=bytes_per_s,
        help="the same for each connection of a peer, so that none takes all (default: no limit)",
    )
    parser.add_argument(
        "--busy-poll",
        metavar="SECONDS",
        type=duration_s,
        help="how long to poll before sleeping, while peers answer each other within this time: "
        "0.0005 makes queries faster and keeps a core busy (default: never)",
    )
    parser.add_argument(
        "--stats-every",
        metavar="SECONDS",
        type=interval_s,
        help="how often to print statistics, as a line of JSON (default: never)",
    )
    add_metrics_option(parser)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a node that were given as options."""
    given = vars(options)
    return {
        name: given[option]
        for option, names in SETTINGS.items()
        if given.get(option) is not None
        for name in names
    }

"""``python -m egtp``: a peer, a relay server, or one query, from a shell.

The one place that composes everything: a node, the DHT and the file of relays.
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
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from discovery import DiscoveryMan
from egtp import (
    Address,
    AdmissionFile,
    ContactLink,
    EgtpError,
    FastFail,
    HandlerFailed,
    HardTimeout,
    Identity,
    IdentityFile,
    Incoming,
    InvalidConfig,
    LookupRace,
    LookupService,
    Node,
    NodeClosed,
    NodeConfig,
    NodeId,
    OutcomeUnknown,
    RelayLimits,
)
from egtp.admission import Admit
from egtp.command_options import given_settings, parse
from egtp.environment import local_addresses, open_files_max
from egtp.events import (
    Event,
    IdentityRunsElsewhere,
    LeaseNotGranted,
    Observer,
    RecordNotPublished,
    RecordPublished,
)
from egtp.first_line import first_line
from egtp.metrics import Part, of_dht
from egtp.metrics_server import serving_metrics
from egtp.program import complain, getaddrinfo, on_question, on_stop, run_program, say
from lookup_dht import DHTLookup, KeptState, NodeState, system_names

__all__ = ["main"]

STDIN = "-"
KEYS = "identity.pem"
"""The name of the key file in the folder of a peer."""
V4, V6 = 4, 16
"""The versions of IP, by the length of their addresses in bytes. To the DHT they are two networks,
and a program can be in both."""
DHT_NAMES = {V4: "dht", V6: "dht_v6"}
"""The names of their nodes in statistics."""
DHT_FILES = {V4: "dht", V6: "dht.v6"}
"""The names of their files in the folder of a peer."""
ANY_PORT = {V4: "0.0.0.0:0", V6: "[::]:0"}
CONNECTIONS_FEW = 500
"""A limit below this is reported even if the user did not ask for more."""
_complain = partial(complain, "egtp")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line ``arguments`` and return the exit status; see
    :func:`egtp.program.run_program`."""
    options = parse(arguments)
    commands: dict[str, Callable[[argparse.Namespace], Coroutine[Any, Any, object]]] = {
        "relay": _serve_relay, "echo": _serve_echo, "renew-key": _renew_key, "ask": _ask,
    }  # fmt: skip
    run = commands[options.command]
    return run_program("egtp", lambda: run(options), serves=options.serves)


@asynccontextmanager
async def _node(
    options: argparse.Namespace,
    *,
    relay_server: RelayLimits | bool = False,
    relays: Path | None = None,
    observer: Observer | None = None,
    admit: Admit | None = None,
) -> AsyncIterator[tuple[Node, dict[int, DHTLookup]]]:
    """A running node on top of DHT nodes, one for each IP version, as the options say."""
    listen = [Address.parse(text) for text in options.listen or options.listen_by_default]
    seeds = [found for text in options.bootstrap if (found := _literal_address(text)) is not None]
    private = options.private_addresses or any(map(_is_loopback, (*listen, *seeds)))
    config = NodeConfig(
        network=options.network, private_addresses=private, **given_settings(options)
    )
    async with contextlib.AsyncExitStack() as stack:
        # Before there are keys in the folder, which mark it as ours.
        kept = {} if options.state is None else _kept_states(_ensure_folder(options.state))
        states = _read(kept)
        identity = await _identity(options, stack)
        known = {len(it.packed) for one in states.values() for it in one.contacts}
        dht_listen = _dht_listen(options, listen, seeds, known)
        discovery = None
        if relays is not None:
            discovery = DiscoveryMan(relays, on_error=_complain)
            await stack.enter_async_context(discovery)
        dht = {
            version: DHTLookup(
                address,
                [text for text in options.bootstrap if _may_be_of(version, text)],
                network=options.network,
                server=address in options.dht_listen,
                private_addresses=private,
                resolve_name=system_names(Address.parse(address), _complain, getaddrinfo),
                state=states.get(version),
                store=None if not kept else kept[version].records,
            )
            for version, address in dht_listen.items()
        }
        # Made before joining, which may take long, so that mistakes in its options show at once.
        node = Node(
            identity,
            listen=[str(address) for address in listen],
            announce=options.announce,
            lookup=_one_of(dht),
            discovery=discovery,
            relay_server=relay_server,
            config=config,
            observer=observer,
            admit=admit,
        )
        await _join(dht.values(), stack)
        for version in dht if kept else ():
            await stack.enter_async_context(kept[version].of(dht[version]))
        if options.bootstrap and not any(one.contacts for one in dht.values()):
            goes_on = " yet; still trying" if options.serves else ""
            _complain(f"no DHT node has answered{goes_on}")
        yield await stack.enter_async_context(node), dht


async def _identity(
    options: argparse.Namespace, stack: contextlib.AsyncExitStack
) -> Identity | IdentityFile:
    keys = _key_file(options)
    if keys is None and options.passphrase_file:
        raise InvalidConfig("--passphrase-file needs --identity or --state")
    if keys is None:
        return Identity.generate(os.urandom)
    passphrase = await _passphrase(options.passphrase_file)
    return stack.enter_context(IdentityFile.open(keys, passphrase=passphrase))


async def _join(dht: Collection[DHTLookup], stack: contextlib.AsyncExitStack) -> None:
    """Start DHT nodes, and return once one of them knows others, or nobody has answered any. One
    network is enough to go on: a version of IP that leads nowhere holds nobody up."""
    joining = set()
    for one in dht:
        stack.push_async_callback(one.close)
        joining.add(await one.begin())
    while joining and not any(one.contacts for one in dht):
        ended, joining = await asyncio.wait(joining, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()


def _dht_listen(
    options: argparse.Namespace,
    listen: Collection[Address],
    seeds: Collection[Address],
    known: Collection[int],
) -> dict[int, str]:
    """The UDP addresses of this program's DHT nodes, by IP version: those in whose networks it has
    somebody to join through, or serves others. ``seeds`` are bootstrap nodes that were not given by
    name; of the versions in ``known``, the last run knew DHT nodes. Raises :class:`InvalidConfig`.
    """
    given = {len(Address.parse(text).ip): text for text in options.dht_listen}
    if len(given) < len(options.dht_listen):
        raise InvalidConfig("--dht-listen can be given at most once for IPv4 and once for IPv6")
    versions = {len(seed.ip) for seed in seeds} | set(given)
    if len(seeds) < len(options.bootstrap) and not given:
        versions |= _versions_of_names(listen)
    if not options.bootstrap:
        versions |= set(known)
    if not versions:
        raise InvalidConfig("name a DHT node to join through with --bootstrap HOST:PORT")
    if versions == {V4, V6} and V6 not in given and not _has_ipv6():
        _complain("this machine has no IPv6; the DHT is joined over IPv4 only")
        versions = {V4}
    return {version: given.get(version, ANY_PORT[version]) for version in sorted(versions)}


def _versions_of_names(listen: Collection[Address]) -> set[int]:
    """The IP versions that names are resolved for. A name stands for addresses of both; most have
    one of IPv4, which a machine may lack, for now at least."""
    if {len(it.ip) for it in listen} == {V6}:
        return {V6}
    there = {len(ipaddress.ip_address(text).packed) for text in local_addresses()}
    return {V4, V6} if there == {V6} else {V4}


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as tried:
        tried.bind(("::", 0))
        return True
    return False


def _may_be_of(version: int, seed: str) -> bool:
    """Whether a bootstrap address may be used for an IP version, as names may be for both."""
    address = _literal_address(seed)
    return address is None or len(address.ip) == version


def _one_of(dht: dict[int, DHTLookup]) -> LookupService:
    first, *others = dht.values()
    return LookupRace(first, *others) if others else first


def _is_loopback(address: Address) -> bool:
    return ipaddress.ip_address(address.ip).is_loopback


def _literal_address(text: str) -> Address | None:
    """The address that ``text`` is; None for a name."""
    with contextlib.suppress(EgtpError):
        return Address.parse(text)
    return None


def _kept_states(folder: Path) -> dict[int, KeptState]:
    """What the DHT node of each IP version keeps in a folder. Its file always has the same name, so
    in a folder with other files of ours it is taken for ours, however damaged."""
    records = (f"{name}.records" for name in DHT_FILES.values())
    ours = any(os.access(folder / name, os.F_OK) for name in (KEYS, *records))
    return {
        version: KeptState(folder / name, _complain, ours=ours)
        for version, name in DHT_FILES.items()
    }


def _read(kept: dict[int, KeptState]) -> dict[int, NodeState]:
    """What the last run kept, by IP version. Raises :class:`InvalidConfig`."""
    states = {version: state for version, one in kept.items() if (state := one.read()) is not None}
    if V6 not in states and V4 in states and {len(it.packed) for it in states[V4].contacts} == {V6}:
        # Written when a program had one DHT node, of either version, and one name for its file.
        states = {V6: states[V4]}
    return states


def _key_file(options: argparse.Namespace) -> Path | None:
    keys: Path | None = options.identity
    folder: Path | None = options.state
    return keys if keys is not None or folder is None else folder / KEYS


async def _renew_key(options: argparse.Namespace) -> None:
    keys = _key_file(options)
    if keys is None:
        raise InvalidConfig("name the keys with --identity FILE or --state DIR")
    passphrase = await _passphrase(options.passphrase_file)
    node_id = IdentityFile.renew_channel_key(keys, passphrase=passphrase)
    print(f"peer {node_id} has a new channel key, in use from its next start")


async def _serve_relay(options: argparse.Namespace) -> None:
    limits = RelayLimits(leases_max=options.leases)
    async with contextlib.AsyncExitStack() as stack:
        admit, edited = None, asyncio.Event()
        if options.admit is not None:
            admit = AdmissionFile(options.admit, on_change=edited.set, on_error=_complain)
            await stack.enter_async_context(admit)
        node, dht = await stack.enter_async_context(
            _node(options, relay_server=limits, observer=_PublishingInWords(), admit=admit)
        )
        if admit is not None:
            await stack.enter_async_context(_dismissing(node, admit, edited))
        await _serve(
            node,
            dht,
            options,
            f"relay {node.node_id}",
            f"listening on {', '.join(node.listening)}",
            f'contact = "{node.link}"',
        )


@asynccontextmanager
async def _dismissing(node: Node, admit: Admit, edited: asyncio.Event) -> AsyncIterator[None]:
    """Whenever others are admitted than before, disconnect those who are no more."""

    async def dismiss() -> None:
        while True:
            await edited.wait()
            edited.clear()
            with contextlib.suppress(NodeClosed):
                refused = [peer_id for peer_id in node.connected if not admit(peer_id)]
                await asyncio.gather(*map(node.disconnect, refused))

    task = asyncio.get_running_loop().create_task(dismiss())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _serve_echo(options: argparse.Namespace) -> None:
    observer = _PublishingInWords()
    async with _node(options, relays=options.relays, observer=observer) as (node, dht):

        async def echo(query: Incoming) -> bytes:
            return query.body

        node.handle("echo", echo)
        if not options.listen and options.relays is None:
            _complain("others can reach this peer only with --listen IP:PORT or --relays FILE")
        listening = [f"listening on {address}" for address in node.listening]
        await _serve(node, dht, options, f"peer {node.node_id}", *listening)


async def _ask(options: argparse.Namespace) -> bool:
    contact = _contact(options.peer)
    body = sys.stdin.buffer.read() if options.body == STDIN else os.fsencode(options.body)
    # Nobody needs to find the asker; without an observer, a failure to publish would be logged.
    async with _node(options, observer=lambda _: None) as (node, _):
        if contact.record is not None:
            node.add_contact(contact)
        try:
            reply = await node.query(
                contact.peer_id, options.kind, body, hard_timeout_s=options.timeout
            )
            path = next(iter(node.why(contact.peer_id).paths), "a path that is already gone")
            print(f"{len(reply)} bytes, {path}", file=sys.stderr)
        except FastFail as error:
            print(f"egtp: fast fail: {error.summary}", file=sys.stderr)
            for attempt in error.attempts:
                print(f"  {attempt}", file=sys.stderr)
            return True
        except (HardTimeout, OutcomeUnknown) as error:
            print(f"egtp: {error}", file=sys.stderr)
            for attempt in node.why(contact.peer_id).attempts:
                print(f"  {attempt}", file=sys.stderr)
            return True
        except HandlerFailed as error:
            said = _harmless(error.body)
            print(f"egtp: {error}{': ' if said else ''}{said}", file=sys.stderr)
            return True
    # The exact bytes for programs; for people, a line.
    shown = _harmless(reply, "\n\t").encode() + b"\n" if sys.stdout.isatty() else reply
    sys.stdout.buffer.write(shown)
    sys.stdout.flush()
    return False


def _harmless(data: bytes, kept: str = "") -> str:
    """What a peer said, as text that does nothing to a terminal but show. All letters in ``kept``
    stay; other control characters are written as Python does."""
    return "".join(
        letter if letter.isprintable() or letter in kept else ascii(letter)[1:-1]
        for letter in data.decode(errors="replace")
    )


def _contact(text: str) -> ContactLink:
    try:
        return ContactLink.parse(text) if ":" in text else ContactLink(NodeId.parse(text))
    except EgtpError as error:
        raise InvalidConfig(str(error)) from None


async def _serve(
    node: Node, dht: dict[int, DHTLookup], options: argparse.Namespace, *lines: str
) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP; then drain. Whoever reads ``lines`` may send any of
    these at once."""
    stopped = asyncio.Event()

    def tell(file: Any) -> None:
        nodes = {DHT_NAMES[version]: one.statistics() for version, one in dht.items()}
        say(json.dumps(node.statistics() | nodes), file)

    def parts() -> list[Part]:
        return [
            Part("egtp", {}, node.statistics()),
            *(of_dht(one.statistics(rates=False)) for one in dht.values()),
        ]

    on_stop(stopped.set)
    on_question(partial(tell, sys.stderr))
    most = node.statistics()["connections_max"]
    wanted = options.connections or NodeConfig().connections_max
    if most < wanted and (options.connections is not None or most < CONNECTIONS_FEW):
        _complain(
            f"connections_max is {most} instead of {wanted}, since at most "
            f"{open_files_max()} files may be open (ulimit -n, LimitNOFILE)"
        )
    async with serving_metrics(options.metrics, parts) as more_lines:
        say("\n".join((*lines, *more_lines)), sys.stdout)
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(options.stats_every):
                    await stopped.wait()
                    break
            tell(sys.stdout)
        await node.close(drain_s=options.drain)


async def _passphrase(file: Path | None) -> bytes | None:
    """Raises :class:`InvalidConfig`."""
    if file is None:
        return None
    passphrase = await first_line(file)
    if not passphrase:
        raise InvalidConfig(f"there is no passphrase in the first line of {file}")
    return passphrase


class _PublishingInWords:
    """Tells whoever runs the node when and how others can find it, or why they cannot."""

    def __init__(self) -> None:
        self._failed = False

    def __call__(self, event: Event) -> None:
        match event:
            case RecordPublished(record, published):
                self._failed = False
                ways = ", ".join(map(str, record.strategies)) or "no way to reach it"
                nodes = "1 node" if published.stored == 1 else f"{published.stored} nodes"
                with contextlib.suppress(OSError):
                    say(f"record stored by {nodes}: {ways}", sys.stdout)
            case RecordNotPublished(_, reason) if not self._failed:
                self._failed = True
                _complain(f"the record is not stored: {reason}; still trying")
            case IdentityRunsElsewhere() | LeaseNotGranted():
                _complain(event)


def _ensure_folder(folder: Path) -> Path:
    """``folder``, created for this user alone if it does not exist. Raises
    :class:`InvalidConfig`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfig(f"cannot create the folder {folder}: {error.strerror}") from None
    return folder


if __name__ == "__main__":
    sys.exit(main())

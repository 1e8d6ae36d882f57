"""Parses the bootstrap addresses that users give, and finds where to reach them from. Pure."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from egtp.errors import InvalidConfig
from egtp.values.comm_strat import Address
from lookup_dht.wire.contact import LAB_HINT, AddressPolicy, Contact, SocketAddress

__all__ = ["default_listen", "parse_seed"]

_NAME: Final = re.compile(
    r"(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})):(?P<port>[0-9]{1,5})", re.ASCII
)
"""Allows underscores, which no host on the Internet has, but containers do: ``acme_dht_1``."""


LOCALHOST: Final = "localhost"


def default_listen(bootstrap: Iterable[str], contacts: Iterable[Contact]) -> str:
    """Where to listen if nobody says it: where the bootstrap nodes, or else the contacts of an
    earlier run, can be reached from. A socket on loopback reaches nobody else; with nobody to join
    through, it is a good place to be alone."""
    hosts = [_host_of(text) for text in bootstrap]
    hosts = hosts or [contact.ip for contact in contacts]
    away = [host for host in hosts if not _is_loopback(host)]
    if away:
        return "[::]:0" if ":" in away[0] else "0.0.0.0:0"
    return "[::1]:0" if hosts and ":" in hosts[0] else "127.0.0.1:0"


def _host_of(text: str) -> str:
    with contextlib.suppress(InvalidConfig):
        return Address.parse(text).host
    return text.rpartition(":")[0]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOCALHOST


def parse_seed(text: str, listen: Address, *, private_addresses: bool) -> SocketAddress:
    """Host and port of an IP:PORT or NAME:PORT, for a node that listens on ``listen``. Raises
    :class:`InvalidConfig`, which says what to do instead."""
    named = _NAME.fullmatch(text)
    if named is not None and not named["name"].replace(".", "").isdigit():
        if not 1 <= int(named["port"]) <= 65535:
            raise InvalidConfig(f"a bootstrap address needs a port from 1 to 65535, unlike {text}")
        return named["name"], int(named["port"])
    try:
        seed = Address.parse(text)
    except InvalidConfig:
        raise InvalidConfig(
            "a bootstrap address must be HOST:PORT, such as dht1.example.org:9100, 192.0.2.7:9100 "
            f"or [2001:db8::7]:9100, not {text!r}"
        ) from None
    if seed.port == 0:
        raise InvalidConfig(f"a bootstrap address needs a port from 1 to 65535, unlike {seed}")
    if len(seed.ip) != len(listen.ip):
        raise InvalidConfig(
            f"a node that listens on {listen} cannot reach {seed}; "
            "use IPv4 for both, or IPv6 for both"
        )
    if not AddressPolicy(private_addresses=private_addresses).allows(seed.ip):
        hint = "" if private_addresses else LAB_HINT
        raise InvalidConfig(f"{seed} cannot be the address of a node on the Internet{hint}")
    if _is_loopback(listen.host) and not _is_loopback(seed.host):
        everywhere = "0.0.0.0" if len(seed.ip) == 4 else "[::]"  # noqa: S104
        raise InvalidConfig(
            f"a node that listens on {listen} cannot reach {seed}; listen on "
            f"{everywhere}:{listen.port}"
        )
    return seed.host, seed.port

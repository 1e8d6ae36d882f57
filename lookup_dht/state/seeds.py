"""Parses the bootstrap addresses that users give. Pure."""

from __future__ import annotations

import re
from typing import Final

from egtp.errors import InvalidConfig
from egtp.values.comm_strat import Address
from lookup_dht.wire.contact import LAB_HINT, AddressPolicy, SocketAddress

__all__ = ["parse_seed"]

_NAME: Final = re.compile(
    r"(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})):(?P<port>[0-9]{1,5})", re.ASCII
)
"""Allows underscores, which no host on the Internet has, but containers do: ``acme_dht_1``."""


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
        raise InvalidConfig(f"a bootstrap address must be HOST:PORT, not {text!r}") from None
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
    return seed.host, seed.port

"""Checks of what a user passes to a node, before it fails somewhere inside."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from inspect import iscoroutinefunction

from egtp.config import NodeConfig
from egtp.environment import Environment
from egtp.errors import InvalidConfig, LocalProtocolError
from egtp.identity_file import IdentityFile
from egtp.lookup import LookupChain, check_service
from egtp.own.friends import Friends
from egtp.reaching.address_policy import why_not_dial
from egtp.relay.leases import RelayLimits
from egtp.tcp.throttling import Rates
from egtp.values.comm_strat import Address
from egtp.values.identity import Identity

__all__ = [
    "check_dial_from",
    "check_parts",
    "parse_addresses",
    "parse_announced",
    "parse_rates",
]


def check_parts(
    identity: object,
    *,
    lookup: object,
    friends: object,
    discovery: object,
    relay_server: object,
    config: object,
    environment: object,
    observer: object,
    admit: object,
) -> None:
    """Raises :class:`InvalidConfig` for a part of the wrong type."""
    if isinstance(discovery, type):
        name = discovery.__name__
        raise InvalidConfig(f"discovery must be an instance, not the class: write {name}()")
    if not isinstance(identity, Identity | IdentityFile):
        raise InvalidConfig(
            f"identity must be an Identity or an open IdentityFile, not {identity!r}"
        )
    if isinstance(lookup, Friends):
        raise InvalidConfig("pass Friends as friends=, not as lookup=")
    if lookup is not None:
        check_service("lookup", lookup)
    if friends is not None and not isinstance(friends, Friends):
        raise InvalidConfig(f"friends must be a Friends, not {friends!r}")
    if discovery is not None and not hasattr(discovery, "meet_relay_servers"):
        raise InvalidConfig(f"discovery must be a discovery service, not {discovery!r}")
    if not isinstance(relay_server, bool | RelayLimits | None):
        raise InvalidConfig(
            f"relay_server must be True, False or RelayLimits, not {relay_server!r}"
        )
    if not isinstance(config, NodeConfig | None):
        raise InvalidConfig(f"config must be a NodeConfig, not {config!r}")
    _check_publish_timeout(lookup, config or NodeConfig())
    if not isinstance(environment, Environment | None):
        raise InvalidConfig(f"environment must be an Environment, not {environment!r}")
    _check_function("observer", observer, takes="events")
    _check_function("admit", admit, takes="a peerId")


def _check_function(name: str, function: object, *, takes: str) -> None:
    if function is not None and not callable(function):
        raise InvalidConfig(f"{name} must be a function that takes {takes}, not {function!r}")
    if iscoroutinefunction(function):
        raise InvalidConfig(f"{name} must be a plain function: it is called, not awaited")


def _check_publish_timeout(lookup: object, config: NodeConfig) -> None:
    most_s = 0.8 * config.lookup_timeout_s
    if isinstance(lookup, LookupChain) and lookup.publish_timeout_s > most_s:
        raise InvalidConfig(
            f"publish_timeout_s of a {type(lookup).__name__} must be at most {most_s:g}, since "
            f"lookup_timeout_s is {config.lookup_timeout_s:g}: otherwise a service that takes "
            f"{lookup.publish_timeout_s:g} s would void what another one has stored"
        )


def check_dial_from(address: str | None) -> None:
    """Raises :class:`InvalidConfig` for anything but an IP address or None."""
    try:
        if address is not None:
            ipaddress.ip_address(str(address))
    except ValueError:
        raise InvalidConfig(
            f"dial_from must be an IP address of this machine, without a port, not {address!r}"
        ) from None


def parse_addresses(texts: str | Sequence[str]) -> list[Address]:
    """Raises :class:`InvalidConfig` for anything but one address, or several, as text."""
    texts = [texts] if isinstance(texts, str) else texts
    if not (isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)):
        raise InvalidConfig(f"addresses must be strings of the form IP:PORT, not {texts!r}")
    return [Address.parse(text) for text in texts]


def parse_announced(texts: str | Sequence[str]) -> list[Address]:
    """The same, for addresses that others are to dial."""
    addresses = parse_addresses(texts)
    for address in addresses:
        if not address.port or why_not_dial(address, private_addresses=True) is not None:
            raise InvalidConfig(f"nobody can dial {address}: announce an address of this machine")
    return addresses


def parse_rates(send: float | None, receive: float | None) -> Rates:
    """Raises :class:`LocalProtocolError` for anything but rates or None."""
    for rate in (send, receive):
        if rate is None:
            continue
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise LocalProtocolError(f"a rate must be a number of bytes per second, not {rate!r}")
        if not 0 < rate < math.inf:
            raise LocalProtocolError(
                f"a rate must be above 0 and finite, not {rate!r}; None means no limit"
            )
    return Rates(send, receive)

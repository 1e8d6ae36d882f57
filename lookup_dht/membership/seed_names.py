"""The nodes that a user named to join through, and where those are that have a host name."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Final

from lookup_dht.protocol.acquaintance import Acquaintances
from lookup_dht.settings import NodeSettings
from lookup_dht.wire.contact import LAB_HINT, SocketAddress, pack_ip

__all__ = ["SeedNames"]

log = logging.getLogger("lookup_dht")

ADDRESSES_MAX: Final = 8
"""Addresses used per name: one that resolves to hundreds would cost as many pings."""


class SeedNames:
    """The seeds of one node. All of their addresses that are known are in
    ``acquaintances.seeds``."""

    def __init__(
        self,
        seeds: Iterable[SocketAddress],
        acquaintances: Acquaintances,
        settings: NodeSettings,
        counters: Counter[str],
    ) -> None:
        """The hosts of ``seeds`` are IP addresses, or names if the settings can resolve them."""
        seeds = tuple(seeds)
        self.is_empty: Final = not seeds
        self._literal = [seed for seed in seeds if pack_ip(seed[0]) is not None]
        self._names = [seed for seed in seeds if pack_ip(seed[0]) is None]
        self._found: dict[SocketAddress, list[SocketAddress]] = {}
        """What each name stood for when it last resolved."""
        self._refused: set[SocketAddress] = set()
        """Names whose refused addresses have been reported."""
        self._acquaintances = acquaintances
        self._settings = settings
        self._counters = counters
        self._make_known()

    @property
    def names(self) -> list[SocketAddress]:
        """Those that can be resolved."""
        return self._names if self._settings.resolve_name is not None else []

    async def resolve(self, name: SocketAddress) -> list[SocketAddress]:
        """Where the nodes of that name are now; empty if it does not resolve."""
        assert self._settings.resolve_name is not None  # noqa: S101
        try:
            found = await self._settings.resolve_name(*name)
        except Exception:
            # Whatever a resolver raises. What the name last stood for may still be right.
            self._counters["seed_name_not_resolved"] += 1
            return []
        self._found[name] = self._allowed(name, found)[:ADDRESSES_MAX]
        self._make_known()
        return self._found[name]

    @property
    def unresolved(self) -> str:
        """Which names have never resolved, in words; empty if all have."""
        missing = dict.fromkeys(name[0] for name in self._names if name not in self._found)
        if not missing:
            return ""
        return f"{', '.join(missing)} {'does' if len(missing) == 1 else 'do'} not resolve"

    def _make_known(self) -> None:
        named = (address for addresses in self._found.values() for address in addresses)
        self._acquaintances.seeds = dict.fromkeys((*self._literal, *named))

    def _allowed(self, name: SocketAddress, found: list[SocketAddress]) -> list[SocketAddress]:
        """The addresses of ``name`` at which a node may be. The first one refused is logged, once
        per name; a literal address would have been rejected at construction."""
        may_be_node = self._acquaintances.may_be_node
        refused = [address for address in found if not may_be_node(pack_ip(address[0]))]
        if refused:
            self._counters["seed_address_refused"] += len(refused)
        if refused and name not in self._refused:
            self._refused.add(name)
            lab = "" if self._settings.private_addresses else LAB_HINT
            log.warning(
                "%s:%d resolves to %s, which cannot be the address of a node on the Internet%s",
                *name,
                refused[0][0],
                lab,
            )
        return [address for address in found if address not in refused]

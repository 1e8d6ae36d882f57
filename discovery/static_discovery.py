"""A discovery service whose relay servers never change: for simulations, and for applications that
bring their own."""

from __future__ import annotations

from collections.abc import Iterable

from discovery.audience import Audience
from egtp.discovery_service import Introduce, Introduction
from egtp.errors import InvalidConfig

__all__ = ["StaticDiscovery"]


class StaticDiscovery:
    """Introduces the same relay servers once to every listener that asks (R10). It belongs to the
    event loop on which it is first called."""

    def __init__(self, introductions: Iterable[Introduction]) -> None:
        """Raises :class:`InvalidConfig` for anything but introductions."""
        introductions = tuple(introductions)
        for one in introductions:
            if not isinstance(one, Introduction):
                raise InvalidConfig(f"introductions must be a list of Introduction, not of {one!r}")
        self._audience = Audience(introductions)

    def meet_relay_servers(self, introduce: Introduce) -> None:
        """See :class:`egtp.DiscoveryService`."""
        self._audience.admit(introduce)

    def forget(self, introduce: Introduce) -> None:
        """See :class:`egtp.DiscoveryService`."""
        self._audience.dismiss(introduce)

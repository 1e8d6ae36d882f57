"""The scenarios: each tells a story, and checks every sentence of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from simulations.scenario import Scenario
from simulations.scenarios.fast_fail import fast_fail
from simulations.scenarios.ip_change import ip_change
from simulations.scenarios.relay_fallback import relay_fallback

__all__ = ["SCENARIOS", "fast_fail", "ip_change", "relay_fallback"]

_ALL: Final = (
    Scenario("ip-change", "a peer moves to another address in mid-conversation", ip_change),
    Scenario("relay-fallback", "a peer's direct path goes away", relay_fallback),
    Scenario("fast-fail", "a peer is gone, and the caller hears why at once", fast_fail),
)

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType({s.name: s for s in _ALL})
"""All of them by name, in the order in which they are told."""

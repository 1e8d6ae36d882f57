"""The scenarios: each tells a story, and checks every claim in it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from simulations.scenario import Scenario
from simulations.scenarios.churn import churn
from simulations.scenarios.fast_fail import fast_fail
from simulations.scenarios.flash_crowd import flash_crowd
from simulations.scenarios.ip_change import ip_change
from simulations.scenarios.partition import partition
from simulations.scenarios.relay_fallback import relay_fallback
from simulations.scenarios.relay_massacre import relay_massacre
from simulations.scenarios.rolling_ip import rolling_ip
from simulations.scenarios.sleepers import sleepers
from simulations.scenarios.stale_records import stale_records

__all__ = [
    "SCENARIOS",
    "churn",
    "fast_fail",
    "flash_crowd",
    "ip_change",
    "partition",
    "relay_fallback",
    "relay_massacre",
    "rolling_ip",
    "sleepers",
    "stale_records",
]

_ALL: Final = (
    Scenario("ip-change", "a peer moves to another address in mid-conversation", ip_change),
    Scenario("relay-fallback", "a peer's direct path goes away", relay_fallback),
    Scenario("fast-fail", "a peer is gone, and the caller hears why at once", fast_fail),
    Scenario("churn", "nodes come and go while others talk", churn, virtual_only=True),
    Scenario("rolling-ip", "half of the peers move, one by one", rolling_ip, virtual_only=True),
    Scenario(
        "relay-massacre", "the relays of a hidden peer die", relay_massacre, virtual_only=True
    ),
    Scenario("partition", "the network splits in two", partition, virtual_only=True),
    Scenario("sleepers", "laptops fall asleep, and wake up", sleepers, virtual_only=True),
    Scenario("stale-records", "old records circulate", stale_records, virtual_only=True),
    Scenario("flash-crowd", "everybody asks one peer at once", flash_crowd, virtual_only=True),
)

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType({s.name: s for s in _ALL})
"""All scenarios by name, in the order in which they are played."""

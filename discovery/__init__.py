"""Discovery services: how a node learns of relay servers (seed I.C, R10 and R11).

:class:`DiscoveryMan` reads a file that the user may edit while the program runs;
:class:`StaticDiscovery` introduces a fixed list. Both implement :class:`egtp.DiscoveryService`.
"""

from __future__ import annotations

from discovery.discovery_man import DiscoveryMan
from discovery.relay_file import FILE_BYTES_MAX, RELAYS_MAX, parse_relay_file
from discovery.static_discovery import StaticDiscovery

__all__ = [
    "DiscoveryMan",
    "StaticDiscovery",
    "parse_relay_file",
    "FILE_BYTES_MAX",
    "RELAYS_MAX",
]

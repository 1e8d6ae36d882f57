"""The EGTP Lookup Service over Kademlia: signed records in a hardened DHT.

``DHTLookup`` is what an engine is given; ``python -m lookup_dht`` runs a node for others to join
through. The ``kademlia`` package is the base. It is seen by the modules named ``kademlia_*`` only,
which replace what cannot stand a hostile network: its datagram path, walk, table and refresh.
"""

from lookup_dht.kept_state import KeptState
from lookup_dht.names import system_names
from lookup_dht.service import DHTLookup
from lookup_dht.settings import DHTLimits

__all__ = ["DHTLimits", "DHTLookup", "KeptState", "system_names"]
